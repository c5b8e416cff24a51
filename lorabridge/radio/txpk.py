"""The JSON of PULL_RESP (`txpk`, one frame to send) and of TX_ACK (`txpk_ack`, what became of it), both ways.

Source: sx1302_hal V2.1.0, packet_forwarder/PROTOCOL.md (v1.6) §6 and what its lora_pkt_fwd really sends.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lorabridge.lorawan.air import FskDataRate, Transmission, TxResult, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.wire_values import (
    I32,
    U32,
    GpsMilliseconds,
    build_base64,
    build_data_rate,
    build_frequency,
    decode_json,
    parse_base64,
    parse_data_rate,
    parse_frequency,
)

_CODE_RATES = {
    "4/5": "4/5",
    "4/6": "4/6",
    "2/3": "4/6",
    "4/7": "4/7",
    "4/8": "4/8",
    "2/4": "4/8",
    "1/2": "4/8",
}
"""Every spelling that the reference forwarder takes."""
_SUCCESS = frozenset({"NONE", "", None})
"""What forwarders say for success; the reference says nothing at all."""

_Word = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]{0,32}\Z")]
"""Bounded and printable: it ends in logs and records."""


class _Txpk(msgspec.Struct, omit_defaults=True):
    imme: bool = False
    tmst: U32 | None = None
    tmms: GpsMilliseconds | None = None
    freq: float | None = None
    rfch: I32 | None = None
    powe: I32 | None = None
    ant: I32 | None = None
    brd: I32 | None = None
    modu: str | None = None
    datr: str | int | None = None
    codr: str | None = None
    fdev: U32 | None = None
    ipol: bool | None = None
    prea: Annotated[int, Meta(ge=0, le=0xFFFF)] | None = None
    ncrc: bool | None = None
    size: int | None = None
    data: str | None = None


class _PullResp(msgspec.Struct):
    txpk: _Txpk | None = None


class _TxpkAck(msgspec.Struct, omit_defaults=True):
    error: _Word | None = None
    warn: _Word | None = None
    value: float | None = None


class _TxAck(msgspec.Struct):
    txpk_ack: _TxpkAck | None = None


_PULL_RESP = msgspec.json.Decoder(_PullResp)
_TX_ACK = msgspec.json.Decoder(_TxAck)


def parse_tx_ack_payload(payload: bytes) -> TxResult:
    """What the gateway says of a frame it was given: no JSON, or nothing but NULs and blanks, is success.

    Raises MalformedDatagram.
    """
    payload = payload.strip(b"\0 \r\n\t")
    if not payload:
        return TxResult()
    ack = decode_json(_TX_ACK, payload).txpk_ack
    if ack is None:
        return TxResult()
    error = None if ack.error in _SUCCESS else ack.error
    warning = None if ack.warn in _SUCCESS else ack.warn
    value = ack.value if warning is not None and ack.value is not None and -1000 <= ack.value <= 1000 else None
    return TxResult(error=error, warning=warning, power_dbm=None if value is None else round(value))


def build_tx_ack_payload(result: TxResult) -> bytes:
    """As the reference forwarder answers: nothing for success."""
    if result == TxResult():
        return b""
    ack = _TxpkAck(error=result.error, warn=result.warning, value=result.power_dbm)
    return msgspec.json.encode(_TxAck(txpk_ack=ack))


def parse_txpk_payload(payload: bytes, *, gateway_eui: EUI64) -> Transmission:
    """The frame that a PULL_RESP orders `gateway_eui` to send: a forwarder's view. Raises MalformedDatagram."""
    txpk = decode_json(_PULL_RESP, payload.rstrip(b"\0 \r\n\t")).txpk
    if txpk is None or txpk.data is None or txpk.freq is None or txpk.datr is None:
        raise MalformedDatagram(DatagramFault.MISSING_FIELD)
    phy_payload = parse_base64(txpk.data)
    if txpk.size is not None and txpk.size != len(phy_payload):
        raise MalformedDatagram(DatagramFault.SIZE_MISMATCH)
    code_rate = _CODE_RATES.get(txpk.codr or "4/5")
    if code_rate is None:
        raise MalformedDatagram(DatagramFault.BAD_DATA_RATE)
    return Transmission(
        phy_payload=phy_payload,
        gateway_eui=gateway_eui,
        timing=_parse_timing(txpk),
        frequency_hz=parse_frequency(txpk.freq),
        data_rate=parse_data_rate(txpk.datr, txpk.modu),
        power_dbm=txpk.powe or 0,
        tmst=txpk.tmst,
        gps_time_ms=txpk.tmms,
        code_rate=code_rate,
        rf_chain=txpk.rfch or 0,
        antenna=txpk.ant,
        board=txpk.brd,
        invert_polarity=bool(txpk.ipol),
        crc=not txpk.ncrc,
        preamble_symbols=txpk.prea,
        frequency_deviation_hz=txpk.fdev,
    )


def build_txpk_payload(transmission: Transmission) -> bytes:
    """The JSON of a PULL_RESP. Raises ValueError for what the protocol cannot say."""
    datr, modu = build_data_rate(transmission.data_rate)
    fsk = isinstance(transmission.data_rate, FskDataRate)
    if fsk and transmission.frequency_deviation_hz is None:
        # The reference forwarder aborts without `fdev`, and sends no TX_ACK.
        raise ValueError("an FSK transmission needs its frequency deviation")
    timing = transmission.timing
    if (timing is TxTiming.AT_TMST and transmission.tmst is None) or (
        timing is TxTiming.AT_GPS_TIME and transmission.gps_time_ms is None
    ):
        raise ValueError(f"a transmission {timing.value} needs that time")
    txpk = _Txpk(
        imme=timing is TxTiming.IMMEDIATELY,
        tmst=transmission.tmst if timing is TxTiming.AT_TMST else None,
        tmms=transmission.gps_time_ms if timing is TxTiming.AT_GPS_TIME else None,
        freq=build_frequency(transmission.frequency_hz),
        rfch=transmission.rf_chain,
        powe=transmission.power_dbm,
        ant=transmission.antenna,
        brd=transmission.board,
        modu=modu,
        datr=datr,
        codr=None if fsk else transmission.code_rate,
        fdev=transmission.frequency_deviation_hz if fsk else None,
        ipol=transmission.invert_polarity,
        prea=transmission.preamble_symbols,
        ncrc=not transmission.crc,
        size=len(transmission.phy_payload),
        data=build_base64(transmission.phy_payload),
    )
    return msgspec.json.encode(_PullResp(txpk=txpk))


def _parse_timing(txpk: _Txpk) -> TxTiming:
    """`imme` wins over `tmst`, which wins over `tmms`."""
    if txpk.imme:
        return TxTiming.IMMEDIATELY
    if txpk.tmst is not None:
        return TxTiming.AT_TMST
    if txpk.tmms is not None:
        return TxTiming.AT_GPS_TIME
    raise MalformedDatagram(DatagramFault.MISSING_FIELD)
