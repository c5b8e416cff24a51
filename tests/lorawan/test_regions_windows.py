"""Receive windows, payload limits, powers and sub-bands of every region."""

from __future__ import annotations

import pytest

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate
from lorabridge.lorawan.regions import REGIONS, Region

ALL = pytest.mark.parametrize("region", REGIONS.values(), ids=lambda region: region.name)
KHZ = 1000
AS923 = ("AS923-1", "AS923-2", "AS923-3", "AS923-4")


def width(data_rate: DataRate | None) -> int:
    return data_rate.bandwidth_hz if isinstance(data_rate, LoraDataRate) else 100 * KHZ


@pytest.mark.parametrize(
    ("region", "uplink_khz", "tx_ch", "rx1_khz"),
    [
        ("EU868", 868_100, 0, 868_100),
        ("EU868", 867_100, None, 867_100),
        ("US915", 902_300, 0, 923_300),
        ("US915", 903_700, 7, 927_500),
        ("US915", 903_900, 8, 923_300),
        ("US915", 914_200, 71, 927_500),
        ("US915", 902_300, None, None),
        ("AU915", 915_200, 0, 923_300),
        ("AU915", 927_800, 63, 927_500),
        ("CN470", 470_300, 0, 500_300),
        ("CN470", 479_900, 48, 500_300),
        ("CN470", 489_300, 95, 509_700),
    ],
)
def test_rx1_opens_where_the_region_says(region: str, uplink_khz: int, tx_ch: int | None, rx1_khz: int | None) -> None:
    expected = None if rx1_khz is None else rx1_khz * KHZ
    assert REGIONS[region].rx1_frequency_hz(uplink_khz * KHZ, tx_ch) == expected


@pytest.mark.parametrize(
    ("region", "uplink_dr", "offset", "dwell", "expected"),
    [
        ("EU868", 5, 0, False, 5),
        ("EU868", 5, 5, False, 0),
        ("EU868", 7, 2, False, 5),
        ("EU868", 0, 3, False, 0),
        ("EU868", 5, 6, False, None),
        ("EU868", 8, 0, False, None),
        ("EU868", -1, 0, False, None),
        ("EU868", 5, -1, False, None),
        ("US915", 0, 0, False, 10),
        ("US915", 0, 3, False, 8),
        ("US915", 3, 1, False, 12),
        ("US915", 4, 0, False, 13),
        ("US915", 4, 0, True, 13),
        ("US915", 0, 4, False, None),
        ("US915", 5, 0, False, None),
        ("AU915", 0, 0, False, 8),
        ("AU915", 2, 0, True, 10),
        ("AU915", 5, 0, False, 13),
        ("AU915", 6, 5, False, 9),
        ("AS923-1", 5, 0, False, 5),
        ("AS923-1", 2, 2, False, 0),
        ("AS923-1", 2, 2, True, 2),
        ("AS923-1", 0, 0, True, 2),
        ("AS923-1", 5, 6, False, 6),
        ("AS923-1", 5, 7, False, 7),
        ("AS923-1", 7, 7, False, 7),
        ("IN865", 5, 6, False, 5),
        ("IN865", 5, 7, False, 7),
        ("IN865", 6, 0, False, None),
        ("IN865", 7, 1, False, 5),
        ("KR920", 5, 1, False, 4),
        ("KR920", 6, 0, False, None),
        ("CN470", 5, 0, False, 5),
        ("ISM2400", 7, 5, False, 2),
    ],
)
def test_rx1_has_the_data_rate_of_the_table(
    region: str, uplink_dr: int, offset: int, dwell: bool, expected: int | None
) -> None:
    assert REGIONS[region].rx1_data_rate(uplink_dr, offset, dwell) == expected


@pytest.mark.parametrize(
    ("region", "rx2_khz", "rx2_dr", "max_eirp_dbm", "tx_powers", "max_offset"),
    [
        # TheThingsNetwork/lorawan-stack pkg/band (RP002-1.0.4) and Lora-net/LoRaMac-node src/mac/region agree on these.
        ("EU868", 869_525, 0, 16, 8, 5),
        ("US915", 923_300, 8, 30, 15, 3),
        ("CN779", 786_000, 0, 12.15, 6, 5),
        ("EU433", 434_665, 0, 12.15, 6, 5),
        ("AU915", 923_300, 8, 30, 15, 5),
        ("CN470", 505_300, 0, 19.15, 8, 5),
        ("AS923-1", 923_200, 2, 16, 8, 7),
        ("AS923-2", 921_400, 2, 16, 8, 7),
        ("AS923-3", 916_600, 2, 16, 8, 7),
        ("AS923-4", 917_300, 2, 16, 8, 7),
        ("KR920", 921_900, 0, 14, 8, 5),
        ("IN865", 866_550, 2, 30, 11, 7),
        ("RU864", 869_100, 0, 16, 8, 5),
        ("ISM2400", 2_423_000, 0, 10, 8, 5),
    ],
)
def test_rx2_and_powers_are_those_of_the_region(
    region: str, rx2_khz: int, rx2_dr: int, max_eirp_dbm: float, tx_powers: int, max_offset: int
) -> None:
    found = REGIONS[region]
    assert (found.rx2_frequency_hz, found.rx2_data_rate) == (rx2_khz * KHZ, rx2_dr)
    assert (found.max_eirp_dbm, found.tx_powers, found.max_rx1_dr_offset) == (max_eirp_dbm, tx_powers, max_offset)


