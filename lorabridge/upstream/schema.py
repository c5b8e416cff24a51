"""Events as the cloud reads them: versioned JSON, one schema for each kind, published in `docs/schema/`.

Every record carries `schema` (kind and version; a new optional field keeps the version, anything else
raises it) and `id`: delivery is at least once, so a consumer drops an `id` that it has seen. Times are
RFC 3339 in UTC to the microsecond, addresses and EUIs lower-case hex with the most significant digit
first, byte strings base64 (what the `decode` function of AWS IoT SQL takes). Plaintext stands under
`payload`, ciphertext under `sealed_payload`, and never both.
"""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from lorabridge.lorawan.air import Antenna, DataRate, GatewayStatus, LoraDataRate, Reception
from lorabridge.lorawan.events import (
    DeviceRef,
    Event,
    EventKind,
    GatewayStats,
    Record,
    SecurityEvent,
    Status,
    Uplink,
    UplinkCopy,
)
from lorabridge.lorawan.types import EUI64, DevAddr

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 253_402_300_799_999_999_999
"""The end of the year 9999, the last that RFC 3339 can write."""

Utc = Annotated[datetime, Meta(tz=True, description="RFC 3339, UTC.")]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="The same whenever this record is delivered again.")]
Hex4 = Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
Hex8 = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Counter32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
Name = Annotated[str, Meta(pattern="^[a-z0-9_]+$")]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A JSON object; it is encoded at once and kept by nobody."""


class DeviceObject(_Wire, frozen=True, kw_only=True):
    """Which device, as the operator's files name it."""

    name: str
    dev_eui: Hex8
    tags: dict[str, str]


class LoraObject(_Wire, frozen=True, kw_only=True, tag_field="modulation", tag="lora"):
    """LoRa modulation."""

    spreading_factor: int
    bandwidth_hz: int


class FskObject(_Wire, frozen=True, kw_only=True, tag_field="modulation", tag="fsk"):
    """FSK modulation."""

    bit_rate: int


class AntennaObject(_Wire, frozen=True, kw_only=True, omit_defaults=True):
    """How one antenna heard the frame; what the gateway does not say is left out."""

    antenna: int | None = None
    channel: int | None = None
    rssi_dbm: float | None = None
    signal_rssi_dbm: float | None = None
    snr_db: float | None = None
    frequency_offset_hz: int | None = None
    fine_time_ns: Annotated[int | None, Meta(description="Nanoseconds since the last pulse of the gateway's GPS.")] = (
        None
    )
    encrypted_fine_time: bytes | None = None


class RxObject(_Wire, frozen=True, kw_only=True, omit_defaults=True):
    """One gateway's reception of the frame. The gateway alone vouches for it: no key protects radio metadata."""

    gateway_eui: Hex8
    source: Annotated[str, Meta(description="Name of the radio source in the bridge's configuration.")]
    received_at: Utc
    gateway_time: Annotated[Utc | None, Meta(description="UTC by the gateway's own GPS.")] = None
    gps_time_ms: Annotated[int | None, Meta(description="Milliseconds since 1980-01-06, without leap seconds.")] = None
    tmst: Annotated[int | None, Meta(description="Concentrator counter in microseconds; wraps at 32 bits.")] = None
    frequency_hz: int
    data_rate: LoraObject | FskObject
    code_rate: str | None = None
    rf_chain: int | None = None
    modem: int | None = None
    antennas: list[AntennaObject]


Rx = Annotated[list[RxObject], Meta(description="One entry for each gateway that heard it, the best first.")]


class UplinkRecord(_Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/uplink/1"):
    """A data frame that proved its sender (MIC) and its freshness (frame counter)."""

    id: Id
    gateway_id: str
    received_at: Utc
    device: DeviceObject
    dev_addr: Hex4
    mac_version: str
    confirmed: bool
    adr: bool
    adr_ack_req: bool
    ack: bool
    class_b: bool
    fcnt32: Counter32
    f_port: Annotated[int | None, Meta(description="Null when the frame carries no FPort.")]
    f_opts: Annotated[bytes, Meta(description="MAC commands in the clear.")]
    payload: Annotated[bytes, Meta(description="FRMPayload decrypted.")] | UnsetType = UNSET
    sealed_payload: Annotated[bytes, Meta(description="FRMPayload still encrypted under AppSKey.")] | UnsetType = UNSET
    sealed: Annotated[bool, Meta(description="Whether `sealed_payload` stands in place of `payload`.")]
    counter_reset: Annotated[bool, Meta(description="First frame taken after the device restarted its counter.")]
    rx: Rx


class UplinkCopyRecord(_Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/uplink_copy/1"):
    """An uplink already delivered, heard once more: reception metadata only."""

    id: Id
    uplink_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="`id` of the uplink.")]
    gateway_id: str
    received_at: Utc
    device: DeviceObject
    fcnt32: Counter32
    verdict: Name
    rx: Rx


