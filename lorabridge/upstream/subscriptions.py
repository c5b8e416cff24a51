"""What we subscribe to: one filter after the other, before anything else is said on a connection.

With MQTT 3.1.1 AWS IoT closes the connection on a SUBSCRIBE that the policy forbids, and says nothing. Because
nothing else is under way then, it is known which filter did it; after a few such answers in a row the link goes
on without that one, and asks again when the policy may have been mended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from lorabridge.upstream.connection import Delivery
from lorabridge.upstream.faults import LinkDown, LinkFault

SUBSCRIBE_TRIES = 3
"""Connections in a row that may end in answer to SUBSCRIBE."""


class Subscriber(Protocol):
    """Who wants the messages of one filter; every call comes from the loop and returns at once."""

    @property
    def topic_filter(self) -> str:
        """What to subscribe to."""

    def takes(self, topic: str | None) -> bool:
        """Whether a message on this topic is for it; None: a topic that is no UTF-8."""

    def granted(self) -> None:
        """SUBACK says yes: on this connection messages will come."""

    def refused(self, detail: str) -> None:
        """The endpoint does not let us; it is tried again after a while."""

    def lost(self) -> None:
        """The connection is over."""

    def received(self, delivery: Delivery, acknowledge: Callable[[], None]) -> None:
        """A message; `acknowledge` sends its PUBACK."""


class _Entry:
    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.failures = 0
        self.due = -math.inf


class Subscriptions:
    """All filters of one link. `ask` sends a SUBSCRIBE, `settled` is called when none is left to be asked for."""

    def __init__(self, retry_after: float, ask: Callable[[str], None], settled: Callable[[], None]) -> None:
        """`retry_after` a refusal it is time to ask again, in seconds."""
        self._retry_after = retry_after
        self._ask = ask
        self._settled = settled
        self._entries: list[_Entry] = []
        self._queue: deque[_Entry] = deque()
        self._is_up = False
        self._timers: set[asyncio.TimerHandle] = set()

    def add(self, subscribers: Sequence[Subscriber]) -> None:
        """More filters, for the next connection."""
        self._entries += map(_Entry, subscribers)

    @property
    def is_asking(self) -> bool:
        """Whether a SUBSCRIBE has no SUBACK yet: until then nothing is published."""
        return bool(self._queue)

    def connected(self) -> None:
        """CONNACK: ask for what is due."""
        self._is_up = True
        now = time.monotonic()
        self._queue.extend(entry for entry in self._entries if now >= entry.due)
        self._next()

    def answered(self, refusal: str) -> None:
        """SUBACK for the one that was asked for."""
        entry = self._queue.popleft()
        if refusal:
            self._refuse(entry, refusal)
        else:
            entry.failures, entry.due = 0, -math.inf
            entry.subscriber.granted()
        self._next()

    def disconnected(self, down: LinkDown) -> None:
        """The connection is over, perhaps in answer to what was asked."""
        asked = self._queue[0] if self._queue else None
        self._queue.clear()
        self._is_up = False
        for entry in self._entries:
            if entry is asked and down.fault is LinkFault.SUBSCRIBE_REFUSED:
                entry.failures += 1
                if entry.failures >= SUBSCRIBE_TRIES:
                    self._refuse(entry, down.detail)
                    continue
            entry.subscriber.lost()

    def received(self, delivery: Delivery, acknowledge: Callable[[], None]) -> None:
        """Hand a message on; what nobody asked for is acknowledged and forgotten."""
        for entry in self._entries:
            if entry.subscriber.takes(delivery.topic):
                entry.subscriber.received(delivery, acknowledge)
                return
        acknowledge()

    def stop(self) -> None:
        """Ask for nothing any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _next(self) -> None:
        if self._queue:
            self._ask(self._queue[0].subscriber.topic_filter)
        else:
            self._settled()

    def _refuse(self, entry: _Entry, detail: str) -> None:
        """Do without, and ask again later on whatever connection there is then."""
        entry.due = time.monotonic() + self._retry_after
        entry.subscriber.refused(detail)
        timer = asyncio.get_running_loop().call_later(self._retry_after, self._ask_again, entry)
        self._timers.add(timer)

    def _ask_again(self, entry: _Entry) -> None:
        self._timers = {timer for timer in self._timers if timer.when() > asyncio.get_running_loop().time()}
        if not self._is_up or entry in self._queue:
            return
        self._queue.append(entry)
        if len(self._queue) == 1:
            self._next()
