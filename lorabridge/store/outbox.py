"""Unsent records as rows: appended, read in order, deleted when acknowledged, dropped in excess.

Everything here runs inside a transaction of the writer and keeps the books (`Books`) of what that
transaction makes true; the writer takes the new books over only when the transaction is committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.types import EUI64
from lorabridge.store.books import KIND_CODES, KINDS, Books, note_dropped
from lorabridge.store.values import CLOCK_IS_SET_NS, StoredRecord, StoreSettings, counted_size

DROP_ORDER = (
    EventKind.GATEWAY_STATS,
    EventKind.UPLINK_COPY,
    EventKind.MAC,
    EventKind.UPLINK,
    EventKind.DOWNLINK_RESULT,
    EventKind.RADIO,
    EventKind.JOIN,
    EventKind.SECURITY,
    EventKind.OUTBOX,
)
"""Least valuable first. What tells of the loss goes last; there is never more than one of it for each loss told."""
_AGED_AT_A_TIME = 1000
"""Records that one transaction drops for their age: the rest goes with the next ones."""

_APPEND = "INSERT INTO outbox (id, kind, dev_eui, stored_at, payload) VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM outbox WHERE id BETWEEN ? AND ? RETURNING id, kind, length(payload)"


def append(connection: sqlite3.Connection, books: Books, records: Sequence[Record], now: int) -> list[StoredRecord]:
    """Add records in order; returns them with their ids."""
    stored, rows = [], []
    for record_id, record in enumerate(records, books.next_id):
        code, dev_eui, payload = KIND_CODES[record.kind], record.dev_eui, record.payload
        rows.append((record_id, code, None if dev_eui is None else dev_eui.to_bytes(8, "big"), now, payload))
        stored.append(StoredRecord(record_id, record.kind, dev_eui, payload, now))
        books.came(code, record_id, len(payload))
    connection.executemany(_APPEND, rows)
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
                found.append(StoredRecord(row[0], KINDS[row[1]], dev_eui, row[3], row[4]))
    finally:
        rows.close()  # an unfinished read would keep the write-ahead log from being emptied
    return found


def delete(connection: sqlite3.Connection, books: Books, ids: Iterable[int]) -> None:
    """Remove records; ids that are not there cost nothing."""
    for first, last in _ranges(sorted(ids)):
        for record_id, code, size in connection.execute(_DELETE, (first, last)):
            books.went(code, record_id, size)


def drop_excess(connection: sqlite3.Connection, books: Books, settings: StoreSettings, now: int) -> set[int]:
    """Bring the outbox within its bounds: the oldest of the least valuable kind goes first. Returns their ids."""
    dropped = _drop_aged(connection, books, settings, now)
    for code in map(KIND_CODES.__getitem__, DROP_ORDER):
        records = sum(books.records) - settings.outbox_max_records
        size = sum(books.size) - settings.outbox_max_bytes
        if records <= 0 and size <= 0:
            break
        if books.records[code]:
            dropped |= _drop_oldest(connection, books, code, (records, size), now)
    return dropped


def _drop_aged(connection: sqlite3.Connection, books: Books, settings: StoreSettings, now: int) -> set[int]:
    """Drop what is older than it may be, of whatever kind but the one that tells of losses."""
    before = now - int(settings.outbox_max_age * 1e9)
    if not settings.outbox_max_age or before < CLOCK_IS_SET_NS:
        return set()
    aged: list[tuple[int, int, int]] = []
    for record_id, code, size, stored_at in connection.execute(
        "SELECT id, kind, length(payload), stored_at FROM outbox ORDER BY id LIMIT ?", (_AGED_AT_A_TIME,)
    ):
        if stored_at >= before:  # nearly always the first
            break
        if stored_at >= CLOCK_IS_SET_NS and code != KIND_CODES[EventKind.OUTBOX]:
            aged.append((record_id, code, size))
    return _drop(connection, books, aged, now)


def _drop_oldest(
    connection: sqlite3.Connection, books: Books, code: int, excess: tuple[int, int], now: int
) -> set[int]:
    """Drop the oldest records of one kind until `excess` (records, bytes) is made good, or none is left."""
    records, size = excess
    found: list[tuple[int, int, int]] = []
    rows = connection.execute(
        "SELECT id, length(payload) FROM outbox WHERE id >= ? AND kind = ? ORDER BY id", (books.oldest[code], code)
    )
    try:
        while (records > 0 or size > 0) and (row := rows.fetchone()) is not None:
            found.append((row[0], code, row[1]))
            records -= 1
            size -= counted_size(row[1])
    finally:
        rows.close()
    if found:
        books.oldest[code] = found[-1][0] + 1
    return _drop(connection, books, found, now)


def _drop(connection: sqlite3.Connection, books: Books, rows: Sequence[tuple[int, int, int]], now: int) -> set[int]:
    """Delete rows (id, code, size of the payload) and count them as lost; returns their ids."""
    # Rows of other kinds lie between: one by one, never as a range.
    connection.executemany("DELETE FROM outbox WHERE id = ?", [(record_id,) for record_id, _, _ in rows])
    for record_id, code, size in rows:
        books.went(code, record_id, size)
    for code in sorted({code for _, code, _ in rows}):
        note_dropped(connection, books, code, sum(code == other for _, other, _ in rows), now)
    return {record_id for record_id, _, _ in rows}


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
