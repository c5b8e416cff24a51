"""Regional parameters as data (RP002-1.0.4): what the MIC of 1.1 needs of them, data rates and channels of uplinks."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate

_KHZ = 1000


class Channels(msgspec.Struct, frozen=True):
    """A run of equally spaced uplink channels: the first frequency, the step, how many, and the index of the first."""

    first_hz: int
    step_hz: int
    count: int
    first_index: int
    bandwidth_hz: int = 125 * _KHZ


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """One regional channel plan, as far as uplinks go."""

    name: str
    section: str
    """Where RP002-1.0.4 describes it."""
    data_rates: tuple[DataRate | None, ...]
    """Uplink data rates by TxDr; None where reserved."""
    channels: tuple[Channels, ...]
    """The channels every device has by default, with their TxCh."""
    max_channels: int
    """How many channels a device can have; the ones beyond the default are given by CFList or NewChannel."""

    @property
    def fixed(self) -> bool:
        """Whether the channel plan is fixed: no channel can be added."""
        return sum(run.count for run in self.channels) == self.max_channels

    def tx_dr(self, data_rate: DataRate) -> int | None:
        """TxDr of an uplink, or None when the region has no such data rate."""
        try:
            return self.data_rates.index(data_rate)
        except ValueError:
            return None

    def tx_ch(self, frequency_hz: int, data_rate: DataRate, added_hz: tuple[int, ...] = ()) -> int | None:
        """TxCh of an uplink, or None when no known channel has the frequency.

        `added_hz`: the channels beyond the default ones, in their order.
        """
        bandwidth = data_rate.bandwidth_hz if isinstance(data_rate, LoraDataRate) else 0
        for run in self.channels:
            index, rest = divmod(frequency_hz - run.first_hz, run.step_hz)
            if not rest and 0 <= index < run.count and (bandwidth == run.bandwidth_hz or not self.fixed):
                return run.first_index + index
        if frequency_hz in added_hz:
            return sum(run.count for run in self.channels) + added_hz.index(frequency_hz)
        return None

    def tx_ch_candidates(self, frequency_hz: int, data_rate: DataRate, added_hz: tuple[int, ...]) -> tuple[int, ...]:
        """What TxCh of an uplink can be: one index for a known channel, for an unknown one every free index."""
        known = self.tx_ch(frequency_hz, data_rate, added_hz)
        if known is not None:
            return (known,)
        return tuple(range(sum(run.count for run in self.channels) + len(added_hz), self.max_channels))


def _lora(bandwidth_khz: int, *spreading_factors: int) -> tuple[DataRate, ...]:
    return tuple(LoraDataRate(sf, bandwidth_khz * _KHZ) for sf in spreading_factors)


_DR0_TO_5 = _lora(125, 12, 11, 10, 9, 8, 7)
_DR6 = _lora(250, 7)
_DR7: tuple[DataRate, ...] = (FskDataRate(50_000),)
_COMMON = _DR0_TO_5 + _DR6 + _DR7


def _as923(group: int, offset_hz: int) -> Region:
    return Region(
        name=f"AS923-{group}",
        section="2.10",
        data_rates=_COMMON,
        channels=(Channels(923_200 * _KHZ + offset_hz, 200 * _KHZ, 2, 0),),
        max_channels=16,
    )


_ALL = (
    Region(
        name="EU868",
        section="2.4",
        data_rates=_COMMON,
        channels=(Channels(868_100 * _KHZ, 200 * _KHZ, 3, 0),),
        max_channels=16,
    ),
    Region(
        name="US915",
        section="2.5",
        data_rates=(*_lora(125, 10, 9, 8, 7), *_lora(500, 8)),
        channels=(
            Channels(902_300 * _KHZ, 200 * _KHZ, 64, 0),
            Channels(903_000 * _KHZ, 1600 * _KHZ, 8, 64, 500 * _KHZ),
        ),
        max_channels=72,
    ),
    Region(
        name="CN779",
        section="2.6",
        data_rates=_COMMON,
        channels=(Channels(779_500 * _KHZ, 200 * _KHZ, 3, 0),),
        max_channels=16,
    ),
    Region(
        name="EU433",
        section="2.7",
        data_rates=_COMMON,
        channels=(Channels(433_175 * _KHZ, 200 * _KHZ, 3, 0),),
        max_channels=16,
    ),
    Region(
        name="AU915",
        section="2.8",
        data_rates=(*_DR0_TO_5, *_lora(500, 8)),
        channels=(
            Channels(915_200 * _KHZ, 200 * _KHZ, 64, 0),
            Channels(915_900 * _KHZ, 1600 * _KHZ, 8, 64, 500 * _KHZ),
        ),
        max_channels=72,
    ),
    Region(
        name="CN470",
        section="2.9",
        data_rates=(*_DR0_TO_5, *_lora(500, 7), *_DR7),
        channels=(Channels(470_300 * _KHZ, 200 * _KHZ, 96, 0),),
        max_channels=96,
    ),
    _as923(1, 0),
    _as923(2, -1_800 * _KHZ),
    _as923(3, -6_600 * _KHZ),
    _as923(4, -5_900 * _KHZ),
    Region(
        name="KR920",
        section="2.11",
        data_rates=_DR0_TO_5,
        channels=(Channels(922_100 * _KHZ, 200 * _KHZ, 3, 0),),
        max_channels=16,
    ),
    Region(
        name="IN865",
        section="2.12",
        data_rates=(*_DR0_TO_5, None, *_DR7),
        channels=(
            Channels(865_062_500, 340 * _KHZ, 2, 0),
            Channels(865_985 * _KHZ, 200 * _KHZ, 1, 2),
        ),
        max_channels=16,
    ),
    Region(
        name="RU864",
        section="2.13",
        data_rates=_COMMON,
        channels=(Channels(868_900 * _KHZ, 200 * _KHZ, 2, 0),),
        max_channels=16,
    ),
    Region(
        name="ISM2400",
        section="LoRa 2.4 GHz regional parameters 1.0",
        data_rates=_lora(812, 12, 11, 10, 9, 8, 7, 6, 5),
        channels=(
            Channels(2_403_000 * _KHZ, 76_000 * _KHZ, 2, 0, 812 * _KHZ),
            Channels(2_425_000 * _KHZ, 200 * _KHZ, 1, 2, 812 * _KHZ),
        ),
        max_channels=16,
    ),
)

REGIONS = {region.name: region for region in _ALL}
"""Every region by its name."""
