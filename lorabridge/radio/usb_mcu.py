"""USB concentrators: finding them, and speaking to the microcontroller that sits before the SX1302.

Meant for the time in which the vendor library does not have the port: the protocol is request and answer, and two
users would take each other's answers. Everything here blocks, each conversation for at most `timeout` seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from serial.tools import list_ports

from lorabridge.radio.mcu_frames import (
    MAX_PAYLOAD,
    RESET_GATEWAY,
    Answer,
    Command,
    Identity,
    Looks,
    McuStatus,
    build_request,
    find_answer,
    parse_identity,
    parse_status,
)
from lorabridge.radio.serial_port import LOSSES, PortError, PortFault, lost, open_port

TIMEOUT: Final = 2.0
"""Seconds for an answer; a controller in order takes milliseconds."""
USB_IDS: Final = frozenset({(0x0483, 0x5740)})
"""Vendor and product of the CoreCell USB and all boards made after it; also of every other STM32 serial port."""

_BAUD: Final = 115_200
_POLL: Final = 0.05
_HEADER_BYTES: Final = 4
_CHUNK: Final = 32_768
_FAULTS: Final = {
    Looks.NOTHING: (PortFault.SILENT, "does not answer"),
    Looks.HALF: (PortFault.INCOMPLETE, "stopped in the middle of an answer"),
    Looks.OTHER: (PortFault.OTHER_DEVICE, "answers, but not as the controller of an SX1302 does"),
    Looks.GARBAGE: (PortFault.GARBAGE, "sends bytes that are no answer"),
}


class UsbPort(msgspec.Struct, frozen=True, kw_only=True):
    """A serial port that may be a concentrator."""

    path: str
    serial_number: str | None = None
    """What the USB descriptor says."""
    product: str | None = None


class Mcu:
    """The controller behind one port, from `with` to its end. All methods raise PortError."""

    def __init__(self, port: str, *, timeout: float = TIMEOUT) -> None:
        """Open `port`; `timeout`: seconds for each answer."""
        self._port = port
        self._timeout = timeout
        self._serial: Any = open_port(port, _BAUD)
        self._ident = os.urandom(1)[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the port. May be called twice."""
        self._serial.close()

    def ping(self) -> Identity:
        """Who it is. What answers this is the controller of a concentrator."""
        payload = self._ask(Command.PING)
        try:
            return parse_identity(payload)
        except ValueError as error:
            raise PortError(self._port, PortFault.OTHER_DEVICE, str(error)) from None

    def status(self) -> McuStatus:
        """Its time since start, and the temperature."""
        return parse_status(self._ask(Command.GET_STATUS))

    def reset(self) -> None:
        """Reset the gateway behind the controller; the USB port may disappear and come back for it."""
        try:
            answered = self._ask(Command.RESET, RESET_GATEWAY)
        except PortError as error:
            if error.fault is PortFault.GONE:  # it restarted before its answer was out
                return
            raise
        if answered != b"\x00":
            raise PortError(self._port, PortFault.REFUSED, f"refused the reset with status {answered[0]}")

    def complete(self) -> None:
        """End what a program that died left half said, for a controller that does not answer.

        As many zeros as can be missing; beyond that each four are a ping. Then one at a time, until an answer shows
        where the next request may begin.
        """
        try:
            self._serial.write(bytes(_HEADER_BYTES + MAX_PAYLOAD))
            deadline = time.monotonic() + self._timeout
            while self._hears_something() and time.monotonic() < deadline:
                pass
            for _ in range(_HEADER_BYTES):
                self._serial.write(b"\x00")
                if self._hears_something():
                    break
        except LOSSES as error:
            raise lost(self._port, error) from None

    def _hears_something(self) -> bool:
        self._serial.timeout = _POLL
        return bool(self._serial.read(_CHUNK))

    def _ask(self, command: Command, payload: bytes = b"") -> bytes:
        """The payload of the answer to a request."""
        self._ident = (self._ident + 1) & 0xFF
        try:
            self._serial.reset_input_buffer()  # a late answer to what nobody waits for any more
            self._serial.write(build_request(self._ident, command, payload))
            answer = self._listen(command)
        except LOSSES as error:
            raise lost(self._port, error) from None
        if answer.looks is Looks.WHOLE:
            return answer.payload
        raise PortError(self._port, *_FAULTS[answer.looks])

    def _listen(self, command: Command) -> Answer:
        """What came until the answer was whole, the time over, or more was said than any answer has."""
        heard, answer = bytearray(), Answer(Looks.NOTHING)
        deadline = time.monotonic() + self._timeout
        while len(heard) <= 2 * MAX_PAYLOAD and (left := deadline - time.monotonic()) > 0:
            self._serial.timeout = min(left, _POLL)
            fresh = self._serial.read(max(1, self._serial.in_waiting))
            if fresh:
                heard += fresh
                answer = find_answer(bytes(heard), self._ident, command)
                if answer.looks is Looks.WHOLE:
                    break
        return answer


def find_ports(ports: Iterable[Any] | None = None) -> list[UsbPort]:
    """The serial ports with the USB identity of a concentrator, by path; nothing is opened.

    `ports`: as `serial.tools.list_ports.comports()` gives them, which is asked when it is None.
    """
    candidates = list_ports.comports() if ports is None else ports
    found = [
        UsbPort(path=port.device, serial_number=port.serial_number, product=port.product)
        for port in candidates
        if (port.vid, port.pid) in USB_IDS
    ]
    return sorted(found, key=lambda port: port.path)
