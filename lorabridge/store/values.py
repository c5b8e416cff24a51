"""What goes into the store and comes out of it, how it is configured, and how it fails."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, Literal

import msgspec

from lorabridge.errors import ConfigError, TransientError
from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import QueuedCommand
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.settings import ByteSize, Duration
from lorabridge.store.device_settings import KeyReference

_PAGE, _ROW, _CELL = 4096, 40, 2
"""SQLite's page; what a row has beside its payload; what a page has for each row."""
_ROOM, _LARGEST, _LEAST = _PAGE - 8, _PAGE - 35, 489
"""Of a page: room for rows, the longest row that stays in it, and what at least stays in it of a longer one."""
_TREE = 201, 200
"""The pages that lead to those of the rows, and those that map them."""
CLOCK_IS_SET_NS = 1_760_000_000 * 10**9
"""October 2025: a clock that says less is not set, and how old a record from then is nobody knows."""


def counted_size(payload_size: int) -> int:
    """Bytes that a record counts in the outbox: its part of the pages it lies on (SQLite file format, §1.6).

    Rows are not cut to fill a page: five of 760 bytes are in one, and what they leave is nobody's.
    """
    row, overflow = payload_size + _ROW, 0
    if row > _LARGEST:
        stays = _LEAST + (row - _LEAST) % (_PAGE - 4)
        stays = stays if stays <= _LARGEST else _LEAST
        overflow = -((stays - row) // (_PAGE - 4)) * _PAGE
        row = stays
    return (overflow + _PAGE // max(1, _ROOM // (row + _CELL))) * _TREE[0] // _TREE[1]


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[store]`: where sessions and unsent records survive."""

    path: Annotated[str, msgspec.Meta(description="The database file; its directory is made when it is missing.")] = (
        "/var/lib/lorabridge/lorabridge.db"
    )
    durability: Annotated[
        Literal["power-loss", "process"],
        msgspec.Meta(
            description='"power-loss": a frame is written through to the disk before it is sent on; a power cut loses '
            'nothing. "process": written through every few megabytes only; a crash of the bridge loses nothing, but '
            "after a power cut the last frames are gone and their counters with them, so that they could be replayed."
        ),
    ] = "power-loss"
    outbox_max_bytes: Annotated[
        ByteSize,
        msgspec.Meta(
            description="Most bytes of unsent records; beyond it the least valuable, oldest ones are dropped."
        ),
    ] = ByteSize(512 << 20)
    outbox_max_records: Annotated[int, msgspec.Meta(ge=1, description="Most unsent records, likewise.")] = 2_000_000
    outbox_max_age: Annotated[
        Duration,
        msgspec.Meta(
            description="Unsent records that are older are dropped, whatever their kind; 0s: none is. It trusts the "
            "system clock."
        ),
    ] = Duration(0)
    parked_max_records: Annotated[
        int,
        msgspec.Meta(ge=0, description="Most records kept for inspection that the endpoint refused; oldest go first."),
    ] = 1000
    key_encryption_key: Annotated[
        KeyReference | None,
        msgspec.Meta(
            description="What the session keys of joined devices are encrypted with in the database: 32 or 64 hex "
            "digits in a file or a systemd credential. Left out, a file key-encryption-key is made beside the "
            "database. Without this key every device has to join again.",
            examples=[{"credential": "key-encryption-key"}],
        ),
    ] = None


class SessionChange(msgspec.Struct, frozen=True):
    """A session's new value, to be stored only if nobody changed the session in between."""

    session: Session
    """`session.generation` is `expected_generation` + 1."""
    expected_generation: int
    """The generation that is stored now; -1: the session is new."""


class Dropped(msgspec.Struct, frozen=True):
    """Records that were lost to the bounds of the outbox and of which no event tells yet."""

    kind: EventKind | None
    """None: parked ones."""
    records: int
    since: int
    """When the first of them was dropped, nanoseconds since the Unix epoch."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes true together or not at all."""

    changes: tuple[SessionChange, ...] = ()
    records: tuple[Record, ...] = ()
    heard: tuple[tuple[bytes, FCnt32, bytes], ...] = ()
    """(session_id, fcnt32, mic) for the history of policy `confirm`."""
    joined: tuple[JoinedSession, ...] = ()
    """New joined sessions; a `SessionChange` that makes the `Session` of the same id is in `changes`."""
    ended: tuple[bytes, ...] = ()
    """Ids of sessions that go, counters, keys and history together."""
    joins: tuple[JoinHistory, ...] = ()
    """Join histories as they are now; the nonces are kept beside them."""
    nonces: tuple[tuple[bytes, int], ...] = ()
    """(join_id, DevNonce) used; the same one twice is no error here."""
    queued: tuple[QueuedCommand, ...] = ()
    """Commands that are new in the queue, or have got further."""
    unqueued: tuple[int, ...] = ()
    """Ids of commands that are done with."""
    airtimes: tuple[Airtime, ...] = ()
    """What was sent, for the duty cycle."""
    told: tuple[Dropped, ...] = ()
    """Losses that a record of this batch tells of."""


class StoredRecord(msgspec.Struct, frozen=True):
    """A record of the outbox."""

    id: int
    """Ascending, never used twice while the store is open."""
    kind: EventKind
    dev_eui: EUI64 | None
    payload: bytes
    stored_at: int
    """Nanoseconds since the Unix epoch."""


class StoreState(enum.Enum):
    """What the disk lets the store do."""

    OK = "ok"
    FULL = "full"
    READ_ONLY = "read_only"
    UNAVAILABLE = "unavailable"

    @property
    def hint(self) -> str:
        """What an operator can do about it."""
        return _HINTS[self]


_HINTS = {
    StoreState.OK: "",
    StoreState.FULL: "make room on the disk (df -h), or set a smaller store.outbox_max_bytes; it goes on by itself",
    StoreState.READ_ONLY: "the kernel makes a file system read-only when the card fails: look at dmesg; fsck and a "
    "restart may help, a new card will; it goes on by itself when the disk can be written",
    StoreState.UNAVAILABLE: "somebody else holds the database, or the disk gives errors: look at dmesg and "
    "`lorabridge store check`; it goes on by itself",
}


class StoreTrouble(TransientError):  # noqa: N818  # named by the state, like the verdicts
    """The disk does not let us; nothing of the transaction was stored."""

    state: ClassVar = StoreState.UNAVAILABLE


class StoreFull(StoreTrouble):
    """The disk has no room for the transaction; nothing of it was stored."""

    state: ClassVar = StoreState.FULL


class StoreUnavailable(StoreTrouble):
    """The disk or the database would not be written just now; nothing of the transaction was stored."""


class StoreReadOnly(StoreUnavailable):
    """The file system is read-only now; nothing of the transaction was stored."""

    state: ClassVar = StoreState.READ_ONLY


class StoreConflict(Exception):  # noqa: N818  # named by the state, like the verdicts
    """A session had another generation than expected: two writers, or our bug. Nothing of the batch was stored."""


class StoreDamaged(ConfigError):  # noqa: N818  # named by the state, like the verdicts
    """The database does not hold together, or is gone. The operator decides: counters are at stake."""
