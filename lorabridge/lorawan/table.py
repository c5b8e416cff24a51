"""Which devices there are, which session each is in, and the prepared keys of those heard lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import Device, SessionKeys
from lorabridge.lorawan.events import DeviceRef
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.session import Session, abp_session_id
from lorabridge.lorawan.types import EUI64, DevAddr

PREPARED_SESSIONS = 4096
"""Sessions whose cipher objects are kept: 1.6 kB each, 6 µs to make again."""


class Entry(msgspec.Struct, frozen=True):
    """A device in a session: what a frame with its address is tried against."""

    device: Device
    ref: DeviceRef
    dev_addr: DevAddr
    keys: SessionKeys
    session_id: bytes
    region: Region | None


class SessionTable:
    """The devices and their sessions as last committed."""

    def __init__(self, devices: Iterable[Device], sessions: Mapping[bytes, Session], region: str | None = None) -> None:
        self._region = region
        self._sessions = dict(sessions)
        self._prepared: OrderedDict[bytes, SessionCrypto] = OrderedDict()
        self._by_dev_addr: dict[DevAddr, tuple[Entry, ...]] = {}
        self._by_dev_eui: dict[EUI64, Device] = {}
        self.load(devices)

    def load(self, devices: Iterable[Device]) -> None:
        """Replace the devices; sessions stay, and are found again by any device with the same address and keys."""
        self._by_dev_addr.clear()
        self._by_dev_eui.clear()
        for device in devices:
            self._by_dev_eui[device.dev_eui] = device
            if device.dev_addr is None or device.session_keys is None:
                continue
            crypto = SessionCrypto(device.session_keys)
            entry = Entry(
                device=device,
                ref=device.ref,
                dev_addr=device.dev_addr,
                keys=device.session_keys,
                session_id=abp_session_id(device.dev_addr, crypto),
                region=REGIONS.get(device.region or self._region or ""),
            )
            self._by_dev_addr[device.dev_addr] = (*self._by_dev_addr.get(device.dev_addr, ()), entry)
        self._prepared.clear()

    def at(self, dev_addr: DevAddr) -> tuple[Entry, ...]:
        """The sessions that have this address."""
        return self._by_dev_addr.get(dev_addr, ())

    def device(self, dev_eui: EUI64) -> Device | None:
        """The device with this DevEUI."""
        return self._by_dev_eui.get(dev_eui)

    @property
    def device_count(self) -> int:
        """How many devices there are."""
        return len(self._by_dev_eui)

    def session(self, entry: Entry) -> Session:
        """Its session as last committed, or a new one that has heard nothing."""
        found = self._sessions.get(entry.session_id)
        return found or Session(session_id=entry.session_id, dev_eui=entry.device.dev_eui, generation=-1)

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

    def advance(self, sessions: Iterable[Session]) -> None:
        """Take over sessions that were committed."""
        for session in sessions:
            self._sessions[session.session_id] = session
