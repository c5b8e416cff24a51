"""What joins leave behind survives; keys are never in the clear in the database, root keys not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.errors import ConfigError
from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.mac_state import AddedChannel, MacState, RejoinParameters
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.store.database import Batch, SessionChange, Store, StoreConflict, StoreDamaged, StoreUnavailable
from tests.store.join_help import DEV_EUI, JOIN_ID, join, joined_session
from tests.store.store_help import advance, new_session, records, settings, with_store


def joined_after(folder: Path, *batches: Batch) -> dict[bytes, JoinedSession]:
    """Commit, and open again."""

    async def use(store: Store) -> None:
        for batch in batches:
            await store.commit(batch)
        assert set(store.joined()) <= set(store.sessions())

    async def look(store: Store) -> dict[bytes, JoinedSession]:
        return store.joined()

    with_store(settings(folder), use)
    return with_store(settings(folder), look)


def test_a_joined_session_survives_with_its_keys(tmp_path: Path) -> None:
    sealed = Batch(changes=(advance(new_session(2), 0),), joined=(joined_session(2, sealed=True),))
    found = joined_after(tmp_path, join(1), sealed)
    assert found == {one.session_id: one for one in (joined_session(1), joined_session(2, sealed=True))}


def test_memory_holds_what_was_committed_and_nothing_before(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        task = asyncio.ensure_future(store.commit(join(1)))
        assert store.joined() == {}
        await task
        assert store.joined() == {joined_session(1).session_id: joined_session(1)}
        await store.commit(join(2, ended=(joined_session(1).session_id,)))
        assert list(store.joined()) == list(store.sessions()) == [joined_session(2).session_id]

    with_store(settings(tmp_path), use)


def test_an_ended_session_takes_counters_keys_and_history_along(tmp_path: Path) -> None:
    frame, other = ((1).to_bytes(8, "big"), FCnt32(1), b"mic."), (b"another1", FCnt32(1), b"mic.")

    async def use(store: Store) -> None:
        await store.commit(join(1, heard=(frame, other)))
        await store.commit(Batch(ended=(joined_session(1).session_id, b"unknown1")))
        assert not store.heard(*frame)
        assert store.heard(*other)
        assert store.sessions() == {}
        assert store.joined() == {}

    with_store(settings(tmp_path), use)
    assert joined_after(tmp_path) == {}
    history = with_store(settings(tmp_path), lambda store: asyncio.sleep(0, store.join_history(JOIN_ID)))
    assert history is not None, "what must never be used again outlives the session"


def test_a_session_may_end_and_begin_again_in_one_batch(tmp_path: Path) -> None:
    again = join(1, ended=(joined_session(1).session_id,))
    found = joined_after(tmp_path, join(1), again)
    assert list(found) == [joined_session(1).session_id]


def test_a_joined_session_that_is_there_is_a_conflict_and_changes_nothing(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.commit(join(1))
        with pytest.raises(StoreConflict, match="joined"):
            await store.commit(Batch(joined=(joined_session(1),), nonces=((JOIN_ID, 9),), records=records(b"lost")))
        assert not store.nonce_used(JOIN_ID, 9)
        assert await store.pending(0, 9) == []

    with_store(settings(tmp_path), use)


def test_a_conflict_elsewhere_in_the_batch_stores_no_join(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.commit(join(1))
        stale = join(2, changes=(SessionChange(advance(new_session(1), 0).session, -1),))
        with pytest.raises(StoreConflict):
            await store.commit(stale)
        assert list(store.joined()) == [joined_session(1).session_id]
        assert not store.nonce_used(JOIN_ID, 2)
        history = store.join_history(JOIN_ID)
        assert history is not None
        assert history.join_nonce == 1

    with_store(settings(tmp_path), use)


def test_every_field_of_a_join_history_survives(tmp_path: Path) -> None:
    history = JoinHistory(
        join_id=b"\x01" * 8,
        dev_eui=EUI64(0xFFFF_FFFF_FFFF_FFFE),
        join_nonce=0xFF_FFFF,
        last_dev_nonce=0xFFFF,
        rj_count1=0xFFFE,
        last_mic=b"\x02\x03\x04\x05",
        last_at=1_795_000_000_000_000_000,
        last_gateway=EUI64(0xFFFF_FFFF_FFFF_FFFD),
    )
    plain = JoinHistory(join_id=b"", dev_eui=EUI64(0))
    same = [name for name in JoinHistory.__struct_fields__ if getattr(history, name) == getattr(plain, name)]
    assert same == [], "give each new field a value here that differs from its default"

    async def use(store: Store) -> None:
        await store.commit(Batch(joins=(msgspec.structs.replace(history, join_nonce=1, last_mic=b""),)))
        await store.commit(Batch(joins=(history, msgspec.structs.replace(plain, join_id=b"other-id"))))

    async def look(store: Store) -> list[JoinHistory | None]:
        return [store.join_history(join_id) for join_id in (b"\x01" * 8, b"other-id", b"nobodys!")]

    with_store(settings(tmp_path), use)
    assert with_store(settings(tmp_path), look) == [
        history,
        msgspec.structs.replace(plain, join_id=b"other-id"),
        None,
    ]


def test_the_history_of_nonces_is_complete_and_takes_one_twice(tmp_path: Path) -> None:
    used = range(0, 0x1_0000, 7)

    async def use(store: Store) -> None:
        await store.commit(Batch(nonces=tuple((JOIN_ID, nonce) for nonce in used)))
        await store.commit(Batch(nonces=((JOIN_ID, 0), (JOIN_ID, 0), (b"another1", 1))))

    async def look(store: Store) -> list[int]:
        assert not store.nonce_used(b"another1", 0)
        return [nonce for nonce in range(0x1_0000) if store.nonce_used(JOIN_ID, nonce)]

    with_store(settings(tmp_path), use)
    assert with_store(settings(tmp_path), look) == list(used)


def test_a_join_history_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.commit(join(1))
        store._writer._connection.execute("UPDATE join_history SET state = x'c1'")
        with pytest.raises(StoreDamaged, match="join history cannot be read"):
            store.join_history(JOIN_ID)

    with_store(settings(tmp_path), use)


def test_a_database_that_is_held_is_time_s_turn(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.commit(join(1))
        store._reader.execute("PRAGMA busy_timeout = 0")
        store._reader.execute("PRAGMA query_only = 0")
        store._reader.execute("PRAGMA locking_mode = EXCLUSIVE")
        store._writer._connection.execute("BEGIN IMMEDIATE")
        for question in (lambda: store.join_history(JOIN_ID), lambda: store.nonce_used(JOIN_ID, 1)):
            with pytest.raises(StoreUnavailable, match="locked"):
                question()
        store._writer._connection.execute("ROLLBACK")

    with_store(settings(tmp_path), use)


def test_keys_of_a_session_are_not_in_the_files_and_the_key_that_opens_them_not_in_the_database(
    tmp_path: Path,
) -> None:
    root_keys = (b"root app key 16B", b"root nwk key 16B")  # a Batch has no place for them

    async def use(store: Store) -> None:
        await store.commit(join(1, records=records(b"in the outbox")))
        assert_no_key()

    def assert_no_key() -> None:
        kek = (tmp_path / "key-encryption-key").read_text(encoding="ascii").strip()
        found = [*(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("lorabridge.db"))]
        assert any(b"in the outbox" in content for content in found), "the search finds what is there"
        session_keys = joined_session(1).keys
        secrets = [
            *(getattr(session_keys, name).reveal() for name in session_keys.__struct_fields__),
            *root_keys,
            bytes.fromhex(kek),
        ]
        for content in found:
            for secret in secrets:
                assert secret not in content
                assert secret.hex().encode() not in content.lower()

    with_store(settings(tmp_path), use)
    assert_no_key()


def test_a_wrong_or_missing_key_encryption_key_is_told_with_the_way_out(tmp_path: Path) -> None:
    joined_after(tmp_path, join(1), join(2))
    path = tmp_path / "key-encryption-key"
    right = path.read_text(encoding="ascii")
    path.write_text("00" * 32, encoding="ascii")
    for says in ("does not open", "missing"):
        with pytest.raises(ConfigError, match=says) as caught:
            joined_after(tmp_path)
        (problem,) = caught.value.problems
        assert problem.where.startswith("store.key_encryption_key (file ")
        assert f"lorabridge store forget-sessions {tmp_path}/lorabridge.db --yes" in problem.hint
        assert not isinstance(caught.value, StoreDamaged)
        path.unlink(missing_ok=True)
    path.write_text(right, encoding="ascii")
    path.chmod(0o600)
    assert len(joined_after(tmp_path)) == 2


def test_one_session_of_several_that_does_not_open_is_damage(tmp_path: Path) -> None:
    joined_after(tmp_path, join(1), join(2))
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("UPDATE joined SET wrapped_keys = zeroblob(72) WHERE session_id = ?", ((2).to_bytes(8, "big"),))
    raw.close()
    with pytest.raises(StoreDamaged, match="1 joined session"):
        joined_after(tmp_path)


def test_a_version_that_nobody_knows_is_damage(tmp_path: Path) -> None:
    joined_after(tmp_path, join(1))
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("UPDATE joined SET mac_version = '2.0.0'")
    raw.close()
    with pytest.raises(StoreDamaged, match="a session cannot be read"):
        joined_after(tmp_path)


def test_a_closed_store_takes_no_join(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open(settings(tmp_path))
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.commit(join(1))

    asyncio.run(main())


SMALL = st.integers(0, 0xFFFF_FFFF)
MAYBE = st.none() | st.integers(0, 15)
MAC_STATES = st.builds(
    MacState,
    rx1_delay=st.integers(1, 15),
    rx1_dr_offset=st.integers(0, 7),
    rx2_data_rate=MAYBE,
    rx2_frequency_hz=st.none() | SMALL,
    channels=st.lists(st.builds(AddedChannel, SMALL, SMALL, SMALL, SMALL), max_size=4).map(tuple),
    downlink_hz=st.lists(st.tuples(SMALL, SMALL), max_size=4).map(tuple),
    enabled=st.none() | st.frozensets(st.integers(0, 95)),
    data_rate=MAYBE,
    tx_power=MAYBE,
    nb_trans=st.integers(1, 15),
    max_duty_cycle=st.integers(0, 15),
    uplink_dwell=st.none() | st.booleans(),
    downlink_dwell=st.none() | st.booleans(),
    max_eirp_index=MAYBE,
    rejoin=st.none() | st.builds(RejoinParameters, st.integers(0, 15), st.integers(0, 15)),
    adr_ack_limit_exponent=MAYBE,
    adr_ack_delay_exponent=MAYBE,
    is_class_c=st.none() | st.booleans(),
    asked=st.binary(max_size=20),
    refused=st.frozensets(st.binary(max_size=6), max_size=4),
    status_due_in=SMALL,
    margins=st.binary(max_size=20),
    missed=SMALL,
)


def test_the_strategy_knows_every_field_of_a_mac_state() -> None:
    assert set(MAC_STATES.wrapped_strategy.kwargs) == set(MacState.__struct_fields__)  # type: ignore[attr-defined]


@given(st.lists(st.tuples(MAC_STATES, st.none() | st.integers(0, 0xFFFF)), min_size=1, max_size=4))
def test_every_mac_state_survives(states: list[tuple[MacState, int | None]]) -> None:
    sessions = [
        Session(session_id=n.to_bytes(8, "big"), dev_eui=DEV_EUI, rj_count0=rj_count0, mac=mac)
        for n, (mac, rj_count0) in enumerate(states)
    ]

    async def use(store: Store) -> None:
        await store.commit(Batch(changes=tuple(SessionChange(session, -1) for session in sessions)))

    async def look(store: Store) -> list[Session]:
        return list(store.sessions().values())

    with tempfile.TemporaryDirectory() as name:
        wanted = settings(Path(name), durability="process")
        with_store(wanted, use)
        found = with_store(wanted, look)
    assert found == sessions
    for session in found:
        assert session.mac.enabled is None or isinstance(session.mac.enabled, frozenset)
        assert all(isinstance(channel, AddedChannel) for channel in session.mac.channels)


@pytest.mark.parametrize("blob", [b"\x81\xa3mac\x81\xa9rx1_delay\xa1x", b"\x81\xa3mac\x81\xa7enabled\x91\xa1x"])
def test_a_mac_state_of_another_form_is_damage(tmp_path: Path, blob: bytes) -> None:
    with_store(settings(tmp_path), lambda store: store.commit(Batch(changes=(advance(new_session(1), 1),))))
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("UPDATE session SET state = ?", (blob,))
    raw.close()
    with pytest.raises(StoreDamaged, match="a session cannot be read"):
        joined_after(tmp_path)
