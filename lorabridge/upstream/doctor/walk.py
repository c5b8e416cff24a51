"""The walk itself: which step comes when, and what is still worth looking at when one has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta

import msgspec

from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.doctor.handshake import Patience, shake_hands
from lorabridge.upstream.doctor.network import Address
from lorabridge.upstream.doctor.own_things import look_at_own_things
from lorabridge.upstream.doctor.reach import Surroundings, behind, look_up, other_port, port_of, reach, reachable
from lorabridge.upstream.doctor.session import Subject, examine
from lorabridge.upstream.doctor.steps import Finding, Outcome, Step, failed
from lorabridge.upstream.doctor.tls_steps import look_at_tls
from lorabridge.upstream.doctor.websocket_steps import look_at_websocket
from lorabridge.upstream.doctor.witnesses import SKEW_TOO_LARGE, SKEW_WORTH_TELLING, date_of_endpoint
from lorabridge.upstream.faults import LinkFault

_NEEDED_FOR_TLS = (Step.CLOCK, Step.ROOTS, Step.CERTIFICATE, Step.KEY)

_SPARE = "Nothing needs it now; it is the way out where a network blocks 8883."


def other_way(settings: AwsIotSettings) -> tuple[str, int] | None:
    """The endpoint at the port that is not configured; None when `connect_address` says to dial nothing else."""
    return None if settings.connect_address else (settings.endpoint, other_port(settings))


def walk(subject: Subject, around: Surroundings, instead: Iterable[Finding] | None) -> Iterator[Finding]:
    """What is found from the clock to the last PUBACK, each as soon as it is known.

    `instead`: what somebody else knows of the MQTT steps, so that nobody has to connect; None: connect.
    """
    settings = subject.settings
    broken: set[Step] = set()
    for finding in look_at_own_things(settings, around.now(), around.is_synchronised):
        if finding.outcome is Outcome.FAILED:
            broken.add(finding.step)
        yield finding
    addresses = yield from look_up(settings, around.patience)
    if not addresses:
        return
    address = yield from reach(settings, addresses, around)
    if address is None or broken.intersection(_NEEDED_FOR_TLS):
        return
    is_open = yield from _tls(settings, address, around)
    other = yield from _other_port_too(settings, around)
    https = address if port_of(settings) == 443 else other
    if https is not None:
        yield _skew(settings, https, around)
    if not is_open:
        return
    if settings.transport == "websocket":
        target = yield from look_at_websocket(settings, address, around)
        if target is None:
            return
        subject = msgspec.structs.replace(subject, websocket=target)
    yield from _session(subject, around.patience) if instead is None else instead


def _tls(settings: AwsIotSettings, address: Address, around: Surroundings) -> Generator[Finding, None, bool]:
    """The handshake with the endpoint; where a signature says who we are our certificate is no part of it."""
    steps = look_at_tls(settings, address, around.patience, behind(settings, around))
    while True:
        try:
            finding = next(steps)
        except StopIteration as end:
            return bool(end.value)
        shows = settings.transport == "tls" or finding.step is not Step.CLIENT_CERTIFICATE
        if shows or finding.outcome is not Outcome.OK:
            yield finding
        else:
            yield Finding(finding.step, Outcome.SKIPPED, "a WebSocket is signed: see role: certificate")


def _other_port_too(settings: AwsIotSettings, around: Surroundings) -> Generator[Finding, None, Address | None]:
    """Whether the other port would do as well; its address when it answers at all."""
    port = other_port(settings)
    if around.other is None:
        yield Finding(Step.OTHER_PORT, Outcome.SKIPPED, "connect_address says to dial nothing else")
        return None
    address = reachable(around.other, around.patience)
    if address is None:
        fault, detail = LinkFault.UNREACHABLE, f"port {port}"
    else:
        there = msgspec.structs.replace(settings, port=port, transport="tls")
        try:
            shake = shake_hands(there, address, around.patience, behind(settings, around))
        except OSError as error:
            fault, detail = LinkFault.UNREACHABLE, f"port {port}: {error}"
        else:
            if shake.down is None and (port != 443 or shake.protocol == tls.ALPN_MQTT):
                yield Finding(Step.OTHER_PORT, Outcome.OK, f"port {port} would do as well")
                return address
            down = shake.down
            fault = LinkFault.ALPN_REFUSED if down is None or down.fault is None else down.fault
            detail = f"port {port}" + ("" if down is None else f": {down.detail}")
    finding = failed(fault, detail, step=Step.OTHER_PORT)
    outcome = Outcome.WARNING if port == 443 else Outcome.OK  # where 8883 is closed 443 is used
    yield msgspec.structs.replace(finding, outcome=outcome, fix=_SPARE if port == 443 else "", fault=None)
    return address


def _skew(settings: AwsIotSettings, address: Address, around: Surroundings) -> Finding:
    """Our clock against the endpoint's."""
    before = around.now()
    date = date_of_endpoint(settings, address, around.patience)
    if date is None:
        return Finding(Step.CLOCK_SKEW, Outcome.SKIPPED, "the endpoint tells no time on port 443")
    after = around.now()
    skew = max(before - date, timedelta()) or min(after - date, timedelta())
    says = f"our clock is {_span(skew)} {'ahead of' if before > date else 'behind'} the endpoint's"
    fix = f"The endpoint says {date:%Y-%m-%d %H:%M:%S} UTC: synchronise the clock (timedatectl set-ntp true)."
    if abs(skew) >= SKEW_TOO_LARGE:
        return Finding(Step.CLOCK_SKEW, Outcome.FAILED, says, fix)
    if abs(skew) >= SKEW_WORTH_TELLING:
        return Finding(Step.CLOCK_SKEW, Outcome.WARNING, says, fix)
    return Finding(Step.CLOCK_SKEW, Outcome.OK, f"{_span(skew)} against the endpoint's Date")


def _span(difference: timedelta) -> str:
    """Seconds, and what they are in days and hours when they are many."""
    seconds = round(abs(difference.total_seconds()))
    return f"{seconds} s" if seconds < 120 else f"{seconds} s ({timedelta(seconds=seconds)})"


def _session(subject: Subject, patience: Patience) -> Iterator[Finding]:
    """The MQTT steps; the loop runs only while one of them is under way."""
    steps = examine(subject, patience)

    async def take() -> Finding | None:
        return await anext(steps, None)

    with asyncio.Runner() as runner:
        try:
            while (finding := runner.run(take())) is not None:
                yield finding
        finally:
            runner.run(steps.aclose())
