"""A session value, the 32-bit frame counter, and what a counter proves."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.types import EUI64, FCnt32


class ResetTrack(msgspec.Struct, frozen=True):
    """A device whose counter seems to have restarted: how far the new count has got."""

    last_fcnt32: FCnt32
    consecutive: int


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What must survive of a session. `session_id` names its address and keys without revealing them."""

    session_id: bytes
    dev_eui: EUI64
    generation: int = 0
    """Counts the changes: the store's compare-and-set."""
    fcnt_up: FCnt32 | None = None
    """The last accepted uplink counter."""
    last_mic: bytes = b""
    last_at: int = 0
    """When it was received, nanoseconds since the Unix epoch."""
    last_gateway: EUI64 = EUI64(0)
    last_tmst: int | None = None
    repeats: int = 0
    """Retransmissions heard of it."""
    first_mics: bytes = b""
    """MICs of the first counters of this count, four bytes each, zero where unknown."""
    recent: bytes = b""
    """The last accepted frames, newest last: counter (4 bytes, little endian) and MIC (4 bytes) each."""
    reset: ResetTrack | None = None
    resets: int = 0
    fcnt_down: FCnt32 = FCnt32(0)
    """Next FCntDown (1.0) or NFCntDown (1.1)."""
    a_fcnt_down: FCnt32 = FCnt32(0)
    """Next AFCntDown (1.1)."""
    conf_fcnt_down: int = 0
    """FCnt of the last confirmed downlink, 16 bits: ConfFCnt of the next acknowledging uplink (1.1)."""
