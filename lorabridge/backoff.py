"""How long to wait before the next try: full jitter, so that many who failed together do not retry together.

AWS Architecture Blog, "Exponential backoff and jitter"; pure: randomness is an argument.
"""

from __future__ import annotations

import random

_DOUBLINGS = 64
"""More would overflow a float before any cap is reached."""


class Backoff:
    """Waits between 0 and min(cap, base * 2^n) seconds, n counting the failures since `reset`."""

    def __init__(self, base: float, cap: float, rng: random.Random) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng
        self._failures = 0

    def draw(self) -> float:
        """Seconds to wait after the failures so far."""
        return self._rng.uniform(0.0, min(self._cap, self._base * 2.0 ** min(self._failures, _DOUBLINGS)))

    def failed(self) -> None:
        """One failure more."""
        self._failures += 1

    def next(self) -> float:
        """Seconds to wait now; it counts as one failure more."""
        wait = self.draw()
        self.failed()
        return wait

    def reset(self) -> None:
        """It works again."""
        self._failures = 0
