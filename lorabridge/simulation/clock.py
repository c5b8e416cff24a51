"""Simulated time: as many seconds in one of the wall clock as one likes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_SECOND = 1_000_000_000


class SimulatedClock:
    """Nanoseconds since the Unix epoch that begin with the wall clock and run `speed` times as fast."""

    def __init__(
        self, speed: float = 1.0, *, started_at: int | None = None, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`started_at`: the simulated time now; None: that of the wall clock."""
        if speed <= 0:
            raise ValueError(f"time cannot run {speed} times as fast")
        self.speed = speed
        self._monotonic = monotonic
        self._began_at = monotonic()
        self._started_at = time.time_ns() if started_at is None else started_at

    def now(self) -> int:
        """The simulated time."""
        return self._started_at + int((self._monotonic() - self._began_at) * self.speed)

    def real_seconds_until(self, at: int) -> float:
        """Seconds of the wall clock until a simulated time, 0 when it is past."""
        return max(0.0, (at - self.now()) / self.speed / _SECOND)

    async def sleep_until(self, at: int) -> None:
        """Wait for a simulated time."""
        await asyncio.sleep(self.real_seconds_until(at))
