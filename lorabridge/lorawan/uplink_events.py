"""What the cloud is told of a frame whose sender is proved."""

from __future__ import annotations

import struct

from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.events import Event, SecurityEvent, Uplink, UplinkCopy
from lorabridge.lorawan.grammar import MIC_SIZE
from lorabridge.lorawan.session import (
    MAX_COPIES,
    CounterJudgement,
    FreshFrame,
    Session,
    VerifiedFrame,
    content_mic,
    decrypt,
)
from lorabridge.lorawan.table import Entry
from lorabridge.lorawan.verdict import Verdict

_COPIES = frozenset({Verdict.DUPLICATE, Verdict.RETRANSMISSION})
_PROVEN_REFUSALS = frozenset({Verdict.REPLAY, Verdict.COUNTER_RESET, Verdict.COUNTER_GAP})


def frame_events(
    verified: VerifiedFrame,
    judged: CounterJudgement,
    entry: Entry,
    crypto: SessionCrypto,
    session: Session,
    reception: Reception,
) -> tuple[Event, ...]:
    """The events of one frame."""
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
        mic=frame.mic,
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
