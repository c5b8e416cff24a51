"""What is done to a board before the library starts on it, and how soon one that was silent works again."""

from __future__ import annotations

import asyncio
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import gpiod
import msgspec
import pytest

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.radio import pins
from lorabridge.radio.serial_port import PortError, PortFault
from lorabridge.radio.sx1302.board_reset import PATIENCE, BoardReset
from lorabridge.radio.sx1302.plan import Plan
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302
from lorabridge.settings import read_table
from tests.radio.pty_device import PtyDevice, Script, answer, attached, concentrator, silent
from tests.radio.sx1302_bench import frames, needs_cc

RESET = b"\x00\x01\x03\x00"


def usb(settings: Sx1302Settings, port: str) -> Sx1302Settings:
    return msgspec.structs.replace(settings, com_type="USB", device=port)


def prepare(plan: Plan, *, was_there: bool, reset: bool = False, board: str | None = None) -> None:
    asyncio.run(BoardReset(board).prepare(plan, was_there=was_there, reset=reset))


def is_filler(request: bytes) -> bool:
    """Whether this is what is sent to a controller that does not answer."""
    return len(request) not in {4, 5}


def later(seconds: float) -> Script:
    """A controller that is mute for some time after it was first asked."""
    began: list[float] = []

    def script(request: bytes) -> bytes:
        began.append(time.monotonic())
        return concentrator(request) if began[-1] - began[0] >= seconds and not is_filler(request) else b""

    return script


def test_a_controller_that_does_not_answer_is_told_at_once_the_first_time() -> None:
    with attached(silent) as device:
        began = time.monotonic()
        with pytest.raises(PortError) as caught:
            prepare(Plan(com_type="USB", com_path=device.path), was_there=False)
        assert time.monotonic() - began < PATIENCE
        assert caught.value.fault is PortFault.SILENT


def test_one_that_worked_before_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with attached(later(1.0)) as device:
        prepare(Plan(com_type="USB", com_path=device.path), was_there=True)
    monkeypatch.setattr("lorabridge.radio.sx1302.board_reset.PATIENCE", 0.5)
    with pytest.raises(PortError) as caught:
        prepare(Plan(com_type="USB", com_path="/dev/no_such_port"), was_there=True)
    assert caught.value.fault is PortFault.ABSENT


def test_another_device_is_not_waited_for() -> None:
    with attached(lambda request: answer(request, b"picocell")) as device:
        began = time.monotonic()
        with pytest.raises(PortError) as caught:
            prepare(Plan(com_type="USB", com_path=device.path), was_there=True)
        assert time.monotonic() - began < PATIENCE
        assert caught.value.fault is PortFault.OTHER_DEVICE


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5, 2_000, 4_200])
def test_a_request_that_was_left_half_said_is_ended(missing: int) -> None:
    """As by a library that died while it wrote: the controller takes what comes next for the rest of it."""
    owed, held = missing, b""

    def script(data: bytes) -> bytes:
        nonlocal owed, held
        held += data[owed:]
        owed = max(0, owed - len(data))
        answers = b""
        while len(held) >= 4:
            request, held = held[:4], held[4:]
            answers += concentrator(request)
        return answers

    with attached(script) as device:
        prepare(Plan(com_type="USB", com_path=device.path), was_there=True)


def test_a_controller_is_reset_and_then_waited_for() -> None:
    heard: list[bytes] = []

    def script(request: bytes) -> bytes:
        if is_filler(request):
            return b""
        heard.append(request[1:])
        return b"" if heard[-2:-1] == [RESET] else concentrator(request)

    with attached(script) as device:
        prepare(Plan(com_type="USB", com_path=device.path), was_there=True, reset=True)
    ping, status = b"\x00\x00\x00", b"\x00\x00\x01"
    assert heard == [ping, status, RESET, ping, ping, status]


@needs_cc
def test_a_board_on_which_the_library_does_not_start_has_its_controller_reset(
    settings: Sx1302Settings, tmp_path: Path
) -> None:
    async def run(device: PtyDevice) -> None:
        source = Sx1302(usb(settings, device.path))
        (tmp_path / "mode").write_text("start")
        with pytest.raises(TransientError, match="lgw_start returned -1"):
            await source.start()
        assert RESET not in device.heard
        (tmp_path / "mode").unlink()
        await source.start()
        await source.stop()
        assert device.heard.count(RESET) == 1
        await source.start()
        await source.stop()
        assert device.heard.count(RESET) == 1

    with attached(concentrator) as device:
        asyncio.run(run(device))


