"""`lorabridge store`: look at the database, or set it aside on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, main
from lorabridge.store.database import Batch, Store
from tests.store.store_help import advance, new_session, records, settings, store_records, stored_payloads, with_store


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
