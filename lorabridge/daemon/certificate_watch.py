"""What is told of our own certificate: that it was replaced, that a new one was refused, that it ends soon."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from lorabridge.daemon.log import Facts
from lorabridge.upstream.faults import LinkDown
from lorabridge.upstream.link import LinkReport

_FACTS = Facts(logging.getLogger(__name__))
_DAY = timedelta(days=1)


class Link(Protocol):
    """What is asked of the link."""

    @property
    def certificate_valid_until(self) -> datetime | None:
        """When the certificate in use expires, UTC."""

    def tell(self, detail: str) -> None:
        """Publish our status with a detail."""


class CertificateWatch:
    """Says once a day that the certificate ends soon; `clock` gives seconds since the Unix epoch."""

    def __init__(self, warn_before: float, clock: Callable[[], float]) -> None:
        """`warn_before`: seconds before the end."""
        self._warn_before = timedelta(seconds=warn_before)
        self._clock = clock
        self._told: tuple[datetime, datetime] | None = None

    def judged(self, refusal: LinkDown | None) -> None:
        """A new certificate proved itself (None), or is not used."""
        if refusal is None or refusal.fault is None:
            _FACTS.info("the new certificate proved itself and is in use")
        else:
            _FACTS.error(
                "the new certificate is not used, the one before it stays",
                fault=refusal.fault,
                detail=refusal.detail,
                hint=refusal.fault.hint,
            )

    def look(self, link: Link) -> None:
        """To be called often."""
        until = link.certificate_valid_until
        now = datetime.fromtimestamp(self._clock(), UTC)
        if until is None or now < until - self._warn_before:
            return
        if self._told is not None and self._told[0] == until and now < self._told[1] + _DAY:
            return
        self._told = (until, now)
        _FACTS.warning(
            "our certificate ends soon, replace it: the files are taken over by themselves",
            expires=f"{until:%Y-%m-%dT%H:%M:%SZ}",
            days_left=days_left(until, now),
        )
        link.tell(f"certificate expires on {until:%Y-%m-%d}")


def certificate_facts(report: LinkReport, until: datetime | None) -> dict[str, str]:
    """What `lorabridge status` says of the certificate; nothing as long as none proved itself."""
    if until is None:
        return {}
    state = "the new one was refused, the one before it is in use" if report.rolled_back else "in use"
    return {"certificate": state, "certificate_expires": f"{until:%Y-%m-%dT%H:%M:%SZ}"}


def days_left(until: datetime, now: datetime) -> int:
    """Whole days; below 0 when it is over."""
    return (until - now) // _DAY