class Header:
    """The chip of a header through the interface of `gpiod` 2; settings and values are its own."""

    line = gpiod.line
    LineSettings = gpiod.LineSettings

    def __init__(self) -> None:
        self.told: list[Any] = []

    class Chip:
        def __init__(self, path: str) -> None:
            self.path = path

        def get_info(self) -> Any:
            return msgspec.defstruct("Info", ["label"])("pinctrl-rp1")

        def close(self) -> None:
            pass

    def request_lines(self, path: str, config: dict[int, gpiod.LineSettings], consumer: str) -> Any:
        self.told.append((Path(path).name, sorted(config), consumer))
        header = self

        class Request:
            def set_value(self, line: int, value: gpiod.line.Value) -> None:
                header.told.append((line, value.value))

            def release(self) -> None:
                header.told.append("release")

        return Request()


@needs_cc
def test_an_spi_board_is_powered_and_reset_before_every_start(
    settings: Sx1302Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line was ever switched: there is no GPIO chip here."""
    header = Header()
    (tmp_path / "gpiochip0").touch()
    monkeypatch.setattr(pins, "binding", lambda: header)

    async def run() -> None:
        source = Sx1302(msgspec.structs.replace(settings, board="waveshare_sx1302_lorawan_gateway_hat"))
        source._board = BoardReset("waveshare_sx1302_lorawan_gateway_hat", chips=tmp_path)
        (tmp_path / "mode").write_text("start")
        with pytest.raises(TransientError):
            await source.start()
        (tmp_path / "mode").unlink()
        await source.start()
        await source.stop()

    asyncio.run(run())
    once = [("gpiochip0", [18, 23], "lorabridge"), (18, 1), (23, 1), (23, 0), "release"]
    assert header.told == once * 2


def test_without_the_chip_of_a_header_an_spi_board_is_the_operators_turn(tmp_path: Path) -> None:
    reset = BoardReset("rak5146", chips=tmp_path)
    with pytest.raises(ConfigError, match="no GPIO chip pinctrl-rp1"):
        asyncio.run(reset.prepare(Plan(com_type="SPI"), was_there=False, reset=False))
    reset.release()


def test_an_unknown_board_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="rak5146"):
        prepare(Plan(com_type="SPI"), was_there=False, board="rak5147")


def test_a_board_whose_lines_are_not_known_is_left_alone() -> None:
    prepare(Plan(com_type="SPI"), was_there=False, board="multitech_mtcap3_003e00")


@needs_cc
@pytest.mark.slow
def test_a_mute_controller_is_heard_again_within_ten_seconds(settings: Sx1302Settings, tmp_path: Path) -> None:
    """Library and controller are silent together for four seconds, as a board whose USB hangs."""
    muted = threading.Event()

    def script(request: bytes) -> bytes:
        return b"" if muted.is_set() or is_filler(request) else concentrator(request)

    async def run(device: PtyDevice) -> float:
        source = Sx1302(usb(settings, device.path))
        await source.start()
        began = time.monotonic()
        muted.set()
        (tmp_path / "mode").write_text("hang")
        asyncio.get_running_loop().call_later(4.0, muted.clear)
        try:
            with pytest.raises(TransientError, match="hung"):
                await frames(source, 1)
            while True:
                try:
                    await source.start()
                except TransientError:
                    await asyncio.sleep(0.5)
                else:
                    return time.monotonic() - began
        finally:
            await source.stop()

    with attached(script) as device:
        seconds = asyncio.run(run(device))
    assert seconds < 10


@pytest.mark.parametrize("line", ['gnss_device = "gpsd://localhost"', "gnss_baud = 5", 'gnss_device = ""'])
def test_a_receiver_that_cannot_be_is_refused(line: str) -> None:
    problems: list[Problem] = []
    assert read_table(Sx1302Settings, tomllib.loads(line), "radio", problems) is None
    assert line.partition(" ")[0] in f"{problems[0].where} {problems[0].what}"