class SecurityRecord(_Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/security/1"):
    """Frames that were refused, summed up: `count` alike ones between `first_at` and `last_at`."""

    id: Id
    gateway_id: str
    verdict: Name
    reason: Annotated[Name | None, Meta(description="What is wrong with the form, when the verdict is `malformed`.")]
    device: Annotated[DeviceObject | None, Meta(description="Only where the MIC proved which device it was.")]
    dev_addr: Annotated[Hex4 | None, Meta(description="As claimed by the frame.")]
    fcnt32: Counter32 | None
    count: Annotated[int, Meta(ge=1)]
    first_at: Utc
    last_at: Utc
    detail: str
    phy_payload: Annotated[bytes | None, Meta(description="One of the frames, as it was on the air.")]
    rx: Rx


class GatewayObject(_Wire, frozen=True, kw_only=True):
    """The last status report of one gateway; null where it does not say."""

    gateway_eui: Hex8
    source: str
    received_at: Utc
    time: str | None
    latitude: float | None
    longitude: float | None
    altitude_m: float | None
    rx_received: int | None
    rx_ok: int | None
    rx_forwarded: int | None
    upstream_acked_percent: float | None
    tx_received: int | None
    tx_emitted: int | None
    temperature_c: float | None
    platform: str | None
    mail: str | None
    description: str | None


class GatewayStatsRecord(_Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/gateway_stats/1"):
    """What the bridge and its radios did in the interval that ends at `at`."""

    id: Id
    gateway_id: str
    at: Utc
    interval_s: float
    verdicts: dict[str, int]
    counters: dict[str, int]
    gateways: list[GatewayObject]


class StatusRecord(_Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/status/1"):
    """Birth, clean stop, or (as last will, with the time of the connection that was lost) death of the bridge."""

    id: Id
    gateway_id: str
    at: Utc
    state: Literal["online", "offline"]
    version: str
    config_fingerprint: str
    detail: str


_Message = UplinkRecord | UplinkCopyRecord | SecurityRecord | GatewayStatsRecord | StatusRecord
RECORDS: dict[EventKind, type[_Message]] = {
    EventKind.UPLINK: UplinkRecord,
    EventKind.UPLINK_COPY: UplinkCopyRecord,
    EventKind.SECURITY: SecurityRecord,
    EventKind.GATEWAY_STATS: GatewayStatsRecord,
    EventKind.STATUS: StatusRecord,
}
_ENCODER = msgspec.json.Encoder()
_UPLINK = EventKind.UPLINK


def encode(event: Event, gateway_id: str) -> Record:
    """The record for `event`: kind, device (None where there is none) and UTF-8 JSON. Raises for no event."""
    match event:
        case Uplink():
            return Record(_UPLINK, event.device.dev_eui, _ENCODER.encode(_uplink(event, gateway_id)))
        case UplinkCopy():
            return _identified(EventKind.UPLINK_COPY, event.device.dev_eui, _uplink_copy(event, gateway_id))
        case SecurityEvent():
            dev_eui = event.device.dev_eui if event.device else None
            return _identified(EventKind.SECURITY, dev_eui, _security(event, gateway_id))
        case GatewayStats():
            return _identified(EventKind.GATEWAY_STATS, None, _gateway_stats(event, gateway_id))
        case Status():
            return _identified(EventKind.STATUS, None, _status(event, gateway_id))


def _identified(kind: EventKind, dev_eui: EUI64 | None, message: _Message) -> Record:
    """A record whose id is a digest of everything else in it, so that it needs neither state nor randomness."""
    digest = hashlib.blake2b(_ENCODER.encode(message), digest_size=16).hexdigest()
    return Record(kind, dev_eui, _ENCODER.encode(msgspec.structs.replace(message, id=digest)))


def _uplink(event: Uplink, gateway_id: str) -> UplinkRecord:
    rx = _rx(event.reception)
    return UplinkRecord(
        id=event.id,
        gateway_id=gateway_id,
        received_at=rx.received_at,
        device=_device(event.device),
        dev_addr=_dev_addr(event.dev_addr),
        mac_version=event.mac_version.value,
        confirmed=event.confirmed,
        adr=event.adr,
        adr_ack_req=event.adr_ack_req,
        ack=event.ack,
        class_b=event.class_b,
        fcnt32=event.fcnt32,
        f_port=event.f_port,
        f_opts=event.f_opts,
        payload=UNSET if event.sealed else event.payload,
        sealed_payload=event.payload if event.sealed else UNSET,
        sealed=event.sealed,
        counter_reset=event.counter_reset,
        rx=[rx],
    )


def _uplink_copy(event: UplinkCopy, gateway_id: str) -> UplinkCopyRecord:
    rx = _rx(event.reception)
    return UplinkCopyRecord(
        id="",
        uplink_id=event.uplink_id,
        gateway_id=gateway_id,
        received_at=rx.received_at,
        device=_device(event.device),
        fcnt32=event.fcnt32,
        verdict=str(event.verdict),
        rx=[rx],
    )


def _security(event: SecurityEvent, gateway_id: str) -> SecurityRecord:
    return SecurityRecord(
        id="",
        gateway_id=gateway_id,
        verdict=str(event.verdict),
        reason=None if event.reason is None else str(event.reason),
        device=None if event.device is None else _device(event.device),
        dev_addr=None if event.dev_addr is None else str(event.dev_addr),
        fcnt32=event.fcnt32,
        count=event.count,
        first_at=_utc(event.first_at),
        last_at=_utc(event.last_at),
        detail=_text(event.detail),
        phy_payload=None if event.reception is None else event.reception.phy_payload,
        rx=[] if event.reception is None else [_rx(event.reception)],
    )


def _gateway_stats(event: GatewayStats, gateway_id: str) -> GatewayStatsRecord:
    return GatewayStatsRecord(
        id="",
        gateway_id=gateway_id,
        at=_utc(event.at),
        interval_s=event.interval_s,
        verdicts={str(verdict): count for verdict, count in event.verdicts},
        counters=dict(event.counters),
        gateways=[_gateway(status) for status in event.gateways],
    )


def _status(event: Status, gateway_id: str) -> StatusRecord:
    return StatusRecord(
        id="",
        gateway_id=gateway_id,
        at=_utc(event.at),
        state="online" if event.state == "online" else "offline",
        version=event.version,
        config_fingerprint=event.config_fingerprint,
        detail=_text(event.detail),
    )


@functools.lru_cache(maxsize=4096)
def _device(device: DeviceRef) -> DeviceObject:
    return DeviceObject(name=device.name, dev_eui=str(device.dev_eui), tags=dict(device.tags))


@functools.lru_cache(maxsize=4096)
def _dev_addr(dev_addr: DevAddr) -> str:
    return str(dev_addr)


@functools.lru_cache(maxsize=256)
def _gateway_eui(eui: EUI64) -> str:
    return str(eui)


@functools.lru_cache(maxsize=256)
def _data_rate(rate: DataRate) -> LoraObject | FskObject:
    if isinstance(rate, LoraDataRate):
        return LoraObject(spreading_factor=rate.spreading_factor, bandwidth_hz=rate.bandwidth_hz)
    return FskObject(bit_rate=rate.bit_rate)


def _rx(reception: Reception) -> RxObject:
    return RxObject(
        gateway_eui=_gateway_eui(reception.gateway_eui),
        source=reception.source,
        received_at=_utc(reception.received_at),
        gateway_time=None if reception.gateway_time_ns is None else _utc(reception.gateway_time_ns),
        gps_time_ms=reception.gps_time_ms,
        tmst=reception.tmst,
        frequency_hz=reception.frequency_hz,
        data_rate=_data_rate(reception.data_rate),
        code_rate=None if reception.code_rate is None else _text(reception.code_rate),
        rf_chain=reception.rf_chain,
        modem=reception.modem,
        antennas=[_antenna(antenna) for antenna in reception.antennas],
    )


def _antenna(heard: Antenna) -> AntennaObject:
    return AntennaObject(
        antenna=heard.antenna,
        channel=heard.channel,
        rssi_dbm=heard.rssi_dbm,
        signal_rssi_dbm=heard.signal_rssi_dbm,
        snr_db=heard.snr_db,
        frequency_offset_hz=heard.frequency_offset_hz,
        fine_time_ns=heard.fine_time_ns,
        encrypted_fine_time=heard.encrypted_fine_time,
    )


def _gateway(status: GatewayStatus) -> GatewayObject:
    values = msgspec.structs.asdict(status)
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = _text(value)
    values["gateway_eui"] = str(status.gateway_eui)
    values["received_at"] = _utc(status.received_at)
    return GatewayObject(**values)


def _utc(ns: int) -> datetime:
    """UTC of nanoseconds since the epoch, cut to microseconds and held inside the years that RFC 3339 can write."""
    if not 0 <= ns <= _LAST_NS:
        ns = min(max(ns, 0), _LAST_NS)
    seconds, rest = divmod(ns, 1_000_000_000)
    return _EPOCH + timedelta(0, seconds, rest // 1000)


def _text(text: str) -> str:
    """Text without the lone surrogates that UTF-8 cannot write: strings of a gateway are not to be trusted."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_NEVER_BOTH: dict[str, Any] = {
    "oneOf": [
        {"required": ["payload"], "properties": {"sealed": {"const": False}, "sealed_payload": False}},
        {"required": ["sealed_payload"], "properties": {"sealed": {"const": True}, "payload": False}},
    ]
}


def json_schema(kind: EventKind) -> bytes:
    """The JSON Schema (draft 2020-12) of one kind, as the file in `docs/schema/` has it."""
    record = RECORDS[kind]
    (_,), parts = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    top = parts.pop(record.__name__)
    if kind is EventKind.UPLINK:
        top |= _NEVER_BOTH
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:lorabridge:{kind.value}:1",
        **top,
        "$defs": dict(sorted(parts.items())),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
