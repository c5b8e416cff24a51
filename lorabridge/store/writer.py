"""The one thread that touches the database, and the queue before it.

Natural batching: whatever waits when a transaction ends goes into the next one together, so that one
write-through serves many frames when the disk is slow, and nobody waits for company when it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import resource
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lorabridge.lorawan.activation import JoinedSession
from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import QueuedCommand
from lorabridge.lorawan.events import Record
from lorabridge.lorawan.session import Session
from lorabridge.store import books as totals
from lorabridge.store import downlinks, joins, outbox, parked, sessions
from lorabridge.store.books import Books
from lorabridge.store.connection import open_database, translate
from lorabridge.store.files import Lock, damaged, prepare_folder
from lorabridge.store.key_wrap import KeyKeeper
from lorabridge.store.values import Batch, StoreConflict, StoredRecord, StoreFull, StoreSettings

LEFT_FREE = 8 << 20
"""Bytes of the file system that no new record takes: as much as SQLite's log and a checkpoint may need at a time."""
_FREE_BYTES = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
_VACUUM_EVERY_S = 1.0
_VACUUM_PAGES = 256
_BLOCK = 512
"""Bytes in which the kernel accounts for writes (getrusage(2))."""
_VACUUM_MIN_FREE = 1024
"""Free pages (4 MiB) that a file may keep for the next outage."""


class Job:
    """Something for the writer to do, and the future that hears how it went."""

    __slots__ = ("done_ids", "future")

    def __init__(self, future: asyncio.Future[object] | None, done_ids: list[int]) -> None:
        self.future = future
        self.done_ids = done_ids
        """Acknowledged records that ride along."""


class CommitJob(Job):
    """Store a batch."""

    __slots__ = ("batch",)

    def __init__(self, future: asyncio.Future[object], done_ids: list[int], batch: Batch) -> None:
        super().__init__(future, done_ids)
        self.batch = batch


class ParkJob(Job):
    """Move a record out of the way, and store the one that says so."""

    __slots__ = ("reason", "record_id", "report")

    def __init__(
        self,
        future: asyncio.Future[object],
        done_ids: list[int],
        record_id: int,
        *,
        reason: str,
        report: Record | None,
    ) -> None:
        super().__init__(future, done_ids)
        self.record_id = record_id
        self.reason = reason
        self.report = report


class RetryJob(Job):
    """Put back what an operator wants tried again."""

    __slots__ = ()


class ReadJob(Job):
    """Read records."""

    __slots__ = ("after_id", "limit")

    def __init__(self, future: asyncio.Future[object], done_ids: list[int], after_id: int, limit: int) -> None:
        super().__init__(future, done_ids)
        self.after_id = after_id
        self.limit = limit


class CloseJob(Job):
    """End the thread."""

    __slots__ = ()


WriteJob = CommitJob | ParkJob | RetryJob
"""What needs a transaction."""
Outcome = tuple[Job, object]
"""A job and its result, or the exception it ends with."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the database held when it was opened."""

    sessions: dict[bytes, Session]
    joined: dict[bytes, JoinedSession]
    queue: list[QueuedCommand]
    next_queue_id: int
    airtimes: list[Airtime]


