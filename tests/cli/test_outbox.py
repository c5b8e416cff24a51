"""`lorabridge outbox`: an operator sees what is stuck and why, and decides; nothing secret is shown unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_USAGE, main
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.types import EUI64
from lorabridge.store.database import Batch, Store
from tests.daemon.config_help import SMALLEST
from tests.store.store_help import records, settings, with_store

UPLINK = b'{"schema":"lorabridge/uplink/1","id":"a1","fcnt32":7,"payload":"c2VjcmV0IHdvcmRz","note":"\xc3\xa4"}'
WHY = "the link broke 5 times over it on lorabridge/roof-1/security; others get through"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A configuration whose outbox has two records parked (1, 2) and one waiting (3)."""
    wanted = settings(tmp_path / "state")

    async def fill(store: Store) -> None:
        (uplink,) = await store.commit(Batch(records=records(UPLINK)))
        (event,) = await store.commit(Batch(records=(Record(EventKind.SECURITY, None, b'{"id":"b2"}'),)))
        await store.commit(Batch(records=(Record(EventKind.UPLINK, EUI64(9), b'{"id":"c3"}'),)))
        await store.park(uplink.id, WHY)
        await store.park(event.id, "140000 bytes: AWS IoT takes 131072")

    with_store(wanted, fill)
    path = tmp_path / "lorabridge.toml"
    path.write_text(f'{SMALLEST}[store]\npath = "{wanted.path}"\n', encoding="utf-8")
    return path


def outbox(configuration: Path, *words: str) -> int:
    return main(["outbox", *words, "--config", str(configuration)])


def test_the_list_tells_what_waits_and_why_records_are_parked(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outbox(configuration, "list") == EXIT_OK
    said = capsys.readouterr().out
    assert said.startswith("waiting: 1 record(s) (1 uplink)\nparked:  2 record(s)\n\n1  uplink of 0000000000000007, ")
    assert f"  {WHY}\n" in said
    assert "\n2  security, 11 bytes, stored 20" in said
    assert max(map(len, said.splitlines())) <= 100


def test_machines_get_the_list_as_json(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outbox(configuration, "list", "--json") == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert found["waiting"]["uplink"] == 1
    assert [(one["id"], one["kind"], one["dev_eui"], one["is_to_be_retried"]) for one in found["parked"]] == [
        (1, "uplink", "0000000000000007", False),
        (2, "security", None, False),
    ]


def test_what_a_device_said_is_shown_only_when_asked_for(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outbox(configuration, "show", "1") == EXIT_OK
    said = capsys.readouterr().out
    assert "c2VjcmV0" not in said
    assert json.loads(said)["payload"] == "16 characters of base64, shown with --payload"
    assert outbox(configuration, "show", "1", "--payload") == EXIT_OK
    assert json.loads(capsys.readouterr().out) == json.loads(UPLINK)
    assert outbox(configuration, "show", "3") == EXIT_OK, "one that waits"
    assert json.loads(capsys.readouterr().out) == {"id": "c3"}
    assert outbox(configuration, "show", "99") == EXIT_FAILED


def test_retry_is_noted_and_shown(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outbox(configuration, "retry", "2") == EXIT_OK
    assert capsys.readouterr().out == "1 record(s) to be sent again\n"
    outbox(configuration, "list")
    assert capsys.readouterr().out.count(", to be sent again\n") == 1
    assert outbox(configuration, "retry", "--all", "--json") == EXIT_OK
    assert json.loads(capsys.readouterr().out) == {"retry": [1, 2]}


def test_nothing_is_deleted_without_a_yes(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outbox(configuration, "drop", "1", "2") == EXIT_FAILED
    assert capsys.readouterr().out == "2 record(s) would be deleted for ever; to do it add --yes\n"
    assert outbox(configuration, "drop", "1", "--yes") == EXIT_OK
    assert capsys.readouterr().out == "1 record(s) deleted\n"
    assert outbox(configuration, "drop", "--all", "--yes", "--json") == EXIT_OK
    assert json.loads(capsys.readouterr().out) == {"drop": [2]}
    outbox(configuration, "list")
    assert "parked:  0 record(s)" in capsys.readouterr().out


@pytest.mark.parametrize("action", [["retry"], ["drop", "--yes"]])
def test_a_number_that_is_not_parked_changes_nothing(
    configuration: Path, action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert outbox(configuration, *action, "1", "3", "99") == EXIT_CONFIG
    assert "not parked: 3, 99 (`lorabridge outbox list` tells what is)" in capsys.readouterr().err
    outbox(configuration, "list", "--json")
    parked = json.loads(capsys.readouterr().out)["parked"]
    assert [(one["id"], one["is_to_be_retried"]) for one in parked] == [(1, False), (2, False)]


@pytest.mark.parametrize("words", [[], ["retry"], ["drop"], ["drop", "1", "--all"], ["show"]])
def test_what_is_not_said_is_asked_for(configuration: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        outbox(configuration, *words)
    assert ended.value.code == EXIT_USAGE


def test_no_database_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lorabridge.toml"
    path.write_text(f'{SMALLEST}[store]\npath = "{tmp_path}/none.db"\n', encoding="utf-8")
    assert outbox(path, "list") == EXIT_CONFIG
    assert "there is no database here" in capsys.readouterr().err
