"""What a region is: channels, data rates, windows and limits (RP002-1.0.4), and what is asked of it."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.air import DataRate, LoraDataRate

CONCENTRATOR_DBM = 27
"""The strongest that concentrators send, whatever the law allows."""
SUB_BAND_CHANNELS = 8
"""Channels of 125 kHz that a gateway hears of a fixed plan: as many as a concentrator demodulates at once."""


class Channels(msgspec.Struct, frozen=True):
    """A run of equally spaced channels: the first frequency, the step, how many, and the index of the first."""

    first_hz: int
    step_hz: int
    count: int
    first_index: int
    bandwidth_hz: int = 125_000
    min_data_rate: int = 0
    max_data_rate: int = 5

    def hz(self, index: int) -> int | None:
        """Frequency of the channel with this index, None when the run does not have it."""
        place = index - self.first_index
        return self.first_hz + place * self.step_hz if 0 <= place < self.count else None

    @property
    def all_hz(self) -> tuple[int, ...]:
        """Every frequency of the run, in order."""
        return tuple(self.first_hz + place * self.step_hz for place in range(self.count))


class SubBand(msgspec.Struct, frozen=True):
    """A part of the spectrum in which a gateway may send: edges in Hz, share of the time, EIRP in dBm."""

    first_hz: int
    last_hz: int
    duty_cycle: float
    eirp_dbm: int

    def holds(self, frequency_hz: int, bandwidth_hz: int = 0) -> bool:
        """Whether a carrier of this width lies within the edges."""
        half = bandwidth_hz // 2
        return self.first_hz <= frequency_hz - half and frequency_hz + half <= self.last_hz


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """One regional channel plan."""

    name: str
    section: str
    """Where RP002-1.0.4 describes it."""

    data_rates: tuple[DataRate | None, ...]
    """Uplink data rates by TxDr; None where reserved."""
    downlink_data_rates: tuple[DataRate | None, ...]
    """Downlink data rates by their index; None where reserved, or for uplinks only."""
    payloads: tuple[int, ...]
    """M by data rate index of either direction: the longest MACPayload, without repeaters; 0 where reserved."""
    dwell_payloads: tuple[int, ...] = ()
    """The same under a dwell time of 400 ms; 0 where the data rate is then unusable. Empty: no dwell time to set."""

    channels: tuple[Channels, ...]
    """The channels every device has by default, with their TxCh."""
    max_channels: int
    """How many channels a device can have; the ones beyond the default are given by CFList or NewChannel."""
    usual_channels_hz: tuple[int, ...] = ()
    """What the usual plan adds to the default channels, in the order of their index."""
    usual_channel_data_rates: tuple[int, int] = (0, 5)
    """Lowest and highest data rate of an added channel, as CFList implies them."""
    cf_list_type: int | None = 0
    """CFListType of a join-accept: 0 frequencies, 1 channel masks, None when the region has no CFList."""
    join_data_rates: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """Data rates of join-requests."""

    rx1_channels: tuple[Channels, ...] = ()
    """Where RX1 opens: uplink channel modulo their count. Empty: where the uplink was."""
    rx1_data_rates: tuple[tuple[int, ...], ...]
    """Data rate of RX1 by uplink data rate and RX1DROffset."""
    rx2_frequency_hz: int
    rx2_data_rate: int

    max_eirp_dbm: float
    """Of a device: what TXPower index 0 means unless TXParamSetupReq says otherwise."""
    tx_powers: int
    """How many TXPower indices there are; each is 2 dB below the one before."""
    adr_data_rates: tuple[int, int] = (0, 5)
    """Lowest and highest data rate that ADR gives a device."""
    has_tx_param_setup: bool = False
    """Whether devices know TXParamSetupReq; in AU915 those before 1.0.3 do not."""
    default_uplink_dwell: bool = False
    default_downlink_dwell: bool = False
    """What a device takes for granted until TXParamSetupReq says otherwise."""

    sub_bands: tuple[SubBand, ...]
    """Where a gateway may send. They do not overlap."""
    code_rate: str = "4/5"
    """Of downlinks."""

    @property
    def channel_count(self) -> int:
        """How many channels a device has by default."""
        return sum(run.count for run in self.channels)

    @property
    def fixed(self) -> bool:
        """Whether the channel plan is fixed: no channel can be added."""
        return self.channel_count == self.max_channels

    @property
    def max_rx1_dr_offset(self) -> int:
        """The greatest RX1DROffset."""
        return len(self.rx1_data_rates[0]) - 1

    @property
    def join_channels_hz(self) -> tuple[int, ...]:
        """Where devices send join-requests: the default channels, by TxCh."""
        return tuple(frequency for run in self.channels for frequency in run.all_hz)

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
            return self.channel_count + added_hz.index(frequency_hz)
        return None

    def tx_ch_candidates(self, frequency_hz: int, data_rate: DataRate, added_hz: tuple[int, ...]) -> tuple[int, ...]:
        """What TxCh of an uplink can be: one index for a known channel, for an unknown one every free index."""
        known = self.tx_ch(frequency_hz, data_rate, added_hz)
        if known is not None:
            return (known,)
        return tuple(range(self.channel_count + len(added_hz), self.max_channels))

    def channel_hz(self, tx_ch: int) -> int | None:
        """Frequency of a default channel, None for any other index."""
        return next((hz for run in self.channels if (hz := run.hz(tx_ch)) is not None), None)

    def channel_data_rates(self, tx_ch: int) -> tuple[int, ...]:
        """The uplink data rates that a default channel carries; none for any other index."""
        for run in self.channels:
            if run.hz(tx_ch) is not None:
                return tuple(range(run.min_data_rate, run.max_data_rate + 1))
        return ()

    def rx1_frequency_hz(self, uplink_hz: int, tx_ch: int | None) -> int | None:
        """Where RX1 opens after an uplink; None when that follows from a channel which is not known."""
        if not self.rx1_channels:
            return uplink_hz
        if tx_ch is None:
            return None
        index = tx_ch % sum(run.count for run in self.rx1_channels)
        return next((hz for run in self.rx1_channels if (hz := run.hz(index)) is not None), None)

    def rx1_data_rate(self, uplink_dr: int, rx1_dr_offset: int, downlink_dwell: bool = False) -> int | None:
        """Downlink data rate of RX1; None when the region has no such data rate or offset."""
        if not (0 <= uplink_dr < len(self.rx1_data_rates) and 0 <= rx1_dr_offset <= self.max_rx1_dr_offset):
            return None
        if self.data_rates[uplink_dr] is None:
            return None
        data_rate = self.rx1_data_rates[uplink_dr][rx1_dr_offset]
        if not downlink_dwell:
            return data_rate
        # "MinDR depends on the DownlinkDwellTime" (AS923, RP002-1.0.4 §2.10.7): the slowest that is still usable.
        faster = range(data_rate, len(self.downlink_data_rates))
        return next((dr for dr in faster if self.max_mac_payload(dr, dwell=True)), None)

    def max_mac_payload(self, data_rate: int, *, dwell: bool = False, down: bool = True) -> int | None:
        """M: the longest MACPayload in bytes without its MIC (N = M - 8); None when the data rate cannot be used.

        `dwell`: whether the device was told, or takes for granted, that the dwell time bounds that direction.
        """
        data_rates = self.downlink_data_rates if down else self.data_rates
        if not 0 <= data_rate < len(data_rates) or data_rates[data_rate] is None:
            return None
        payloads = self.dwell_payloads if dwell and self.dwell_payloads else self.payloads
        return payloads[data_rate] or None

    def eirp_dbm(self, tx_power: int) -> float:
        """EIRP of a device in dBm by TXPower index. Raises ValueError for an index the region does not have."""
        if not 0 <= tx_power < self.tx_powers:
            raise ValueError(f"{self.name} has TXPower 0 to {self.tx_powers - 1}, not {tx_power}")
        return self.max_eirp_dbm - 2 * tx_power

    def sub_band(self, frequency_hz: int, bandwidth_hz: int = 0) -> SubBand | None:
        """The sub-band that holds a whole carrier, None where a gateway must not send."""
        return next((band for band in self.sub_bands if band.holds(frequency_hz, bandwidth_hz)), None)

    def transmit_power_dbm(self, frequency_hz: int) -> int:
        """EIRP of a gateway in dBm; outside every sub-band the least that is allowed in any."""
        band = self.sub_band(frequency_hz)
        allowed = min(sub_band.eirp_dbm for sub_band in self.sub_bands) if band is None else band.eirp_dbm
        return min(allowed, CONCENTRATOR_DBM)
