"""A session value, the 32-bit frame counter, and what a counter proves. Nothing here is changed in place.

Theory. Only the low half of the counter is on the air, so a frame is tried under every whole counter it
could stand for (`counter_candidates`), newest first; the one under which the MIC verifies is the
counter, and by its place below, at or above the last accepted one it proves what the frame is. A low
counter whose MIC differs from the one we remember for it was made by a device that counts again: a
reset. One that we remember with the same MIC was played back: a replay. One that we do not remember
at all is a reset when it is among the first counters of a count, and a replay otherwise.
"""

from __future__ import annotations

import struct
from typing import cast

import msgspec

from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.crypto import MicContext, SessionCrypto, mic_equal
from lorabridge.lorawan.device import CounterPolicy, Device
from lorabridge.lorawan.frame import DataFrame
from lorabridge.lorawan.grammar import MIC_SIZE
from lorabridge.lorawan.mac_state import DEFAULT_MAC_STATE, MacState
from lorabridge.lorawan.types import EUI64, FCNT32_MAX, DevAddr, Direction, FCnt16, FCnt32, MacVersion
from lorabridge.lorawan.verdict import Verdict

MAX_FCNT_GAP = 16384
"""Largest step of a counter (TS001-1.0.3 §4.3.1.5, RP001 "MAX_FCNT_GAP")."""
_VERSIONS_WITH_GAP = (MacVersion.V1_0_3, MacVersion.V1_0_2, MacVersion.V1_0_1, MacVersion.V1_0_0)
"""From 1.0.4 on, and in 1.1, a counter may step as far as 32 bits reach."""

FIRST_CONTACT_EPOCHS = 4
"""Values of the high half tried for a device never heard before."""
MAX_COUNTERS_TRIED = 4
"""The most counters `counter_candidates` returns."""
LOW_COUNTERS = 32
"""A counter below this may be the start of a new count."""
RECENT_FRAMES = 16
MAX_RETRANSMISSIONS = 15
"""NbTrans has four bits (§5.3)."""
MAX_COPIES = 32
"""Copies of one uplink that are counted; a replayer cannot make us report more."""

_SECOND = 1_000_000_000
SAME_GATEWAY_WINDOW = 9 * _SECOND // 10
"""A device cannot send again before its first receive window, one second after the frame (§3.3)."""
RETRANSMISSION_WINDOW = 600 * _SECOND
"""Past this a repeated frame is no retransmission: SF12 under a 1 % duty cycle repeats within 5 minutes."""
_TMST_MASK = 0xFFFF_FFFF
_RECENT = struct.Struct("<I4sQ")
"""Counter, MIC, time of reception."""
_RECENT_KEPT = _RECENT.size * (RECENT_FRAMES - 1)

# Named here once: in Python 3.11, to look a member up in its class takes longer than to call a function.
_UP, _ACCEPTED, _CONFIRM = Direction.UP, Verdict.ACCEPTED, CounterPolicy.CONFIRM
_LAST_TIME = (1 << 64) - 1


class ResetTrack(msgspec.Struct, frozen=True, gc=False):
    """A device whose counter seems to have restarted: how far the new count has got."""

    last_fcnt32: FCnt32
    consecutive: int


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What must survive of a session. `session_id` names its address and keys without revealing them."""

    session_id: bytes
    dev_eui: EUI64
    generation: int = 0
    """Counts the changes: the store's compare-and-set."""
    fcnt_up: FCnt32 | None = None
    """The last accepted uplink counter."""
    last_gateway: EUI64 = EUI64(0)
    last_tmst: int | None = None
    """Where, and when by that gateway's counter, the last accepted frame was first heard."""
    retransmissions: int = 0
    copies: int = 0
    """Heard of the last accepted frame."""
    first_mics: bytes = b""
    """MICs of the counters below LOW_COUNTERS of this count, four bytes each, zeros where unknown."""
    recent: bytes = b""
    """The last accepted frames, newest last: `_RECENT` each."""
    reset: ResetTrack | None = None
    resets: int = 0
    """Counter resets that were taken."""
    fcnt_down: FCnt32 = FCnt32(0)
    """Next FCntDown (1.0) or NFCntDown (1.1)."""
    a_fcnt_down: FCnt32 = FCnt32(0)
    """Next AFCntDown (1.1)."""
    conf_fcnt_down: int = 0
    """FCnt of the last confirmed downlink, 16 bits: ConfFCnt of the next acknowledging uplink (1.1)."""
    conf_fcnt_before: int | None = None
    """That of the one before: the last one may never have reached the device."""
    rj_count0: int | None = None
    """The highest RJcount0 taken in this session (1.1)."""
    mac: MacState = DEFAULT_MAC_STATE