def test_a_power_index_is_two_decibels_and_has_an_end() -> None:
    region = REGIONS["EU868"]
    assert [region.eirp_dbm(index) for index in range(region.tx_powers)] == [16, 14, 12, 10, 8, 6, 4, 2]
    for index in (-1, 8):
        with pytest.raises(ValueError, match="EU868 has TXPower 0 to 7"):
            region.eirp_dbm(index)


@pytest.mark.parametrize(
    ("region", "dwell", "expected"),
    [
        ("EU868", False, [59, 59, 59, 123, 250, 250, 250, 250, None]),
        ("EU868", True, [59, 59, 59, 123, 250, 250, 250, 250, None]),
        ("US915", True, [19, 61, 133, 250, 250, None]),
        ("AU915", False, [59, 59, 59, 123, 250, 250, 250, None]),
        ("AU915", True, [None, None, 19, 61, 133, 250, 250, None]),
        ("AS923-2", False, [59, 59, 123, 123, 250, 250, 250, 250, None]),
        ("AS923-2", True, [None, None, 19, 61, 133, 250, 250, 250, None]),
        ("IN865", False, [59, 59, 59, 123, 250, 250, None, 250, None]),
        ("KR920", False, [59, 59, 59, 123, 250, 250, None, None]),
        ("ISM2400", False, [59, 123, 248, 248, 248, 248, 248, 248, None]),
    ],
)
def test_uplinks_are_no_longer_than_the_table_says(region: str, dwell: bool, expected: list[int | None]) -> None:
    found = REGIONS[region]
    assert [found.max_mac_payload(dr, dwell=dwell, down=False) for dr in range(len(expected))] == expected


def test_downlinks_of_wide_channels_have_limits_of_their_own() -> None:
    for name in ("US915", "AU915"):
        limits = [REGIONS[name].max_mac_payload(dr) for dr in range(-1, 15)]
        assert limits == [*[None] * 9, 61, 137, 250, 250, 250, 250, None]


@pytest.mark.parametrize("region", AS923)
def test_the_dwell_time_shortens_what_a_device_that_was_told_of_it_is_sent(region: str) -> None:
    found = REGIONS[region]
    assert not found.default_downlink_dwell
    assert [found.max_mac_payload(dr, dwell=True) for dr in range(8)] == [None, None, 19, 61, 133, 250, 250, 250]
    assert [found.max_mac_payload(dr) for dr in range(8)] == [59, 59, 123, 123, 250, 250, 250, 250]


@ALL
def test_every_window_is_one_that_a_gateway_may_use(region: Region) -> None:
    rx2 = region.downlink_data_rates[region.rx2_data_rate]
    assert region.sub_band(region.rx2_frequency_hz, width(rx2)) is not None
    assert region.max_mac_payload(region.rx2_data_rate)
    for tx_ch in range(region.channel_count):
        hz = region.channel_hz(tx_ch)
        assert hz is not None
        for uplink_dr in region.channel_data_rates(tx_ch):
            assert region.data_rates[uplink_dr] is not None
            rx1_dr, rx1_hz = region.rx1_data_rate(uplink_dr, 0), region.rx1_frequency_hz(hz, tx_ch)
            assert rx1_dr is not None
            assert rx1_hz is not None
            assert region.sub_band(rx1_hz, width(region.downlink_data_rates[rx1_dr])) is not None


@ALL
def test_every_offset_leads_to_a_data_rate_there_is(region: Region) -> None:
    for uplink_dr, data_rate in enumerate(region.data_rates):
        for offset in range(region.max_rx1_dr_offset + 1):
            for dwell in (False, True):
                found = region.rx1_data_rate(uplink_dr, offset, dwell)
                assert (found is None) == (data_rate is None)
                assert found is None or region.downlink_data_rates[found] is not None


