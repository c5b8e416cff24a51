"""A loss is told by one event at a time, and every lost record is in exactly one."""

from __future__ import annotations

from pathlib import Path

from lorabridge.daemon.outbox_watch import OutboxWatch, parked_event
from lorabridge.lorawan.events import EventKind, OutboxChange, OutboxEvent, Record
from lorabridge.lorawan.types import EUI64
from lorabridge.store.database import Batch, Store, StoredRecord
from tests.store.store_help import records, settings, with_store

MINUTE = 60.0


class Watch:
    """A watch on a store of at most two records, and its clock."""

    def __init__(self, store: Store) -> None:
        self.now = 1000.0
        self.store = store
        self.watch = OutboxWatch(store, MINUTE, lambda: 77, lambda: self.now)

    async def tell(self) -> list[tuple[str, int]]:
        """What is told now, once it is committed."""
        work = self.watch.look()
        events = [event for event in work.events if isinstance(event, OutboxEvent)]
        told = tuple(Record(EventKind.OUTBOX, None, b"event") for _ in events)
        await self.store.commit(Batch(records=told, told=tuple(work.told)))
        assert all(event.change is OutboxChange.DROPPED and event.since is not None for event in events)
        return [count for event in events for count in event.dropped]


async def sent(store: Store) -> None:
    """Everything that waits has its PUBACK."""
    store.done([record.id for record in await store.pending(0, 99)])
    await store.pending(0, 0)


def test_a_loss_is_told_once_and_the_next_not_before_that_has_left(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        watch = Watch(store)
        assert await watch.tell() == []
        await store.commit(Batch(records=records(b"1", b"2", b"3")))
        assert await watch.tell() == [("uplink", 1)]
        for _ in range(5):
            watch.now += MINUTE
            await store.commit(Batch(records=records(b"4", b"5")))
            assert await watch.tell() == [], "the event itself waits"
        assert store.counters["outbox_records_outbox"] == 1
        await sent(store)
        assert await watch.tell() == [("uplink", 11)], "nine offered in vain, and two for the place of events"
        await sent(store)
        assert sum(lost.records for lost in store.untold()) + 12 == store.counters["outbox_dropped_uplink"]

    with_store(settings(tmp_path, outbox_max_records=2), use)


def test_while_the_link_is_up_losses_are_told_once_an_interval(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        watch = Watch(store)
        for n, wanted in enumerate(([("uplink", 3)], [], [], [("uplink", 10)])):
            await store.commit(Batch(records=records(*[b"%d" % n] * 5)))
            assert await watch.tell() == wanted
            await sent(store)
            watch.now += MINUTE / 3

    with_store(settings(tmp_path, outbox_max_records=2), use)


def test_how_full_the_outbox_is_follows_the_nearer_bound(tmp_path: Path) -> None:
    wanted = settings(tmp_path, outbox_max_records=4)

    async def use(store: Store) -> None:
        watch = Watch(store).watch
        assert watch.filled(wanted) == "0%"
        await store.commit(Batch(records=records(b"1", b"2", b"3")))
        assert watch.filled(wanted) == "75%"

    with_store(wanted, use)


def test_a_parked_record_is_told_without_what_is_in_it() -> None:
    record = StoredRecord(41, EventKind.UPLINK, EUI64(7), b'{"payload":"secret"}', 5)
    event = parked_event(record, "refused", 99)
    assert event == OutboxEvent(
        at=99,
        change=OutboxChange.PARKED,
        record=41,
        kind=EventKind.UPLINK,
        dev_eui=EUI64(7),
        size=20,
        reason="refused",
    )
