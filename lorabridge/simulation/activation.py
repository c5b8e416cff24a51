"""The joining side of an end-device: requests, and the join-accept opened by the specification (§6.2)."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.crypto import (
    PreparedKey,
    decrypt_join_accept,
    derive_js_enc_key,
    derive_js_int_key,
    derive_session_keys_1_0,
    derive_session_keys_1_1,
    join_accept_mic,
    join_accept_mic_1_1,
    join_mic,
    mic_equal,
)
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import JoinAccept, JoinAcceptBody, JoinRequest, RejoinRequest, build
from lorabridge.lorawan.grammar import MIC_SIZE, MType
from lorabridge.lorawan.types import EUI64, AES128Key, DevNonce, MacVersion, NetID
from lorabridge.simulation.device_session import DeviceSession, Flaw

JOIN_REQ_TYPE = 0xFF
"""JoinReqType of a join-request (TS001-1.1 §6.2.3)."""
_NONCE_COUNTS = frozenset({MacVersion.V1_0_4, MacVersion.V1_1_0})
"""Versions whose DevNonce is a counter (TS001-1.0.4 §6.2.5)."""


class NoRootKeyError(RuntimeError):
    """The device cannot join: it has no root key."""


class Pending(msgspec.Struct, frozen=True):
    """A request that waits for its join-accept."""

    join_req_type: int
    """JOIN_REQ_TYPE, or the type of the rejoin-request."""
    nonce: int
    """DevNonce, or the RJcount that stands for it."""


class Joiner:
    """Root keys and nonces of a device: what survives its sessions."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._join_nonce = -1
        self._dev_nonce = 0
        self._rj_count1 = 0

    @property
    def can_join(self) -> bool:
        """Whether there is a root key."""
        return self._root() is not None

    def request(self, drawn: int) -> tuple[bytes, Pending]:
        """A join-request under the next DevNonce; `drawn` is the random one of the versions that draw it."""
        device = self._device
        counts = device.mac_version in _NONCE_COUNTS
        nonce = self._dev_nonce & 0xFFFF if counts else drawn
        self._dev_nonce += 1
        unsigned = JoinRequest(0, device.join_eui or EUI64(0), device.dev_eui, DevNonce(nonce), bytes(MIC_SIZE))
        return _signed(build(unsigned), self._needed_root()), Pending(JOIN_REQ_TYPE, nonce)

    def rejoin(self, rejoin_type: int, net_id: NetID, session: DeviceSession | None) -> tuple[bytes, Pending]:
        """A rejoin-request (TS001-1.1 §6.2.4): types 0 and 2 belong to a session, type 1 to the root key."""
        device, root = self._device, self._needed_root()
        if rejoin_type == 1:
            count, key = self._rj_count1, derive_js_int_key(root, device.dev_eui)
            self._rj_count1 += 1
        elif session is not None:
            count, key = session.rj_count0, session.keys.s_nwk_s_int_key
            session.rj_count0 += 1
        else:
            raise NoRootKeyError(f"{device.name} has no session to rejoin from")
        unsigned = RejoinRequest(
            mhdr=MType.REJOIN_REQUEST << 5,
            rejoin_type=rejoin_type,
            net_id=None if rejoin_type == 1 else net_id,
            join_eui=device.join_eui or EUI64(0) if rejoin_type == 1 else None,
            dev_eui=device.dev_eui,
            rj_count=count,
            mic=bytes(MIC_SIZE),
        )
        return _signed(build(unsigned), key), Pending(rejoin_type, count)

    def open(self, frame: JoinAccept, pending: Pending) -> tuple[DeviceSession, JoinAcceptBody] | Flaw:
        """The session that a join-accept brings, or what is wrong with it."""
        device, root = self._device, self._needed_root()
        is_rejoin = pending.join_req_type != JOIN_REQ_TYPE
        key = PreparedKey(derive_js_enc_key(root, device.dev_eui) if is_rejoin else root)
        body = decrypt_join_accept(key, frame)
        # A network of 1.0 leaves OptNeg out, and a device of 1.1 then speaks 1.0 under its NwkKey (§6.1.2.3).
        speaks_1_1 = device.mac_version.is_1_1 and (body.opt_neg or is_rejoin)
        if not mic_equal(self._mic(body, pending, speaks_1_1=speaks_1_1), body.mic):
            return Flaw.BAD_JOIN_ACCEPT
        if body.join_nonce <= self._join_nonce:
            return Flaw.JOIN_NONCE
        self._join_nonce = body.join_nonce
        nonce = DevNonce(pending.nonce)
        if speaks_1_1:
            join_eui = device.join_eui or EUI64(0)
            keys = derive_session_keys_1_1(root, device.app_key, body.join_nonce, join_eui, nonce)
        else:
            keys = derive_session_keys_1_0(root, body.join_nonce, body.net_id, nonce)
        return DeviceSession(body.dev_addr, keys, is_1_1=speaks_1_1), body

    def _mic(self, body: JoinAcceptBody, pending: Pending, *, speaks_1_1: bool) -> bytes:
        root = self._needed_root()
        if not speaks_1_1:
            return join_accept_mic(PreparedKey(root), body)
        js_int_key = PreparedKey(derive_js_int_key(root, self._device.dev_eui))
        join_eui = self._device.join_eui or EUI64(0)
        return join_accept_mic_1_1(js_int_key, body, pending.join_req_type, join_eui, pending.nonce)

    def _root(self) -> AES128Key | None:
        return self._device.nwk_key if self._device.mac_version.is_1_1 else self._device.app_key

    def _needed_root(self) -> AES128Key:
        root = self._root()
        if root is None:
            raise NoRootKeyError(f"{self._device.name} has no root key")
        return root


def _signed(phy_payload: bytes, key: AES128Key) -> bytes:
    message = phy_payload[:-MIC_SIZE]
    return message + join_mic(PreparedKey(key), message)
