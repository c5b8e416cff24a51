"""Time on air, against what other implementations compute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate
from lorabridge.lorawan.airtime import time_on_air_us
from lorabridge.lorawan.regions import REGIONS

KHZ = 1000
DATA_RATES = sorted(
    {rate for region in REGIONS.values() for rate in (*region.data_rates, *region.downlink_data_rates) if rate},
    key=repr,
)
LORA = [rate for rate in DATA_RATES if isinstance(rate, LoraDataRate)]
CODE_RATES = ("4/5", "4/6", "4/7", "4/8")


@pytest.mark.parametrize(
    ("spreading_factor", "bandwidth_khz", "code_rate", "size", "expected"),
    [
        # TheThingsNetwork/lorawan-stack pkg/toa/toa_test.go: CRC on, explicit header, preamble of 8.
        (7, 125, "4/5", 10, 41_216),
        (8, 125, "4/5", 10, 72_192),
        (9, 125, "4/5", 10, 144_384),
        (10, 125, "4/5", 10, 288_768),
        (11, 125, "4/5", 10, 577_536),
        (12, 125, "4/5", 10, 991_232),
        (7, 250, "4/5", 10, 20_608),
        (7, 500, "4/5", 10, 10_304),
        (7, 125, "4/6", 10, 45_312),
        (7, 125, "4/7", 10, 49_408),
        (7, 125, "4/8", 10, 53_504),
        (7, 125, "4/5", 13, 46_336),
        (7, 125, "4/5", 15, 46_336),
        (7, 125, "4/5", 16, 51_456),
        (7, 125, "4/5", 19, 51_456),
        # brocaar/lorawan airtime/airtime_test.go; the second from its number of symbols, 58.
        (12, 125, "4/5", 13, 1_155_072),
        (12, 125, "4/5", 50, 2_301_952),
        # Lora-net/LoRaMac-node src/radio/sx126x/radio.c, RadioTimeOnAir.
        (12, 250, "4/5", 51, 1_232_896),
        (11, 125, "4/5", 51, 1_314_816),
    ],
)
def test_lora_takes_as_long_as_others_say(
    spreading_factor: int, bandwidth_khz: int, code_rate: str, size: int, expected: int
) -> None:
    data_rate = LoraDataRate(spreading_factor, bandwidth_khz * KHZ)
    assert time_on_air_us(data_rate, size, code_rate=code_rate) == expected


@pytest.mark.parametrize(
    ("spreading_factor", "bandwidth_khz", "code_rate", "size", "crc", "implicit_header", "expected"),
    [
        # Lora-net/LoRaMac-node src/radio/sx126x/radio.c, RadioTimeOnAir; it makes the preamble 12 symbols below SF7.
        (5, 125, "4/5", 20, True, False, 18_240),
        (6, 125, "4/5", 51, False, False, 56_960),
        (5, 500, "4/8", 255, True, False, 54_416),
        (6, 125, "4/5", 10, True, True, 21_120),
    ],
)
def test_below_sf7_the_preamble_is_longer_and_the_header_shorter(
    spreading_factor: int,
    bandwidth_khz: int,
    code_rate: str,
    size: int,
    crc: bool,
    implicit_header: bool,
    expected: int,
) -> None:
    data_rate = LoraDataRate(spreading_factor, bandwidth_khz * KHZ)
    found = time_on_air_us(
        data_rate, size, code_rate=code_rate, preamble_symbols=12, crc=crc, implicit_header=implicit_header
    )
    assert found == expected


@pytest.mark.parametrize(
    ("spreading_factor", "bandwidth_khz", "code_rate", "size", "crc", "expected"),
    [
        # TheThingsNetwork/lorawan-stack pkg/toa/toa_test.go, which rounds to 0.1 us.
        (5, 812, "4/5LI", 10, False, 1_665.0),
        (6, 812, "4/5LI", 10, False, 3_093.6),
        (7, 812, "4/5LI", 10, False, 5_556.7),
        (8, 812, "4/5LI", 10, False, 10_482.8),
        (9, 812, "4/5LI", 10, False, 19_073.9),
        (10, 812, "4/5LI", 10, False, 36_886.7),
        (11, 812, "4/5LI", 10, False, 73_773.4),
        (12, 812, "4/5LI", 10, False, 142_502.5),
        (7, 203, "4/5LI", 10, False, 22_226.6),
        (7, 406, "4/5LI", 10, False, 11_113.3),
        (7, 1625, "4/5LI", 10, False, 2_776.6),
        (7, 812, "4/6LI", 10, False, 6_029.6),
        (7, 812, "4/8LI", 10, False, 6_817.7),
        (7, 812, "4/5LI", 10, True, 6_029.6),
        (12, 812, "4/5LI", 1, False, 102_147.8),
        (12, 812, "4/5LI", 50, False, 344_275.9),
        (12, 812, "4/5LI", 230, False, 1_252_256.2),
    ],
)
def test_long_interleaving_takes_as_long_as_others_say(
    spreading_factor: int, bandwidth_khz: int, code_rate: str, size: int, crc: bool, expected: float
) -> None:
    data_rate = LoraDataRate(spreading_factor, bandwidth_khz * KHZ)
    found = time_on_air_us(data_rate, size, code_rate=code_rate, crc=crc)
    assert expected - 0.1 <= found <= expected + 1.1


def test_fsk_takes_as_long_as_others_say() -> None:
    # TheThingsNetwork/lorawan-stack pkg/toa/toa_test.go.
    assert time_on_air_us(FskDataRate(50_000), 200) == 33_760


def test_fractions_of_a_microsecond_are_rounded_up() -> None:
    assert time_on_air_us(FskDataRate(300_000), 0) == 294  # 88 bits, 293.3 us


@pytest.mark.parametrize("code_rate", ["4/9", "4/7LI", "", "OFF"])
def test_an_unknown_code_rate_is_refused(code_rate: str) -> None:
    with pytest.raises(ValueError, match="no code rate"):
        time_on_air_us(LoraDataRate(7, 125_000), 10, code_rate=code_rate)


@given(st.sampled_from(DATA_RATES), st.integers(0, 254), st.booleans(), st.sampled_from([*CODE_RATES, "4/8LI"]))
def test_a_longer_frame_never_takes_less(data_rate: DataRate, size: int, crc: bool, code_rate: str) -> None:
    shorter = time_on_air_us(data_rate, size, crc=crc, code_rate=code_rate)
    assert 0 < shorter <= time_on_air_us(data_rate, size + 1, crc=crc, code_rate=code_rate)


@given(st.sampled_from(LORA), st.integers(0, 255), st.integers(0, 2))
def test_everything_added_takes_its_time(data_rate: LoraDataRate, size: int, code_rate: int) -> None:
    bare = time_on_air_us(data_rate, size, code_rate=CODE_RATES[code_rate], crc=False, implicit_header=True)
    assert bare <= time_on_air_us(data_rate, size, code_rate=CODE_RATES[code_rate + 1], crc=False, implicit_header=True)
    assert bare <= time_on_air_us(data_rate, size, code_rate=CODE_RATES[code_rate], implicit_header=True)
    assert bare <= time_on_air_us(data_rate, size, code_rate=CODE_RATES[code_rate], crc=False)
    longer = time_on_air_us(
        data_rate, size, code_rate=CODE_RATES[code_rate], crc=False, implicit_header=True, preamble_symbols=9
    )
    symbol_us = 1_000_000 * (1 << data_rate.spreading_factor) / data_rate.bandwidth_hz
    assert abs(longer - bare - symbol_us) <= 1


@given(st.sampled_from(LORA), st.integers(0, 255))
def test_a_higher_spreading_factor_takes_longer(data_rate: LoraDataRate, size: int) -> None:
    slower = LoraDataRate(data_rate.spreading_factor + 1, data_rate.bandwidth_hz)
    assert time_on_air_us(data_rate, size) < time_on_air_us(slower, size)


@pytest.mark.parametrize("region", ["US915", "AU915", "AS923-1"])
def test_the_payload_limits_under_dwell_time_fit_400_ms(region: str) -> None:
    found = REGIONS[region]
    for number, data_rate in enumerate(found.data_rates):
        limit = found.max_mac_payload(number, dwell=True, down=False)
        if data_rate is not None and limit is not None:
            assert time_on_air_us(data_rate, 1 + limit + 4) <= 400_000


@pytest.mark.parametrize("region", [name for name in REGIONS if name.startswith("AS923")])
def test_a_downlink_within_its_limit_keeps_the_dwell_time_where_one_is_set(region: str) -> None:
    found = REGIONS[region]
    for number, data_rate in enumerate(found.downlink_data_rates):
        limit = found.max_mac_payload(number, dwell=True)
        if data_rate is not None and limit is not None:
            assert time_on_air_us(data_rate, 1 + limit + 4, crc=False) <= 400_000


def test_a_join_accept_keeps_the_dwell_time_only_without_its_list_of_channels() -> None:
    region = REGIONS["AS923-1"]
    rx2 = region.downlink_data_rates[region.rx2_data_rate]
    assert rx2 is not None
    assert time_on_air_us(rx2, 17, crc=False) < 400_000 < time_on_air_us(rx2, 33, crc=False)
