"""What can be wrong with devices only when they are seen together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from lorabridge.errors import Problem
from lorabridge.lorawan.device import Device, MulticastGroup
from lorabridge.lorawan.engine import MAX_SESSIONS_PER_DEV_ADDR
from lorabridge.lorawan.types import AES128Key, DevAddr

K = TypeVar("K")
Placed = tuple[Device, str]
"""A device and its place, `file: device[n]`."""
PlacedGroup = tuple[MulticastGroup, str]
"""A multicast group and its place, `file: multicast_group[n]`."""


def check_together(devices: Sequence[Placed], groups: Sequence[PlacedGroup] = ()) -> list[Problem]:
    """Every problem of devices and groups with each other."""
    names = [*((one.name, where) for one, where in devices), *((one.name, where) for one, where in groups)]
    return [
        *_repeated(((device.dev_eui, where) for device, where in devices), "dev_eui"),
        *_repeated(names, "name"),
        *_repeated(((group.mc_addr, where) for group, where in groups), "mc_addr"),
        *_addresses_of_devices(devices, groups),
        *_one_session_twice(devices),
        *_crowded(devices),
        *_shared_keys(devices, groups),
    ]


def _repeated(values: Iterable[tuple[K, str]], field: str) -> Iterator[Problem]:
    """A value that should be somebody's own, and is not."""
    first: dict[K, str] = {}
    for value, where in values:
        if value in first:
            what, hint = f"{value} is taken", f"the first one that has it: {first[value]}"
            yield Problem(where=f"{where}.{field}", what=what, hint=hint)
        first.setdefault(value, where)


def _addresses_of_devices(devices: Sequence[Placed], groups: Sequence[PlacedGroup]) -> Iterator[Problem]:
    """A group under the address of a device: what is sent to the one reaches the other."""
    taken = {device.dev_addr: where for device, where in devices if device.dev_addr is not None}
    for group, where in groups:
        if group.mc_addr in taken:
            what, hint = f"{group.mc_addr} is the address of a device", f"the device: {taken[group.mc_addr]}"
            yield Problem(where=f"{where}.mc_addr", what=what, hint=hint)


def _one_session_twice(devices: Sequence[Placed]) -> Iterator[Problem]:
    """Address and network key of another device: no frame could tell which one sent it."""
    first: dict[tuple[DevAddr, AES128Key], str] = {}
    for device, where in devices:
        if device.dev_addr is None or device.session_keys is None:
            continue
        session = (device.dev_addr, device.session_keys.f_nwk_s_int_key)
        if session in first:
            what = f"has address {device.dev_addr} and network key of another device: their frames cannot be told apart"
            yield Problem(where=where, what=what, hint=f"the other one: {first[session]}")
        first.setdefault(session, where)


def _crowded(devices: Sequence[Placed]) -> Iterator[Problem]:
    """More devices on an address than the bridge tries keys for."""
    places: dict[DevAddr, list[str]] = {}
    for device, where in devices:
        if device.dev_addr is not None and device.session_keys is not None:
            places.setdefault(device.dev_addr, []).append(where)
    for dev_addr, found in places.items():
        if len(found) > MAX_SESSIONS_PER_DEV_ADDR:
            what = (
                f"{len(found)} devices have the address {dev_addr}; at most {MAX_SESSIONS_PER_DEV_ADDR} may share one"
            )
            hint = "every frame is tried with the keys of all of them: give some another address"
            yield Problem(where=f"{found[MAX_SESSIONS_PER_DEV_ADDR]}.dev_addr", what=what, hint=hint)


def _shared_keys(devices: Sequence[Placed], groups: Sequence[PlacedGroup]) -> Iterator[Problem]:
    """One key in two places: who learns it of one device has it for the others. One warning a key."""
    uses: dict[AES128Key, list[tuple[str, str]]] = {}
    owned = [(device_keys(device), where) for device, where in devices]
    for keys, where in [*owned, *((group_keys(group), where) for group, where in groups)]:
        for field, key in keys.items():
            uses.setdefault(key, []).append((where, field))
    for found in uses.values():
        if len(found) == 1:
            continue
        owners = list(dict.fromkeys(where for where, _ in found))
        first = f"{found[0][0]}.{found[0][1]}"
        if len(owners) > 1:
            what = f"this key is shared by {len(owners)} devices or groups (another one: {owners[1]})"
            hint = "who opens one of them can read and forge the others: give each its own"
        else:
            what = f"this key is also {', '.join(field for _, field in found[1:])} here"
            hint = "an integrity key and an encryption key must differ: use two random keys"
        yield Problem(where=first, what=what, hint=hint, warning=True)


def device_keys(device: Device) -> dict[str, AES128Key]:
    """Every key of a device by its name in the device file."""
    keys: dict[str, AES128Key | None] = {"app_key": device.app_key, "nwk_key": device.nwk_key}
    session = device.session_keys
    if session is not None:
        if device.mac_version.is_1_1:
            keys["f_nwk_s_int_key"] = session.f_nwk_s_int_key
            keys["s_nwk_s_int_key"] = session.s_nwk_s_int_key
            keys["nwk_s_enc_key"] = session.nwk_s_enc_key
        else:
            keys["nwk_s_key"] = session.f_nwk_s_int_key
        keys["app_s_key"] = session.app_s_key
    return {name: key for name, key in keys.items() if key is not None}


def group_keys(group: MulticastGroup) -> dict[str, AES128Key]:
    """Every key of a multicast group by its name in the device file."""
    keys = {"mc_nwk_s_key": group.mc_nwk_s_key, "mc_app_s_key": group.mc_app_s_key}
    return {name: key for name, key in keys.items() if key is not None}
