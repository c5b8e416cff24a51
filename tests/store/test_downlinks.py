"""The queue of downlinks and the airtimes survive as they were committed."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import DownlinkCommand, Priority, QueuedCommand
from lorabridge.lorawan.types import EUI64, DeviceClass, FCnt32
from lorabridge.store.database import Batch, Store, StoreConflict, StoreDamaged
from tests.store.store_help import records, settings, with_store

DEV_EUI = EUI64(0x0004A30B001C0530)
HOUR = 3600 * 1_000_000_000
NOW = 1_795_000_000_000_000_000


def queued(queue_id: int, *, target: EUI64 | str = DEV_EUI, **more: object) -> QueuedCommand:
    command = DownlinkCommand(id=f"c{queue_id}", target=target, f_port=1, payload=b"x")
    return QueuedCommand(queue_id=queue_id, command=msgspec.structs.replace(command, **more))


def queue_after(folder: Path, *batches: Batch) -> tuple[list[QueuedCommand], int]:
    """Commit, and open again."""

    async def use(store: Store) -> None:
        for batch in batches:
            await store.commit(batch)

    async def look(store: Store) -> tuple[list[QueuedCommand], int]:
        return store.queue(), store.next_queue_id()

    with_store(settings(folder, durability="process"), use)
    return with_store(settings(folder, durability="process"), look)


U64 = st.integers(0, (1 << 63) - 1)
COMMANDS = st.builds(
    DownlinkCommand,
    id=st.text(min_size=1, max_size=64),
    target=st.integers(0, (1 << 64) - 1).map(EUI64) | st.text(min_size=1, max_size=64),
    f_port=st.integers(1, 223),
    payload=st.binary(max_size=242),
    fcnt_down=st.none() | st.integers(0, 0xFFFF_FFFF).map(FCnt32),
    confirmed=st.booleans(),
    device_class=st.none() | st.sampled_from(DeviceClass),
    priority=st.sampled_from(Priority),
    expires_at=st.none() | U64,
    correlation_id=st.none() | st.text(max_size=64),
    received_at=U64,
)
QUEUED = st.builds(
    QueuedCommand,
    queue_id=st.integers(1, 1 << 40),
    command=COMMANDS,
    attempts=st.integers(0, 255),
    sent_fcnt=st.none() | st.integers(0, 0xFFFF_FFFF).map(FCnt32),
)


def test_the_strategy_knows_every_field_of_a_command() -> None:
    assert set(COMMANDS.wrapped_strategy.kwargs) == set(DownlinkCommand.__struct_fields__)  # type: ignore[attr-defined]
    assert set(QUEUED.wrapped_strategy.kwargs) == set(QueuedCommand.__struct_fields__)  # type: ignore[attr-defined]


@given(st.lists(QUEUED, max_size=4, unique_by=(lambda q: q.queue_id, lambda q: (q.command.target, q.command.id))))
def test_every_command_survives_in_its_order(commands: list[QueuedCommand]) -> None:
    with tempfile.TemporaryDirectory() as name:
        found, following = queue_after(Path(name), Batch(queued=tuple(commands)))
    assert found == sorted(commands, key=lambda one: one.queue_id)
    assert [type(one.command.target) for one in found] == [
        type(one.command.target) for one in sorted(commands, key=lambda one: one.queue_id)
    ]
    assert following == max((one.queue_id for one in commands), default=0) + 1


def test_a_command_that_got_further_replaces_itself_and_one_done_with_goes(tmp_path: Path) -> None:
    further = msgspec.structs.replace(queued(1), attempts=1, sent_fcnt=FCnt32(7))
    found, _ = queue_after(
        tmp_path, Batch(queued=(queued(1), queued(2))), Batch(queued=(further,), unqueued=(2, 12345))
    )
    assert found == [further]


def test_a_number_is_never_used_twice_although_the_queue_runs_empty(tmp_path: Path) -> None:
    assert queue_after(tmp_path, Batch(queued=(queued(1), queued(7))), Batch(unqueued=(1, 7))) == ([], 8)


def test_a_command_put_and_done_with_in_one_batch_is_done_with(tmp_path: Path) -> None:
    assert queue_after(tmp_path, Batch(queued=(queued(1),), unqueued=(1,)))[0] == []


def test_a_command_may_take_the_id_of_one_done_with_in_the_same_batch(tmp_path: Path) -> None:
    again = queued(2, id="c1")
    assert queue_after(tmp_path, Batch(queued=(queued(1),)), Batch(queued=(again,), unqueued=(1,)))[0] == [again]


def test_an_id_is_taken_once_a_target_and_a_second_one_is_a_conflict(tmp_path: Path) -> None:
    group = queued(2, target="lamps", id="c1")

    async def use(store: Store) -> None:
        await store.commit(Batch(queued=(queued(1), group)))
        with pytest.raises(StoreConflict, match="same target"):
            await store.commit(Batch(queued=(queued(3, id="c1"),), records=records(b"lost")))
        assert await store.pending(0, 9) == []

    with_store(settings(tmp_path), use)
    assert queue_after(tmp_path)[0] == [queued(1), group]


def test_a_group_called_like_the_bytes_of_a_device_is_no_device(tmp_path: Path) -> None:
    name = DEV_EUI.to_bytes(8, "big").decode("latin-1")
    commands = (queued(1, id="same"), queued(2, target=name, id="same"))
    assert queue_after(tmp_path, Batch(queued=commands))[0] == list(commands)


def test_a_command_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    queue_after(tmp_path, Batch(queued=(queued(1),)))
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("UPDATE downlink SET state = x'80'")
    raw.close()
    with pytest.raises(StoreDamaged, match="a queued command cannot be read"):
        queue_after(tmp_path)


def airtime(at: int, gateway: int = 0xFFFF_FFFF_FFFF_FFFE) -> Airtime:
    return Airtime(EUI64(gateway), 868_000_000, at, 61_696)


def airtimes_after(folder: Path, *batches: tuple[Airtime, ...]) -> list[Airtime]:
    async def use(store: Store) -> None:
        for batch in batches:
            await store.commit(Batch(airtimes=batch))

    async def look(store: Store) -> list[Airtime]:
        return store.airtimes()

    with_store(settings(folder), use)
    return with_store(settings(folder), look)


def test_airtimes_survive_oldest_first_and_two_alike_are_two(tmp_path: Path) -> None:
    found = airtimes_after(tmp_path, (airtime(NOW + 1), airtime(NOW)), (airtime(NOW + 1), airtime(NOW, 5)))
    assert found == [airtime(NOW), airtime(NOW, 5), airtime(NOW + 1), airtime(NOW + 1)]


def test_airtimes_of_more_than_an_hour_ago_go_when_new_ones_come(tmp_path: Path) -> None:
    old, edge, new = airtime(NOW - HOUR - 1), airtime(NOW - HOUR), airtime(NOW)
    assert airtimes_after(tmp_path, (old, edge)) == [old, edge]
    assert airtimes_after(tmp_path, (new,)) == [edge, new]


def test_airtimes_under_a_clock_that_was_ahead_do_not_count_for_ever(tmp_path: Path) -> None:
    assert airtimes_after(tmp_path, (airtime(NOW + 24 * HOUR),), (airtime(NOW),)) == [airtime(NOW)]
