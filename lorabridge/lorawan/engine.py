"""The order of things: what is asked of a frame, and what follows from each answer.

Pure: receptions and committed state in, decisions out. The first state that a frame can move is the
session whose key its MIC verified under, and the caller makes it true only by committing the decision.

The number of MIC computations for one frame is at most MAX_MIC_ATTEMPTS, plus, for a device of 1.1 one
half of whose MIC was already valid, two for every channel it could have used.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.admission import admit
from lorabridge.lorawan.air import CrcStatus, Reception
from lorabridge.lorawan.crypto import MicContext, SessionCrypto
from lorabridge.lorawan.decision import Decision, JoinTaken, Network
from lorabridge.lorawan.events import Uplink
from lorabridge.lorawan.frame import DataFrame, JoinRequest, Proprietary, RejoinRequest, parse
from lorabridge.lorawan.grammar import MalformedFrame
from lorabridge.lorawan.mac_uplink import hear_uplink, owed_again
from lorabridge.lorawan.session import (
    MAX_COUNTERS_TRIED,
    History,
    Session,
    VerifiedFrame,
    content_mic,
    counter_candidates,
    judge_counter,
    verify,
)
from lorabridge.lorawan.table import Entry, SessionTable
from lorabridge.lorawan.types import DevAddr, Direction, FCnt32
from lorabridge.lorawan.uplink_events import frame_events
from lorabridge.lorawan.verdict import Verdict
from lorabridge.lorawan.windows import channel_of

MAX_SESSIONS_PER_DEV_ADDR = 16
MAX_MIC_ATTEMPTS = MAX_SESSIONS_PER_DEV_ADDR * MAX_COUNTERS_TRIED

_CRC_OK, _UP = CrcStatus.OK, Direction.UP
_ACK = 0x20
"""FCtrl of an uplink (§4.3.1.1)."""


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
                return admit(frame, reception, self._table, self._network, batch)
            case Proprietary():
                return Decision(reception=reception, verdict=Verdict.PROPRIETARY)
            case _:
                return Decision(reception=reception, verdict=Verdict.WRONG_DIRECTION, detail="a downlink on the air")

    def _judge_data(self, frame: DataFrame, reception: Reception, batch: _Batch) -> Decision:
        """A data uplink: address, MIC under every counter it can stand for, counter, plaintext."""
        entries = self._table.at(frame.dev_addr)
        if batch.ended:
            entries = tuple(entry for entry in entries if entry.session_id not in batch.ended)
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
        events = frame_events(verified, judged, entry, crypto, session, reception)
        after, owed = judged.session, None
        answering = self._network.answers(reception)
        if answering is not None and after is not None and entry.region is not None:
            told = events[0] if events else None
            if isinstance(told, Uplink):
                mac_heard = hear_uplink(told, entry, entry.region, after, session.fcnt_up, answering.policy)
                after, owed = mac_heard.session, mac_heard.owed
                events += mac_heard.reports
            elif judged.verdict is Verdict.RETRANSMISSION and verified.frame.confirmed:
                owed = owed_again(verified, entry, entry.region, reception)
        moved = None if after is None else batch.move(entry, after)
        heard = None
        if judged.remember:
            heard = (entry.session_id, verified.fcnt32, content_mic(verified.frame.mic, entry.device))
        if heard is not None:
            batch.remember(heard)
        ended: tuple[bytes, ...] = ()
        if entry.joined_at is not None and judged.fresh is not None and session.fcnt_up is None:
            ended = batch.end_others(entry)
        return Decision(
            reception=reception,
            verdict=judged.verdict,
            detail=judged.detail,
            device=entry.ref,
            dev_addr=entry.dev_addr,
            fcnt32=verified.fcnt32,
            session=moved,
            heard=heard,
            ended=ended,
            owed=owed,
            events=events,
        )


class _Batch(History):
    """The sessions and the history as the frames of one batch leave them, nothing of it committed yet."""

    def __init__(self, table: SessionTable, history: History) -> None:
        self._table = table
        self._history = history
        self._moved: dict[bytes, Session] = {}
        self._heard: set[tuple[bytes, FCnt32, bytes]] = set()
        self._joins: dict[bytes, JoinHistory] = {}
        self._nonces: set[tuple[bytes, int]] = set()
        self.given: set[DevAddr] = set()
        """Addresses given out in this batch."""
        self.ended: set[bytes] = set()
        """Sessions that are over."""

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

    def end_others(self, entry: Entry) -> tuple[bytes, ...]:
        """A device uses its new session: the ones that it joined before are over."""
        others = tuple(
            other.session_id
            for other in self._table.entries(entry.device.dev_eui)
            if other.joined_at is not None and entry.joined_at is not None and other.joined_at < entry.joined_at
        )
        self.ended.update(others)
        return others

    def take(self, taken: JoinTaken) -> None:
        """Note a join for the rest of the batch."""
        self._joins[taken.history.join_id] = taken.history
        if taken.nonce is not None:
            self._nonces.add((taken.history.join_id, taken.nonce))
        if taken.joined is not None:
            self.given.add(taken.joined.dev_addr)

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        return self._joins.get(join_id) or self._history.join_history(join_id)

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        return (join_id, dev_nonce) in self._nonces or self._history.nonce_used(join_id, dev_nonce)


def _mic_contexts(
    entry: Entry, session: Session, frame: DataFrame, reception: Reception
) -> tuple[MicContext, ...] | None:
    """None for 1.0; what TxDr, TxCh and ConfFCnt can have been for 1.1, at most two for every channel."""
    if not entry.device.mac_version.is_1_1:
        return None
    region = entry.region
    tx_dr = None if region is None else region.tx_dr(reception.data_rate)
    if region is None or tx_dr is None:
        return ()
    added = entry.device.channels_hz
    known = channel_of(region, session.mac, reception, added) if session.mac.channels else None
    if known is None:
        channels = region.tx_ch_candidates(reception.frequency_hz, reception.data_rate, added)
    else:
        channels = (known,)
    # The last confirmed downlink may never have reached the device, which then acknowledges the one before.
    counters = [0]
    if frame.f_ctrl & _ACK:
        before = session.conf_fcnt_before
        counters = [session.conf_fcnt_down] if before is None else [session.conf_fcnt_down, before]
    return tuple(MicContext(conf_fcnt, tx_dr, tx_ch) for conf_fcnt in counters for tx_ch in channels)
