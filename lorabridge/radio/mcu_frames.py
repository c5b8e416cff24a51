"""The frames of the microcontroller on a USB concentrator, as values: no port is touched here.

Source: `loragw_mcu.c` of Semtech's sx1302_hal 2.1.0. Both ways: id (1 byte), size of the payload (2, big-endian),
command (1), payload. An answer carries the id of its request and the command with bit 6 set.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

import msgspec

MAX_PAYLOAD: Final = 4200
"""Bytes; the size of the controller's own buffer."""
RESET_GATEWAY: Final = b"\x00"
"""Payload of RESET: the whole gateway, the only type there is."""

_HEADER: Final = struct.Struct(">BHB")
_ACKNOWLEDGE: Final = 0x40
_ANSWERS: Final = frozenset({*range(0x40, 0x47), 0xFF})
"""Commands of answers; 0xFF says that the request is not known."""
_STATUS: Final = struct.Struct(">Ih")
_UNIQUE_ID_BYTES: Final = 12
_VERSION_FORM: Final = "V00.00.00"


class Command(enum.IntEnum):
    """The requests that this program makes of a controller."""

    PING = 0x00
    GET_STATUS = 0x01
    RESET = 0x03


ANSWER_BYTES: Final = {Command.PING: _UNIQUE_ID_BYTES + len(_VERSION_FORM), Command.GET_STATUS: 6, Command.RESET: 1}
"""Payload of each answer."""


class Identity(msgspec.Struct, frozen=True):
    """What PING answers."""

    unique_id: str
    """The 96 bits of the STM32, as 24 hexadecimal digits."""
    firmware: str
    """As `V01.00.00`."""


class McuStatus(msgspec.Struct, frozen=True):
    """What GET_STATUS answers."""

    uptime_ms: int
    """Milliseconds since the controller started, modulo 2³²."""
    temperature_c: float
    """Degrees Celsius beside the radio, in steps of 0.01."""


class Looks(enum.Enum):
    """What the bytes after a request are, so far."""

    NOTHING = "nothing"
    HALF = "the beginning of the answer"
    OTHER = "a frame, but not this answer"
    GARBAGE = "no frame"
    WHOLE = "the answer"


class Answer(NamedTuple):
    """What was found in the bytes that followed a request."""

    looks: Looks
    payload: bytes = b""
    """All of it when WHOLE, else empty."""


def build_request(ident: int, command: Command, payload: bytes = b"") -> bytes:
    """A request of the controller; `ident` is one byte of the caller's choice, which the answer repeats."""
    return _HEADER.pack(ident, len(payload), command) + payload


def find_answer(heard: bytes, ident: int, command: Command) -> Answer:
    """The answer to this request among `heard`, wherever it begins: what an earlier reader left over is skipped.

    Never raises. The four bytes of the header are all known, so that noise looks like one once in 2³².
    """
    if not heard:
        return Answer(Looks.NOTHING)
    size = ANSWER_BYTES[command]
    header = _HEADER.pack(ident, size, command | _ACKNOWLEDGE)
    begins = heard.find(header)
    if begins >= 0:
        payload = heard[begins + len(header) : begins + len(header) + size]
        return Answer(Looks.WHOLE, payload) if len(payload) == size else Answer(Looks.HALF)
    if header.startswith(heard):
        return Answer(Looks.HALF)
    return Answer(Looks.OTHER if _is_frame(heard) else Looks.GARBAGE)


def parse_identity(payload: bytes) -> Identity:
    """The answer to PING. Raises ValueError when the version is not in the form that concentrators have."""
    version = payload[_UNIQUE_ID_BYTES:].decode("ascii", "replace")
    form = "".join("0" if character in "0123456789" else character for character in version)
    if form != _VERSION_FORM:
        raise ValueError("its firmware version is not of the form V01.00.00")
    return Identity(payload[:_UNIQUE_ID_BYTES].hex(), version)


def parse_status(payload: bytes) -> McuStatus:
    """The answer to GET_STATUS, six bytes."""
    uptime_ms, centidegrees = _STATUS.unpack(payload)
    return McuStatus(uptime_ms, centidegrees / 100)


def _is_frame(heard: bytes) -> bool:
    """Whether these bytes are whole frames of the protocol's form, one after the other."""
    at = 0
    while at + _HEADER.size <= len(heard):
        _, size, command = _HEADER.unpack_from(heard, at)
        if size > MAX_PAYLOAD or command not in _ANSWERS:
            return False
        at += _HEADER.size + size
    return at == len(heard)
