"""Opening a serial port, and what is wrong when that or a conversation fails: each fault with what to do about it."""

from __future__ import annotations

import enum
import errno
import os
import termios
from typing import Final

import serial

from lorabridge.errors import TransientError
from lorabridge.radio.holders import holders

WRITE_TIMEOUT: Final = 2.0
"""Seconds that a port may take to accept what is written: one that hangs must not hang its user."""

LOSSES: Final = (OSError, termios.error, TypeError)
"""What pyserial raises when a device goes during a call: the last of them when it goes during a read."""


class PortFault(enum.Enum):
    """What can be wrong with a port. The value is the name of the fault in JSON and in events."""

    ABSENT = "absent"
    NOT_SERIAL = "not_serial"
    PERMISSION = "permission"
    TAKEN = "taken"
    GONE = "gone"
    SILENT = "silent"
    INCOMPLETE = "incomplete"
    GARBAGE = "garbage"
    OTHER_DEVICE = "other_device"
    REFUSED = "refused"


HINTS: Final = {
    PortFault.ABSENT: "is it plugged in? dmesg says what the kernel saw, ls /dev/serial/by-id what there is",
    PortFault.NOT_SERIAL: "name the serial port, as /dev/ttyACM0 or a link in /dev/serial/by-id",
    PortFault.PERMISSION: "add the account to the group of the port (usually dialout), or install"
    " hardware/60-lorabridge.rules",
    PortFault.TAKEN: "stop that program, or let it have the port: two readers take each other's bytes",
    PortFault.GONE: "was it unplugged, or did its power fail? it is used again when it is back",
    PortFault.SILENT: "unplug it and plug it in again; is it a concentrator, and at the speed that was asked for?",
    PortFault.INCOMPLETE: "unplug it and plug it in again; another cable or a powered hub, if it happens again",
    PortFault.GARBAGE: "this port has another device, or another program reads it too",
    PortFault.OTHER_DEVICE: "cards with SX1308 (PicoCell) or SX1280 (2.4 GHz) have the same USB identity and another"
    " protocol: use the packet forwarder made for them",
    PortFault.REFUSED: "unplug it and plug it in again",
}
"""What to do about each."""


class PortError(TransientError):
    """A port or the device behind it failed. All of these can be mended while the bridge runs: retry with back-off."""

    def __init__(self, port: str, fault: PortFault, says: str) -> None:
        """`port` is the path as it was asked for, `says` what happened there."""
        super().__init__(f"{port}: {says} ({HINTS[fault]})")
        self.port = port
        self.fault = fault
        self.says = says

    @property
    def hint(self) -> str:
        """What to do about it."""
        return HINTS[self.fault]


def open_port(port: str, baud: int) -> serial.Serial:
    """The port, raw, 8N1 and locked against other users of `flock`; reading never blocks longer than its time-out.

    `baud` is of no effect on a USB device. Raises PortError. The reads of the result are the caller's to guard
    with `lost`.
    """
    _look(port)
    try:
        return serial.Serial(port, baud, timeout=0, write_timeout=WRITE_TIMEOUT, exclusive=True)
    except OSError as error:  # SerialException is one
        raise _opening(port, error) from None
    except termios.error as error:
        raise lost(port, error) from None
    except ValueError as error:
        raise PortError(port, PortFault.NOT_SERIAL, f"cannot be set up: {error}") from None


def lost(port: str, error: Exception) -> PortError:
    """What a failed call of an open port means; `error` is one of LOSSES."""
    if isinstance(error, serial.SerialTimeoutException):
        return PortError(port, PortFault.SILENT, f"took nothing for {WRITE_TIMEOUT:g} s")
    return PortError(port, PortFault.GONE, "the device disappeared")


def _look(port: str) -> None:
    """Refuse what can be told without setting the port up, which takes bytes from a program that is reading."""
    try:
        opened = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise _opening(port, error) from None
    is_terminal = os.isatty(opened)
    os.close(opened)
    if not is_terminal:
        raise PortError(port, PortFault.NOT_SERIAL, "is no serial port")
    taken_by = holders(port)
    if taken_by:
        raise PortError(port, PortFault.TAKEN, f"is in use by {', '.join(map(str, taken_by))}")


def _opening(port: str, error: OSError) -> PortError:
    """The fault behind a failed opening."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}:
        return PortError(port, PortFault.ABSENT, "there is no such device")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PortError(port, PortFault.PERMISSION, "permission denied")
    if error.errno in {errno.EBUSY, errno.EAGAIN}:
        taken_by = ", ".join(map(str, holders(port))) or "a program that this account may not see"
        return PortError(port, PortFault.TAKEN, f"is in use by {taken_by}")
    if error.errno == errno.EIO:
        return PortError(port, PortFault.GONE, "the device disappeared")
    return PortError(port, PortFault.NOT_SERIAL, f"cannot be opened as a serial port: {error}")
