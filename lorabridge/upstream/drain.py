"""The way out of the outbox: records in the order of their ids, each until its PUBACK, none forgotten.

A PUBACK is the only thing that makes a record `done`. While the drain keeps up, records come straight
from the commit (`offer`) and the outbox is never read; when it falls behind it lets them lie and reads
page by page, so that memory is bounded whatever the outage. What was in flight when a connection broke
goes first on the next one, with the same `id` inside: consumers drop what they have seen.

**Poison.** An endpoint may answer one record by hanging up, each time: AWS IoT does so with a topic
that the policy forbids. A record that was the oldest in flight in `poison_after` drops in a row is held
back for one connection. If then another record gets its PUBACK the held one is guilty and is parked;
if that connection breaks as well, it was not that record's fault: it goes back to the front.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from lorabridge.errors import TransientError
from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.aws_iot import MAX_PAYLOAD
from lorabridge.upstream.link import NOT_YOURS, Listener
from lorabridge.upstream.topics import Topics

_LOGGER = logging.getLogger(__name__)

MAX_QUEUED = 2000
"""Records held in memory, beyond those in flight."""
PAGE = 500
"""Records read from the outbox at a time."""


class OutboxRecord(Protocol):
    """One durable record."""

    @property
    def id(self) -> int:
        """Ascending in the order of the commits, from 1."""

    @property
    def kind(self) -> EventKind:
        """Which topic."""

    @property
    def dev_eui(self) -> EUI64 | None:
        """Which device, where there is one."""

    @property
    def payload(self) -> bytes:
        """What to publish."""


class Outbox(Protocol):
    """What the drain needs of the store."""

    async def pending(self, after_id: int, limit: int) -> Sequence[OutboxRecord]:
        """The first `limit` records above `after_id`, ascending, none that is parked. May raise TransientError."""

    def done(self, ids: Iterable[int]) -> None:
        """These have their PUBACK and need not be kept."""

    async def park(self, record_id: int, reason: str) -> None:
        """Never return this record from `pending` again, but keep it for the operator. May raise TransientError."""


class Link(Protocol):
    """What the drain needs of the link: `aws_iot.AwsIot`."""

    def attach(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on."""

    def has_room(self, size: int) -> bool:
        """Whether a payload of `size` bytes may be published now."""

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Queue a publish."""

    def flush(self) -> None:
        """Send what was queued."""


class Drain:
    """Moves records from the outbox to the link. `run` does what must be awaited; the rest is driven by the link."""

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        topics: Topics,
        *,
        poison_after: int = 5,
        retry_delay: float = 1.0,
        on_parked: Callable[[OutboxRecord, str], None] = lambda _record, _reason: None,
    ) -> None:
        """`retry_delay` is how long an outbox that raised TransientError is left alone, in seconds."""
        self._outbox = outbox
        self._link = link
        self._topics = topics
        self._poison_after = poison_after
        self._retry_delay = retry_delay
        self._on_parked = on_parked
        self._queue: deque[OutboxRecord] = deque()
        self._in_flight: dict[int, OutboxRecord] = {}
        self._done: list[int] = []
        self._cursor = 0  # every record up to here is done, in flight, queued or parked
        self._newest = 0  # the newest id that was ever offered
        self._is_behind = True  # at the start the outbox may hold anything
        self._work = asyncio.Event()
        self._blamed: int | None = None
        self._drops = 0
        self._is_paused = False
        self._held: OutboxRecord | None = None
        self._to_park: list[tuple[OutboxRecord, str]] = []
        self._counters: Counter[str] = Counter(dict.fromkeys(("done", "parked", "resent", "outbox_errors"), 0))
        link.attach(self)
        self._work.set()

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals since the process began."""
        return self._counters

    @property
    def is_paused(self) -> bool:
        """Whether records are kept and not sent."""
        return self._is_paused

    def pause(self, is_paused: bool) -> None:  # a switch
        """Keep records, or send them again."""
        self._is_paused = is_paused
        self._publish_what_fits()

    def offer(self, records: Sequence[OutboxRecord]) -> None:
        """Records that have just become durable, in the order of their ids; they must be in the outbox already.

        They are taken as they are only if none can be missing before them: otherwise the outbox is read.
        """
        if not records:
            return
        self._newest = max(self._newest, records[-1].id)
        follows = records[0].id == self._cursor + 1 and records[-1].id == self._cursor + len(records)
        if self._is_behind or not follows or len(self._queue) + len(records) > MAX_QUEUED:
            self._is_behind = True
            self._work.set()
            return
        self._queue.extend(records)
        self._cursor = records[-1].id
        self._publish_what_fits()

    async def run(self) -> None:
        """Read the outbox when behind, park what is convicted; until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._park_convicted()
                if self._is_behind and len(self._queue) <= MAX_QUEUED - PAGE:
                    await self._read_page()
            except TransientError:
                self._counters["outbox_errors"] += 1
                self._work.set()
                await asyncio.sleep(self._retry_delay)

    async def _read_page(self) -> None:
        """One page more; nothing may be skipped that is committed while it is read."""
        newest = self._newest
        page = await self._outbox.pending(self._cursor, PAGE)
        self._queue.extend(page)
        if page:
            self._cursor = page[-1].id
        if len(page) < PAGE:  # all that was offered before the reading is in hand now, or gone
            self._cursor = max(self._cursor, newest)
            self._is_behind = self._newest > self._cursor
        if self._is_behind:
            self._work.set()
        self._publish_what_fits()

    async def _park_convicted(self) -> None:
        while self._to_park:
            record, reason = self._to_park[0]
            await self._outbox.park(record.id, reason)
            del self._to_park[0]
            self._counters["parked"] += 1
            self._on_parked(record, reason)

    def _publish_what_fits(self) -> None:
        queue, link = self._queue, self._link
        while queue and not self._is_paused and link.has_room(len(queue[0].payload)):
            record = queue.popleft()
            if len(record.payload) > MAX_PAYLOAD:
                self._convict(record, f"{len(record.payload)} bytes: AWS IoT takes {MAX_PAYLOAD}")
                continue
            self._in_flight[record.id] = record
            if _LOGGER.isEnabledFor(logging.DEBUG):
                _LOGGER.debug("record published", extra={"record": record.id, "kind": record.kind.value})
            link.publish(self._topics.topic(record.kind, record.dev_eui), record.payload, record.id)
        link.flush()
        if self._is_behind and len(queue) <= MAX_QUEUED - PAGE:
            self._work.set()

    def _convict(self, record: OutboxRecord, reason: str) -> None:
        self._to_park.append((record, reason))
        self._work.set()

    # What the link tells (aws_iot.Listener).

    def acknowledged(self, key: int) -> None:
        """PUBACK: the record is done, and a record held back on suspicion is proved guilty."""
        del self._in_flight[key]
        self._done.append(key)
        if _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug("record acknowledged", extra={"record": key})
        if self._held is not None:
            topic = self._topics.topic(self._held.kind, self._held.dev_eui)
            self._convict(self._held, f"the link broke {self._drops} times over it on {topic}; others get through")
            self._held, self._blamed, self._drops = None, None, 0
        elif key == self._blamed:
            self._blamed, self._drops = None, 0

    def ready(self) -> None:
        """A batch of PUBACKs is in: pass them on together, and publish more."""
        self._settle_done()
        self._publish_what_fits()

    def disconnected(self, unacknowledged: list[int], culprit: int | None) -> None:
        """Everything without a PUBACK goes first next time, unless one of them is under suspicion."""
        self._settle_done()
        again = [self._in_flight.pop(key) for key in unacknowledged]
        self._counters["resent"] += len(again)
        if self._held is not None:  # it broke without it too
            again.insert(0, self._held)
            self._held, self._blamed, self._drops = None, None, 0
        elif unacknowledged and culprit != NOT_YOURS:
            self._blame(again, unacknowledged[0] if culprit is None else culprit)
        self._queue.extendleft(reversed(again))

    def _blame(self, again: list[OutboxRecord], suspect: int) -> None:
        """Count one more drop against `suspect`, and take it out of `again` when it has had its chances."""
        self._drops = self._drops + 1 if suspect == self._blamed else 1
        self._blamed = suspect
        if self._drops >= self._poison_after:
            self._held = next(record for record in again if record.id == suspect)
            again.remove(self._held)

    def _settle_done(self) -> None:
        if self._done:
            self._counters["done"] += len(self._done)
            self._outbox.done(self._done)
            self._done = []
