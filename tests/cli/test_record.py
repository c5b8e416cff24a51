"""`lorabridge record` as a process of its own, fed through a real socket."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabridge.cli import record
from lorabridge.cli.listening import udp_address
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import SourceEnded
from lorabridge.radio.recording import Recording, RecordingSettings
from tests.cli.sending import PATIENCE, forwarder, free_port, push, rxpk

PUSH = rxpk(b"\x40\1\2\3")


@contextlib.contextmanager
def recording(port: int, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "lorabridge.cli.main", "record", "--listen", f"127.0.0.1:{port}", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def played(path: Path) -> list[Reception]:
    async def whole() -> list[Reception]:
        source = Recording(RecordingSettings(path=path, pace="fast"))
        await source.start()
        heard: list[Reception] = []
        with contextlib.suppress(SourceEnded):
            while True:
                heard += [item for item in await source.receive() if isinstance(item, Reception)]
        await source.stop()
        return heard

    return asyncio.run(whole())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_clean_end_and_loses_nothing_that_was_acknowledged(
    tmp_path: Path, number: signal.Signals
) -> None:
    path, port = tmp_path / "roof.jsonl", free_port()
    with recording(port, "--out", str(path)) as process, forwarder(port) as end:
        for _ in range(50):
            push(end, PUSH)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert b"50 lines" in errors
    heard = played(path)
    assert len(heard) == 50
    assert {(item.phy_payload, item.gateway_eui) for item in heard} == {(b"\x40\1\2\3", EUI64(0xAA555A0000000001))}
    assert abs(heard[0].received_at - time.time_ns()) < 60 * 10**9


def test_the_count_ends_it_and_standard_output_takes_the_lines() -> None:
    port = free_port()
    with recording(port, "--count", "3") as process, forwarder(port) as end:
        for _ in range(3):
            push(end, PUSH)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == 3
    assert set(lines[0]) == {"received_at", "gateway_eui", "rxpk"}


def test_lines_are_in_the_file_while_it_still_listens(tmp_path: Path) -> None:
    path, port = tmp_path / "roof.jsonl", free_port()
    with recording(port, "--out", str(path)) as process, forwarder(port) as end:
        push(end, PUSH)
        deadline = time.monotonic() + PATIENCE
        while not path.read_bytes().endswith(b"\n"):
            assert time.monotonic() < deadline, "the line does not come"
            assert process.poll() is None


def test_time_ends_it(tmp_path: Path) -> None:
    with recording(free_port(), "--seconds", "0.01", "--out", str(tmp_path / "roof.jsonl")) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors[:7]) == (0, b"0 lines")


def test_an_earlier_recording_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    path.write_bytes(b"precious\n")
    with recording(free_port(), "--out", str(path)) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 78
    assert b"exists" in errors
    assert path.read_bytes() == b"precious\n"


def test_a_directory_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with recording(free_port(), "--out", str(tmp_path / "no" / "roof.jsonl")) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 78
    assert b"No such file" in errors


def test_a_port_in_use_is_told_of(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with recording(taken.getsockname()[1]) as process:
            _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert b"in use" in errors


def test_a_reader_that_went_away_ends_it_without_a_traceback() -> None:
    port = free_port()
    with recording(port) as process, forwarder(port) as end:
        assert process.stdout is not None
        push(end, PUSH)
        process.stdout.close()
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            for _ in range(3):
                end.send(PUSH)
                end.recv(100)
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        process.stdout = None


def test_a_recording_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    with record._opened(path):
        assert path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("text", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "localhost:1700"])
def test_an_address_that_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        udp_address(text)


def test_addresses_of_both_families_are_taken() -> None:
    assert (udp_address("[::1]:1700").bind, udp_address("0.0.0.0:1730").port) == ("::1", 1730)
    assert (udp_address("1731").bind, udp_address("1731").port) == ("127.0.0.1", 1731)


@pytest.mark.parametrize(
    "words", [["--count", "0"], ["--count", "x"], ["--seconds", "nan"], ["--seconds", "-1"], ["--seconds", "x"]]
)
def test_limits_that_are_none_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    record.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert words[0] in capsys.readouterr().err
