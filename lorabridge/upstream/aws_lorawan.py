"""Uplinks as AWS IoT Core for LoRaWAN writes them: `format = "aws-lorawan"`.

Names and types are those of the API (`LoRaWANDeviceMetadata`, `LoRaWANGatewayMetadata`), and for what the API does
not have those of the developer guide's example, which has slips: there DevEui is a digit short, Snr and Rssi are
exchanged, and DataRate and Frequency are texts.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from lorabridge.lorawan.air import Antenna, LoraDataRate, Reception
from lorabridge.lorawan.events import DeviceRef, Uplink
from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.format_settings import NAMESPACE, WIRELESS_DEVICE_ID
from lorabridge.upstream.wire import (
    Counter32,
    Hex4,
    Hex8,
    Id,
    Utc,
    Uuid,
    Wire,
    data_rate_number,
    dev_addr_text,
    gateway_eui_text,
    schema_document,
    text,
    utc,
)

NO_F_PORT = 225
"""FPort of a frame that has none, as AWS writes it: no application may use it (TS001-1.0.4 §4.3.2)."""

_ENCODER = msgspec.json.Encoder()


class Gateway(Wire, frozen=True, kw_only=True, rename="pascal"):
    """One gateway that heard the frame."""

    gateway_eui: Hex8
    snr: Annotated[float, Meta(description="dB.")] | UnsetType = UNSET
    rssi: Annotated[float, Meta(description="dBm.")] | UnsetType = UNSET


class LoRaWAN(Wire, frozen=True, kw_only=True, rename="pascal"):
    """The frame and how it was heard."""

    adr: bool = msgspec.field(name="ADR")
    bandwidth: Annotated[int, Meta(description="kHz; not with FSK.")] | UnsetType = UNSET
    class_b: bool
    code_rate: str | UnsetType = UNSET
    data_rate: (
        Annotated[int, Meta(ge=0, le=15, description="Its number in the region; not there when it has none.")]
        | UnsetType
    ) = UNSET
    dev_addr: Hex4
    dev_eui: Hex8
    f_cnt: Annotated[Counter32, Meta(description="All 32 bits.")]
    f_opt_len: Annotated[int, Meta(ge=0, le=15)]
    f_port: Annotated[int, Meta(ge=0, le=255, description=f"{NO_F_PORT} when the frame has none.")]
    frequency: Annotated[int, Meta(description="Hz.")]
    gateways: Annotated[list[Gateway], Meta(min_length=1, max_length=1)]
    mic: Annotated[Hex4, Meta(description="In the order of the air.")] = msgspec.field(name="MIC")
    m_type: str
    major: str = "LoRaWANR1"
    modulation: Annotated[str, Meta(description="`LORA` or `FSK`.")]
    polarization_inversion: bool = False
    spreading_factor: Annotated[int, Meta(description="Not with FSK.")] | UnsetType = UNSET
    timestamp: Annotated[Utc, Meta(description="To the second.")]


class WirelessMetadata(Wire, frozen=True, kw_only=True):
    """Radio and protocol; `LoRaWAN` is the only kind."""

    lorawan: LoRaWAN = msgspec.field(name="LoRaWAN")


class Ours(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/uplink_aws_lorawan/1"):
    """What the foreign form has no place for."""

    id: Id
    gateway_id: str
    device_name: str
    tags: dict[str, str]
    received_at: Utc
    f_port: Annotated[int | None, Meta(description="Null when the frame carries no FPort.")]
    counter_reset: Annotated[bool, Meta(description="First frame taken after the device restarted its counter.")]
    sealed: Annotated[bool, Meta(description="Whether `sealed_payload` stands in place of `PayloadData`.")]
    sealed_payload: Annotated[bytes, Meta(description="FRMPayload still encrypted under AppSKey.")] | UnsetType = UNSET


class AwsLorawanUplink(Wire, frozen=True, kw_only=True, rename="pascal"):
    """A data frame that proved its sender and its freshness, in the form of AWS IoT Core for LoRaWAN."""

    wireless_device_id: Uuid
    payload_data: Annotated[bytes, Meta(description="FRMPayload decrypted, base64.")] | UnsetType = UNSET
    wireless_metadata: WirelessMetadata
    ours: Annotated[Ours, Meta(description="Not of AWS.")] = msgspec.field(name="lorabridge")


def encoder(gateway_id: str, region: str | None) -> Callable[[Uplink], bytes]:
    """What writes an uplink; `region` is that of devices which name none. Raises for no accepted uplink."""

    def encode(event: Uplink) -> bytes:
        device = event.device
        message = AwsLorawanUplink(
            wireless_device_id=_wireless_device_id(device),
            payload_data=UNSET if event.sealed else event.payload,
            wireless_metadata=WirelessMetadata(lorawan=_lorawan(event, device.region or region)),
            ours=Ours(
                id=event.id,
                gateway_id=gateway_id,
                device_name=device.name,
                tags=dict(device.tags),
                received_at=utc(event.reception.received_at),
                f_port=event.f_port,
                counter_reset=event.counter_reset,
                sealed=event.sealed,
                sealed_payload=event.payload if event.sealed else UNSET,
            ),
        )
        return _ENCODER.encode(message)

    return encode


def _lorawan(event: Uplink, region: str | None) -> LoRaWAN:
    heard = event.reception
    rate = heard.data_rate
    lora = isinstance(rate, LoraDataRate)
    return LoRaWAN(
        adr=event.adr,
        bandwidth=rate.bandwidth_hz // 1000 if isinstance(rate, LoraDataRate) else UNSET,
        class_b=event.class_b,
        code_rate=text(heard.code_rate) if lora and heard.code_rate is not None else UNSET,
        data_rate=data_rate_number(region, rate),
        dev_addr=dev_addr_text(event.dev_addr),
        dev_eui=_dev_eui(event.device.dev_eui),
        f_cnt=event.fcnt32,
        f_opt_len=len(event.f_opts),
        f_port=NO_F_PORT if event.f_port is None else event.f_port,
        frequency=heard.frequency_hz,
        gateways=[_gateway(heard)],
        mic=event.mic.hex(),
        m_type="ConfirmedDataUp" if event.confirmed else "UnconfirmedDataUp",
        modulation="LORA" if lora else "FSK",
        spreading_factor=rate.spreading_factor if isinstance(rate, LoraDataRate) else UNSET,
        timestamp=utc(heard.received_at).replace(microsecond=0),
    )


def _gateway(heard: Reception) -> Gateway:
    """The gateway by the antenna that heard it best: the service has one entry a gateway."""
    best = max(heard.antennas, key=_quality, default=None)
    return Gateway(
        gateway_eui=gateway_eui_text(heard.gateway_eui),
        snr=UNSET if best is None else _number(best.snr_db),
        rssi=UNSET if best is None else _number(best.rssi_dbm),
    )


def _quality(antenna: Antenna) -> tuple[float, float]:
    snr, rssi = _number(antenna.snr_db), _number(antenna.rssi_dbm)
    return -math.inf if snr is UNSET else snr, -math.inf if rssi is UNSET else rssi


def _number(value: float | None) -> float | UnsetType:
    """A value that JSON can write."""
    return UNSET if value is None or not math.isfinite(value) else value


@functools.lru_cache(maxsize=4096)
def _wireless_device_id(device: DeviceRef) -> str:
    """The UUID that the operator gave by tag, else one that is always the same for the DevEUI."""
    given = dict(device.tags).get(WIRELESS_DEVICE_ID)
    return given.lower() if given else str(uuid.uuid5(NAMESPACE, f"device:{device.dev_eui}"))


@functools.lru_cache(maxsize=4096)
def _dev_eui(dev_eui: EUI64) -> str:
    return str(dev_eui)


_NEVER_BOTH: dict[str, Any] = {
    "oneOf": [
        {
            "required": ["PayloadData"],
            "properties": {"lorabridge": {"properties": {"sealed": {"const": False}, "sealed_payload": False}}},
        },
        {
            "properties": {
                "PayloadData": False,
                "lorabridge": {"required": ["sealed_payload"], "properties": {"sealed": {"const": True}}},
            }
        },
    ]
}


def json_schema() -> bytes:
    """The JSON Schema of this form, as the file in `docs/schema/` has it."""
    return schema_document(AwsLorawanUplink, "uplink_aws_lorawan", _NEVER_BOTH)
