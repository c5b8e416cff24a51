"""How often we may try, and how fast we may publish. Pure: the time is an argument, randomness is injected."""

from __future__ import annotations

import random


class Backoff:
    """When the next CONNECT may go: full jitter over a doubling ceiling, and never two within `interval`.

    The n-th try after the last reset waits uniform(0, min(cap, base * 2^n)) seconds (AWS, Exponential
    backoff and jitter), so that gateways which fell off together do not come back together. AWS IoT
    takes one CONNECT a second of one client id: that is `interval`.
    """

    def __init__(self, *, base: float, cap: float, interval: float, rng: random.Random) -> None:
        self._base = base
        self._cap = cap
        self._interval = interval
        self._rng = rng
        self._failures = 0
        self._last_try: float | None = None

    def delay(self, now: float) -> float:
        """Seconds to wait from `now` until the next try; nothing for the very first."""
        if self._last_try is None:
            return 0.0
        ceiling = min(self._cap, self._base * 2.0 ** min(self._failures, 64))
        return max(self._rng.uniform(0.0, ceiling), self._last_try + self._interval - now)

    def tried(self, now: float) -> None:
        """A CONNECT goes now; until `reset` it counts as a failure."""
        self._failures += self._last_try is not None
        self._last_try = now

    def reset(self) -> None:
        """The link has proved itself."""
        self._failures = 0


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
