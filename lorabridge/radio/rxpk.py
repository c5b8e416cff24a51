"""The JSON of PUSH_DATA: `rxpk` (one frame as it was heard) and `stat` (how the gateway is), both ways.

Source: sx1302_hal V2.1.0, packet_forwarder/PROTOCOL.md (v1.6) §4 and §5; `rsig`, `brd` and `aesk` are written by
Semtech's v2 gateways; `pfrm`, `mail` and `desc` by older forwarders. Unknown fields are ignored.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lorabridge.lorawan.air import Antenna, CrcStatus, GatewayStatus, Reception
from lorabridge.lorawan.gps_time import utc_ns_of
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.wire_values import (
    I32,
    U32,
    Decibel,
    Fraction,
    GpsMilliseconds,
    build_base64,
    build_data_rate,
    build_frequency,
    decode_json,
    parse_base64,
    parse_data_rate,
    parse_frequency,
)

MAX_RXPK = 255
"""NB_PKT_MAX of the reference forwarder: frames in one PUSH_DATA."""
MAX_ANTENNAS = 32

_UNIX_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_END_OF_TIME = 2**63
"""Nanoseconds that others can still store: the year 2262."""
_CRC = (CrcStatus.NONE, CrcStatus.OK, CrcStatus.BAD)
_CODE_RATES = frozenset({"4/5", "4/6", "4/7", "4/8"})

Heard = Reception | GatewayStatus

_Text = Annotated[str, Meta(max_length=1024)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Number = Annotated[float, Meta(ge=-1e9, le=1e9)]


class Rsig(msgspec.Struct, omit_defaults=True, gc=False):
    """One antenna of a v2 gateway."""

    ant: I32 | None = None
    chan: I32 | None = None
    rssic: Decibel | None = None
    rssis: Decibel | None = None
    rssisd: Decibel | None = None
    lsnr: Decibel | None = None
    foff: I32 | None = None
    ftime: Fraction | None = None
    etime: str | None = None


class Rxpk(msgspec.Struct, omit_defaults=True, gc=False):
    """One frame, in the protocol's own words; what must be there is checked afterwards, to name what is missing."""

    tmst: U32 | None = None
    time: str | None = None
    tmms: GpsMilliseconds | None = None
    ftime: Fraction | None = None
    freq: float | None = None
    chan: I32 | None = None
    rfch: I32 | None = None
    mid: I32 | None = None
    brd: I32 | None = None
    aesk: I32 | None = None
    ant: I32 | None = None
    stat: Literal[-1, 0, 1] | None = None
    modu: str | None = None
    datr: str | int | None = None
    codr: str | None = None
    rssi: Decibel | None = None
    rssis: Decibel | None = None
    lsnr: Decibel | None = None
    foff: I32 | None = None
    rsig: Annotated[list[Rsig], Meta(max_length=MAX_ANTENNAS)] | None = None
    size: int | None = None
    data: str | None = None


class Stat(msgspec.Struct, omit_defaults=True, gc=False):
    """One status report, in the protocol's own words."""

    time: _Text | None = None
    lati: _Number | None = None
    long: _Number | None = None
    alti: _Number | None = None
    rxnb: _Count | None = None
    rxok: _Count | None = None
    rxfw: _Count | None = None
    ackr: _Number | None = None
    dwnb: _Count | None = None
    txnb: _Count | None = None
    temp: _Number | None = None
    pfrm: _Text | None = None
    mail: _Text | None = None
    desc: _Text | None = None


class _Push(msgspec.Struct, omit_defaults=True):
    rxpk: Annotated[list[Rxpk], Meta(max_length=MAX_RXPK)] | None = None
    stat: Stat | None = None


_NULL = msgspec.Raw(b"null")


class _Pieces(msgspec.Struct):
    rxpk: msgspec.Raw = _NULL
    stat: msgspec.Raw = _NULL


_PUSH = msgspec.json.Decoder(_Push)
_PIECES = msgspec.json.Decoder(_Pieces)
_LIST = msgspec.json.Decoder(list[msgspec.Raw] | None)
_RXPK = msgspec.json.Decoder(Rxpk)
_STAT = msgspec.json.Decoder(Stat | None)


def parse_push_payload(
    payload: bytes, *, gateway_eui: EUI64, source: str, received_at: int
) -> tuple[list[Heard], list[DatagramFault]]:
    """What one PUSH_DATA tells, and one fault for each entry of it that means nothing.

    `received_at` in ns since the Unix epoch. Raises MalformedDatagram when nothing of the payload can be read.
    """
    faults: list[DatagramFault] = []
    try:
        push = decode_json(_PUSH, payload)
    except MalformedDatagram:
        push = _piecemeal(payload, faults)
    heard: list[Heard] = []
    for rxpk in push.rxpk or ():
        try:
            heard.append(parse_rxpk(rxpk, gateway_eui=gateway_eui, source=source, received_at=received_at))
        except MalformedDatagram as error:
            faults.append(error.fault)
    if push.stat is not None:
        heard.append(parse_stat(push.stat, gateway_eui=gateway_eui, source=source, received_at=received_at))
    return heard, faults


