"""`[join]`, `[mac]` and `[downlinks]`: how devices are answered, and what an operator can say about it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lorabridge.lorawan.decision import Answering
from lorabridge.lorawan.mac_commands import can_say_hz
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import RejoinParameters
from lorabridge.lorawan.regions import REGIONS, SUB_BAND_CHANNELS, Region
from lorabridge.lorawan.types import NetID
from lorabridge.settings import Duration

_HZ = 1_000_000
Megahertz = Annotated[float, Meta(ge=100, le=3000, description="A frequency in MHz, such as 867.1.")]


class JoinSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[join]`: what a joining device is given."""

    net_id: Annotated[
        NetID | None,
        Meta(
            description="Home_NetID of join-accepts; left out, the first of network.net_ids, or 000000, the NetID of "
            "private networks",
            examples=["000013"],
        ),
    ] = None
    dev_addr_range: Annotated[
        str | None,
        Meta(
            description="where addresses of joining devices come from; left out, all addresses of the NetID",
            examples=["26011000/20"],
        ),
    ] = None


class MacSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[mac]`: how the radios of devices are to be set. Left out, each setting is the region's default."""

    rx1_delay: Annotated[int, Meta(ge=1, le=15, description="seconds from the end of an uplink to RX1")] = 1
    rx1_dr_offset: Annotated[int, Meta(ge=0, le=7, description="RX1DROffset")] = 0
    rx1_frequency: Annotated[
        float | None,
        Meta(
            description="DlChannelReq (1.0.2 and later): RX1 of every channel in MHz, for instance where a gateway may "
            "send more; left out, where the uplink was",
            examples=[869.525],
        ),
    ] = None
    rx2_data_rate: Annotated[int | None, Meta(description="data rate of RX2", examples=[0])] = None
    rx2_frequency: Annotated[float | None, Meta(description="frequency of RX2 in MHz", examples=[869.525])] = None
    channels: Annotated[
        tuple[Megahertz, ...] | None,
        Meta(
            description="uplink channels in MHz beyond the region's default ones, in their order; left out, those of "
            "the usual plan (firmware_configs/). The gateway has to listen there",
            examples=[[867.1, 867.3, 867.5, 867.7, 867.9]],
        ),
    ] = None
    sub_band: Annotated[
        int,
        Meta(ge=0, le=12, description="US915, AU915, CN470: which eight channels the gateway hears, from 1; 0: all"),
    ] = 0
    adr: Annotated[bool, Meta(description="manage data rate and power of devices that ask for it")] = True
    adr_margin: Annotated[
        float, Meta(ge=0, le=30, description="dB that ADR leaves between what is heard and what is needed")
    ] = 10.0
    max_duty_cycle: Annotated[
        int | None,
        Meta(description="DutyCycleReq: devices send at most 1/2^n of the time; 0 lifts a limit", examples=[0]),
    ] = None
    uplink_dwell: Annotated[
        bool | None,
        Meta(description="TXParamSetupReq: uplinks are bound by the dwell time of 400 ms", examples=[False]),
    ] = None
    downlink_dwell: Annotated[
        bool | None, Meta(description="TXParamSetupReq: the same for downlinks", examples=[False])
    ] = None
    max_eirp_index: Annotated[int | None, Meta(description="TXParamSetupReq: MaxEIRP, 0 to 15", examples=[5])] = None
    status_every: Annotated[
        int, Meta(ge=0, le=100_000, description="ask a device for battery and margin every so many uplinks; 0: never")
    ] = 0

    adr_ack_limit_exponent: Annotated[
        int | None,
        Meta(description="ADRParamSetupReq (1.1): a device asks for a sign of life after 2^n uplinks", examples=[6]),
    ] = None
    adr_ack_delay_exponent: Annotated[
        int | None,
        Meta(description="ADRParamSetupReq (1.1): and changes its data rate after 2^n more", examples=[5]),
    ] = None
    rejoin_max_time: Annotated[
        int | None,
        Meta(
            description="RejoinParamSetupReq (1.1): a rejoin-request of type 0 every 2^(n + 10) seconds; with "
            "rejoin_max_count",
            examples=[15],
        ),
    ] = None
    rejoin_max_count: Annotated[
        int | None,
        Meta(description="RejoinParamSetupReq (1.1): or every 2^(n + 4) uplinks; with rejoin_max_time", examples=[15]),
    ] = None

    def __post_init__(self) -> None:
        bounds = {
            "adr_ack_limit_exponent": (self.adr_ack_limit_exponent, 0, 15),
            "adr_ack_delay_exponent": (self.adr_ack_delay_exponent, 0, 15),
            "rejoin_max_time": (self.rejoin_max_time, 0, 15),
            "rejoin_max_count": (self.rejoin_max_count, 0, 15),
            "rx2_data_rate": (self.rx2_data_rate, 0, 15),
            "rx1_frequency": (self.rx1_frequency, 100, 3000),
            "rx2_frequency": (self.rx2_frequency, 100, 3000),
            "max_duty_cycle": (self.max_duty_cycle, 0, 15),
            "max_eirp_index": (self.max_eirp_index, 0, 15),
        }
        wrong = [
            f"{name}: {least} to {most}"
            for name, (value, least, most) in bounds.items()
            if value is not None and not least <= value <= most
        ]
        if (self.rejoin_max_time is None) is not (self.rejoin_max_count is None):
            wrong.append("rejoin_max_time and rejoin_max_count go together")
        if wrong:
            raise ValueError("; ".join(wrong))


class DownlinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[downlinks]`: whether and how devices are answered."""

    enabled: Annotated[
        bool,
        Meta(
            description="answer joins, acknowledge uplinks, send what the cloud orders; false while another network "
            "server answers these devices: this bridge then only listens"
        ),
    ] = True
    gather: Annotated[
        Duration, Meta(description="how long to wait for copies by other gateways before the best one is chosen")
    ] = Duration(0.2)
    queue_per_device: Annotated[int, Meta(ge=1, le=1000, description="commands that may wait for one device")] = 16
    queue_total: Annotated[int, Meta(ge=1, le=1_000_000, description="commands that may wait in all")] = 10_000
    confirmed_attempts: Annotated[
        int, Meta(ge=1, le=15, description="how often a confirmed command is sent before it is `not_acknowledged`")
    ] = 3

    def __post_init__(self) -> None:
        if not 0 <= self.gather <= 10:
            raise ValueError("gather: 0 to 10 seconds")


def policy_of(settings: MacSettings, region: Region | None) -> MacPolicy:
    """What the network wants of its devices."""
    channels: tuple[int, ...] = () if region is None else region.usual_channels_hz
    if settings.channels is not None:
        channels = tuple(map(_hz, settings.channels))
    return MacPolicy(
        rx1_delay=settings.rx1_delay,
        rx1_dr_offset=settings.rx1_dr_offset,
        rx2_data_rate=settings.rx2_data_rate,
        rx2_frequency_hz=None if settings.rx2_frequency is None else _hz(settings.rx2_frequency),
        rx1_frequency_hz=None if settings.rx1_frequency is None else _hz(settings.rx1_frequency),
        channels_hz=channels,
        enabled=_sub_band(settings.sub_band, region),
        adr=settings.adr,
        adr_margin_db=settings.adr_margin,
        max_duty_cycle=settings.max_duty_cycle,
        uplink_dwell=settings.uplink_dwell,
        downlink_dwell=settings.downlink_dwell,
        max_eirp_index=settings.max_eirp_index,
        status_every=settings.status_every,
        adr_ack_limit_exponent=settings.adr_ack_limit_exponent,
        adr_ack_delay_exponent=settings.adr_ack_delay_exponent,
        rejoin=_rejoin(settings),
    )


def _hz(mhz: float) -> int:
    return round(mhz * _HZ)


def _rejoin(settings: MacSettings) -> RejoinParameters | None:
    if settings.rejoin_max_time is None or settings.rejoin_max_count is None:
        return None
    return RejoinParameters(settings.rejoin_max_time, settings.rejoin_max_count)


def problems_of(settings: MacSettings, region_name: str | None) -> list[tuple[str, str]]:
    """What MAC commands cannot say and the region does not allow: (setting, what is wrong)."""
    windows = {"rx1_frequency": settings.rx1_frequency, "rx2_frequency": settings.rx2_frequency}
    written = [(name, mhz) for name, mhz in windows.items() if mhz is not None]
    every = [*written, *[("channels", mhz) for mhz in settings.channels or ()]]
    found = [
        (name, f"{mhz:.10g} MHz: steps of 100 Hz, in the band of 2.4 GHz of 200 Hz")
        for name, mhz in every
        if not can_say_hz(_hz(mhz))
    ]
    region = REGIONS.get(region_name or "")
    if region is None:
        return found
    if settings.rx1_dr_offset > region.max_rx1_dr_offset:
        found.append(("rx1_dr_offset", f"{region.name} has RX1DROffset 0 to {region.max_rx1_dr_offset}"))
    if settings.rx2_data_rate is not None and region.max_mac_payload(settings.rx2_data_rate) is None:
        found.append(("rx2_data_rate", f"{region.name} has no downlink data rate {settings.rx2_data_rate}"))
    found += [
        (name, f"a gateway must not send there in {region.name}")
        for name, mhz in written
        if region.sub_band(_hz(mhz)) is None
    ]
    if settings.rx1_frequency is not None and region.fixed:
        found.append(("rx1_frequency", f"{region.name} has fixed channels for RX1"))
    if settings.channels and region.fixed:
        found.append(("channels", f"{region.name} has a fixed channel plan: use sub_band"))
    if settings.channels is not None and len(settings.channels) + region.channel_count > region.max_channels:
        found.append(("channels", f"a device in {region.name} has at most {region.max_channels} channels"))
    if settings.sub_band and _sub_band(settings.sub_band, region) is None:
        found.append(("sub_band", f"{region.name} has no sub-band {settings.sub_band}"))
    return found


def answering_of(
    join: JoinSettings,
    policy: MacPolicy,
    *,
    net_ids: tuple[NetID, ...],
    dev_addr_range: tuple[int, int] | None,
    mute_sources: frozenset[str],
) -> Answering:
    """How devices are answered; `net_ids` are the network's, `dev_addr_range` that of `[join]` taken apart."""
    net_id = join.net_id or (net_ids[0] if net_ids else NetID(0))
    return Answering(
        policy=policy,
        net_id=net_id,
        address_range=dev_addr_range or net_id.address_range,
        mute_sources=mute_sources,
    )


def _sub_band(number: int, region: Region | None) -> frozenset[int] | None:
    """The channels of a sub-band: eight of 125 kHz and the wide one among them, where there is one."""
    if not number or region is None or not region.fixed:
        return None
    narrow = region.channels[0].count
    first = (number - 1) * SUB_BAND_CHANNELS
    if not 0 <= first < narrow:
        return None
    wide = {narrow + number - 1} if region.channel_count > narrow else set[int]()
    return frozenset(range(first, first + SUB_BAND_CHANNELS)) | wide
