"""Finding sentences of NMEA 0183 and messages of UBX in a stream of bytes that may hold anything.

Sources: NMEA 0183, and "u-blox 7 Receiver Description Including Protocol Specification" (UBX framing).
"""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Final, NamedTuple

BAUD: Final = 9600
"""What receivers speak unless they are told otherwise."""
MAX_SENTENCE: Final = 128
"""Bytes with `$` and line end; the standard has 82, receivers exceed it."""
MAX_UBX_PAYLOAD: Final = 256
"""Bytes; longer messages are passed over, none of them is read here."""

_SYNC: Final = b"\xb5b"
_UBX_OVERHEAD: Final = 8


class Sentence(NamedTuple):
    """A sentence whose checksum is right."""

    fields: tuple[str, ...]
    """The address (`GPRMC`) first; printable ASCII."""


class UbxMessage(NamedTuple):
    """A message whose checksum is right."""

    kind: int
    """Class in the high byte, id in the low."""
    payload: bytes


class Scanner:
    """Takes bytes in any pieces; never raises, and never holds more than one frame's bytes."""

    def __init__(self) -> None:
        self._held = b""
        self.bad_checksums = 0
        """Frames that were refused for their checksum, since the beginning."""

    def feed(self, data: bytes) -> list[Sentence | UbxMessage]:
        """What has become whole with these bytes, in order."""
        held, at, found = self._held + data, 0, list[Sentence | UbxMessage]()
        while (at := _next_start(held, at)) < len(held):
            size = _size(held, at)
            if size is None:
                break  # not all of it is here
            message = _read(held[at : at + size]) if size else None
            if message is not None:
                found.append(message)
            elif size:
                self.bad_checksums += 1
            at += size if message is not None else 1  # a bad frame may hold a good one
        self._held = held[at:]
        return found


def _next_start(held: bytes, at: int) -> int:
    """Where the next frame may begin."""
    starts = [begin for begin in (held.find(b"$", at), held.find(_SYNC[:1], at)) if begin >= 0]
    return min(starts, default=len(held))


def _size(held: bytes, at: int) -> int | None:
    """Bytes of the frame that begins here: None when that cannot be said yet, 0 when none begins here."""
    if held[at] == _SYNC[0]:
        return _ubx_size(held, at)
    end = held.find(b"\n", at, at + MAX_SENTENCE)
    if end < 0:
        whole = len(held) - at >= MAX_SENTENCE or held.find(b"$", at + 1) >= 0
        return 0 if whole else None
    return end + 1 - at


def _ubx_size(held: bytes, at: int) -> int | None:
    head = held[at : at + 6]
    if head[:2] != _SYNC[: len(head[:2])]:
        return 0
    if len(head) < 6:
        return None
    payload = int.from_bytes(head[4:6], "little")
    if payload > MAX_UBX_PAYLOAD:
        return 0
    size = payload + _UBX_OVERHEAD
    return size if at + size <= len(held) else None


def _read(frame: bytes) -> Sentence | UbxMessage | None:
    """The contents of a frame, None when the checksum says otherwise."""
    if frame.startswith(_SYNC):
        right = frame[-2:] == fletcher(frame[2:-2])
        return UbxMessage(int.from_bytes(frame[2:4], "big"), frame[6:-2]) if right else None
    body, star, told = frame[1:].rstrip(b"\r\n").rpartition(b"*")
    text = body.decode("ascii", "replace")
    if not star or "$" in text or not text.isprintable() or not text.isascii():
        return None  # `$` within is the beginning of another
    return Sentence(tuple(text.split(","))) if told.upper() == b"%02X" % reduce(xor, body, 0) else None


def fletcher(data: bytes) -> bytes:
    """The checksum of UBX: two bytes."""
    first = second = 0
    for byte in data:
        first = (first + byte) & 0xFF
        second = (second + first) & 0xFF
    return bytes((first, second))
