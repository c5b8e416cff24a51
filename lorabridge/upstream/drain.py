"""The way out of the outbox: each record until its PUBACK, none forgotten, fresh ones first.

A PUBACK is the only thing that makes a record `done`. What was in flight when a connection broke is sent
again on the next one, with the same `id` inside: consumers drop what they have seen.

**Three lanes.** Records come straight from the commit (`offer`) while the link is up: those are fresh, and
go first. What was in flight when a connection broke follows. What was committed while the link was down,
or faster than it could take, lies in the outbox and is read page by page, so that memory is bounded
whatever the outage. The two that may wait leave room to the fresh ones: a share of window and rate
(`Link.has_room`), and as many bytes as do not make anybody wait (`pacing.Crowding`).

**Batches.** With `batching` records that wait leave several in one publish, fresh ones only when the rate
nears its limit. **Poison** is found by `suspicion.py`: the guilty record is parked, the rest flows on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from lorabridge.errors import TransientError
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.upstream.aws_iot import MAX_PAYLOAD
from lorabridge.upstream.batches import BATCH_BYTES, OutboxRecord, Packer, Unit
from lorabridge.upstream.id_ranges import IdRanges
from lorabridge.upstream.link import Listener
from lorabridge.upstream.pacing import Crowding
from lorabridge.upstream.suspicion import Suspicion

__all__ = ["Drain", "Link", "Outbox", "OutboxRecord"]

_LOGGER = logging.getLogger(__name__)

MAX_QUEUED = 2000
"""Records of the outbox held in memory, beyond those in flight."""
PAGE = 500
"""Records read from the outbox at a time."""
MAX_FRESH = 500
"""Fresh records that wait; what comes faster lies in the outbox until its turn."""
_BATCH_RECORDS = 200


class Outbox(Protocol):
    """What the drain needs of the store."""

    async def pending(self, after_id: int, limit: int) -> Sequence[OutboxRecord]:
        """The first `limit` records above `after_id`, ascending, none that is parked. May raise TransientError."""

    def done(self, ids: Iterable[int]) -> None:
        """These have their PUBACK and need not be kept."""

    async def park(self, record_id: int, reason: str, report: Record | None) -> Sequence[OutboxRecord]:
        """Never return this record from `pending` again, but keep it for the operator; store `report` with that.

        Returns what was stored. May raise TransientError.
        """


class Link(Protocol):
    """What the drain needs of the link: `aws_iot.AwsIot`."""

    def attach(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on."""

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        """Whether a payload of `size` bytes may be published now; a `patient` one leaves room for others."""

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Queue a publish."""

    def flush(self) -> None:
        """Send what was queued."""


class Drain:
    """Moves records from the outbox to the link. `run` does what must be awaited; the rest is driven by the link."""

    def __init__(  # noqa: PLR0913  # what it needs of the outside, each by its name
        self,
        outbox: Outbox,
        link: Link,
        packer: Packer,
        *,
        batching: bool = False,
        max_payload: int = MAX_PAYLOAD,
        poison_after: int = 5,
        retry_delay: float = 1.0,
        report: Callable[[OutboxRecord, str], Record | None] = lambda _record, _reason: None,
        on_parked: Callable[[OutboxRecord, str], None] = lambda _record, _reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`retry_delay` is how long an outbox that raised TransientError is left alone, in seconds.

        `report` makes the record that tells of one that is parked, for this reason; it is not asked about its own.
        """
        self._outbox = outbox
        self._link = link
        self._packer = packer
        self._batching = batching
        self._max_payload = max_payload
        self._batch_bytes = min(BATCH_BYTES, max_payload)
        self._retry_delay = retry_delay
        self._report = report
        self._on_parked = on_parked
        self._clock = clock
        self._fresh: deque[OutboxRecord] = deque()
        self._again: deque[OutboxRecord] = deque()
        self._backlog: deque[OutboxRecord] = deque()
        self._in_flight: dict[int, Unit] = {}
        self._done: list[int] = []
        self._cursor = 0  # every record up to here is done, in flight, queued or parked
        self._taken = IdRanges()  # and of those above the ones that were taken as fresh
        self._newest = 0  # the newest id that was ever offered
        self._is_behind = True  # at the start the outbox may hold anything
        self._is_up = False
        self._work = asyncio.Event()
        self._is_paused = False
        self._suspicion = Suspicion(poison_after)
        self._crowding = Crowding()
        self._to_park: list[tuple[OutboxRecord, str]] = []
        names = ("done", "parked", "resent", "outbox_errors", "batches", "batches_split")
        self._counters: Counter[str] = Counter(dict.fromkeys(names, 0))
        link.attach(self)
        self._work.set()

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals since the process began."""
        return self._counters

    @property
    def queued(self) -> int:
        """Records in memory that are not in flight."""
        return len(self._fresh) + len(self._again) + len(self._backlog)

    @property
    def is_paused(self) -> bool:
        """Whether records are kept and not sent."""
        return self._is_paused

    def pause(self, is_paused: bool) -> None:  # a switch
        """Keep records, or send them again."""
        self._is_paused = is_paused
        self._publish_what_fits()

    def offer(self, records: Sequence[OutboxRecord]) -> None:
        """Records that have just become durable together, in the order of their ids; they are in the outbox already.

        They are taken as they are while the link is up and they need not wait long: otherwise the outbox is read.
        """
        if not records:
            return
        is_next = records[0].id > max(self._newest, self._cursor)  # else it was read already, or will be
        self._newest = max(self._newest, records[-1].id)
        has_place = len(self._fresh) + len(records) <= MAX_FRESH and len(self._again) <= MAX_QUEUED
        self._is_up = self._is_up or self._link.has_room(0)
        if is_next and has_place and self._is_up and not self._is_paused:
            self._fresh.extend(records)
            self._taken.add(records[0].id, records[-1].id)
            self._cursor = self._taken.absorb(self._cursor)
            self._publish_what_fits()
        if self._newest > self._cursor:
            self._is_behind = True
            self._work.set()

    async def run(self) -> None:
        """Read the outbox when behind, park what is convicted; until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._park_convicted()
                if self._is_behind and len(self._backlog) <= MAX_QUEUED - PAGE:
                    await self._read_page()
            except TransientError:
                self._counters["outbox_errors"] += 1
                self._work.set()
                await asyncio.sleep(self._retry_delay)

    async def _read_page(self) -> None:
        """One page more; nothing may be skipped that is committed while it is read."""
        newest = self._newest
        page = await self._outbox.pending(self._cursor, PAGE)
        # What was taken as fresh meanwhile is up to the cursor as it is now, or in a run above it.
        self._backlog.extend(record for record in page if record.id > self._cursor and record.id not in self._taken)
        if page:
            self._cursor = max(self._cursor, page[-1].id)
        if len(page) < PAGE:  # all that was offered before the reading is in hand now, or gone
            self._cursor = max(self._cursor, newest)
        self._cursor = self._taken.absorb(self._cursor)
        if len(page) < PAGE:
            self._is_behind = self._newest > self._cursor
        if self._is_behind:
            self._work.set()
        self._publish_what_fits()

    async def _park_convicted(self) -> None:
        while self._to_park:
            record, reason = self._to_park[0]
            report = None if record.kind is EventKind.OUTBOX else self._report(record, reason)
            stored = await self._outbox.park(record.id, reason, report)
            del self._to_park[0]
            self._counters["parked"] += 1
            self._on_parked(record, reason)
            self.offer(stored)

    def _publish_what_fits(self) -> None:
        if self._suspicion.on_trial is not None:
            self._try_alone(self._suspicion.on_trial)
        else:
            self._publish_lanes()
        self._link.flush()
        if self._is_behind and len(self._backlog) <= MAX_QUEUED - PAGE:
            self._work.set()

    def _publish_lanes(self) -> None:
        while not self._is_paused and (self._publish_fresh() or self._publish_patient(self._again or self._backlog)):
            pass

    def _try_alone(self, suspect: OutboxRecord) -> None:
        """Once nothing is in flight; until its PUBACK or the end of the connection nothing else is."""
        if not self._in_flight and not self._is_paused:
            self._publish(deque([suspect]), 1, patient=False)

    def _publish_fresh(self) -> bool:
        """The next fresh record alone, or with others when the rate nears its limit; whether anything was done."""
        lane = self._fresh
        if not lane:
            return False
        if self._is_too_large(lane):
            return True
        size = len(lane[0].payload)
        if len(lane) > 1 and self._may_batch() and not self._link.has_room(size, patient=True):
            count = self._packer.fitting(list(islice(lane, _BATCH_RECORDS)), self._batch_bytes, self._suspicion.alone)
            return self._publish(lane, count, patient=False)
        return self._publish(lane, 1, patient=False)

    def _publish_patient(self, lane: deque[OutboxRecord]) -> bool:
        """The next that may wait, as many as fit together; whether anything was done."""
        if not lane or self._fresh:
            return False
        if self._is_too_large(lane):
            return True
        count = 1
        if len(lane) > 1 and self._may_batch():
            if not self._link.has_room(len(lane[0].payload), patient=True):
                return False
            limit = min(self._batch_bytes, self._crowding.largest)
            count = self._packer.fitting(list(islice(lane, _BATCH_RECORDS)), limit, self._suspicion.alone)
        return self._publish(lane, count, patient=True)

    def _may_batch(self) -> bool:
        return self._batching and self._suspicion.allows_batches(self._clock())

    def _is_too_large(self, lane: deque[OutboxRecord]) -> bool:
        """Whether the next one would never be taken; it is parked then."""
        size = len(lane[0].payload)
        if size > self._max_payload:
            self._convict(lane.popleft(), f"{size} bytes: the endpoint takes {self._max_payload}")
        return size > self._max_payload

    def _publish(self, lane: deque[OutboxRecord], count: int, *, patient: bool) -> bool:
        """The first `count` records of a lane in one publish, if the link has room for it."""
        unit = Unit(tuple(islice(lane, count)))
        payload = self._packer.payload(unit)
        if patient and not self._crowding.has_room(len(payload)):
            return False
        if not self._link.has_room(len(payload), patient=patient):
            return False
        for _ in range(count):
            lane.popleft()
        self._in_flight[unit.key] = unit
        self._counters["batches"] += unit.is_batch
        if patient:
            self._crowding.sent(unit.key, len(payload), self._clock())
        if _LOGGER.isEnabledFor(logging.DEBUG):
            for record in unit.records:
                _LOGGER.debug("record published", extra={"record": record.id, "kind": record.kind.value})
        self._link.publish(self._packer.topic(unit), payload, unit.key)
        return True

    def _convict(self, record: OutboxRecord, reason: str) -> None:
        self._to_park.append((record, reason))
        self._work.set()

    # What the link tells (aws_iot.Listener).

    def acknowledged(self, key: int) -> None:
        """PUBACK: its records are done, and one held back on suspicion is tried next."""
        unit = self._in_flight.pop(key)
        self._crowding.acknowledged(key, self._clock())
        self._done.extend(record.id for record in unit.records)
        if _LOGGER.isEnabledFor(logging.DEBUG):
            for record in unit.records:
                _LOGGER.debug("record acknowledged", extra={"record": record.id})
        self._suspicion.acknowledged(unit)

    def ready(self) -> None:
        """The link is up, or a batch of PUBACKs is in: pass them on together, and publish more."""
        self._is_up = True
        self._settle_done()
        self._publish_what_fits()

    def disconnected(self, unacknowledged: list[int], culprit: int | None) -> None:
        """Everything without a PUBACK is sent again next time, unless one of them is under suspicion."""
        self._settle_done()
        self._is_up = False
        self._crowding.reset()
        lost = [self._in_flight.pop(key) for key in unacknowledged]
        self._counters["resent"] += sum(len(unit.records) for unit in lost)
        again, guilty = self._suspicion.dropped(lost, culprit, self._clock())
        self._again.extendleft(reversed(again))
        if guilty is not None:
            topic, drops = self._packer.topic(Unit((guilty,))), self._suspicion.drops
            self._convict(guilty, f"the link broke {drops} times over it on {topic}, and once over it alone")
        self._counters["batches_split"] = self._suspicion.splits
        self._again.extend(self._fresh)  # fresh no more when the link is up again
        self._fresh.clear()

    def _settle_done(self) -> None:
        if self._done:
            self._counters["done"] += len(self._done)
            self._outbox.done(self._done)
            self._done = []
