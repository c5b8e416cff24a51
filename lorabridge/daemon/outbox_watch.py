"""What the cloud is told of records that do not reach it: lost to the bounds of the outbox, or parked.

A loss is told by one event at a time. While that one waits itself, losses are only counted; when it has its
PUBACK the next tells of all since then. So an outage costs one record, whatever it makes us drop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lorabridge.daemon.work import Work
from lorabridge.lorawan.events import EventKind, OutboxChange, OutboxEvent
from lorabridge.store.database import Store
from lorabridge.store.values import StoreSettings
from lorabridge.upstream.batches import OutboxRecord

PARKED = "parked"
"""In the event: parked records that had to go, of any kind."""


class OutboxWatch:
    """Looks at what the store lost. `interval` seconds are between two events."""

    def __init__(self, store: Store, interval: float, clock: Callable[[], int], monotonic: Callable[[], float]) -> None:
        """`clock` gives ns since the Unix epoch, `monotonic` seconds."""
        self._store = store
        self._interval = interval
        self._clock = clock
        self._monotonic = monotonic
        self._told_at = -math.inf

    def look(self) -> Work:
        """What is to be committed now: an event and the losses that it tells of, or nothing."""
        work, lost, now = Work(), self._store.untold(), self._monotonic()
        waits = self._store.counters[f"outbox_records_{EventKind.OUTBOX.value}"] > 0
        if not lost or waits or now - self._told_at < self._interval:
            return work
        self._told_at = now
        work.told += lost
        work.events.append(
            OutboxEvent(
                at=self._clock(),
                change=OutboxChange.DROPPED,
                since=min(one.since for one in lost),
                dropped=tuple((PARKED if one.kind is None else one.kind.value, one.records) for one in lost),
            )
        )
        return work

    def filled(self, settings: StoreSettings) -> str:
        """How full the outbox is, by the bound that is nearer."""
        counters = self._store.counters
        of_bytes = counters["outbox_bytes"] / max(settings.outbox_max_bytes, 1)
        return f"{max(of_bytes, counters['outbox_records'] / settings.outbox_max_records):.0%}"


def parked_event(record: OutboxRecord, reason: str, now: int) -> OutboxEvent:
    """The endpoint will not have this record; `now` in ns since the Unix epoch."""
    return OutboxEvent(
        at=now,
        change=OutboxChange.PARKED,
        record=record.id,
        kind=record.kind,
        dev_eui=record.dev_eui,
        size=len(record.payload),
        reason=reason,
    )
