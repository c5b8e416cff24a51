"""One data downlink: what goes into it, under which counter, and the session after it. Nothing is changed in place.

A counter is used up by building: the session that comes back has to be durable before the frame may be
sent. What does not fit waits: first our own requests to the MAC layer, then the application's payload.
"""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.commands import CommandReason, QueuedCommand
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import MulticastGroup
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import FOPTS_LEN_MASK, MType
from lorabridge.lorawan.mac_layer import ask
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.session import MAX_FCNT_GAP, Session
from lorabridge.lorawan.table import Entry
from lorabridge.lorawan.types import FCNT32_MAX, DevAddr, Direction, FCnt16, FCnt32

FHDR_SIZE = 7
"""Without FOpts (§4.3.1)."""
MAX_F_OPTS = FOPTS_LEN_MASK
_ADR, _ACK, _F_PENDING = 0x80, 0x20, 0x10
_MAC_PORT = 0


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is to be told in one frame."""

    ack_of: FCnt32 | None = None
    """The confirmed uplink that is acknowledged."""
    mac_answers: bytes = b""
    command: QueuedCommand | None = None
    f_pending: bool = False
    """More waits for the device."""


class Downlink(msgspec.Struct, frozen=True, kw_only=True):
    """A frame ready for the radio, and the session that has to be committed before."""

    phy_payload: bytes
    session: Session
    fcnt32: FCnt32
    command: QueuedCommand | None
    """The command that it carries."""


def next_app_fcnt(entry: Entry, session: Session) -> FCnt32:
    """The counter of the next application downlink: AFCntDown under 1.1, else FCntDown."""
    return session.a_fcnt_down if entry.device.mac_version.is_1_1 else session.fcnt_down


def command_problem(entry: Entry, session: Session, command: QueuedCommand, limit: int) -> CommandReason | None:
    """Why a command can never be sent to this session as it is; `limit`: the largest MACPayload of its windows."""
    order, counter = command.command, next_app_fcnt(entry, session)
    if FHDR_SIZE + 1 + len(order.payload) > limit:
        return CommandReason.TOO_LONG
    if order.fcnt_down is None and entry.keys.app_s_key is None:
        return CommandReason.NO_APP_S_KEY
    if order.fcnt_down is not None and order.fcnt_down < counter:
        return CommandReason.COUNTER_USED
    if order.fcnt_down is not None and order.fcnt_down - counter > MAX_FCNT_GAP:
        return CommandReason.BAD_COMMAND
    return CommandReason.COUNTER_EXHAUSTED if counter > FCNT32_MAX else None


def build_downlink(  # the whole of what a frame depends on
    entry: Entry,
    crypto: SessionCrypto,
    session: Session,
    contents: Contents,
    *,
    policy: MacPolicy,
    uplink_adr: bool,
    limit: int,
) -> Downlink | None:
    """The next downlink of a session within `limit` bytes of MACPayload; None when its counter is used up.

    The caller has asked `command_problem` before.
    """
    command = contents.command
    answers = contents.mac_answers
    if command is not None and not _fits(answers, command, limit):
        command = None  # an answer that the device waits for goes first; the command goes next time
    room = _room(answers, command, limit)
    asked = ask(
        session.mac,
        policy,
        mac_version=entry.device.mac_version,
        region=entry.region,
        device_adr=entry.device.adr,
        uplink_adr=uplink_adr,
        room=room,
    )
    mac = answers + asked.wire
    fcnt32 = _counter(entry, session, command)
    if fcnt32 > FCNT32_MAX:
        return None
    pending = contents.f_pending or (contents.command is not None and command is None)
    frame = _frame(entry, crypto, contents, command, mac, fcnt32, pending)
    moved = msgspec.structs.replace(_moved(entry, session, command, fcnt32), mac=asked.state)
    return Downlink(phy_payload=build(frame), session=moved, fcnt32=fcnt32, command=command)


def build_multicast(
    group: MulticastGroup, crypto: SessionCrypto, session: Session, command: QueuedCommand
) -> Downlink | None:
    """The next downlink of a multicast group: never confirmed, without MAC commands, signed as 1.0 does (TS005 §2).

    None when its counter is used up, or the command is sealed for another one, or the key to encrypt it is elsewhere.
    """
    order, fcnt32 = command.command, session.fcnt_down
    if order.fcnt_down is not None:
        fcnt32 = order.fcnt_down
    payload: bytes | None = order.payload
    if not order.is_sealed:
        payload = crypto.frm_payload(order.payload, order.f_port, Direction.DOWN, group.mc_addr, fcnt32)
    if fcnt32 > FCNT32_MAX or fcnt32 < session.fcnt_down or payload is None:
        return None
    frame = DataFrame.make(
        m_type=MType.UNCONFIRMED_DATA_DOWN,
        dev_addr=group.mc_addr,
        fcnt16=FCnt16(fcnt32 & 0xFFFF),
        f_port=order.f_port,
        frm_payload=payload,
    )
    signed = frame.with_mic(crypto.mic_1_0(frame.message, Direction.DOWN, group.mc_addr, fcnt32))
    moved = msgspec.structs.replace(session, fcnt_down=FCnt32(fcnt32 + 1))
    return Downlink(phy_payload=build(signed), session=moved, fcnt32=fcnt32, command=command)


def _fits(answers: bytes, command: QueuedCommand, limit: int) -> bool:
    return len(answers) <= MAX_F_OPTS and FHDR_SIZE + len(answers) + 1 + len(command.command.payload) <= limit


def _room(answers: bytes, command: QueuedCommand | None, limit: int) -> int:
    """Bytes for requests of ours, beside the answers."""
    if command is not None:
        return min(MAX_F_OPTS, limit - FHDR_SIZE - 1 - len(command.command.payload)) - len(answers)
    return max(0, min(MAX_F_OPTS, limit - FHDR_SIZE) - len(answers))


def _counter(entry: Entry, session: Session, command: QueuedCommand | None) -> FCnt32:
    if command is None:
        return session.fcnt_down
    return next_app_fcnt(entry, session) if command.command.fcnt_down is None else command.command.fcnt_down


def _frame(  # as above
    entry: Entry,
    crypto: SessionCrypto,
    contents: Contents,
    command: QueuedCommand | None,
    mac: bytes,
    fcnt32: FCnt32,
    pending: bool,
) -> DataFrame:
    """The signed frame."""
    is_1_1, dev_addr = entry.device.mac_version.is_1_1, entry.dev_addr
    flags = (_ADR if entry.device.adr else 0) | (_F_PENDING if pending else 0)
    if contents.ack_of is not None:
        flags |= _ACK
    f_port, payload, f_opts = _payload(crypto, command, mac, dev_addr, fcnt32)
    if f_opts and is_1_1:
        f_opts = crypto.f_opts_1_1(f_opts, Direction.DOWN, dev_addr, fcnt32, a_fcnt_down=command is not None)
    confirmed = command is not None and command.command.confirmed
    frame = DataFrame.make(
        m_type=MType.CONFIRMED_DATA_DOWN if confirmed else MType.UNCONFIRMED_DATA_DOWN,
        dev_addr=dev_addr,
        fcnt16=FCnt16(fcnt32 & 0xFFFF),
        flags=flags,
        f_opts=f_opts,
        f_port=f_port,
        frm_payload=payload,
    )
    if is_1_1:
        conf_fcnt = 0 if contents.ack_of is None else contents.ack_of & 0xFFFF
        return frame.with_mic(crypto.mic_down_1_1(frame.message, dev_addr, fcnt32, conf_fcnt))
    return frame.with_mic(crypto.mic_1_0(frame.message, Direction.DOWN, dev_addr, fcnt32))


def _payload(
    crypto: SessionCrypto, command: QueuedCommand | None, mac: bytes, dev_addr: DevAddr, fcnt32: FCnt32
) -> tuple[int | None, bytes, bytes]:
    """FPort, encrypted FRMPayload, plain FOpts: MAC commands that do not fit FOpts go under port 0."""
    if command is not None:
        order = command.command
        if order.is_sealed:
            return order.f_port, order.payload, mac
        sealed = crypto.frm_payload(order.payload, order.f_port, Direction.DOWN, dev_addr, fcnt32)
        return order.f_port, b"" if sealed is None else sealed, mac
    if len(mac) > MAX_F_OPTS:
        sealed = crypto.frm_payload(mac, _MAC_PORT, Direction.DOWN, dev_addr, fcnt32)
        return _MAC_PORT, b"" if sealed is None else sealed, b""
    return None, b"", mac


def _moved(entry: Entry, session: Session, command: QueuedCommand | None, fcnt32: FCnt32) -> Session:
    """The session with this counter used up."""
    after = FCnt32(fcnt32 + 1)
    conf_fcnt = session.conf_fcnt_down
    conf_before = session.conf_fcnt_before
    if command is not None and command.command.confirmed:
        conf_fcnt, conf_before = fcnt32 & 0xFFFF, conf_fcnt
    if command is not None and entry.device.mac_version.is_1_1:
        return msgspec.structs.replace(
            session, a_fcnt_down=after, conf_fcnt_down=conf_fcnt, conf_fcnt_before=conf_before
        )
    return msgspec.structs.replace(session, fcnt_down=after, conf_fcnt_down=conf_fcnt, conf_fcnt_before=conf_before)
