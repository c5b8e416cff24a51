"""Packet captures (libpcap and pcapng) of the UDP protocol and of LoRaTap, as what was heard.

dpkt takes the files and the link, IP and UDP layers apart; whatever it trips over in a hostile file ends
here as CaptureError.
"""

from __future__ import annotations

import decimal
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, NamedTuple

import dpkt

from lorabridge.lorawan.types import EUI64
from lorabridge.radio.faults import MalformedDatagram
from lorabridge.radio.gwmp import PacketType, parse_datagram
from lorabridge.radio.loratap import LINK_TYPE, NotLoraTapError, OtherNetworkError, parse_loratap
from lorabridge.radio.rxpk import parse_push_payload
from lorabridge.radio.rxpk_lines import Passed, Read

_MAX_BLOCK: Final = 1 << 20
_END_OF_TIME: Final = 2**63
_TRIPS: Final = (
    dpkt.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What dpkt raises for hostile bytes: its own errors, and whatever its arithmetic stumbles into."""


class CaptureError(Exception):
    """A capture, or a packet of one, that cannot be read; the text says why."""


class Capture(NamedTuple):
    """An open capture."""

    link_type: int
    packets: Iterator[tuple[int, bytes]]
    """(ns since the Unix epoch, packet); raises CaptureError where the file is damaged, and ends there."""


class Udp(NamedTuple):
    """One datagram of a capture."""

    port: int
    """Where it went to."""
    payload: bytes


def read_capture(file: BinaryIO, *, kind: str, source: str, gateway_eui: EUI64, port: int) -> Iterator[Read]:
    """All that a capture holds, in order. `kind` is "pcap" for the UDP protocol, "loratap", or "auto".

    `port` is the server's; 0 takes datagrams to any. Raises ValueError with a sentence, before anything is read,
    for a file that is no such capture.
    """
    try:
        capture = open_capture(file)
    except CaptureError as error:
        raise ValueError(str(error)) from None
    if capture.link_type == LINK_TYPE and kind != "pcap":
        return _numbered(capture, lambda at, packet: _hear_loratap(at, packet, source, gateway_eui))
    if capture.link_type in _LINKS and kind != "loratap":
        link = capture.link_type
        return _numbered(capture, lambda at, packet: _hear_udp(at, packet, source, link, port))
    raise ValueError(f"is a capture of link type {capture.link_type}, which format {kind!r} does not read")


def _numbered(capture: Capture, hear: Callable[[int, bytes], list[Read]]) -> Iterator[Read]:
    """What `hear` makes of each packet; where one is damaged, its number."""
    number = 0
    try:
        for number, (received_at, packet) in enumerate(capture.packets, 1):
            try:
                heard = hear(received_at, packet)
            except CaptureError as error:
                heard = [Passed("", str(error), damaged=True)]
            for item in heard:
                yield item._replace(where=f"packet {number}") if isinstance(item, Passed) else item
    except CaptureError as error:
        yield Passed(f"packet {number + 1}", str(error), damaged=True)


def _hear_loratap(received_at: int, packet: bytes, source: str, gateway_eui: EUI64) -> list[Read]:
    try:
        return [parse_loratap(packet, gateway_eui=gateway_eui, source=source, received_at=received_at)]
    except NotLoraTapError as error:
        raise CaptureError(str(error)) from None
    except OtherNetworkError:
        return [Passed("", "another sync word than those of LoRaWAN", damaged=False)]


def _hear_udp(received_at: int, packet: bytes, source: str, link_type: int, port: int) -> list[Read]:
    """The frames of a PUSH_DATA; all other traffic is passed over."""
    found = udp_datagram(link_type, packet)
    if found is None or port not in (0, found.port):
        return [Passed("", "other traffic", damaged=False)]
    try:
        datagram = parse_datagram(found.payload)
        if datagram.type is not PacketType.PUSH_DATA or datagram.gateway_eui is None:
            return [Passed("", "no PUSH_DATA", damaged=False)]
        heard, faults = parse_push_payload(
            datagram.payload, gateway_eui=datagram.gateway_eui, source=source, received_at=received_at
        )
    except MalformedDatagram as error:
        raise CaptureError(error.fault.value) from None
    return [*heard, *(Passed("", fault.value, damaged=True) for fault in faults)]


def open_capture(file: BinaryIO) -> Capture:
    """The capture in a file opened at its beginning. Raises CaptureError."""
    try:
        reader = dpkt.pcap.UniversalReader(_Bounded(file))
        return Capture(reader.datalink(), _packets(reader))
    except _TRIPS as error:
        raise CaptureError(f"is no packet capture that can be read: {error}") from None


def udp_datagram(link_type: int, packet: bytes) -> Udp | None:
    """The UDP datagram in a packet, None for all other traffic.

    Raises CaptureError for fragments, which are not put together again, and for what cannot be read.
    """
    try:
        layer = _LINKS[link_type](packet)
        while isinstance(layer, dpkt.Packet):
            if _is_fragment(layer):
                raise CaptureError("is a fragment of an IP packet")
            if isinstance(layer, dpkt.udp.UDP):
                return Udp(layer.dport, bytes(layer.data))
            layer = layer.data
    except _TRIPS as error:
        raise CaptureError(f"cannot be read: {error}") from None
    return None


def _raw_ip(packet: bytes) -> Any:
    """No link layer: the version stands in the first nibble."""
    return (dpkt.ip6.IP6 if packet[0] >> 4 == 6 else dpkt.ip.IP)(packet)


_LINKS: Final[dict[int, Callable[[bytes], Any]]] = {
    0: dpkt.loopback.Loopback,
    1: dpkt.ethernet.Ethernet,
    12: _raw_ip,
    14: _raw_ip,
    101: _raw_ip,
    108: dpkt.loopback.Loopback,
    113: dpkt.sll.SLL,
    228: _raw_ip,
    229: _raw_ip,
    276: dpkt.sll2.SLL2,
}
"""By link type: BSD loopback, Ethernet, raw IP in its several numbers, Linux cooked 1 and 2."""


class _Bounded:
    """A file for dpkt that gives no more than a packet can be, and never less than asked for but at its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """At most `size` bytes. Raises ValueError for a size that no block has, and for a file cut short."""
        if not 0 <= size <= _MAX_BLOCK:
            raise ValueError(f"a block of {size} bytes")
        data = self._file.read(size)
        if 0 < len(data) < size:
            raise ValueError("ends inside a packet")
        return data

    def seek(self, offset: int) -> int:
        """As the file's own."""
        return self._file.seek(offset)


def _packets(reader: Any) -> Iterator[tuple[int, bytes]]:
    try:
        for seconds, packet in reader:
            yield _nanoseconds(seconds), bytes(packet)
    except _TRIPS as error:
        raise CaptureError(f"is damaged from here on: {error}") from None


def _nanoseconds(seconds: float | decimal.Decimal) -> int:
    """Nanoseconds of a capture's time; those that come as float are good for whole microseconds."""
    exact = isinstance(seconds, decimal.Decimal)
    nanoseconds = int(seconds * 10**9) if exact else round(seconds * 10**6) * 1000
    if not 0 <= nanoseconds < _END_OF_TIME:
        raise ValueError("an impossible time")
    return nanoseconds


def _is_fragment(layer: Any) -> bool:
    if isinstance(layer, dpkt.ip.IP):
        return bool(layer.mf or layer.offset)
    return isinstance(layer, dpkt.ip6.IP6) and dpkt.ip.IP_PROTO_FRAGMENT in layer.extension_hdrs
