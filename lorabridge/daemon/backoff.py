"""How long to wait before the next try: full jitter, so that many who failed together do not retry together."""

from __future__ import annotations

import random


class Backoff:
    """Waits between 0 and min(cap, base * 2^n) seconds, n counting the failures since `reset`."""

    def __init__(self, base: float, cap: float, rng: random.Random) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        ceiling = min(self._cap, self._base * 2 ** min(self._failures, 32))
        self._failures += 1
        return self._rng.uniform(0, ceiling)

    def reset(self) -> None:
        """It works again."""
        self._failures = 0