@ALL
def test_the_usual_channels_are_no_default_ones_and_find_room(region: Region) -> None:
    usual = region.usual_channels_hz
    assert len(set(usual)) == len(usual) <= region.max_channels - region.channel_count
    assert not set(usual) & set(region.join_channels_hz)
    assert all(region.sub_band(hz, 125 * KHZ) for hz in usual)
    assert not (region.fixed and usual)
    lowest, highest = region.usual_channel_data_rates
    assert region.fixed or 0 <= lowest < highest < len(region.data_rates)


@ALL
def test_data_rates_for_joins_and_adr_are_carried_by_the_default_channels(region: Region) -> None:
    carried = {dr for tx_ch in range(region.channel_count) for dr in region.channel_data_rates(tx_ch)}
    lowest, highest = region.adr_data_rates
    assert set(region.join_data_rates) | set(range(lowest, highest + 1)) <= carried
    assert all(
        region.max_mac_payload(dr, dwell=region.default_uplink_dwell, down=False) for dr in region.join_data_rates
    )
    assert region.channel_data_rates(region.channel_count) == ()
    assert region.channel_hz(region.channel_count) is None


@ALL
def test_join_channels_are_the_default_ones_by_their_index(region: Region) -> None:
    assert region.join_channels_hz == tuple(region.channel_hz(tx_ch) for tx_ch in range(region.channel_count))


@ALL
def test_limits_are_given_for_every_data_rate(region: Region) -> None:
    rates = max(len(region.data_rates), len(region.downlink_data_rates))
    assert len(region.payloads) == rates
    assert len(region.dwell_payloads) in (0, rates)
    assert len(region.rx1_data_rates) == len(region.data_rates)
    assert {len(row) for row in region.rx1_data_rates} == {region.max_rx1_dr_offset + 1}
    assert all(0 <= limit <= 250 for limit in (*region.payloads, *region.dwell_payloads))


@ALL
def test_sub_bands_do_not_overlap(region: Region) -> None:
    edges = [
        edge
        for band in sorted(region.sub_bands, key=lambda band: band.first_hz)
        for edge in (band.first_hz, band.last_hz)
    ]
    assert edges == sorted(edges)
    assert all(0 < band.duty_cycle <= 1 for band in region.sub_bands)


@pytest.mark.parametrize(
    ("khz", "bandwidth_khz", "duty_cycle", "power_dbm"),
    [
        (863_100, 125, 0.001, 16),
        (867_900, 125, 0.01, 16),
        (868_100, 125, 0.01, 16),
        (868_300, 250, 0.01, 16),
        (868_800, 100, 0.001, 16),
        (869_525, 125, 0.1, 27),
        (869_850, 125, 0.01, 16),
        (868_000, 125, None, 16),  # across an edge
        (868_650, 0, None, 16),  # alarms
        (869_525, 500, None, 27),
        (862_900, 0, None, 16),
        (870_100, 0, None, 16),
    ],
)
def test_a_carrier_lies_in_one_sub_band_of_europe(
    khz: int, bandwidth_khz: int, duty_cycle: float | None, power_dbm: int
) -> None:
    band = REGIONS["EU868"].sub_band(khz * KHZ, bandwidth_khz * KHZ)
    assert (None if band is None else band.duty_cycle) == duty_cycle
    if bandwidth_khz:
        assert REGIONS["EU868"].transmit_power_dbm(khz * KHZ) == power_dbm


@ALL
def test_no_gateway_is_told_to_send_more_than_the_law_or_its_concentrator_allows(region: Region) -> None:
    for band in region.sub_bands:
        assert region.transmit_power_dbm(band.first_hz) <= min(27, band.eirp_dbm)
    assert region.transmit_power_dbm(1) == min(27, *(band.eirp_dbm for band in region.sub_bands))


def test_only_some_regions_have_dwell_times_to_set() -> None:
    regions = REGIONS.values()
    assert {region.name for region in regions if region.has_tx_param_setup} == {"AU915", "ISM2400", *AS923}
    assert {region.name for region in regions if region.default_uplink_dwell} == {"US915", "AU915", *AS923}
    assert not any(region.default_downlink_dwell for region in regions)
    assert {region.name for region in regions if region.cf_list_type == 1} == {"US915", "AU915", "CN470"}


def test_fsk_is_only_where_the_region_has_it() -> None:
    fsk = FskDataRate(50_000)
    without = {region.name for region in REGIONS.values() if fsk not in region.downlink_data_rates}
    assert without == {"US915", "AU915", "KR920", "ISM2400"}
