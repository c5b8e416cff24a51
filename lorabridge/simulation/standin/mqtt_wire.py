"""As much of MQTT 3.1.1 and 5 on the wire as a screen in front of a broker must read and write.

Functions take a buffer and positions in it, so that a publish that passes is never copied.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec


class MalformedPacket(Exception):  # noqa: N818  # named as the other malformed things of the house
    """What came is not MQTT."""


class PacketType(enum.IntEnum):
    """The upper four bits of the first byte (MQTT 5 §2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Property(enum.IntEnum):
    """The identifiers (MQTT 5 §2.2.2.2) that matter here."""

    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    SERVER_KEEP_ALIVE = 0x13
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    MAXIMUM_PACKET_SIZE = 0x27
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29


class Reason(enum.IntEnum):
    """Reason codes (MQTT 5 §2.4) that the front says."""

    SUCCESS = 0x00
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    NOT_AUTHORIZED = 0x87
    SERVER_SHUTTING_DOWN = 0x8B
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    QOS_NOT_SUPPORTED = 0x9B
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1


_FIXED_SIZES = dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1)
_FIXED_SIZES |= dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2) | dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4)
_STRINGS = frozenset((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F))
_USER_PROPERTY = 0x26


class Will(msgspec.Struct, frozen=True):
    """Where the broker would publish the last will."""

    topic: bytes
    qos: int
    retain: bool


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """A CONNECT; `keep_alive_at` is where its two bytes stand in the buffer."""

    mqtt_5: bool
    client_id: str
    clean: bool
    session_expiry: int
    keep_alive: int
    keep_alive_at: int
    will: Will | None


class Header(NamedTuple):
    """A fixed header: where the body starts and ends; the end may lie beyond the buffer."""

    body: int
    stop: int


def parse_header(buffer: bytes, at: int) -> Header | None:
    """The fixed header at `at` (§2.1.4), or None while it is incomplete. Raises MalformedPacket."""
    length = shift = 0
    for position in range(at + 1, min(at + 5, len(buffer))):
        byte = buffer[position]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return Header(position + 1, position + 1 + length)
        shift += 7
    if len(buffer) - at >= 5:
        raise MalformedPacket("remaining length of more than four bytes")
    return None


