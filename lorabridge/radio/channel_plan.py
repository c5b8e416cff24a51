"""What a concentrator with two radios listens to: from the channels of a region to radio centres and offsets."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.regions import REGIONS, SUB_BAND_CHANNELS, Region

KHZ = 1000
MHZ = 1_000_000

MAX_MULTI_SF = 8
"""Channels of 125 kHz that are demodulated with every spreading factor."""
RADIOS = 2
IF_HALF_BAND_HZ = 800 * KHZ
"""|IF| + BW/2 of every channel at most (LGW_RF_RX_BANDWIDTH of sx1302_hal 2.1.0)."""
CALIBRATED_HZ = tuple(
    (low * MHZ, high * MHZ) for low, high in ((430, 440), (470, 510), (779, 787), (863, 870), (902, 928))
)
"""Radio centres for which the SX1250 has an image calibration; the HAL does not start with any other."""
FSK_BIT_RATE = 50_000

_NARROW_HZ = 125 * KHZ
_REACH_HZ = 400 * KHZ
"""How far the channels of 125 kHz lie from the centre of their radio: five of them, 200 kHz apart, share one."""
_AS923_WIDE_OFFSET_HZ = 1_300 * KHZ
"""924.5 MHz in AS923-1, and as far from the first channel in the other groups."""

_EU868_WIDE_HZ, _EU868_FSK_HZ = 868_300 * KHZ, 868_800 * KHZ


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One demodulator: which radio, how far from its centre, how wide."""

    radio: int
    if_hz: int
    bandwidth_hz: int = _NARROW_HZ
    spreading_factor: int | None = None
    """Of the one LoRa channel that has a fixed one."""


class ChannelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All channels of a concentrator; it can take them (`make_plan` checked)."""

    region: Region
    sub_band: int
    """From 1; 0 where the region has none."""
    centres_hz: tuple[int, ...]
    """Centre frequency of each radio in use."""
    multi_sf: tuple[Channel, ...]
    wide: Channel | None
    fsk: Channel | None

    @property
    def name(self) -> str:
        """For files: `eu868`, `as923_1`, `us915_2`."""
        base = self.region.name.lower().replace("-", "_")
        return f"{base}_{self.sub_band}" if self.sub_band else base

    def hz(self, channel: Channel) -> int:
        """The frequency of a channel."""
        return self.centres_hz[channel.radio] + channel.if_hz

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every channel in use."""
        return (*self.multi_sf, *(channel for channel in (self.wide, self.fsk) if channel is not None))


def sub_bands(region: Region) -> range:
    """The numbers of a region's sub-bands of eight channels, from 1; empty where the plan is not fixed."""
    return range(1, region.channels[0].count // SUB_BAND_CHANNELS + 1) if region.fixed else range(0)


def make_plan(region: Region, sub_band: int = 0) -> ChannelPlan:
    """The usual channels of a region, or those of one sub-band.

    Raises ValueError for a sub-band the region does not have, and for a region that an SX1302 with two SX1250 cannot
    hear.
    """
    numbers = sub_bands(region)
    if numbers and sub_band not in numbers:
        raise ValueError(f"{region.name} has the sub-bands 1 to {numbers[-1]}, one of which has to be chosen")
    if not numbers and sub_band:
        raise ValueError(f"{region.name} has no sub-bands")
    narrow, wide, fsk_hz = _wanted(region, sub_band)
    centres = _centres(narrow)
    plan = ChannelPlan(
        region=region,
        sub_band=sub_band,
        centres_hz=centres,
        multi_sf=tuple(_channel(centres, hz) for hz in narrow),
        wide=None if wide is None else _channel(centres, *wide),
        fsk=None if fsk_hz is None else _channel(centres, fsk_hz),
    )
    _check(plan)
    return plan


def all_plans() -> tuple[ChannelPlan, ...]:
    """Every plan of every region in a band that the SX1250 has a calibration for."""
    return tuple(
        make_plan(region, sub_band)
        for region in REGIONS.values()
        if _is_calibrated(region.channels[0].first_hz)
        for sub_band in sub_bands(region) or (0,)
    )


def _wanted(region: Region, sub_band: int) -> tuple[tuple[int, ...], tuple[int, int, int] | None, int | None]:
    """Frequencies in Hz of the narrow channels; (Hz, bandwidth in Hz, SF) of the wide one; Hz of the FSK one."""
    if sub_band:
        first = (sub_band - 1) * SUB_BAND_CHANNELS
        narrow = region.channels[0].all_hz[first : first + SUB_BAND_CHANNELS]
        if len(region.channels) == 1:
            return narrow, None, None
        run = region.channels[1]
        # The wide channels of US915 and AU915 have the bandwidth and SF of one data rate, 500 kHz and SF8.
        return narrow, (run.all_hz[sub_band - 1], run.bandwidth_hz, 8), None
    narrow = (*region.join_channels_hz, *region.usual_channels_hz)
    if region.name == "EU868":
        return narrow, (_EU868_WIDE_HZ, 250 * KHZ, 7), _EU868_FSK_HZ
    if region.name.startswith("AS923"):
        return narrow, (narrow[0] + _AS923_WIDE_OFFSET_HZ, 250 * KHZ, 7), None
    return narrow, None, None


def _centres(narrow_hz: tuple[int, ...]) -> tuple[int, ...]:
    """Where the radios stand: each as far above its lowest channel as it reaches."""
    centres: list[int] = []
    for hz in sorted(narrow_hz):
        if not centres or hz > centres[-1] + _REACH_HZ:
            centres.append(hz + _REACH_HZ)
    return tuple(centres)


def _channel(
    centres_hz: tuple[int, ...], hz: int, bandwidth_hz: int = _NARROW_HZ, spreading_factor: int | None = None
) -> Channel:
    """A channel on the radio whose centre is nearest."""
    radio = min(range(len(centres_hz)), key=lambda index: abs(hz - centres_hz[index]))
    return Channel(
        radio=radio, if_hz=hz - centres_hz[radio], bandwidth_hz=bandwidth_hz, spreading_factor=spreading_factor
    )


def _check(plan: ChannelPlan) -> None:
    """Raises ValueError for what the chips cannot take."""
    name = plan.region.name
    if len(plan.centres_hz) > RADIOS or len(plan.multi_sf) > MAX_MULTI_SF:
        raise ValueError(f"{name} does not fit {RADIOS} radios and {MAX_MULTI_SF} channels")
    for centre in plan.centres_hz:
        if not _is_calibrated(centre):
            raise ValueError(f"{name}: the SX1250 is not calibrated for {centre / MHZ:.3f} MHz")
    for channel in plan.channels:
        if abs(channel.if_hz) + channel.bandwidth_hz // 2 > IF_HALF_BAND_HZ:
            raise ValueError(f"{name}: {plan.hz(channel) / MHZ:.3f} MHz is outside what a radio hears")


def _is_calibrated(hz: int) -> bool:
    return any(low <= hz <= high for low, high in CALIBRATED_HZ)
