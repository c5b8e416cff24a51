"""Devices, groups and keys from files: all that is wrong with them at once, and never a key in what is said."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lorabridge.errors import Problem
from lorabridge.lorawan.device import Activation, CounterPolicy, Device, MulticastGroup, SessionKeys
from lorabridge.lorawan.multicast import derive_multicast_keys
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import AES128Key
from lorabridge.settings import did_you_mean, read_table
from lorabridge.store.device_checks import check_together
from lorabridge.store.device_settings import (
    ADDRESS_FIELDS,
    GROUP_KEY_FIELDS,
    KEY_FIELDS,
    KEY_RULES,
    DeviceSettings,
    MulticastGroupSettings,
)
from lorabridge.store.key_checks import weakness
from lorabridge.store.secret_files import MAX_DEVICE_FILE, read_key, read_private

_AT_LINE = re.compile(r"^(.*) \(at line (\d+), column \d+\)$", re.DOTALL)


T = TypeVar("T", bound=msgspec.Struct)


class LoadedDevice(msgspec.Struct, frozen=True):
    """A device and the place it was read from."""

    device: Device
    where: str
    """`file: device[n]`."""


class LoadedGroup(msgspec.Struct, frozen=True):
    """A multicast group and the place it was read from."""

    group: MulticastGroup
    where: str
    """`file: multicast_group[n]`."""


class Loaded(msgspec.Struct, frozen=True):
    """All that the device files hold."""

    devices: list[LoadedDevice]
    groups: list[LoadedGroup]


class _Reading(msgspec.Struct, frozen=True):
    """One device file being read."""

    path: Path
    credentials_dir: Path | None
    problems: list[Problem]


def load_devices(path: Path, *, credentials_dir: Path | None) -> tuple[tuple[Device, ...], list[Problem]]:
    """The devices of a file, or of every `*.toml` of a folder, and every problem, those of groups too.

    When one of the problems is an error (not a warning), some devices are missing: do not run with the rest.
    """
    devices, _, problems = load_devices_and_groups(path, credentials_dir=credentials_dir)
    return devices, problems


def load_devices_and_groups(
    path: Path, *, credentials_dir: Path | None
) -> tuple[tuple[Device, ...], tuple[MulticastGroup, ...], list[Problem]]:
    """The same, with the multicast groups."""
    loaded, problems = read_files(path, credentials_dir=credentials_dir)
    return tuple(one.device for one in loaded.devices), tuple(one.group for one in loaded.groups), problems


def read_devices(path: Path, *, credentials_dir: Path | None) -> tuple[list[LoadedDevice], list[Problem]]:
    """The devices with the place of each."""
    loaded, problems = read_files(path, credentials_dir=credentials_dir)
    return loaded.devices, problems


def read_files(path: Path, *, credentials_dir: Path | None) -> tuple[Loaded, list[Problem]]:
    """Devices and multicast groups with the place of each."""
    problems: list[Problem] = []
    loaded = Loaded([], [])
    for file in _files(path, problems):
        reading = _Reading(file, credentials_dir, problems)
        table = _read_toml(file, problems)
        known = {"device": None, "multicast_group": None}
        problems.extend(
            Problem(where=f"{file}: {key}", what="unknown key", hint=did_you_mean(key, known))
            for key in table
            if key not in known
        )
        loaded.devices.extend(_read_devices(table, reading))
        loaded.groups.extend(_read_groups(table, reading))
    problems += check_together(
        [(one.device, one.where) for one in loaded.devices], [(one.group, one.where) for one in loaded.groups]
    )
    return loaded, problems


def _files(path: Path, problems: list[Problem]) -> list[Path]:
    """The device files at `path` in the order of their names."""
    try:
        if not path.is_dir():
            if _is_pattern(path):
                hint = f'name the folder: devices = "{path.parent}"'
                problems.append(Problem(where=str(path), what="patterns are not looked up here", hint=hint))
                return []
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


def _is_pattern(path: Path) -> bool:
    """`*.toml` of some folder, as a shell would look it up; a file may be called like that, though."""
    return "*" in path.name and not path.exists()


def _read_devices(table: Mapping[str, Any], reading: _Reading) -> Iterator[LoadedDevice]:
    """The devices of one file that are in order."""
    for settings, where in _entries(table, "device", DeviceSettings, reading):
        device = _make_device(settings, where, reading)
        if device is not None:
            yield LoadedDevice(device, where)


def _read_groups(table: Mapping[str, Any], reading: _Reading) -> Iterator[LoadedGroup]:
    """The multicast groups of one file that are in order."""
    for settings, where in _entries(table, "multicast_group", MulticastGroupSettings, reading):
        group = _make_group(settings, where, reading)
        if group is not None:
            yield LoadedGroup(group, where)


def _entries(table: Mapping[str, Any], name: str, cls: type[T], reading: _Reading) -> Iterator[tuple[T, str]]:
    """The tables of an array of tables that have the right form, each with its place."""
    path, problems = reading.path, reading.problems
    entries = table.get(name, [])
    if not isinstance(entries, list):
        what = "is one table where a list of them belongs"
        problems.append(Problem(where=f"{path}: {name}", what=what, hint=f"write [[{name}]], with two brackets"))
        return
    for number, entry in enumerate(entries, 1):
        place = f"{name}[{number}]"
        if not isinstance(entry, dict):
            problems.append(Problem(where=f"{path}: {place}", what="is no table", hint=f"write [[{name}]]"))
            continue
        found: list[Problem] = []  # one of its own: what it holds is counted for every table
        settings = read_table(cls, entry, str(path), found, place)
        problems += found
        if settings is not None:
            yield settings, f"{path}: {place}"


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


def _make_device(settings: DeviceSettings, where: str, reading: _Reading) -> Device | None:
    """The device, or None with problems."""
    problems = reading.problems
    before = len(problems)
    _check_fields(settings, where, problems)
    keys = _read_keys(settings, KEY_FIELDS, where, reading)
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
        device_class=settings.device_class,
        adr=settings.adr,
        tags=tuple(settings.tags.items()),
    )


def _make_group(settings: MulticastGroupSettings, where: str, reading: _Reading) -> MulticastGroup | None:
    """The multicast group, or None with problems."""
    problems = reading.problems
    before = len(problems)
    _check_region(settings.region, where, problems)
    if (settings.mc_key is None) is (settings.mc_nwk_s_key is None) or (settings.mc_key and settings.mc_app_s_key):
        hint = "write mc_key, or mc_nwk_s_key with or without mc_app_s_key"
        problems.append(Problem(where=f"{where}.mc_key", what="the keys of the group are not clear", hint=hint))
    keys = _read_keys(settings, GROUP_KEY_FIELDS, where, reading)
    if len(problems) > before:
        return None
    problems.extend(_weak_keys(keys, where, "send to the group as the network does"))
    if "mc_key" in keys:
        derived = derive_multicast_keys(keys["mc_key"], settings.mc_addr)
        keys = {"mc_nwk_s_key": derived.mc_nwk_s_key, "mc_app_s_key": derived.mc_app_s_key}
    return MulticastGroup(
        name=settings.name,
        mc_addr=settings.mc_addr,
        mc_nwk_s_key=keys["mc_nwk_s_key"],
        mc_app_s_key=keys.get("mc_app_s_key"),
        frequency_hz=None if settings.frequency is None else round(settings.frequency * 1_000_000),
        data_rate=settings.data_rate,
        gateways=settings.gateways,
        region=settings.region,
    )


def _read_keys(settings: msgspec.Struct, fields: Iterable[str], where: str, reading: _Reading) -> dict[str, AES128Key]:
    """The keys that are written, by their fields; one that cannot be read is a problem."""
    keys: dict[str, AES128Key] = {}
    for field in fields:
        written = getattr(settings, field)
        if written is not None:
            place, folder = f"{where}.{field}", reading.path.parent
            key = read_key(written, place, folder, reading.credentials_dir, reading.problems)
            if key is not None:
                keys[field] = key
    return keys


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
    if settings.activation is Activation.OTAA and settings.counter_policy is not CounterPolicy.STRICT:
        what = "does not belong to a device that joins: its counter begins again with a new session only"
        problems.append(Problem(where=f"{where}.counter_policy", what=what, hint="leave it out"))
    _check_region(settings.region, where, problems)


def _check_region(region: str | None, where: str, problems: list[Problem]) -> None:
    if region is not None and region not in REGIONS:
        hint = did_you_mean(region, REGIONS)
        problems.append(Problem(where=f"{where}.region", what=f"unknown region {region!r}", hint=hint))


def _warnings(settings: DeviceSettings, keys: Mapping[str, AES128Key], where: str) -> Iterable[Problem]:
    """What works, but should not stay so."""
    yield from _weak_keys(keys, where, "read and forge this device's frames")
    if settings.counter_policy is CounterPolicy.OFF:
        what = "anybody who recorded a frame of this device can send it again and it will be forwarded as new"
        hint = 'for a bench only: use "confirm"'
        yield Problem(where=f"{where}.counter_policy", what=what, hint=hint, warning=True)


def _weak_keys(keys: Mapping[str, AES128Key], where: str, can: str) -> Iterable[Problem]:
    """Keys that are no secret; `can`: what whoever knows them can do."""
    for field, key in keys.items():
        weak = weakness(key)
        if weak is not None:
            hint = f"whoever knows it can {can}: use a random key"
            yield Problem(where=f"{where}.{field}", what=f"this key {weak}", hint=hint, warning=True)
