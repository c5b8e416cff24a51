"""The files for the concentrator's software hold what a region says, inside what board and chip can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.types import EUI64
from lorabridge.radio.boards import Board, board_names, find_board
from lorabridge.radio.channel_plan import ChannelPlan, all_plans
from lorabridge.radio.concentrator_files import Setup, files, firmware_configs

FOLDER = Path(__file__).parents[1] / "firmware_configs"
BOARDS = {name: find_board(name) for name in board_names()}
KHZ = 1000
MHZ = 1_000_000

IF_HALF_BAND_HZ = 800 * KHZ
"""|IF| + BW/2 of every channel, sx1302_hal 2.1.0."""
CALIBRATED_MHZ = ((430, 440), (470, 510), (779, 787), (863, 870), (902, 928))
"""Radio centres for which the SX1250 has an image calibration; elsewhere the concentrator does not start."""


def run(first_khz: int, count: int = 8) -> set[int]:
    return {(first_khz + 200 * channel) * KHZ for channel in range(count)}


NARROW: dict[str, set[int]] = {  # regional parameters RP002-1.0.4: 125 kHz channels
    "eu868": run(868_100, 3) | run(867_100, 5),
    "eu433": run(433_175, 3),
    "in865": {865_062_500, 865_402_500, 865_985_000},
    "ru864": run(868_900, 2),
    "kr920": run(922_100, 7),
    "as923_1": run(923_200),
    "as923_2": run(921_400),
    "as923_3": run(916_600),
    "as923_4": run(917_300),
    **{f"us915_{band + 1}": run(902_300 + 1600 * band) for band in range(8)},
    **{f"au915_{band + 1}": run(915_200 + 1600 * band) for band in range(8)},
    **{f"cn470_{band + 1}": run(470_300 + 1600 * band) for band in range(12)},
}
WIDE: dict[str, tuple[int, int, int]] = {  # the one wide LoRa channel: kHz, bandwidth in kHz, spreading factor
    "eu868": (868_300, 250, 7),
    "as923_1": (924_500, 250, 7),
    "as923_2": (922_700, 250, 7),
    "as923_3": (917_900, 250, 7),
    "as923_4": (918_600, 250, 7),
    **{f"us915_{band + 1}": (903_000 + 1600 * band, 500, 8) for band in range(8)},
    **{f"au915_{band + 1}": (915_900 + 1600 * band, 500, 8) for band in range(8)},
}
RX2_KHZ = {
    "eu868": 869_525,
    "eu433": 434_665,
    "in865": 866_550,
    "ru864": 869_100,
    "kr920": 921_900,
    "us915": 923_300,
    "au915": 923_300,
    "cn470": 505_300,
}
"""Of AS923 each group's own first channel."""


def on_disk(name: str, file: str) -> Any:
    return json.loads((FOLDER / name / file).read_text(encoding="utf-8"))


def channels(document: Any) -> list[tuple[str, dict[str, Any]]]:
    """The enabled channels, by name."""
    concentrator = document["SX130x_conf"]
    names = [*(f"chan_multiSF_{index}" for index in range(8)), "chan_Lora_std", "chan_FSK"]
    assert [name for name in concentrator if name.startswith("chan_")] == ["chan_multiSF_All", *names]
    return [(name, concentrator[name]) for name in names if concentrator[name]["enable"]]


def frequency(document: Any, channel: dict[str, Any]) -> int:
    return int(document["SX130x_conf"][f"radio_{channel['radio']}"]["freq"] + channel["if"])


