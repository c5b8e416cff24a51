"""Whether the work goes on: every loop of the daemon has a check, and says when it takes work and when it is done.

Waiting for work is healthy for any length of time. Holding work without progress is not: a commit that
never returns, a full queue that nobody empties, a loop that swallowed its own failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Check:
    """One loop's progress. `limit` is how many seconds it may hold work without a step."""

    __slots__ = ("_busy", "_clock", "_stamp", "limit", "name")

    def __init__(self, name: str, limit: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.limit = limit
        self._clock = clock
        self._busy = False
        self._stamp = clock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The loop holds work inside this block. One loop, one check: blocks of one check do not overlap."""
        self._busy = True
        self.progress()
        try:
            yield
        finally:
            self._busy = False
            self.progress()

    def progress(self) -> None:
        """A step was made."""
        self._stamp = self._clock()

    def is_stuck(self, now: float) -> bool:
        """Whether the loop should have made a step by `now`."""
        return self._busy and now - self._stamp > self.limit


class Health:
    """All checks of the daemon. `clock` gives seconds and never runs backwards."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._checks: dict[str, Check] = {}

    def add(self, name: str, limit: float) -> Check:
        """A new check, in the place of one of the same name: a restarted loop begins afresh."""
        self._checks[name] = Check(name, limit, self._clock)
        return self._checks[name]

    def remove(self, name: str) -> None:
        """The loop ended as it should."""
        self._checks.pop(name, None)

    def stuck(self) -> list[str]:
        """The names of all that makes no progress; empty is healthy."""
        now = self._clock()
        return [check.name for check in self._checks.values() if check.is_stuck(now)]
