"""Channel plans as they are met in the field: which channels a device uses, and where a gateway hears them."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.air import DataRate
from lorabridge.lorawan.regions import REGIONS, Region

_KHZ = 1000


class UplinkChannel(msgspec.Struct, frozen=True):
    """One uplink channel, from both ends of the air."""

    tx_ch: int
    """Index in the device: TxCh of the 1.1 MIC."""
    frequency_hz: int
    if_chain: int
    """`chan` of the gateway: 0 to 7 multi-SF, 8 the single LoRa channel, 9 FSK."""
    rf_chain: int
    data_rates: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The channels of one network in one region, and the data rates its devices are seen to use."""

    region: Region
    channels: tuple[UplinkChannel, ...]
    fast: int
    medium: int
    slow: int
    """The slowest one that the region's dwell time lets a device use."""
    wide: int | None = None
    """LoRa in more than 125 kHz."""
    fsk: int | None = None

    @property
    def added_hz(self) -> tuple[int, ...]:
        """The channels a device has beyond the default ones, in their order: what the device file must say."""
        usual = self.region.data_rates[self.fast]
        if self.region.fixed or usual is None:
            return ()
        return tuple(c.frequency_hz for c in self.channels if self.region.tx_ch(c.frequency_hz, usual) is None)

    def usable(self, data_rate: int) -> tuple[UplinkChannel, ...]:
        """The channels that carry a data rate."""
        return tuple(channel for channel in self.channels if data_rate in channel.data_rates)

    def heard_on(self, frequency_hz: int, data_rate: DataRate) -> UplinkChannel | None:
        """The channel of the gateway that demodulates an emission, None when none does."""
        tx_dr = self.region.tx_dr(data_rate)
        for channel in self.channels:
            if channel.frequency_hz == frequency_hz and tx_dr in channel.data_rates:
                return channel
        return None


def _eight(first_khz: int, first_tx_ch: int, data_rates: tuple[int, ...]) -> tuple[UplinkChannel, ...]:
    """Eight channels 200 kHz apart, four on each radio."""
    return tuple(
        UplinkChannel(first_tx_ch + i, (first_khz + 200 * i) * _KHZ, i, int(i >= 4), data_rates) for i in range(8)
    )


_EU868 = Plan(
    region=REGIONS["EU868"],
    channels=(
        *(UplinkChannel(i, (868_100 + 200 * i) * _KHZ, i, 1, (0, 1, 2, 3, 4, 5)) for i in range(3)),
        *(UplinkChannel(3 + i, (867_100 + 200 * i) * _KHZ, 3 + i, 0, (0, 1, 2, 3, 4, 5)) for i in range(5)),
        UplinkChannel(1, 868_300 * _KHZ, 8, 1, (6,)),
        UplinkChannel(8, 868_800 * _KHZ, 9, 1, (7,)),
    ),
    fast=5,
    medium=3,
    slow=0,
    wide=6,
    fsk=7,
)
_US915 = Plan(
    region=REGIONS["US915"],
    channels=(*_eight(903_900, 8, (0, 1, 2, 3)), UplinkChannel(65, 904_600 * _KHZ, 8, 0, (4,))),
    fast=3,
    medium=2,
    slow=0,
    wide=4,
)
_AU915 = Plan(
    region=REGIONS["AU915"],
    channels=(*_eight(916_800, 8, (2, 3, 4, 5)), UplinkChannel(65, 917_500 * _KHZ, 8, 0, (6,))),
    fast=5,
    medium=4,
    slow=2,
    wide=6,
)
_AS923_1 = Plan(
    region=REGIONS["AS923-1"],
    channels=_eight(923_200, 0, (2, 3, 4, 5)),
    fast=5,
    medium=4,
    slow=2,
)

PLANS = {plan.region.name: plan for plan in (_EU868, _US915, _AU915, _AS923_1)}
"""By the region's name. US915 and AU915: sub-band 2."""
