"""The channel plans hold what their region says, inside what the concentrator can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "firmware_configs" / "semtech_udp"
KHZ = 1000
MHZ = 1_000_000

IF_HALF_BAND_HZ = 800 * KHZ
"""|IF| + BW/2 of every channel, sx1302_hal 2.1.0."""
CALIBRATED_MHZ = ((430, 440), (470, 510), (779, 787), (863, 870), (902, 928))
"""Radio centres for which the SX1250 has an image calibration; elsewhere the concentrator does not start."""


def sub_band(first_khz: int, channels: range) -> set[int]:
    return {(first_khz + 200 * channel) * KHZ for channel in channels}


CHANNELS: dict[str, set[int]] = {  # regional parameters RP002-1.0.4: 125 kHz channels
    "eu868": {868_100 * KHZ, 868_300 * KHZ, 868_500 * KHZ} | sub_band(867_100, range(5)),
    "us915_fsb2": sub_band(902_300, range(8, 16)),
    "au915_fsb2": sub_band(915_200, range(8, 16)),
    "as923_1": sub_band(923_200, range(8)),
    "in865": {865_062_500, 865_402_500, 865_985_000},
    "kr920": sub_band(922_100, range(7)),
}
WIDE: dict[str, tuple[int, int, int] | None] = {  # the one wide LoRa channel: frequency, bandwidth, spreading factor
    "eu868": (868_300 * KHZ, 250 * KHZ, 7),
    "us915_fsb2": (903_000 * KHZ + 1_600 * KHZ, 500 * KHZ, 8),
    "au915_fsb2": (915_900 * KHZ + 1_600 * KHZ, 500 * KHZ, 8),
    "as923_1": (924_500 * KHZ, 250 * KHZ, 7),
    "in865": None,
    "kr920": None,
}
RX2_HZ = {
    "eu868": 869_525_000,
    "us915_fsb2": 923_300_000,
    "au915_fsb2": 923_300_000,
    "as923_1": 923_200_000,
    "in865": 866_550_000,
    "kr920": 921_900_000,
}


def plan(region: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{region}.global_conf.json").read_text(encoding="utf-8"))
    return document


def channels(region: str) -> list[tuple[str, dict[str, Any]]]:
    """The enabled channels, by name."""
    concentrator = plan(region)["SX130x_conf"]
    names = [*(f"chan_multiSF_{index}" for index in range(8)), "chan_Lora_std", "chan_FSK"]
    return [(name, concentrator[name]) for name in names if concentrator[name]["enable"]]


def frequency(region: str, channel: dict[str, Any]) -> int:
    return int(plan(region)["SX130x_conf"][f"radio_{channel['radio']}"]["freq"] + channel["if"])


def test_every_plan_on_disk_is_checked_here() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == {f"{region}.global_conf.json" for region in CHANNELS}


@pytest.mark.parametrize("region", CHANNELS)
def test_the_narrow_channels_are_those_of_the_region(region: str) -> None:
    heard = [frequency(region, channel) for name, channel in channels(region) if name.startswith("chan_multiSF_")]
    assert len(heard) == len(set(heard))
    assert set(heard) == CHANNELS[region]


@pytest.mark.parametrize("region", CHANNELS)
def test_the_wide_channel_is_that_of_the_region(region: str) -> None:
    wide = [channel for name, channel in channels(region) if name == "chan_Lora_std"]
    found = [(frequency(region, channel), channel["bandwidth"], channel["spread_factor"]) for channel in wide]
    assert found == ([WIDE[region]] if WIDE[region] else [])


@pytest.mark.parametrize("region", CHANNELS)
def test_every_channel_lies_inside_the_band_of_its_radio(region: str) -> None:
    for name, channel in channels(region):
        assert channel["radio"] in {0, 1}
        assert abs(channel["if"]) + channel.get("bandwidth", 125 * KHZ) // 2 <= IF_HALF_BAND_HZ, name


@pytest.mark.parametrize("region", CHANNELS)
def test_both_radios_start_and_only_the_first_transmits(region: str) -> None:
    concentrator = plan(region)["SX130x_conf"]
    for name in ("radio_0", "radio_1"):
        radio = concentrator[name]
        assert radio["enable"]
        assert radio["type"] == "SX1250"
        assert any(low * MHZ <= radio["freq"] <= high * MHZ for low, high in CALIBRATED_MHZ), name
    assert concentrator["radio_0"]["tx_enable"]
    assert not concentrator["radio_1"]["tx_enable"]
    assert concentrator["radio_0"]["tx_freq_min"] <= RX2_HZ[region] <= concentrator["radio_0"]["tx_freq_max"]


@pytest.mark.parametrize("region", CHANNELS)
def test_the_transmit_gains_are_a_table_the_concentrator_takes(region: str) -> None:
    table = plan(region)["SX130x_conf"]["radio_0"]["tx_gain_lut"]
    assert 1 <= len(table) <= 16
    powers = [entry["rf_power"] for entry in table]
    assert powers == sorted(set(powers))
    assert all(entry["pa_gain"] in {0, 1} and 0 <= entry["pwr_idx"] <= 22 for entry in table)


@pytest.mark.parametrize("region", CHANNELS)
def test_the_forwarder_speaks_to_the_bridge_on_this_machine(region: str) -> None:
    gateway = plan(region)["gateway_conf"]
    assert (gateway["server_address"], gateway["serv_port_up"], gateway["serv_port_down"]) == ("localhost", 1700, 1700)
    assert (gateway["forward_crc_valid"], gateway["forward_crc_error"], gateway["forward_crc_disabled"]) == (
        True,
        False,
        False,
    )
