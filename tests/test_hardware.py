"""The facts about boards hang together, and the chips can take them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

HARDWARE = Path(__file__).parents[1] / "hardware"
FACTS = tomllib.loads((HARDWARE / "boards.toml").read_text(encoding="utf-8"))
BOARDS: dict[str, dict[str, Any]] = FACTS["board"]
GAINS: dict[str, list[list[int]]] = FACTS["tx_gain"]

REGIONS = {"as923", "as923_2", "as923_3", "as923_4", "au915", "cn470"} | {
    "eu433",
    "eu868",
    "in865",
    "kr920",
    "ru864",
    "us915",
}
FIELDS = frozenset(
    re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", (HARDWARE / "README.md").read_text(), re.MULTILINE)))
)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_has_only_fields_that_the_page_explains(board: str) -> None:
    assert BOARDS[board].keys() <= FIELDS
    assert {"name", "attach", "single_input", "rssi_offset", "regions", "tx_gain"} <= BOARDS[board].keys()


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_names_the_device_of_every_way_it_is_attached(board: str) -> None:
    facts = BOARDS[board]
    assert {way for way in ("spi", "usb") if f"{way}_device" in facts} == set(facts["attach"])
    assert all(re.fullmatch(r"/dev/spidev\d\.\d", path) for path in facts.get("spi_device", []))
    assert all(re.fullmatch(r"/dev/ttyACM\d", path) for path in facts.get("usb_device", []))


@pytest.mark.parametrize("board", BOARDS)
def test_the_lines_of_a_board_are_on_the_header_and_each_has_one_job(board: str) -> None:
    lines = BOARDS[board].get("gpio", {})
    assert lines.keys() <= {"reset", "power_enable", "sx1261_reset"}
    assert all(2 <= line <= 27 for line in lines.values())
    assert len(set(lines.values())) == len(lines)
    assert not lines or "reset" in lines
    assert BOARDS[board].get("temperature_sensor") in {None, 0x38, 0x39, 0x3B}


@pytest.mark.parametrize("board", BOARDS)
def test_what_differs_by_region_differs_in_regions_the_board_is_made_for(board: str) -> None:
    facts = BOARDS[board]
    assert set(facts["regions"]) <= REGIONS
    for by_region in (facts["rssi_offset"], facts["tx_gain"]):
        assert by_region.keys() - {"default"} <= set(facts["regions"])
        assert "default" in by_region
    assert set(facts["tx_gain"].values()) <= GAINS.keys()


def test_no_gain_table_is_without_a_board() -> None:
    assert {table for facts in BOARDS.values() for table in facts["tx_gain"].values()} == GAINS.keys()


@pytest.mark.parametrize("table", GAINS)
def test_more_power_is_never_less_gain_and_the_hal_takes_it(table: str) -> None:
    steps = GAINS[table]
    assert 1 <= len(steps) <= 16
    assert steps == sorted(steps)
    assert [step[1:] for step in steps] == sorted(step[1:] for step in steps)
    assert all(pa_gain in {0, 1} and 0 <= pwr_idx <= 22 for _, pa_gain, pwr_idx in steps)
