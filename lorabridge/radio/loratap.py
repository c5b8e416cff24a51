"""LoRaTap, the header in front of a LoRa frame in a packet capture (link type 270), versions 0 and 1.

Source: the LoRaTap project's README and headers (E. de Jong 2017, A. Povalac 2022). All values are big endian;
the length field lets a reader skip what a later version appends.
"""

from __future__ import annotations

import struct
from typing import Final

from construct import (  # type: ignore[import-untyped,unused-ignore]  # construct ships no types
    Int8sb,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    Struct,
)

from lorabridge.lorawan.air import Antenna, CrcStatus, FskDataRate, LoraDataRate, Reception
from lorabridge.lorawan.types import EUI64

LINK_TYPE: Final = 270
"""LINKTYPE_LORATAP."""
SYNC_WORDS: Final = frozenset({0x34, 0x12})
"""LoRaWAN's public and private networks; other LoRa traffic is none of ours."""

_V0 = (
    "version" / Int8ub,
    "padding" / Int8ub,
    "length" / Int16ub,
    "frequency" / Int32ub,  # Hz
    "bandwidth" / Int8ub,  # in steps of 125 kHz
    "sf" / Int8ub,
    "packet_rssi" / Int8ub,
    "max_rssi" / Int8ub,
    "current_rssi" / Int8ub,
    "snr" / Int8sb,  # quarters of a dB
    "sync_word" / Int8ub,
)
HEADER_V0 = Struct(*_V0)
HEADER_V1 = Struct(
    *_V0,
    "source_gw" / Int64ub,
    "timestamp" / Int32ub,  # tmst
    "flags" / Int8ub,
    "cr" / Int8ub,
    "datarate" / Int16ub,  # FSK, bit/s
    "if_channel" / Int8ub,
    "rf_chain" / Int8ub,
    "tag" / Int16ub,
)
_PARSE_V0 = HEADER_V0.compile()
_PARSE_V1 = HEADER_V1.compile()
SIZE_V0: Final = 15
SIZE_V1: Final = 35

FLAG_FSK: Final = 0x01
FLAG_CRC_OK: Final = 0x08
FLAG_CRC_BAD: Final = 0x10

_RSSI_BASE: Final = -139
_NOT_SAID: Final = 255
_CODE_RATES: Final = {5: "4/5", 6: "4/6", 7: "4/7", 8: "4/8"}


class NotLoraTapError(Exception):
    """The packet holds no LoRaTap frame that we know; the text says why."""


class OtherNetworkError(Exception):
    """A LoRa frame whose sync word is not LoRaWAN's."""


def parse_loratap(packet: bytes, *, gateway_eui: EUI64, source: str, received_at: int) -> Reception:
    """One captured packet; `gateway_eui` stands in where the header names no gateway (version 0).

    Version 0 says nothing of the CRC: what a sniffer wrote down it could demodulate, so it counts as good, and the
    MIC decides. Raises NotLoraTapError, OtherNetworkError.
    """
    if len(packet) < SIZE_V0:
        raise NotLoraTapError("ends inside its header")
    version, length = packet[0], struct.unpack_from(">H", packet, 2)[0]
    if not (SIZE_V1 if version else SIZE_V0) <= length <= len(packet):
        raise NotLoraTapError("its header has an impossible length")
    head = _PARSE_V1.parse(packet) if version else _PARSE_V0.parse(packet)
    flags = head["flags"] if version else FLAG_CRC_OK
    fsk = bool(flags & FLAG_FSK)
    if not fsk and head["sync_word"] not in SYNC_WORDS:
        raise OtherNetworkError
    return Reception(
        phy_payload=packet[length:],
        received_at=received_at,
        gateway_eui=EUI64(head["source_gw"]) if version else gateway_eui,
        source=source,
        crc=_crc(flags),
        frequency_hz=head["frequency"],
        data_rate=FskDataRate(head["datarate"]) if fsk else LoraDataRate(head["sf"], head["bandwidth"] * 125_000),
        code_rate=_CODE_RATES.get(head["cr"]) if version else None,
        tmst=head["timestamp"] if version else None,
        rf_chain=head["rf_chain"] if version else None,
        antennas=(
            Antenna(
                channel=head["if_channel"] if version else None,
                rssi_dbm=_rssi(head["packet_rssi"], head["snr"]),
                snr_db=None if fsk else head["snr"] / 4,
            ),
        ),
    )


def _crc(flags: int) -> CrcStatus:
    if flags & FLAG_CRC_BAD:
        return CrcStatus.BAD
    return CrcStatus.OK if flags & FLAG_CRC_OK else CrcStatus.NONE


def _rssi(value: int, snr: int) -> float | None:
    """dBm; below the noise floor the register counts in quarters (SX1276 §5.5.5)."""
    if value == _NOT_SAID:
        return None
    return float(_RSSI_BASE + value) if snr >= 0 else _RSSI_BASE + value * 0.25
