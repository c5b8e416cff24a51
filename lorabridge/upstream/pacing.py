"""How often we may try, and how fast we may publish. Pure: the time is an argument, randomness is injected."""

from __future__ import annotations

import math

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
        """A CONNECT went at `now`: no failure, but no other may follow at once."""
        self._last_try = now if self._last_try is None else max(self._last_try, now)

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

    def wait(self, amount: float, now: float, *, patient: bool = False) -> float:
        """Seconds until `amount` may be taken; 0 when it may be now. More than a burst waits for a full bucket.

        A `patient` one waits until a quarter of a burst is left over for others, which costs it no rate.
        """
        if not self._rate:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        wanted = amount + (self._burst / 4 if patient else 0.0)
        return max(0.0, (min(wanted, self._burst) - self._tokens) / self._rate)

    def take(self, amount: float) -> None:
        """Take what `wait` allowed; the bucket may owe for what is larger than a burst."""
        self._tokens -= amount


class Crowding:
    """How many bytes may be under way so that nobody else waits long behind them; seconds of any steady clock.

    The window grows while PUBACKs come about as quickly as they can and halves when they are late: by the delay and
    not by loss, as RFC 6817 does, because what queues up on a slow link is what makes a fresh record late. It begins
    small, or what the first publishes take would be mistaken for the way of the link, and grows only when it is used.
    """

    LEAST, MOST = 2 * 1024, 4 << 20
    STEP = 4 * 1024
    """Grown by at least, in the time of one PUBACK, once the link has shown its limit."""
    LATE_S = 0.25
    """Above the quickest PUBACK of the connection."""

    def __init__(self) -> None:
        self._sent: dict[int, tuple[int, float]] = {}
        self.reset()

    def reset(self) -> None:
        """A new connection: nothing is known of it."""
        self._sent.clear()
        self._under_way = 0
        self._quickest = math.inf
        self._halved_at = -math.inf
        self._has_shown_limit = False
        self._window = self.LEAST

    @property
    def largest(self) -> int:
        """Bytes that one publish should not exceed, so that there are always two of them."""
        return self._window // 2

    def has_room(self, size: int) -> bool:
        """Whether a publish of so many bytes may be sent; one always may."""
        return not self._sent or self._under_way + size <= self._window

    def sent(self, key: int, size: int, now: float) -> None:
        """A publish that may wait was sent."""
        self._sent[key] = size, now
        self._under_way += size

    def acknowledged(self, key: int, now: float) -> None:
        """A PUBACK; for others than those that were `sent` nothing happens."""
        if key not in self._sent:
            return
        size, sent_at = self._sent.pop(key)
        is_used = self._under_way > self._window // 2
        self._under_way -= size
        taken = now - sent_at
        self._quickest = min(self._quickest, taken)
        if taken > self._quickest + self.LATE_S:
            if sent_at >= self._halved_at:  # what was sent before says nothing of the window since
                self._window = max(self._window // 2, self.LEAST)
                self._halved_at, self._has_shown_limit = now, True
        elif is_used:
            growth = max(size, self.STEP) * size // self._window if self._has_shown_limit else size
            self._window = min(self._window + growth, self.MOST)
