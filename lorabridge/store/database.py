"""The embedded store: sessions, the histories of frames and joins, the queue of downlinks and the outbox in one file.

Nothing outside this folder knows that it is SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self, cast

from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import QueuedCommand
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.session import History, Session
from lorabridge.lorawan.types import FCnt32
from lorabridge.store import joins
from lorabridge.store.connection import connect, translate
from lorabridge.store.files import damaged
from lorabridge.store.key_wrap import KeyKeeper
from lorabridge.store.sessions import was_heard
from lorabridge.store.values import (
    Batch,
    Dropped,
    SessionChange,
    StoreConflict,
    StoreDamaged,
    StoredRecord,
    StoreFull,
    StoreSettings,
    StoreUnavailable,
)
from lorabridge.store.writer import CloseJob, CommitJob, Found, Job, Outcome, ParkJob, ReadJob, RetryJob, Writer

__all__ = [
    "Batch",
    "SessionChange",
    "Store",
    "StoreConflict",
    "StoreDamaged",
    "StoreFull",
    "StoreSettings",
    "StoreUnavailable",
    "StoredRecord",
]

_EMPTY = Batch()
_NEVER_STORED = (EventKind.STATUS, EventKind.BATCH)

DONE_WITHIN_S = 0.4
"""How long an acknowledged record may wait for a commit that takes its deletion along."""


class Store(History):
    """What must survive. All methods belong to the event loop that opened it."""

    def __init__(self, settings: StoreSettings, keeper: KeyKeeper, clock: Callable[[], int]) -> None:
        """Not for callers: `open`."""
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(settings, keeper, clock, self._deliver)
        self._path = Path(settings.path)
        self._reader: sqlite3.Connection
        self._found: Found
        self._sessions: dict[bytes, Session] = {}
        self._joined: dict[bytes, JoinedSession] = {}
        self._done: list[int] = []
        self._done_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        settings: StoreSettings,
        *,
        credentials_dir: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> Self:
        """Open the database and check it; made when this is the first start. `clock`: ns since the Unix epoch.

        Raises ConfigError (locked, permissions, newer schema, not the right key-encryption key), StoreDamaged (never
        recreated silently) and TransientError (the disk refuses).
        """
        store = cls(settings, KeyKeeper(settings, credentials_dir), clock)
        store._found = await asyncio.to_thread(store._writer.open)
        store._sessions, store._joined = store._found.sessions, store._found.joined
        # History is asked for one row at a time while frames are judged: its own connection, on the loop's thread.
        store._reader = connect(store._path)
        store._reader.execute("PRAGMA query_only = 1")
        return store

    def sessions(self) -> dict[bytes, Session]:
        """Every session by its id, as last committed."""
        return dict(self._sessions)

    def joined(self) -> dict[bytes, JoinedSession]:
        """The fixed part of every joined session by its id, as last committed."""
        return dict(self._joined)

    def queue(self) -> list[QueuedCommand]:
        """The downlink queue as it was when the store was opened, ascending."""
        return list(self._found.queue)

    def next_queue_id(self) -> int:
        """As of opening: a `queue_id` above all that were ever used, also by commands that are long done with."""
        return self._found.next_queue_id

    def airtimes(self) -> list[Airtime]:
        """What had been sent in the hour before the last transmission when the store was opened, oldest first."""
        return list(self._found.airtimes)

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        """What a device's joins have used up, None when it never joined; as an operator may have changed it just now.

        Raises StoreUnavailable (retry), StoreDamaged.
        """
        try:
            return joins.join_history(self._reader, join_id)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        except ValueError as error:  # includes msgspec's errors
            raise damaged(self._path, f"the database is damaged: a join history cannot be read ({error})") from None

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        """Whether this DevNonce was committed as used; likewise fresh, with the same errors."""
        try:
            return joins.nonce_used(self._reader, join_id, dev_nonce)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        """Whether exactly this frame was committed to the history (policy `confirm`)."""
        try:
            return was_heard(self._reader, session_id, fcnt32, mic)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    async def commit(self, batch: Batch) -> list[StoredRecord]:
        """Make a batch true as a whole; returns its records, less those dropped at once, with ascending ids.

        Raises StoreConflict, StoreFull or StoreUnavailable (retry), StoreDamaged; then nothing of it was stored.
        """
        if any(record.kind in _NEVER_STORED for record in batch.records):
            raise ValueError("of a status only the newest one means anything, and a batch is made of stored records")
        if batch == _EMPTY:
            return []
        future: asyncio.Future[object] = self._loop.create_future()
        self._put(CommitJob(future, self._take_done(), batch))
        return cast("list[StoredRecord]", await future)

    async def pending(self, after_id: int, limit: int) -> list[StoredRecord]:
        """At most `limit` records with ids above `after_id`, ascending; none that is done or parked."""
        future: asyncio.Future[object] = self._loop.create_future()
        self._put(ReadJob(future, self._take_done(), after_id, limit))
        return cast("list[StoredRecord]", await future)

    def done(self, ids: Iterable[int]) -> None:
        """These records were acknowledged: deleted with the next commit, or within half a second."""
        self._done.extend(ids)
        if self._done and self._done_timer is None and not self._closed:
            self._done_timer = self._loop.call_later(DONE_WITHIN_S, self._flush_done)

    async def park(self, record_id: int, reason: str, report: Record | None = None) -> list[StoredRecord]:
        """Take a record out of the outbox that the endpoint will not have; kept for the operator.

        `report` is stored with it, and returned as `commit` does; nothing happens when there is no such record.
        """
        future: asyncio.Future[object] = self._loop.create_future()
        self._put(ParkJob(future, self._take_done(), record_id, reason=reason, report=report))
        return cast("list[StoredRecord]", await future)

    async def put_back(self) -> list[StoredRecord]:
        """Parked records that an operator wanted tried again since the last time, now in the outbox; as `commit`."""
        future: asyncio.Future[object] = self._loop.create_future()
        self._put(RetryJob(future, self._take_done()))
        return cast("list[StoredRecord]", await future)

    def untold(self) -> list[Dropped]:
        """What the outbox has lost and no record tells of; `Batch.told` settles it."""
        return self._writer.books.untold()

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals for the statistics."""
        writer = self._writer
        return {
            **writer.books.counters(),
            "store_sessions": len(self._sessions),
            "store_commits": writer.commits,
            "store_failures": writer.failures,
            "store_bytes_written": writer.bytes_written,
        }

    async def close(self) -> None:
        """Finish what was begun and let go of the database; may be called twice."""
        if self._closed:
            return
        future: asyncio.Future[object] = self._loop.create_future()
        job = CloseJob(future, self._take_done())
        self._put(job)
        self._closed = True
        self._reader.close()
        await future
        await asyncio.to_thread(self._writer.join)

    def _put(self, job: Job) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self._path}: the store was closed")
        self._writer.put(job)

    def _take_done(self) -> list[int]:
        """The acknowledged ids that wait for a ride."""
        taken, self._done = self._done, []
        return taken

    def _flush_done(self) -> None:
        """Nobody took the acknowledged ids along: send them alone."""
        self._done_timer = None
        if self._done and not self._closed:
            self._writer.put(Job(None, self._take_done()))

    def _deliver(self, outcomes: list[Outcome]) -> None:
        """From the writer's thread: settle futures on the loop's."""
        if outcomes:
            with contextlib.suppress(RuntimeError):  # the loop ended without close(): nobody is left to tell
                self._loop.call_soon_threadsafe(self._settle, outcomes)

    def _settle(self, outcomes: list[Outcome]) -> None:
        """Take over what is durable, whether or not somebody still waits for it, and tell who does."""
        for job, outcome in outcomes:
            failed = isinstance(outcome, BaseException)
            if isinstance(job, CommitJob) and not failed:
                self._take_over(job.batch)
            if job.future is None or job.future.done():
                continue
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _take_over(self, batch: Batch) -> None:
        """What a batch that is durable changes in memory, in the order in which the writer applied it."""
        for session_id in batch.ended:
            self._sessions.pop(session_id, None)
            self._joined.pop(session_id, None)
        self._sessions.update((change.session.session_id, change.session) for change in batch.changes)
        self._joined.update((joined.session_id, joined) for joined in batch.joined)
