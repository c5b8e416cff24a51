"""Opening the database: SQLite set up, checked, and brought to the schema of this version."""

from __future__ import annotations

import errno
import importlib.resources
import os
import sqlite3
from pathlib import Path

from lorabridge.errors import ConfigError, Problem
from lorabridge.store.files import damaged, mark_created, prepare_file, was_created
from lorabridge.store.values import StoreFull, StoreReadOnly, StoreUnavailable

APPLICATION_ID = 0x6C6F7262
"""`lorb`: tells our database from any other SQLite file."""
BUSY_TIMEOUT_S = 1.0
"""Nobody else should write; an operator with a shell may, for a moment."""
_WAL_PAGES = 1000
_WAL_BYTES = 16 << 20

CHECKED_WHOLE = 32 << 20
"""Bytes of a database up to which every start looks at all of it."""
_OF_RECORDS = {"outbox", "parked"}

_FULL = {sqlite3.SQLITE_FULL}
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """An error of SQLite by whose turn it is; `error` itself when it is our bug."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    said = f"{path}: {error}"
    if code in _FULL:
        return StoreFull(said)
    if code in _UNAVAILABLE:
        return StoreReadOnly(f"{path}: the file system is read-only") if _is_read_only(path) else StoreUnavailable(said)
    if code in _DAMAGED:
        return damaged(path, f"the database is damaged: {error}")
    return error


def _is_read_only(path: Path) -> bool:
    """Whether the file system takes no writes: SQLite tells no more than that one failed.

    Asked by doing: after an error the kernel refuses every write without calling the mount read-only (ext4).
    """
    try:
        os.utime(path)
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def open_database(path: Path, durability: str) -> sqlite3.Connection:
    """The checked database at `path`, which the caller has locked; made when this is the first start.

    Raises ConfigError (StoreDamaged when it does not hold together), TransientError when the disk refuses.
    """
    new = prepare_file(path)
    try:
        connection = connect(path)
        try:
            _set_up(connection, durability, new)
            check_integrity(connection, path)
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise translate(error, path) from error
    try:
        mark_created(path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection to a file that is there, for one thread at a time; transactions are begun by hand."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False)


def check_integrity(connection: sqlite3.Connection, path: Path, *, thorough: bool = False) -> None:
    """Whether the file holds together and is ours to use. Raises ConfigError or sqlite3.Error."""
    check_ours(connection, path)
    check = "integrity_check" if thorough else "quick_check"
    is_long = path.stat().st_size > CHECKED_WHOLE and not thorough
    checks = [f"{check}({table})" for table in _small_tables(connection)] if is_long else [f"{check}(3)"]
    found = [row[0] for each in checks for row in connection.execute(f"PRAGMA {each}") if row[0] != "ok"]
    if found:
        what = "the database is damaged: " + "; ".join(line for text in found for line in text.splitlines())
        raise damaged(path, what[:500])


def _small_tables(connection: sqlite3.Connection) -> list[str]:
    """All but those of records: a start must not read gigabytes. Damage there is found when it is read."""
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in rows if name not in _OF_RECORDS]


def check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Whether the database is one of lorabridge, and not too new. Raises ConfigError or sqlite3.Error."""
    version, newest = schema_version(connection), len(_steps())
    application = _pragma(connection, "application_id")
    if application != APPLICATION_ID and not (application == version == 0 and _is_empty(connection)):
        what = "is a database, but not one of lorabridge"
        raise ConfigError([Problem(where=str(path), what=what, hint="look at store.path")])
    if version > newest:
        what = f"was written by a newer lorabridge (schema {version}, this one knows {newest})"
        raise ConfigError([Problem(where=str(path), what=what, hint="install the newer lorabridge again")])


def schema_version(connection: sqlite3.Connection) -> int:
    """The number of the last schema step that was applied."""
    return _pragma(connection, "user_version")


def _set_up(connection: sqlite3.Connection, durability: str, new: bool) -> None:
    """How SQLite is to treat this file."""
    if new:
        # Must come before the first page: the file can then shrink again after a long outage.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power-loss' else 'NORMAL'}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the schema steps that the file does not have yet, each in a transaction of its own."""
    if schema_version(connection) == 0 and was_created(path):
        raise damaged(path, "the database is empty")
    for number, script in enumerate(_steps(), 1):
        if number <= schema_version(connection):
            continue
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}\n"
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            )
        finally:
            if connection.in_transaction:
                connection.rollback()


def _steps() -> list[str]:
    """The schema scripts in order; the n-th makes schema n."""
    folder = importlib.resources.files("lorabridge.store") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None
