"""Looking into the store beside a running bridge, or without one: what was committed is read, and nothing written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.session import History, Session
from lorabridge.lorawan.types import FCnt32
from lorabridge.store import joins
from lorabridge.store.connection import check_ours, connect, schema_version, translate
from lorabridge.store.files import damaged
from lorabridge.store.key_wrap import KeyKeeper
from lorabridge.store.sessions import load_sessions, was_heard
from lorabridge.store.values import StoreSettings


class Snapshot(History):
    """Sessions as they were when it was opened, and the histories as they are when they are asked."""

    def __init__(self, connection: sqlite3.Connection, path: Path, keeper: KeyKeeper) -> None:
        """Not for callers: `open_snapshot`."""
        self._connection = connection
        self._path = path
        self._knows_joins = schema_version(connection) >= joins.SINCE_SCHEMA
        self.sessions: dict[bytes, Session] = load_sessions(connection)
        self.joined: dict[bytes, JoinedSession] = (
            joins.load_joined(connection, keeper, path) if self._knows_joins else {}
        )

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        """Whether exactly this frame was committed to the history (policy `confirm`)."""
        with _translated(self._path):
            return was_heard(self._connection, session_id, fcnt32, mic)

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        """What a device's joins have used up."""
        with _translated(self._path):
            return joins.join_history(self._connection, join_id) if self._knows_joins else None

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        """Whether this DevNonce was committed as used."""
        with _translated(self._path):
            return self._knows_joins and joins.nonce_used(self._connection, join_id, dev_nonce)


@contextlib.contextmanager
def open_snapshot(settings: StoreSettings, *, credentials_dir: Path | None = None) -> Iterator[Snapshot | None]:
    """What the store holds; None when there is no database yet. This, and its methods, raise ConfigError (damage, the
    wrong key-encryption key) and TransientError.
    """
    path = Path(settings.path)
    if not path.is_file():
        yield None
        return
    with _translated(path):
        connection = connect(path, "ro")
    with contextlib.closing(connection):
        with _translated(path):
            check_ours(connection, path)
            snapshot = Snapshot(connection, path, KeyKeeper(settings, credentials_dir))
        yield snapshot


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What SQLite or a row says, by whose turn it is."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except ValueError as error:  # includes msgspec's errors
        raise damaged(path, f"the database is damaged: a row cannot be read ({error})") from None
