"""A join- or rejoin-request at the door: MIC first, then the nonce, then a session and what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.crypto import PreparedKey, SessionCrypto, derive_js_int_key, join_mic, mic_equal
from lorabridge.lorawan.decision import Answering, Decision, JoinTaken, Network, OwedJoin
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.events import Join, SecurityEvent
from lorabridge.lorawan.frame import JoinRequest, RejoinRequest
from lorabridge.lorawan.grammar import MIC_SIZE
from lorabridge.lorawan.join import (
    JOIN_NONCE_MAX,
    NONCE_COUNTERS,
    Grant,
    JoinJudgement,
    JoinRecords,
    build_join_accept,
    derive_keys,
    join_id,
    judge_join,
    network_root_key,
    request_kind,
    request_nonce,
)
from lorabridge.lorawan.mac_state import DEFAULT_MAC_STATE, AddedChannel, MacState
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regions.cf_list import build_frequencies, build_masks
from lorabridge.lorawan.session import Session, session_id_of
from lorabridge.lorawan.table import Entry, SessionTable
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, JoinNonce
from lorabridge.lorawan.verdict import Verdict

CF_LIST_CHANNELS = 5
"""Frequencies that a CFList of type 0 holds (RP002-1.0.4 §2.4.4)."""


class Desk(JoinRecords, Protocol):
    """What admission asks of the batch: earlier joins and sessions as the frames before leave them."""

    given: set[DevAddr]
    """Addresses given out in this batch."""

    def session(self, entry: Entry) -> Session:
        """The session as the batch so far leaves it."""

    def move(self, entry: Entry, session: Session) -> Session:
        """Take over a session."""

    def take(self, taken: JoinTaken) -> None:
        """Note a join for the rest of the batch."""


class _Applicant(msgspec.Struct, frozen=True):
    """Who asks, and how: a request that is still to be proved."""

    frame: JoinRequest | RejoinRequest
    device: Device
    reception: Reception
    signer: AES128Key
    """The key that may have signed it."""
    entry: Entry | None = None
    """The session that the key is of: rejoins 0 and 2."""

    @property
    def is_signed(self) -> bool:
        """Whether the MIC is valid under the key."""
        return mic_equal(join_mic(PreparedKey(self.signer), self.reception.phy_payload[:-MIC_SIZE]), self.frame.mic)

    @property
    def keeps_radio(self) -> bool:
        """Whether its radio settings stay as they are: rejoin 2 changes keys and address only (TS001-1.1 §6.2.4)."""
        return isinstance(self.frame, RejoinRequest) and self.frame.rejoin_type == 2

    @property
    def drawn_nonce(self) -> int | None:
        """A DevNonce that belongs into the complete history; None where the highest one says it all."""
        if isinstance(self.frame, RejoinRequest) or self.device.mac_version in NONCE_COUNTERS:
            return None
        return self.frame.dev_nonce


def admit(
    frame: JoinRequest | RejoinRequest, reception: Reception, table: SessionTable, network: Network, desk: Desk
) -> Decision:
    """The decision for one request. No state is looked at before its MIC is valid."""
    device = table.device(frame.dev_eui)
    applicants = [] if device is None else list(_applicants(frame, device, reception, table))
    if not applicants:
        return Decision(reception=reception, verdict=Verdict.UNKNOWN_DEVICE, detail=f"join-request by {frame.dev_eui}")
    for applicant in applicants:
        if applicant.is_signed:
            return _admit_signed(applicant, table, network, desk)
    return Decision(reception=reception, verdict=Verdict.BAD_MIC, detail=f"join-request as {frame.dev_eui}")


def _applicants(
    frame: JoinRequest | RejoinRequest, device: Device, reception: Reception, table: SessionTable
) -> Iterator[_Applicant]:
    """The keys that may have signed it: a root key, JSIntKey, or SNwkSIntKey of a joined session."""
    root = network_root_key(device)
    if root is None:
        return
    if isinstance(frame, JoinRequest):
        yield _Applicant(frame, device, reception, root)
    elif not device.mac_version.is_1_1:
        return
    elif frame.rejoin_type == 1:
        yield _Applicant(frame, device, reception, derive_js_int_key(root, device.dev_eui))
    else:
        for entry in table.entries(device.dev_eui):
            yield _Applicant(frame, device, reception, entry.keys.s_nwk_s_int_key, entry)


def _admit_signed(applicant: _Applicant, table: SessionTable, network: Network, desk: Desk) -> Decision:
    """A request whose sender is proved: the nonce decides."""
    device, reception, entry = applicant.device, applicant.reception, applicant.entry
    session = None if entry is None else desk.session(entry)
    judged = judge_join(
        applicant.frame,
        device,
        reception,
        desk,
        window_ns=network.duplicate_window_ns,
        rj_count0=None if session is None else session.rj_count0,
    )
    if judged.history is None:
        return _refused(judged, device, reception)
    moved = None
    if entry is not None and session is not None:
        session = msgspec.structs.replace(session, rj_count0=request_nonce(applicant.frame))
        moved = desk.move(entry, session)
    taken, owed, refusal = JoinTaken(history=judged.history, nonce=applicant.drawn_nonce), None, ""
    answering, region = network.answers(reception), table.region(device.region)
    if answering is not None and region is not None:
        granted = _grant(applicant, judged.history, answering, region, table, desk)
        if isinstance(granted, str):
            refusal = granted
        else:
            joined_at = _after_all(table.entries(device.dev_eui), reception)
            taken, owed = _give(applicant, taken, granted, region, session, joined_at)
    desk.take(taken)
    listens = "" if owed is not None else "not answered: this bridge only listens"
    event = _event(applicant, taken)
    return Decision(
        reception=reception,
        verdict=Verdict.JOIN_REFUSED if refusal else Verdict.JOIN_REQUEST,
        detail=refusal or listens,
        device=device.ref,
        session=moved,
        join=taken,
        join_id=judged.history.join_id,
        ended=() if owed is None else _never_used(applicant, table, desk),
        owed=owed,
        events=(_refusal_event(refusal, Verdict.JOIN_REFUSED, device, reception),) if refusal else (event,),
    )


def _refused(judged: JoinJudgement, device: Device, reception: Reception) -> Decision:
    """A copy, a replay, or a request for another JoinEUI: nothing changes."""
    is_copy = judged.verdict is Verdict.DUPLICATE
    return Decision(
        reception=reception,
        verdict=judged.verdict,
        detail=judged.detail,
        device=device.ref,
        join_id=join_id(device),
        events=() if is_copy else (_refusal_event(judged.detail, judged.verdict, device, reception),),
    )


def _refusal_event(detail: str, verdict: Verdict, device: Device, reception: Reception) -> SecurityEvent:
    return SecurityEvent(
        verdict=verdict,
        reason=None,
        device=device.ref,
        dev_addr=None,
        fcnt32=None,
        count=1,
        first_at=reception.received_at,
        last_at=reception.received_at,
        detail=detail,
        reception=reception,
    )


def _never_used(applicant: _Applicant, table: SessionTable, desk: Desk) -> tuple[bytes, ...]:
    """Sessions that were given to the device and never heard of: the new one takes their place."""
    return tuple(
        one.session_id
        for one in table.entries(applicant.device.dev_eui)
        if one.joined_at is not None and one is not applicant.entry and desk.session(one).fcnt_up is None
    )


def _after_all(entries: tuple[Entry, ...], reception: Reception) -> int:
    """When the join was, and after every other of the device even if the clock was set back in between."""
    return max(reception.received_at, *(1 + (entry.joined_at or 0) for entry in entries), 0)


class _Granted(msgspec.Struct, frozen=True):
    """What the join-accept says, and what the device is set to once it took it."""

    grant: Grant
    mac: MacState


def _grant(
    applicant: _Applicant,
    history: JoinHistory,
    answering: Answering,
    region: Region,
    table: SessionTable,
    desk: Desk,
) -> _Granted | str:
    """An address and settings for a new session, or why there is none."""
    device, entry = applicant.device, applicant.entry
    dev_addr = table.free_address(device.dev_eui, answering.address_range, desk.given)
    if dev_addr is None:
        return "no free address is left in the range of joining devices"
    if history.join_nonce >= JOIN_NONCE_MAX:
        return "JoinNonce is used up: the device needs new root keys"
    mac, cf_list = _first_settings(region, answering)
    if applicant.keeps_radio and entry is not None:
        mac, cf_list = msgspec.structs.replace(desk.session(entry).mac, asked=b""), b""
    grant = Grant(
        net_id=answering.net_id,
        dev_addr=dev_addr,
        join_nonce=JoinNonce(history.join_nonce + 1),
        rx1_delay=mac.rx1_delay,
        rx1_dr_offset=mac.rx1_dr_offset,
        rx2_data_rate=region.rx2_data_rate if mac.rx2_data_rate is None else mac.rx2_data_rate,
        cf_list=cf_list,
    )
    return _Granted(grant, mac)


def _give(
    applicant: _Applicant,
    taken: JoinTaken,
    granted: _Granted,
    region: Region,
    session: Session | None,
    joined_at: int,
) -> tuple[JoinTaken, OwedJoin]:
    """The session that follows, and the join-accept; `session`: the one that the request was signed in."""
    device, frame, grant = applicant.device, applicant.frame, granted.grant
    keys = derive_keys(device, grant, request_nonce(frame))
    joined = JoinedSession(
        session_id=session_id_of(grant.dev_addr, SessionCrypto(keys)),
        dev_eui=device.dev_eui,
        dev_addr=grant.dev_addr,
        mac_version=device.mac_version,
        keys=keys,
        joined_at=joined_at,
    )
    after = JoinTaken(
        history=msgspec.structs.replace(taken.history, join_nonce=int(grant.join_nonce)),
        nonce=taken.nonce,
        joined=joined,
        session=Session(session_id=joined.session_id, dev_eui=device.dev_eui, mac=granted.mac),
    )
    owed = OwedJoin(
        device=device,
        join_id=taken.history.join_id,
        region=region,
        mac=DEFAULT_MAC_STATE if session is None else session.mac,
        uplink=applicant.reception,
        phy_payload=build_join_accept(device, frame, grant),
    )
    return after, owed


def _first_settings(region: Region, answering: Answering) -> tuple[MacState, bytes]:
    """What a join-accept sets, as the device takes it over, and the CFList that says the channels."""
    policy = answering.policy
    channels: tuple[AddedChannel, ...] = ()
    enabled, cf_list = None, b""
    if region.cf_list_type == 0 and policy.channels_hz:
        first = region.channel_count
        least, most = region.usual_channel_data_rates
        sent = policy.channels_hz[:CF_LIST_CHANNELS]
        channels = tuple(AddedChannel(first + n, hz, least, most) for n, hz in enumerate(sent))
        cf_list = build_frequencies(sent)
    elif region.cf_list_type == 1 and policy.enabled is not None:
        enabled, cf_list = policy.enabled, build_masks(policy.enabled)
    mac = MacState(
        rx1_delay=policy.rx1_delay,
        rx1_dr_offset=policy.rx1_dr_offset,
        rx2_data_rate=policy.rx2_data_rate,
        channels=channels,
        enabled=enabled,
    )
    return mac, cf_list


def _event(applicant: _Applicant, taken: JoinTaken) -> Join:
    device, joined = applicant.device, taken.joined
    return Join(
        device=device.ref,
        kind=request_kind(applicant.frame),
        dev_addr=None if joined is None else joined.dev_addr,
        join_eui=device.join_eui or EUI64(0),
        dev_nonce=request_nonce(applicant.frame),
        join_nonce=None if joined is None else taken.history.join_nonce,
        mac_version=device.mac_version,
        answered=joined is not None,
        sealed=device.mac_version.is_1_1 and device.app_key is None,
        reception=applicant.reception,
    )
