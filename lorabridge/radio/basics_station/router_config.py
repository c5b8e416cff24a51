"""`router_config`: what a station is told of the region, the channels and the limits."""

from __future__ import annotations

from typing import Any

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate
from lorabridge.lorawan.regions import Region
from lorabridge.radio.channel_plan import ChannelPlan

DATA_RATES = 16
_KHZ = 1000
_LEAST_SF = 7
_UNUSED = [-1, 0, 0]
_NATIVE = {"EU868": "EU868", "US915": "US915", "AU915": "AU915", "KR920": "KR920", "AS923-1": "AS923-1"}
"""Regions that Basics Station 2.0.6 knows. Under any other name it drops every downlink."""
_LISTENS_FIRST = frozenset({"AS923-1", "KR920"})
"""Where a station listens before it talks; its rest after each frame is part of that."""


def region_alias(region: Region) -> str:
    """The name under which a station takes downlinks for a region."""
    return _NATIVE.get(region.name) or ("AS923-1" if region.name.startswith("AS923") else "EU868")


def data_rates(region: Region) -> list[DataRate | None]:
    """What each DR number means between us and a station: that of uplinks, else that of downlinks."""
    both = (region.data_rates, region.downlink_data_rates)
    ups, downs = ([*rates, *[None] * DATA_RATES][:DATA_RATES] for rates in both)
    return [up if _known(up) else down if _known(down) else None for up, down in zip(ups, downs, strict=True)]


def router_config(plan: ChannelPlan) -> dict[str, Any]:
    """The message, without filters: strangers are judged by the bridge, not hidden from it."""
    region = plan.region
    is_native = region.name in _NATIVE
    return {
        "msgtype": "router_config",
        "NetID": None,
        "JoinEui": None,
        "region": region_alias(region),
        "hwspec": "sx1301/1",
        "freq_range": [min(band.first_hz for band in region.sub_bands), max(band.last_hz for band in region.sub_bands)],
        "DRs": [_entry(rate, region, number) for number, rate in enumerate(data_rates(region))],
        "sx1301_conf": [{}],
        "upchannels": _channels(plan),
        "max_eirp": max(band.eirp_dbm for band in region.sub_bands),
        "bcning": None,
        "nocca": False,
        # The bridge counts by the hour and by the region's own sub-bands. A station lets a band rest after each frame
        # for as long as its share of an hour demands, which leaves most answers unsent.
        "nodc": region.name not in _LISTENS_FIRST,
        "nodwell": not is_native,
    }


def _known(rate: DataRate | None) -> bool:
    """Whether a station has words for a data rate: SF7 to SF12, or FSK."""
    return isinstance(rate, FskDataRate) or (isinstance(rate, LoraDataRate) and rate.spreading_factor >= _LEAST_SF)


def _entry(rate: DataRate | None, region: Region, number: int) -> list[int]:
    """[SF, bandwidth in kHz, downlinks only]."""
    if rate is None:
        return _UNUSED
    is_up = number < len(region.data_rates) and region.data_rates[number] == rate
    if isinstance(rate, FskDataRate):
        return [0, 0, int(not is_up)]
    return [rate.spreading_factor, rate.bandwidth_hz // _KHZ, int(not is_up)]


def _channels(plan: ChannelPlan) -> list[list[int]]:
    """[Hz, lowest DR, highest DR] of each channel."""
    rates = data_rates(plan.region)

    def numbers(bandwidth_hz: int, spreading_factor: int | None) -> list[int]:
        return [
            number
            for number, rate in enumerate(rates[: len(plan.region.data_rates)])
            if isinstance(rate, LoraDataRate)
            and rate == plan.region.data_rates[number]
            and rate.bandwidth_hz == bandwidth_hz
            and spreading_factor in (None, rate.spreading_factor)
        ]

    found = [(plan.hz(one), numbers(one.bandwidth_hz, one.spreading_factor)) for one in plan.multi_sf]
    if plan.wide is not None:
        found.append((plan.hz(plan.wide), numbers(plan.wide.bandwidth_hz, plan.wide.spreading_factor)))
    if plan.fsk is not None:
        fsk = [number for number, rate in enumerate(plan.region.data_rates) if isinstance(rate, FskDataRate)]
        found.append((plan.hz(plan.fsk), fsk))
    return [[hz, min(drs), max(drs)] for hz, drs in found if drs]
