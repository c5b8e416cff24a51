"""`lorabridge simulate`: the whole bridge, watched from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorabridge.cli import simulate
from lorabridge.cli.main import main
from lorabridge.simulation.scenario import DEVICE_FILE, RECORDINGS


@pytest.mark.slow
def test_the_shipped_recordings_get_their_verdicts_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorabridge.cli.main", "simulate", "--pace", "fast"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepted" in done.stdout
    assert "<--" not in done.stdout
    assert "with ACK" in done.stdout
    assert "it heard what the cloud ordered" in done.stdout
    assert done.stdout.count("decrypted payload") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_verdict_other_than_deserved_is_told_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (RECORDINGS / "us915.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    changed = [line.replace('"verdict":"accepted"', '"verdict":"replay"') for line in lines]
    assert changed != lines
    (tmp_path / "us915.jsonl").write_text("\n".join(changed), encoding="utf-8")
    (tmp_path / DEVICE_FILE).write_bytes((RECORDINGS / DEVICE_FILE).read_bytes())
    monkeypatch.setattr(simulate, "RECORDINGS", tmp_path)
    assert main(["simulate", "--pace", "fast"]) == 1
    shown = capsys.readouterr().out
    assert "<--" in shown
    assert "another verdict than they deserve" in shown


def test_a_recording_of_ones_own_is_played_with_ones_own_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "My roof.jsonl"
    lines = (RECORDINGS / "eu868.jsonl").read_text(encoding="utf-8").splitlines()[:20]
    recording.write_text("\n".join(lines), encoding="utf-8")
    devices = tmp_path / DEVICE_FILE
    devices.write_bytes((RECORDINGS / DEVICE_FILE).read_bytes())
    devices.chmod(0o600)
    assert main(["simulate", str(recording), "--device-file", str(devices), "--pace", "fast"]) == 0
    assert "accepted" in capsys.readouterr().out


def test_devices_that_others_can_read_are_refused_as_the_service_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = tmp_path / DEVICE_FILE
    devices.write_bytes((RECORDINGS / DEVICE_FILE).read_bytes())
    devices.chmod(0o644)
    assert main(["simulate", str(RECORDINGS / "us915.jsonl"), "--device-file", str(devices)]) == 78
    assert "chmod" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fleet_under_attack_joins_and_is_answered_and_every_frame_gets_what_it_deserves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    how = ["--seconds", "120", "--speed", "15", "--every", "15", "--attacked", "0.2"]
    assert main(["simulate", "--devices", "6", *how]) == 0
    shown = capsys.readouterr().out
    assert "join_request" in shown
    assert "joins                   6 of 6" in shown


def test_what_is_not_as_it_ought_to_be_is_told_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.told(["uplink of a, FCnt 3, did not arrive"], "all is well") == 1
    assert "did not arrive" in capsys.readouterr().out
