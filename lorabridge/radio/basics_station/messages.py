"""The JSON of the LNS protocol, read and written: hostile text to values, and values to text.

A station takes frames apart; they are put together again byte for byte, because the MIC is over the bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lorabridge.lorawan.types import EUI64, DevAddr, DevNonce
from lorabridge.radio.faults import DatagramFault, MalformedDatagram

MAX_PAYLOAD = 255
"""Bytes of a LoRa frame."""
_WORD = 0xFFFF_FFFF
_GROUPS = re.compile(r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){3}\Z", re.IGNORECASE)
_DASHED = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{2}){7}\Z", re.IGNORECASE)

_Byte = Annotated[int, Meta(ge=0, le=0xFF)]
_Word16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
_Signed32 = Annotated[int, Meta(ge=-(1 << 31), le=_WORD)]
"""MIC and DevAddr: a station writes them signed."""
_Int64 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Hex = Annotated[str, Meta(max_length=2 * MAX_PAYLOAD)]
_FrequencyHz = Annotated[int, Meta(ge=100_000_000, le=3_000_000_000)]


class UpInfo(msgspec.Struct, frozen=True):
    """How a frame was heard. `xtime` does not fit into a float: it stays an integer."""

    xtime: _Int64
    rctx: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 63) - 1)] = 0
    gpstime: _Int64 = 0
    """Microseconds since 1980-01-06, without leap seconds; 0: not known."""
    rssi: Annotated[float, Meta(ge=-300, le=100)] = 0.0
    snr: Annotated[float, Meta(ge=-100, le=100)] = 0.0


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What every message about a frame has."""

    data_rate: Annotated[int, Meta(ge=0, le=15)] = msgspec.field(name="DR")
    frequency_hz: _FrequencyHz = msgspec.field(name="Freq")
    upinfo: UpInfo


class DataMessage(_Heard, frozen=True, kw_only=True, tag_field="msgtype", tag="updf"):
    """`updf`: a data frame."""

    mhdr: _Byte = msgspec.field(name="MHdr")
    dev_addr: _Signed32 = msgspec.field(name="DevAddr")
    f_ctrl: _Byte = msgspec.field(name="FCtrl")
    f_cnt: _Word16 = msgspec.field(name="FCnt")
    f_opts: _Hex = msgspec.field(name="FOpts")
    f_port: Annotated[int, Meta(ge=-1, le=255)] = msgspec.field(name="FPort")
    frm_payload: _Hex = msgspec.field(name="FRMPayload")
    mic: _Signed32 = msgspec.field(name="MIC")

    def phy_payload(self) -> bytes:
        """The frame as it was on the air. Raises MalformedDatagram."""
        f_opts, payload = _bytes(self.f_opts), _bytes(self.frm_payload)
        has_port = self.f_port >= 0
        if len(f_opts) != self.f_ctrl & 0x0F or (payload and not has_port):
            raise MalformedDatagram(DatagramFault.BAD_VALUE)
        return b"".join(
            (
                bytes([self.mhdr]),
                DevAddr(self.dev_addr & _WORD).to_wire(),
                bytes([self.f_ctrl]),
                self.f_cnt.to_bytes(2, "little"),
                f_opts,
                bytes([self.f_port]) if has_port else b"",
                payload,
                (self.mic & _WORD).to_bytes(4, "little"),
            )
        )


class _JoinFields(_Heard, frozen=True, kw_only=True):
    """The fields of a request of 23 bytes; a station reads every rejoin-request so."""

    mhdr: _Byte = msgspec.field(name="MHdr")
    join_eui: str = msgspec.field(name="JoinEui")
    dev_eui: str = msgspec.field(name="DevEui")
    dev_nonce: _Word16 = msgspec.field(name="DevNonce")
    mic: _Signed32 = msgspec.field(name="MIC")

    def phy_payload(self) -> bytes:
        """The frame as it was on the air. Raises MalformedDatagram."""
        return b"".join(
            (
                bytes([self.mhdr]),
                _dashed_eui(self.join_eui).to_wire(),
                _dashed_eui(self.dev_eui).to_wire(),
                DevNonce(self.dev_nonce).to_bytes(2, "little"),
                (self.mic & _WORD).to_bytes(4, "little"),
            )
        )


class JoinMessage(_JoinFields, frozen=True, kw_only=True, tag_field="msgtype", tag="jreq"):
    """`jreq`: a join-request."""


