"""`global_conf.json`, `station.conf` and `reset_lgw.sh`: what drives a concentrator, out of a plan and a board."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lorabridge.lorawan.types import EUI64
from lorabridge.radio.boards import Band, Board, Pins
from lorabridge.radio.channel_plan import (
    FSK_BIT_RATE,
    MAX_MULTI_SF,
    RADIOS,
    Channel,
    ChannelPlan,
    all_plans,
)

PLACEHOLDER_EUI = EUI64.parse("aa555a0000000000")
"""Stands for the gateway's own EUI in files that do not know it; Semtech's examples have it too."""
UDP_PORT = 1700
"""Where lorabridge listens for packet forwarders unless told otherwise."""
RESET_SCRIPT = "reset_lgw.sh"
"""lora_pkt_fwd runs `./reset_lgw.sh` before it opens an SPI board, and ends when it fails."""
REFERENCE_BOARDS = ("seeed_wm1302", "semtech_sx1302c490gw1")
"""Whose constants, a CoreCell's, the files of `firmware_configs/` have: the first that is made for the region."""
_LINE = 100
"""Characters of an object or list that is written on one line."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What to write files for."""

    plan: ChannelPlan
    board: Board
    attachment: Literal["spi", "usb"]
    gateway_eui: EUI64 | None = None
    """None: the placeholder stands in `global_conf.json`, and Basics Station makes one of a MAC address."""
    gnss: bool = False
    """Whether the board's receiver gives position and time."""
    com_path: str | None = None
    """The device file, when it is not the board's usual one."""

    @property
    def device(self) -> str:
        """The device file."""
        if self.com_path is not None:
            return self.com_path
        return (self.board.spi_device if self.attachment == "spi" else self.board.usb_device)[0]

    @property
    def gnss_device(self) -> str | None:
        """Serial device of the receiver; None without one, or when gpsd has it."""
        gnss = self.board.gnss
        return gnss if self.gnss and gnss is not None and gnss.startswith("/dev/") else None

    @property
    def band(self) -> Band:
        """What the board is in that region. Raises ValueError when it is not made for it."""
        band = self.board.band(self.plan.region.name)
        if band is None:
            raise ValueError(f"{self.board.name} is not made for {self.plan.region.name}")
        return band

    @property
    def pins(self) -> Pins | None:
        """The lines that have to be pulled; none on USB."""
        return self.board.pins if self.attachment == "spi" else None


def files(setup: Setup) -> dict[str, str]:
    """Every file of a set-up by its name. Raises ValueError when the board is not made for the region."""
    made = {"global_conf.json": global_conf(setup), "station.conf": station_conf(setup)}
    if setup.pins is not None:
        made[RESET_SCRIPT] = reset_script(setup.board.name, setup.pins)
    return made


def firmware_configs(boards: Mapping[str, Board]) -> dict[str, str]:
    """`firmware_configs/`: the two files of every plan that a reference board can take, by `plan/file`.

    They name no pins: those are the board's own, and a forwarder's reset script knows them.
    """
    made: dict[str, str] = {}
    for plan in all_plans():
        board = next((boards[name] for name in REFERENCE_BOARDS if plan.region.name in boards[name].regions), None)
        if board is not None:
            bare = msgspec.structs.replace(board, pins=None)
            setup = Setup(plan=plan, board=bare, attachment=board.attachments[0])
            made |= {f"{plan.name}/{name}": text for name, text in files(setup).items()}
    return made


def global_conf(setup: Setup) -> str:
    """`global_conf.json` of lora_pkt_fwd (sx1302_hal 2.1.0); frequencies in Hz, powers in dBm."""
    board, plan = setup.board, setup.plan
    channels = {f"chan_multiSF_{index}": _multi_sf(plan, index) for index in range(MAX_MULTI_SF)}
    concentrator = {
        "com_type": setup.attachment.upper(),
        "com_path": setup.device,
        "lorawan_public": True,
        "clksrc": board.clock_source,
        "antenna_gain": 0,
        "full_duplex": False,
        "fine_timestamp": {"enable": False, "mode": "all_sf"},
        **{f"radio_{index}": _radio(setup, index) for index in range(RADIOS)},
        "chan_multiSF_All": {"spreading_factor_enable": list(range(5, 13))},
        **channels,
        "chan_Lora_std": _wide(plan.wide),
        "chan_FSK": _fsk(plan.fsk),
    }
    gateway: dict[str, Any] = {
        "gateway_ID": str(PLACEHOLDER_EUI if setup.gateway_eui is None else setup.gateway_eui).upper(),
        "server_address": "localhost",
        "serv_port_up": UDP_PORT,
        "serv_port_down": UDP_PORT,
        "keepalive_interval": 10,
        "stat_interval": 30,
        "push_timeout_ms": 100,
        "forward_crc_valid": True,
        "forward_crc_error": False,
        "forward_crc_disabled": False,
    }
    if setup.gnss_device is not None:
        gateway["gps_tty_path"] = setup.gnss_device
    return _text({"SX130x_conf": concentrator, "gateway_conf": gateway})