class Fields:
    """Reads the fields of one packet in turn. Every method raises MalformedPacket at the packet's end."""

    def __init__(self, buffer: bytes, at: int, stop: int) -> None:
        self._buffer = buffer
        self._stop = stop
        self.at = at

    @property
    def more(self) -> bool:
        """Whether something is left."""
        return self.at < self._stop

    def take(self, size: int) -> bytes:
        """So many bytes."""
        first, self.at = self.at, self.at + size
        if self.at > self._stop:
            raise MalformedPacket("shorter than its lengths say")
        return self._buffer[first : self.at]

    def number(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        """Bytes or text with a length before it."""
        return self.take(self.number(2))

    def text(self) -> str:
        """UTF-8 text with a length before it."""
        try:
            return self.binary().decode()
        except UnicodeDecodeError:
            raise MalformedPacket("text that is not UTF-8") from None

    def variable(self) -> int:
        """A variable byte integer (§1.5.5)."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedPacket("variable byte integer of more than four bytes")

    def properties(self) -> dict[int, bytes]:
        """The raw values by identifier; of repeated ones the last."""
        size = self.variable()
        inner = Fields(self._buffer, self.at, self.at + size)
        self.take(size)
        found: dict[int, bytes] = {}
        while inner.more:
            name = inner.variable()
            first = inner.at
            inner.skip_value(name)
            found[name] = self._buffer[first : inner.at]
        return found

    def skip_value(self, name: int) -> None:
        """Pass over the value of the property `name`."""
        if name in _FIXED_SIZES:
            self.take(_FIXED_SIZES[name])
        elif name in _STRINGS:
            self.binary()
        elif name == _USER_PROPERTY:
            self.binary()
            self.binary()
        elif name == Property.SUBSCRIPTION_IDENTIFIER:
            self.variable()
        else:
            raise MalformedPacket("unknown property")


def parse_connect(buffer: bytes, header: Header) -> Connect | None:
    """Read a CONNECT (§3.1); None when it is neither MQTT 3.1.1 nor 5. Raises MalformedPacket."""
    fields = Fields(buffer, header.body, header.stop)
    name, level = fields.binary(), fields.number(1)
    if name != b"MQTT" or level not in (4, 5):
        return None
    mqtt_5, flags, keep_alive_at = level == 5, fields.number(1), fields.at
    keep_alive = fields.number(2)
    properties = fields.properties() if mqtt_5 else {}
    client_id = fields.text()
    will = None
    if flags & 0x04:
        if mqtt_5:
            fields.properties()
        will = Will(fields.binary(), flags >> 3 & 3, bool(flags & 0x20))
        fields.binary()
    return Connect(
        mqtt_5=mqtt_5,
        client_id=client_id,
        clean=bool(flags & 0x02),
        session_expiry=int.from_bytes(properties.get(Property.SESSION_EXPIRY_INTERVAL, b""), "big"),
        keep_alive=keep_alive,
        keep_alive_at=keep_alive_at,
        will=will,
    )


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    """A SUBSCRIBE or an UNSUBSCRIBE (which asks for no QoS)."""

    packet_id: int
    filters: tuple[str, ...]
    highest_qos: int
    has_identifier: bool


def parse_subscribe(buffer: bytes, header: Header, *, mqtt_5: bool, with_options: bool = True) -> Subscribe:
    """Read a SUBSCRIBE (§3.8), or without options an UNSUBSCRIBE (§3.10). Raises MalformedPacket."""
    fields = Fields(buffer, header.body, header.stop)
    packet_id = fields.number(2)
    properties = fields.properties() if mqtt_5 else {}
    filters, highest = [], 0
    while fields.more:
        filters.append(fields.text())
        if with_options:
            highest = max(highest, fields.number(1) & 3)
    if not filters:
        raise MalformedPacket("a SUBSCRIBE without a filter")  # MQTT-3.8.3-3
    return Subscribe(
        packet_id=packet_id,
        filters=tuple(filters),
        highest_qos=highest,
        has_identifier=Property.SUBSCRIPTION_IDENTIFIER in properties,
    )


def build_packet(first: int, body: bytes) -> bytes:
    """A packet with its fixed header; `first` is its first byte."""
    return bytes([first]) + _variable(len(body)) + body


def build_puback(packet_id: int, reason: int = Reason.SUCCESS) -> bytes:
    """A PUBACK; only MQTT 5 has a reason."""
    body = packet_id.to_bytes(2, "big") + (bytes([reason]) if reason else b"")
    return build_packet(0x40, body)


def build_publish(topic: str, payload: bytes, packet_id: int, *, mqtt_5: bool) -> bytes:
    """A PUBLISH; with QoS 1 when `packet_id` is not 0."""
    name = topic.encode()
    identifier = packet_id.to_bytes(2, "big") if packet_id else b""
    body = len(name).to_bytes(2, "big") + name + identifier + (b"\0" if mqtt_5 else b"") + payload
    return build_packet(0x32 if packet_id else 0x30, body)


def build_suback_refused(packet_id: int, count: int) -> bytes:
    """A SUBACK of MQTT 5 that grants nothing."""
    return build_packet(0x90, packet_id.to_bytes(2, "big") + b"\0" + bytes([Reason.NOT_AUTHORIZED]) * count)


def build_connack_refused(reason: int) -> bytes:
    """A CONNACK of MQTT 5 that refuses."""
    return build_packet(0x20, bytes([0, reason, 0]))


def build_disconnect(reason: int) -> bytes:
    """A DISCONNECT of MQTT 5 from the server."""
    return build_packet(0xE0, bytes([reason]))


def build_properties(properties: dict[int, bytes]) -> bytes:
    """Properties from their raw values, length first."""
    block = b"".join(_variable(name) + value for name, value in properties.items())
    return _variable(len(block)) + block


def _variable(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)
