"""`lorabridge store`: look at the database, or set it aside on purpose."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, main
from lorabridge.lorawan.types import FCnt32
from lorabridge.store.database import Batch, Store
from tests.store.join_help import JOIN_ID, join
from tests.store.store_help import (
    advance,
    new_session,
    old_database,
    records,
    settings,
    store_records,
    stored_payloads,
    with_store,
)


def test_check_counts_what_is_there_even_beside_a_running_bridge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> int:
        batch = Batch(changes=(advance(new_session(1), 1),), records=records(b"a", b"b", b"c"))
        stored = await store.commit(batch)
        await store.park(stored[0].id, "refused three times")
        return main(["store", "check", wanted.path])

    assert with_store(wanted, use) == EXIT_OK
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["session", "1"] in lines
    assert ["outbox", "2"] in lines
    assert ["parked", "1"] in lines
    assert ["parked", "record", "1,", "1", "bytes:", "refused", "three", "times"] in lines


def test_check_tells_damage_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = settings(tmp_path)
    store_records(wanted, b"x" * 9000)
    with Path(wanted.path).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 100)
    assert main(["store", "check", wanted.path]) == EXIT_CONFIG
    assert "set-aside" in capsys.readouterr().err
    Path(wanted.path).write_bytes(b"nothing that SQLite knows" * 100)
    assert main(["store", "check", wanted.path]) == EXIT_CONFIG


def test_check_of_nothing_fails(tmp_path: Path) -> None:
    assert main(["store", "check", str(tmp_path / "absent.db")]) == EXIT_FAILED


def test_set_aside_asks_first_and_then_the_next_start_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = settings(tmp_path)
    store_records(wanted, b"old")
    assert main(["store", "set-aside", wanted.path]) == EXIT_FAILED
    assert "played back" in capsys.readouterr().out.replace("\n", " ")
    assert stored_payloads(wanted) == [b"old"]
    assert main(["store", "set-aside", wanted.path, "--yes"]) == EXIT_OK
    assert "set aside as" in capsys.readouterr().out
    assert stored_payloads(wanted) == []


def test_check_counts_what_joins_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = settings(tmp_path)
    with_store(wanted, lambda store: store.commit(join(1)))
    assert main(["store", "check", wanted.path]) == EXIT_OK
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-4:] == [["joined", "1"], ["join_history", "1"], ["dev_nonce", "1"], ["downlink", "0"]]


def test_check_reads_a_database_that_no_bridge_has_brought_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = old_database(tmp_path)
    assert main(["store", "check", str(path)]) == EXIT_OK
    assert "schema 1" in capsys.readouterr().out


def test_forget_sessions_asks_first_and_then_every_joined_session_goes_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = settings(tmp_path)

    async def fill(store: Store) -> None:
        frame = ((1).to_bytes(8, "big"), FCnt32(1), b"mic.")
        await store.commit(join(1, heard=(frame, (b"another1", FCnt32(1), b"mic."))))
        await store.commit(Batch(changes=(advance(new_session(9), 1),), records=records(b"unsent")))

    async def look(store: Store) -> tuple[list[bytes], int, bool, bool]:
        heard = [store.heard(name, FCnt32(1), b"mic.") for name in ((1).to_bytes(8, "big"), b"another1")]
        assert store.join_history(JOIN_ID) is not None
        assert store.nonce_used(JOIN_ID, 1)
        return list(store.sessions()), len(store.joined()), heard[0], heard[1]

    with_store(wanted, fill)
    (tmp_path / "key-encryption-key").write_text("00" * 32, encoding="ascii")  # the key is lost
    assert main(["store", "forget-sessions", wanted.path]) == EXIT_FAILED
    assert "until it joins again" in capsys.readouterr().out
    assert main(["store", "forget-sessions", wanted.path, "--yes"]) == EXIT_OK
    assert "1 joined session(s) removed" in capsys.readouterr().out
    assert with_store(wanted, look) == ([(9).to_bytes(8, "big")], 0, False, True)
    assert stored_payloads(wanted) == [b"unsent"]


def test_forget_sessions_is_refused_while_the_bridge_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> int:
        await store.commit(join(1))
        return main(["store", "forget-sessions", wanted.path, "--yes"])

    assert with_store(wanted, use) == EXIT_CONFIG
    assert "another process has this database open" in capsys.readouterr().err
    assert len(with_store(wanted, lambda store: asyncio.sleep(0, store.joined()))) == 1


def test_forget_sessions_of_nothing_makes_nothing(tmp_path: Path) -> None:
    assert main(["store", "forget-sessions", str(tmp_path / "absent.db"), "--yes"]) == EXIT_CONFIG
    assert list(tmp_path.iterdir()) == []


def test_forget_sessions_brings_an_old_database_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "forget-sessions", str(old_database(tmp_path)), "--yes"]) == EXIT_OK
    assert "0 joined session(s)" in capsys.readouterr().out
