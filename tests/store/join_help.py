"""A device that joined, for the tests of the store."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, MacVersion
from lorabridge.store.database import Batch
from tests.store.store_help import advance, new_session

DEV_EUI = EUI64(0x0004A30B001C0530)
JOIN_ID = b"join-id1"


def keys(seed: int, *, sealed: bool = False) -> SessionKeys:
    """Four keys that are easily found in a file."""
    four = [AES128Key(bytes([seed & 0xFF]) + b"session key %d__" % n) for n in range(4)]
    return SessionKeys(
        f_nwk_s_int_key=four[0],
        s_nwk_s_int_key=four[1],
        nwk_s_enc_key=four[2],
        app_s_key=None if sealed else four[3],
    )


def joined_session(number: int, *, sealed: bool = False) -> JoinedSession:
    return JoinedSession(
        session_id=number.to_bytes(8, "big"),
        dev_eui=DEV_EUI,
        dev_addr=DevAddr((0x26011BDA + number) & 0xFFFF_FFFF),
        mac_version=MacVersion.V1_1_0 if number % 2 else MacVersion.V1_0_4,
        keys=keys(number, sealed=sealed),
        joined_at=1_795_000_000_000_000_000 + number,
    )


def join(number: int, **more: object) -> Batch:
    """What a join commits: the session, its fixed part, the history and the nonce."""
    history = JoinHistory(join_id=JOIN_ID, dev_eui=DEV_EUI, join_nonce=number, last_dev_nonce=number)
    batch = Batch(
        changes=(advance(new_session(number), 0),),
        joined=(joined_session(number),),
        joins=(history,),
        nonces=((JOIN_ID, number),),
    )
    return msgspec.structs.replace(batch, **more)
