"""What one handshake says about each of its steps, and a second one where the first leaves it open."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator

import msgspec

from lorabridge.errors import ConfigError
from lorabridge.upstream import tls
from lorabridge.upstream.doctor.handshake import Patience, Shake, shake_hands
from lorabridge.upstream.doctor.network import Address
from lorabridge.upstream.doctor.steps import STEP_OF, Finding, Outcome, Step, failed, of_problems
from lorabridge.upstream.doctor.witnesses import amazon_roots, describe_certificate
from lorabridge.upstream.faults import LinkDown, LinkFault, fault_of_tls_reason
from lorabridge.upstream.tls import TlsSettings

_UP_TO_HELLO = (Step.TLS, Step.SNI, Step.VERSION, Step.SUITES)
"""What is in order when the endpoint has sent its ServerHello, as far as it comes before the step that failed."""
_ABOUT_THE_SERVER = (Step.CHAIN, Step.SERVER_NAME, Step.SERVER_DATES)
_NOT_AMAZON = (
    "Leave only the Amazon root CAs 1 to 4 in `ca_file`: whoever can sign for one of the others may be in between."
)
_OLD = "AWS IoT speaks 1.2 and 1.3: what answers is something else, or a middlebox is in between."
_NO_SUITE = "Neither the four suites nor all 18 of AWS IoT will do: what answers is something else, or in between."


def look_at_tls(
    settings: TlsSettings, address: Address, patience: Patience, clock_is_unset: Callable[[], bool]
) -> Generator[Finding, None, bool]:
    """Every step of the handshake; whether MQTT may begin."""

    def shake(**changes: str) -> Shake:
        return shake_hands(msgspec.structs.replace(settings, **changes), address, patience, clock_is_unset)

    try:
        first = shake()
    except ConfigError as error:  # the files were in order a moment ago: OpenSSL itself
        yield of_problems(Step.TLS, error.problems, "")
        return False
    except OSError as error:
        yield failed(LinkFault.TLS_CLOSED, f"the port answered once, and then: {error.strerror or error}")
        return False
    if first.down is None:
        return (yield from _all_of_it(settings, first, shake))
    yield from _failed(settings, first, shake)
    return False


def _all_of_it(settings: TlsSettings, shake: Shake, again: Callable[..., Shake]) -> Generator[Finding, None, bool]:
    """The steps of a handshake that came to its end."""
    yield Finding(Step.TLS, Outcome.OK, f"a handshake takes {shake.seconds * 1000:.0f} ms", seconds=shake.seconds)
    yield Finding(Step.SNI, Outcome.OK, f"{settings.endpoint} is known there")
    if settings.alpn:
        if shake.protocol != tls.ALPN_MQTT:
            yield failed(LinkFault.ALPN_REFUSED, "nothing was chosen of it")
            return False
        yield Finding(Step.ALPN, Outcome.OK, f"{tls.ALPN_MQTT} is taken")
    yield Finding(Step.VERSION, Outcome.OK, shake.version)
    yield _suites(settings, shake)
    yield _chain(settings, shake, again)
    yield Finding(Step.SERVER_NAME, Outcome.OK, settings.endpoint)
    yield Finding(Step.SERVER_DATES, Outcome.OK, "valid now")
    if shake.hung_up is None:
        yield Finding(Step.CLIENT_CERTIFICATE, Outcome.OK, "the endpoint has not hung up on it")
        return True
    fault = fault_of_tls_reason(shake.hung_up) or LinkFault.CLIENT_CERTIFICATE_REFUSED
    detail = f"it hung up after the handshake, before we had said anything: {shake.hung_up}"
    yield failed(fault, detail, step=Step.CLIENT_CERTIFICATE)
    return False


def _chain(settings: TlsSettings, shake: Shake, again: Callable[..., Shake]) -> Finding:
    """Who signed the endpoint's certificate; where others than Amazon may, a second handshake trusts Amazon only."""
    amazon, others = amazon_roots(settings.ca_file)
    whose = describe_certificate(shake.leaf)
    if not amazon:
        return Finding(Step.CHAIN, Outcome.OK, f"{whose}; trusted by `ca_file`")
    if others:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(b"".join(amazon.values()))
            file.flush()
            second = again(ca_file=file.name)
        if second.down is not None:
            says = f"`ca_file` makes us trust it, and no Amazon root CA does ({second.down.detail}); it is {whose}"
            return Finding(Step.CHAIN, Outcome.WARNING, says, _NOT_AMAZON)
    return Finding(Step.CHAIN, Outcome.OK, f"{whose}; an Amazon root CA is at the end of its chain")


