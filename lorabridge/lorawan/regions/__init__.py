"""Regional parameters as data (RP002-1.0.4): what devices and gateways may do in each part of the world."""

from __future__ import annotations

from lorabridge.lorawan.regions.lookup import REGIONS
from lorabridge.lorawan.regions.types import SUB_BAND_CHANNELS, Channels, Region, SubBand

__all__ = ["REGIONS", "SUB_BAND_CHANNELS", "Channels", "Region", "SubBand"]
