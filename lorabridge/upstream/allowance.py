"""What the account's quotas leave us: publishes and bytes a second, and a call when there is some again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lorabridge.upstream.link_settings import MAX_PAYLOAD, LinkSettings
from lorabridge.upstream.pacing import TokenBucket


class Allowance:
    """The rate at which one client id publishes and is published to, over all its connections."""

    def __init__(self, settings: LinkSettings, ready: Callable[[], None], *, with_commands: bool) -> None:
        """`ready` is called when what was not allowed may be asked again. Commands count as our own publishes do."""
        rate, bytes_rate = settings.max_publishes_per_second, settings.max_bytes_per_second
        # A quarter of a second's worth at once: 80 + 20 is what AWS IoT takes in any one second. Commands count too.
        self._publishes = TokenBucket(rate, max(1.0, rate / (8 if with_commands else 4)))
        self._bytes = TokenBucket(bytes_rate, max(MAX_PAYLOAD, bytes_rate / 4))
        self._ready = ready
        self._wake: asyncio.TimerHandle | None = None

    def allows(self, size: int, *, patient: bool) -> bool:
        """Whether `size` bytes may be published now; if not, `ready` is called in time.

        A `patient` one leaves something for those that are not.
        """
        now = time.monotonic()
        wait = max(self._publishes.wait(1, now, patient=patient), self._bytes.wait(size, now, patient=patient))
        if wait > 0:
            self._wake_in(wait)
        return wait <= 0

    def take(self, size: int) -> None:
        """A publish of `size` bytes, in either direction."""
        self._publishes.take(1)
        self._bytes.take(size)

    def stop(self) -> None:
        """Call nobody any more."""
        if self._wake is not None:
            self._wake.cancel()

    def _wake_in(self, seconds: float) -> None:
        """For whoever may go first: the others ask again."""
        loop = asyncio.get_running_loop()
        if self._wake is not None:
            if self._wake.when() <= loop.time() + seconds:
                return
            self._wake.cancel()
        self._wake = loop.call_later(seconds, self._call)

    def _call(self) -> None:
        self._wake = None
        self._ready()
