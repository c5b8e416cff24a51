"""`lorabridge devices list|check|show|import`: what the bridge knows of its devices, without their keys."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.types import MacVersion
from lorabridge.store.device_checks import device_keys
from lorabridge.store.device_import import FORMATS, import_devices, to_toml
from lorabridge.store.devices import LoadedDevice, read_devices
from lorabridge.store.key_checks import fingerprint

DEFAULT_PATH = Path("/etc/lorabridge/devices.d")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="one line a device")
    check = actions.add_parser("check", help="every problem of the device files")
    show = actions.add_parser("show", help="all of one device; keys as fingerprints")
    show.add_argument("which", metavar="NAME|DEV_EUI")
    for action in (listing, check, show):
        action.add_argument(
            "--path", type=Path, default=DEFAULT_PATH, help="device file, or directory of *.toml files (%(default)s)"
        )
    taking = actions.add_parser("import", help="make a device file of an export of ChirpStack or The Things Stack")
    taking.add_argument("file", metavar="FILE", help="CSV or JSON; - is standard input")
    taking.add_argument("--format", choices=FORMATS, default="auto", help="what FILE is (%(default)s)")
    taking.add_argument("--out", type=Path, required=True, help="the device file to write, readable by you alone")
    taking.add_argument("--force", action="store_true", help="replace a file that is there")
    taking.add_argument(
        "--mac-version",
        choices=[version.value for version in MacVersion],
        help="LoRaWAN version of devices whose export does not say",
    )


def run(args: argparse.Namespace) -> int:
    """Do it; the result is the exit status."""
    if args.action == "import":
        return _import(args)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    loaded, problems = read_devices(args.path, credentials_dir=Path(credentials) if credentials else None)
    for problem in problems:
        print(problem, file=sys.stdout if args.action == "check" else sys.stderr)
    errors = sum(not problem.warning for problem in problems)
    status = EXIT_CONFIG if errors else EXIT_OK
    if args.action == "check":
        print(f"{len(loaded)} device(s) in order, {errors} error(s), {len(problems) - errors} warning(s)")
        return status
    if args.action == "list":
        _list([one.device for one in loaded])
        return status
    return _show(loaded, args.which) or status


def _list(devices: list[Device]) -> None:
    """A table."""
    rows = [("NAME", "DEV EUI", "VERSION", "BY", "DEV ADDR", "COUNTER", "PAYLOAD")]
    for device in devices:
        keys = device.session_keys
        payload = "-" if keys is None else "sealed" if keys.app_s_key is None else "decrypted"
        rows.append(
            (
                device.name,
                str(device.dev_eui),
                device.mac_version.value,
                device.activation.value,
                "-" if device.dev_addr is None else str(device.dev_addr),
                device.counter_policy.value,
                payload,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(loaded: list[LoadedDevice], which: str) -> int:
    """Everything about one device but its keys."""
    wanted = which.replace("-", "").replace(":", "").lower()
    found = [one for one in loaded if one.device.name == which or str(one.device.dev_eui) == wanted]
    if not found:
        print(f"no device is called {which!r} or has it as DevEUI", file=sys.stderr)
        return EXIT_FAILED
    for one in found:
        device = one.device
        facts = {
            "name": device.name,
            "read from": one.where,
            "dev_eui": device.dev_eui,
            "mac_version": device.mac_version.value,
            "activation": device.activation.value,
            "dev_addr": device.dev_addr,
            "join_eui": device.join_eui,
            "counter_policy": device.counter_policy.value,
            "confirm_frames": device.confirm_frames if device.counter_policy.value == "confirm" else None,
            "max_fcnt_gap": device.max_fcnt_gap,
            "region": device.region,
            "channels": ", ".join(f"{hz / 1e6:g} MHz" for hz in device.channels_hz) or None,
            **{f"tag {key}": value for key, value in device.tags},
            **{name: f"present, fingerprint {fingerprint(key)}" for name, key in device_keys(device).items()},
        }
        for name, value in facts.items():
            if value is not None:
                print(f"{name:<18}{value}")
    return EXIT_OK


def _import(args: argparse.Namespace) -> int:
    """Convert, write privately, and look at the result as the bridge will."""
    try:
        data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    except OSError as error:
        raise ConfigError([Problem(where=args.file, what=(error.strerror or "cannot be read").lower())]) from None
    version = MacVersion(args.mac_version) if args.mac_version else None
    devices, problems = import_devices(data, args.file, args.format, version)
    for problem in problems:
        print(f"left out: {problem}")
    if not devices:
        print("no device could be taken; nothing was written")
        return EXIT_FAILED
    _write_private(args.out, to_toml(devices), replace=args.force)
    for device in devices:
        for note in device.notes:
            print(f"{device.fields['name']}: {note}")
    for problem in read_devices(args.out, credentials_dir=None)[1]:
        print(problem)
    print(f"{len(devices)} device(s) written to {args.out}, {len(problems)} left out")
    print("frame counters are not imported: each begins with the first frame heard")
    return EXIT_FAILED if problems else EXIT_OK


def _write_private(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises ConfigError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            if replace:
                beside.replace(path)
            else:
                os.link(beside, path)  # unlike rename, refuses to replace
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        problem = Problem(where=str(path), what="is there already", hint="--force replaces it")
        raise ConfigError([problem]) from None
    except OSError as error:
        what = f"cannot be written: {(error.strerror or 'error').lower()}"
        raise ConfigError([Problem(where=str(path), what=what, hint="look at the folder and its owner")]) from None
