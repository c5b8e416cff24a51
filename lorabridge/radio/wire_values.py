"""What `rxpk` and `txpk` write alike: JSON, data rates, frequencies and binary data.

Source: sx1302_hal V2.1.0, packet_forwarder/PROTOCOL.md (v1.6), sections 4 and 6.
"""

from __future__ import annotations

import binascii
import math
from types import MappingProxyType
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate
from lorabridge.radio.faults import DatagramFault, MalformedDatagram

T = TypeVar("T")

U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Fraction = Annotated[int, Meta(ge=0, le=999_999_999)]
GpsMilliseconds = Annotated[int, Meta(ge=0, le=10**13)]
"""`tmms`, up to the year 2296."""
Decibel = Annotated[float, Meta(ge=-1000.0, le=1000.0)]

LORA = "LORA"
FSK = "FSK"
_BANDWIDTHS_KHZ = (125, 250, 500)
_LORA_RATES = MappingProxyType(
    {f"SF{sf}BW{khz}": LoraDataRate(sf, khz * 1000) for sf in range(5, 13) for khz in _BANDWIDTHS_KHZ}
)
_LORA_NAMES = MappingProxyType({rate: name for name, rate in _LORA_RATES.items()})
_MAX_BIT_RATE = 1_000_000
_MIN_MHZ = 100.0
_MAX_MHZ = 3000.0

_URL_SAFE = str.maketrans("-_", "+/")


def decode_json(decoder: msgspec.json.Decoder[T], payload: bytes | msgspec.Raw) -> T:
    """JSON from outside. Raises MalformedDatagram for whatever msgspec says of it."""
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError:
        raise MalformedDatagram(DatagramFault.BAD_VALUE) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedDatagram(DatagramFault.BAD_JSON) from None


def parse_data_rate(datr: str | int, modu: str | None) -> DataRate:
    """`"SF7BW125"` or a bit rate, when it agrees with `modu`. Raises MalformedDatagram."""
    if isinstance(datr, str):
        rate = _LORA_RATES.get(datr)
        if rate is not None and modu in (LORA, None):
            return rate
    elif 0 < datr <= _MAX_BIT_RATE and modu in (FSK, None):
        return FskDataRate(datr)
    raise MalformedDatagram(DatagramFault.BAD_DATA_RATE)


def build_data_rate(rate: DataRate) -> tuple[str | int, str]:
    """(`datr`, `modu`) of a data rate. Raises ValueError for a LoRa rate that the protocol has no name for."""
    if isinstance(rate, FskDataRate):
        return rate.bit_rate, FSK
    name = _LORA_NAMES.get(rate)
    if name is None:
        raise ValueError(f"the UDP protocol has no name for {rate}")
    return name, LORA


def parse_frequency(mhz: float) -> int:
    """Hz of a frequency in MHz, to the nearest. Raises MalformedDatagram."""
    if not _MIN_MHZ <= mhz <= _MAX_MHZ:
        raise MalformedDatagram(DatagramFault.BAD_FREQUENCY)
    return round(mhz * 1e6)


def build_frequency(frequency_hz: int) -> float:
    """MHz that give `frequency_hz` again, whether the reader rounds or, as the reference does, truncates."""
    mhz = frequency_hz / 1e6
    return mhz if int(mhz * 1e6) == frequency_hz else math.nextafter(mhz, math.inf)


def parse_base64(text: str) -> bytes:
    """Base64 in the standard, the URL-safe or (as the protocol's own example) a mixed alphabet, padded or not.

    Raises MalformedDatagram.
    """
    if "-" in text or "_" in text:
        text = text.translate(_URL_SAFE)
    if len(text) & 3:
        text += "=" * (-len(text) & 3)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise MalformedDatagram(DatagramFault.BAD_BASE64) from None


def build_base64(data: bytes) -> str:
    """Standard alphabet, padded, as the reference forwarder writes it."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")
