"""Uplinks as ChirpStack v4 writes them: `format = "chirpstack"`, the JSON of `integration.UplinkEvent`.

Source: chirpstack v4.20, api/proto/integration/integration.proto and gw/gw.proto; api/rust/build.rs writes the fields
of `integration` whatever they are, and leaves out those of `gw` that have the default of their type.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from lorabridge.lorawan.air import Antenna, DataRate, LoraDataRate, Reception
from lorabridge.lorawan.events import DeviceRef, Uplink
from lorabridge.upstream.format_settings import ChirpStackSettings
from lorabridge.upstream.wire import (
    Counter32,
    Hex4,
    Hex8,
    Utc,
    Uuid,
    Wire,
    data_rate_number,
    dev_addr_text,
    gateway_eui_text,
    schema_document,
    utc,
)

_ENCODER = msgspec.json.Encoder()
_NO_ANTENNA = Antenna()
_CRC_OK = "CRC_OK"
"""Of every frame here: a source hands on no other."""


class DeviceInfo(Wire, frozen=True, kw_only=True, rename="camel"):
    """Which device, and whose it is."""

    tenant_id: Uuid
    tenant_name: str
    application_id: Uuid
    application_name: str
    device_profile_id: Uuid
    device_profile_name: str
    device_name: str
    dev_eui: Hex8
    device_class_enabled: Annotated[str, Meta(pattern="^CLASS_[AC]$")]
    tags: dict[str, str]


class RxInfo(Wire, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One antenna of a gateway that heard the frame; what the gateway does not say, or is 0, is left out."""

    gateway_id: Hex8
    gw_time: Annotated[Utc, Meta(description="UTC by the gateway's own GPS.")] | UnsetType = UNSET
    ns_time: Annotated[Utc, Meta(description="When the bridge had it.")]
    time_since_gps_epoch: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]{3}s$")] | UnsetType = UNSET
    rssi: Annotated[int, Meta(description="dBm.")] = 0
    snr: Annotated[float, Meta(description="dB.")] = 0.0
    channel: int = 0
    rf_chain: int = 0
    board: int = 0
    antenna: int = 0
    metadata: dict[str, str]
    crc_status: str


