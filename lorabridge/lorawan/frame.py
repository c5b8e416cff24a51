"""Frames as values, and the two ways between them and bytes: `parse` and `build`.

What the bytes look like, and every bounds check, is in `grammar`; past it no accessor can fail. It never sees
a key. RFU bits are kept, so that `build(parse(b)) == b`.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgspec
from construct import Container, Sequence

from lorabridge.lorawan.grammar import (
    DATA_TYPES,
    DATA_WITH_PORT,
    DATA_WITHOUT_PORT,
    FOPTS_LEN_MASK,
    FOPTS_OFFSET,
    JOIN_ACCEPT,
    JOIN_ACCEPT_BODY,
    JOIN_ACCEPT_SIZES,
    JOIN_REQUEST,
    MIC_SIZE,
    PROPRIETARY,
    REJOIN_BY_JOIN_EUI,
    REJOIN_BY_NET_ID,
    MalformedFrame,
    MType,
    check,
)
from lorabridge.lorawan.types import EUI64, DevAddr, DevNonce, Direction, FCnt16, JoinNonce, NetID
from lorabridge.lorawan.verdict import Reason


def _in_order(declaration: Any) -> Callable[[BytesIO, Any], list[Any]]:
    """The same declaration for the hot path: values in their order, without the names that nothing refers to.

    What is returned is the compiled function itself: construct's `parse` around it costs as much as three fields.
    """
    fields = (field if field.name == "f_ctrl" else field.subcon for field in declaration.subcons)
    run: Callable[[BytesIO, Any], list[Any]] = Sequence(*fields).compile().parsefunc
    return run


_parse_without_port = _in_order(DATA_WITHOUT_PORT)
_parse_with_port = _in_order(DATA_WITH_PORT)
_NO_CONTEXT = Container(_params=None)
_UP, _DOWN = Direction.UP, Direction.DOWN
_CONFIRMED = (MType.CONFIRMED_DATA_UP.value, MType.CONFIRMED_DATA_DOWN.value)
_parse_join_request = JOIN_REQUEST.compile().parse
_parse_rejoin_by_net_id = REJOIN_BY_NET_ID.compile().parse
_parse_rejoin_by_join_eui = REJOIN_BY_JOIN_EUI.compile().parse
_parse_join_accept_body = JOIN_ACCEPT_BODY.compile().parse


class FCtrl(msgspec.Struct, frozen=True):
    """FCtrl taken apart (§4.3.1.1); which flags mean something depends on the direction."""

    adr: bool
    ack: bool
    f_opts_len: int
    adr_ack_req: bool
    """Uplinks only."""
    class_b: bool
    """Uplinks only."""
    f_pending: bool
    """Downlinks only."""


class DataFrame(msgspec.Struct, frozen=True, gc=False):
    """A data frame as it was received or is to be sent: hostile until `session.verify` made a VerifiedFrame of it."""

    mhdr: int
    dev_addr: DevAddr
    f_ctrl: int
    fcnt16: FCnt16
    f_opts: bytes
    f_port: int | None
    frm_payload: bytes
    mic: bytes
    message: bytes
    """What the MIC covers: everything before it."""

    @classmethod
    def make(  # noqa: PLR0913  # the fields of the frame, by name
        cls,
        *,
        m_type: MType,
        dev_addr: DevAddr,
        fcnt16: FCnt16,
        flags: int = 0,
        f_opts: bytes = b"",
        f_port: int | None = None,
        frm_payload: bytes = b"",
        mic: bytes = bytes(MIC_SIZE),
    ) -> DataFrame:
        """A data frame from its fields; `flags` are the upper four bits of FCtrl. `mic` is put in by `with_mic`.

        Raises MalformedFrame when the fields make no legal frame.
        """
        if len(f_opts) > FOPTS_LEN_MASK:
            raise MalformedFrame(Reason.FOPTS_OVERFLOW, f"FOpts has {len(f_opts)} bytes, at most 15 fit")
        if f_port is None and frm_payload:
            raise MalformedFrame(Reason.TOO_SHORT, "an FRMPayload needs an FPort before it")
        fields = {
            "mhdr": m_type << 5,
            "dev_addr": int(dev_addr),
            "f_ctrl": flags & 0xF0 | len(f_opts),
            "fcnt": fcnt16,
            "f_opts": f_opts,
            "f_port": f_port,
            "frm_payload": frm_payload,
        }
        message: bytes = (DATA_WITHOUT_PORT if f_port is None else DATA_WITH_PORT).build(fields)
        frame = parse(message + mic)
        if not isinstance(frame, DataFrame):
            raise MalformedFrame(Reason.RFU_MTYPE, f"{m_type.name} is no data message")
        return frame

    def with_mic(self, mic: bytes) -> DataFrame:
        """The same frame under another MIC."""
        return msgspec.structs.replace(self, mic=mic)

    @property
    def m_type(self) -> MType:
        """Message type."""
        return MType(self.mhdr >> 5)

    @property
    def direction(self) -> Direction:
        """Uplink or downlink: odd message types go down."""
        return _DOWN if self.mhdr & 0x20 else _UP

    @property
    def confirmed(self) -> bool:
        """Whether the sender asks for an acknowledgement."""
        return self.mhdr >> 5 in _CONFIRMED

    @property
    def flags(self) -> FCtrl:
        """FCtrl taken apart."""
        up = self.direction is Direction.UP
        return FCtrl(
            adr=bool(self.f_ctrl & 0x80),
            ack=bool(self.f_ctrl & 0x20),
            f_opts_len=self.f_ctrl & FOPTS_LEN_MASK,
            adr_ack_req=up and bool(self.f_ctrl & 0x40),
            class_b=up and bool(self.f_ctrl & 0x10),
            f_pending=not up and bool(self.f_ctrl & 0x10),
        )


class JoinRequest(msgspec.Struct, frozen=True):
    """A join-request (§6.2.5): plain text, authenticated by the root key."""

    mhdr: int
    join_eui: EUI64
    dev_eui: EUI64
    dev_nonce: DevNonce
    mic: bytes


class RejoinRequest(msgspec.Struct, frozen=True):
    """A rejoin-request (TS001-1.1 §6.2.4): types 0 and 2 name the NetID, type 1 the JoinEUI."""

    mhdr: int
    rejoin_type: int
    net_id: NetID | None
    join_eui: EUI64 | None
    dev_eui: EUI64
    rj_count: int
    mic: bytes


class JoinAccept(msgspec.Struct, frozen=True):
    """A join-accept as it travels: opaque until `crypto.decrypt_join_accept`."""

    mhdr: int
    encrypted: bytes


class JoinAcceptBody(msgspec.Struct, frozen=True):
    """A decrypted join-accept (§6.2.6); `mic` has not been verified by being here."""

    join_nonce: JoinNonce
    net_id: NetID
    dev_addr: DevAddr
    dl_settings: int
    rx_delay: int
    cf_list: bytes
    """Empty or 16 bytes."""
    mic: bytes
    message: bytes
    """MHDR and everything before the MIC."""

    @property
    def opt_neg(self) -> bool:
        """The network speaks 1.1 with this device (TS001-1.1 §6.2.3)."""
        return bool(self.dl_settings & 0x80)

    @property
    def rx1_dr_offset(self) -> int:
        """RX1DROffset of DLSettings."""
        return self.dl_settings >> 4 & 0x07

    @property
    def rx2_data_rate(self) -> int:
        """RX2DataRate of DLSettings."""
        return self.dl_settings & 0x0F


class Proprietary(msgspec.Struct, frozen=True):
    """A frame of MType 111: its form is nobody's business but the sender's."""

    mhdr: int
    payload: bytes


Frame = DataFrame | JoinRequest | RejoinRequest | JoinAccept | Proprietary


def parse(phy_payload: bytes, *, direction: Direction | None = None, rejoin_exists: bool = True) -> Frame:
    """Parse any PHYPayload.

    `direction` refuses message types that do not travel that way; `rejoin_exists=False` reads the frame as
    1.0 does, where MType 110 is reserved.
    Raises MalformedFrame, and nothing else whatever the bytes are.
    """
    m_type = check(phy_payload, direction, rejoin_exists)
    if m_type in DATA_TYPES:
        return _parse_data(phy_payload)
    return _PARSERS[m_type](phy_payload)


def build(frame: Frame) -> bytes:
    """The PHYPayload of a frame, from its fields.

    Raises MalformedFrame for a frame that could not be parsed again.
    """
    fields = msgspec.structs.asdict(frame)
    match frame:
        case DataFrame():
            if len(frame.f_opts) != frame.f_ctrl & FOPTS_LEN_MASK:
                raise MalformedFrame(Reason.FOPTS_OVERFLOW, "FOptsLen and FOpts differ")
            if frame.f_port is None and frame.frm_payload:
                raise MalformedFrame(Reason.TOO_SHORT, "an FRMPayload needs an FPort before it")
            fields["fcnt"] = frame.fcnt16
            grammar = DATA_WITHOUT_PORT if frame.f_port is None else DATA_WITH_PORT
            phy_payload: bytes = grammar.build(fields) + frame.mic
        case RejoinRequest():
            grammar = REJOIN_BY_JOIN_EUI if frame.rejoin_type == 1 else REJOIN_BY_NET_ID
            phy_payload = grammar.build(fields)
        case JoinRequest():
            phy_payload = JOIN_REQUEST.build(fields)
        case JoinAccept():
            phy_payload = JOIN_ACCEPT.build(fields)
        case _:
            phy_payload = PROPRIETARY.build(fields)
    check(phy_payload, None, rejoin_exists=True)
    return phy_payload


def parse_join_accept_body(mhdr: int, decrypted: bytes) -> JoinAcceptBody:
    """The fields of a decrypted join-accept of 16 or 32 bytes. Raises MalformedFrame for another length."""
    if 1 + len(decrypted) not in JOIN_ACCEPT_SIZES:
        raise MalformedFrame(Reason.BAD_JOIN_ACCEPT_LENGTH, f"a join-accept is not {1 + len(decrypted)} bytes")
    o = _parse_join_accept_body(decrypted[:-MIC_SIZE])
    return JoinAcceptBody(
        join_nonce=JoinNonce(o["join_nonce"]),
        net_id=NetID(o["net_id"]),
        dev_addr=DevAddr(o["dev_addr"]),
        dl_settings=o["dl_settings"],
        rx_delay=o["rx_delay"],
        cf_list=o["cf_list"],
        mic=decrypted[-MIC_SIZE:],
        message=bytes([mhdr]) + decrypted[:-MIC_SIZE],
    )


def build_join_accept_body(body: JoinAcceptBody) -> bytes:
    """The plaintext of a join-accept, MIC last, ready for `crypto.encrypt_join_accept`."""
    plain: bytes = JOIN_ACCEPT_BODY.build(msgspec.structs.asdict(body))
    return plain + body.mic


def _parse_data(phy: bytes) -> DataFrame:
    """A data frame whose lengths were checked."""
    message = phy[:-MIC_SIZE]
    if len(message) > FOPTS_OFFSET + (phy[5] & FOPTS_LEN_MASK):
        mhdr, addr, f_ctrl, fcnt, f_opts, f_port, frm_payload = _parse_with_port(BytesIO(message), _NO_CONTEXT)
    else:
        mhdr, addr, f_ctrl, fcnt, f_opts = _parse_without_port(BytesIO(message), _NO_CONTEXT)
        f_port, frm_payload = None, b""
    mic = phy[-MIC_SIZE:]
    return DataFrame(mhdr, DevAddr(addr), f_ctrl, fcnt, f_opts, f_port, frm_payload, mic, message)


def _parse_join(phy: bytes) -> Frame:
    o = _parse_join_request(phy)
    return JoinRequest(o["mhdr"], EUI64(o["join_eui"]), EUI64(o["dev_eui"]), DevNonce(o["dev_nonce"]), o["mic"])


def _parse_rejoin(phy: bytes) -> Frame:
    by_join_eui = phy[1] == 1
    o = _parse_rejoin_by_join_eui(phy) if by_join_eui else _parse_rejoin_by_net_id(phy)
    return RejoinRequest(
        mhdr=o["mhdr"],
        rejoin_type=o["rejoin_type"],
        net_id=None if by_join_eui else NetID(o["net_id"]),
        join_eui=EUI64(o["join_eui"]) if by_join_eui else None,
        dev_eui=EUI64(o["dev_eui"]),
        rj_count=o["rj_count"],
        mic=o["mic"],
    )


def _parse_opaque_join_accept(phy: bytes) -> Frame:
    return JoinAccept(phy[0], phy[1:])


def _parse_proprietary(phy: bytes) -> Frame:
    return Proprietary(phy[0], phy[1:])


_PARSERS: dict[int, Callable[[bytes], Frame]] = {
    MType.JOIN_REQUEST: _parse_join,
    MType.JOIN_ACCEPT: _parse_opaque_join_accept,
    MType.REJOIN_REQUEST: _parse_rejoin,
    MType.PROPRIETARY: _parse_proprietary,
}
