"""The totals of the outbox hold through everything, and a start reads its end and no more, however long it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.settings import Duration
from lorabridge.store import books as totals
from lorabridge.store.connection import CHECKED_WHOLE
from lorabridge.store.database import Batch, Store
from lorabridge.store.values import CLOCK_IS_SET_NS, Dropped, StoreSettings
from tests.store.store_help import records, settings, with_store

HOUR = 3600 * 10**9


class Clock:
    """Nanoseconds since the Unix epoch, as the test says."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def with_clock(wanted: StoreSettings, clock: Clock, use: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await Store.open(wanted, clock=clock)
        try:
            await use(store)
        finally:
            await store.close()

    asyncio.run(main())


def steps_of_loading(wanted: StoreSettings) -> int:
    """How much SQLite does to load the books, in hundreds of instructions of its machine."""
    connection, steps = sqlite3.connect(wanted.path), 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 100)
    totals.load(connection)
    connection.close()
    return steps


def test_a_start_counts_no_more_of_a_long_outbox_than_of_a_short_one(tmp_path: Path) -> None:
    async def fill(store: Store) -> None:
        for _ in range(20):
            await store.commit(Batch(records=records(*[b"x"] * 1000)))

    wanted = settings(tmp_path, durability="process")
    with_store(wanted, fill)
    once = steps_of_loading(wanted)
    with_store(wanted, fill)
    with_store(wanted, fill)
    thrice = steps_of_loading(wanted)
    most_counted = totals.COUNT_AGAIN + 1000
    assert once <= most_counted // 4
    assert thrice <= most_counted // 4


def test_a_start_checks_the_counters_of_a_long_database_and_leaves_the_records_until_they_are_read(
    tmp_path: Path,
) -> None:
    async def fill(store: Store) -> None:
        for _ in range(40):
            await store.commit(Batch(records=records(b"x" * 1_000_000)))

    async def look(store: Store) -> int:
        return store.counters["outbox_records"]

    wanted = settings(tmp_path, durability="process")
    with_store(wanted, fill)
    assert Path(wanted.path).stat().st_size > CHECKED_WHOLE
    assert with_store(wanted, look) == 40


def test_totals_are_written_when_a_covered_record_goes_and_not_while_records_only_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "COUNT_AGAIN", 10)
    wanted = settings(tmp_path)

    def written() -> int:
        with sqlite3.connect(wanted.path) as connection:
            found: int = connection.execute("SELECT ifnull(max(counted_to), 0) FROM outbox_total").fetchone()[0]
        connection.close()
        return found

    async def use(store: Store) -> None:
        for _ in range(9):
            (record,) = await store.commit(Batch(records=records(b"x")))
        assert written() == 0
        store.done([record.id])
        await store.commit(Batch(records=records(b"x")))
        assert written() == 10
        await store.commit(Batch(records=records(b"x")))
        assert written() == 10
        store.done([3])
        await store.commit(Batch(records=records(b"x")))
        assert written() == 12
        assert store.counters["outbox_records"] == 10

    with_store(wanted, use)


def test_what_was_lost_is_told_once_and_what_is_lost_meanwhile_after_that(tmp_path: Path) -> None:
    clock = Clock(CLOCK_IS_SET_NS + HOUR)
    wanted = settings(tmp_path, outbox_max_records=2)

    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(b"1", b"2", b"3")))
        first = [Dropped(EventKind.UPLINK, 1, CLOCK_IS_SET_NS + HOUR)]
        assert store.untold() == first
        clock.now += HOUR
        await store.commit(Batch(records=records(b"4")))
        assert store.untold() == [Dropped(EventKind.UPLINK, 2, CLOCK_IS_SET_NS + HOUR)], "since the first of them"
        told = Record(EventKind.OUTBOX, None, b"one was lost")
        await store.commit(Batch(records=(told,), told=tuple(first)))
        assert [(lost.kind, lost.records) for lost in store.untold()] == [(EventKind.UPLINK, 2)], "another went for it"

    async def after_a_restart(store: Store) -> None:
        (lost,) = store.untold()
        assert (lost.kind, lost.records, lost.since) == (EventKind.UPLINK, 2, CLOCK_IS_SET_NS + 2 * HOUR)
        await store.commit(Batch(told=(lost,), records=(Record(EventKind.OUTBOX, None, b"two more"),)))
        assert [lost.records for lost in store.untold()] == [1]
        kinds = [record.kind for record in await store.pending(0, 9)]
        assert kinds == [EventKind.OUTBOX, EventKind.OUTBOX], "what tells of losses is lost last"

    with_clock(wanted, clock, use)
    with_clock(wanted, clock, after_a_restart)


def test_parked_records_that_had_to_go_are_told_as_such(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        for record in await store.commit(Batch(records=records(b"1", b"2", b"3"))):
            await store.park(record.id, "refused")
        (lost,) = store.untold()
        assert (lost.kind, lost.records) == (None, 2)
        assert store.counters["outbox_parked_dropped"] == 2
        await store.commit(Batch(told=(lost,), records=(Record(EventKind.OUTBOX, None, b"told"),)))
        assert store.untold() == []

    with_store(settings(tmp_path, parked_max_records=1), use)


def test_records_that_are_too_old_go_with_the_next_commit_and_are_counted(tmp_path: Path) -> None:
    clock = Clock(CLOCK_IS_SET_NS + 100 * HOUR)

    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(*[b"old"] * 1500)))
        await store.commit(Batch(records=(Record(EventKind.OUTBOX, None, b"told"),)))
        clock.now += 2 * HOUR
        await store.commit(Batch(records=records(b"young")))
        clock.now += HOUR - 1
        assert [record.payload for record in await store.pending(1500, 9)] == [b"told", b"young"]
        await store.commit(Batch(records=records(b"new")))
        assert store.counters["outbox_dropped_uplink"] == 1500
        assert [record.payload for record in await store.pending(0, 9)] == [b"told", b"young", b"new"]

    with_clock(settings(tmp_path, outbox_max_age=Duration(2 * 3600 - 1)), clock, use)


def test_no_age_is_known_of_records_from_before_the_clock_was_set(tmp_path: Path) -> None:
    clock = Clock(0)

    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(b"in 1970")))
        clock.now = CLOCK_IS_SET_NS + 9999 * HOUR
        await store.commit(Batch(records=records(b"now")))
        assert [record.payload for record in await store.pending(0, 9)] == [b"in 1970", b"now"]

    with_clock(settings(tmp_path, outbox_max_age=Duration(3600)), clock, use)


def test_what_goes_to_the_disk_is_measured(tmp_path: Path) -> None:
    async def use(store: Store) -> int:
        for _ in range(20):
            await store.commit(Batch(records=records(b"x" * 500)))
        return store.counters["store_bytes_written"]

    written = with_store(settings(tmp_path), use)
    assert written == 0 or written >= 20 * 500, "0 where files lie in memory, or the kernel keeps no account"
