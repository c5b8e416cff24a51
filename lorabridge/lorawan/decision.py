"""What is ours on the air, and what was decided of one reception: what goes into the engine and comes out of it."""

from __future__ import annotations

import hashlib

import msgspec

from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.events import DeviceRef, Event
from lorabridge.lorawan.mac_commands import Command
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import Entry
from lorabridge.lorawan.types import DevAddr, FCnt32, NetID
from lorabridge.lorawan.verdict import Reason, Verdict


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """How devices are answered; a bridge without it only listens."""

    policy: MacPolicy = MacPolicy()
    net_id: NetID = NetID(0)
    """Home_NetID of join-accepts."""
    address_range: tuple[int, int] = (0, 7)
    """(address, bits) where addresses of joining devices come from; 00000000/7 is of NetID 0, for private networks."""
    mute_sources: frozenset[str] = frozenset()
    """Radio sources that cannot send."""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What is ours on the air."""

    net_ids: tuple[NetID, ...] = ()
    dev_addr_prefixes: tuple[tuple[int, int], ...] = ()
    """(address, bits) ranges."""
    duplicate_window_ns: int = 1_500_000_000
    answering: Answering | None = None

    def owns(self, dev_addr: DevAddr) -> bool:
        """Whether an address can belong to a device of ours."""
        return any(dev_addr.belongs_to(net_id) for net_id in self.net_ids) or any(
            (dev_addr ^ prefix) >> (32 - bits) == 0 for prefix, bits in self.dev_addr_prefixes
        )

    def answers(self, reception: Reception) -> Answering | None:
        """How a frame heard so is answered; None when it cannot be."""
        answering = self.answering
        if answering is None or reception.tmst is None or reception.source in answering.mute_sources:
            return None
        return answering


class OwedJoin(msgspec.Struct, frozen=True, kw_only=True):
    """A join-accept that a device waits for."""

    device: Device
    join_id: bytes
    region: Region
    mac: MacState
    """What the receive windows are set to: as the session before, for rejoins 0 and 2."""
    uplink: Reception
    phy_payload: bytes


class OwedData(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The receive windows after a data uplink: what the device waits for, or what we may use them for."""

    entry: Entry
    region: Region
    uplink: Reception
    fcnt32: FCnt32
    confirmed: bool
    adr: bool
    adr_ack_req: bool
    commands: tuple[Command, ...] = ()
    """MAC commands of the device that want an answer."""
    repeats: bool = False
    """The device repeats a MAC answer in every uplink until it hears any downlink."""

    @property
    def must_answer(self) -> bool:
        """Whether the device expects to hear something."""
        return self.confirmed or self.adr_ack_req or self.repeats or bool(self.commands)


Owed = OwedJoin | OwedData


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is to be done about one reception: one verdict, and what follows from it once it is committed."""

    reception: Reception
    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""
    device: DeviceRef | None = None
    """Proven by the MIC; None otherwise."""
    dev_addr: DevAddr | None = None
    """As the frame claims."""
    fcnt32: FCnt32 | None = None
    session: Session | None = None
    """The session after the frame; None: nothing changes."""
    heard: tuple[bytes, FCnt32, bytes] | None = None
    """A row for the history of frames heard: session, counter, and what `content_mic` leaves of the MIC."""
    join: JoinTaken | None = None
    """What a join leaves behind."""
    join_id: bytes | None = None
    """Of a join-request that verified, a copy of one too."""
    ended: tuple[bytes, ...] = ()
    """Sessions that are over: the device uses, or was given, a newer one."""
    owed: Owed | None = None
    """What may or must be sent to the device."""
    events: tuple[Event, ...] = ()

    @property
    def frame_id(self) -> str:
        """Twelve hex digits that name this reception in every line of the log."""
        heard = self.reception
        head = heard.gateway_eui.to_wire() + heard.received_at.to_bytes(16, "little", signed=True)
        return hashlib.blake2s(head + heard.phy_payload, digest_size=6).hexdigest()


class JoinTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A join whose nonce was new."""

    history: JoinHistory
    nonce: int | None
    """A DevNonce for the complete history; None where the highest one says it all."""
    joined: JoinedSession | None = None
    """None when it is not answered."""
    session: Session | None = None
    """The new session's counters."""
