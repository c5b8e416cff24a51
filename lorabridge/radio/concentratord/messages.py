"""The messages of the gateway API that are used here: their tables, and what they say as values with checked ranges.

Source: ChirpStack, api/proto/gw/gw.proto and common/common.proto (May 2025, API 4.13 and later); field numbers are
theirs. Deprecated fields (`..._legacy`) are of version 3 and not read.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from lorabridge.radio.concentratord.faults import EventFault, MalformedEvent
from lorabridge.radio.concentratord.protobuf import Field, Kind, Message, build_message, parse_message

T = TypeVar("T")

_TIME: Final[Message] = {1: Field("seconds", Kind.INT64), 2: Field("nanos", Kind.INT32)}
"""`google.protobuf.Timestamp` and `Duration` alike."""
_ENTRY: Final[Message] = {1: Field("key", Kind.STRING), 2: Field("value", Kind.STRING)}
"""One entry of `map<string, string>`."""
_LOCATION: Final[Message] = {
    1: Field("latitude", Kind.DOUBLE),
    2: Field("longitude", Kind.DOUBLE),
    3: Field("altitude", Kind.DOUBLE),
}
_LORA: Final[Message] = {
    1: Field("bandwidth", Kind.UINT32),
    2: Field("spreading_factor", Kind.UINT32),
    4: Field("polarization_inversion", Kind.BOOL),
    5: Field("code_rate", Kind.INT32),
    6: Field("preamble", Kind.UINT32),
    7: Field("no_crc", Kind.BOOL),
}
_FSK: Final[Message] = {1: Field("frequency_deviation", Kind.UINT32), 2: Field("datarate", Kind.UINT32)}
_MODULATION: Final[Message] = {3: Field("lora", _LORA), 4: Field("fsk", _FSK), 5: Field("lr_fhss", {})}
_UPLINK_TX_INFO: Final[Message] = {1: Field("frequency", Kind.UINT32), 2: Field("modulation", _MODULATION)}
_UPLINK_RX_INFO: Final[Message] = {
    1: Field("gateway_id", Kind.STRING),
    3: Field("gw_time", _TIME),
    4: Field("time_since_gps_epoch", _TIME),
    5: Field("fine_time_since_gps_epoch", _TIME),
    6: Field("rssi", Kind.INT32),
    7: Field("snr", Kind.FLOAT),
    8: Field("channel", Kind.UINT32),
    9: Field("rf_chain", Kind.UINT32),
    10: Field("board", Kind.UINT32),
    11: Field("antenna", Kind.UINT32),
    13: Field("context", Kind.BYTES),
    16: Field("crc_status", Kind.INT32),
}
_UPLINK_FRAME: Final[Message] = {
    1: Field("phy_payload", Kind.BYTES),
    4: Field("tx_info", _UPLINK_TX_INFO),
    5: Field("rx_info", _UPLINK_RX_INFO),
}
_GATEWAY_STATS: Final[Message] = {
    2: Field("time", _TIME),
    3: Field("location", _LOCATION),
    5: Field("rx_packets_received", Kind.UINT32),
    6: Field("rx_packets_received_ok", Kind.UINT32),
    7: Field("tx_packets_received", Kind.UINT32),
    8: Field("tx_packets_emitted", Kind.UINT32),
    10: Field("metadata", _ENTRY, is_list=True),
    17: Field("gateway_id", Kind.STRING),
}
_EVENT: Final[Message] = {1: Field("uplink_frame", _UPLINK_FRAME), 2: Field("gateway_stats", _GATEWAY_STATS)}
_TIMING: Final[Message] = {
    1: Field("immediately", {}),
    2: Field("delay", {1: Field("delay", _TIME)}),
    3: Field("gps_epoch", {1: Field("time_since_gps_epoch", _TIME)}),
}
_DOWNLINK_TX_INFO: Final[Message] = {
    1: Field("frequency", Kind.UINT32),
    2: Field("power", Kind.INT32),
    3: Field("modulation", _MODULATION),
    4: Field("board", Kind.UINT32),
    5: Field("antenna", Kind.UINT32),
    6: Field("timing", _TIMING),
    7: Field("context", Kind.BYTES),
}
_DOWNLINK_ITEM: Final[Message] = {1: Field("phy_payload", Kind.BYTES), 3: Field("tx_info", _DOWNLINK_TX_INFO)}
_DOWNLINK_FRAME: Final[Message] = {
    3: Field("downlink_id", Kind.UINT32),
    5: Field("items", _DOWNLINK_ITEM, is_list=True),
    7: Field("gateway_id", Kind.STRING),
}
_DOWNLINK_TX_ACK: Final[Message] = {
    2: Field("downlink_id", Kind.UINT32),
    5: Field("items", {1: Field("status", Kind.INT32)}, is_list=True),
    6: Field("gateway_id", Kind.STRING),
}
_COMMAND: Final[Message] = {1: Field("send_downlink_frame", _DOWNLINK_FRAME), 3: Field("get_gateway_id", {})}
_GATEWAY_ID_RESPONSE: Final[Message] = {1: Field("gateway_id", Kind.STRING)}

_GatewayId = Annotated[str, Meta(pattern="^[0-9a-fA-F]{16}$")]
_Small = Annotated[int, Meta(ge=0, le=255)]
_Count = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]


class Time(msgspec.Struct, frozen=True, gc=False):
    """A moment or a length of time, never negative here."""

    seconds: Annotated[int, Meta(ge=0, le=253_402_300_799)] = 0
    """Up to the end of the year 9999."""
    nanos: Annotated[int, Meta(ge=0, le=999_999_999)] = 0

    @property
    def ns(self) -> int:
        """Nanoseconds."""
        return self.seconds * 1_000_000_000 + self.nanos


class Lora(msgspec.Struct, frozen=True, gc=False):
    """`LoraModulationInfo`: bandwidth in Hz."""

    bandwidth: int = 0
    spreading_factor: int = 0
    code_rate: int = 0


class Fsk(msgspec.Struct, frozen=True, gc=False):
    """`FskModulationInfo`: data rate in bit/s."""

    datarate: int = 0


class Modulation(msgspec.Struct, frozen=True, gc=False):
    """One of them."""

    lora: Lora | None = None
    fsk: Fsk | None = None
    lr_fhss: dict[str, Any] | None = None


class UplinkTxInfo(msgspec.Struct, frozen=True, gc=False):
    """How the device sent."""

    modulation: Modulation
    frequency: Annotated[int, Meta(ge=100_000_000, le=3_000_000_000)]


class UplinkRxInfo(msgspec.Struct, frozen=True, gc=False):
    """How the gateway heard; a field that is zero is not on the wire."""

    gateway_id: _GatewayId
    gw_time: Time | None = None
    time_since_gps_epoch: Time | None = None
    fine_time_since_gps_epoch: Time | None = None
    rssi: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    snr: Annotated[float, Meta(ge=-1000.0, le=1000.0)] = 0.0
    channel: _Small = 0
    rf_chain: _Small = 0
    board: _Small = 0
    antenna: _Small = 0
    context: Annotated[bytes, Meta(max_length=64)] = b""
    crc_status: Annotated[int, Meta(ge=0, le=2)] = 0


class UplinkFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame that was heard."""

    tx_info: UplinkTxInfo
    rx_info: UplinkRxInfo
    phy_payload: Annotated[bytes, Meta(max_length=255)] = b""


