"""Counter and record commit together; what is acknowledged goes, what is not stays."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import msgspec
import pytest

from lorabridge.errors import TransientError
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.session import ResetTrack, Session
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.store.database import (
    Batch,
    SessionChange,
    Store,
    StoreConflict,
    StoredRecord,
    StoreFull,
    StoreUnavailable,
)
from tests.store.store_help import advance, new_session, records, settings, store_records, stored_payloads, with_store

FRAME = (b"s", FCnt32(1), b"m")


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    change = advance(new_session(1), 41)

    async def use(store: Store) -> list[StoredRecord]:
        return await store.commit(Batch(changes=(change,), records=records(b"one", b"two"), heard=()))

    stored = with_store(settings(tmp_path), use)
    assert [record.payload for record in stored] == [b"one", b"two"]
    assert stored[0].id < stored[1].id

    async def look(store: Store) -> tuple[dict[bytes, Session], list[StoredRecord]]:
        return store.sessions(), await store.pending(0, 10)

    sessions, pending = with_store(settings(tmp_path), look)
    assert sessions == {change.session.session_id: change.session}
    assert pending == stored


def test_every_field_of_a_session_survives(tmp_path: Path) -> None:
    session = Session(
        session_id=b"\x01" * 8,
        dev_eui=EUI64(0xFFFF_FFFF_FFFF_FFFE),
        generation=0,
        fcnt_up=FCnt32(0xFFFF_FFFF),
        last_gateway=EUI64(0xFFFF_FFFF_FFFF_FFFD),
        last_tmst=0xFFFF_FFFF,
        retransmissions=3,
        copies=4,
        first_mics=b"\x05" * 128,
        recent=b"\x06" * 256,
        reset=ResetTrack(FCnt32(7), 8),
        resets=9,
        fcnt_down=FCnt32(10),
        a_fcnt_down=FCnt32(11),
        conf_fcnt_down=12,
        conf_fcnt_before=13,
        rj_count0=14,
        mac=MacState(rx1_delay=15),
    )
    plain = Session(session_id=b"", dev_eui=EUI64(0))
    same = [name for name in Session.__struct_fields__ if getattr(session, name) == getattr(plain, name)]
    assert same == ["generation"], "give each new field a value here that differs from its default"

    async def use(store: Store) -> None:
        await store.commit(Batch(changes=(SessionChange(session, -1),)))

    async def look(store: Store) -> list[Session]:
        return list(store.sessions().values())

    with_store(settings(tmp_path), use)
    assert with_store(settings(tmp_path), look) == [session]


def test_files_are_private_and_small_again_after_close(tmp_path: Path) -> None:
    wanted = settings(tmp_path / "made" / "here")
    store_records(wanted, b"x" * 100_000)
    path = Path(wanted.path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {
        "lorabridge.db": 0o600,
        "lorabridge.db.created": 0o600,
        "lorabridge.db.lock": 0o600,
    }


def test_power_loss_durability_writes_every_commit_through(tmp_path: Path) -> None:
    async def level(store: Store) -> int:
        return int(store._writer._connection.execute("PRAGMA synchronous").fetchone()[0])

    full, normal = 2, 1
    assert with_store(settings(tmp_path), level) == full
    assert with_store(settings(tmp_path, durability="process"), level) == normal


def test_a_stale_generation_changes_nothing_at_all(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        first = advance(new_session(1), 1)
        other = advance(new_session(2), 1)
        await store.commit(Batch(changes=(first,), records=records(b"kept")))
        second = advance(first.session, 2)
        await store.commit(Batch(changes=(second,)))
        again = SessionChange(first.session, -1)
        behind = SessionChange(msgspec.structs.replace(first.session, generation=1), 0)
        ahead = SessionChange(msgspec.structs.replace(first.session, generation=8), 7)
        for bad in (again, behind, ahead):
            with pytest.raises(StoreConflict):
                await store.commit(
                    Batch(changes=(other, bad), records=records(b"lost"), heard=((b"s", FCnt32(1), b"m"),))
                )
        with pytest.raises(StoreConflict, match="does not follow"):
            await store.commit(Batch(changes=(SessionChange(first.session, 5),)))
        assert store.sessions() == {first.session.session_id: second.session}
        assert [record.payload for record in await store.pending(0, 10)] == [b"kept"]
        assert not store.heard(*FRAME)

    with_store(settings(tmp_path), use)


def test_a_conflict_fails_alone_when_batches_share_a_transaction(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        good = [Batch(changes=(advance(new_session(n), n),), records=records(b"%d" % n)) for n in range(1, 6)]
        stale = Batch(changes=(advance(new_session(1), 9),), records=records(b"stale"))
        before = store.counters["store_commits"]
        outcomes = await asyncio.gather(*map(store.commit, [*good, stale]), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [list] * 5 + [StoreConflict]
        assert [record.payload for record in await store.pending(0, 99)] == [b"1", b"2", b"3", b"4", b"5"]
        assert store.counters["outbox_records"] == len(good)
        assert store.counters["store_commits"] > before

    with_store(settings(tmp_path), use)


def test_what_waits_shares_one_transaction(tmp_path: Path) -> None:
    async def use(store: Store) -> int:
        stored = await asyncio.gather(*(store.commit(Batch(records=records(b"%d" % n))) for n in range(200)))
        assert [record.payload for batch in stored for record in batch] == [b"%d" % n for n in range(200)]
        return store.counters["store_commits"]

    assert with_store(settings(tmp_path), use) < 100


def test_a_chain_of_changes_may_wait_in_one_transaction(tmp_path: Path) -> None:
    async def use(store: Store) -> int:
        session, batches = new_session(3), []
        for fcnt in range(20):
            change = advance(session, fcnt)
            session = change.session
            batches.append(Batch(changes=(change,)))
        await asyncio.gather(*map(store.commit, batches))
        assert store.sessions()[session.session_id] == session
        return session.generation

    assert with_store(settings(tmp_path), use) == 19


def test_an_empty_batch_costs_no_transaction(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        assert await store.commit(Batch()) == []
        assert store.counters["store_commits"] == 0

    with_store(settings(tmp_path), use)


def test_a_status_is_never_stored(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        with pytest.raises(ValueError, match="status"):
            await store.commit(Batch(records=(Record(EventKind.STATUS, None, b"{}"),)))

    with_store(settings(tmp_path), use)


def test_pending_returns_records_in_order_from_where_one_was(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        stored = await store.commit(Batch(records=records(*(b"%d" % n for n in range(10)))))
        assert await store.pending(0, 4) == stored[:4]
        assert await store.pending(stored[3].id, 4) == stored[4:8]
        assert await store.pending(stored[9].id, 4) == []
        assert await store.pending(0, 0) == []

    with_store(settings(tmp_path), use)


def test_an_acknowledged_record_is_never_pending_again(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        stored = await store.commit(Batch(records=records(*(b"%d" % n for n in range(10)))))
        store.done([stored[0].id, stored[7].id, 999])
        assert await store.pending(0, 99) == [*stored[1:7], *stored[8:]]
        store.done([stored[1].id])
        await store.commit(Batch(records=records(b"next")))
        assert store.counters["outbox_records"] == 8
        assert not store._writer._undeleted, "what was deleted is forgotten"

    with_store(settings(tmp_path), use)
    assert stored_payloads(settings(tmp_path)) == [b"2", b"3", b"4", b"5", b"6", b"8", b"9", b"next"]


def test_acknowledged_records_are_deleted_without_a_commit_to_ride_on(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        stored = await store.commit(Batch(records=records(b"a", b"b")))
        store.done([stored[0].id])
        store.done([stored[1].id])
        async with asyncio.timeout(10):
            while store.counters["outbox_records"]:  # noqa: ASYNC110  # the store tells nobody of a deletion
                await asyncio.sleep(0.01)
        assert store.counters["outbox_bytes"] == 0
        assert store.counters["store_commits"] == 2

    with_store(settings(tmp_path), use)


def test_acknowledgements_given_just_before_close_are_kept(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        stored = await store.commit(Batch(records=records(b"a", b"b")))
        store.done([stored[0].id])

    with_store(settings(tmp_path), use)
    assert stored_payloads(settings(tmp_path)) == [b"b"]


def test_a_parked_record_is_kept_but_never_pending(tmp_path: Path) -> None:
    wanted = settings(tmp_path, parked_max_records=2)

    async def use(store: Store) -> None:
        stored = await store.commit(Batch(records=records(b"a", b"b", b"c", b"d")))
        for record in stored[:3]:
            await store.park(record.id, "refused three times")
        await store.park(12345, "nothing there")
        assert await store.pending(0, 9) == stored[3:]

    async def look(store: Store) -> dict[str, int]:
        return dict(store.counters)

    with_store(wanted, use)
    counters = with_store(wanted, look)
    assert (counters["outbox_parked"], counters["outbox_parked_dropped"], counters["outbox_records"]) == (2, 1, 1)
    with sqlite3.connect(wanted.path) as raw:
        rows = raw.execute("SELECT payload, reason FROM parked").fetchall()
    raw.close()
    assert rows == [(b"b", "refused three times"), (b"c", "refused three times")]


def test_ids_are_not_used_again_while_records_are_parked(tmp_path: Path) -> None:
    async def park_all(store: Store) -> None:
        for record in await store.commit(Batch(records=records(b"a", b"b"))):
            await store.park(record.id, "no")

    for _ in range(3):
        with_store(settings(tmp_path), park_all)

    async def look(store: Store) -> int:
        return store.counters["outbox_parked"]

    assert with_store(settings(tmp_path), look) == 6


def test_the_history_knows_exactly_the_frames_it_was_given(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        frame = (b"session1", FCnt32(5), b"\1\2\3\4")
        await store.commit(Batch(heard=(frame, frame)))
        await store.commit(Batch(heard=(frame,)))

    async def look(store: Store) -> list[bool]:
        mic = b"\1\2\3\4"
        return [
            store.heard(b"session1", FCnt32(5), mic),
            store.heard(b"session2", FCnt32(5), mic),
            store.heard(b"session1", FCnt32(6), mic),
            store.heard(b"session1", FCnt32(5), b"\1\2\3\5"),
        ]

    with_store(settings(tmp_path), use)
    assert with_store(settings(tmp_path), look) == [True, False, False, False]


def test_a_locked_database_fails_the_commit_and_works_when_it_is_free(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> None:
        first = advance(new_session(1), 1)
        batch = Batch(changes=(first,), records=records(b"once"))
        intruder = sqlite3.connect(wanted.path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.commit(batch)
        assert store.sessions() == {}
        assert store.counters["outbox_records"] == 0
        assert store.counters["store_failures"] == 1
        intruder.execute("ROLLBACK")
        intruder.close()
        await store.commit(batch)
        assert store.sessions() == {first.session.session_id: first.session}
        assert [record.payload for record in await store.pending(0, 9)] == [b"once"]

    with_store(wanted, use)


def test_an_acknowledged_record_stays_so_while_it_cannot_be_deleted(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> None:
        store._writer._connection.execute("PRAGMA busy_timeout = 0")
        stored = await store.commit(Batch(records=records(b"a", b"b", b"c")))
        intruder = sqlite3.connect(wanted.path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        store.done([stored[0].id])
        assert await store.pending(0, 2) == stored[1:]
        intruder.execute("ROLLBACK")
        intruder.close()
        assert await store.pending(0, 2) == stored[1:]
        assert store.counters["outbox_records"] == 2

    with_store(wanted, use)


def test_a_full_database_fails_the_commit_whole_and_works_when_there_is_room(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        connection = store._writer._connection
        first = advance(new_session(1), 1)
        stored = await store.commit(Batch(records=records(b"small")))
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        store.done([stored[0].id])
        big = Batch(changes=(first,), records=records(b"little", b"x" * 50_000))
        with pytest.raises(StoreFull) as caught:
            await store.commit(big)
        assert isinstance(caught.value, TransientError)
        assert store.sessions() == {}
        assert await store.pending(0, 9) == [], "what was acknowledged stays acknowledged, deleted or not"
        connection.execute("PRAGMA max_page_count = 100000")
        await store.commit(big)
        assert [record.payload for record in await store.pending(0, 9)] == [b"little", b"x" * 50_000]
        assert store.counters["outbox_records"] == 2

    with_store(settings(tmp_path), use)


def test_a_commit_whose_caller_gave_up_still_advances_the_session(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        first = advance(new_session(1), 1)
        task = asyncio.create_task(store.commit(Batch(changes=(first,), records=records(b"kept"))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [record.payload for record in await store.pending(0, 9)] == [b"kept"]
        assert store.sessions() == {first.session.session_id: first.session}

    with_store(settings(tmp_path), use)


def test_a_closed_store_says_so_and_closes_twice(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open(settings(tmp_path))
        await store.close()
        await store.close()
        store.done([1])
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.commit(Batch(records=records(b"late")))

    asyncio.run(main())


def test_our_own_mistake_reaches_the_caller_and_not_the_thread(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        with pytest.raises(sqlite3.IntegrityError):
            await store.commit(Batch(heard=((None, FCnt32(1), b"m"),)))  # type: ignore[arg-type]  # the mistake
        await store.commit(Batch(records=records(b"after")))

    with_store(settings(tmp_path), use)
    assert stored_payloads(settings(tmp_path)) == [b"after"]


def test_the_file_shrinks_after_a_long_outage(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> int:
        stored = []
        for _ in range(20):
            stored += await store.commit(Batch(records=records(*[b"x" * 20_000] * 50)))
        writer = store._writer
        writer._connection.execute("PRAGMA wal_checkpoint").fetchall()
        grown = size_of(wanted.path)
        store.done([record.id for record in stored])
        await store.commit(Batch(records=records(b"last")))
        for n in range(5000):  # pages go when nobody waits; how often that is, threads decide
            writer._vacuumed_at = 0.0
            await store.commit(Batch(records=records(b"%d" % n)))
            if size_of(wanted.path) < grown / 2:
                break
        return grown

    grown = with_store(wanted, use)
    assert grown > 20_000_000
    assert size_of(wanted.path) < grown / 2
    assert stored_payloads(wanted)[0] == b"last"


def test_the_log_does_not_grow_without_bound(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> int:
        largest = 0
        for n in range(60):
            stored = await store.commit(Batch(records=records(*[b"%d" % n * 500] * 400)))
            store.done([record.id for record in stored])
            largest = max(largest, size_of(f"{wanted.path}-wal"))
        return largest

    assert with_store(wanted, use) < 24 << 20


def size_of(path: str) -> int:
    return Path(path).stat().st_size
