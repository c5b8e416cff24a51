"""The other end of a join, by the primitives alone: what a device asks, and what it makes of the answer."""

from __future__ import annotations

from typing import Any

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
)
from lorabridge.lorawan.decision import Answering, Network
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.frame import JoinAccept, JoinAcceptBody, parse
from lorabridge.lorawan.types import EUI64, AES128Key, DevNonce, NetID
from tests.lorawan.builders import device, device_1_1, key

APP_KEY, NWK_KEY = key(40), key(41)
JOIN_EUI = EUI64(0x70B3_D57E_D000_0000)
NET_ID = NetID(0x00_0013)
OTAA: dict[str, Any] = {"activation": Activation.OTAA, "dev_addr": None, "session_keys": None, "join_eui": JOIN_EUI}
NETWORK = Network(net_ids=(NET_ID,), answering=Answering(net_id=NET_ID, address_range=(0x2601_1000, 20)))


def joiner(**fields: Any) -> Device:
    """An OTAA device of 1.0.4 in Europe."""
    return device(**(OTAA | {"app_key": APP_KEY, "region": "EU868"} | fields))


def joiner_1_1(**fields: Any) -> Device:
    """An OTAA device of 1.1."""
    return device_1_1(**(OTAA | {"app_key": APP_KEY, "nwk_key": NWK_KEY} | fields))


def root_of(joiner: Device) -> AES128Key:
    """What signs its join-requests."""
    root = joiner.nwk_key if joiner.mac_version.is_1_1 else joiner.app_key
    assert root is not None
    return root


def join_request(joiner: Device, nonce: int, *, root: AES128Key | None = None, join_eui: EUI64 = JOIN_EUI) -> bytes:
    """A join-request under a DevNonce."""
    message = b"\x00" + join_eui.to_wire() + joiner.dev_eui.to_wire() + nonce.to_bytes(2, "little")
    return message + join_mic(PreparedKey(root or root_of(joiner)), message)


def rejoin_request(joiner: Device, rejoin_type: int, count: int, signer: AES128Key) -> bytes:
    """A rejoin-request."""
    network = JOIN_EUI.to_wire() if rejoin_type == 1 else NET_ID.to_wire()
    message = bytes([0xC0, rejoin_type]) + network + joiner.dev_eui.to_wire() + count.to_bytes(2, "little")
    return message + join_mic(PreparedKey(signer), message)


def open_accept(joiner: Device, phy_payload: bytes, nonce: int, kind: int = 0xFF) -> JoinAcceptBody:
    """The plaintext of a join-accept, its MIC checked; `kind`: JoinReqType."""
    frame = parse(phy_payload)
    assert isinstance(frame, JoinAccept)
    root = root_of(joiner)
    if not joiner.mac_version.is_1_1:
        body = decrypt_join_accept(PreparedKey(root), frame)
        assert join_accept_mic(PreparedKey(root), body) == body.mic
        return body
    opener = root if kind == 0xFF else derive_js_enc_key(root, joiner.dev_eui)
    body = decrypt_join_accept(PreparedKey(opener), frame)
    signer = PreparedKey(derive_js_int_key(root, joiner.dev_eui))
    assert join_accept_mic_1_1(signer, body, kind, JOIN_EUI, nonce) == body.mic
    assert body.opt_neg
    return body


def activated(joiner: Device, body: JoinAcceptBody, nonce: int) -> Device:
    """The device as it is once it took the accept over: like one that was activated by hand."""
    if joiner.mac_version.is_1_1:
        keys = derive_session_keys_1_1(root_of(joiner), joiner.app_key, body.join_nonce, JOIN_EUI, DevNonce(nonce))
    else:
        keys = derive_session_keys_1_0(root_of(joiner), body.join_nonce, body.net_id, DevNonce(nonce))
    return msgspec.structs.replace(
        joiner, activation=Activation.ABP, dev_addr=body.dev_addr, session_keys=keys, join_eui=None
    )
