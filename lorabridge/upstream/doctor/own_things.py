"""What can be looked at without a network: our clock and our three files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from lorabridge.errors import Problem
from lorabridge.upstream import tls
from lorabridge.upstream.doctor.steps import Finding, Outcome, Step, failed, of_problems
from lorabridge.upstream.doctor.witnesses import amazon_roots
from lorabridge.upstream.faults import LinkFault
from lorabridge.upstream.tls import TlsSettings
from lorabridge.upstream.validity import validity_of_file

_INSTALL_ROOTS = "Put the Amazon root CAs 1 to 4 there (docs/aws.md); the cipher suite decides between 1 and 3"
_SYNCHRONISE = "Enable time synchronisation: timedatectl set-ntp true"


def look_at_own_things(
    settings: TlsSettings, now: datetime, is_synchronised: Callable[[], bool | None]
) -> Iterator[Finding]:
    """Clock, roots, certificate, key, dates."""
    form = tls.check_files(settings)
    yield _clock(settings, now, is_synchronised)
    roots = _at(settings.ca_file, form)
    yield of_problems(Step.ROOTS, roots, "") if roots else _roots(settings)
    yield of_problems(Step.CERTIFICATE, _at(settings.certificate_file, form), settings.certificate_file)
    key = settings.private_key_file
    yield of_problems(Step.KEY, _at(key, form), f"{key} is private and fits the certificate")
    if not tls.is_behind(settings, now.timestamp()) and not _at(settings.certificate_file, form):
        dates = [problem for problem in tls.check_files(settings, now) if problem not in form]
        until = "" if dates else f"valid until {_not_after(settings):%Y-%m-%d}"
        yield of_problems(Step.EXPIRY, dates, until)


def _clock(settings: TlsSettings, now: datetime, is_synchronised: Callable[[], bool | None]) -> Finding:
    says = f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if tls.is_behind(settings, now.timestamp()):
        return failed(LinkFault.CLOCK_NOT_SET, f"it says {says}")
    match is_synchronised():
        case True:
            return Finding(Step.CLOCK, Outcome.OK, f"{says}, synchronised")
        case False:
            return Finding(Step.CLOCK, Outcome.WARNING, f"{says}, and nobody synchronises it", _SYNCHRONISE)
        case None:
            return Finding(Step.CLOCK, Outcome.OK, f"{says}; whether it is synchronised the kernel does not say")


def _roots(settings: TlsSettings) -> Finding:
    amazon, others = amazon_roots(settings.ca_file)
    beside = f", and {others} others" if others else ""
    if {"1", "3"} <= amazon.keys():
        return Finding(Step.ROOTS, Outcome.OK, f"Amazon Root CA {', '.join(amazon)}{beside}")
    if amazon:
        says = f"{settings.ca_file} holds only Amazon Root CA {', '.join(amazon)}{beside}"
    else:
        says = f"{settings.ca_file} holds none of the Amazon root CAs: whoever answers is not AWS IoT"
    return Finding(Step.ROOTS, Outcome.WARNING, says, _INSTALL_ROOTS)


def _at(path: str, problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.where == path]


def _not_after(settings: TlsSettings) -> datetime:
    return validity_of_file(settings.certificate_file).not_after
