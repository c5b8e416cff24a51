"""Reset and power lines: which chip, in what order, and with which of libgpiod's two interfaces.

There is no GPIO chip where the suite runs. What has no line behind it is the real binding; the chips are stand-ins
with the signatures that `gpiod` 2.5 and `python3-libgpiod` 1.6 document, which write down what is asked of them.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpiod
import msgspec
import pytest

from lorabridge.errors import ConfigError, TransientError
from lorabridge.radio.boards import Pins, board_names, find_board
from lorabridge.radio.pins import CONSUMER, Step, binding, find_chip, play, reset_sequence

BOARDS = {name: find_board(name) for name in board_names()}
LABELS = {"gpiochip0": "pinctrl-rp1", "gpiochip10": "gpio-brcmstb@107d508500", "gpiochip11": "pinctrl-bcm2711"}


class Bench:
    """A machine with chips; `told` is what was asked of its lines, `busy` lines that somebody else holds."""

    def __init__(self, labels: dict[str, str], busy: int | None = None, fails_at: int | None = None) -> None:
        self.labels, self.busy, self.fails_at = labels, busy, fails_at
        self.refusal, self.user = errno.EBUSY, "lora_pkt_fwd"
        self.told: list[Any] = []
        self.open = 0

    def chip(self, path: str) -> Any:
        name = Path(path).name
        if self.labels[name] == "forbidden":
            raise PermissionError(errno.EACCES, "Permission denied")
        self.open += 1
        return name

    def close(self) -> None:
        self.open -= 1

    def take(self, line: int, level: int) -> None:
        if line == self.busy:
            raise OSError(self.refusal, os.strerror(self.refusal))
        self.told.append(("take", line, level))

    def set(self, line: int, level: int) -> None:
        if line == self.fails_at:
            raise OSError(errno.EIO, "Input/output error")
        self.told.append((line, level))


def version_2(bench: Bench) -> Any:
    """The interface of `gpiod` 2; settings and values are its own."""

    class Chip:
        def __init__(self, path: str) -> None:
            self._name = bench.chip(path)

        def get_info(self) -> Any:
            return SimpleNamespace(name=self._name, label=bench.labels[self._name], num_lines=54)

        def get_line_info(self, line: int) -> Any:
            used = line == bench.busy
            return SimpleNamespace(used=used, consumer=bench.user if used else "")

        def close(self) -> None:
            bench.close()

    class Request:
        def set_value(self, line: int, value: gpiod.line.Value) -> None:
            bench.set(line, value.value)

        def release(self) -> None:
            bench.told.append("release")

    def request_lines(path: str, config: dict[int, gpiod.LineSettings], consumer: str | None = None) -> Request:
        assert consumer == CONSUMER
        for line, settings in config.items():
            assert (settings.direction, settings.active_low) == (gpiod.line.Direction.OUTPUT, False)
            bench.take(line, settings.output_value.value)
        return Request()

    return SimpleNamespace(Chip=Chip, LineSettings=gpiod.LineSettings, line=gpiod.line, request_lines=request_lines)


def version_1(bench: Bench) -> Any:  # noqa: C901  # two classes in one
    """The interface of `python3-libgpiod` 1.6."""

    class Line:
        def __init__(self, number: int) -> None:
            self._number = number

        def request(self, consumer: str, type: int = 1, flags: int = 0, default_val: int = 0) -> None:  # noqa: A002
            assert (consumer, type, flags) == (CONSUMER, 3, 0)
            bench.take(self._number, default_val)

        def set_value(self, value: int) -> None:
            bench.set(self._number, value)

        def is_used(self) -> bool:
            return self._number == bench.busy

        def consumer(self) -> str:
            return bench.user

    class Chip:
        def __init__(self, path: str) -> None:
            self._name = bench.chip(path)
            self._lines = list[Line]()

        def label(self) -> str:
            return bench.labels[self._name]

        def get_line(self, number: int) -> Line:
            self._lines.append(Line(number))
            return self._lines[-1]

        def close(self) -> None:
            bench.close()
            if self._lines:
                bench.told.append("release")

    return SimpleNamespace(Chip=Chip, LINE_REQ_DIR_OUT=3)


BOTH = pytest.mark.parametrize("version", [version_1, version_2])


def _dev(folder: Path, labels: dict[str, str]) -> Path:
    for name in labels:
        (folder / name).touch()
    return folder


@BOTH
def test_the_chip_of_the_header_is_found_by_its_label(tmp_path: Path, version: Any) -> None:
    bench = Bench(LABELS)
    (tmp_path / "gpiochip4").symlink_to("gpiochip0")
    assert find_chip(version(bench), folder=_dev(tmp_path, LABELS)) == tmp_path / "gpiochip0"
    assert find_chip(version(bench), ["gpio-brcmstb@107d508500"], tmp_path) == tmp_path / "gpiochip10"
    assert bench.open == 0


@BOTH
def test_where_there_is_no_such_chip_those_that_are_there_are_named(tmp_path: Path, version: Any) -> None:
    labels = {"gpiochip0": "INT34C5:00", "gpiochip1": "forbidden"}
    with pytest.raises(ConfigError) as caught:
        find_chip(version(Bench(labels)), folder=_dev(tmp_path, labels))
    told = str(caught.value)
    assert "pinctrl-rp1 or pinctrl-bcm2711" in told
    assert "INT34C5:00" in told
    assert "gpiochip1: Permission denied" in told
    assert "usually gpio" in told


@BOTH
def test_a_sequence_is_played_in_order_and_the_lines_are_held(version: Any) -> None:
    bench, waits = Bench(LABELS), list[float]()
    steps = reset_sequence(_POWERED)
    lines = play(steps, version(bench), Path("/dev/gpiochip0"), wait=waits.append)
    power, reset = steps[0].line, steps[1].line
    assert bench.told[:2] == [("take", power, 1), ("take", reset, 1)]
    assert bench.told[2:] == [(power, 1), (reset, 1), (reset, 0)]
    assert waits == [0.1, 0.1, 0.1]
    lines.release()
    assert bench.told[-1] == "release"


_POWERED = Pins(reset=23, power_enable=18)


@BOTH
def test_a_line_that_is_held_by_another_is_told_and_nothing_is_set(version: Any) -> None:
    bench = Bench(LABELS, busy=23)
    with pytest.raises(TransientError, match=r"lines 18, 23: in use: 23 by lora_pkt_fwd \(.*gpioinfo"):
        play(reset_sequence(_POWERED), version(bench), Path("/dev/gpiochip0"), wait=lambda _: None)
    assert not any(told[0] != "take" for told in bench.told if told != "release")
    assert bench.open == 0


@BOTH
@pytest.mark.parametrize(
    ("refusal", "user", "says"),
    [
        (errno.EBUSY, "", "in use: 23 by somebody unnamed"),
        (errno.EACCES, "", r"Permission denied \(add the account to the group of the chip"),
        (errno.EINVAL, "", r"Invalid argument \(see hardware/README.md"),
    ],
)
def test_why_a_line_cannot_be_had_is_told(version: Any, refusal: int, user: str, says: str) -> None:
    bench = Bench(LABELS, busy=23)
    bench.refusal, bench.user = refusal, user
    with pytest.raises(TransientError, match=says):
        play(reset_sequence(_POWERED), version(bench), Path("/dev/gpiochip0"), wait=lambda _: None)


def test_where_the_chip_cannot_be_asked_who_has_a_line_the_error_stands_alone() -> None:
    bench = Bench({"gpiochip0": "forbidden"}, busy=23)
    with pytest.raises(TransientError, match="lines 18, 23: Device or resource busy"):
        play(reset_sequence(_POWERED), version_2(bench), Path("/dev/gpiochip0"), wait=lambda _: None)


@BOTH
def test_a_line_that_fails_later_gives_the_others_back(version: Any) -> None:
    bench = Bench(LABELS, fails_at=23)
    with pytest.raises(TransientError, match="Input/output error"):
        play(reset_sequence(_POWERED), version(bench), Path("/dev/gpiochip0"), wait=lambda _: None)
    assert bench.told[-1] == "release"


@pytest.mark.parametrize("board", [name for name, board in BOARDS.items() if board.pins is not None])
def test_every_board_with_lines_has_a_sequence_that_ends_out_of_reset(board: str) -> None:
    pins = BOARDS[board].pins
    assert pins is not None
    last = {step.line: step.level for step in reset_sequence(pins)}
    expected = {pins.reset: 0, pins.power_enable: 1, pins.sx1261_reset: 1}
    assert last == {line: level for line, level in expected.items() if line is not None}


@pytest.mark.parametrize(
    "step",
    [
        {"line": -1, "level": 0},
        {"line": 1024, "level": 0},
        {"line": 1, "level": 2},
        {"line": 1, "level": 1, "wait_ms": 10_001},
        {"line": 1, "level": 1, "wait": 1},
        {"line": 1},
    ],
)
def test_a_step_that_makes_no_sense_is_refused(step: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(step, Step)


def test_the_real_binding_refuses_what_is_no_chip(tmp_path: Path) -> None:
    module = binding()
    assert module is gpiod
    with pytest.raises(TransientError, match="/dev/null: lines 18, 23: No such device"):
        play(reset_sequence(_POWERED), module, Path("/dev/null"), wait=lambda _: None)
    (tmp_path / "gpiochip0").touch()
    with pytest.raises(ConfigError, match="no GPIO chip"):
        find_chip(module, folder=tmp_path)


def test_without_the_binding_its_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(ConfigError, match="python3-libgpiod"):
        binding()
