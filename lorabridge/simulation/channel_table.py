"""The channels of an end-device as the device itself keeps them (RP002-1.0.4 §1.3 by region)."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regions.cf_list import parse as parse_cf_list
from lorabridge.lorawan.regions.channel_mask import apply_masks


class Channel(msgspec.Struct, frozen=True):
    """One uplink channel of a device."""

    index: int
    """TxCh of the MIC of 1.1."""
    frequency_hz: int
    data_rates: tuple[int, ...]


class ChannelTable:
    """Which channels the device has, which of them are on, and where RX1 of each is."""

    def __init__(self, region: Region, added_hz: tuple[int, ...] = ()) -> None:
        """The region's default channels, and `added_hz` after them."""
        self._region = region
        self._channels: dict[int, Channel] = {}
        self._downlink_hz: dict[int, int] = {}
        self.enabled: frozenset[int] = frozenset()
        for index in range(region.max_channels):
            frequency_hz = region.channel_hz(index)
            if frequency_hz is not None:
                self._channels[index] = Channel(index, frequency_hz, region.channel_data_rates(index))
        self.enabled = frozenset(self._channels)
        for place, frequency_hz in enumerate(added_hz):
            self.add(region.channel_count + place, frequency_hz, *region.usual_channel_data_rates)

    def add(self, index: int, frequency_hz: int, lowest: int, highest: int) -> None:
        """A channel beyond the default ones, enabled; frequency 0 takes it away (§5.6)."""
        self._downlink_hz.pop(index, None)
        if frequency_hz:
            self._channels[index] = Channel(index, frequency_hz, tuple(range(lowest, highest + 1)))
            self.enabled = self.enabled | {index}
        else:
            self._channels.pop(index, None)
            self.enabled -= {index}

    def take_cf_list(self, cf_list: bytes) -> None:
        """The channels of a join-accept. Raises ValueError for bytes that are no CFList."""
        found = parse_cf_list(cf_list)
        if found.cf_list_type == 0:
            for place, frequency_hz in enumerate(found.frequencies_hz):
                index = self._region.channel_count + place
                self.add(index, frequency_hz, *self._region.usual_channel_data_rates)
        else:
            self.enabled = found.channels & frozenset(self._channels)

    def masked(self, masks: list[tuple[int, int]]) -> frozenset[int] | None:
        """The channels that a block of LinkADRReq would leave on, None when it must be refused."""
        return apply_masks(self._region, self.enabled, masks, frozenset(self._channels))

    def enable_defaults(self) -> None:
        """The last step of the ADR back-off (§4.3.1.1): every default channel on again."""
        self.enabled |= {index for index in self._channels if index < self._region.channel_count}

    def usable(self, data_rate: int, among: frozenset[int] | None = None) -> list[Channel]:
        """The enabled channels (or those `among`) that carry a data rate."""
        indices = self.enabled if among is None else among
        return [self._channels[index] for index in sorted(indices) if data_rate in self._channels[index].data_rates]

    def joining(self, data_rate: int) -> list[Channel]:
        """The default channels that carry a data rate: where join-requests go."""
        defaults = frozenset(index for index in self._channels if index < self._region.channel_count)
        return self.usable(data_rate, defaults)

    def exists(self, index: int) -> bool:
        """Whether there is a channel of this index."""
        return index in self._channels

    def move_downlink(self, index: int, frequency_hz: int) -> None:
        """RX1 of a channel is elsewhere (DlChannelReq, §5.10)."""
        self._downlink_hz[index] = frequency_hz

    def rx1_hz(self, channel: Channel) -> int | None:
        """Where RX1 opens after an uplink on a channel."""
        moved = self._downlink_hz.get(channel.index)
        return moved or self._region.rx1_frequency_hz(channel.frequency_hz, channel.index)