def _suites(settings: TlsSettings, shake: Shake) -> Finding:
    wanted = tls.RECOMMENDED_SUITES if settings.cipher_profile == "recommended" else tls.AWS_SUITES
    says = f"{len(shake.offered)} offered, {shake.suite} chosen"
    if missing := [suite for suite in wanted if suite not in shake.offered]:
        fix = "A policy of this machine's OpenSSL (security level, openssl.cnf) keeps them back."
        return Finding(Step.SUITES, Outcome.WARNING, f"{says}; not offered: {', '.join(missing)}", fix)
    return Finding(Step.SUITES, Outcome.OK, says)


def _failed(settings: TlsSettings, shake: Shake, again: Callable[..., Shake]) -> Iterator[Finding]:
    """The steps up to the one that failed, and that."""
    fix = ""
    if shake.down is not None and shake.down.fault is LinkFault.TLS_REFUSED:
        shake, fix = _which_suites(settings, shake, again)
    down = shake.down or LinkDown(None)
    fault = down.fault or LinkFault.TLS_CLOSED
    step = STEP_OF[fault]
    step = Step.TLS if step is Step.TCP else step
    if shake.transcript.version:
        order = list(Step)
        for before in _UP_TO_HELLO:
            if order.index(before) < order.index(step):
                yield Finding(before, Outcome.OK, _until_hello(settings, shake)[before])
    detail = down.detail
    if fault is LinkFault.TLS_VERSION:
        detail, fix = _which_version(settings, shake, again)
    elif step in _ABOUT_THE_SERVER and (whose := describe_certificate(shake.leaf)):
        detail = f"{detail}; it is {whose}"
    yield failed(fault, detail, step=step, fix=fix)


def _until_hello(settings: TlsSettings, shake: Shake) -> dict[Step, str]:
    return {
        Step.TLS: "the other side speaks it",
        Step.SNI: f"{settings.endpoint} was not refused",
        Step.VERSION: shake.transcript.version,
        Step.SUITES: f"{len(shake.offered)} offered, one was chosen",
    }


def _which_version(settings: TlsSettings, shake: Shake, again: Callable[..., Shake]) -> tuple[str, str]:
    """What it speaks then, and what to do."""
    if shake.transcript.version:
        return f"it speaks {shake.transcript.version}", _OLD
    if settings.tls_max == "1.2" and again(tls_max="1.3").transcript.version == "TLS 1.3":
        return "it speaks TLS 1.3 only", 'Set `tls_max = "1.3"` in [aws_iot]: with that the endpoint answers.'
    return (shake.down or LinkDown(None)).detail, _OLD


def _which_suites(settings: TlsSettings, refused: Shake, again: Callable[..., Shake]) -> tuple[Shake, str]:
    """What to do when the endpoint refused before it had chosen a suite, and the handshake that tells it."""
    if settings.cipher_profile == "aws-compatible":
        return refused, _NO_SUITE
    second = again(cipher_profile="aws-compatible")
    if second.down is not None and second.down.fault is LinkFault.TLS_VERSION:  # it has old suites, for an old version
        return second, ""
    if second.transcript.version:
        return refused, 'Set `cipher_profile = "aws-compatible"` in [aws_iot]: with that the endpoint answers.'
    return refused, _NO_SUITE