class Lora(Wire, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """LoRa modulation."""

    bandwidth: Annotated[int, Meta(description="Hz.")]
    spreading_factor: int
    code_rate: Annotated[str, Meta(pattern="^CR_4_[5-8]$")] | UnsetType = UNSET


class Fsk(Wire, frozen=True, kw_only=True):
    """FSK modulation."""

    datarate: Annotated[int, Meta(description="bit/s.")]


class Modulation(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """One of the two."""

    lora: Lora | UnsetType = UNSET
    fsk: Fsk | UnsetType = UNSET


class TxInfo(Wire, frozen=True, kw_only=True):
    """How it was sent."""

    frequency: Annotated[int, Meta(description="Hz.")]
    modulation: Modulation


class SealedObject(Wire, frozen=True, kw_only=True):
    """What stands in place of `data`."""

    lorabridge_sealed_payload: Annotated[bytes, Meta(description="FRMPayload still encrypted under AppSKey.")]


class ChirpStackUplink(Wire, frozen=True, kw_only=True, rename="camel"):
    """A data frame that proved its sender and its freshness, in the form of ChirpStack."""

    deduplication_id: Annotated[Uuid, Meta(description="The `id` of the uplink, with hyphens.")]
    time: Annotated[Utc, Meta(description="By the gateway's own GPS, else when the bridge had it.")]
    device_info: DeviceInfo
    dev_addr: Hex4
    adr: bool
    dr: Annotated[int, Meta(ge=0, le=15, description="Not there when the region does not have it.")] | UnsetType = UNSET
    f_cnt: Counter32
    f_port: Annotated[int, Meta(ge=0, le=255, description="0 also when the frame has none.")]
    confirmed: bool
    data: Annotated[bytes, Meta(description="FRMPayload decrypted, base64; empty for FPort 0.")] | UnsetType = UNSET
    object: Annotated[SealedObject, Meta(description="In place of `data`.")] | UnsetType = UNSET
    rx_info: Annotated[list[RxInfo], Meta(min_length=1)]
    tx_info: TxInfo
    region_config_id: str


def encoder(settings: ChirpStackSettings, region: str | None) -> Callable[[Uplink], bytes]:
    """What writes an uplink; `region` is that of devices which name none. Raises for no accepted uplink."""
    device_info = functools.lru_cache(maxsize=4096)(functools.partial(_device_info, settings))

    def encode(event: Uplink) -> bytes:
        heard = event.reception
        place = event.device.region or region
        message = ChirpStackUplink(
            deduplication_id=_with_hyphens(event.id),
            time=utc(heard.received_at if heard.gateway_time_ns is None else heard.gateway_time_ns),
            device_info=device_info(event.device),
            dev_addr=dev_addr_text(event.dev_addr),
            adr=event.adr,
            dr=data_rate_number(place, heard.data_rate),
            f_cnt=event.fcnt32,
            f_port=event.f_port or 0,
            confirmed=event.confirmed,
            data=UNSET if event.sealed else event.payload if event.f_port else b"",
            object=SealedObject(lorabridge_sealed_payload=event.payload) if event.sealed else UNSET,
            rx_info=list(_rx_infos(heard, place)),
            tx_info=TxInfo(frequency=heard.frequency_hz, modulation=_modulation(heard.data_rate, heard.code_rate)),
            region_config_id=_region_names(place)["region_config_id"],
        )
        return _ENCODER.encode(message)

    return encode


def _device_info(settings: ChirpStackSettings, device: DeviceRef) -> DeviceInfo:
    return DeviceInfo(
        tenant_id=settings.id_of("tenant"),
        tenant_name=settings.tenant_name,
        application_id=settings.id_of("application"),
        application_name=settings.application_name,
        device_profile_id=settings.id_of("device_profile"),
        device_profile_name=settings.device_profile_name,
        device_name=device.name,
        dev_eui=str(device.dev_eui),
        device_class_enabled=f"CLASS_{device.device_class.value}",
        tags=dict(device.tags),
    )


def _rx_infos(heard: Reception, region: str | None) -> Iterator[RxInfo]:
    """One for each antenna, as ChirpStack's own gateway bridge makes them; one for a gateway that names none."""
    gps, gateway_time = heard.gps_time_ms, heard.gateway_time_ns
    for antenna in heard.antennas or (_NO_ANTENNA,):
        yield RxInfo(
            gateway_id=gateway_eui_text(heard.gateway_eui),
            gw_time=UNSET if gateway_time is None else utc(gateway_time),
            ns_time=utc(heard.received_at),
            time_since_gps_epoch=UNSET if gps is None or gps < 0 else f"{gps // 1000}.{gps % 1000:03}s",
            rssi=round(_finite(antenna.rssi_dbm)),
            snr=_finite(antenna.snr_db),
            channel=_unsigned(antenna.channel),
            rf_chain=_unsigned(heard.rf_chain),
            board=_unsigned(heard.board),
            antenna=_unsigned(antenna.antenna),
            metadata=_region_names(region),
            crc_status=_CRC_OK,
        )


def _finite(value: float | None) -> float:
    """A value that protobuf's JSON can write; 0 is its default."""
    return value if value is not None and math.isfinite(value) else 0.0


def _unsigned(value: int | None) -> int:
    """uint32; a gateway may say anything."""
    return value if value is not None and 0 <= value <= 0xFFFF_FFFF else 0


@functools.lru_cache(maxsize=512)
def _modulation(rate: DataRate, code_rate: str | None) -> Modulation:
    if not isinstance(rate, LoraDataRate):
        return Modulation(fsk=Fsk(datarate=rate.bit_rate))
    known = UNSET if code_rate not in ("4/5", "4/6", "4/7", "4/8") else f"CR_{code_rate.replace('/', '_')}"
    return Modulation(lora=Lora(bandwidth=rate.bandwidth_hz, spreading_factor=rate.spreading_factor, code_rate=known))


@functools.cache
def _region_names(region: str | None) -> dict[str, str]:
    """As ChirpStack calls a region: `EU868` and `eu868`, `AS923_2` and `as923_2`; empty without a region."""
    common_name = "" if region is None else region.replace("AS923-1", "AS923").replace("-", "_")
    return {"region_config_id": common_name.lower(), "region_common_name": common_name}


def _with_hyphens(uplink_id: str) -> str:
    """The same 32 hex digits as a UUID is written."""
    return f"{uplink_id[:8]}-{uplink_id[8:12]}-{uplink_id[12:16]}-{uplink_id[16:20]}-{uplink_id[20:]}"


_NEVER_BOTH: dict[str, Any] = {
    "oneOf": [
        {"required": ["data"], "properties": {"object": False}},
        {"required": ["object"], "properties": {"data": False}},
    ]
}


def json_schema() -> bytes:
    """The JSON Schema of this form, as the file in `docs/schema/` has it."""
    return schema_document(ChirpStackUplink, "uplink_chirpstack", _NEVER_BOTH)