class VerifiedFrame(msgspec.Struct, frozen=True, gc=False):
    """A data frame whose MIC is valid under one session and counter. Only `verify` makes one."""

    frame: DataFrame
    fcnt32: FCnt32


class FreshFrame(msgspec.Struct, frozen=True, gc=False):
    """A verified frame whose counter is new. Only `judge_counter` makes one; `decrypt` takes nothing else."""

    verified: VerifiedFrame


class CounterJudgement(msgspec.Struct, frozen=True, gc=False):
    """What the counter of a verified frame proves, and what follows."""

    verdict: Verdict
    session: Session | None
    """The session after the frame; None: unchanged."""
    fresh: FreshFrame | None
    """For `accepted` only."""
    detail: str
    counter_reset: bool = False
    """Accepted as the start of a new count."""
    remember: bool = False
    """The frame belongs into the history of frames heard (policy `confirm`)."""


class History:
    """What was heard before: frames (of policy `confirm`) and joins. This one knows nothing; the store's does."""

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:  # noqa: ARG002  # the contract
        """Whether exactly this frame was accepted or held before; `mic` is what `content_mic` leaves of it."""
        return False

    def join_history(self, join_id: bytes) -> JoinHistory | None:  # noqa: ARG002  # the contract
        """What the joins under these root keys have used up; None: there was none."""
        return None

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:  # noqa: ARG002  # the contract
        """Whether a join-request with this DevNonce was taken under these root keys."""
        return False


def max_fcnt_gap(device: Device) -> int | None:
    """The largest step its counter may make, None for no limit."""
    if device.max_fcnt_gap is not None:
        return device.max_fcnt_gap or None
    return MAX_FCNT_GAP if device.mac_version in _VERSIONS_WITH_GAP else None


def counter_candidates(last: FCnt32 | None, wire: FCnt16) -> tuple[FCnt32, ...]:
    """The 32-bit counters that the 16 bits on the air can stand for, likeliest first; at most MAX_COUNTERS_TRIED.

    The first is the next one after `last` with these low bits, or `last` itself; then the used ones of this
    and the previous high half; then the count from zero.
    """
    if last is None:
        return tuple(FCnt32(epoch << 16 | wire) for epoch in range(FIRST_CONTACT_EPOCHS))
    here = last & ~0xFFFF | wire
    newer = here if here > last else here + 0x1_0000
    found = [here] if here == last else []
    if newer <= FCNT32_MAX:
        found.append(newer)
    if here < last:
        found.append(here)
    if here > 0xFFFF:
        found.append(here - 0x1_0000)
    if here > 0x1_FFFF:
        found.append(wire)
    return cast("tuple[FCnt32, ...]", tuple(found))


def verify(
    frame: DataFrame, fcnt32: FCnt32, crypto: SessionCrypto, contexts: tuple[MicContext, ...] | None
) -> VerifiedFrame | None:
    """The frame as verified under one counter, or None.

    `contexts` is None for 1.0; for 1.1 it holds what TxDr, TxCh and ConfFCnt can have been: they are tried only
    after the other half of the MIC was valid.
    """
    if contexts is None:
        expected = crypto.mic_1_0(frame.message, _UP, frame.dev_addr, fcnt32)
        return VerifiedFrame(frame, fcnt32) if mic_equal(expected, frame.mic) else None
    if not mic_equal(crypto.mic_up_1_1_f(frame.message, frame.dev_addr, fcnt32), frame.mic[2:]):
        return None
    for context in contexts:
        if mic_equal(crypto.mic_up_1_1_s(frame.message, frame.dev_addr, fcnt32, context), frame.mic[:2]):
            return VerifiedFrame(frame, fcnt32)
    return None


