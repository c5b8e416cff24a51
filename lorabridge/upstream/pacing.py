"""How often we may try, and how fast we may publish. Pure: the time is an argument, randomness is injected."""

from __future__ import annotations

import msgspec

from lorabridge.backoff import Backoff


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that AWS IoT sets rather than the operator; tests are quicker."""

    connect_interval: float = 1.0
    """Between two CONNECTs: one a second of one client id."""
    proved_after: float = 20.0
    """Online so long and a PUBACK: only then may the next retry be quick again."""
    certificate_again: float = 3600.0
    """After a certificate was refused: it may only not have been active yet."""
    look_interval: float = 5.0
    """Between two looks at the certificate files."""
    subscribe_again: float = 3600.0
    """After a SUBSCRIBE was refused."""


class ConnectPacing:
    """When the next CONNECT may go: after a back-off, and never two within `interval` seconds.

    The very first goes at once. AWS IoT takes one CONNECT a second of one client id: that is `interval`.
    """

    def __init__(self, backoff: Backoff, interval: float) -> None:
        self._backoff = backoff
        self._interval = interval
        self._last_try: float | None = None

    def delay(self, now: float) -> float:
        """Seconds to wait from `now` until the next try."""
        if self._last_try is None:
            return 0.0
        return max(self._backoff.draw(), self._last_try + self._interval - now)

    def allows(self, now: float) -> bool:
        """Whether a CONNECT may go now beside the connection that works."""
        return self._last_try is None or now >= self._last_try + self._interval

    def tried(self, now: float) -> None:
        """A CONNECT goes now; until `reset` it counts as a failure."""
        if self._last_try is not None:
            self._backoff.failed()
        self._last_try = now

    def note(self, now: float) -> None:
        """A CONNECT goes now beside the connection that works: no failure, but no other may follow at once."""
        self._last_try = now

    def reset(self) -> None:
        """The link has proved itself."""
        self._backoff.reset()


class TokenBucket:
    """`rate` units a second with at most `burst` at once; a rate of 0 is no limit."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 when it may be now. More than a burst waits for a full bucket."""
        if not self._rate:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._burst) - self._tokens) / self._rate)

    def take(self, amount: float) -> None:
        """Take what `wait` allowed; the bucket may owe for what is larger than a burst."""
        self._tokens -= amount