class Writer:
    """Runs jobs on its own thread; outcomes go to `deliver`, which is called on that thread."""

    def __init__(
        self,
        settings: StoreSettings,
        keeper: KeyKeeper,
        clock: Callable[[], int],
        deliver: Callable[[list[Outcome]], None],
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._path = Path(settings.path)
        self._clock = clock
        self._deliver = deliver
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._undeleted: set[int] = set()
        self._vacuumed_at = 0.0
        self._seen_version = -1
        self._connection: sqlite3.Connection
        self._lock: Lock
        self._thread: threading.Thread | None = None
        self.books = Books()
        """As of the last commit; replaced, never changed."""
        self.commits = 0
        self.failures = 0
        self.bytes_written = 0
        """To the disk, by the account of the kernel; 0 where it keeps none."""

    def open(self) -> Found:
        """Lock, open and check the database, and start the thread. Blocks. Raises ConfigError, TransientError."""
        prepare_folder(self._path)
        self._lock = Lock.take(self._path)
        try:
            self._connection = open_database(self._path, self._settings.durability)
            try:
                found = self._load()
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        # A daemon thread: an interpreter that ends without close() must not wait for it; transactions are atomic.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()
        return found

    def _load(self) -> Found:
        """What memory holds of the database."""
        connection, reading = self._connection, "a session"
        try:
            self.books = totals.load(connection)
            found_sessions = sessions.load_sessions(connection)
            joined = joins.load_joined(connection, self._keeper, self._path)
            reading = "a queued command"
            return Found(
                sessions=found_sessions,
                joined=joined,
                queue=downlinks.load_queue(connection),
                next_queue_id=downlinks.next_queue_id(connection),
                airtimes=downlinks.load_airtimes(connection),
            )
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        except ValueError as error:  # includes msgspec's errors
            raise damaged(self._path, f"the database is damaged: {reading} cannot be read ({error})") from None

    def put(self, job: Job) -> None:
        """Queue a job; its outcome is delivered later."""
        self._queue.put(job)

    def join(self) -> None:
        """Wait for the thread to end after a CloseJob."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        """The thread: take all that waits, do it, deliver, again."""
        while True:
            jobs = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    jobs.append(self._queue.get_nowait())
            closing = [job for job in jobs if isinstance(job, CloseJob)]
            if closing:
                self._wait_for_nobody()
            self._undeleted.update(*(job.done_ids for job in jobs))
            wanted = [job for job in jobs if isinstance(job, WriteJob) and self._is_work(job)]
            self._deliver(self._write(self._without_room(wanted)))
            self._deliver([(job, []) for job in jobs if isinstance(job, RetryJob)])
            self._deliver([(job, self._read(job)) for job in jobs if isinstance(job, ReadJob)])
            if closing:
                self._close()
                self._deliver([(job, None) for job in closing])
                return
            self._tidy()

    def _without_room(self, jobs: list[WriteJob]) -> list[WriteJob]:
        """The jobs that may be done; when the disk is nearly full the new batches are refused, and deletions are not.

        For a deletion needs room too: a disk that the outbox had filled to the last byte could never be emptied.
        """
        if self._has_room():
            return jobs
        refused = [job for job in jobs if isinstance(job, CommitJob)]
        if refused:
            self.failures += 1
            error = StoreFull(f"{self._path}: what is left of the disk is needed to delete what is delivered")
            self._deliver([(job, error) for job in refused])
        return [job for job in jobs if not isinstance(job, CommitJob)]

    def _has_room(self) -> bool:
        """Whether enough is left on the disk, or in the database itself, which does not grow then."""
        try:
            disk = os.statvfs(self._path.parent)
            left = disk.f_bavail * disk.f_frsize
            needed = min(LEFT_FREE, disk.f_blocks * disk.f_frsize // 4)  # 0 where a file system does not know its size
            return left >= needed or left + self._connection.execute(_FREE_BYTES).fetchone()[0] >= needed
        except (OSError, sqlite3.Error):
            return True  # the transaction will say what is wrong

    def _is_work(self, job: WriteJob) -> bool:
        """Whether a transaction is needed; nobody but an operator writes beside us."""
        if not isinstance(job, RetryJob):
            return True
        try:
            return self._data_version() != self._seen_version
        except sqlite3.Error:
            return True  # the transaction will say what is wrong

    def _data_version(self) -> int:
        """Changes when somebody else has written to the database."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _write(self, jobs: list[WriteJob]) -> list[Outcome]:
        """All jobs in one transaction; when one is in conflict, each in its own, so that it fails alone."""
        try:
            return list(zip(jobs, self._transaction(jobs), strict=True))
        except StoreConflict as error:
            if len(jobs) > 1:
                return [outcome for job in jobs for outcome in self._write([job])]
            return [(jobs[0], error)]
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to those who wait, not to this thread
            self.failures += 1
            return [(job, error) for job in jobs]

    def _transaction(self, jobs: list[WriteJob]) -> list[object]:
        """One transaction: the jobs, the acknowledged records, the bounds. The results, once all of it is durable."""
        if not jobs and not self._undeleted:
            return []
        connection, books, now = self._connection, self.books.copy(), self._clock()
        deleted = set(self._undeleted)
        try:
            connection.execute("BEGIN IMMEDIATE")
            outbox.delete(connection, books, deleted)
            seen_version = self._data_version()
            results = [self._apply(job, books, now) for job in jobs]
            dropped = outbox.drop_excess(connection, books, self._settings, now)
            totals.save_totals(connection, books)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        finally:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
        self.books = books
        self.commits += 1
        self.bytes_written = resource.getrusage(resource.RUSAGE_THREAD).ru_oublock * _BLOCK
        self._undeleted -= deleted
        if any(isinstance(job, RetryJob) for job in jobs):
            self._seen_version = seen_version
        if dropped:
            results = [[record for record in stored if record.id not in dropped] for stored in results]
        return list(results)

    def _apply(self, job: WriteJob, books: Books, now: int) -> list[StoredRecord]:
        """One job inside the transaction."""
        if isinstance(job, ParkJob):
            keep = self._settings.parked_max_records
            is_moved = parked.park(self._connection, books, job.record_id, job.reason, now, keep)
            reports = (job.report,) if is_moved and job.report is not None else ()
            return outbox.append(self._connection, books, reports, now)
        if isinstance(job, RetryJob):
            return parked.put_back(self._connection, books, now)
        return self._apply_batch(job.batch, books, now)

    def _apply_batch(self, batch: Batch, books: Books, now: int) -> list[StoredRecord]:
        connection = self._connection
        if batch.ended:
            sessions.end(connection, batch.ended)
            joins.end_joined(connection, batch.ended)
        if batch.changes:
            sessions.apply_changes(connection, batch.changes, now)
        if batch.heard:
            sessions.remember(connection, batch.heard)
        if batch.joined:
            joins.add_joined(connection, batch.joined, self._keeper.find_or_make())
        if batch.joins:
            joins.put_histories(connection, batch.joins)
        if batch.nonces:
            joins.use_nonces(connection, batch.nonces)
        if batch.queued or batch.unqueued:
            downlinks.change_queue(connection, batch.queued, batch.unqueued)
        if batch.airtimes:
            downlinks.add_airtimes(connection, batch.airtimes)
        if batch.told:
            totals.note_told(connection, books, batch.told, now)
        return outbox.append(connection, books, batch.records, now)

    def _read(self, job: ReadJob) -> object:
        """The records, or the exception."""
        try:
            return outbox.read(self._connection, job.after_id, job.limit, self._undeleted)
        except sqlite3.Error as error:
            return translate(error, self._path)

    def _tidy(self) -> None:
        """Give free pages back to the file system, a little at a time, when nobody waits."""
        now = time.monotonic()
        if now - self._vacuumed_at < _VACUUM_EVERY_S or not self._queue.empty():
            return
        self._vacuumed_at = now
        with contextlib.suppress(sqlite3.Error):  # the next transaction will say what is wrong, to somebody who waits
            free, pages = (
                self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
            if free > _VACUUM_MIN_FREE and free > pages // 4:
                # Frees one page a step; only a script is stepped to its end although it has no columns.
                self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def _wait_for_nobody(self) -> None:
        """At the end seconds count: what somebody else holds now stays undone, and is done after the next start."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _close(self) -> None:
        """Empty the log into the database and let go of both."""
        self._write([])
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._lock.release()
