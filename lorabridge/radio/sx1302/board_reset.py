"""What is done to a board before the library is started on it: its lines on SPI, its controller on USB."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from lorabridge.radio import pins
from lorabridge.radio.boards import find_board
from lorabridge.radio.serial_port import PortError, PortFault
from lorabridge.radio.sx1302.plan import Plan
from lorabridge.radio.usb_mcu import Mcu

_LOGGER = logging.getLogger(__name__)

PATIENCE: Final = 6.0
"""Seconds for which a controller that was there before, or was just reset, is asked again."""
_ANSWER: Final = 0.5
_PAUSE: Final = 0.1
_PASSING: Final = frozenset(
    {PortFault.ABSENT, PortFault.GONE, PortFault.SILENT, PortFault.INCOMPLETE, PortFault.GARBAGE}
)
"""Faults that end by themselves: plugged in again, or restarted."""


class BoardReset:
    """The lines of one board, held from the first start to `release`."""

    def __init__(self, board: str | None, *, chips: Path = Path("/dev")) -> None:
        """`board` is a name in `hardware/boards/`; `chips` the folder of the GPIO chips."""
        self._board = board
        self._chips = chips
        self._lines: pins.Lines | None = None

    async def prepare(self, plan: Plan, *, was_there: bool, reset: bool) -> None:
        """Make the board ready. Raises ConfigError, TransientError.

        `was_there`: it worked before, so that an absent one may come back; `reset`: the library did not start on it.
        A board on SPI is reset in any case.
        """
        if plan.com_type == "SPI":
            await asyncio.to_thread(self._pull_lines)
            return
        await self._meet(plan.com_path, PATIENCE if was_there else 0.0, reset=reset)
        if reset:
            await self._meet(plan.com_path, PATIENCE, reset=False)

    def release(self) -> None:
        """Let go of the lines. May be called twice."""
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.release()

    def _pull_lines(self) -> None:
        self.release()
        if self._board is None:
            return
        lines = find_board(self._board).pins
        if lines is not None:
            module = pins.binding()
            chip = pins.find_chip(module, folder=self._chips)
            self._lines = pins.play(pins.reset_sequence(lines), module, chip)

    async def _meet(self, port: str, patience: float, *, reset: bool) -> None:
        """Until the controller answers: the library would wait for it without end."""
        deadline = time.monotonic() + patience
        step = _ask
        while True:
            try:
                await asyncio.to_thread(step, port, reset=reset)
            except PortError as error:
                if error.fault not in _PASSING or time.monotonic() >= deadline:
                    raise
                step = _complete_and_ask if error.fault is PortFault.SILENT and step is _ask else _ask
            else:
                return
            await asyncio.sleep(_PAUSE)


def _ask(port: str, *, reset: bool) -> None:
    """Raises PortError. What the controller says of itself is told now: the library has the port afterwards."""
    with Mcu(port, timeout=_ANSWER) as mcu:
        identity, status = mcu.ping(), mcu.status()
        facts = {
            "port": port,
            "firmware": identity.firmware,
            "unique_id": identity.unique_id,
            "uptime_s": status.uptime_ms // 1000,
            "temperature_c": status.temperature_c,
        }
        _LOGGER.info("the concentrator's controller answers", extra={"fields": facts})
        if reset:
            mcu.reset()


def _complete_and_ask(port: str, *, reset: bool) -> None:
    """The library may have died in the middle of a request. Raises PortError."""
    with Mcu(port, timeout=_ANSWER) as mcu:
        mcu.complete()
    _ask(port, reset=reset)
