"""Parked records are the operator's: looked at, tried again or dropped beside a store that is open, or without one."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from lorabridge.errors import ConfigError
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.store import inspection
from lorabridge.store.database import Batch, Store
from tests.store.store_help import old_database, records, settings, with_store


async def park_three(store: Store) -> list[int]:
    stored = await store.commit(Batch(records=records(b"1", b"2", b"3", b"4")))
    for record in stored[:3]:
        await store.park(record.id, "refused")
    return [record.id for record in stored]


def test_what_tells_of_a_parked_record_is_stored_with_it_or_not_at_all(tmp_path: Path) -> None:
    report = Record(EventKind.OUTBOX, None, b"told")

    async def use(store: Store) -> None:
        (first,) = await store.commit(Batch(records=records(b"1")))
        (told,) = await store.park(first.id, "refused", report)
        assert (told.kind, told.payload) == (EventKind.OUTBOX, b"told")
        assert await store.pending(0, 9) == [told]
        assert await store.park(999, "no such record", report) == []
        assert await store.park(first.id, "parked already", report) == []
        assert store.counters["outbox_records"] == 1

    with_store(settings(tmp_path), use)


def test_retry_puts_records_behind_all_that_waits_while_the_store_is_open(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> None:
        ids = await park_three(store)
        assert await store.put_back() == []
        await asyncio.to_thread(inspection.retry, Path(wanted.path), ids[:2])
        assert [one.is_to_be_retried for one in inspection.look(Path(wanted.path)).parked] == [True, True, False]
        back = await store.put_back()
        assert [record.payload for record in back] == [b"1", b"2"]
        assert [record.payload for record in await store.pending(0, 9)] == [b"4", b"1", b"2"]
        assert back[0].id > max(ids), "a number that was never used"
        assert (store.counters["outbox_records"], store.counters["outbox_parked"]) == (3, 1)
        commits = store.counters["store_commits"]
        assert await store.put_back() == []
        assert store.counters["store_commits"] == commits, "to look costs the disk nothing"

    with_store(wanted, use)


def test_retry_without_a_bridge_is_done_when_it_starts(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    ids = with_store(wanted, park_three)
    inspection.retry(Path(wanted.path), ids[1:3])

    async def use(store: Store) -> list[bytes]:
        return [record.payload for record in await store.put_back()]

    assert with_store(wanted, use) == [b"2", b"3"]
    assert with_store(wanted, use) == []


def test_what_was_dropped_by_hand_is_gone_and_the_count_follows(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> None:
        ids = await park_three(store)
        await asyncio.to_thread(inspection.retry, Path(wanted.path), ids[:1])
        await asyncio.to_thread(inspection.drop, Path(wanted.path), ids[:2])
        assert await store.put_back() == []
        assert store.counters["outbox_parked"] == 1
        assert [one.id for one in inspection.look(Path(wanted.path)).parked] == ids[2:3]

    with_store(wanted, use)


def test_a_database_that_is_held_puts_the_retry_off(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> None:
        ids = await park_three(store)
        await asyncio.to_thread(inspection.retry, Path(wanted.path), ids[:1])
        other = sqlite3.connect(wanted.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(Exception, match="locked"):
                await store.put_back()
        finally:
            other.close()
        assert [record.payload for record in await store.put_back()] == [b"1"]

    with_store(wanted, use)


def test_a_record_is_shown_whether_it_waits_or_is_parked(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    ids = with_store(wanted, park_three)
    path = Path(wanted.path)
    assert [inspection.payload(path, record_id) for record_id in (ids[0], ids[3], 999)] == [b"1", b"4", None]
    assert inspection.look(path).waiting[EventKind.UPLINK] == 1


def test_an_older_database_is_not_brought_up_to_date_by_looking_at_it(tmp_path: Path) -> None:
    path = old_database(tmp_path, 2)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="older lorabridge"):
        inspection.look(path)
    assert path.read_bytes() == before
