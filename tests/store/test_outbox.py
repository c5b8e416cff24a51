"""The outbox is bounded, drops the least valuable first, and counts what it dropped."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.settings import ByteSize
from lorabridge.store import books as totals
from lorabridge.store.books import KIND_CODES
from lorabridge.store.database import Batch, Store, StoreConflict, StoredRecord
from lorabridge.store.values import counted_size
from tests.store.store_help import advance, new_session, records, settings, stored_payloads, with_store

VALUE_ORDER = (
    EventKind.OUTBOX,
    EventKind.SECURITY,
    EventKind.JOIN,
    EventKind.RADIO,
    EventKind.DOWNLINK_RESULT,
    EventKind.UPLINK,
    EventKind.MAC,
    EventKind.UPLINK_COPY,
    EventKind.GATEWAY_STATS,
)
FOUR = (EventKind.SECURITY, EventKind.UPLINK, EventKind.UPLINK_COPY, EventKind.GATEWAY_STATS)


def mixed(count: int) -> tuple[Record, ...]:
    """Records of four kinds in turn."""
    return tuple(Record(FOUR[n % 4], None, b"%s:%d" % (FOUR[n % 4].name.encode(), n)) for n in range(count))


def test_the_least_valuable_kind_goes_first_and_of_it_the_oldest(tmp_path: Path) -> None:
    wanted = settings(tmp_path, outbox_max_records=5)

    async def use(store: Store) -> None:
        await store.commit(Batch(records=mixed(8)))
        assert [record.payload for record in await store.pending(0, 99)] == [
            b"SECURITY:0",
            b"UPLINK:1",
            b"SECURITY:4",
            b"UPLINK:5",
            b"UPLINK_COPY:6",
        ]
        await store.commit(Batch(records=mixed(2)))
        counters = store.counters
        assert counters["outbox_dropped_gateway_stats"] == 2
        assert counters["outbox_dropped_uplink_copy"] == 2
        assert counters["outbox_dropped_uplink"] == 1
        assert counters["outbox_dropped_security"] == 0

    with_store(wanted, use)
    assert stored_payloads(wanted) == [b"SECURITY:0", b"SECURITY:4", b"UPLINK:5", b"SECURITY:0", b"UPLINK:1"]


def test_every_kind_that_is_stored_has_its_value(tmp_path: Path) -> None:
    assert set(VALUE_ORDER) == set(EventKind) - {EventKind.STATUS, EventKind.BATCH}

    async def use(store: Store) -> list[EventKind]:
        await store.commit(Batch(records=tuple(Record(kind, None, b"x") for kind in EventKind if kind in VALUE_ORDER)))
        return [record.kind for record in await store.pending(0, 9)]

    for kept in range(len(VALUE_ORDER), 0, -1):
        folder = tmp_path / str(kept)
        found = with_store(settings(folder, outbox_max_records=kept), use)
        assert set(found) == set(VALUE_ORDER[:kept])


def test_how_a_kind_is_stored_never_changes() -> None:
    assert [kind.value for kind in KIND_CODES] == [
        "security",
        "uplink",
        "uplink_copy",
        "gateway_stats",
        "join",
        "downlink_result",
        "mac",
        "radio",
        "outbox",
    ]
    assert list(KIND_CODES.values()) == list(range(9))


def test_what_is_dropped_at_once_is_not_said_to_be_stored(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(b"a", b"b", kind=EventKind.SECURITY)))
        assert await store.commit(Batch(records=records(b"stats", kind=EventKind.GATEWAY_STATS))) == []
        (kept,) = await store.commit(Batch(records=records(b"stats", b"c", kind=EventKind.SECURITY)[1:]))
        assert kept.payload == b"c"
        assert [record.payload for record in await store.pending(0, 9)] == [b"b", b"c"]

    with_store(settings(tmp_path, outbox_max_records=2), use)


def test_a_counter_moves_even_when_its_record_finds_no_room(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        change = advance(new_session(1), 5)
        assert await store.commit(Batch(changes=(change,), records=records(b"x" * 1000))) == []
        assert store.sessions()[change.session.session_id].fcnt_up == 5
        assert store.counters["outbox_dropped_uplink"] == 1

    with_store(settings(tmp_path, outbox_max_bytes=ByteSize(100)), use)


def test_bytes_are_bounded_and_counted(tmp_path: Path) -> None:
    size = counted_size(100)
    wanted = settings(tmp_path, outbox_max_bytes=ByteSize(10 * size))

    async def use(store: Store) -> None:
        for n in range(30):
            await store.commit(Batch(records=records(b"%03d" % n + b"x" * 97)))
            assert store.counters["outbox_bytes"] == min(n + 1, 10) * size

    with_store(wanted, use)
    assert [payload[:3] for payload in stored_payloads(wanted)] == [b"%03d" % n for n in range(20, 30)]


@pytest.mark.parametrize("payload", [60, 250, 730, 1300, 2040, 4000, 4100, 9000, 131_072])
def test_the_bound_holds_for_the_pages_on_the_disk_whatever_the_size_of_the_records(
    tmp_path: Path, payload: int
) -> None:
    limit = 1 << 20
    wanted = settings(tmp_path, outbox_max_bytes=ByteSize(limit), durability="process")

    async def use(store: Store) -> tuple[int, int]:
        for _ in range(3):
            await store.commit(Batch(records=records(*[b"x" * payload] * (limit // payload // 2 + 1))))
        return store.counters["outbox_bytes"], store.counters["outbox_dropped_uplink"]

    counted, dropped = with_store(wanted, use)
    assert dropped > 0
    connection = sqlite3.connect(wanted.path)
    names = ("page_count", "freelist_count")
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    connection.close()
    empty = 40 * 4096
    assert (pages - free) * 4096 <= limit * 1.03 + empty
    assert (pages - free) * 4096 >= counted * 0.75, "nor is much of it given away"


def test_what_was_dropped_is_remembered_through_restarts(tmp_path: Path) -> None:
    wanted = settings(tmp_path, outbox_max_records=1)

    async def use(store: Store) -> int:
        await store.commit(Batch(records=records(b"a", b"b")))
        return store.counters["outbox_dropped_uplink"]

    assert [with_store(wanted, use) for _ in range(3)] == [1, 3, 5]


def test_smaller_bounds_in_the_settings_take_effect_with_the_next_commit(tmp_path: Path) -> None:
    async def fill(store: Store) -> None:
        await store.commit(Batch(records=records(*(b"%d" % n for n in range(20)))))

    async def one_more(store: Store) -> int:
        await store.commit(Batch(records=records(b"new")))
        return store.counters["outbox_records"]

    with_store(settings(tmp_path), fill)
    assert with_store(settings(tmp_path, outbox_max_records=3), one_more) == 3
    assert stored_payloads(settings(tmp_path)) == [b"18", b"19", b"new"]


OPEN_AND_TELL_MEMORY = """
import asyncio, resource, sys
from lorabridge.store.database import Store, StoreSettings
async def main():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = await Store.open(StoreSettings(path=sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.close()
asyncio.run(main())
"""


def test_opening_a_long_outbox_takes_no_memory_for_its_payloads(tmp_path: Path) -> None:
    wanted = settings(tmp_path, durability="process")

    async def fill(store: Store) -> None:
        for _ in range(60):
            await store.commit(Batch(records=records(*[b"x" * 10_000] * 100)))

    async def look(store: Store) -> int:
        return store.counters["outbox_records"]

    with_store(wanted, fill)
    command = [sys.executable, "-c", OPEN_AND_TELL_MEMORY, wanted.path]
    grown_kib = int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert grown_kib < 20_000, "the outbox holds 60 MB"
    assert with_store(wanted, look) == 6000


@dataclasses.dataclass
class Row:
    id: int
    kind: EventKind
    payload: bytes


LIMIT_RECORDS, LIMIT_BYTES, KEEP_PARKED = 12, 12 * counted_size(12), 3


class StoreMachine(RuleBasedStateMachine):
    """The store against a plain list: whatever is asked in whatever order, both say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lorabridge-test-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(totals, "COUNT_AGAIN", 5)
        self.runner = asyncio.Runner()
        self.wanted = settings(
            self.folder,
            durability="process",
            outbox_max_records=LIMIT_RECORDS,
            outbox_max_bytes=ByteSize(LIMIT_BYTES),
            parked_max_records=KEEP_PARKED,
        )
        self.rows: list[Row] = []
        self.parked: list[bytes] = []
        self.dropped = dict.fromkeys(VALUE_ORDER, 0)
        self.told = dict.fromkeys(VALUE_ORDER, 0)
        self.sessions: dict[bytes, Session] = {}
        self.heard: set[tuple[bytes, FCnt32, bytes]] = set()
        self.last_id = 0
        self.store = self.runner.run(Store.open(self.wanted))

    def over(self) -> bool:
        size = sum(counted_size(len(row.payload)) for row in self.rows)
        return len(self.rows) > LIMIT_RECORDS or size > LIMIT_BYTES

    def drop_excess(self) -> None:
        for kind in reversed(VALUE_ORDER):
            while self.over() and (row := next((row for row in self.rows if row.kind is kind), None)):
                self.rows.remove(row)
                self.dropped[kind] += 1

    @rule(
        new=st.lists(st.tuples(st.sampled_from(VALUE_ORDER), st.binary(max_size=40)), max_size=6),
        moved=st.sets(st.integers(0, 4), max_size=3),
        heard=st.lists(st.tuples(st.sampled_from([b"s1", b"s2"]), st.integers(0, 3).map(FCnt32), st.just(b"mic!"))),
    )
    def commit(
        self,
        new: list[tuple[EventKind, bytes]],
        moved: set[int],
        heard: list[tuple[bytes, FCnt32, bytes]],
    ) -> None:
        changes = [advance(self.sessions.get(n.to_bytes(8, "big"), new_session(n)), len(self.rows)) for n in moved]
        batch = Batch(changes=tuple(changes), records=tuple(Record(k, EUI64(3), p) for k, p in new), heard=tuple(heard))
        stored = self.runner.run(self.store.commit(batch))
        self.sessions.update((change.session.session_id, change.session) for change in changes)
        self.heard.update(heard)
        first = self.last_id + 1
        rows = [Row(number, kind, payload) for number, (kind, payload) in enumerate(new, first)]
        self.last_id += len(new)
        self.rows += rows
        if changes or new or heard:
            self.drop_excess()
        assert [(record.id, record.payload) for record in stored] == [
            (row.id, row.payload) for row in rows if row in self.rows
        ]

    @rule(number=st.integers(0, 4), off_by=st.sampled_from([-3, -2, -1, 1, 2]))
    def commit_stale(self, number: int, off_by: int) -> None:
        known = self.sessions.get(number.to_bytes(8, "big"), new_session(number))
        expected = max(known.generation + off_by, -1)
        if expected == known.generation:
            return
        change = advance(msgspec.structs.replace(known, generation=expected), 1)
        with pytest.raises(StoreConflict):
            self.runner.run(self.store.commit(Batch(changes=(change,), records=records(b"never"))))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        ids = data.draw(st.sets(st.sampled_from([row.id for row in self.rows])))
        self.store.done([*ids, 10**6])
        self.rows = [row for row in self.rows if row.id not in ids]
        self.runner.run(self.store.pending(0, 0))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        self.runner.run(self.store.park(row.id, "refused"))
        self.rows.remove(row)
        self.parked = [*self.parked, row.payload][-KEEP_PARKED:]

    @rule()
    def tell(self) -> None:
        lost = tuple(self.store.untold())
        assert {one.kind: one.records for one in lost if one.kind is not None} == {
            kind: self.dropped[kind] - self.told[kind] for kind in VALUE_ORDER if self.dropped[kind] > self.told[kind]
        }
        self.runner.run(self.store.commit(Batch(told=lost)))
        self.told |= {one.kind: self.dropped[one.kind] for one in lost if one.kind is not None}
        self.drop_excess()

    @rule(after=st.integers(0, 40), limit=st.integers(0, 10))
    def pending(self, after: int, limit: int) -> None:
        found: list[StoredRecord] = self.runner.run(self.store.pending(after, limit))
        wanted = [row for row in self.rows if row.id > after][:limit]
        assert [(record.id, record.kind, record.payload) for record in found] == [
            (row.id, row.kind, row.payload) for row in wanted
        ]

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.runner.run(Store.open(self.wanted))
        found = self.runner.run(self.store.pending(0, 10**6))
        # Ids that no row has any more may be given again after a restart: nobody is left who remembers them.
        self.last_id = max([*(record.id for record in found), self.store._writer.books.next_id - 1])
        assert [record.payload for record in found] == [row.payload for row in self.rows]

    @invariant()
    def books_are_right(self) -> None:
        pending = self.runner.run(self.store.pending(0, 10**6))
        assert [record.payload for record in pending] == [row.payload for row in self.rows]
        assert self.store.sessions() == self.sessions
        counters = self.store.counters
        assert counters["outbox_parked"] == len(self.parked)
        for kind in VALUE_ORDER:
            assert counters[f"outbox_dropped_{kind.value}"] == self.dropped[kind]
        for session_id in (b"s1", b"s2"):
            for fcnt32 in range(4):
                frame = (session_id, FCnt32(fcnt32), b"mic!")
                assert self.store.heard(*frame) == (frame in self.heard)

    @invariant()
    def totals_match_the_rows_once_deletions_are_through(self) -> None:
        if not self.store._writer._undeleted:
            counters = self.store.counters
            assert counters["outbox_records"] == len(self.rows)
            assert counters["outbox_bytes"] == sum(counted_size(len(row.payload)) for row in self.rows)

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.patch.undo()
        shutil.rmtree(self.folder)


TestStoreAgainstModel = pytest.mark.filterwarnings("error")(StoreMachine.TestCase)
TestStoreAgainstModel.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)
