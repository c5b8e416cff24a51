"""One process, all the files, a database that holds together: or a sentence that says what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lorabridge.errors import ConfigError
from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import Priority
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr
from lorabridge.store.connection import APPLICATION_ID, open_database
from lorabridge.store.database import Batch, Store, StoreDamaged
from lorabridge.store.files import set_aside
from tests.store.store_help import (
    DATABASES,
    advance,
    new_session,
    old_database,
    records,
    settings,
    store_records,
    stored_payloads,
    with_store,
)


def refusal(folder: Path) -> ConfigError:
    """What opening the store in `folder` is refused with."""
    with pytest.raises(ConfigError) as caught:
        with_store(settings(folder), lambda _: asyncio.sleep(0))
    return caught.value


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from tests.store.store_help import settings\nfrom lorabridge.store.database import Store\n"
        "async def main():\n"
        "    store = await Store.open(settings(Path(sys.argv[1])))\n"
        "    print('open', flush=True); sys.stdin.read()\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        error = refusal(tmp_path)
        assert f"process {other.pid}" in str(error)
        with pytest.raises(ConfigError, match=f"process {other.pid}"):
            set_aside(tmp_path / "lorabridge.db")
        other.stdin.close()
        other.wait(10)
    store_records(settings(tmp_path), b"mine now")


def test_a_store_that_could_not_be_opened_lets_go_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "lorabridge.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    (tmp_path / "lorabridge.db").chmod(0o600)
    for _ in range(2):
        assert isinstance(refusal(tmp_path), StoreDamaged)


def test_a_missing_database_is_never_silently_made_again(tmp_path: Path) -> None:
    store_records(settings(tmp_path), b"x")
    (tmp_path / "lorabridge.db").unlink()
    error = refusal(tmp_path)
    assert isinstance(error, StoreDamaged)
    assert "missing" in str(error)
    assert f"lorabridge store set-aside {tmp_path / 'lorabridge.db'}" in str(error)
    assert "counter" in error.problems[0].hint
    assert not (tmp_path / "lorabridge.db").exists()
    assert set_aside(tmp_path / "lorabridge.db") == []
    assert stored_payloads(settings(tmp_path)) == []


@pytest.mark.parametrize("left", [0, 100])
def test_a_truncated_database_is_never_silently_made_again(tmp_path: Path, left: int) -> None:
    store_records(settings(tmp_path), b"x")
    os.truncate(tmp_path / "lorabridge.db", left)
    assert isinstance(refusal(tmp_path), StoreDamaged)


def test_an_emptied_database_is_never_silently_filled_again(tmp_path: Path) -> None:
    store_records(settings(tmp_path), b"x")
    (tmp_path / "lorabridge.db").unlink()
    sqlite3.connect(tmp_path / "lorabridge.db").execute("VACUUM").connection.close()
    (tmp_path / "lorabridge.db").chmod(0o600)
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("PRAGMA user_version = 0")
        raw.execute("CREATE TABLE t (x)")
        raw.execute("DROP TABLE t")
    raw.close()
    assert isinstance(refusal(tmp_path), StoreDamaged)


def test_a_first_start_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "lorabridge.db").touch(mode=0o600)
    store_records(settings(tmp_path), b"x")
    assert stored_payloads(settings(tmp_path)) == [b"x"]


@pytest.mark.parametrize("page", [0, 1, 2, 3, 4, 5, 8])
def test_a_damaged_page_is_found_at_the_start_or_harmless(tmp_path: Path, page: int) -> None:
    async def fill(store: Store) -> None:
        changes = tuple(advance(new_session(n), n) for n in range(100))
        await store.commit(Batch(changes=changes, records=records(*(b"%d" % n * 300 for n in range(20)))))

    with_store(settings(tmp_path), fill)
    path = tmp_path / "lorabridge.db"
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 512)
    error = refusal(tmp_path)
    assert "damaged" in str(error)
    assert "set-aside" in error.problems[0].hint
    assert path.read_bytes()[: page * 4096] == before[: page * 4096], "a damaged database is left as it is"


def test_a_session_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    async def fill(store: Store) -> None:
        await store.commit(Batch(changes=(advance(new_session(1), 1),)))

    with_store(settings(tmp_path), fill)
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("UPDATE session SET state = x'c1'")
    raw.close()
    assert "a session cannot be read" in str(refusal(tmp_path))


def test_a_damaged_database_is_set_aside_whole_and_a_new_one_begins(tmp_path: Path) -> None:
    store_records(settings(tmp_path), b"old")
    path = tmp_path / "lorabridge.db"
    (tmp_path / "lorabridge.db-wal").write_bytes(b"left over")
    names = {entry.name for entry in set_aside(path, now=0)}
    assert names == {"lorabridge.db.set-aside-19700101T000000Z", "lorabridge.db.set-aside-19700101T000000Z-wal"}
    store_records(settings(tmp_path), b"new")
    assert stored_payloads(settings(tmp_path)) == [b"new"]
    (again,) = set_aside(path, now=0)
    assert again.name == "lorabridge.db.set-aside-19700101T000000Z-2"
    with pytest.raises(ConfigError, match="no database"):
        set_aside(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store_records(settings(tmp_path), b"x")
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("PRAGMA user_version = 999")
    raw.close()
    error = refusal(tmp_path)
    assert "newer lorabridge (schema 999" in str(error)
    assert not isinstance(error, StoreDamaged), "nothing is damaged, so nothing says to set it aside"


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "lorabridge.db") as raw:
        raw.execute("CREATE TABLE firefox (x)")
    raw.close()
    (tmp_path / "lorabridge.db").chmod(0o600)
    assert "not one of lorabridge" in str(refusal(tmp_path))


def test_files_that_others_can_reach_are_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    store_records(settings(tmp_path), b"x")
    path = tmp_path / "lorabridge.db"
    path.chmod(0o644)
    assert refusal(tmp_path).problems[0].hint == f"chmod 600 {path}"
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    assert refusal(tmp_path).problems[0].hint == f"chmod go-w {tmp_path}"


def test_paths_that_can_be_no_database_are_the_operators_turn(tmp_path: Path) -> None:
    (tmp_path / "lorabridge.db").mkdir(mode=0o700)
    assert str(tmp_path / "lorabridge.db") in str(refusal(tmp_path))
    (tmp_path / "file").touch(mode=0o600)
    assert str(tmp_path / "file") in str(refusal(tmp_path / "file"))
    folder = tmp_path / "pipe"
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "lorabridge.db", 0o600)
    assert "no ordinary file" in str(refusal(folder))


SESSION = bytes.fromhex("a1a2a3a4a5a6a7a8")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_database_of_every_older_schema_opens_twice_with_all_it_holds(tmp_path: Path, version: int) -> None:
    old_database(tmp_path, version)
    (tmp_path / "key-encryption-key").write_text(bytes(range(16)).hex(), encoding="utf-8")
    (tmp_path / "key-encryption-key").chmod(0o600)

    async def look(store: Store) -> None:
        session = store.sessions()[SESSION]
        assert session.dev_eui == EUI64(0x0004A30B001C0530)
        assert (session.fcnt_up, session.generation, session.resets) == (70_000, 12, 1)
        assert session.reset is not None
        assert (session.reset.last_fcnt32, session.reset.consecutive) == (3, 2)
        assert store.heard(session.session_id, 69_999, b"\x01\x02\x03\x04")  # type: ignore[arg-type]  # plain int
        assert [(r.id, r.kind.value, r.dev_eui, r.payload) for r in await store.pending(0, 9)] == [
            (41, "uplink", EUI64(0x0004A30B001C0530), b'{"n":1}'),
            (43, "security", None, b'{"n":2}'),
        ]
        assert store.counters["outbox_parked"] == 1
        assert store.counters["outbox_dropped_gateway_stats"] == 5

        if version < 2:
            assert (store.joined(), store.queue(), store.airtimes(), store.next_queue_id()) == ({}, [], [], 1)
        else:
            look_at_schema_2(store)
        assert [lost.records for lost in store.untold()] == ([2] if version >= 3 else []), "told once"

    for _ in range(2):
        with_store(settings(tmp_path), look)


def look_at_schema_2(store: Store) -> None:
    """What `v2.sql` holds beyond `v1.sql`."""
    (joined,) = store.joined().values()
    assert (joined.dev_eui, joined.dev_addr) == (EUI64(0x0004A30B001C0531), DevAddr(0x26011BDA))
    assert joined.keys.app_s_key == AES128Key(b"\x44" * 15 + b"\x01")
    session = store.sessions()[joined.session_id]
    assert (session.rj_count0, session.mac.rx1_delay) == (2, 5)
    assert session.mac.refused == frozenset({b"\x03\x50\x07\x00\x01"})
    history = store.join_history(bytes.fromhex("c1c2c3c4c5c6c7c8"))
    assert history is not None
    assert (history.join_nonce, history.last_dev_nonce, history.rj_count1) == (7, 258, 3)
    assert store.nonce_used(history.join_id, 65_535)
    (queued,) = store.queue()
    assert (queued.queue_id, queued.command.id, queued.command.priority) == (8, "c-1", Priority.HIGH)
    assert store.next_queue_id() == 10
    assert store.airtimes() == [Airtime(EUI64(0xAA), 868_000_000, 1_795_000_000_000_000_004, 61_696)]


def test_the_newest_schema_has_a_fixture() -> None:
    steps = len(list((Path("lorabridge/store/schema")).glob("*.sql")))
    assert (DATABASES / f"v{steps}.sql").exists()


def test_the_database_carries_our_mark(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "lorabridge.db", "process")
    assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    connection.close()


def test_a_copy_made_while_a_log_was_left_is_whole(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    there.mkdir(mode=0o700)

    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(b"in the log")))
        for suffix in ("", "-wal", ".created"):
            shutil.copy(here / f"lorabridge.db{suffix}", there)

    with_store(settings(here), use)
    assert stored_payloads(settings(there)) == [b"in the log"]
