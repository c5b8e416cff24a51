"""Which devices there are, which sessions each is in, and the prepared keys of those heard lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec

from lorabridge.lorawan.activation import JoinedSession
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import Device, MulticastGroup, SessionKeys
from lorabridge.lorawan.events import DeviceRef
from lorabridge.lorawan.join import first_address
from lorabridge.lorawan.mac_state import DEFAULT_MAC_STATE, AddedChannel, MacState
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.session import Session, session_id_of
from lorabridge.lorawan.types import EUI64, DevAddr

K = TypeVar("K", DevAddr, EUI64)

PREPARED_SESSIONS = 4096
"""Sessions whose cipher objects are kept: 1.6 kB each, 6 µs to make again."""
MAX_ADDRESSES_TRIED = 65_536


class Entry(msgspec.Struct, frozen=True):
    """A device in a session: what a frame with its address is tried against."""

    device: Device
    ref: DeviceRef
    dev_addr: DevAddr
    keys: SessionKeys
    session_id: bytes
    region: Region | None
    joined_at: int | None = None
    """When it joined, nanoseconds since the Unix epoch; None for a session of the device file."""


class SessionTable:
    """The devices and their sessions as last committed."""

    def __init__(
        self,
        devices: Iterable[Device],
        sessions: Mapping[bytes, Session],
        region: str | None = None,
        *,
        joined: Mapping[bytes, JoinedSession] | None = None,
        groups: Iterable[MulticastGroup] = (),
    ) -> None:
        self._region = region
        self._sessions = dict(sessions)
        self._joined = dict(joined or {})
        self._prepared: OrderedDict[bytes, SessionCrypto] = OrderedDict()
        self._by_dev_addr: dict[DevAddr, tuple[Entry, ...]] = {}
        self._by_dev_eui: dict[EUI64, Device] = {}
        self._entries: dict[EUI64, tuple[Entry, ...]] = {}
        self._groups: dict[str, MulticastGroup] = {}
        self.load(devices, groups)

    def load(self, devices: Iterable[Device], groups: Iterable[MulticastGroup] = ()) -> None:
        """Replace the devices; sessions stay, and are found again by any device with the same address and keys."""
        self._by_dev_addr.clear()
        self._by_dev_eui.clear()
        self._entries.clear()
        self._prepared.clear()
        self._groups = {group.name: group for group in groups}
        for device in devices:
            self._by_dev_eui[device.dev_eui] = device
            if device.dev_addr is not None and device.session_keys is not None:
                self._add(self._entry(device, device.dev_addr, device.session_keys))
        for joined in sorted(self._joined.values(), key=lambda one: one.joined_at):
            self._add_joined(joined)

    def at(self, dev_addr: DevAddr) -> tuple[Entry, ...]:
        """The sessions that have this address."""
        return self._by_dev_addr.get(dev_addr, ())

    def entries(self, dev_eui: EUI64) -> tuple[Entry, ...]:
        """The sessions of a device, the newest last."""
        return self._entries.get(dev_eui, ())

    def current(self, dev_eui: EUI64) -> Entry | None:
        """The session that a device is known to use: the newest one that it was heard in, or its only one by file."""
        entries = self.entries(dev_eui)
        used = [one for one in entries if one.joined_at is None or self.session(one).fcnt_up is not None]
        return used[-1] if used else None

    def device(self, dev_eui: EUI64) -> Device | None:
        """The device with this DevEUI."""
        return self._by_dev_eui.get(dev_eui)

    def group(self, name: str) -> MulticastGroup | None:
        """The multicast group of this name."""
        return self._groups.get(name)

    def group_session(self, group: MulticastGroup) -> Session:
        """The counter of a multicast group as last committed, or a new one."""
        session_id = session_id_of(group.mc_addr, self.group_crypto(group))
        return self._sessions.get(session_id) or Session(session_id=session_id, dev_eui=EUI64(0), generation=-1)

    @staticmethod
    def group_crypto(group: MulticastGroup) -> SessionCrypto:
        """Its prepared keys: multicast has one network key (TS005 §2)."""
        key = group.mc_nwk_s_key
        keys = SessionKeys(f_nwk_s_int_key=key, s_nwk_s_int_key=key, nwk_s_enc_key=key, app_s_key=group.mc_app_s_key)
        return SessionCrypto(keys)

    def region(self, name: str | None) -> Region | None:
        """The region of this name, or the bridge's own."""
        return REGIONS.get(name or self._region or "")

    @property
    def device_count(self) -> int:
        """How many devices there are."""
        return len(self._by_dev_eui)

    def session(self, entry: Entry) -> Session:
        """Its session as last committed, or a new one that has heard nothing."""
        found = self._sessions.get(entry.session_id)
        if found is not None:
            return found
        mac = initial_settings(entry)
        return Session(session_id=entry.session_id, dev_eui=entry.device.dev_eui, generation=-1, mac=mac)

    def stored(self, session_id: bytes) -> Session | None:
        """The committed session of this id."""
        return self._sessions.get(session_id)

    def crypto(self, entry: Entry) -> SessionCrypto:
        """Its prepared keys."""
        found = self._prepared.get(entry.session_id)
        if found is None:
            found = self._prepared[entry.session_id] = SessionCrypto(entry.keys)
            if len(self._prepared) > PREPARED_SESSIONS:
                self._prepared.popitem(last=False)
        else:
            self._prepared.move_to_end(entry.session_id)
        return found

    def free_address(self, dev_eui: EUI64, prefix: tuple[int, int], taken: Collection[DevAddr]) -> DevAddr | None:
        """An address of `prefix` (address, bits) that no session, group or `taken` has; None when there is none."""
        address, bits = prefix
        mask = (1 << (32 - bits)) - 1
        base, start = address & ~mask, first_address(dev_eui, 32 - bits)
        groups = {group.mc_addr for group in self._groups.values()}
        for step in range(min(mask + 1, MAX_ADDRESSES_TRIED)):
            found = DevAddr(base | (start + step) & mask)
            if found not in self._by_dev_addr and found not in taken and found not in groups:
                return found
        return None

    def advance(
        self, sessions: Iterable[Session], joined: Iterable[JoinedSession] = (), ended: Iterable[bytes] = ()
    ) -> None:
        """Take over what was committed."""
        for session in sessions:
            self._sessions[session.session_id] = session
        for one in joined:
            self._joined[one.session_id] = one
            self._add_joined(one)
        for session_id in ended:
            self._remove(session_id)

    def _entry(
        self, device: Device, dev_addr: DevAddr, keys: SessionKeys, joined: JoinedSession | None = None
    ) -> Entry:
        return Entry(
            device=device,
            ref=device.ref,
            dev_addr=dev_addr,
            keys=keys,
            session_id=session_id_of(dev_addr, SessionCrypto(keys)) if joined is None else joined.session_id,
            region=self.region(device.region),
            joined_at=None if joined is None else joined.joined_at,
        )

    def _add_joined(self, joined: JoinedSession) -> None:
        """A session that was joined, if its device is still ours."""
        device = self._by_dev_eui.get(joined.dev_eui)
        if device is None or device.dev_addr is not None:
            return
        if device.mac_version is not joined.mac_version:
            device = msgspec.structs.replace(device, mac_version=joined.mac_version)
        self._add(self._entry(device, joined.dev_addr, joined.keys, joined))

    def _add(self, entry: Entry) -> None:
        dev_eui = entry.device.dev_eui
        self._by_dev_addr[entry.dev_addr] = (*self._by_dev_addr.get(entry.dev_addr, ()), entry)
        self._entries[dev_eui] = (*self._entries.get(dev_eui, ()), entry)

    def _remove(self, session_id: bytes) -> None:
        """A session is over: nothing of it is kept."""
        self._sessions.pop(session_id, None)
        self._prepared.pop(session_id, None)
        gone = self._joined.pop(session_id, None)
        if gone is None:
            return
        _shorten(self._by_dev_addr, gone.dev_addr, session_id)
        _shorten(self._entries, gone.dev_eui, session_id)


def initial_settings(entry: Entry) -> MacState:
    """What a device that was activated by hand begins with: the defaults, and the channels that its file names."""
    region, added = entry.region, entry.device.channels_hz
    if region is None or not added:
        return DEFAULT_MAC_STATE
    first, (least, most) = region.channel_count, region.usual_channel_data_rates
    return MacState(channels=tuple(AddedChannel(first + n, hz, least, most) for n, hz in enumerate(added)))


def _shorten(table: dict[K, tuple[Entry, ...]], at: K, gone: bytes) -> None:
    """Take a session out of an index, and the place with it when it was the last one there."""
    left = tuple(entry for entry in table.get(at, ()) if entry.session_id != gone)
    if left:
        table[at] = left
    else:
        table.pop(at, None)
