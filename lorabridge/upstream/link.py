"""What the link says of itself, and whom it tells."""

from __future__ import annotations

from typing import Protocol

import msgspec

from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.inbound import Subscription


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the link is, for health and logs."""

    state: LinkState = LinkState.STOPPED
    fault: LinkFault | None = None
    """Why it went down last; None since it proved itself."""
    detail: str = ""
    since: float = 0.0
    """Seconds since the Unix epoch, by our clock."""
    retry_in: float | None = None
    rolled_back: bool = False
    """Whether the files hold a certificate that was refused, and the one before it is in use."""
    subscription: Subscription = Subscription.OFF
    """Whether commands are received."""


NOT_YOURS = 0
"""A culprit that is no publish of the listener's: nothing of its own is to be suspected."""


class Listener(Protocol):
    """Who has something to publish; every call comes from the loop and returns at once."""

    def acknowledged(self, key: int) -> None:
        """The publish with this key has its PUBACK. `ready` follows before long."""

    def disconnected(self, unacknowledged: list[int], culprit: int | None) -> None:
        """The connection is gone, these publishes with it, the oldest first; `culprit` was refused by name."""

    def ready(self) -> None:
        """There may be room."""
