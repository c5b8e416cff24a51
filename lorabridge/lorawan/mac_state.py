"""What the MAC layer of a device is set to, as far as the device has confirmed it. Kept in its session."""

from __future__ import annotations

import msgspec


class AddedChannel(msgspec.Struct, frozen=True, gc=False):
    """An uplink channel that the device has beyond the region's default ones (NewChannelReq, CFList type 0)."""

    index: int
    """ChIndex."""
    frequency_hz: int
    min_data_rate: int
    max_data_rate: int


class RejoinParameters(msgspec.Struct, frozen=True, gc=False):
    """RejoinParamSetupReq as the device took it (TS001-1.1 §5)."""

    max_time_n: int
    max_count_n: int


class MacState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The settings of a device's MAC layer. Defaults are those of a device that was just activated."""

    rx1_delay: int = 1
    """Seconds, 1 to 15 (RXTimingSetupReq, RxDelay of a join-accept)."""
    rx1_dr_offset: int = 0
    rx2_data_rate: int | None = None
    """None: the region's default."""
    rx2_frequency_hz: int | None = None
    channels: tuple[AddedChannel, ...] = ()
    downlink_hz: tuple[tuple[int, int], ...] = ()
    """(channel index, RX1 frequency) where DlChannelReq set one."""
    enabled: frozenset[int] | None = None
    """Indices of the enabled uplink channels; None: all the device has."""
    data_rate: int | None = None
    """As the last LinkADRReq set it, or, where ADR is at work, as the last uplink had it; None: not known."""
    tx_power: int | None = None
    """TXPower index as the last LinkADRReq set it; None: the device's own choice."""
    nb_trans: int = 1
    max_duty_cycle: int = 0
    """Exponent of DutyCycleReq."""
    uplink_dwell: bool | None = None
    downlink_dwell: bool | None = None
    max_eirp_index: int | None = None
    """TXParamSetupReq; None: the region's default."""
    rejoin: RejoinParameters | None = None
    adr_ack_limit_exponent: int | None = None
    adr_ack_delay_exponent: int | None = None
    is_class_c: bool | None = None
    """DeviceModeInd of 1.1; None: what the device file says."""
    asked: bytes = b""
    """Requests sent to the device and not yet answered, as they were on the air."""
    refused: frozenset[bytes] = frozenset()
    """Requests that the device refused, as they were on the air: they are not made again in this session."""
    status_due_in: int = 0
    """Uplinks until the next DevStatusReq."""
    margins: bytes = b""
    """SNR of the last uplinks at this data rate and power, a quarter of a dB each, offset by 128; newest last."""
    missed: int = 0
    """Uplinks lost among those of `margins`."""


DEFAULT_MAC_STATE = MacState()
