"""Records that the endpoint would not have: put aside by the writer, looked at and decided upon by an operator.

An operator's command writes beside a running bridge, in transactions of its own: it deletes parked records, or names
those to be tried again in a table of its own. The rows of the outbox are the bridge's alone; it moves what is named
there when it sees that somebody wrote (docs/decisions/0015).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.types import EUI64
from lorabridge.store import books as totals
from lorabridge.store import outbox
from lorabridge.store.books import KIND_CODES, KINDS, PARKED_CODE, Books
from lorabridge.store.values import StoredRecord

SINCE_SCHEMA = 3
"""The first schema with a table of records to be tried again."""


class ParkedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A parked record without its payload."""

    id: int
    kind: EventKind
    dev_eui: EUI64 | None
    size: int
    """Bytes of the payload."""
    stored_at: int
    parked_at: int
    """Nanoseconds since the Unix epoch."""
    reason: str
    is_to_be_retried: bool
    """The bridge puts it back into the outbox as soon as it runs."""


def park(connection: sqlite3.Connection, books: Books, record_id: int, reason: str, now: int, keep: int) -> bool:
    """Move a record out of the way, keeping the newest `keep` of those; False: it is not there."""
    moved = connection.execute(
        "INSERT INTO parked (id, kind, dev_eui, stored_at, payload, parked_at, reason) "
        "SELECT id, kind, dev_eui, stored_at, payload, ?, ? FROM outbox WHERE id = ?",
        (now, reason, record_id),
    ).rowcount
    if not moved:
        return False
    outbox.delete(connection, books, (record_id,))
    totals.count_parked(connection, books)
    if books.parked > keep:
        gone = connection.execute(
            "DELETE FROM parked WHERE id IN (SELECT id FROM parked ORDER BY parked_at, id LIMIT ?)",
            (books.parked - keep,),
        ).rowcount
        books.parked -= gone
        totals.note_dropped(connection, books, PARKED_CODE, gone, now)
    return True


def put_back(connection: sqlite3.Connection, books: Books, now: int) -> list[StoredRecord]:
    """Move what an operator wants tried again to the end of the outbox, and count what is left."""
    rows = connection.execute(
        "SELECT id, kind, dev_eui, payload FROM parked WHERE id IN (SELECT id FROM retry) ORDER BY id"
    ).fetchall()
    back = [
        Record(KINDS[kind], None if eui is None else EUI64.from_bytes(eui, "big"), payload)
        for _, kind, eui, payload in rows
    ]
    stored = outbox.append(connection, books, back, now)
    connection.execute("DELETE FROM parked WHERE id IN (SELECT id FROM retry)")
    connection.execute("DELETE FROM retry")
    totals.count_parked(connection, books)
    return stored


def list_parked(connection: sqlite3.Connection) -> list[ParkedRecord]:
    """All of them, the first that was parked first."""
    rows = connection.execute(
        "SELECT id, kind, dev_eui, length(payload), stored_at, parked_at, reason, "
        "EXISTS (SELECT 1 FROM retry WHERE retry.id = parked.id) FROM parked ORDER BY parked_at, id"
    )
    return [
        ParkedRecord(
            id=record_id,
            kind=KINDS[kind],
            dev_eui=None if eui is None else EUI64.from_bytes(eui, "big"),
            size=size,
            stored_at=stored_at,
            parked_at=parked_at,
            reason=reason,
            is_to_be_retried=bool(retry),
        )
        for record_id, kind, eui, size, stored_at, parked_at, reason, retry in rows
    ]


def payload_of(connection: sqlite3.Connection, record_id: int) -> bytes | None:
    """The payload of a record that is parked, or waits in the outbox; None when there is none of this id."""
    row = connection.execute(
        "SELECT payload FROM parked WHERE id = ? UNION ALL SELECT payload FROM outbox WHERE id = ?",
        (record_id, record_id),
    ).fetchone()
    return None if row is None else bytes(row[0])


def ask_for_retry(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Name parked records that the bridge is to put back."""
    connection.executemany("INSERT OR IGNORE INTO retry (id) VALUES (?)", [(record_id,) for record_id in ids])


def drop_parked(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete parked records for ever."""
    connection.executemany("DELETE FROM retry WHERE id = ?", [(record_id,) for record_id in ids])
    connection.executemany("DELETE FROM parked WHERE id = ?", [(record_id,) for record_id in ids])


def waiting(connection: sqlite3.Connection) -> dict[EventKind, int]:
    """How many records of each kind wait in the outbox, without reading more than its end; none left out."""
    books = totals.load(connection)
    return {kind: books.records[code] for kind, code in KIND_CODES.items()}
