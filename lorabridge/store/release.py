"""What an operator releases by hand: nonces of a device at a dead end, and sessions whose keys nobody can open."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.types import EUI64
from lorabridge.store import joins
from lorabridge.store.connection import check_ours, connect, open_database, schema_version, translate
from lorabridge.store.files import Lock
from lorabridge.store.joins import NoncesUsed

_DEV_NONCES = 1 << 16


def read_nonces(path: Path, dev_eui: EUI64) -> NoncesUsed | None:
    """What a device has used of its nonces, None when it never joined. Raises ConfigError, TransientError."""
    with existing_database(path, "ro") as connection:
        return joins.nonces_used(connection, dev_eui) if _knows_joins(connection) else None


def forget_nonces(path: Path, dev_eui: EUI64) -> NoncesUsed | None:
    """Let a device use its nonces again, beside a running bridge too; returns what was used.

    Raises ConfigError, TransientError; then nothing was changed.
    """
    with existing_database(path, "rw") as connection:
        if not _knows_joins(connection):
            return None
        with transaction(connection):
            used = joins.nonces_used(connection, dev_eui)
            joins.let_go_of_nonces(connection, dev_eui)
        return used


def forget_sessions(path: Path) -> int:
    """Remove every joined session; returns how many there were. Raises ConfigError while the bridge runs."""
    if not path.is_file():
        raise _nothing_there(path)
    lock = Lock.take(path)
    try:
        with contextlib.closing(open_database(path, "power-loss")) as connection, transaction(connection):
            return joins.end_all_joined(connection)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    finally:
        lock.release()


def describe_nonces(used: NoncesUsed | None) -> str:
    """For people."""
    if used is None:
        return "has never joined here"
    said = [f"{used.random} of {_DEV_NONCES} DevNonces used"] if used.random else []
    if used.last_dev_nonce is not None:
        said.append(f"last DevNonce {used.last_dev_nonce} of {_DEV_NONCES - 1}")
    if used.rj_count1 is not None:
        said.append(f"last RJcount1 {used.rj_count1} of {_DEV_NONCES - 1}")
    return ", ".join(said) or "no nonce is used"


@contextlib.contextmanager
def existing_database(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection to a database of ours that is there."""
    if not path.is_file():
        raise _nothing_there(path)
    try:
        with contextlib.closing(connect(path, mode)) as connection:
            check_ours(connection, path)
            yield connection
    except sqlite3.Error as error:
        raise translate(error, path) from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _knows_joins(connection: sqlite3.Connection) -> bool:
    """An older database is brought up to date by the bridge, not by a command beside it."""
    return schema_version(connection) >= joins.SINCE_SCHEMA


def _nothing_there(path: Path) -> ConfigError:
    return ConfigError([Problem(where=str(path), what="there is no database here", hint="look at store.path")])