def build_push_payload(heard: list[Heard]) -> bytes:
    """The JSON of a PUSH_DATA with these frames and at most one status report."""
    status = [build_stat(item) for item in heard if isinstance(item, GatewayStatus)]
    frames = [build_rxpk(item) for item in heard if isinstance(item, Reception)]
    if len(frames) > MAX_RXPK or len(status) > 1:
        raise ValueError(f"one PUSH_DATA holds {MAX_RXPK} frames and one status report")
    return msgspec.json.encode(_Push(rxpk=frames or None, stat=status[0] if status else None))


def parse_rxpk(rxpk: Rxpk, *, gateway_eui: EUI64, source: str, received_at: int) -> Reception:
    """One frame as it was heard. A time that cannot be read is taken as not said. Raises MalformedDatagram."""
    if rxpk.data is None or rxpk.freq is None or rxpk.datr is None:
        raise MalformedDatagram(DatagramFault.MISSING_FIELD)
    phy_payload = parse_base64(rxpk.data)
    if rxpk.size is not None and rxpk.size != len(phy_payload):
        raise MalformedDatagram(DatagramFault.SIZE_MISMATCH)
    return Reception(
        phy_payload=phy_payload,
        received_at=received_at,
        gateway_eui=gateway_eui,
        source=source,
        crc=_CRC[rxpk.stat or 0],
        frequency_hz=parse_frequency(rxpk.freq),
        data_rate=parse_data_rate(rxpk.datr, rxpk.modu),
        code_rate=rxpk.codr if rxpk.codr in _CODE_RATES else None,
        tmst=rxpk.tmst,
        gateway_time_ns=None if rxpk.time is None and rxpk.tmms is None else _gateway_time(rxpk.time, rxpk.tmms),
        gps_time_ms=rxpk.tmms,
        rf_chain=rxpk.rfch,
        modem=rxpk.mid,
        board=rxpk.brd,
        aes_key_index=rxpk.aesk,
        antennas=_antennas(rxpk),
    )


def build_rxpk(reception: Reception) -> Rxpk:
    """The protocol's words for a reception; its times keep whole microseconds.

    Raises ValueError for a data rate that the protocol has no name for.
    """
    datr, modu = build_data_rate(reception.data_rate)
    rxpk = Rxpk(
        tmst=reception.tmst,
        time=None if reception.gateway_time_ns is None else _time_text(reception.gateway_time_ns),
        tmms=reception.gps_time_ms,
        freq=build_frequency(reception.frequency_hz),
        rfch=reception.rf_chain,
        mid=reception.modem,
        brd=reception.board,
        aesk=reception.aes_key_index,
        stat=reception.crc.value,
        modu=modu,
        datr=datr,
        codr=reception.code_rate,
        size=len(reception.phy_payload),
        data=build_base64(reception.phy_payload),
    )
    antennas = reception.antennas
    if len(antennas) == 1 and _is_flat(antennas[0]):
        only = antennas[0]
        rxpk.ant, rxpk.chan, rxpk.ftime, rxpk.foff = (
            only.antenna,
            only.channel,
            only.fine_time_ns,
            only.frequency_offset_hz,
        )
        rxpk.rssi, rxpk.rssis, rxpk.lsnr = only.rssi_dbm, only.signal_rssi_dbm, only.snr_db
    elif antennas:
        rxpk.rsig = [_build_rsig(antenna) for antenna in antennas]
    return rxpk


def parse_stat(stat: Stat, *, gateway_eui: EUI64, source: str, received_at: int) -> GatewayStatus:
    """One status report."""
    return GatewayStatus(
        gateway_eui=gateway_eui,
        source=source,
        received_at=received_at,
        time=stat.time,
        latitude=stat.lati,
        longitude=stat.long,
        altitude_m=stat.alti,
        rx_received=stat.rxnb,
        rx_ok=stat.rxok,
        rx_forwarded=stat.rxfw,
        upstream_acked_percent=stat.ackr,
        tx_received=stat.dwnb,
        tx_emitted=stat.txnb,
        temperature_c=stat.temp,
        platform=stat.pfrm,
        mail=stat.mail,
        description=stat.desc,
    )


