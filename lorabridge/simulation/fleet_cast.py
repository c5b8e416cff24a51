"""Who takes part in a fleet: devices of every kind, with keys derived from their names, and the file for the bridge."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import DevAddr, DeviceClass, MacVersion
from lorabridge.simulation.cast import (
    NET_ID,
    derived_eui,
    derived_key,
    derived_session_keys,
    device_table,
)

_ABP_EVERY = 10
_CLASS_C_EVERY = 7
_SEALED_EVERY = 11
_VERSIONS = (MacVersion.V1_0_3, MacVersion.V1_0_4, MacVersion.V1_1_0)
_ABP_ADDRESSES = NET_ID.nwk_id << 25 | 1 << 24
"""A corner of the network's addresses; joining devices get theirs from the other half (`FLEET_ADDRESS_RANGE`)."""
FLEET_ADDRESS_RANGE = f"{NET_ID.nwk_id << 25:08x}/8"
_HEADER = """\
# The devices of a simulated fleet: virtual, with keys that anybody can derive. Use them nowhere else.
"""


class FleetMember(msgspec.Struct, frozen=True):
    """One device, and what the bridge is told of it."""

    device: Device
    """With every key, as the device itself has them."""
    is_sealed: bool
    """The bridge gets no key to its payloads."""

    @property
    def known_to_bridge(self) -> Device:
        """The device as the device file tells of it."""
        device = self.device
        if not self.is_sealed:
            return device
        if device.session_keys is None:
            return msgspec.structs.replace(device, app_key=None)
        keys = msgspec.structs.replace(device.session_keys, app_s_key=None)
        return msgspec.structs.replace(device, session_keys=keys)


def fleet_members(n_devices: int, region: str) -> tuple[FleetMember, ...]:
    """A mix of 1.0.3, 1.0.4 and 1.1; every tenth is ABP, every seventh of class C, some are sealed.

    Raises KeyError for a region that does not exist.
    """
    return tuple(_member(n, REGIONS[region].name) for n in range(n_devices))


def fleet_device_file(members: tuple[FleetMember, ...]) -> str:
    """The device file of a fleet, as an operator would write it."""
    return _HEADER + "".join(device_table(member.known_to_bridge) for member in members)


def _member(n: int, region: str) -> FleetMember:
    version = _VERSIONS[n % len(_VERSIONS)]
    is_abp = n % _ABP_EVERY == _ABP_EVERY - 1
    name = f"{region.lower()}-fleet-{n:05d}"
    device = Device(
        name=name,
        dev_eui=derived_eui(name),
        mac_version=version,
        activation=Activation.ABP if is_abp else Activation.OTAA,
        device_class=DeviceClass.C if n % _CLASS_C_EVERY == _CLASS_C_EVERY - 1 else DeviceClass.A,
        region=region,
    )
    if is_abp:
        device = msgspec.structs.replace(
            device, dev_addr=DevAddr(_ABP_ADDRESSES | n), session_keys=derived_session_keys(name, version)
        )
    else:
        device = msgspec.structs.replace(
            device,
            join_eui=derived_eui("join server"),
            app_key=derived_key(name, "app_key"),
            nwk_key=derived_key(name, "nwk_key") if version.is_1_1 else None,
        )
    # Under 1.0 one root key gives both session keys, so that only ABP can keep the AppSKey away from the bridge.
    can_be_sealed = is_abp or version.is_1_1
    return FleetMember(device, is_sealed=can_be_sealed and n % _SEALED_EVERY in (2, 9))
