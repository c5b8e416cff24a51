"""The receive windows of a device: when it listens after an uplink, and where (TS001-1.0.4 §3.3, RP002-1.0.4)."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.air import FskDataRate, LoraDataRate, Reception, Transmission, TxTiming
from lorabridge.lorawan.airtime import time_on_air_us
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.types import EUI64

JOIN_ACCEPT_DELAY1 = 5
"""Seconds (RP002-1.0.4 §2, the same in every region)."""
WINDOW_STEP = 1
"""RX2 opens so many seconds after RX1."""
_MICROSECONDS = 1_000_000
_TMST_MASK = 0xFFFF_FFFF
FSK_DEVIATION_HZ = 25_000
"""RP002-1.0.4 §2.4.3: 50 kbit/s with 25 kHz."""
PREAMBLE_SYMBOLS = 8


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One receive window."""

    number: int
    """1 or 2."""
    delay_us: int
    """From the end of the uplink to its opening; 0 for class C, which is open."""
    frequency_hz: int
    data_rate: LoraDataRate | FskDataRate
    max_mac_payload: int
    """Bytes of MACPayload that fit (M of the regional tables)."""
    code_rate: str = "4/5"
    is_bound_by_dwell: bool = False
    """The device was told that downlinks keep to the dwell time."""


def class_a_windows(
    region: Region, mac: MacState, uplink: Reception, *, join: bool = False, added_hz: tuple[int, ...] = ()
) -> tuple[Window, ...]:
    """RX1 and RX2 after an uplink, as far as the region has them; `added_hz`: what the device file adds to the plan."""
    delay = (JOIN_ACCEPT_DELAY1 if join else mac.rx1_delay) * _MICROSECONDS
    found = [_rx1(region, mac, uplink, delay, added_hz), rx2(region, mac, delay + WINDOW_STEP * _MICROSECONDS)]
    return tuple(window for window in found if window is not None)


def rx2(region: Region, mac: MacState, delay_us: int = 0) -> Window | None:
    """RX2, which a device of class C holds open at other times too."""
    number = region.rx2_data_rate if mac.rx2_data_rate is None else mac.rx2_data_rate
    frequency_hz = region.rx2_frequency_hz if mac.rx2_frequency_hz is None else mac.rx2_frequency_hz
    return _window(region, mac, 2, delay_us, frequency_hz, number)


def multicast_window(region: Region, frequency_hz: int | None, data_rate: int | None) -> Window | None:
    """Where a multicast group of class C listens: RX2 of the region unless the group says otherwise."""
    return rx2(region, MacState(rx2_frequency_hz=frequency_hz, rx2_data_rate=data_rate))


def _rx1(region: Region, mac: MacState, uplink: Reception, delay_us: int, added_hz: tuple[int, ...]) -> Window | None:
    """RX1: from the uplink's own channel and data rate."""
    uplink_dr = region.tx_dr(uplink.data_rate)
    if uplink_dr is None:
        return None
    tx_ch = channel_of(region, mac, uplink, added_hz)
    frequency_hz = dict(mac.downlink_hz).get(-1 if tx_ch is None else tx_ch)
    if frequency_hz is None:
        frequency_hz = region.rx1_frequency_hz(uplink.frequency_hz, tx_ch)
    number = region.rx1_data_rate(uplink_dr, mac.rx1_dr_offset, downlink_dwell=has_downlink_dwell(region, mac))
    if frequency_hz is None or number is None:
        return None
    return _window(region, mac, 1, delay_us, frequency_hz, number)


def channel_of(region: Region, mac: MacState, uplink: Reception, added_hz: tuple[int, ...] = ()) -> int | None:
    """The index of the channel that an uplink was sent on, None when it is on none that we know of."""
    for channel in mac.channels:
        if channel.frequency_hz == uplink.frequency_hz:
            return channel.index
    return region.tx_ch(uplink.frequency_hz, uplink.data_rate, added_hz)


def has_downlink_dwell(region: Region, mac: MacState) -> bool:
    """Whether downlinks to the device are bound by the dwell time, as it was told or by default."""
    return region.default_downlink_dwell if mac.downlink_dwell is None else mac.downlink_dwell


def _window(region: Region, mac: MacState, number: int, delay_us: int, frequency_hz: int, dr: int) -> Window | None:
    rates = region.downlink_data_rates
    data_rate = rates[dr] if 0 <= dr < len(rates) else None
    dwell = has_downlink_dwell(region, mac)
    limit = region.max_mac_payload(dr, dwell=dwell)
    if data_rate is None or limit is None:
        return None
    return Window(
        number=number,
        delay_us=delay_us,
        frequency_hz=frequency_hz,
        data_rate=data_rate,
        max_mac_payload=limit,
        code_rate=region.code_rate,
        is_bound_by_dwell=dwell,
    )


def downlink_airtime_us(window: Window, size: int) -> int:
    """Time on air of a PHYPayload of `size` bytes in a window: downlinks carry no CRC (TS001-1.0.4 §3.1)."""
    return time_on_air_us(
        window.data_rate, size, code_rate=window.code_rate, preamble_symbols=PREAMBLE_SYMBOLS, crc=_has_crc(window)
    )


def transmission_after(region: Region, window: Window, phy_payload: bytes, copy: Reception) -> Transmission:
    """The order for the gateway that heard `copy`, timed by its own counter. Raises ValueError without one."""
    if copy.tmst is None:
        raise ValueError(f"gateway {copy.gateway_eui} did not say when it heard the frame")
    return _transmission(
        region, window, phy_payload, copy.gateway_eui, TxTiming.AT_TMST, copy.tmst + window.delay_us & _TMST_MASK, copy
    )


def transmission_now(region: Region, window: Window, phy_payload: bytes, gateway_eui: EUI64) -> Transmission:
    """The order to send at once: class C."""
    return _transmission(region, window, phy_payload, gateway_eui, TxTiming.IMMEDIATELY, None, None)


def _transmission(  # the fields of the order, from one place
    region: Region,
    window: Window,
    phy_payload: bytes,
    gateway_eui: EUI64,
    timing: TxTiming,
    tmst: int | None,
    copy: Reception | None,
) -> Transmission:
    is_fsk = isinstance(window.data_rate, FskDataRate)
    best = None if copy is None or not copy.antennas else max(copy.antennas, key=lambda one: one.snr_db or -99.0)
    return Transmission(
        phy_payload=phy_payload,
        gateway_eui=gateway_eui,
        timing=timing,
        tmst=tmst,
        frequency_hz=window.frequency_hz,
        data_rate=window.data_rate,
        power_dbm=region.transmit_power_dbm(window.frequency_hz),
        code_rate=window.code_rate,
        antenna=None if best is None else best.antenna,
        board=None if copy is None else copy.board,
        invert_polarity=not is_fsk,
        crc=_has_crc(window),
        preamble_symbols=5 if is_fsk else PREAMBLE_SYMBOLS,
        frequency_deviation_hz=FSK_DEVIATION_HZ if is_fsk else None,
    )


def _has_crc(window: Window) -> bool:
    """LoRa downlinks have none; FSK frames always do (RP002-1.0.4 §2.1)."""
    return isinstance(window.data_rate, FskDataRate)
