"""`lorabridge radio`: find concentrators, make the files that drive one, and show what it hears."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lorabridge.cli import radio_listen, radio_probe
from lorabridge.cli.main import EXIT_OK
from lorabridge.cli.radio_tables import FILE, radio_tables
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.boards import MAX_PATH, Board, find_board
from lorabridge.radio.channel_plan import ChannelPlan, make_plan
from lorabridge.radio.concentrator_files import PLACEHOLDER_EUI, RESET_SCRIPT, Setup, files

_DEVICE = re.compile(r"/dev/[\w./-]+", re.ASCII)
_WAYS = """\
   sx1302          lorabridge itself, with the vendor's library: docs/sx1302.md
   semtech_udp     lora_pkt_fwd, started in this folder
   basics_station  Basics Station, with station.conf in its home folder and ws://127.0.0.1:1887 in tc.uri"""
_PROGRAM = 0o755
_DATA = 0o644


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    configure = actions.add_parser(
        "configure",
        help="write what drives a board in a region: global_conf.json, station.conf, reset script, [[radio]] tables",
    )
    configure.add_argument("--board", required=True, help="a file of hardware/boards/, without .toml: rak5146")
    configure.add_argument("--region", required=True, help="regional plan: EU868, US915, AS923-1")
    configure.add_argument("--sub-band", type=int, default=0, metavar="N", help="US915, AU915, CN470: from 1")
    configure.add_argument("--attach", choices=["spi", "usb"], help="for boards that are sold in both forms")
    configure.add_argument("--device", metavar="PATH", help="device file of the board, when it is not the usual one")
    configure.add_argument("--gateway-eui", metavar="EUI", help="16 hex digits; left out, a placeholder to replace")
    configure.add_argument("--gnss", action="store_true", help="the board has its satellite receiver: use it")
    configure.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to (here)")
    configure.add_argument("--force", action="store_true", help="replace files that are there")
    configure.set_defaults(act=_configure)
    for name, action in (("probe", radio_probe), ("listen", radio_listen)):
        says = action.SAYS
        action.add_arguments(actions.add_parser(name, help=says, description=says.capitalize() + "."))


def run(args: argparse.Namespace) -> int:
    """Do it; the result is the exit status."""
    status: int = args.act(args)
    return status


def _configure(args: argparse.Namespace) -> int:
    """Write the set-up and say what comes next. Raises ConfigError for what cannot be."""
    setup = _setup(args)
    made = {**files(setup), FILE: radio_tables(setup, args.board, args.output)}
    there = [name for name in made if (args.output / name).exists()]
    if there and not args.force:
        raise ConfigError(
            [Problem(where=str(args.output / name), what="is there already", hint="--force") for name in there]
        )
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            path = args.output / name
            path.write_text(text, encoding="utf-8")
            path.chmod(_PROGRAM if name == RESET_SCRIPT else _DATA)
            print(f"written: {path}")
    except OSError as error:
        raise ConfigError([Problem(where=str(args.output), what=f"cannot be written: {error}")]) from error
    print("\n".join(("", "Next:", *(f"{number}. {step}" for number, step in enumerate(_next(setup), 1)))))
    return EXIT_OK


def _setup(args: argparse.Namespace) -> Setup:
    """The set-up that the arguments ask for. Raises ConfigError."""
    board = find_board(args.board)
    region = REGIONS.get(args.region.upper())
    if region is None:
        raise _refused("--region", f"{args.region!r} is not known", f"known: {', '.join(REGIONS)}")
    if region.name not in board.regions:
        raise _refused(
            "--region", f"{board.name} is not made for {region.name}", f"its regions: {', '.join(board.regions)}"
        )
    attachment = _attachment(board, args.attach, args.device)
    if args.gnss and board.gnss is None:
        raise _refused("--gnss", f"no receiver is known of the {board.name}", "")
    return Setup(
        plan=_plan(region, args.sub_band),
        board=board,
        attachment=attachment,
        gateway_eui=None if args.gateway_eui is None else _eui(args.gateway_eui),
        gnss=args.gnss,
        com_path=args.device,
    )


def _attachment(board: Board, asked: str | None, device: str | None) -> Literal["spi", "usb"]:
    """How the board is attached: as asked, else as its device says, else the usual way. Raises ConfigError."""
    of_device = None
    if device is not None:
        if not _DEVICE.fullmatch(device) or len(device) > MAX_PATH:
            raise _refused("--device", f"{device!r} is no device file", f"/dev/ttyACM0; at most {MAX_PATH} characters")
        of_device = "spi" if "spidev" in device else "usb"
    if asked is not None and of_device is not None and asked != of_device:
        raise _refused("--device", f"{device} is not on {asked}", "leave --attach out: the device says it")
    wanted = asked or of_device or board.attachments[0]
    found = next((way for way in board.attachments if way == wanted), None)
    if found is None:
        raise _refused("--attach", f"{board.name} has no {wanted}", f"it has {', '.join(board.attachments)}")
    return found


def _plan(region: Region, sub_band: int) -> ChannelPlan:
    try:
        return make_plan(region, sub_band)
    except ValueError as error:
        raise _refused("--sub-band", str(error), "") from error


def _eui(text: str) -> EUI64:
    try:
        return EUI64.parse(text)
    except ValueError as error:
        raise _refused("--gateway-eui", str(error), "16 hex digits; chip_id of sx1302_hal prints it") from error


def _refused(where: str, what: str, hint: str) -> ConfigError:
    return ConfigError([Problem(where=where, what=what, hint=hint)])


def _next(setup: Setup) -> Iterator[str]:
    """What the operator does with the files."""
    if setup.gateway_eui is None:
        yield (
            f"Put the gateway's own EUI in place of {str(PLACEHOLDER_EUI).upper()} in global_conf.json (chip_id of "
            "sx1302_hal prints it), or say --gateway-eui."
        )
    yield f"See that {setup.device} is there; --device names another."
    yield from _reset_step(setup.board, setup)
    if setup.board.temperature_sensor is not None and setup.attachment == "spi":
        address = f"0x{setup.board.temperature_sensor:02x}"
        yield f"Enable I2C: the temperature sensor at {address} of /dev/i2c-1 has to answer."
    if setup.gnss and setup.gnss_device is None:
        yield f"Position and time come from {setup.board.gnss}, which neither program reads: they run without."
    yield f"Put one table of {FILE} into lorabridge.toml, by what is to drive the concentrator:\n{_WAYS}"
    sub_band = f" and mac.sub_band = {setup.plan.sub_band}" if setup.plan.sub_band else ""
    yield f'Set network.region = "{setup.plan.region.name}"{sub_band} in lorabridge.toml: devices use these channels.'


def _reset_step(board: Board, setup: Setup) -> Iterator[str]:
    if setup.pins is not None:
        lines = setup.pins
        named = [("reset", lines.reset), ("power", lines.power_enable), ("SX1261 reset", lines.sx1261_reset)]
        listed = ", ".join(f"{name} GPIO{line}" for name, line in named if line is not None)
        yield f"Wiring: {listed}. {RESET_SCRIPT} pulls them with pinctrl of Raspberry Pi OS."
    elif setup.attachment == "spi":
        yield f"Reset: no line is known of the {board.name}; lora_pkt_fwd needs a {RESET_SCRIPT} of its maker."
