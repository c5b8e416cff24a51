"""`lorabridge devices list|check|show|import|forget-nonces`: what is known of devices, without their keys."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.device import Activation, CounterPolicy, Device, MulticastGroup
from lorabridge.lorawan.types import EUI64, AES128Key, MacVersion
from lorabridge.store.device_checks import device_keys, group_keys
from lorabridge.store.device_import import FORMATS, import_devices, to_toml
from lorabridge.store.devices import Loaded, LoadedDevice, LoadedGroup, read_files
from lorabridge.store.key_checks import fingerprint
from lorabridge.store.release import describe_nonces, forget_nonces, read_nonces
from lorabridge.store.secret_files import write_private
from lorabridge.store.values import StoreSettings

DEFAULT_PATH = Path("/etc/lorabridge/devices.d")


_ABOUT_NONCES = """\
forget-nonces lets a device join that is at a dead end: all its nonces are used, or it counts them from the beginning
again. What that means: a join-request that somebody recorded earlier can be played back once more. That gives a
session that nobody can use, because its keys follow from the root keys; the device's own session stays as it is. But of
a device that counts its nonces, a recorded request with a high one is a dead end again: give it new root keys when
somebody does that. JoinNonce goes on where it was. Do it when a device is known to be stuck, not as a habit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _ABOUT_NONCES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="one line a device")
    check = actions.add_parser("check", help="every problem of the device files")
    show = actions.add_parser("show", help="all of one device; keys as fingerprints")
    forget = actions.add_parser("forget-nonces", help="let a device join again that has used up its nonces")
    for action in (show, forget):
        action.add_argument("which", metavar="NAME|DEV_EUI")
    for action in (listing, check, show, forget):
        action.add_argument(
            "--path", type=Path, default=DEFAULT_PATH, help="device file, or directory of *.toml files (%(default)s)"
        )
    show.add_argument("--store", type=Path, help="the database: tells how many nonces the device has used")
    forget.add_argument("--store", type=Path, default=Path(StoreSettings().path), help="the database (%(default)s)")
    forget.add_argument("--yes", action="store_true", help="do it: see `lorabridge devices --help`")
    _add_import(actions.add_parser("import", help="make a device file of an export of ChirpStack or The Things Stack"))


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="CSV or JSON; - is standard input")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="what FILE is (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the device file to write, readable by you alone")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--mac-version",
        choices=[version.value for version in MacVersion],
        help="LoRaWAN version of devices whose export does not say",
    )


def run(args: argparse.Namespace) -> int:
    """Do it; the result is the exit status."""
    if args.action == "import":
        return _import(args)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    loaded, problems = read_files(args.path, credentials_dir=Path(credentials) if credentials else None)
    if args.action == "forget-nonces":
        return _forget_nonces(loaded.devices, problems, args)
    for problem in problems:
        print(problem, file=sys.stdout if args.action == "check" else sys.stderr)
    errors = sum(not problem.warning for problem in problems)
    status = EXIT_CONFIG if errors else EXIT_OK
    if args.action == "check":
        groups = f" and {len(loaded.groups)} multicast group(s)" if loaded.groups else ""
        found = f"{len(loaded.devices)} device(s){groups}"
        print(f"{found} in order, {errors} error(s), {len(problems) - errors} warning(s)")
        return status
    if args.action == "list":
        _list([one.device for one in loaded.devices])
        _list_groups([one.group for one in loaded.groups])
        return status
    return _show(loaded, args.which, args.store) or status


def _list(devices: list[Device]) -> None:
    """A table."""
    rows = [("NAME", "DEV EUI", "VERSION", "BY", "CLASS", "DEV ADDR", "COUNTER", "PAYLOAD")]
    for device in devices:
        joins = device.activation is Activation.OTAA
        app_key = device.app_key if joins else device.session_keys and device.session_keys.app_s_key
        rows.append(
            (
                device.name,
                str(device.dev_eui),
                device.mac_version.value,
                device.activation.value,
                device.device_class.value,
                "-" if device.dev_addr is None else str(device.dev_addr),
                "-" if joins else device.counter_policy.value,
                "sealed" if app_key is None else "decrypted",
            )
        )
    _print_table(rows)


