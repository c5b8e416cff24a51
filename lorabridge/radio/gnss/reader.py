"""The receiver on a serial port. Blocks, each call for a bounded time: a thread is its place."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Self

from lorabridge.radio.gnss.clock import GnssClock, GnssState
from lorabridge.radio.gnss.framing import BAUD, Scanner
from lorabridge.radio.gnss.messages import interpret
from lorabridge.radio.serial_port import LOSSES, PortError, PortFault, lost, open_port

_CHUNK: Final = 4096


class GnssReader:
    """The receiver behind one port, from `with` to its end. All methods raise PortError."""

    def __init__(self, port: str, *, baud: int = BAUD) -> None:
        """Open `port` at `baud` bits per second."""
        self._port = port
        self._serial: Any = open_port(port, baud)
        self._scanner = Scanner()
        self._clock = GnssClock()
        self._heard_bytes = False
        self._heard_messages = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the port. May be called twice."""
        self._serial.close()

    def read(self, timeout: float) -> GnssState:
        """Wait at most `timeout` seconds for bytes, take in what is there, and say what is known."""
        try:
            self._serial.timeout = timeout  # this alone asks the port something
            data = self._serial.read(1)
            data += self._serial.read(min(self._serial.in_waiting, _CHUNK)) if data else b""
        except LOSSES as error:
            raise lost(self._port, error) from None
        at = time.monotonic()
        self._heard_bytes |= bool(data)
        for message in self._scanner.feed(data):
            self._heard_messages = True
            statement = interpret(message)
            if statement is not None:
                self._clock.note(statement, at)
        return self._clock.state(at)

    def identify(self, timeout: float) -> GnssState:
        """What is known when there is a place and a time, or after `timeout` seconds.

        Raises PortError when there was no receiver: silence, or bytes among which no message was.
        """
        deadline = time.monotonic() + timeout
        state = self.read(0)
        while (left := deadline - time.monotonic()) > 0 and (state.position is None or state.gps_ns is None):
            state = self.read(left)
        if not self._heard_bytes:
            raise PortError(self._port, PortFault.SILENT, "says nothing")
        if not self._heard_messages:
            raise PortError(self._port, PortFault.GARBAGE, "sends bytes that are neither NMEA nor UBX")
        return state
