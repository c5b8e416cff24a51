"""What the regional parameters (RP002-1.0.4) say of uplinks."""

from __future__ import annotations

import pytest

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate
from lorabridge.lorawan.regions import REGIONS

SF7, SF12 = LoraDataRate(7, 125_000), LoraDataRate(12, 125_000)
SF8_WIDE = LoraDataRate(8, 500_000)
ISM_SLOW = LoraDataRate(12, 812_000)


@pytest.mark.parametrize(
    ("region", "tx_dr", "data_rate"),
    [
        ("EU868", 0, SF12),
        ("EU868", 5, SF7),
        ("EU868", 6, LoraDataRate(7, 250_000)),
        ("EU868", 7, FskDataRate(50_000)),
        ("EU868", None, LoraDataRate(6, 125_000)),
        ("EU868", None, FskDataRate(100_000)),
        ("US915", 0, LoraDataRate(10, 125_000)),
        ("US915", 3, SF7),
        ("US915", 4, SF8_WIDE),
        ("US915", None, SF12),
        ("CN779", 7, FskDataRate(50_000)),
        ("EU433", 0, SF12),
        ("AU915", 0, SF12),
        ("AU915", 5, SF7),
        ("AU915", 6, SF8_WIDE),
        ("CN470", 5, SF7),
        ("CN470", 6, LoraDataRate(7, 500_000)),
        ("CN470", 7, FskDataRate(50_000)),
        ("AS923-1", 6, LoraDataRate(7, 250_000)),
        ("KR920", 5, SF7),
        ("KR920", None, FskDataRate(50_000)),
        ("IN865", 5, SF7),
        ("IN865", None, LoraDataRate(7, 250_000)),
        ("IN865", 7, FskDataRate(50_000)),
        ("RU864", 6, LoraDataRate(7, 250_000)),
        ("ISM2400", 0, ISM_SLOW),
        ("ISM2400", 7, LoraDataRate(5, 812_000)),
    ],
)
def test_data_rates_have_their_number(region: str, tx_dr: int | None, data_rate: DataRate) -> None:
    assert REGIONS[region].tx_dr(data_rate) == tx_dr


@pytest.mark.parametrize(
    ("region", "tx_ch", "frequency_hz", "data_rate"),
    [
        ("EU868", 0, 868_100_000, SF7),
        ("EU868", 2, 868_500_000, SF12),
        ("EU868", None, 868_700_000, SF7),
        ("EU868", None, 868_200_000, SF7),
        ("EU868", None, 867_900_000, SF7),
        ("US915", 0, 902_300_000, SF7),
        ("US915", 63, 914_900_000, SF7),
        ("US915", None, 915_100_000, SF7),
        ("US915", 64, 903_000_000, SF8_WIDE),
        ("US915", 71, 914_200_000, SF8_WIDE),
        ("US915", None, 902_300_000, SF8_WIDE),
        ("US915", None, 903_000_000, FskDataRate(50_000)),
        ("CN779", 1, 779_700_000, SF7),
        ("EU433", 0, 433_175_000, SF7),
        ("EU433", 2, 433_575_000, SF7),
        ("AU915", 0, 915_200_000, SF7),
        ("AU915", 63, 927_800_000, SF7),
        ("AU915", 64, 915_900_000, SF8_WIDE),
        ("AU915", 71, 927_100_000, SF8_WIDE),
        ("CN470", 0, 470_300_000, SF7),
        ("CN470", 95, 489_300_000, SF7),
        ("AS923-1", 0, 923_200_000, SF7),
        ("AS923-1", 1, 923_400_000, SF7),
        ("AS923-2", 0, 921_400_000, SF7),
        ("AS923-3", 1, 916_800_000, SF7),
        ("AS923-4", 0, 917_300_000, SF7),
        ("KR920", 0, 922_100_000, SF7),
        ("KR920", 2, 922_500_000, SF7),
        ("IN865", 0, 865_062_500, SF7),
        ("IN865", 1, 865_402_500, SF7),
        ("IN865", 2, 865_985_000, SF7),
        ("RU864", 0, 868_900_000, SF7),
        ("RU864", 1, 869_100_000, SF7),
        ("ISM2400", 0, 2_403_000_000, ISM_SLOW),
        ("ISM2400", 1, 2_425_000_000, ISM_SLOW),
        ("ISM2400", 2, 2_479_000_000, ISM_SLOW),
    ],
)
def test_channels_have_their_number(region: str, tx_ch: int | None, frequency_hz: int, data_rate: DataRate) -> None:
    assert REGIONS[region].tx_ch(frequency_hz, data_rate) == tx_ch


def test_added_channels_follow_the_default_ones() -> None:
    added = (867_100_000, 867_300_000)
    region = REGIONS["EU868"]
    assert [region.tx_ch(frequency, SF7, added) for frequency in added] == [3, 4]
    assert region.tx_ch(868_300_000, FskDataRate(50_000), added) == 1


def test_an_unknown_channel_can_be_any_that_is_free() -> None:
    region = REGIONS["EU868"]
    assert region.tx_ch_candidates(868_300_000, SF7, ()) == (1,)
    assert region.tx_ch_candidates(867_100_000, SF7, ()) == tuple(range(3, 16))
    assert region.tx_ch_candidates(867_500_000, SF7, (867_100_000, 867_300_000)) == tuple(range(5, 16))
    assert REGIONS["US915"].tx_ch_candidates(900_000_000, SF7, ()) == ()


def test_only_plans_without_room_are_fixed() -> None:
    assert {region.name for region in REGIONS.values() if region.fixed} == {"US915", "AU915", "CN470"}
    assert all(name == region.name for name, region in REGIONS.items())