def station_conf(setup: Setup) -> str:
    """`station.conf` of Basics Station 2.0.6: the board only; the LNS sends the channels."""
    station: dict[str, Any] = {"log_file": "stderr", "log_level": "INFO"}
    if setup.gateway_eui is not None:
        station["routerid"] = "-".join(f"{byte:02x}" for byte in int(setup.gateway_eui).to_bytes(8, "big"))
    if setup.pins is not None:
        station["radio_init"] = f"./{RESET_SCRIPT}"
    if setup.gnss_device is not None:
        station["gps"] = setup.gnss_device
    concentrator = {
        "device": f"{setup.attachment}:{setup.device}",
        "lorawan_public": True,
        "clksrc": setup.board.clock_source,
        "full_duplex": False,
        **{f"radio_{index}": _hardware(setup, index) for index in range(RADIOS)},
    }
    return _text({"SX1302_conf": concentrator, "station_conf": station})


def reset_script(name: str, pins: Pins) -> str:
    """A shell script that powers and resets the board (sequence of `reset_lgw.sh` of sx1302_hal 2.1.0).

    It drives the lines by `pinctrl` of Raspberry Pi OS, which takes BCM numbers on every model; whether the caller
    starts or stops makes no difference.
    """
    steps = [] if pins.power_enable is None else [(pins.power_enable, "dh")]
    steps += [(pins.reset, "dh"), (pins.reset, "dl")]
    if pins.sx1261_reset is not None:
        steps += [(pins.sx1261_reset, "dl"), (pins.sx1261_reset, "dh")]
    lines = "\n".join(f"line {number} {level}" for number, level in steps)
    return f"""#!/bin/sh
# Power and reset of the {name}: lines of the Raspberry Pi's header by BCM number.
set -eu

line() {{
  pinctrl set "$1" op "$2"
  sleep 0.1
}}

{lines}
"""


def _radio(setup: Setup, index: int) -> dict[str, Any]:
    """One radio of `global_conf.json`; only the first transmits."""
    centres = setup.plan.centres_hz
    if index >= len(centres):
        return {"enable": False}
    bands = setup.plan.region.sub_bands
    radio = {"enable": True, "freq": centres[index], "single_input_mode": setup.board.single_input[index]}
    if index == 0:
        radio["tx_freq_min"] = min(band.first_hz for band in bands)
        radio["tx_freq_max"] = max(band.last_hz for band in bands)
    return radio | _hardware(setup, index)


def _hardware(setup: Setup, index: int) -> dict[str, Any]:
    """What the board says of a radio, in the words that both programs know."""
    compensation = msgspec.structs.asdict(setup.board.rssi_compensation)
    radio: dict[str, Any] = {
        "type": setup.board.radio,
        "rssi_offset": setup.band.rssi_offset,
        "rssi_tcomp": {f"coeff_{name}": value for name, value in compensation.items()},
        "tx_enable": index == 0,
    }
    if index == 0:
        radio["tx_gain_lut"] = [
            {"rf_power": power, "pa_gain": pa_gain, "pwr_idx": pwr_idx}
            for power, pa_gain, pwr_idx in setup.band.tx_gain
        ]
    return radio


def _multi_sf(plan: ChannelPlan, index: int) -> dict[str, Any]:
    return _place(plan.multi_sf[index] if index < len(plan.multi_sf) else None)


def _wide(channel: Channel | None) -> dict[str, Any]:
    if channel is None:
        return _place(None)
    return _place(channel) | {
        "bandwidth": channel.bandwidth_hz,
        "spread_factor": channel.spreading_factor,
        "implicit_hdr": False,
    }


def _fsk(channel: Channel | None) -> dict[str, Any]:
    if channel is None:
        return _place(None)
    return _place(channel) | {"bandwidth": channel.bandwidth_hz, "datarate": FSK_BIT_RATE}


def _place(channel: Channel | None) -> dict[str, Any]:
    """Where a demodulator listens; one without a channel is off."""
    if channel is None:
        return {"enable": False}
    return {"enable": True, "radio": channel.radio, "if": channel.if_hz}


def _text(value: Mapping[str, Any]) -> str:
    return _written(value, "") + "\n"


def _written(value: Any, indent: str) -> str:
    """JSON with one line for each object or list that fits and holds no other."""
    line = json.dumps(value)
    if not isinstance(value, (Mapping, list)):
        return line
    inner = value.values() if isinstance(value, Mapping) else value
    if len(indent + line) <= _LINE and not any(isinstance(item, (Mapping, list)) for item in inner):
        return line
    deeper = f"{indent}  "
    if isinstance(value, Mapping):
        rows = [f"{deeper}{json.dumps(key)}: {_written(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{deeper}{_written(item, deeper)}" for item in value) + f"\n{indent}]"
