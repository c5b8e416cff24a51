"""A look into the store reads what was committed, beside an open store too, and writes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from lorabridge.errors import ConfigError
from lorabridge.lorawan.types import FCnt32
from lorabridge.store.database import Store, StoreDamaged, StoreUnavailable
from lorabridge.store.key_wrap import DEFAULT_FILE
from lorabridge.store.snapshot import open_snapshot
from tests.store.join_help import JOIN_ID, join, joined_session
from tests.store.store_help import old_database, settings, with_store


def test_everything_that_was_committed_is_seen_while_the_store_is_open(tmp_path: Path) -> None:
    wanted, heard = settings(tmp_path), (b"\0" * 7 + b"\1", FCnt32(5), b"mic!")

    async def use(store: Store) -> None:
        await store.commit(join(1, heard=(heard,)))
        with open_snapshot(wanted) as found:
            assert found is not None
            assert (found.sessions, found.joined) == (store.sessions(), store.joined())
            assert found.joined[joined_session(1).session_id] == joined_session(1)
            assert (found.nonce_used(JOIN_ID, 1), found.nonce_used(JOIN_ID, 2)) == (True, False)
            assert found.join_history(JOIN_ID) == store.join_history(JOIN_ID)
            assert (found.heard(*heard), found.heard(heard[0], FCnt32(6), heard[2])) == (True, False)
            await store.commit(join(2))  # a look holds nobody up, and histories are as they are now
            assert found.nonce_used(JOIN_ID, 2)
            assert len(found.sessions) == 1

    with_store(wanted, use)


def test_where_there_is_no_database_none_is_made(tmp_path: Path) -> None:
    with open_snapshot(settings(tmp_path)) as found:
        assert found is None
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_before_the_joins_knows_none_and_stays_as_it_is(tmp_path: Path) -> None:
    path = old_database(tmp_path)
    before = path.read_bytes()
    with open_snapshot(settings(tmp_path)) as found:
        assert found is not None
        assert found.sessions
        assert (found.joined, found.join_history(JOIN_ID), found.nonce_used(JOIN_ID, 1)) == ({}, None, False)
    assert path.read_bytes() == before


def test_what_cannot_be_read_is_told_by_whose_turn_it_is(tmp_path: Path) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> None:
        await store.commit(join(1))

    with_store(wanted, use)
    (tmp_path / DEFAULT_FILE).unlink()
    with pytest.raises(ConfigError, match="what opens them is missing"), open_snapshot(wanted):
        pass
    path = Path(wanted.path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM joined")
        connection.execute("UPDATE session SET state = x'c1'")
    connection.close()
    with pytest.raises(StoreDamaged, match="a row cannot be read"), open_snapshot(wanted):
        pass
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreDamaged), open_snapshot(wanted):
        pass


def test_a_database_that_cannot_be_opened_may_be_had_later(tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(settings(tmp_path), path=str(tmp_path / "lorabridge.db"))
    with sqlite3.connect(tmp_path / "lorabridge.db") as connection:
        connection.execute("CREATE TABLE other (x)")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable), open_snapshot(wanted):
            pass
    connection.close()
