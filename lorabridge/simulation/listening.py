"""When, where and to what an end-device listens (TS001-1.0.4 §3.3, §15; RP002-1.0.4 §3)."""

from __future__ import annotations

import enum

import msgspec

from lorabridge.lorawan.air import DataRate
from lorabridge.lorawan.regions import Region
from lorabridge.simulation.channel_table import Channel
from lorabridge.simulation.device_mac import DeviceMac

_SECOND = 1_000_000_000
JOIN_ACCEPT_DELAY1 = 5
TOLERANCE_NS = 20_000
"""How exactly a gateway has to begin: "within +/- 20 microseconds" of the opening (§3.3.1)."""


class Radiation(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that a gateway sends."""

    phy_payload: bytes
    starts_at: int
    """Nanoseconds of simulated time."""
    frequency_hz: int
    data_rate: DataRate
    inverted: bool = True
    """LoRa with inverted IQ: what devices listen for."""
    ordered_at: int | None = None
    """When the gateway was told to send it, where it was told beforehand."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One receive window after an uplink."""

    number: int
    opens_at: int
    frequency_hz: int
    data_rate: int
    """Downlink data rate by its index in the region."""


class Slot(enum.Enum):
    """In which window a downlink was heard."""

    RX1 = 1
    RX2 = 2
    RXC = 3
    """RX2 of class C, open at other times too."""


def windows_after(mac: DeviceMac, channel: Channel, data_rate: int, ends_at: int) -> tuple[Window, ...]:
    """RX1 and RX2 after a data frame."""
    delay = mac.rx1_delay * _SECOND
    rx2 = _window(2, ends_at + delay + _SECOND, mac.rx2_frequency_hz, mac.rx2_data_rate)
    rx1_dr = mac.region.rx1_data_rate(data_rate, mac.rx1_dr_offset, mac.downlink_dwell)
    return _with_rx1(ends_at + delay, mac.channels.rx1_hz(channel), rx1_dr, rx2)


def join_windows_after(region: Region, channel: Channel, data_rate: int, ends_at: int) -> tuple[Window, ...]:
    """RX1 and RX2 after a join-request: the region's defaults, later."""
    delay = JOIN_ACCEPT_DELAY1 * _SECOND
    rx2 = _window(2, ends_at + delay + _SECOND, region.rx2_frequency_hz, region.rx2_data_rate)
    rx1_hz = region.rx1_frequency_hz(channel.frequency_hz, channel.index)
    rx1_dr = region.rx1_data_rate(data_rate, 0, region.default_downlink_dwell)
    return _with_rx1(ends_at + delay, rx1_hz, rx1_dr, rx2)


def rejoin_windows_after(mac: DeviceMac, channel: Channel, data_rate: int, ends_at: int) -> tuple[Window, ...]:
    """RX1 and RX2 after a rejoin-request 0 or 2: the settings of the session, at the time of a join-accept."""
    later = (JOIN_ACCEPT_DELAY1 - mac.rx1_delay) * _SECOND
    return windows_after(mac, channel, data_rate, ends_at + later)


def caught_in(region: Region, windows: tuple[Window, ...], radiation: Radiation) -> Window | None:
    """The window that a transmission begins in, None when it is outside all of them."""
    for window in windows:
        if abs(radiation.starts_at - window.opens_at) <= TOLERANCE_NS and fits(
            region, window.frequency_hz, window.data_rate, radiation
        ):
            return window
    return None


def fits(region: Region, frequency_hz: int, data_rate: int, radiation: Radiation) -> bool:
    """Whether a receiver set so demodulates a transmission."""
    rates = region.downlink_data_rates
    wanted = rates[data_rate] if data_rate < len(rates) else None
    return radiation.inverted and radiation.frequency_hz == frequency_hz and radiation.data_rate == wanted


def _with_rx1(opens_at: int, frequency_hz: int | None, data_rate: int | None, rx2: Window) -> tuple[Window, ...]:
    if frequency_hz is None or data_rate is None:
        return (rx2,)
    return _window(1, opens_at, frequency_hz, data_rate), rx2


def _window(number: int, opens_at: int, frequency_hz: int, data_rate: int) -> Window:
    return Window(number=number, opens_at=opens_at, frequency_hz=frequency_hz, data_rate=data_rate)
