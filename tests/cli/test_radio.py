"""`lorabridge radio configure`: a set-up that can be used, or what is wrong and what is known."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from lorabridge.cli.main import EXIT_CONFIG, EXIT_OK, main
from lorabridge.daemon.config import parse
from lorabridge.lorawan.regions import REGIONS
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.boards import board_names, find_board
from lorabridge.radio.semtech_udp import SemtechUdpSettings
from lorabridge.radio.sx1302.plan import read_plan
from lorabridge.radio.sx1302.settings import Sx1302Settings
from tests.daemon.config_help import SMALLEST

GATEWAY = SMALLEST.partition("[[radio]]")[0]


def configure(output: Path, *options: str, board: str = "rak5146", region: str = "EU868") -> int:
    return main(["radio", "configure", "--board", board, "--region", region, "--output", str(output), *options])


def test_a_set_up_is_written_and_what_comes_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "folder"
    assert configure(output) == EXIT_OK
    assert {path.name for path in output.iterdir()} == {
        "global_conf.json",
        "station.conf",
        "reset_lgw.sh",
        "radio.toml",
    }
    conf = json.loads((output / "global_conf.json").read_text())
    assert conf["gateway_conf"]["gateway_ID"] == "AA555A0000000000"
    assert conf["SX130x_conf"]["radio_0"]["tx_gain_lut"][0] == {"rf_power": 12, "pa_gain": 1, "pwr_idx": 4}
    told = capsys.readouterr().out
    assert f"written: {output / 'global_conf.json'}" in told
    assert "in place of AA555A0000000000" in told
    assert "reset GPIO17" in told
    assert "mac.sub_band" not in told


def test_a_region_is_known_in_small_letters_and_its_sub_band_is_told_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--sub-band", "2", "--attach", "usb", "--gateway-eui", "0016c001ff10a235", "--gnss")
    assert configure(tmp_path, *options, region="us915") == EXIT_OK
    conf = json.loads((tmp_path / "global_conf.json").read_text())
    assert conf["SX130x_conf"]["com_path"] == "/dev/ttyACM0"
    assert conf["SX130x_conf"]["radio_0"]["freq"] == 904_300_000
    assert conf["gateway_conf"]["gateway_ID"] == "0016C001FF10A235"
    assert not (tmp_path / "reset_lgw.sh").exists()
    told = capsys.readouterr().out
    assert "AA555A" not in told
    assert "mac.sub_band = 2" in told


def test_a_board_with_a_sensor_and_one_without_lines_have_steps_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure(tmp_path / "a", board="seeed_wm1302") == EXIT_OK
    assert "sensor at 0x39" in capsys.readouterr().out
    assert configure(tmp_path / "b", "--gnss", board="multitech_mtac_003e00") == EXIT_OK
    told = capsys.readouterr().out
    assert "no line is known" in told
    assert "gpsd://localhost:2947" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--board", "rak9999"), board_names()),
        (("--region", "EU686"), tuple(REGIONS)),
        (("--board", "rak2287", "--region", "AS923-1"), ("not made for AS923-1", "EU868")),
        (("--region", "ISM2400"), ("not made for ISM2400", "EU868")),
        (("--region", "US915"), ("1 to 8",)),
        (("--sub-band", "1"), ("EU868 has no sub-bands",)),
        (("--board", "dragino_pg1302", "--attach", "usb"), ("has no usb", "it has spi")),
        (("--board", "miromico_gwc_02_lw_868", "--gnss"), ("no receiver is known",)),
        (("--gateway-eui", "0016c0"), ("16 hex digits",)),
        (("--device", "ttyACM0"), ("no device file", "/dev/ttyACM0")),
        (("--device", "/dev/" + "x" * 45), ("at most 49",)),
        (("--device", "/dev/ttyACM1", "--attach", "spi"), ("not on spi", "leave --attach out")),
        (("--board", "dragino_pg1302", "--device", "/dev/ttyACM1"), ("has no usb", "it has spi")),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: tuple[str, ...]
) -> None:
    assert configure(tmp_path / "out", *options) == EXIT_CONFIG
    said = capsys.readouterr().err
    assert [word for word in told if word not in said] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("device", "com_type"), [("/dev/lorabridge/concentrator-2067347E4B33", "USB"), ("/dev/spidev1.0", "SPI")]
)
def test_another_device_is_in_both_files_and_says_how_the_board_is_attached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str, com_type: str
) -> None:
    assert configure(tmp_path, "--device", device) == EXIT_OK
    plan = read_plan(tmp_path / "global_conf.json")
    assert (plan.com_type, plan.com_path) == (com_type, device)
    station = json.loads((tmp_path / "station.conf").read_text())
    assert station["SX1302_conf"]["device"] == f"{com_type.lower()}:{device}"
    assert f"See that {device} is there" in capsys.readouterr().out


@pytest.mark.parametrize("name", board_names())
def test_every_board_is_ready_for_each_of_the_three_sources(tmp_path: Path, name: str) -> None:
    region = find_board(name).regions[0]
    words = ("--sub-band", "2") if REGIONS[region].name in ("US915", "AU915", "CN470") else ()
    assert configure(tmp_path / 'a "folder"', *words, board=name, region=region) == EXIT_OK
    text = (tmp_path / 'a "folder"' / "radio.toml").read_text()
    head, *tables = re.split(r"^#?\[\[radio\]\]$", text, flags=re.MULTILINE)
    assert head.startswith("# ")
    found = [
        parse(f"{GATEWAY}[[radio]]\n{re.sub('^#(?=[a-z])', '', table, flags=re.MULTILINE)}".encode(), "file").radios[0]
        for table in tables
    ]
    direct, forwarder, station = found
    assert isinstance(direct, Sx1302Settings)
    assert read_plan(direct.configuration).radio_0.enable
    assert (direct.board, direct.gnss_device) == (name, None)
    assert forwarder == SemtechUdpSettings()
    assert isinstance(station, BasicsStationSettings)
    assert (station.region, station.sub_band, station.port) == (region, 2 if words else 0, 1887)
    assert [one.name for one in parse(f"{GATEWAY}{text}".encode(), "file").radios] == ["sx1302"]


def test_the_receiver_of_a_board_is_in_the_table_of_the_bridge_itself(tmp_path: Path) -> None:
    assert configure(tmp_path, "--gnss") == EXIT_OK
    (direct,) = parse(f"{GATEWAY}{(tmp_path / 'radio.toml').read_text()}".encode(), "file").radios
    assert isinstance(direct, Sx1302Settings)
    assert direct.gnss_device == "/dev/ttyAMA0"


def test_files_that_are_there_are_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "station.conf"
    mine.write_text("mine")
    assert configure(tmp_path) == EXIT_CONFIG
    assert f"{mine}: is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["station.conf"]
    assert mine.read_text() == "mine"
    assert configure(tmp_path, "--force") == EXIT_OK
    assert json.loads(mine.read_text())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert configure(tmp_path / "file" / "under") == EXIT_CONFIG
    assert "cannot be written" in capsys.readouterr().err


def test_the_reset_script_runs_and_asks_pinctrl_for_each_line(tmp_path: Path) -> None:
    assert configure(tmp_path, board="waveshare_sx1302_lorawan_gateway_hat") == EXIT_OK
    tool = tmp_path / "bin" / "pinctrl"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    tool.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    subprocess.run(["./reset_lgw.sh", "start"], cwd=tmp_path, env=environ, check=True, timeout=30)
    assert (tmp_path / "asked").read_text().splitlines() == ["set 18 op dh", "set 23 op dh", "set 23 op dl"]