def judge_counter(
    verified: VerifiedFrame, session: Session, device: Device, reception: Reception, window_ns: int, history: History
) -> CounterJudgement:
    """What the counter of a verified frame proves under the device's policy.

    `window_ns`: how long copies by other gateways are duplicates.
    """
    last, fcnt32 = session.fcnt_up, verified.fcnt32
    if last is None:
        return _accept(verified, session, device, reception)
    if fcnt32 > last:
        return _judge_newer(verified, session, device, reception, history)
    known = _remembered(session, fcnt32)
    if known is not None and mic_equal(content_mic(known[0], device), content_mic(verified.frame.mic, device)):
        return _judge_again(fcnt32, known[1], session, reception, window_ns)
    return _judge_lower(verified, session, device, reception, history)


def content_mic(mic: bytes, device: Device) -> bytes:
    """The part of a MIC that is the same whenever the device repeats the frame.

    Under 1.1 the first half is made anew for the data rate and channel of each repetition (TS001-1.1 §4.4).
    """
    return mic[2:] if device.mac_version.is_1_1 else mic


def decrypt(fresh: FreshFrame, device: Device, crypto: SessionCrypto) -> tuple[bytes, bytes, bool]:
    """Plaintext of a fresh uplink: (FRMPayload, FOpts, sealed). Sealed: the payload stayed as it came."""
    frame, fcnt32 = fresh.verified.frame, fresh.verified.fcnt32
    f_opts = frame.f_opts
    if f_opts and device.mac_version.is_1_1:
        f_opts = crypto.f_opts_1_1(f_opts, _UP, frame.dev_addr, fcnt32, a_fcnt_down=False)
    payload = crypto.frm_payload(frame.frm_payload, frame.f_port, _UP, frame.dev_addr, fcnt32)
    if payload is None:
        return frame.frm_payload, f_opts, frame.f_port is not None
    return payload, f_opts, False


def _judge_newer(
    verified: VerifiedFrame, session: Session, device: Device, reception: Reception, history: History
) -> CounterJudgement:
    """A counter above the last one: fresh, unless it jumps too far or belongs to a count before a reset."""
    fcnt32 = verified.fcnt32
    if session.resets and history.heard(session.session_id, fcnt32, content_mic(verified.frame.mic, device)):
        return _refuse(Verdict.REPLAY, f"frame {fcnt32} was heard before the counter restarted")
    step = fcnt32 - (session.fcnt_up or 0)
    limit = max_fcnt_gap(device) if step > 1 else None
    if limit is not None and step > limit:
        return _refuse(Verdict.COUNTER_GAP, f"{step} counters after {session.fcnt_up}; at most {limit} may be skipped")
    return _accept(verified, session, device, reception)


def _judge_again(fcnt32: FCnt32, at: int, session: Session, reception: Reception, window_ns: int) -> CounterJudgement:
    """A frame that was accepted before: its copy, the device's own repetition, or somebody else's."""
    age = abs(reception.received_at - at)
    if fcnt32 != session.fcnt_up:
        if age <= window_ns:
            return CounterJudgement(Verdict.DUPLICATE, None, None, "a late copy of a frame before the last one")
        return _refuse(Verdict.REPLAY, f"frame {fcnt32} was accepted before")
    copied = msgspec.structs.replace(session, copies=min(session.copies + 1, MAX_COPIES + 1))
    if reception.gateway_eui == session.last_gateway:
        if session.last_tmst is not None and reception.tmst is not None:
            age = min(
                (reception.tmst - session.last_tmst) & _TMST_MASK, (session.last_tmst - reception.tmst) & _TMST_MASK
            )
            age *= 1000
        if age <= SAME_GATEWAY_WINDOW:
            return CounterJudgement(Verdict.DUPLICATE, copied, None, "heard by another antenna or channel")
    elif age <= window_ns:
        return CounterJudgement(Verdict.DUPLICATE, copied, None, "heard by another gateway")
    if session.retransmissions < MAX_RETRANSMISSIONS and abs(reception.received_at - at) <= RETRANSMISSION_WINDOW:
        again = msgspec.structs.replace(copied, retransmissions=session.retransmissions + 1)
        return CounterJudgement(
            Verdict.RETRANSMISSION, again, None, f"repetition {again.retransmissions} by the device"
        )
    return _refuse(Verdict.REPLAY, "the last accepted frame, too late or too often for a retransmission")


