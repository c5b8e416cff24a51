"""Receive windows: when, where and how fast, as the regional parameters say."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import Antenna, FskDataRate, LoraDataRate, TxTiming
from lorabridge.lorawan.mac_state import AddedChannel, MacState
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.windows import (
    channel_of,
    class_a_windows,
    downlink_airtime_us,
    multicast_window,
    rx2,
    transmission_after,
    transmission_now,
)
from tests.lorawan.builders import GATEWAY, heard

EU868, US915, AS923 = REGIONS["EU868"], REGIONS["US915"], REGIONS["AS923-1"]
SF7, SF12 = LoraDataRate(7, 125_000), LoraDataRate(12, 125_000)
UPLINK = heard(b"", tmst=0xFFFF_FFFF, frequency_hz=868_300_000, data_rate=SF7)
DEFAULT = MacState()


def test_rx1_follows_the_uplink_and_rx2_stands_where_the_region_puts_it() -> None:
    first, second = class_a_windows(EU868, DEFAULT, UPLINK)
    assert (first.number, first.delay_us, first.frequency_hz, first.data_rate) == (1, 1_000_000, 868_300_000, SF7)
    assert (second.number, second.delay_us, second.frequency_hz, second.data_rate) == (2, 2_000_000, 869_525_000, SF12)
    assert (first.max_mac_payload, second.max_mac_payload) == (250, 59)


def test_a_join_accept_goes_five_seconds_after_the_request_whatever_the_session_says() -> None:
    mac = MacState(rx1_delay=3)
    assert [one.delay_us for one in class_a_windows(EU868, mac, UPLINK)] == [3_000_000, 4_000_000]
    assert [one.delay_us for one in class_a_windows(EU868, mac, UPLINK, join=True)] == [5_000_000, 6_000_000]


def test_what_the_device_was_told_moves_the_windows() -> None:
    mac = MacState(rx1_dr_offset=2, rx2_data_rate=3, rx2_frequency_hz=869_000_000, downlink_hz=((1, 867_000_000),))
    first, second = class_a_windows(EU868, mac, UPLINK)
    assert (first.frequency_hz, first.data_rate) == (867_000_000, LoraDataRate(9, 125_000))
    assert (second.frequency_hz, second.data_rate) == (869_000_000, LoraDataRate(9, 125_000))


def test_a_fixed_plan_answers_on_the_downlink_channel_of_the_uplink() -> None:
    uplink = heard(b"", tmst=0, frequency_hz=904_100_000, data_rate=LoraDataRate(10, 125_000))
    first, second = class_a_windows(US915, DEFAULT, uplink)
    # Channel 9 of 64, modulo 8; DR0 is answered at DR10.
    assert (first.frequency_hz, first.data_rate) == (923_900_000, LoraDataRate(10, 500_000))
    assert (second.frequency_hz, second.data_rate) == (923_300_000, LoraDataRate(12, 500_000))


def test_an_uplink_that_no_channel_or_data_rate_explains_has_rx2_only() -> None:
    unknown_channel = heard(b"", tmst=0, frequency_hz=904_150_000, data_rate=LoraDataRate(10, 125_000))
    assert [one.number for one in class_a_windows(US915, DEFAULT, unknown_channel)] == [2]
    unknown_rate = heard(b"", tmst=0, data_rate=LoraDataRate(5, 125_000))
    assert [one.number for one in class_a_windows(EU868, DEFAULT, unknown_rate)] == [2]
    assert [one.number for one in class_a_windows(EU868, MacState(rx1_dr_offset=7), UPLINK)] == [2]
    assert class_a_windows(EU868, MacState(rx2_data_rate=14), unknown_rate) == ()


def test_dwell_time_shortens_what_fits() -> None:
    uplink = heard(b"", tmst=0, frequency_hz=923_200_000, data_rate=LoraDataRate(10, 125_000))
    long, _ = class_a_windows(AS923, MacState(downlink_dwell=False), uplink)
    short, _ = class_a_windows(AS923, MacState(downlink_dwell=True), uplink)
    assert short.max_mac_payload < long.max_mac_payload


def test_the_index_of_a_channel_comes_from_the_session_or_from_the_device_file() -> None:
    added = heard(b"", frequency_hz=867_100_000)
    assert channel_of(EU868, DEFAULT, added) is None
    assert channel_of(EU868, DEFAULT, added, (867_100_000,)) == 3
    mac = MacState(channels=(AddedChannel(5, 867_300_000, 0, 5), AddedChannel(7, 867_100_000, 0, 5)))
    assert channel_of(EU868, mac, added) == 7


def test_the_order_counts_from_the_gateways_own_clock_and_wraps_with_it() -> None:
    heard_by = msgspec.structs.replace(
        UPLINK, antennas=(Antenna(antenna=0, snr_db=1.0), Antenna(antenna=1, snr_db=5.0))
    )
    first, _ = class_a_windows(EU868, DEFAULT, heard_by)
    order = transmission_after(EU868, first, b"frame", heard_by)
    assert (order.timing, order.tmst, order.antenna) == (TxTiming.AT_TMST, 999_999, 1)
    assert (order.invert_polarity, order.crc, order.preamble_symbols, order.power_dbm) == (True, False, 8, 16)
    with pytest.raises(ValueError, match="did not say when it heard"):
        transmission_after(EU868, first, b"", heard(b""))


def test_class_c_is_sent_at_once_and_fsk_as_fsk_is() -> None:
    window = rx2(EU868, MacState(rx2_data_rate=7))
    assert window is not None
    order = transmission_now(EU868, window, b"frame", GATEWAY)
    assert isinstance(order.data_rate, FskDataRate)
    assert (order.timing, order.tmst, order.power_dbm) == (TxTiming.IMMEDIATELY, None, 27)
    assert (order.invert_polarity, order.crc, order.preamble_symbols, order.frequency_deviation_hz) == (
        False,
        True,
        5,
        25_000,
    )
    assert downlink_airtime_us(window, 10) < 10_000


def test_a_multicast_group_listens_in_rx2_unless_it_says_otherwise() -> None:
    assert multicast_window(EU868, None, None) == rx2(EU868, DEFAULT)
    window = multicast_window(EU868, 868_500_000, 5)
    assert window is not None
    assert (window.frequency_hz, window.data_rate) == (868_500_000, SF7)


@given(st.sampled_from(sorted(REGIONS)), st.data())
def test_every_default_channel_of_every_region_has_windows_in_which_a_gateway_may_send(
    name: str, data: st.DataObject
) -> None:
    region = REGIONS[name]
    tx_ch = data.draw(st.sampled_from([run.first_index + n for run in region.channels for n in range(run.count)]))
    number = data.draw(st.sampled_from(region.channel_data_rates(tx_ch)))
    frequency_hz, data_rate = region.channel_hz(tx_ch), region.data_rates[number]
    assert frequency_hz is not None
    assert data_rate is not None
    windows = class_a_windows(region, DEFAULT, heard(b"", tmst=0, frequency_hz=frequency_hz, data_rate=data_rate))
    assert windows[-1].number == 2
    assert all(region.sub_band(window.frequency_hz) is not None for window in windows)
