"""Events as the cloud reads them: versioned JSON, one schema for each kind, published in `docs/schema/`.

Every record carries `schema` (kind and version) and `id`: delivery is at least once, so a consumer drops
an `id` that it has seen.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import UNSET

from lorabridge.lorawan.air import GatewayStatus
from lorabridge.lorawan.events import (
    DeviceRef,
    DownlinkResult,
    Event,
    EventKind,
    GatewayStats,
    Join,
    MacReport,
    OutboxEvent,
    RadioEvent,
    Record,
    SecurityEvent,
    Status,
    Uplink,
    UplinkCopy,
)
from lorabridge.upstream.records import (
    BatchRecord,
    DownlinkResultRecord,
    GatewayObject,
    GatewayStatsRecord,
    GnssObject,
    JoinRecord,
    MacCommandObject,
    MacRecord,
    Message,
    NoiseObject,
    OutboxRecord,
    RadioRecord,
    SecurityRecord,
    StatusRecord,
    UplinkCopyRecord,
    UplinkRecord,
)
from lorabridge.upstream.wire import (
    data_rate_object,
    dev_addr_text,
    device_object,
    rx_object,
    schema_document,
    text,
    utc,
)

RECORDS: dict[EventKind, type[Message]] = {
    EventKind.UPLINK: UplinkRecord,
    EventKind.UPLINK_COPY: UplinkCopyRecord,
    EventKind.SECURITY: SecurityRecord,
    EventKind.JOIN: JoinRecord,
    EventKind.DOWNLINK_RESULT: DownlinkResultRecord,
    EventKind.MAC: MacRecord,
    EventKind.RADIO: RadioRecord,
    EventKind.OUTBOX: OutboxRecord,
    EventKind.BATCH: BatchRecord,
    EventKind.GATEWAY_STATS: GatewayStatsRecord,
    EventKind.STATUS: StatusRecord,
}
_ENCODER = msgspec.json.Encoder()
_UPLINK = EventKind.UPLINK


def encode(event: Event, gateway_id: str) -> Record:
    """The record for `event`: kind, device (None where there is none) and UTF-8 JSON. Raises for no event."""
    device: DeviceRef | None = None
    message: Message
    match event:
        case Uplink():
            return Record(_UPLINK, event.device.dev_eui, _ENCODER.encode(_uplink(event, gateway_id)))
        case UplinkCopy():
            kind, device, message = EventKind.UPLINK_COPY, event.device, _uplink_copy(event, gateway_id)
        case SecurityEvent():
            kind, device, message = EventKind.SECURITY, event.device, _security(event, gateway_id)
        case Join():
            kind, device, message = EventKind.JOIN, event.device, _join(event, gateway_id)
        case DownlinkResult():
            kind, device, message = EventKind.DOWNLINK_RESULT, event.device, _downlink_result(event, gateway_id)
        case MacReport():
            kind, device, message = EventKind.MAC, event.device, _mac(event, gateway_id)
        case RadioEvent() | OutboxEvent() | GatewayStats() | Status():
            kind, message = _of_the_bridge(event, gateway_id)
    return Record(kind, None if device is None else device.dev_eui, _identified(message))


def _of_the_bridge(
    event: RadioEvent | OutboxEvent | GatewayStats | Status, gateway_id: str
) -> tuple[EventKind, Message]:
    """What is of no device."""
    match event:
        case RadioEvent():
            return EventKind.RADIO, _radio(event, gateway_id)
        case OutboxEvent():
            return EventKind.OUTBOX, _outbox(event, gateway_id)
        case GatewayStats():
            return EventKind.GATEWAY_STATS, _gateway_stats(event, gateway_id)
        case Status():
            return EventKind.STATUS, _status(event, gateway_id)


def _identified(message: Message) -> bytes:
    """JSON with an id that is a digest of everything else in it, so that it needs neither state nor randomness."""
    digest = hashlib.blake2b(_ENCODER.encode(message), digest_size=16).hexdigest()
    return _ENCODER.encode(msgspec.structs.replace(message, id=digest))


def _uplink(event: Uplink, gateway_id: str) -> UplinkRecord:
    heard = rx_object(event.reception)
    return UplinkRecord(
        id=event.id,
        gateway_id=gateway_id,
        received_at=heard.received_at,
        device=device_object(event.device),
        dev_addr=dev_addr_text(event.dev_addr),
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
        rx=[heard],
    )


def _uplink_copy(event: UplinkCopy, gateway_id: str) -> UplinkCopyRecord:
    heard = rx_object(event.reception)
    return UplinkCopyRecord(
        id="",
        uplink_id=event.uplink_id,
        gateway_id=gateway_id,
        received_at=heard.received_at,
        device=device_object(event.device),
        fcnt32=event.fcnt32,
        verdict=str(event.verdict),
        rx=[heard],
    )


def _security(event: SecurityEvent, gateway_id: str) -> SecurityRecord:
    return SecurityRecord(
        id="",
        gateway_id=gateway_id,
        verdict=str(event.verdict),
        reason=None if event.reason is None else str(event.reason),
        device=None if event.device is None else device_object(event.device),
        dev_addr=None if event.dev_addr is None else str(event.dev_addr),
        fcnt32=event.fcnt32,
        count=event.count,
        first_at=utc(event.first_at),
        last_at=utc(event.last_at),
        detail=text(event.detail),
        phy_payload=None if event.reception is None else event.reception.phy_payload,
        rx=[] if event.reception is None else [rx_object(event.reception)],
    )


def _join(event: Join, gateway_id: str) -> JoinRecord:
    heard = rx_object(event.reception)
    return JoinRecord(
        id="",
        gateway_id=gateway_id,
        received_at=heard.received_at,
        device=device_object(event.device),
        kind=event.kind,
        dev_addr=None if event.dev_addr is None else dev_addr_text(event.dev_addr),
        join_eui=str(event.join_eui),
        dev_nonce=event.dev_nonce,
        join_nonce=event.join_nonce,
        mac_version=event.mac_version.value,
        answered=event.answered,
        sealed=event.sealed,
        rx=[heard],
    )


def _downlink_result(event: DownlinkResult, gateway_id: str) -> DownlinkResultRecord:
    return DownlinkResultRecord(
        id="",
        gateway_id=gateway_id,
        at=utc(event.at),
        command_id=text(event.command_id) or None,
        correlation_id=None if event.correlation_id is None else text(event.correlation_id),
        target=text(event.target),
        device=None if event.device is None else device_object(event.device),
        state=event.state.value,
        reason=None if event.reason is None else event.reason.value,
        detail=text(event.detail),
        attempt=event.attempt,
        fcnt_down=event.fcnt_down,
        next_fcnt_down=event.next_fcnt_down,
        gateway_eui=None if event.gateway_eui is None else str(event.gateway_eui),
        frequency_hz=event.frequency_hz,
        data_rate=None if event.data_rate is None else data_rate_object(event.data_rate),
    )


def _mac(event: MacReport, gateway_id: str) -> MacRecord:
    return MacRecord(
        id="",
        gateway_id=gateway_id,
        at=utc(event.at),
        device=device_object(event.device),
        fcnt32=event.fcnt32,
        commands=[MacCommandObject(name=name, fields=dict(fields)) for name, fields in event.commands],
        unknown_cid=event.unknown_cid,
        truncated=event.truncated,
    )


def _radio(event: RadioEvent, gateway_id: str) -> RadioRecord:
    return RadioRecord(
        id="",
        gateway_id=gateway_id,
        at=utc(event.at),
        source=event.source,
        gateway_eui=None if event.gateway_eui is None else str(event.gateway_eui),
        event=event.state.value,
        reason=text(event.reason),
        down_s=event.down_s,
        failures=event.failures,
    )


def _outbox(event: OutboxEvent, gateway_id: str) -> OutboxRecord:
    return OutboxRecord(
        id="",
        gateway_id=gateway_id,
        at=utc(event.at),
        event=event.change.value,
        since=None if event.since is None else utc(event.since),
        dropped=dict(event.dropped),
        record=event.record,
        kind=None if event.kind is None else event.kind.value,
        dev_eui=None if event.dev_eui is None else str(event.dev_eui),
        size=event.size,
        reason=text(event.reason),
    )


def _gateway_stats(event: GatewayStats, gateway_id: str) -> GatewayStatsRecord:
    return GatewayStatsRecord(
        id="",
        gateway_id=gateway_id,
        at=utc(event.at),
        interval_s=event.interval_s,
        verdicts={str(verdict): count for verdict, count in event.verdicts},
        counters=dict(event.counters),
        gateways=[_gateway(status) for status in event.gateways],
    )


def _status(event: Status, gateway_id: str) -> StatusRecord:
    return StatusRecord(
        id="",
        gateway_id=gateway_id,
        at=utc(event.at),
        state="online" if event.state == "online" else "offline",
        version=event.version,
        config_fingerprint=event.config_fingerprint,
        detail=text(event.detail),
    )


def _gateway(status: GatewayStatus) -> GatewayObject:
    values = msgspec.structs.asdict(status)
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = text(value)
    values["gateway_eui"] = str(status.gateway_eui)
    values["received_at"] = utc(status.received_at)
    values["gnss"] = None if status.gnss is None else GnssObject(**msgspec.structs.asdict(status.gnss))
    values["noise"] = [NoiseObject(**msgspec.structs.asdict(channel)) for channel in status.noise]
    return GatewayObject(**values)


_NEVER_BOTH: dict[str, Any] = {
    "oneOf": [
        {"required": ["payload"], "properties": {"sealed": {"const": False}, "sealed_payload": False}},
        {"required": ["sealed_payload"], "properties": {"sealed": {"const": True}, "payload": False}},
    ]
}


def json_schema(kind: EventKind) -> bytes:
    """The JSON Schema (draft 2020-12) of one kind, as the file in `docs/schema/` has it."""
    return schema_document(RECORDS[kind], kind.value, _NEVER_BOTH if kind is EventKind.UPLINK else {})