def _list_groups(groups: list[MulticastGroup]) -> None:
    """A table of its own, when there are any."""
    rows = [
        (
            group.name,
            str(group.mc_addr),
            "-" if group.frequency_hz is None else f"{group.frequency_hz / 1e6:g}",
            "-" if group.data_rate is None else str(group.data_rate),
            ", ".join(map(str, group.gateways)) or "all",
        )
        for group in groups
    ]
    if rows:
        print()
        _print_table([("MULTICAST GROUP", "MC ADDR", "FREQUENCY", "DATA RATE", "GATEWAYS"), *rows])


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(loaded: Loaded, which: str, store: Path | None) -> int:
    """Everything about one device or group but its keys."""
    shown = [_device_facts(one, store) for one in _find(loaded.devices, which)]
    shown += [_group_facts(one) for one in loaded.groups if one.group.name == which]
    if not shown:
        print(f"no device is called {which!r} or has it as DevEUI, and no group is called so", file=sys.stderr)
        return EXIT_FAILED
    for facts in shown:
        for name, value in facts.items():
            if value is not None:
                print(f"{name:<18}{value}")
    return EXIT_OK


def _find(loaded: Sequence[LoadedDevice], which: str) -> list[LoadedDevice]:
    """The devices of this name or DevEUI."""
    wanted = which.replace("-", "").replace(":", "").lower()
    return [one for one in loaded if one.device.name == which or str(one.device.dev_eui) == wanted]


def _device_facts(one: LoadedDevice, store: Path | None) -> dict[str, object]:
    device = one.device
    return {
        "name": device.name,
        "read from": one.where,
        "dev_eui": device.dev_eui,
        "mac_version": device.mac_version.value,
        "activation": device.activation.value,
        "class": device.device_class.value,
        "adr": "on" if device.adr else "off",
        "dev_addr": device.dev_addr,
        "join_eui": device.join_eui,
        "counter_policy": device.counter_policy.value,
        "confirm_frames": device.confirm_frames if device.counter_policy is CounterPolicy.CONFIRM else None,
        "max_fcnt_gap": device.max_fcnt_gap,
        "region": device.region,
        "channels": ", ".join(f"{hz / 1e6:g} MHz" for hz in device.channels_hz) or None,
        "joins": None if store is None else describe_nonces(read_nonces(store, device.dev_eui)),
        **{f"tag {key}": value for key, value in device.tags},
        **_fingerprints(device_keys(device)),
    }


def _group_facts(one: LoadedGroup) -> dict[str, object]:
    group = one.group
    return {
        "name": group.name,
        "read from": one.where,
        "mc_addr": group.mc_addr,
        "frequency": None if group.frequency_hz is None else f"{group.frequency_hz / 1e6:g} MHz",
        "data_rate": group.data_rate,
        "gateways": ", ".join(map(str, group.gateways)) or "all that are heard",
        "region": group.region,
        **_fingerprints(group_keys(group)),
    }


def _fingerprints(keys: Mapping[str, AES128Key]) -> dict[str, str]:
    return {name: f"present, fingerprint {fingerprint(key)}" for name, key in keys.items()}


def _forget_nonces(loaded: Sequence[LoadedDevice], problems: Sequence[Problem], args: argparse.Namespace) -> int:
    """Release a device, when the operator knows what it means. Runs beside the bridge."""
    try:
        targets = {EUI64.parse(args.which): args.which}
    except ValueError:
        targets = {one.device.dev_eui: one.device.name for one in _find(loaded, args.which)}
    if not targets:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"no device is called {args.which!r}; its DevEUI will do too", file=sys.stderr)
        return EXIT_FAILED
    status = EXIT_OK
    for dev_eui, name in targets.items():
        used = forget_nonces(args.store, dev_eui) if args.yes else read_nonces(args.store, dev_eui)
        print(f"{name}: {describe_nonces(used)}")
        if used is None:
            status = EXIT_FAILED
    if not args.yes:
        print(f"\n{_ABOUT_NONCES}\n\nTo do it, give --yes too.")
        return EXIT_FAILED
    if status == EXIT_OK:
        print("forgotten: the next join-request that verifies is taken, a running bridge needs no restart")
    return status


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
    for problem in read_files(args.out, credentials_dir=None)[1]:
        print(problem)
    print(f"{len(devices)} device(s) written to {args.out}, {len(problems)} left out")
    print("frame counters are not imported: each begins with the first frame heard")
    return EXIT_FAILED if problems else EXIT_OK


def _write_private(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises ConfigError."""
    try:
        write_private(path, text, replace=replace)
    except FileExistsError:
        problem = Problem(where=str(path), what="is there already", hint="--force replaces it")
        raise ConfigError([problem]) from None
    except OSError as error:
        what = f"cannot be written: {(error.strerror or 'error').lower()}"
        raise ConfigError([Problem(where=str(path), what=what, hint="look at the folder and its owner")]) from None
