"""The walk itself: which step comes when, and what is still worth looking at when one has failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from lorabridge.upstream import tls
from lorabridge.upstream.doctor import network
from lorabridge.upstream.doctor.handshake import Patience, shake_hands
from lorabridge.upstream.doctor.network import Address
from lorabridge.upstream.doctor.own_things import look_at_own_things
from lorabridge.upstream.doctor.session import Subject, examine
from lorabridge.upstream.doctor.steps import Finding, Outcome, Step, failed
from lorabridge.upstream.doctor.tls_steps import look_at_tls
from lorabridge.upstream.doctor.witnesses import (
    SKEW_TOO_LARGE,
    SKEW_WORTH_TELLING,
    date_of_endpoint,
    kernel_is_synchronised,
)
from lorabridge.upstream.faults import LinkFault
from lorabridge.upstream.tls import TlsSettings

_NEEDED_FOR_TLS = (Step.CLOCK, Step.ROOTS, Step.CERTIFICATE, Step.KEY)

_NO_ROUTE = "This machine has no network that leads there: is the cable in, the modem up, is there a default route?"
_SPARE = "Nothing needs it now; it is the way out where a network blocks 8883."


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What of this machine and its time is asked; tests bring their own."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    is_synchronised: Callable[[], bool | None] = kernel_is_synchronised
    patience: Patience = Patience()
    other: tuple[str, int] | None = None
    """Where the port that is not configured is dialled; None where there is no such place."""


def other_way(settings: TlsSettings) -> tuple[str, int] | None:
    """The endpoint at the port that is not configured; None when `connect_address` says to dial nothing else."""
    return None if settings.connect_address else (settings.endpoint, _other_port(settings))


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
    addresses = yield from _look_up(settings, around.patience)
    if not addresses:
        return
    address = yield from _reach(settings, addresses, around)
    if address is None or broken.intersection(_NEEDED_FOR_TLS):
        return
    is_open = yield from look_at_tls(settings, address, around.patience, _behind(settings, around))
    other = yield from _other_port_too(settings, around)
    https = address if settings.port == 443 else other
    if https is not None:
        yield _skew(settings, https, around)
    if not is_open:
        return
    yield from _session(subject, around.patience) if instead is None else instead


def _look_up(settings: TlsSettings, patience: Patience) -> Generator[Finding, None, list[Address]]:
    host, port = settings.address
    begun = time.monotonic()
    try:
        addresses = network.look_up(host, port, patience.look_up)
    except (OSError, UnicodeError) as error:
        asked = network.resolvers()
        beside = f"; name servers asked: {asked}" if asked else ""
        yield failed(LinkFault.NAME_NOT_RESOLVED, f"{host}: {getattr(error, 'strerror', None) or error}{beside}")
        return []
    if tls.is_ip_literal(host):
        yield Finding(Step.DNS, Outcome.OK, f"connect_address is {host}: nothing to look up")
        return addresses
    listed = ", ".join(address.host for address in addresses[:4])
    says = f"{host} has {len(addresses)} address(es): {listed}"
    if not settings.connect_address and any(network.is_no_real_address(address.host) for address in addresses):
        fix = "A filter or a portal answers for it: ask another name server, or look into /etc/hosts"
        yield Finding(Step.DNS, Outcome.WARNING, f"{says}, which is no machine of AWS", fix)
    else:
        yield Finding(Step.DNS, Outcome.OK, says, seconds=time.monotonic() - begun)
    return addresses


def _reach(
    settings: TlsSettings, addresses: list[Address], around: Surroundings
) -> Generator[Finding, None, Address | None]:
    """Route and port; the first address that answers."""
    sources: dict[Address, str] = {}
    without: list[str] = []
    for address in addresses:
        try:
            sources[address] = network.source_for(address)
        except OSError as error:
            without.append(f"{address.host}: {error.strerror or error}")
    if not sources:
        yield failed(LinkFault.UNREACHABLE, "; ".join(without), step=Step.ROUTE, fix=_NO_ROUTE)
        return None
    chosen = next(iter(sources))
    beside = f"; none to {'; '.join(without)}" if without else ""
    yield Finding(Step.ROUTE, Outcome.OK, f"to {chosen.host} from {sources[chosen]}{beside}")
    unanswered: list[str] = []
    for address in sources:
        seconds = _seconds_to(address, around.patience, unanswered)
        if seconds is not None:
            says = f"{address} answers after {seconds * 1000:.0f} ms"
            if unanswered:
                yield Finding(Step.TCP, Outcome.WARNING, f"{says}; {'; '.join(unanswered)}", LinkFault.UNREACHABLE.hint)
            else:
                yield Finding(Step.TCP, Outcome.OK, says, seconds=seconds)
            return address
    fix = ""
    if around.other is not None and _reachable(around.other, around.patience) is not None:
        fix = f"Port {_other_port(settings)} answers: set `port = {_other_port(settings)}` in [aws_iot]."
    yield failed(LinkFault.UNREACHABLE, "; ".join(unanswered), fix=fix)
    return None


def _seconds_to(address: Address, patience: Patience, unanswered: list[str]) -> float | None:
    """How long the port took to answer; when it does not, why not is appended."""
    try:
        sock, seconds = network.dial(address, patience.connect)
    except TimeoutError:
        unanswered.append(f"{address} has not answered within {patience.connect:g} s, as if a firewall swallowed it")
    except OSError as error:
        unanswered.append(f"{address}: {error.strerror or error}")
    else:
        sock.close()
        return seconds
    return None


def _reachable(way: tuple[str, int], patience: Patience) -> Address | None:
    """The first address of a way that answers."""
    try:
        addresses = network.look_up(*way, patience.look_up)
    except (OSError, UnicodeError):
        return None
    return next((address for address in addresses if _seconds_to(address, patience, []) is not None), None)


def _other_port(settings: TlsSettings) -> int:
    return 8883 if settings.port == 443 else 443


def _other_port_too(settings: TlsSettings, around: Surroundings) -> Generator[Finding, None, Address | None]:
    """Whether the other port would do as well; its address when it answers at all."""
    port = _other_port(settings)
    if around.other is None:
        yield Finding(Step.OTHER_PORT, Outcome.SKIPPED, "connect_address says to dial nothing else")
        return None
    address = _reachable(around.other, around.patience)
    if address is None:
        fault, detail = LinkFault.UNREACHABLE, f"port {port}"
    else:
        there = msgspec.structs.replace(settings, port=port)
        try:
            shake = shake_hands(there, address, around.patience, _behind(settings, around))
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


def _skew(settings: TlsSettings, address: Address, around: Surroundings) -> Finding:
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


def _behind(settings: TlsSettings, around: Surroundings) -> Callable[[], bool]:
    return lambda: tls.is_behind(settings, around.now().timestamp())
