"""The protobuf wire format, as far as the gateway API uses it: a message is a table of fields, read and written by it.

Source: https://protobuf.dev/programming-guides/encoding/ (proto3). Groups and packed lists are not used there.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lorabridge.radio.concentratord.faults import EventFault, MalformedEvent

_VARINT_LIMIT = 10
"""Bytes of the longest varint: 64 bits in groups of 7."""
_MASK64 = (1 << 64) - 1


class WireType(enum.IntEnum):
    """The low three bits of a tag."""

    VARINT = 0
    I64 = 1
    LEN = 2
    I32 = 5


class Kind(enum.Enum):
    """The scalar types of the gateway API."""

    UINT32 = "uint32"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    FLOAT = "float"
    DOUBLE = "double"
    BYTES = "bytes"
    STRING = "string"


class Field(NamedTuple):
    """One field of a message."""

    name: str
    kind: Kind | Mapping[int, Field]
    """A scalar type, or the table of the message inside."""
    is_list: bool = False


Message = Mapping[int, Field]
"""Fields by their numbers. A table never contains itself: that bounds the depth."""

_WIRE_TYPES = {Kind.FLOAT: WireType.I32, Kind.DOUBLE: WireType.I64, Kind.BYTES: WireType.LEN, Kind.STRING: WireType.LEN}
_SIGNED_BITS = {Kind.INT32: 32, Kind.INT64: 64}


def parse_message(data: bytes, message: Message) -> dict[str, Any]:
    """Values by field name. A field that is not there is left out, an unknown one passed over; of a scalar the last
    counts, pieces of one message inside are one message. Raises MalformedEvent.
    """
    values: dict[str, Any] = {}
    inside: dict[str, tuple[Message, bytes]] = {}
    for number, wire_type, value in _read_fields(data):
        field = message.get(number)
        if field is None:
            continue
        if wire_type is not _wire_type(field.kind):
            raise MalformedEvent(EventFault.BAD_PROTOBUF)
        if not isinstance(field.kind, Kind):
            if field.is_list:
                values.setdefault(field.name, []).append(parse_message(value, field.kind))
            else:
                inside[field.name] = field.kind, inside.get(field.name, (field.kind, b""))[1] + value
        elif field.is_list:
            values.setdefault(field.name, []).append(_read_scalar(field.kind, value))
        else:
            values[field.name] = _read_scalar(field.kind, value)
    return values | {name: parse_message(value, table) for name, (table, value) in inside.items()}


def build_message(values: Mapping[str, Any], message: Message) -> bytes:
    """The bytes of a message; what `values` does not name is left out. Raises KeyError for an unknown name."""
    numbers = {field.name: number for number, field in message.items()}
    pieces: list[bytes] = []
    for name, value in values.items():
        number = numbers[name]
        field = message[number]
        for item in value if field.is_list else (value,):
            pieces += (_build_varint(number << 3 | _wire_type(field.kind)), _build_value(field.kind, item))
    return b"".join(pieces)


def _wire_type(kind: Kind | Message) -> WireType:
    return _WIRE_TYPES.get(kind, WireType.VARINT) if isinstance(kind, Kind) else WireType.LEN


def _read_fields(data: bytes) -> Iterator[tuple[int, WireType, Any]]:
    """(number, wire type, integer or bytes) of each field. Raises MalformedEvent."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        number, low = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise MalformedEvent(EventFault.BAD_PROTOBUF)
        if low == WireType.VARINT:
            value, at = _read_varint(data, at)
            yield number, WireType.VARINT, value
            continue
        if low == WireType.LEN:
            length, at = _read_varint(data, at)
        elif low in (WireType.I32, WireType.I64):
            length = 4 if low == WireType.I32 else 8
        else:
            raise MalformedEvent(EventFault.BAD_PROTOBUF)
        if length > end - at:
            raise MalformedEvent(EventFault.BAD_PROTOBUF)
        yield number, WireType(low), data[at : at + length]
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where the next field begins). Raises MalformedEvent."""
    value = 0
    for count, byte in enumerate(data[at : at + _VARINT_LIMIT]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & _MASK64, at + count + 1
    raise MalformedEvent(EventFault.BAD_PROTOBUF)


def _read_scalar(kind: Kind, value: Any) -> Any:
    """As the type says; too long integers lose their high bits, as the format demands. Raises MalformedEvent."""
    if kind is Kind.BYTES:
        return value
    if kind is Kind.STRING:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedEvent(EventFault.BAD_PROTOBUF) from None
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return struct.unpack("<f" if kind is Kind.FLOAT else "<d", value)[0]
    if kind is Kind.BOOL:
        return value != 0
    bits = _SIGNED_BITS.get(kind)
    if bits is None:
        return value & 0xFFFF_FFFF
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _build_value(kind: Kind | Message, value: Any) -> bytes:
    if not isinstance(kind, Kind):
        value = build_message(value, kind)
    elif kind is Kind.STRING:
        value = value.encode("utf-8")
    elif kind in (Kind.FLOAT, Kind.DOUBLE):
        return struct.pack("<f" if kind is Kind.FLOAT else "<d", value)
    elif kind is not Kind.BYTES:
        return _build_varint(int(value) & _MASK64)
    return _build_varint(len(value)) + bytes(value)


def _build_varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
