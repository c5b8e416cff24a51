"""What a source has heard and the pipeline has not taken yet: bounded, with an end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from lorabridge.radio.base import SourceEnded

T = TypeVar("T")

INBOX_LIMIT: Final = 4096
"""Frames that wait for the pipeline; what comes after is dropped and counted."""
BATCH_LIMIT: Final = 512
"""Frames that the pipeline takes at a time."""


class Inbox(Generic[T]):
    """From one source to its `receive`, oldest first. What came before an end can be taken after it."""

    def __init__(self, limit: int) -> None:
        """`limit` is what the costs of all that waits may add up to."""
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[T, int]] = deque()
        self._arrived = asyncio.Event()
        self._is_open = False
        self.failure: Exception | None = None
        """Why nothing more comes, since the inbox was opened last."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def open(self) -> None:
        """From now on more may come."""
        self._is_open, self.failure = True, None

    def put(self, item: T, cost: int = 1) -> bool:
        """Keep `item`; False when there is no room for it, which is for the source to count."""
        if self._used + cost > self._limit:
            return False
        self._waiting.append((item, cost))
        self._used += cost
        self._arrived.set()
        return True

    def fail(self, error: Exception) -> None:
        """Nothing more comes, because of `error`: `wait` raises it when all is taken."""
        self.failure = error
        self._arrived.set()

    def close(self) -> None:
        """Nothing more comes, for the source was stopped: `wait` raises SourceEnded when all is taken."""
        self._is_open = False
        self._arrived.set()

    async def wait(self) -> None:
        """Return when something waits. Raises SourceEnded, or what the source failed with."""
        while not self._waiting:
            if not self._is_open:
                raise SourceEnded
            if self.failure is not None:
                raise self.failure
            self._arrived.clear()
            await self._arrived.wait()

    def take(self) -> T:
        """The oldest. Raises IndexError when nothing waits."""
        item, cost = self._waiting.popleft()
        self._used -= cost
        return item

    async def receive(self, most: int = BATCH_LIMIT) -> list[T]:
        """Wait as `wait` does, then take all that is there, `most` at the most."""
        await self.wait()
        return [self.take() for _ in range(min(len(self._waiting), most))]
