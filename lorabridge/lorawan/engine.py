"""The order of things: what is asked of a frame, and what follows from each answer.

Pure: receptions and committed state in, decisions out. The first state that a frame can move is the
session whose key its MIC verified under, and the caller makes it true only by committing the decision.

The number of MIC computations for one frame is at most MAX_MIC_ATTEMPTS, plus, for a device of 1.1 one
half of whose MIC was already valid, one for every channel it could have used.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

import msgspec

from lorabridge.lorawan.air import CrcStatus, Reception
from lorabridge.lorawan.crypto import MicContext, PreparedKey, SessionCrypto, derive_js_int_key, join_mic, mic_equal
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.events import DeviceRef, Event, SecurityEvent, Uplink, UplinkCopy
from lorabridge.lorawan.frame import DataFrame, JoinRequest, Proprietary, RejoinRequest, parse
from lorabridge.lorawan.grammar import MIC_SIZE, MalformedFrame
from lorabridge.lorawan.session import (
    MAX_COPIES,
    MAX_COUNTERS_TRIED,
    CounterJudgement,
    FreshFrame,
    History,
    Session,
    VerifiedFrame,
    content_mic,
    counter_candidates,
    decrypt,
    judge_counter,
    verify,
)
from lorabridge.lorawan.table import Entry, SessionTable
from lorabridge.lorawan.types import AES128Key, DevAddr, Direction, FCnt32, NetID
from lorabridge.lorawan.verdict import Reason, Verdict

MAX_SESSIONS_PER_DEV_ADDR = 16
MAX_MIC_ATTEMPTS = MAX_SESSIONS_PER_DEV_ADDR * MAX_COUNTERS_TRIED

_CRC_OK, _UP = CrcStatus.OK, Direction.UP
_COPIES = frozenset({Verdict.DUPLICATE, Verdict.RETRANSMISSION})
_PROVEN_REFUSALS = frozenset({Verdict.REPLAY, Verdict.COUNTER_RESET, Verdict.COUNTER_GAP})


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What is ours on the air."""

    net_ids: tuple[NetID, ...] = ()
    dev_addr_prefixes: tuple[tuple[int, int], ...] = ()
    """(address, bits) ranges."""
    duplicate_window_ns: int = 1_500_000_000

    def owns(self, dev_addr: DevAddr) -> bool:
        """Whether an address can belong to a device of ours."""
        return any(dev_addr.belongs_to(net_id) for net_id in self.net_ids) or any(
            (dev_addr ^ prefix) >> (32 - bits) == 0 for prefix, bits in self.dev_addr_prefixes
        )


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
    events: tuple[Event, ...] = ()

    @property
    def frame_id(self) -> str:
        """Twelve hex digits that name this reception in every line of the log."""
        heard = self.reception
        head = heard.gateway_eui.to_wire() + heard.received_at.to_bytes(16, "little", signed=True)
        return hashlib.blake2s(head + heard.phy_payload, digest_size=6).hexdigest()


