"""What runs in the child process, run here in a thread; and a parent whose child is something else."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from lorabridge.errors import TransientError
from lorabridge.radio.sx1302 import child as child_module
from lorabridge.radio.sx1302.child import FETCH_ERRORS, serve
from lorabridge.radio.sx1302.plan import Plan, read_plan
from lorabridge.radio.sx1302.process import ChildProcess
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302
from lorabridge.radio.sx1302.wire import (
    FROM_CHILD,
    HEADER_SIZE,
    Beat,
    Failed,
    FromChild,
    Order,
    Refused,
    Sent,
    Setup,
    Started,
    Stop,
    pack,
)
from tests.radio.sx1302_bench import compiled, frames, needs_cc, until

ORDER = Order(
    number=7,
    payload=b"x",
    frequency_hz=868_100_000,
    count_us=None,
    rf_chain=0,
    power_dbm=14,
    modulation=0x10,
    bandwidth=4,
    data_rate=7,
    code_rate=1,
    invert=True,
    deviation_khz=0,
    preamble=8,
    crc=False,
)


class Parent:
    """The other end of a child in a thread."""

    def __init__(self, connection: socket.socket, ended: threading.Thread, left: list[BaseException]) -> None:
        self.connection = connection
        self._ended = ended
        self._left = left

    def send(self, message: msgspec.Struct) -> None:
        self.connection.sendall(pack(message))

    def read(self) -> FromChild:
        header = self.connection.recv(HEADER_SIZE, socket.MSG_WAITALL)
        size = int.from_bytes(header, "big")
        message: FromChild = FROM_CHILD.decode(self.connection.recv(size, socket.MSG_WAITALL))
        return message

    def read_until(self, *kinds: type[msgspec.Struct]) -> FromChild:
        while not isinstance(message := self.read(), kinds):
            pass
        return message

    def started(self, settings: Sx1302Settings) -> None:
        self.send(Setup(str(settings.library), read_plan(settings.configuration)))
        assert isinstance(self.read(), Started)

    def ends(self) -> BaseException | None:
        """Wait until it is over: the error that it ended with."""
        self._ended.join(10)
        assert not self._ended.is_alive()
        return self._left[0] if self._left else None


@contextmanager
def serving() -> Iterator[Parent]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    left: list[BaseException] = []

    def run() -> None:
        try:
            with theirs:
                serve(theirs)
        except BaseException as error:  # noqa: BLE001  # the test's to look at
            left.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours:
            yield Parent(ours, thread, left)
    finally:
        thread.join(10)


@needs_cc
def test_five_failed_fetches_in_a_row_end_it_and_four_do_not(
    settings: Sx1302Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "BEAT_INTERVAL", 0.0)
    with serving() as parent:
        parent.started(settings)
        (tmp_path / "mode").write_text("fetch")
        last = parent.read_until(Failed)
        assert last == Failed(f"lgw_receive returned -1, {FETCH_ERRORS} times in a row")
        assert parent.ends() is None


@needs_cc
def test_a_counter_that_stands_still_ends_it(settings: Sx1302Settings, tmp_path: Path) -> None:
    with serving() as parent:
        parent.started(settings)
        parent.read_until(Beat)
        (tmp_path / "mode").write_text("frozen")
        last = parent.read_until(Failed)
        assert isinstance(last, Failed)
        assert "counter stands still" in last.reason


@needs_cc
@pytest.mark.parametrize("word", ["temperature", "hot"])
def test_without_a_temperature_the_beats_go_on(settings: Sx1302Settings, tmp_path: Path, word: str) -> None:
    (tmp_path / "mode").write_text(word)
    with serving() as parent:
        parent.started(settings)
        beat = parent.read_until(Beat)
        assert isinstance(beat, Beat)
        assert beat.temperature_c is None
        assert beat.counter is not None
        parent.send(Stop())
        assert parent.ends() is None


@needs_cc
def test_an_order_while_the_counter_cannot_be_read_is_answered(
    settings: Sx1302Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "BEAT_INTERVAL", 3600.0)
    with serving() as parent:
        parent.started(settings)
        parent.read_until(Beat)
        (tmp_path / "mode").write_text("counter")
        parent.send(ORDER)
        assert parent.read_until(Sent) == Sent(7, "SEND_FAILED")


@needs_cc
def test_a_stop_that_the_library_refuses_is_told(settings: Sx1302Settings, tmp_path: Path) -> None:
    with serving() as parent:
        parent.started(settings)
        (tmp_path / "mode").write_text("stop")
        parent.send(Stop())
        assert parent.read_until(Failed) == Failed("lgw_stop returned -1")


def test_a_library_that_is_none_is_refused(tmp_path: Path) -> None:
    with serving() as parent:
        parent.send(Setup(str(tmp_path / "none.so"), Plan()))
        assert isinstance(parent.read(), Refused)
        assert parent.ends() is None


@needs_cc
def test_a_library_without_one_of_the_calls_is_refused(tmp_path: Path) -> None:
    library = compiled(tmp_path, "-Dlgw_spectral_scan_abort=somebody_elses_abort")
    with serving() as parent:
        parent.send(Setup(str(library), Plan()))
        refused = parent.read()
        assert isinstance(refused, Refused)
        assert refused.what.endswith("has no lgw_spectral_scan_abort")


def test_what_begins_with_anything_but_a_setup_is_no_parent() -> None:
    with serving() as parent:
        parent.send(Stop())
        assert parent.ends() is None


@pytest.mark.parametrize("said", [b"", b"\xff\xff\xff\xff"])
def test_a_parent_that_goes_or_babbles_ends_it(said: bytes) -> None:
    with serving() as parent:
        parent.connection.sendall(said + pack(Stop())[:3])
        parent.connection.shutdown(socket.SHUT_WR)
        assert type(parent.ends()).__name__ == "_ParentGoneError"


@needs_cc
def test_a_parent_that_goes_later_ends_it_too(settings: Sx1302Settings) -> None:
    with serving() as parent:
        parent.started(settings)
        parent.connection.close()
        assert type(parent.ends()).__name__ == "_ParentGoneError"


def impostor(folder: Path, body: str) -> str:
    """A program in place of the child; `fd` is its socket."""
    path = folder / "impostor"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\nfd = int(sys.argv[3])\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os.write(fd, b'\\xff' * 8); time.sleep(60)", "no message"),
        ("os.write(fd, b'\\x00\\x00\\x00\\x01\\xc1'); time.sleep(60)", "no message"),
        ("os.close(fd); time.sleep(60)", "its socket closed"),
        ("sys.exit(3)", "exit status 3"),
        ("time.sleep(60)", "silent for 0.5 s"),
    ],
)
def test_a_child_that_is_something_else_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    limit = 0.5 if "silent" in says else 30.0
    monkeypatch.setattr(sys, "executable", impostor(tmp_path, body))

    async def run() -> None:
        child = await ChildProcess.spawn("sx1302")
        try:
            with pytest.raises(TransientError, match=says):
                await child.read(limit)
        finally:
            child.kill()
            await child.reap()

    asyncio.run(run())


def test_a_child_that_cannot_be_started_is_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no_python"))
    with pytest.raises(TransientError, match="cannot be started"):
        asyncio.run(ChildProcess.spawn("sx1302"))


def test_a_first_word_that_is_none_is_no_start(
    settings: Sx1302Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pack(Sent(1))
    monkeypatch.setattr(sys, "executable", impostor(tmp_path, f"os.write(fd, {frame!r}); time.sleep(60)"))
    with pytest.raises(TransientError, match="an unexpected message"):
        asyncio.run(Sx1302(settings).start())


@needs_cc
def test_a_child_that_hangs_when_it_is_to_stop_is_killed(settings: Sx1302Settings, tmp_path: Path) -> None:
    async def run() -> int:
        source = Sx1302(settings)
        await source.start()
        child = source._child
        assert child is not None
        (tmp_path / "mode").write_text("hang")
        async with asyncio.timeout(10):
            await until(lambda: not (tmp_path / "mode").exists())
        await source.stop()
        return child._process.returncode or 0

    assert asyncio.run(run()) == -9


@needs_cc
def test_what_does_not_fit_the_inbox_is_dropped_and_counted(
    settings: Sx1302Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorabridge.radio.sx1302.source.INBOX_LIMIT", 100)

    async def run() -> None:
        source = Sx1302(settings)
        await source.start()
        (tmp_path / "flood").touch()
        async with asyncio.timeout(10):
            await until(lambda: source.counters["inbox_dropped"] > 0)
        (tmp_path / "flood").unlink()
        assert len(await frames(source, 50)) >= 50
        await source.stop()

    asyncio.run(run())
