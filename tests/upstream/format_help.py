"""Uplinks of every kind, and real ones: built, heard and judged by the engine."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from lorabridge.lorawan.air import Antenna, CrcStatus, FskDataRate, LoraDataRate, Reception
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.events import DeviceRef, Event, Uplink
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.types import EUI64, DevAddr, DeviceClass, FCnt32
from lorabridge.upstream import formats
from lorabridge.upstream.format_settings import ChirpStackSettings, UplinkFormat
from tests.lorawan import builders

GATEWAY_ID = "roof-1"

# A clock may be anywhere, and a gateway may claim anything.
_times = st.integers(-(2**40), 2**80)
_small = st.none() | st.integers(-(2**31), 2**31 - 1)
_decibels = st.none() | st.floats(-1000, 1000) | st.sampled_from([float("nan"), float("inf")])
_texts = st.text(st.characters(codec="utf-8"), max_size=20)
_euis = st.integers(0, 2**64 - 1).map(EUI64)
antennas = st.builds(Antenna, antenna=_small, channel=_small, rssi_dbm=_decibels, snr_db=_decibels)
receptions = st.builds(
    Reception,
    phy_payload=st.binary(max_size=255),
    received_at=_times,
    gateway_eui=_euis,
    source=st.just("roof"),
    crc=st.just(CrcStatus.OK),
    frequency_hz=st.integers(10**8, 3 * 10**9),
    data_rate=st.builds(LoraDataRate, st.integers(5, 12), st.sampled_from([125_000, 812_500]))
    | st.builds(FskDataRate, st.just(50_000)),
    code_rate=st.none() | st.sampled_from(["4/5", "4/8", "4/8LI"]),
    gateway_time_ns=st.none() | _times,
    gps_time_ms=st.none() | st.integers(-1, 10**13),
    rf_chain=_small,
    board=_small,
    antennas=st.lists(antennas, max_size=2).map(tuple),
)
uplinks = st.builds(
    Uplink,
    id=st.text("0123456789abcdef", min_size=32, max_size=32),
    device=st.builds(
        DeviceRef,
        name=_texts,
        dev_eui=_euis,
        tags=st.lists(st.tuples(_texts, _texts), max_size=2).map(tuple),
        region=st.sampled_from([None, "US915", "AS923-1", "AS923-3"]),
        device_class=st.sampled_from(DeviceClass),
    ),
    dev_addr=st.integers(0, 2**32 - 1).map(DevAddr),
    fcnt32=st.integers(0, 2**32 - 1).map(FCnt32),
    f_port=st.none() | st.integers(0, 255),
    f_opts=st.binary(max_size=15),
    payload=st.binary(max_size=242),
    mic=st.binary(min_size=4, max_size=4),
    reception=receptions,
)


def written(
    event: Event,
    form: UplinkFormat,
    settings: ChirpStackSettings = ChirpStackSettings(),  # noqa: B008  # frozen
    region: str | None = "EU868",
) -> dict[str, Any]:
    """The JSON of an event in a form."""
    record = formats.encoder(form, settings, GATEWAY_ID, region)(event)
    document: dict[str, Any] = msgspec.json.decode(record.payload)
    return document


def heard_uplink(
    sender: Device, *, fcnt32: int = 0x1_0005, m_type: MType = MType.CONFIRMED_DATA_UP, **how: Any
) -> Uplink:
    """A real frame of `sender`, as the engine tells of it: heard by two antennas of one gateway."""
    bridge = builders.Bridge(sender, region="EU868")
    phy_payload = builders.uplink(sender, 0x1_0005, m_type=m_type, **how)
    reception = msgspec.structs.replace(
        builders.heard(phy_payload),
        code_rate="4/5",
        rf_chain=1,
        gateway_time_ns=builders.START + 123_456_789,
        gps_time_ms=1_384_035_218_123,
        antennas=(
            Antenna(antenna=0, channel=5, rssi_dbm=-112.0, snr_db=-7.25),
            Antenna(antenna=1, channel=5, rssi_dbm=-109.5, snr_db=-5.5),
        ),
    )
    (decision,) = bridge.hear_all(reception)
    (event,) = (event for event in decision.events if isinstance(event, Uplink))
    return event