class Location(msgspec.Struct, frozen=True, gc=False):
    """Degrees and metres."""

    latitude: Annotated[float, Meta(ge=-90.0, le=90.0)] = 0.0
    longitude: Annotated[float, Meta(ge=-180.0, le=180.0)] = 0.0
    altitude: Annotated[float, Meta(ge=-1e6, le=1e6)] = 0.0


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A pair of metadata."""

    key: str = ""
    value: str = ""


class GatewayStats(msgspec.Struct, frozen=True, gc=False):
    """What the gateway counted since the last one."""

    gateway_id: _GatewayId
    time: Time | None = None
    location: Location | None = None
    rx_packets_received: _Count = 0
    rx_packets_received_ok: _Count = 0
    tx_packets_received: _Count = 0
    tx_packets_emitted: _Count = 0
    metadata: list[Entry] = []


class TxAckStatus(enum.Enum):
    """What became of a downlink."""

    IGNORED = 0
    OK = 1
    TOO_LATE = 2
    TOO_EARLY = 3
    COLLISION_PACKET = 4
    COLLISION_BEACON = 5
    TX_FREQ = 6
    TX_POWER = 7
    GPS_UNLOCKED = 8
    QUEUE_FULL = 9
    INTERNAL_ERROR = 10
    DUTY_CYCLE_OVERFLOW = 11


class _AckItem(msgspec.Struct, frozen=True, gc=False):
    status: TxAckStatus = TxAckStatus.IGNORED


class DownlinkTxAck(msgspec.Struct, frozen=True, gc=False):
    """The answer to a downlink: one status for each of its items."""

    downlink_id: int = 0
    items: list[_AckItem] = []


class _GatewayIdResponse(msgspec.Struct, frozen=True, gc=False):
    gateway_id: _GatewayId


class Wording(enum.Enum):
    """How Concentratord puts messages into ZeroMQ frames."""

    ENVELOPE = "from 4.5 on: one frame, an Event or a Command"
    TOPIC = "before 4.5: two frames, the first says what the second is"


def parse_event(frames: list[bytes]) -> tuple[Wording, UplinkFrame | GatewayStats | None]:
    """What was published; None for an event that says nothing to us. Raises MalformedEvent."""
    if len(frames) == 1:
        event = parse_message(frames[0], _EVENT)
        if len(event) > 1:
            raise MalformedEvent(EventFault.BAD_VALUE)
        if "uplink_frame" in event:
            return Wording.ENVELOPE, _checked(event["uplink_frame"], UplinkFrame)
        return Wording.ENVELOPE, _checked(event["gateway_stats"], GatewayStats) if event else None
    if len(frames) != 2:
        raise MalformedEvent(EventFault.BAD_FRAMES)
    topic, payload = frames
    if topic == b"up":
        return Wording.TOPIC, _checked(parse_message(payload, _UPLINK_FRAME), UplinkFrame)
    if topic == b"stats":
        return Wording.TOPIC, _checked(parse_message(payload, _GATEWAY_STATS), GatewayStats)
    return Wording.TOPIC, None


def build_downlink(wording: Wording, *, downlink_id: int, gateway_id: str, item: Mapping[str, Any]) -> list[bytes]:
    """The command that sends one frame; `item`: the fields of DownlinkFrameItem by name."""
    frame = {"downlink_id": downlink_id, "items": [item], "gateway_id": gateway_id}
    if wording is Wording.TOPIC:
        return [b"down", build_message(frame, _DOWNLINK_FRAME)]
    return [build_message({"send_downlink_frame": frame}, _COMMAND)]


def parse_tx_ack(payload: bytes) -> DownlinkTxAck:
    """The answer to `build_downlink`. Raises MalformedEvent, for a status that there is not too."""
    return _checked(parse_message(payload, _DOWNLINK_TX_ACK), DownlinkTxAck)


def build_gateway_id_request(wording: Wording) -> list[bytes]:
    """The command that asks for the gateway's id."""
    return [b"gateway_id", b""] if wording is Wording.TOPIC else [build_message({"get_gateway_id": {}}, _COMMAND)]


def parse_gateway_id(wording: Wording, payload: bytes) -> int:
    """The answer to `build_gateway_id_request`: an EUI. Raises MalformedEvent."""
    if wording is Wording.ENVELOPE:
        return int(_checked(parse_message(payload, _GATEWAY_ID_RESPONSE), _GatewayIdResponse).gateway_id, 16)
    if len(payload) != 8:
        raise MalformedEvent(EventFault.BAD_VALUE)
    return int.from_bytes(payload, "big")


def _checked(values: dict[str, Any], kind: type[T]) -> T:
    """The values with their ranges checked. Raises MalformedEvent."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        is_missing = "missing required field" in str(error)
        raise MalformedEvent(EventFault.MISSING_FIELD if is_missing else EventFault.BAD_VALUE) from None
