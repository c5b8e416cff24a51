"""Keys of a multicast group (TS005-2.0.0 §4): from the root key of a device to the session keys of the group."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.crypto import BLOCK, PreparedKey
from lorabridge.lorawan.types import AES128Key, DevAddr


class MulticastKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What the frames of a group are encrypted and signed with."""

    mc_app_s_key: AES128Key
    mc_nwk_s_key: AES128Key
    """Signs as NwkSKey of 1.0 does, whatever the version of the devices."""


def derive_mc_root_key_1_0(gen_app_key: AES128Key) -> AES128Key:
    """McRootKey of a device of 1.0."""
    return _derive(gen_app_key, 0x00)


def derive_mc_root_key_1_1(app_key: AES128Key) -> AES128Key:
    """McRootKey of a device of 1.1."""
    return _derive(app_key, 0x20)


def derive_mc_ke_key(mc_root_key: AES128Key) -> AES128Key:
    """McKEKey, under which the group's key travels to a device."""
    return _derive(mc_root_key, 0x00)


def encrypt_mc_key(mc_ke_key: AES128Key, mc_key: AES128Key) -> bytes:
    """McKey_encrypted: the server *decrypts* to send, so that a device needs encryption only."""
    return PreparedKey(mc_ke_key).decrypt_blocks(mc_key.reveal())


def decrypt_mc_key(mc_ke_key: AES128Key, encrypted: bytes) -> AES128Key:
    """McKey as a device reads it. Raises ValueError for other than 16 bytes."""
    if len(encrypted) != BLOCK:
        raise ValueError(f"McKey_encrypted is {BLOCK} bytes, not {len(encrypted)}")
    return AES128Key(PreparedKey(mc_ke_key).encrypt_blocks(encrypted))


def derive_multicast_keys(mc_key: AES128Key, mc_addr: DevAddr) -> MulticastKeys:
    """McAppSKey and McNwkSKey of the group."""
    return MulticastKeys(
        mc_app_s_key=_derive(mc_key, 0x01, mc_addr.to_wire()),
        mc_nwk_s_key=_derive(mc_key, 0x02, mc_addr.to_wire()),
    )


def _derive(key: AES128Key, kind: int, tail: bytes = b"") -> AES128Key:
    """aes128_encrypt(key, kind | tail | zeros)."""
    return AES128Key(PreparedKey(key).encrypt_blocks((bytes([kind]) + tail).ljust(BLOCK, b"\0")))
