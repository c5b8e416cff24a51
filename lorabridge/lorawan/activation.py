"""What a join leaves behind: the session's keys and address, and what must never be used again."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.types import EUI64, DevAddr, MacVersion


class JoinedSession(msgspec.Struct, frozen=True, kw_only=True):
    """The fixed part of a session that was joined; its counters are in the `Session` of the same id.

    A device has at most two: the one in use, and a newer one that the device has not used yet.
    """

    session_id: bytes
    """As of `session.session_id_of`: from address and network keys."""
    dev_eui: EUI64
    dev_addr: DevAddr
    mac_version: MacVersion
    keys: SessionKeys
    joined_at: int
    """Nanoseconds since the Unix epoch; the newer of two sessions has the greater one."""


class JoinHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What a device's joins have used up. `join_id` changes with the device's root keys, and the history with it."""

    join_id: bytes
    """Eight bytes from DevEUI, JoinEUI and the root keys, which they do not reveal."""
    dev_eui: EUI64
    join_nonce: int = 0
    """The last JoinNonce that was given; the next one is greater."""
    last_dev_nonce: int | None = None
    """The highest DevNonce taken (versions that count)."""
    rj_count1: int | None = None
    """The highest RJcount1 taken."""
    last_mic: bytes = b""
    """MIC of the last request that was taken, and when and where: what tells a copy from a replay."""
    last_at: int = 0
    last_gateway: EUI64 = EUI64(0)
