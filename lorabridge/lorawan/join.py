"""Joins: which requests are taken, what is answered, and the session that follows (TS001-1.0.4 §6.2, TS001-1.1 §6.2).

Theory. A join-request proves its sender by the root key and its freshness by the nonce. Devices of 1.0.4
and 1.1 count their nonces, so a lower one is old; earlier ones draw them, so every nonce ever taken is
kept: then a recorded request is *proved* to be one. What was taken is bound to the root keys (`join_id`):
a device with new keys begins with an empty history.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import msgspec

from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.crypto import (
    PreparedKey,
    derive_js_enc_key,
    derive_js_int_key,
    derive_session_keys_1_0,
    derive_session_keys_1_1,
    encrypt_join_accept,
    join_accept_mic,
    join_accept_mic_1_1,
)
from lorabridge.lorawan.device import Device, SessionKeys
from lorabridge.lorawan.frame import (
    JoinAccept,
    JoinAcceptBody,
    JoinRequest,
    RejoinRequest,
    build,
    build_join_accept_body,
    parse_join_accept_body,
)
from lorabridge.lorawan.grammar import MIC_SIZE, MType
from lorabridge.lorawan.session import SAME_GATEWAY_WINDOW
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DevNonce, JoinNonce, MacVersion, NetID
from lorabridge.lorawan.verdict import Verdict

JOIN_REQ_TYPE = 0xFF
"""JoinReqType of a join-request; a rejoin-request has its type there (TS001-1.1 §6.2.3)."""
JOIN_NONCE_MAX = 0xFF_FFFF
NONCE_COUNTERS = frozenset({MacVersion.V1_0_4, MacVersion.V1_1_0})
"""Versions whose DevNonce is a counter (TS001-1.0.4 §6.2.5); before, it is drawn."""
OPT_NEG = 0x80
_MHDR = MType.JOIN_ACCEPT << 5
_JOIN_ID_SIZE = 8


class JoinRecords(Protocol):
    """What is known of earlier joins."""

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        """What the joins under these root keys have used up; None: there was none."""

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        """Whether a join-request with this DevNonce was taken."""


class JoinJudgement(msgspec.Struct, frozen=True):
    """What the nonce of a verified request proves, and the history after it."""

    verdict: Verdict
    detail: str = ""
    history: JoinHistory | None = None
    """None: unchanged, and the request deserves no answer."""


def join_id(device: Device) -> bytes:
    """Eight bytes that change with DevEUI, JoinEUI or a root key, and tell nothing of the keys."""
    mark = device.dev_eui.to_wire() + (device.join_eui or EUI64(0)).to_wire() + b"lorabridge join"
    for key in (device.nwk_key, device.app_key):
        if key is not None:
            mark = PreparedKey(key).cmac(mark)
    return mark[:_JOIN_ID_SIZE]


def network_root_key(device: Device) -> AES128Key | None:
    """The key that signs join-requests: NwkKey under 1.1, AppKey before."""
    return device.nwk_key if device.mac_version.is_1_1 else device.app_key


def request_kind(frame: JoinRequest | RejoinRequest) -> str:
    """How events call it."""
    return f"rejoin_{frame.rejoin_type}" if isinstance(frame, RejoinRequest) else "join_request"


def request_nonce(frame: JoinRequest | RejoinRequest) -> int:
    """DevNonce, or the RJcount that stands for it."""
    return frame.rj_count if isinstance(frame, RejoinRequest) else int(frame.dev_nonce)


def judge_join(
    frame: JoinRequest | RejoinRequest,
    device: Device,
    reception: Reception,
    history: JoinRecords,
    *,
    window_ns: int,
    rj_count0: int | None = None,
) -> JoinJudgement:
    """What a request whose MIC is valid deserves. `rj_count0`: the last one of the session, for rejoins 0 and 2."""
    identity = join_id(device)
    known = history.join_history(identity) or JoinHistory(join_id=identity, dev_eui=device.dev_eui)
    nonce = request_nonce(frame)
    if _is_copy(frame.mic, known, reception, window_ns):
        return JoinJudgement(Verdict.DUPLICATE, "a join-request just taken, heard once more")
    used = _used(frame, device, known, history, rj_count0)
    if used:
        return JoinJudgement(Verdict.JOIN_REPLAY, f"{request_kind(frame)} with nonce {nonce}: {used}")
    if isinstance(frame, JoinRequest) and frame.join_eui != device.join_eui:
        return JoinJudgement(Verdict.JOIN_REFUSED, f"JoinEUI {frame.join_eui} is not the one of the device file")
    noted = msgspec.structs.replace(
        known, last_mic=frame.mic, last_at=reception.received_at, last_gateway=reception.gateway_eui
    )
    if isinstance(frame, JoinRequest):
        if device.mac_version in NONCE_COUNTERS:
            noted = msgspec.structs.replace(noted, last_dev_nonce=nonce)
    elif frame.rejoin_type == 1:
        noted = msgspec.structs.replace(noted, rj_count1=nonce)
    return JoinJudgement(Verdict.JOIN_REQUEST, history=noted)


def _is_copy(mic: bytes, known: JoinHistory, reception: Reception, window_ns: int) -> bool:
    """The request taken last, heard by another antenna or gateway."""
    if mic != known.last_mic:
        return False
    window = SAME_GATEWAY_WINDOW if reception.gateway_eui == known.last_gateway else window_ns
    return abs(reception.received_at - known.last_at) <= window


def _used(
    frame: JoinRequest | RejoinRequest, device: Device, known: JoinHistory, history: JoinRecords, rj_count0: int | None
) -> str:
    """Why the nonce is an old one; empty when it is new."""
    nonce = request_nonce(frame)
    if isinstance(frame, RejoinRequest):
        last = known.rj_count1 if frame.rejoin_type == 1 else rj_count0
        return f"the last RJcount taken is {last}" if last is not None and nonce <= last else ""
    if device.mac_version in NONCE_COUNTERS:
        last = known.last_dev_nonce
        return f"the last DevNonce taken is {last}" if last is not None and nonce <= last else ""
    return "this DevNonce was taken before" if history.nonce_used(known.join_id, nonce) else ""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a join-accept tells the device."""

    net_id: NetID
    dev_addr: DevAddr
    join_nonce: JoinNonce
    rx1_delay: int
    rx1_dr_offset: int
    rx2_data_rate: int
    cf_list: bytes = b""


