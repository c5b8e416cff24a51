"""What the outbox holds and what it lost, in numbers that are kept and never counted over again.

The totals of long-known records lie in a table; at the start only the few records above `counted_to` are
counted, however long the outbox is. The table is written when a record that it covers goes, and every few
thousand records: while the link keeps up, and while an outage only adds records, that is next to never.
"""

from __future__ import annotations

import sqlite3
from typing import Self

from lorabridge.lorawan.events import EventKind
from lorabridge.store.values import Dropped, counted_size

KIND_CODES = {
    EventKind.SECURITY: 0,
    EventKind.UPLINK: 1,
    EventKind.UPLINK_COPY: 2,
    EventKind.GATEWAY_STATS: 3,
    EventKind.JOIN: 4,
    EventKind.DOWNLINK_RESULT: 5,
    EventKind.MAC: 6,
    EventKind.RADIO: 7,
    EventKind.OUTBOX: 8,
}
"""How a kind is stored: never changed. STATUS is not: only the newest one means anything; BATCH is made of others."""
KINDS = tuple(KIND_CODES)
PARKED_CODE = -1
"""Parked records in the table of what was dropped; as an index the last place."""
COUNT_AGAIN = 4096
"""Records above `counted_to` after which the table is written."""

_TOTAL = "REPLACE INTO outbox_total (kind, counted_to, records, size, oldest) VALUES (?, ?, ?, ?, ?)"
_DROPPED = "REPLACE INTO dropped (kind, records, told, since) VALUES (?, ?, ?, ?)"


class Books:
    """Totals of the outbox as one transaction leaves them."""

    __slots__ = ("counted_to", "dropped", "is_stale", "next_id", "oldest", "parked", "records", "since", "size", "told")

    def __init__(self) -> None:
        self.next_id = 1
        self.counted_to = 0
        """The table of totals covers the records up to here."""
        self.is_stale = False
        """A record that the table covers is gone."""
        self.records = [0] * len(KINDS)
        self.size = [0] * len(KINDS)
        self.oldest = [0] * len(KINDS)
        """No record of the kind has a smaller id: where the search for the oldest one begins."""
        self.parked = 0
        self.dropped = [0] * (len(KINDS) + 1)
        self.told = [0] * (len(KINDS) + 1)
        self.since = [0] * (len(KINDS) + 1)
        """When the first was dropped that is not told, nanoseconds since the Unix epoch."""

    def copy(self) -> Self:
        """Books for a transaction that may still fail."""
        twin = type(self)()
        twin.next_id, twin.counted_to, twin.parked = self.next_id, self.counted_to, self.parked
        twin.is_stale = self.is_stale
        twin.records, twin.size, twin.oldest = self.records.copy(), self.size.copy(), self.oldest.copy()
        twin.dropped, twin.told, twin.since = self.dropped.copy(), self.told.copy(), self.since.copy()
        return twin

    def came(self, code: int, record_id: int, payload_size: int) -> None:
        """One record more, with an id above all others."""
        if not self.records[code]:
            self.oldest[code] = record_id
        self.records[code] += 1
        self.size[code] += counted_size(payload_size)
        self.next_id = record_id + 1

    def went(self, code: int, record_id: int, payload_size: int) -> None:
        """One record less."""
        self.records[code] -= 1
        self.size[code] -= counted_size(payload_size)
        self.is_stale |= record_id <= self.counted_to

    def untold(self) -> list[Dropped]:
        """What was dropped and stands in no event yet."""
        kinds = (*KINDS, None)
        return [
            Dropped(kind, dropped - told, since)
            for kind, dropped, told, since in zip(kinds, self.dropped, self.told, self.since, strict=True)
            if dropped > told
        ]

    def counters(self) -> dict[str, int]:
        """By the names of the statistics."""
        found = {
            "outbox_records": sum(self.records),
            "outbox_bytes": sum(self.size),
            "outbox_parked": self.parked,
            "outbox_parked_dropped": self.dropped[PARKED_CODE],
        }
        for kind, code in KIND_CODES.items():
            found[f"outbox_records_{kind.value}"] = self.records[code]
            found[f"outbox_dropped_{kind.value}"] = self.dropped[code]
        return found


def load(connection: sqlite3.Connection) -> Books:
    """The books of an outbox, without reading more than its end."""
    books = Books()
    for code, counted_to, records, size, oldest in connection.execute(
        "SELECT kind, counted_to, records, size, oldest FROM outbox_total"
    ):
        books.counted_to = counted_to
        books.records[code], books.size[code], books.oldest[code] = records, size, oldest
    books.next_id = books.counted_to + 1
    for record_id, code, size in connection.execute(
        "SELECT id, kind, length(payload) FROM outbox WHERE id > ? ORDER BY id", (books.counted_to,)
    ):
        books.came(code, record_id, size)
    newest_parked = connection.execute("SELECT ifnull(max(id), 0) FROM parked").fetchone()[0]
    books.next_id = max(books.next_id, newest_parked + 1)
    for code, dropped, told, since in connection.execute("SELECT kind, records, told, since FROM dropped"):
        books.dropped[code], books.told[code], books.since[code] = dropped, told, since
    count_parked(connection, books)
    return books


def save_totals(connection: sqlite3.Connection, books: Books) -> None:
    """Bring the table of totals up to date, when it has to be."""
    if not books.is_stale and books.next_id - 1 - books.counted_to < COUNT_AGAIN:
        return
    books.counted_to, books.is_stale = books.next_id - 1, False
    columns = zip(books.records, books.size, books.oldest, strict=True)
    connection.executemany(_TOTAL, [(code, books.counted_to, *totals) for code, totals in enumerate(columns)])


def count_parked(connection: sqlite3.Connection, books: Books) -> None:
    """There are never many; an operator may have removed some."""
    books.parked = connection.execute("SELECT count(*) FROM parked").fetchone()[0]


def note_dropped(connection: sqlite3.Connection, books: Books, code: int, records: int, now: int) -> None:
    """So many more were dropped."""
    if books.dropped[code] == books.told[code]:
        books.since[code] = now
    books.dropped[code] += records
    _save_dropped(connection, books, code)


def note_told(connection: sqlite3.Connection, books: Books, told: tuple[Dropped, ...], now: int) -> None:
    """An event that is stored in the same transaction tells of these."""
    for one in told:
        code = PARKED_CODE if one.kind is None else KIND_CODES[one.kind]
        books.told[code] += one.records
        books.since[code] = now
        _save_dropped(connection, books, code)


def _save_dropped(connection: sqlite3.Connection, books: Books, code: int) -> None:
    connection.execute(_DROPPED, (code, books.dropped[code], books.told[code], books.since[code]))
