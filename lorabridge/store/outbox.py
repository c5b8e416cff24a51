"""Unsent records as rows: appended, read in order, deleted when acknowledged, parked when refused, dropped in excess.

Everything here runs inside a transaction of the writer and keeps the books (`Books`) of what that
transaction makes true; the writer takes the new books over only when the transaction is committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.types import EUI64
from lorabridge.store.values import RECORD_OVERHEAD, StoredRecord, StoreSettings

KIND_CODES = {
    EventKind.SECURITY: 0,
    EventKind.UPLINK: 1,
    EventKind.UPLINK_COPY: 2,
    EventKind.GATEWAY_STATS: 3,
    EventKind.JOIN: 4,
    EventKind.DOWNLINK_RESULT: 5,
    EventKind.MAC: 6,
    EventKind.RADIO: 7,
}
"""How a kind is stored: never changed. STATUS is not stored: only the newest one means anything."""
_KINDS = tuple(KIND_CODES)
DROP_ORDER = (
    EventKind.GATEWAY_STATS,
    EventKind.UPLINK_COPY,
    EventKind.MAC,
    EventKind.UPLINK,
    EventKind.DOWNLINK_RESULT,
    EventKind.RADIO,
    EventKind.JOIN,
    EventKind.SECURITY,
)
"""Least valuable first."""

_APPEND = "INSERT INTO outbox (id, kind, dev_eui, stored_at, payload) VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM outbox WHERE id BETWEEN ? AND ? RETURNING kind, length(payload)"
_DROPPED = (
    "INSERT INTO dropped (kind, records) VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET records = excluded.records"
)


class Books:
    """Totals of the outbox, kept as rows come and go so that nothing is ever counted over again."""

    __slots__ = ("dropped", "next_id", "oldest", "parked", "parked_dropped", "records", "size")

    def __init__(self) -> None:
        self.next_id = 1
        self.records = [0] * len(_KINDS)
        self.size = [0] * len(_KINDS)
        self.dropped = [0] * len(_KINDS)
        self.oldest = [0] * len(_KINDS)
        """No record of the kind has a smaller id: where the search for the oldest one begins."""
        self.parked = 0
        self.parked_dropped = 0

    def copy(self) -> Self:
        """Books for a transaction that may still fail."""
        twin = type(self)()
        twin.next_id, twin.parked, twin.parked_dropped = self.next_id, self.parked, self.parked_dropped
        twin.records, twin.size = self.records.copy(), self.size.copy()
        twin.dropped, twin.oldest = self.dropped.copy(), self.oldest.copy()
        return twin

    def add(self, code: int, payload_size: int, sign: int = 1) -> None:
        """One record of a kind came (+1) or went (-1)."""
        self.records[code] += sign
        self.size[code] += sign * (payload_size + RECORD_OVERHEAD)

    def counters(self) -> dict[str, int]:
        """By the names of the statistics."""
        found = {
            "outbox_records": sum(self.records),
            "outbox_bytes": sum(self.size),
            "outbox_parked": self.parked,
            "outbox_parked_dropped": self.parked_dropped,
        }
        for kind, code in KIND_CODES.items():
            found[f"outbox_records_{kind.value}"] = self.records[code]
            found[f"outbox_dropped_{kind.value}"] = self.dropped[code]
        return found


def load_books(connection: sqlite3.Connection) -> Books:
    """Count what is there, once."""
    books = Books()
    newest = connection.execute(
        "SELECT max(ifnull((SELECT max(id) FROM outbox), 0), ifnull((SELECT max(id) FROM parked), 0))"
    )
    books.next_id = newest.fetchone()[0] + 1
    # One pass and no GROUP BY: that would sort every payload in memory.
    sums = ", ".join(f"total(kind = {code}), total((kind = {code}) * length(payload))" for code in KIND_CODES.values())
    counted = [int(value) for value in connection.execute(f"SELECT {sums} FROM outbox").fetchone()]  # noqa: S608  # codes
    books.records = counted[0::2]
    books.size = [size + records * RECORD_OVERHEAD for records, size in zip(counted[0::2], counted[1::2], strict=True)]
    for code, records in connection.execute("SELECT kind, records FROM dropped"):
        if code == _PARKED_CODE:
            books.parked_dropped = records
        else:
            books.dropped[code] = records
    books.parked = connection.execute("SELECT count(*) FROM parked").fetchone()[0]
    return books


_PARKED_CODE = -1
"""The row of `dropped` that counts parked records."""


def append(connection: sqlite3.Connection, books: Books, records: Sequence[Record], now: int) -> list[StoredRecord]:
    """Add records in order; returns them with their ids."""
    stored, rows = [], []
    for record_id, record in enumerate(records, books.next_id):
        code, dev_eui, payload = KIND_CODES[record.kind], record.dev_eui, record.payload
        rows.append((record_id, code, None if dev_eui is None else dev_eui.to_bytes(8, "big"), now, payload))
        stored.append(StoredRecord(record_id, record.kind, dev_eui, payload, now))
        books.add(code, len(payload))
    connection.executemany(_APPEND, rows)
    books.next_id += len(rows)
    return stored


def read(connection: sqlite3.Connection, after_id: int, limit: int, leave_out: set[int]) -> list[StoredRecord]:
    """Up to `limit` records with ids above `after_id`, ascending, without those of `leave_out`."""
    found: list[StoredRecord] = []
    rows = connection.execute(
        "SELECT id, kind, dev_eui, payload, stored_at FROM outbox WHERE id > ? ORDER BY id", (after_id,)
    )
    try:
        while len(found) < limit and (row := rows.fetchone()) is not None:
            if row[0] not in leave_out:
                dev_eui = None if row[2] is None else EUI64.from_bytes(row[2], "big")
                found.append(StoredRecord(row[0], _KINDS[row[1]], dev_eui, row[3], row[4]))
    finally:
        rows.close()  # an unfinished read would keep the write-ahead log from being emptied
    return found


def delete(connection: sqlite3.Connection, books: Books, ids: Iterable[int]) -> None:
    """Remove records; ids that are not there cost nothing."""
    for first, last in _ranges(sorted(ids)):
        for code, size in connection.execute(_DELETE, (first, last)):
            books.add(code, size, -1)


def park(connection: sqlite3.Connection, books: Books, record_id: int, reason: str, now: int, keep: int) -> None:
    """Move a record out of the way, keeping the newest `keep` of those; an id that is not there costs nothing."""
    moved = connection.execute(
        "INSERT INTO parked (id, kind, dev_eui, stored_at, payload, parked_at, reason) "
        "SELECT id, kind, dev_eui, stored_at, payload, ?, ? FROM outbox WHERE id = ?",
        (now, reason, record_id),
    ).rowcount
    if not moved:
        return
    delete(connection, books, (record_id,))
    books.parked += 1
    if books.parked > keep:
        gone = connection.execute(
            "DELETE FROM parked WHERE id IN (SELECT id FROM parked ORDER BY parked_at, id LIMIT ?)",
            (books.parked - keep,),
        ).rowcount
        books.parked -= gone
        books.parked_dropped += gone
        connection.execute(_DROPPED, (_PARKED_CODE, books.parked_dropped))


def drop_excess(connection: sqlite3.Connection, books: Books, settings: StoreSettings) -> set[int]:
    """Bring the outbox within its bounds: the oldest of the least valuable kind goes first. Returns their ids."""
    dropped: set[int] = set()
    for code in map(KIND_CODES.__getitem__, DROP_ORDER):
        records = sum(books.records) - settings.outbox_max_records
        size = sum(books.size) - settings.outbox_max_bytes
        if records <= 0 and size <= 0:
            break
        if books.records[code]:
            dropped |= _drop_oldest(connection, books, code, records, size)
    return dropped


def _drop_oldest(connection: sqlite3.Connection, books: Books, code: int, records: int, size: int) -> set[int]:
    """Drop the oldest records of one kind until `records` and `size` are made good, or none is left."""
    ids: list[int] = []
    rows = connection.execute(
        "SELECT id, length(payload) FROM outbox WHERE id >= ? AND kind = ? ORDER BY id", (books.oldest[code], code)
    )
    try:
        while (records > 0 or size > 0) and (row := rows.fetchone()) is not None:
            ids.append(row[0])
            books.add(code, row[1], -1)
            records -= 1
            size -= row[1] + RECORD_OVERHEAD
    finally:
        rows.close()
    # Rows of other kinds lie between: one by one, never as a range.
    connection.executemany("DELETE FROM outbox WHERE id = ?", [(record_id,) for record_id in ids])
    if ids:
        books.oldest[code] = ids[-1] + 1
        books.dropped[code] += len(ids)
        connection.execute(_DROPPED, (code, books.dropped[code]))
    return set(ids)


def _ranges(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending ids as (first, last) runs: acknowledgements come nearly in order, so there are few."""
    first = last = None
    for record_id in ids:
        if first is None or last is None:
            first = last = record_id
        elif record_id <= last + 1:
            last = record_id
        else:
            yield first, last
            first = last = record_id
    if first is not None and last is not None:
        yield first, last
