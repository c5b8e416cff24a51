"""`lorabridge radio probe`: find and identify what is attached, by asking it."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from lorabridge.cli.main import EXIT_FAILED, EXIT_OK
from lorabridge.radio.gnss.clock import GnssState
from lorabridge.radio.gnss.framing import BAUD
from lorabridge.radio.gnss.reader import GnssReader
from lorabridge.radio.serial_port import PortError
from lorabridge.radio.usb_mcu import TIMEOUT, Mcu, UsbPort, find_ports

SAYS = "find and identify USB concentrators, and a GNSS receiver"
_NONE_FOUND = "no USB concentrator found (is it plugged in? SPI boards cannot be identified from here)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the action's arguments."""
    parser.add_argument(
        "--port",
        action="append",
        metavar="PATH",
        help="ask this port, whatever its USB identity; may be given more than once",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="how long a port may take (default %(default)s)",
    )
    parser.add_argument("--gnss", metavar="PATH", help="listen to a GNSS receiver on this port, as /dev/ttyAMA0")
    parser.add_argument("--gnss-baud", type=int, default=BAUD, metavar="N", help="its speed (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Print what is attached; exit status 1 unless something is, and all that was asked is in order."""
    ports = [UsbPort(path=path) for path in args.port or ()] or find_ports()
    found = [_identify(port, args.timeout) for port in ports]
    gnss = [_listen(args.gnss, args.gnss_baud, args.timeout)] if args.gnss else []
    if args.json:
        print(json.dumps({"ports": found, "gnss": gnss}, indent=2))
    else:
        print("\n".join([*map(_readable, found), *map(_readable_gnss, gnss)] or [_NONE_FOUND]))
    asked = found + gnss
    return EXIT_OK if asked and not any(facts["fault"] for facts in asked) else EXIT_FAILED


def _identify(port: UsbPort, timeout: float) -> dict[str, Any]:
    """Who is behind a port, or what is wrong with it."""
    facts = dict.fromkeys(("unique_id", "firmware", "uptime_ms", "temperature_c", "fault", "says", "hint"))
    about: dict[str, Any] = {
        "port": port.path,
        "product": port.product,
        "serial_number": port.serial_number,
    } | facts
    try:
        with Mcu(port.path, timeout=timeout) as mcu:
            identity = mcu.ping()
            about |= {"unique_id": identity.unique_id, "firmware": identity.firmware}
            status = mcu.status()
            about |= {"uptime_ms": status.uptime_ms, "temperature_c": status.temperature_c}
    except PortError as error:
        about |= {"fault": error.fault.value, "says": error.says, "hint": error.hint}
    return about


def _listen(port: str, baud: int, timeout: float) -> dict[str, Any]:
    """What a GNSS receiver says within `timeout` seconds, or what is wrong with its port."""
    state: GnssState | None = None
    about: dict[str, Any] = {"port": port, "fault": None, "says": None, "hint": None}
    try:
        with GnssReader(port, baud=baud) as reader:
            state = reader.identify(timeout)
    except PortError as error:
        about |= {"fault": error.fault.value, "says": error.says, "hint": error.hint}
    return about | {"state": msgspec.to_builtins(state)}


def _readable_gnss(about: dict[str, Any]) -> str:
    """The receiver for people."""
    lines, state = [about["port"]], about["state"]
    if about["fault"] is not None:
        return "\n".join([*lines, f"  {about['fault']}: {about['says']}", f"  {about['hint']}"])
    place, moment = state["position"], "no time yet"
    if state["utc_ns"] is not None:
        utc = datetime.fromtimestamp(state["utc_ns"] // 1_000_000_000, UTC)
        moment = f"time {utc:%Y-%m-%dT%H:%M:%SZ} (quality {state['quality']})"
    lines.append(f"  GNSS receiver, {moment}")
    if place is None:
        return "\n".join([*lines, "  no position yet: does the antenna see the sky?"])
    lines.append(f"  {place['latitude']:.5f}, {place['longitude']:.5f}, {place['satellites']} satellites")
    return "\n".join(lines)


def _readable(about: dict[str, Any]) -> str:
    """One port for people."""
    lines = [about["port"]]
    if about["unique_id"] is not None:
        lines.append(f"  USB concentrator (SX1302 or SX1303), firmware {about['firmware']}, id {about['unique_id']}")
    if about["temperature_c"] is not None:
        lines.append(f"  {about['temperature_c']:.2f} °C, up for {about['uptime_ms'] / 1000:.0f} s")
    if about["fault"] is not None:
        lines += [f"  {about['fault']}: {about['says']}", f"  {about['hint']}"]
    return "\n".join(lines)