def derive_keys(device: Device, grant: Grant, nonce: int) -> SessionKeys:
    """The session keys that follow. Raises ValueError for a device without the root keys of its version."""
    root = network_root_key(device)
    if root is None or device.join_eui is None:
        raise ValueError(f"{device.name} has no root key")
    if device.mac_version.is_1_1:
        return derive_session_keys_1_1(root, device.app_key, grant.join_nonce, device.join_eui, DevNonce(nonce))
    return derive_session_keys_1_0(root, grant.join_nonce, grant.net_id, DevNonce(nonce))


def build_join_accept(device: Device, frame: JoinRequest | RejoinRequest, grant: Grant) -> bytes:
    """The PHYPayload of a join-accept (TS001-1.0.4 §6.2.6, TS001-1.1 §6.2.3).

    Under 1.1 OptNeg is set, JSIntKey signs, and a rejoin is answered under JSEncKey.
    Raises ValueError for a device without the root keys of its version.
    """
    root = network_root_key(device)
    if root is None or device.join_eui is None:
        raise ValueError(f"{device.name} has no root key")
    body = _body(device, grant)
    if not device.mac_version.is_1_1:
        key = PreparedKey(root)
        return _sealed(key, body, join_accept_mic(key, body))
    rejoin = isinstance(frame, RejoinRequest)
    kind = frame.rejoin_type if isinstance(frame, RejoinRequest) else JOIN_REQ_TYPE
    js_int_key = PreparedKey(derive_js_int_key(root, device.dev_eui))
    mic = join_accept_mic_1_1(js_int_key, body, kind, device.join_eui, request_nonce(frame))
    return _sealed(PreparedKey(derive_js_enc_key(root, device.dev_eui) if rejoin else root), body, mic)


def _body(device: Device, grant: Grant) -> JoinAcceptBody:
    dl_settings = grant.rx1_dr_offset << 4 | grant.rx2_data_rate | (OPT_NEG if device.mac_version.is_1_1 else 0)
    unsigned = JoinAcceptBody(
        join_nonce=grant.join_nonce,
        net_id=grant.net_id,
        dev_addr=grant.dev_addr,
        dl_settings=dl_settings,
        rx_delay=grant.rx1_delay,
        cf_list=grant.cf_list,
        mic=bytes(MIC_SIZE),
        message=b"",
    )
    return parse_join_accept_body(_MHDR, build_join_accept_body(unsigned))


def _sealed(key: PreparedKey, body: JoinAcceptBody, mic: bytes) -> bytes:
    plain = build_join_accept_body(msgspec.structs.replace(body, mic=mic))
    return build(JoinAccept(_MHDR, encrypt_join_accept(key, plain)))


def first_address(dev_eui: EUI64, bits: int) -> int:
    """Where in a range of 2**bits addresses the search for a free one begins: spread, and the same each time."""
    return int.from_bytes(hashlib.blake2s(dev_eui.to_wire()).digest()[:4], "big") & ((1 << bits) - 1)
