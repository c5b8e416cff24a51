"""The objects that records share, and how values are written in JSON.

Times are RFC 3339 in UTC to the microsecond, addresses and EUIs lower-case hex with the most significant digit
first, byte strings base64 (what the `decode` function of AWS IoT SQL takes).
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from lorabridge.lorawan.air import Antenna, DataRate, LoraDataRate, Reception
from lorabridge.lorawan.events import DeviceRef
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import EUI64, DevAddr

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 253_402_300_799_999_999_999
"""The end of the year 9999, the last that RFC 3339 can write."""

Utc = Annotated[datetime, Meta(tz=True, description="RFC 3339, UTC.")]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="The same whenever this record is delivered again.")]
Hex4 = Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
Hex8 = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Counter32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
Byte = Annotated[int, Meta(ge=0, le=0xFF)]
Uuid = Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Name = Annotated[str, Meta(pattern="^[a-z0-9_]+$")]


class Wire(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A JSON object; it is encoded at once and kept by nobody."""


class DeviceObject(Wire, frozen=True, kw_only=True):
    """Which device, as the operator's files name it."""

    name: str
    dev_eui: Hex8
    tags: dict[str, str]


class LoraObject(Wire, frozen=True, kw_only=True, tag_field="modulation", tag="lora"):
    """LoRa modulation."""

    spreading_factor: int
    bandwidth_hz: int


class FskObject(Wire, frozen=True, kw_only=True, tag_field="modulation", tag="fsk"):
    """FSK modulation."""

    bit_rate: int


class AntennaObject(Wire, frozen=True, kw_only=True, omit_defaults=True):
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


class RxObject(Wire, frozen=True, kw_only=True, omit_defaults=True):
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


@functools.lru_cache(maxsize=4096)
def device_object(device: DeviceRef) -> DeviceObject:
    """Which device."""
    return DeviceObject(name=device.name, dev_eui=str(device.dev_eui), tags=dict(device.tags))


@functools.lru_cache(maxsize=4096)
def dev_addr_text(dev_addr: DevAddr) -> str:
    """8 hex digits."""
    return str(dev_addr)


@functools.lru_cache(maxsize=512)
def data_rate_number(region: str | None, rate: DataRate) -> int | UnsetType:
    """TxDr of an uplink in the region of this name; UNSET when there is no region or it does not have the rate."""
    number = None if region is None else REGIONS[region].tx_dr(rate)
    return UNSET if number is None else number


@functools.lru_cache(maxsize=256)
def gateway_eui_text(eui: EUI64) -> str:
    """16 hex digits."""
    return str(eui)


@functools.lru_cache(maxsize=256)
def data_rate_object(rate: DataRate) -> LoraObject | FskObject:
    """Modulation and its numbers."""
    if isinstance(rate, LoraDataRate):
        return LoraObject(spreading_factor=rate.spreading_factor, bandwidth_hz=rate.bandwidth_hz)
    return FskObject(bit_rate=rate.bit_rate)


def rx_object(reception: Reception) -> RxObject:
    """One gateway's reception."""
    return RxObject(
        gateway_eui=gateway_eui_text(reception.gateway_eui),
        source=reception.source,
        received_at=utc(reception.received_at),
        gateway_time=None if reception.gateway_time_ns is None else utc(reception.gateway_time_ns),
        gps_time_ms=reception.gps_time_ms,
        tmst=reception.tmst,
        frequency_hz=reception.frequency_hz,
        data_rate=data_rate_object(reception.data_rate),
        code_rate=None if reception.code_rate is None else text(reception.code_rate),
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


def utc(ns: int) -> datetime:
    """UTC of nanoseconds since the epoch, cut to microseconds and held inside the years that RFC 3339 can write."""
    if not 0 <= ns <= _LAST_NS:
        ns = min(max(ns, 0), _LAST_NS)
    seconds, rest = divmod(ns, 1_000_000_000)
    return _EPOCH + timedelta(0, seconds, rest // 1000)


def text(text: str) -> str:
    """Text without the lone surrogates that UTF-8 cannot write: strings of a gateway are not to be trusted."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def schema_document(record: type[msgspec.Struct], name: str, constraints: dict[str, Any]) -> bytes:
    """The JSON Schema (draft 2020-12) of `record`, as a file in `docs/schema/` has it; `constraints` go to its top."""
    (_,), parts = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    top = parts.pop(record.__name__) | constraints
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:lorabridge:{name}:1",
        **top,
        "$defs": dict(sorted(parts.items())),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