def build_stat(status: GatewayStatus) -> Stat:
    """The protocol's words for a status report."""
    return Stat(
        time=status.time,
        lati=status.latitude,
        long=status.longitude,
        alti=status.altitude_m,
        rxnb=status.rx_received,
        rxok=status.rx_ok,
        rxfw=status.rx_forwarded,
        ackr=status.upstream_acked_percent,
        dwnb=status.tx_received,
        txnb=status.tx_emitted,
        temp=status.temperature_c,
        pfrm=status.platform,
        mail=status.mail,
        desc=status.description,
    )


def _piecemeal(payload: bytes, faults: list[DatagramFault]) -> _Push:
    """The payload entry by entry, for when one of them is broken; raises MalformedDatagram when all of it is."""
    # Some forwarders pad with NUL or end with one, as C strings do.
    pieces = decode_json(_PIECES, payload.rstrip(b"\0 \r\n\t"))
    entries = decode_json(_LIST, pieces.rxpk) or []
    if len(entries) > MAX_RXPK:
        raise MalformedDatagram(DatagramFault.TOO_MANY_ENTRIES)
    frames: list[Rxpk] = []
    for entry in entries:
        try:
            frames.append(decode_json(_RXPK, entry))
        except MalformedDatagram as error:
            faults.append(error.fault)
    stat = None
    try:
        stat = decode_json(_STAT, pieces.stat)
    except MalformedDatagram as error:
        faults.append(error.fault)
    return _Push(rxpk=frames, stat=stat)


def _gateway_time(time: str | None, tmms: int | None) -> int | None:
    """UTC in ns since the Unix epoch, from the gateway's GPS.

    The reference forwarder takes `time` and `tmms` from two sentences of its receiver; where the receiver sends
    them in the other order, `time` is one second late. So `tmms` decides, and `time` only adds the microseconds.
    """
    by_text = None if time is None else _parse_time(time)
    if tmms is None:
        return by_text
    by_gps = utc_ns_of(tmms * 1_000_000)
    if by_text is not None and abs(by_text - by_gps) < 1_000_000:
        return by_text
    return by_gps


def _parse_time(text: str) -> int | None:
    """ISO 8601 with `Z` or an offset such as `+02:00`; None for anything else, and for what is no time of our age."""
    try:
        moment = dt.datetime.fromisoformat(text)
        since = moment - _UNIX_EPOCH
    except (ValueError, TypeError, OverflowError):  # TypeError: no offset, so no moment
        return None
    unix_ns = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    return unix_ns if 0 <= unix_ns < _END_OF_TIME else None


def _time_text(unix_ns: int) -> str:
    moment = _UNIX_EPOCH + dt.timedelta(microseconds=unix_ns // 1000)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _antennas(rxpk: Rxpk) -> tuple[Antenna, ...]:
    """How each antenna heard it; for gateways with one antenna its figures stand in the `rxpk` itself."""
    if rxpk.rsig is not None:
        return tuple(_parse_rsig(rsig) for rsig in rxpk.rsig)
    antenna = Antenna(
        antenna=rxpk.ant,
        channel=rxpk.chan,
        rssi_dbm=rxpk.rssi,
        signal_rssi_dbm=rxpk.rssis,
        snr_db=rxpk.lsnr,
        frequency_offset_hz=rxpk.foff,
        fine_time_ns=rxpk.ftime,
    )
    return (antenna,) if antenna != _NOTHING_SAID else ()


def _parse_rsig(rsig: Rsig) -> Antenna:
    return Antenna(
        antenna=rsig.ant,
        channel=rsig.chan,
        rssi_dbm=rsig.rssic,
        signal_rssi_dbm=rsig.rssis,
        signal_rssi_deviation_db=rsig.rssisd,
        snr_db=rsig.lsnr,
        frequency_offset_hz=rsig.foff,
        fine_time_ns=rsig.ftime,
        encrypted_fine_time=None if rsig.etime is None else parse_base64(rsig.etime),
    )


def _build_rsig(antenna: Antenna) -> Rsig:
    etime = antenna.encrypted_fine_time
    return Rsig(
        ant=antenna.antenna,
        chan=antenna.channel,
        rssic=antenna.rssi_dbm,
        rssis=antenna.signal_rssi_dbm,
        rssisd=antenna.signal_rssi_deviation_db,
        lsnr=antenna.snr_db,
        foff=antenna.frequency_offset_hz,
        ftime=antenna.fine_time_ns,
        etime=None if etime is None else build_base64(etime),
    )


def _is_flat(antenna: Antenna) -> bool:
    """Whether the fields of a one-antenna `rxpk` can say it."""
    return antenna != _NOTHING_SAID and antenna.encrypted_fine_time is None and antenna.signal_rssi_deviation_db is None


_NOTHING_SAID = Antenna()
