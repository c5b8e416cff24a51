"""Devices and keys from files: all that is wrong with them at once, and never a key in what is said."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.errors import Problem
from lorabridge.lorawan.device import Activation, CounterPolicy, Device, SessionKeys
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import AES128Key
from lorabridge.settings import did_you_mean, read_table
from lorabridge.store.device_checks import check_together
from lorabridge.store.device_settings import ADDRESS_FIELDS, KEY_FIELDS, KEY_RULES, DeviceSettings
from lorabridge.store.key_checks import weakness
from lorabridge.store.secret_files import MAX_DEVICE_FILE, read_key, read_private

_AT_LINE = re.compile(r"^(.*) \(at line (\d+), column \d+\)$", re.DOTALL)


class LoadedDevice(msgspec.Struct, frozen=True):
    """A device and the place it was read from."""

    device: Device
    where: str
    """`file: device[n]`."""


def load_devices(path: Path, *, credentials_dir: Path | None) -> tuple[tuple[Device, ...], list[Problem]]:
    """The devices of a file, or of every `*.toml` of a folder, and every problem.

    When one of the problems is an error (not a warning), some devices are missing: do not run with the rest.
    """
    loaded, problems = read_devices(path, credentials_dir=credentials_dir)
    return tuple(one.device for one in loaded), problems


def read_devices(path: Path, *, credentials_dir: Path | None) -> tuple[list[LoadedDevice], list[Problem]]:
    """The same, with the place of each device."""
    problems: list[Problem] = []
    loaded: list[LoadedDevice] = []
    for file in _files(path, problems):
        loaded += _read_file(file, credentials_dir, problems)
    problems += check_together([(one.device, one.where) for one in loaded])
    return loaded, problems


def _files(path: Path, problems: list[Problem]) -> list[Path]:
    """The device files at `path` in the order of their names."""
    try:
        if not path.is_dir():
            return [path]
        mode = path.stat().st_mode
        if mode & 0o022:
            what = f"others can put device files into this folder (mode {stat.S_IMODE(mode):o})"
            problems.append(Problem(where=str(path), what=what, hint=f"chmod go-w {path}"))
        found = sorted(file for file in path.iterdir() if file.suffix == ".toml" and not file.name.startswith("."))
    except OSError as error:
        problems.append(Problem(where=str(path), what=(error.strerror or str(error)).lower(), hint="look at its owner"))
        return []
    if not found:
        what = "there is no device file (*.toml) in this folder: every frame will be refused"
        hint = "write one, or make one with `lorabridge devices import`"
        problems.append(Problem(where=str(path), what=what, hint=hint, warning=True))
    return found


def _read_file(path: Path, credentials_dir: Path | None, problems: list[Problem]) -> Iterable[LoadedDevice]:
    """The devices of one file that are in order."""
    table = _read_toml(path, problems)
    known = {"device": None}
    problems.extend(
        Problem(where=f"{path}: {key}", what="unknown key", hint=did_you_mean(key, known))
        for key in table
        if key not in known
    )
    entries = table.get("device", [])
    if not isinstance(entries, list):
        what = "is one table where a list of them belongs"
        problems.append(Problem(where=f"{path}: device", what=what, hint="write [[device]], with two brackets"))
        return
    for number, entry in enumerate(entries, 1):
        place = f"device[{number}]"
        if not isinstance(entry, dict):
            problems.append(Problem(where=f"{path}: {place}", what="is no table", hint="write [[device]]"))
            continue
        where, found = f"{path}: {place}", list[Problem]()
        settings = read_table(DeviceSettings, entry, str(path), found, place)
        device = None if settings is None else _make_device(settings, where, path.parent, credentials_dir, found)
        problems += found
        if device is not None:
            yield LoadedDevice(device, where)


def _read_toml(path: Path, problems: list[Problem]) -> dict[str, Any]:
    """What a file holds; empty with a problem when it cannot be read."""
    content = read_private(path, str(path), MAX_DEVICE_FILE, problems)
    if content is None:
        return {}
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(where=f"{path}:{line}", what="is no UTF-8 text", hint="save the file as UTF-8"))
    except ValueError as error:
        found = _AT_LINE.match(str(error))
        where, what = (f"{path}:{found[2]}", found[1]) if found else (str(path), str(error))
        hint = 'a device begins with [[device]], and texts stand in quotes: name = "meter-1"'
        problems.append(Problem(where=where, what=f"is no TOML: {what}", hint=hint))
    except RecursionError:
        problems.append(Problem(where=str(path), what="is nested too deeply", hint="[[device]] tables are flat"))
    return {}


def _make_device(
    settings: DeviceSettings, where: str, folder: Path, credentials_dir: Path | None, problems: list[Problem]
) -> Device | None:
    """The device, or None with problems."""
    before = len(problems)
    _check_fields(settings, where, problems)
    keys: dict[str, AES128Key] = {}
    written = {field: getattr(settings, field) for field in KEY_FIELDS}
    for field, value in written.items():
        if value is not None:
            key = read_key(value, f"{where}.{field}", folder, credentials_dir, problems)
            if key is not None:
                keys[field] = key
    if len(problems) > before:
        return None
    problems.extend(_warnings(settings, keys, where))
    return Device(
        name=settings.name,
        dev_eui=settings.dev_eui,
        mac_version=settings.mac_version,
        activation=settings.activation,
        dev_addr=settings.dev_addr,
        session_keys=_session_keys(keys) if settings.activation is Activation.ABP else None,
        join_eui=settings.join_eui,
        app_key=keys.get("app_key"),
        nwk_key=keys.get("nwk_key"),
        counter_policy=settings.counter_policy,
        confirm_frames=settings.confirm_frames,
        max_fcnt_gap=settings.max_fcnt_gap,
        region=settings.region,
        channels_hz=tuple(round(mhz * 1_000_000) for mhz in settings.channels),
        tags=tuple(settings.tags.items()),
    )


def _session_keys(keys: Mapping[str, AES128Key]) -> SessionKeys:
    """The four keys by their names of 1.1; NwkSKey stands for all three network keys of 1.0."""
    nwk_s_key = keys.get("nwk_s_key")
    return SessionKeys(
        f_nwk_s_int_key=nwk_s_key or keys["f_nwk_s_int_key"],
        s_nwk_s_int_key=nwk_s_key or keys["s_nwk_s_int_key"],
        nwk_s_enc_key=nwk_s_key or keys["nwk_s_enc_key"],
        app_s_key=keys.get("app_s_key"),
    )


def _check_fields(settings: DeviceSettings, where: str, problems: list[Problem]) -> None:
    """What is missing or does not belong, by version and activation; and the region's name."""
    rule = KEY_RULES[settings.activation, settings.mac_version.is_1_1]
    kind = f"a device of {settings.mac_version.value} with activation {settings.activation.value!r}"
    needs = f"{kind} has {', '.join((*rule.required, *rule.optional))}"
    for field in (*ADDRESS_FIELDS, *KEY_FIELDS):
        given = getattr(settings, field) is not None
        if field in rule.required and not given:
            problems.append(Problem(where=f"{where}.{field}", what="is missing", hint=needs))
        elif given and field not in rule.required + rule.optional:
            problems.append(Problem(where=f"{where}.{field}", what=f"does not belong to {kind}", hint=needs))
    if settings.region is not None and settings.region not in REGIONS:
        hint = did_you_mean(settings.region, REGIONS)
        problems.append(Problem(where=f"{where}.region", what=f"unknown region {settings.region!r}", hint=hint))


def _warnings(settings: DeviceSettings, keys: Mapping[str, AES128Key], where: str) -> Iterable[Problem]:
    """What works, but should not stay so."""
    for field, key in keys.items():
        weak = weakness(key)
        if weak is not None:
            hint = "whoever knows it can read and forge this device's frames: give the device a random key"
            yield Problem(where=f"{where}.{field}", what=f"this key {weak}", hint=hint, warning=True)
    if settings.counter_policy is CounterPolicy.OFF:
        what = "anybody who recorded a frame of this device can send it again and it will be forwarded as new"
        hint = 'for a bench only: use "confirm"'
        yield Problem(where=f"{where}.counter_policy", what=what, hint=hint, warning=True)
