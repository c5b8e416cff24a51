"""What the network wants of the MAC layer of its devices."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.mac_state import RejoinParameters


class MacPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that devices are brought to. What a device's version or region has not got is not asked of it."""

    rx1_delay: int = 1
    """Seconds, 1 to 15."""
    rx1_dr_offset: int = 0
    """The region's greatest one where it is less than this."""
    rx2_data_rate: int | None = None
    rx2_frequency_hz: int | None = None
    """None: the region's default."""
    rx1_frequency_hz: int | None = None
    """RX1 of every channel; None: as the region says."""
    channels_hz: tuple[int, ...] = ()
    """Uplink channels beyond the region's default ones; a fixed channel plan has none to add."""
    enabled: frozenset[int] | None = None
    """Of a fixed channel plan, the channels that the gateways hear; None: all."""
    adr: bool = True
    adr_margin_db: float = 10.0
    """Installation margin: how much more SNR than demodulation needs a device is left with."""
    max_duty_cycle: int | None = None
    """Exponent of DutyCycleReq; None: whatever the device has."""
    uplink_dwell: bool | None = None
    downlink_dwell: bool | None = None
    max_eirp_index: int | None = None
    """TXParamSetupReq; None: the region's default."""
    status_every: int = 0
    """Uplinks between two DevStatusReq; 0: never."""
    rejoin: RejoinParameters | None = None
    """1.1; None: whatever the device has."""
    adr_ack_limit_exponent: int | None = None
    adr_ack_delay_exponent: int | None = None
    """1.1; both None: whatever the device has, one None: the default of the specification."""


DEFAULT_MAC_POLICY = MacPolicy()
