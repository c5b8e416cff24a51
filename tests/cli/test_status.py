"""`lorabridge status`: asks the running bridge over its socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lorabridge.cli import status as status_command
from lorabridge.cli.main import main
from tests.daemon.config_help import SMALLEST

ANSWER: dict[str, Any] = {
    "version": "1.2.3",
    "gateway_id": "roof-1",
    "uptime_s": 61,
    "link": "online",
    "link_fault": None,
    "healthy": True,
    "stuck": [],
    "verdicts": {"accepted": 41, "replay": 1},
    "counters": {"outbox_records": 0},
    "gateways": {},
}


@contextmanager
def _bridge(folder: Path, answer: bytes) -> Iterator[Path]:
    """A socket that gives this answer once; yields the configuration that names it."""
    path, config = folder / "status.sock", folder / "lorabridge.toml"
    config.write_text(f'{SMALLEST}[report]\nstatus_socket = "{path}"\n', encoding="utf-8")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(10)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield config
        thread.join()


def test_people_read_one_fact_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _bridge(tmp_path, json.dumps(ANSWER).encode()) as config:
        assert main(["status", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", "1.2.3"]
    assert ["healthy", "yes"] in [line.split() for line in lines]
    assert ["accepted", "41"] in [line.split() for line in lines]
    assert lines[lines.index("gateways:") + 1].strip() == "none"


def test_machines_get_the_answer_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _bridge(tmp_path, json.dumps(ANSWER).encode()) as config:
        assert main(["status", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_a_bridge_that_is_not_well_is_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sick = ANSWER | {"healthy": False, "stuck": ["pipeline", "radio udp"], "link_fault": "sni_refused"}
    with _bridge(tmp_path, json.dumps(sick).encode()) as config:
        assert main(["status", "--config", str(config)]) == 1
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line]
    assert ["stuck", "pipeline, radio udp"] in lines
    assert ["link_fault", "sni_refused"] in lines


@pytest.mark.parametrize("answer", [b"", b"not json", b'{"version": "1"', b"\xff\xfe\xfd", b"[]", b"{}"])
def test_an_answer_that_is_none_is_told(tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with _bridge(tmp_path, answer) as config:
        assert main(["status", "--config", str(config)]) == 78
    told = capsys.readouterr()
    assert told.out == ""
    assert "status.sock: no answer" in told.err
    assert "is the service running?" in told.err


def test_no_bridge_at_all_is_told_with_what_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "lorabridge.toml"
    config.write_text(f'{SMALLEST}[report]\nstatus_socket = "{tmp_path}/none.sock"\n', encoding="utf-8")
    assert main(["status", "--config", str(config)]) == 78
    assert "systemctl status lorabridge" in capsys.readouterr().err


def test_a_bridge_that_hangs_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_command, "_TIMEOUT", 0.05)
    config = tmp_path / "lorabridge.toml"
    config.write_text(f'{SMALLEST}[report]\nstatus_socket = "{tmp_path}/s.sock"\n', encoding="utf-8")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s.sock"))
        silent.listen()
        assert main(["status", "--config", str(config)]) == 78
    assert "timed out" in capsys.readouterr().err