class RejoinMessage(_JoinFields, frozen=True, kw_only=True, tag_field="msgtype", tag="rejoin"):
    """`rejoin`: what the station took for a rejoin-request."""


class ProprietaryMessage(_Heard, frozen=True, kw_only=True, tag_field="msgtype", tag="propdf"):
    """`propdf`: a frame that the station does not take apart, whole."""

    frm_payload: _Hex = msgspec.field(name="FRMPayload")

    def phy_payload(self) -> bytes:
        """The frame as it was on the air. Raises MalformedDatagram."""
        return _bytes(self.frm_payload)


class VersionMessage(msgspec.Struct, frozen=True, tag_field="msgtype", tag="version"):
    """`version`: the first message of a station."""

    station: Annotated[str, Meta(max_length=200)] = ""
    model: Annotated[str, Meta(max_length=200)] = ""
    features: Annotated[str, Meta(max_length=200)] = ""
    protocol: int = 0


class SentMessage(msgspec.Struct, frozen=True, tag_field="msgtype", tag="dntxed"):
    """`dntxed`: a downlink is on the air. `diid` is `seqno` under another name."""

    diid: _Int64 | None = None
    seqno: _Int64 | None = None


class TimeSyncMessage(msgspec.Struct, frozen=True, tag_field="msgtype", tag="timesync"):
    """`timesync`: a station with PPS asks what time it is."""

    txtime: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


FrameMessage = DataMessage | JoinMessage | RejoinMessage | ProprietaryMessage
Message = FrameMessage | VersionMessage | SentMessage | TimeSyncMessage


class _Kind(msgspec.Struct, frozen=True):
    msgtype: str


class _Router(msgspec.Struct, frozen=True):
    router: str | int


_KNOWN = frozenset({"updf", "jreq", "rejoin", "propdf", "version", "dntxed", "timesync"})
_decode_kind = msgspec.json.Decoder(_Kind).decode
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_decode_router = msgspec.json.Decoder(_Router).decode


def parse_message(text: str | bytes) -> Message | None:
    """One message of a station; None for a kind that is of no interest here. Raises MalformedDatagram."""
    try:
        if _decode_kind(text).msgtype not in _KNOWN:
            return None
        return _DECODER.decode(text)
    except (msgspec.ValidationError, UnicodeError):
        raise MalformedDatagram(DatagramFault.BAD_VALUE) from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedDatagram(DatagramFault.BAD_JSON) from None


def parse_router(text: str | bytes) -> EUI64:
    """The gateway that asks where to go (`/router-info`). Raises MalformedDatagram."""
    try:
        router = _decode_router(text).router
    except (msgspec.ValidationError, UnicodeError):
        raise MalformedDatagram(DatagramFault.BAD_VALUE) from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedDatagram(DatagramFault.BAD_JSON) from None
    if isinstance(router, str):
        return parse_id6(router)
    if not 0 <= router < 1 << 64:
        raise MalformedDatagram(DatagramFault.BAD_VALUE)
    return EUI64(router)


def parse_id6(text: str) -> EUI64:
    """An EUI as stations write it: `16:c001:ff10:a235`, `::1`, or with dashes. Raises MalformedDatagram."""
    if _DASHED.match(text):
        return _dashed_eui(text)
    left, gap, right = text.partition("::")
    if gap:
        before, after = (part.split(":") if part else [] for part in (left, right))
        text = ":".join([*before, *["0"] * (4 - len(before) - len(after)), *after])
    if not _GROUPS.match(text):
        raise MalformedDatagram(DatagramFault.BAD_VALUE)
    return EUI64.parse("".join(group.zfill(4) for group in text.split(":")))


def build(message: dict[str, Any]) -> str:
    """A message for a station: one JSON object; integers stay exact."""
    return msgspec.json.encode(message).decode()


def dashed(eui: EUI64) -> str:
    """An EUI as stations read it."""
    return "-".join(f"{byte:02x}" for byte in int(eui).to_bytes(8, "big"))


def _dashed_eui(text: str) -> EUI64:
    if not _DASHED.match(text):
        raise MalformedDatagram(DatagramFault.BAD_VALUE)
    return EUI64.parse(text.replace("-", ""))


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise MalformedDatagram(DatagramFault.BAD_VALUE) from None
