"""What parent and child say to each other: msgpack messages, each after its length in 4 bytes, big-endian."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from lorabridge.radio.sx1302.plan import Plan
from lorabridge.radio.wire_values import I32, U32, Decibel

FRAME_LIMIT: Final = 1 << 20
"""Bytes of the longest message; a longer one is no message of ours."""
HEADER_SIZE: Final = 4

_Byte = Annotated[int, Meta(ge=0, le=255)]
_Payload = Annotated[bytes, Meta(max_length=255)]
_Text = Annotated[str, Meta(max_length=1000)]


class Packet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One frame as `lgw_receive` gave it, in the library's own numbers; dBm, dB, Hz, us, and ns since the PPS."""

    payload: _Payload
    frequency_hz: U32
    frequency_offset_hz: I32
    if_chain: _Byte
    rf_chain: _Byte
    modem: _Byte
    status: _Byte
    count_us: U32
    modulation: _Byte
    bandwidth: _Byte
    data_rate: U32
    code_rate: _Byte
    rssi_dbm: Decibel
    signal_rssi_dbm: Decibel
    snr_db: Decibel
    fine_time_ns: Annotated[int, Meta(ge=0, le=999_999_999)] | None


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The concentrator runs."""

    eui: Annotated[bytes, Meta(min_length=8, max_length=8)]
    """Big-endian: msgspec bounds no integers of 64 bits."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It will never run so: the operator's turn."""

    what: _Text
    hint: _Text


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It does not run now; the child ends after this."""

    reason: _Text


class Counter(msgspec.Struct, frozen=True, array_like=True):
    """The concentrator's counter: at the last PPS (0: none yet) and at `at_ns` of the monotonic clock; us, 32 bits."""

    pps_us: U32
    count_us: U32
    at_ns: int


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The library still comes back from its calls. Totals since the start; degrees Celsius."""

    fetch_errors: int
    malformed: int
    scans_failed: int = 0
    temperature_c: Decibel | None = None
    counter: Counter | None = None
    """None when the library could not read it."""


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """Frames, oldest first."""

    packets: list[Packet]


class Scanned(msgspec.Struct, frozen=True, tag="scanned"):
    """A channel of the spectral scan: (dBm, how many measurements) of each level."""

    frequency_hz: U32
    levels: Annotated[list[tuple[int, int]], Meta(max_length=64)]


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """What became of the order with this number: `error` None is success."""

    number: int
    error: _Text | None = None


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message to the child: the path of the library, and what to do with it."""

    library: str
    plan: Plan


class Order(msgspec.Struct, frozen=True, tag="order", kw_only=True):
    """Send this frame, in the library's own numbers; `count_us` None is at once."""

    number: int
    payload: _Payload
    frequency_hz: U32
    count_us: U32 | None
    rf_chain: _Byte
    power_dbm: Annotated[int, Meta(ge=-128, le=127)]
    modulation: _Byte
    bandwidth: _Byte
    data_rate: U32
    code_rate: _Byte
    invert: bool
    deviation_khz: _Byte
    preamble: Annotated[int, Meta(ge=0, le=0xFFFF)]
    crc: bool


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Stop the concentrator and end."""


FromChild = Started | Refused | Failed | Beat | Heard | Sent | Scanned
FROM_CHILD: Final = msgspec.msgpack.Decoder(FromChild)
TO_CHILD: Final = msgspec.msgpack.Decoder(Setup | Order | Stop)


def pack(message: msgspec.Struct) -> bytes:
    """A message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_SIZE, "big") + body
