"""Reset and power lines of a concentrator on the header, by libgpiod and never by sysfs.

Both interfaces of its Python binding are spoken: version 2 (PyPI, the extra `lorabridge[gpio]`) and version 1
(`python3-libgpiod` of Debian 12). The chip is found by its label, for its number differs between kernels and models.
"""

from __future__ import annotations

import errno
import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.radio.boards import Pins

HEADER_LABELS: Final = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")
"""Chips of the 40-pin header: Raspberry Pi 5, 4, older. The offset of a line is its BCM number on all of them."""
CONSUMER: Final = "lorabridge"

_MAX_LINE: Final = 1023
_PERMISSION: Final = "add the account to the group of the chip (usually gpio)"
_INSTALL: Final = "pip install 'lorabridge[gpio]', or apt install python3-libgpiod for the system's Python"


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a sequence: set a line, then wait. Made from data with `msgspec.convert`."""

    line: int
    """Offset in the chip; on a Raspberry Pi the BCM number."""
    level: int
    """0 or 1, as it is electrically."""
    wait_ms: int = 0
    """Milliseconds before the next step, at most 10 000."""

    def __post_init__(self) -> None:
        """Raise ValueError with a sentence for the operator."""
        if not 0 <= self.line <= _MAX_LINE:
            raise ValueError(f"line {self.line} is not between 0 and {_MAX_LINE}")
        if self.level not in {0, 1}:
            raise ValueError(f"level {self.level} is neither 0 nor 1")
        if not 0 <= self.wait_ms <= 10_000:
            raise ValueError(f"wait_ms {self.wait_ms} is not between 0 and 10000")


def reset_sequence(pins: Pins) -> list[Step]:
    """The sequence for the lines of a board, as `reset_lgw.sh` of sx1302_hal has it.

    Power on, the SX1302's reset high and low, the SX1261's reset low and high, 100 ms after each.
    """
    wanted = [
        (pins.power_enable, 1),
        (pins.reset, 1),
        (pins.reset, 0),
        (pins.sx1261_reset, 0),
        (pins.sx1261_reset, 1),
    ]
    return [Step(line, level, 100) for line, level in wanted if line is not None]


class Lines(Protocol):
    """Lines of one chip that are ours as outputs until `release`."""

    def set(self, line: int, level: int) -> None:
        """Raises OSError."""

    def release(self) -> None:
        """Give them back; the kernel may then let them fall to inputs."""


def find_chip(module: Any, labels: Sequence[str] = HEADER_LABELS, folder: Path = Path("/dev")) -> Path:
    """The chip with the first of these labels that there is; `module` is the binding. Raises ConfigError."""
    found, refused = dict[str, Path](), list[str]()
    for path in sorted(folder.glob("gpiochip*")):
        if path.is_symlink():  # newer Raspberry Pi OS keeps the old number as a link
            continue
        try:
            found.setdefault(_label(module, path), path)
        except OSError as error:
            refused.append(f"{path}: {error.strerror or error}")
    for label in labels:
        if label in found:
            return found[label]
    there = ", ".join([*sorted(found), *refused]) or "no GPIO chip at all"
    hint = _PERMISSION if refused else "is this a Raspberry Pi, and may the service see /dev/gpiochip*? docs/sx1302.md"
    raise ConfigError([Problem(where=str(folder), what=f"no GPIO chip {' or '.join(labels)}; {there}", hint=hint)])


def binding() -> Any:
    """The Python binding of libgpiod. Raises ConfigError when it is not installed."""
    try:
        return importlib.import_module("gpiod")
    except ImportError as error:
        raise ConfigError([Problem(where="libgpiod", what=f"cannot be used: {error}", hint=_INSTALL)]) from None


def play(steps: Sequence[Step], module: Any, chip: Path, *, wait: Callable[[float], object] = time.sleep) -> Lines:
    """Take the lines of a sequence and do it in order; returns the lines, to be held while the board is used.

    A line is taken with the level of its first step. `wait` takes seconds. Raises TransientError when a line cannot be
    had: another program or the kernel holds it.
    """
    first = dict[int, int]()
    for step in steps:
        first.setdefault(step.line, step.level)
    take = _V2Lines if hasattr(module, "request_lines") else _V1Lines
    try:
        lines: Lines = take(module, chip, first)
    except OSError as error:
        raise _refused(module, chip, first, error) from None
    try:
        for step in steps:
            lines.set(step.line, step.level)
            wait(step.wait_ms / 1000)
    except BaseException as error:
        lines.release()
        if isinstance(error, OSError):
            raise TransientError(f"{chip}: {error.strerror or error}") from None
        raise
    return lines


def _refused(module: Any, chip: Path, lines: Iterable[int], error: OSError) -> TransientError:
    """Why lines were not to be had, and of those in use by whom."""
    asked = ", ".join(map(str, lines))
    says, hint = error.strerror or str(error), "see hardware/README.md"
    if error.errno == errno.EBUSY:
        users = [f"{line} by {user}" for line in lines if (user := _user(module, chip, line))]
        says, hint = f"in use: {', '.join(users)}" if users else says, "stop what uses it; gpioinfo shows all lines"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        hint = _PERMISSION
    return TransientError(f"{chip}: lines {asked}: {says} ({hint})")


def _user(module: Any, path: Path, line: int) -> str:
    """Who has a line, as the kernel keeps it; empty when nobody has or it does not say."""
    try:
        chip = module.Chip(str(path))
        try:
            if hasattr(chip, "get_line_info"):
                info = chip.get_line_info(line)
                return (info.consumer or "somebody unnamed") if info.used else ""
            held = chip.get_line(line)
            return (held.consumer() or "somebody unnamed") if held.is_used() else ""
        finally:
            chip.close()
    except OSError:
        return ""


def _label(module: Any, path: Path) -> str:
    chip = module.Chip(str(path))
    try:
        return str(chip.get_info().label if hasattr(chip, "get_info") else chip.label())
    finally:
        chip.close()


class _V2Lines:
    """By `gpiod.request_lines` of version 2."""

    def __init__(self, module: Any, chip: Path, first: Mapping[int, int]) -> None:
        self._levels = (module.line.Value.INACTIVE, module.line.Value.ACTIVE)
        output = module.line.Direction.OUTPUT
        config = {
            line: module.LineSettings(direction=output, output_value=self._levels[level])
            for line, level in first.items()
        }
        self._request = module.request_lines(str(chip), consumer=CONSUMER, config=config)

    def set(self, line: int, level: int) -> None:
        self._request.set_value(line, self._levels[level])

    def release(self) -> None:
        self._request.release()


class _V1Lines:
    """By `gpiod.Chip(…).get_line` of version 1."""

    def __init__(self, module: Any, chip: Path, first: Mapping[int, int]) -> None:
        self._chip = module.Chip(str(chip))
        self._lines = {line: self._chip.get_line(line) for line in first}
        try:
            for line, level in first.items():
                self._lines[line].request(consumer=CONSUMER, type=module.LINE_REQ_DIR_OUT, flags=0, default_val=level)
        except OSError:
            self._chip.close()  # gives back those that were had
            raise

    def set(self, line: int, level: int) -> None:
        self._lines[line].set_value(level)

    def release(self) -> None:
        self._chip.close()