class Engine:
    """Judges receptions against the sessions of a table."""

    def __init__(self, table: SessionTable, network: Network, history: History | None = None) -> None:
        self._table = table
        self._network = network
        self._history = history or History()

    def own(self, network: Network) -> None:
        """Take over what is ours on the air, after the devices changed."""
        self._network = network

    def judge_all(self, receptions: Iterable[Reception]) -> list[Decision]:
        """One decision a reception, each judged against the sessions as the ones before it leave them."""
        batch = _Batch(self._table, self._history)
        return [self.judge(reception, batch) for reception in receptions]

    def judge(self, reception: Reception, batch: _Batch) -> Decision:
        """The decision for one reception."""
        if reception.crc is not _CRC_OK:
            return Decision(reception=reception, verdict=Verdict.RADIO_CRC, detail=f"CRC {reception.crc.name.lower()}")
        try:
            frame = parse(reception.phy_payload)
        except MalformedFrame as error:
            return Decision(reception=reception, verdict=Verdict.MALFORMED, reason=error.reason, detail=str(error))
        if isinstance(frame, DataFrame) and frame.direction is _UP:
            return self._judge_data(frame, reception, batch)
        match frame:
            case JoinRequest() | RejoinRequest():
                return self._judge_join(frame, reception)
            case Proprietary():
                return Decision(reception=reception, verdict=Verdict.PROPRIETARY)
            case _:
                return Decision(reception=reception, verdict=Verdict.WRONG_DIRECTION, detail="a downlink on the air")

    def _judge_data(self, frame: DataFrame, reception: Reception, batch: _Batch) -> Decision:
        """A data uplink: address, MIC under every counter it can stand for, counter, plaintext."""
        entries = self._table.at(frame.dev_addr)
        if not entries:
            return self._judge_stranger(frame, reception)
        for entry in entries:
            session = batch.session(entry)
            contexts = _mic_contexts(entry, session, frame, reception)
            crypto = self._table.crypto(entry)
            for fcnt32 in counter_candidates(session.fcnt_up, frame.fcnt16):
                verified = verify(frame, fcnt32, crypto, contexts)
                if verified is not None:
                    return self._judge_verified(verified, entry, crypto, session, reception, batch)
        return Decision(
            reception=reception,
            verdict=Verdict.BAD_MIC,
            dev_addr=frame.dev_addr,
            detail=f"MIC valid for none of {len(entries)} device(s) with this address",
        )

    def _judge_stranger(self, frame: DataFrame, reception: Reception) -> Decision:
        """An address that no session has."""
        known = self._network.owns(frame.dev_addr)
        return Decision(
            reception=reception,
            verdict=Verdict.UNKNOWN_DEVICE if known else Verdict.FOREIGN,
            dev_addr=frame.dev_addr,
            detail="no device has this address" if known else "the address of another network",
        )

    def _judge_verified(
        self,
        verified: VerifiedFrame,
        entry: Entry,
        crypto: SessionCrypto,
        session: Session,
        reception: Reception,
        batch: _Batch,
    ) -> Decision:
        """A frame whose sender is proved: the counter decides."""
        window_ns = self._network.duplicate_window_ns
        judged = judge_counter(verified, session, entry.device, reception, window_ns, batch)
        moved = None if judged.session is None else batch.move(entry, judged.session)
        heard = None
        if judged.remember:
            heard = (entry.session_id, verified.fcnt32, content_mic(verified.frame.mic, entry.device))
        if heard is not None:
            batch.remember(heard)
        return Decision(
            reception=reception,
            verdict=judged.verdict,
            detail=judged.detail,
            device=entry.ref,
            dev_addr=entry.dev_addr,
            fcnt32=verified.fcnt32,
            session=moved,
            heard=heard,
            events=_events(verified, judged, entry, crypto, session, reception),
        )

    def _judge_join(self, frame: JoinRequest | RejoinRequest, reception: Reception) -> Decision:
        """A join- or rejoin-request: is it signed by a device of ours."""
        device = self._table.device(frame.dev_eui)
        keys = () if device is None else _join_keys(device, frame)
        message = reception.phy_payload[:-MIC_SIZE]
        for key in keys:
            if device is not None and mic_equal(join_mic(PreparedKey(key), message), frame.mic):
                return Decision(reception=reception, verdict=Verdict.JOIN_REQUEST, device=device.ref)
        if keys:
            return Decision(reception=reception, verdict=Verdict.BAD_MIC, detail=f"join-request as {frame.dev_eui}")
        return Decision(reception=reception, verdict=Verdict.UNKNOWN_DEVICE, detail=f"join-request by {frame.dev_eui}")


class _Batch(History):
    """The sessions and the history as the frames of one batch leave them, nothing of it committed yet."""

    def __init__(self, table: SessionTable, history: History) -> None:
        self._table = table
        self._history = history
        self._moved: dict[bytes, Session] = {}
        self._heard: set[tuple[bytes, FCnt32, bytes]] = set()

    def session(self, entry: Entry) -> Session:
        """The session as the batch so far leaves it."""
        return self._moved.get(entry.session_id) or self._table.session(entry)

    def move(self, entry: Entry, session: Session) -> Session:
        """Take over a session; its generation is one above the committed one however often it moves in a batch."""
        if entry.session_id not in self._moved:
            session = msgspec.structs.replace(session, generation=session.generation + 1)
        self._moved[entry.session_id] = session
        return session

    def remember(self, heard: tuple[bytes, FCnt32, bytes]) -> None:
        """Note a frame for the rest of the batch."""
        self._heard.add(heard)

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        return (session_id, fcnt32, mic) in self._heard or self._history.heard(session_id, fcnt32, mic)