def _judge_lower(
    verified: VerifiedFrame, session: Session, device: Device, reception: Reception, history: History
) -> CounterJudgement:
    """A used counter under a MIC that we do not remember for it: an old frame, or a device that counts again."""
    fcnt32, track = verified.fcnt32, session.reset
    if device.counter_policy is CounterPolicy.OFF:
        return _accept(verified, session, device, reception, restarted=True)
    if track is not None and fcnt32 == track.last_fcnt32:
        return _refuse(Verdict.COUNTER_RESET, f"frame {fcnt32} of the new count was heard already")
    content = content_mic(verified.frame.mic, device)
    if device.counter_policy is CounterPolicy.CONFIRM and history.heard(session.session_id, fcnt32, content):
        return _refuse(Verdict.REPLAY, f"frame {fcnt32} was heard before")
    proven = _remembered(session, fcnt32) is not None
    on_track = track is not None and track.last_fcnt32 < fcnt32 <= track.last_fcnt32 + MAX_FCNT_GAP
    if not (proven or on_track or fcnt32 < LOW_COUNTERS):
        return _refuse(Verdict.REPLAY, f"counter {fcnt32} was used: the last accepted one is {session.fcnt_up}")
    consecutive = track.consecutive + 1 if track is not None and fcnt32 == track.last_fcnt32 + 1 else 1
    if device.counter_policy is CounterPolicy.CONFIRM and consecutive >= device.confirm_frames:
        return _accept(verified, session, device, reception, restarted=True)
    return CounterJudgement(
        Verdict.COUNTER_RESET,
        msgspec.structs.replace(session, reset=ResetTrack(fcnt32, consecutive)),
        None,
        _reset_detail(device, fcnt32, session, consecutive),
        remember=device.counter_policy is CounterPolicy.CONFIRM,
    )


def _reset_detail(device: Device, fcnt32: FCnt32, session: Session, consecutive: int) -> str:
    """What to tell the operator of a restarted counter."""
    said = f"counter restarted: {fcnt32} after {session.fcnt_up}"
    if device.counter_policy is CounterPolicy.CONFIRM:
        return f"{said}; held, {consecutive} of {device.confirm_frames} consecutive frames seen"
    return f"{said}; refused by counter_policy strict"


def _accept(
    verified: VerifiedFrame, session: Session, device: Device, reception: Reception, *, restarted: bool = False
) -> CounterJudgement:
    """The frame is fresh: the session moves on to its counter."""
    fcnt32, mic = verified.fcnt32, verified.frame.mic
    first_mics = b"" if restarted else session.first_mics
    if fcnt32 < LOW_COUNTERS:
        first_mics = first_mics.ljust(fcnt32 * MIC_SIZE, b"\0") + mic
    kept = b"" if restarted else session.recent[-_RECENT_KEPT:]
    moved = Session(
        session_id=session.session_id,
        dev_eui=session.dev_eui,
        generation=session.generation,
        fcnt_up=fcnt32,
        last_gateway=reception.gateway_eui,
        last_tmst=reception.tmst,
        first_mics=first_mics,
        recent=kept + _RECENT.pack(fcnt32, mic, min(max(reception.received_at, 0), _LAST_TIME)),
        resets=session.resets + restarted,
        fcnt_down=session.fcnt_down,
        a_fcnt_down=session.a_fcnt_down,
        conf_fcnt_down=session.conf_fcnt_down,
        conf_fcnt_before=session.conf_fcnt_before,
        rj_count0=session.rj_count0,
        mac=session.mac,
    )
    return CounterJudgement(
        _ACCEPTED,
        moved,
        FreshFrame(verified),
        f"the counter restarted at {fcnt32} after {session.fcnt_up}" if restarted else "",
        counter_reset=restarted,
        remember=device.counter_policy is _CONFIRM,
    )


def _refuse(verdict: Verdict, detail: str) -> CounterJudgement:
    return CounterJudgement(verdict, None, None, detail)


def _remembered(session: Session, fcnt32: FCnt32) -> tuple[bytes, int] | None:
    """The MIC accepted under a counter of this count, and when (0: long ago); None when it is not remembered."""
    for counter, mic, at in _RECENT.iter_unpack(session.recent):
        if counter == fcnt32:
            return mic, at
    mic = session.first_mics[fcnt32 * MIC_SIZE : (fcnt32 + 1) * MIC_SIZE] if fcnt32 < LOW_COUNTERS else b""
    return (mic, 0) if any(mic) else None


def session_id_of(dev_addr: DevAddr, crypto: SessionCrypto) -> bytes:
    """Eight bytes that change when the address or a network key does, and tell nothing of the keys."""
    label = b"lorabridge session"
    return crypto.network_key_check(dev_addr.to_wire() + label)[:8]