def check_channels(name: str, document: Any) -> None:
    """The channels are those of the region, each inside the band of a radio that is on."""
    found = channels(document)
    heard = [frequency(document, channel) for kind, channel in found if "multiSF" in kind]
    assert len(heard) == len(NARROW[name])
    assert set(heard) == NARROW[name]
    wide = [
        (frequency(document, channel) // KHZ, channel["bandwidth"] // KHZ, channel["spread_factor"])
        for kind, channel in found
        if kind == "chan_Lora_std"
    ]
    assert wide == ([WIDE[name]] if name in WIDE else [])
    fsk = [(frequency(document, channel), channel["datarate"]) for kind, channel in found if kind == "chan_FSK"]
    assert fsk == ([(868_800 * KHZ, 50_000)] if name == "eu868" else [])
    for kind, channel in found:
        assert document["SX130x_conf"][f"radio_{channel['radio']}"]["enable"]
        assert abs(channel["if"]) + channel.get("bandwidth", 125 * KHZ) // 2 <= IF_HALF_BAND_HZ, kind


def check_radios(name: str, document: Any, board: Board) -> None:
    """The radios start, the first one alone transmits, and where RX2 is, with the gains of the board."""
    concentrator = document["SX130x_conf"]
    first = concentrator["radio_0"]
    for number in (0, 1):
        radio = concentrator[f"radio_{number}"]
        if number == 0 or radio["enable"]:
            assert any(low * MHZ <= radio["freq"] <= high * MHZ for low, high in CALIBRATED_MHZ)
            assert radio["enable"]
            assert radio["type"] == "SX1250"
            assert radio["single_input_mode"] is board.single_input[number]
            assert radio["tx_enable"] is (number == 0)
    rx2 = RX2_KHZ[name.rpartition("_")[0] or name] * KHZ if not name.startswith("as923") else min(NARROW[name])
    assert first["tx_freq_min"] <= rx2 <= first["tx_freq_max"]
    assert 1 <= len(first["tx_gain_lut"]) <= 16
    powers = [entry["rf_power"] for entry in first["tx_gain_lut"]]
    assert powers == sorted(set(powers))
    assert all(entry["pa_gain"] in {0, 1} and 0 <= entry["pwr_idx"] <= 22 for entry in first["tx_gain_lut"])


def check_station(document: Any) -> None:
    """Only what Basics Station 2.0.6 knows of a radio: any other field ends it."""
    known = {"type", "rssi_offset", "rssi_tcomp", "tx_enable", "tx_gain_lut"}
    assert document.keys() == {"SX1302_conf", "station_conf"}
    for number in (0, 1):
        assert document["SX1302_conf"][f"radio_{number}"].keys() <= known


def test_the_files_on_disk_are_those_that_are_made() -> None:
    made = firmware_configs(BOARDS)
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*")} == made.keys()
    assert {key.partition("/")[0] for key in made} == NARROW.keys()
    assert {plan.name for plan in all_plans()} - NARROW.keys() == {"cn779"}
    for key, text in made.items():
        assert (FOLDER / key).read_text(encoding="utf-8") == text, key


@pytest.mark.parametrize("name", NARROW)
def test_a_folder_holds_the_region_within_the_limits_of_the_chip(name: str) -> None:
    board = BOARDS["semtech_sx1302c490gw1" if name.startswith(("cn470", "eu433")) else "seeed_wm1302"]
    document = on_disk(name, "global_conf.json")
    check_channels(name, document)
    check_radios(name, document, board)
    check_station(on_disk(name, "station.conf"))
    assert "radio_init" not in on_disk(name, "station.conf")["station_conf"]


@pytest.mark.parametrize("name", NARROW)
def test_the_forwarder_speaks_to_the_bridge_on_this_machine(name: str) -> None:
    gateway = on_disk(name, "global_conf.json")["gateway_conf"]
    assert (gateway["server_address"], gateway["serv_port_up"], gateway["serv_port_down"]) == ("localhost", 1700, 1700)
    forwarded = ("forward_crc_valid", "forward_crc_error", "forward_crc_disabled")
    assert [gateway[key] for key in forwarded] == [True, False, False]


@pytest.mark.parametrize("board_name", BOARDS)
def test_every_board_makes_valid_files_for_each_of_its_regions(board_name: str) -> None:
    board = BOARDS[board_name]
    plans = [plan for plan in all_plans() if plan.region.name in board.regions]
    assert {plan.region.name for plan in plans} == set(board.regions)
    for plan in plans:
        for attachment in board.attachments:
            made = files(Setup(plan=plan, board=board, attachment=attachment))
            document = json.loads(made["global_conf.json"])
            check_channels(plan.name, document)
            check_radios(plan.name, document, board)
            check_station(json.loads(made["station.conf"]))
            assert document["SX130x_conf"]["com_type"] == attachment.upper()
            assert ("reset_lgw.sh" in made) == (attachment == "spi" and board.pins is not None)


def _plan(name: str) -> ChannelPlan:
    return next(plan for plan in all_plans() if plan.name == name)


def test_a_board_is_not_set_up_for_a_region_that_it_is_not_made_for() -> None:
    with pytest.raises(ValueError, match="RAK2287 is not made for AS923-1"):
        files(Setup(plan=_plan("as923_1"), board=BOARDS["rak2287"], attachment="spi"))


def test_the_eui_and_the_receiver_are_in_both_files() -> None:
    setup = Setup(
        plan=_plan("eu868"),
        board=BOARDS["rak5146"],
        attachment="usb",
        gateway_eui=EUI64.parse("0016c001ff10a235"),
        gnss=True,
    )
    made = files(setup)
    gateway = json.loads(made["global_conf.json"])["gateway_conf"]
    station = json.loads(made["station.conf"])
    assert (gateway["gateway_ID"], gateway["gps_tty_path"]) == ("0016C001FF10A235", "/dev/ttyAMA0")
    assert station["station_conf"]["routerid"] == "00-16-c0-01-ff-10-a2-35"
    assert station["station_conf"]["gps"] == "/dev/ttyAMA0"
    assert station["SX1302_conf"]["device"] == "usb:/dev/ttyACM0"


def test_a_receiver_behind_gpsd_is_in_neither_file() -> None:
    board = BOARDS["multitech_mtac_003e00"]
    made = files(Setup(plan=_plan("eu868"), board=board, attachment="spi", gnss=True))
    assert not any("gpsd" in text or '"gps' in text for text in made.values())


def test_the_reset_script_pulls_the_lines_in_their_order() -> None:
    made = files(Setup(plan=_plan("eu868"), board=BOARDS["seeed_wm1302"], attachment="spi"))
    pulls = [line for line in made["reset_lgw.sh"].splitlines() if line.startswith("line ")]
    assert pulls == ["line 18 dh", "line 17 dh", "line 17 dl", "line 5 dl", "line 5 dh"]
    assert json.loads(made["station.conf"])["station_conf"]["radio_init"] == "./reset_lgw.sh"
    bare = msgspec.structs.replace(BOARDS["seeed_wm1302"], pins=None)
    assert "reset_lgw.sh" not in files(Setup(plan=_plan("eu868"), board=bare, attachment="spi"))