def _events(
    verified: VerifiedFrame,
    judged: CounterJudgement,
    entry: Entry,
    crypto: SessionCrypto,
    session: Session,
    reception: Reception,
) -> tuple[Event, ...]:
    """What the cloud is told of a frame whose sender is proved."""
    if judged.fresh is not None:
        resets = session.resets if judged.session is None else judged.session.resets
        return (_uplink(judged.fresh, judged, entry, crypto, resets, reception),)
    if judged.verdict in _COPIES and (judged.session is None or judged.session.copies <= MAX_COPIES):
        return (
            UplinkCopy(
                uplink_id=uplink_id(entry, verified, session.resets),
                device=entry.ref,
                fcnt32=verified.fcnt32,
                verdict=judged.verdict,
                reception=reception,
            ),
        )
    if judged.verdict in _PROVEN_REFUSALS:
        return (
            SecurityEvent(
                verdict=judged.verdict,
                reason=None,
                device=entry.ref,
                dev_addr=entry.dev_addr,
                fcnt32=verified.fcnt32,
                count=1,
                first_at=reception.received_at,
                last_at=reception.received_at,
                detail=judged.detail,
                reception=reception,
            ),
        )
    return ()


def _uplink(
    fresh: FreshFrame,
    judged: CounterJudgement,
    entry: Entry,
    crypto: SessionCrypto,
    resets: int,
    reception: Reception,
) -> Uplink:
    """The event of an accepted frame."""
    frame = fresh.verified.frame
    payload, f_opts, sealed = decrypt(fresh, entry.device, crypto)
    f_ctrl = frame.f_ctrl
    return Uplink(
        id=uplink_id(entry, fresh.verified, resets),
        device=entry.ref,
        dev_addr=entry.dev_addr,
        mac_version=entry.device.mac_version,
        confirmed=frame.confirmed,
        adr=f_ctrl & 0x80 != 0,
        adr_ack_req=f_ctrl & 0x40 != 0,
        ack=f_ctrl & 0x20 != 0,
        class_b=f_ctrl & 0x10 != 0,
        fcnt32=fresh.verified.fcnt32,
        f_port=frame.f_port,
        f_opts=f_opts,
        payload=payload,
        sealed=sealed,
        counter_reset=judged.counter_reset,
        reception=reception,
    )


_COUNTER_AND_COUNT = struct.Struct(">IH")


def uplink_id(entry: Entry, verified: VerifiedFrame, resets: int) -> str:
    """The same for the same frame, whoever delivers it: 32 hex digits.

    They are 6 bytes of the session, 4 of the counter, 2 of the number of counter resets, and the MIC; under 1.1 only
    the half of the MIC that does not change with the channel.
    """
    mic = content_mic(verified.frame.mic, entry.device).rjust(MIC_SIZE, b"\0")
    return (entry.session_id[:6] + _COUNTER_AND_COUNT.pack(verified.fcnt32, resets & 0xFFFF) + mic).hex()


def _join_keys(device: Device, frame: JoinRequest | RejoinRequest) -> tuple[AES128Key, ...]:
    """The keys that may have signed a join-request of this device; rejoins 0 and 2 need a joined session."""
    if isinstance(frame, RejoinRequest):
        by_join_eui = frame.rejoin_type == 1 and device.nwk_key is not None
        return (derive_js_int_key(device.nwk_key, device.dev_eui),) if by_join_eui and device.nwk_key else ()
    key = device.nwk_key if device.mac_version.is_1_1 else device.app_key
    return () if key is None else (key,)


def _mic_contexts(
    entry: Entry, session: Session, frame: DataFrame, reception: Reception
) -> tuple[MicContext, ...] | None:
    """None for 1.0; what TxDr, TxCh and ConfFCnt can have been for 1.1, at most one for every channel."""
    if not entry.device.mac_version.is_1_1:
        return None
    region = entry.region
    tx_dr = None if region is None else region.tx_dr(reception.data_rate)
    if region is None or tx_dr is None:
        return ()
    conf_fcnt = session.conf_fcnt_down if frame.f_ctrl & 0x20 else 0
    return tuple(
        MicContext(conf_fcnt, tx_dr, tx_ch)
        for tx_ch in region.tx_ch_candidates(reception.frequency_hz, reception.data_rate, entry.device.channels_hz)
    )
