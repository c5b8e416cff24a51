"""What an operator does with the outbox by hand, beside a running bridge too: look, and decide upon parked records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.events import EventKind
from lorabridge.store import parked
from lorabridge.store.connection import schema_version
from lorabridge.store.parked import SINCE_SCHEMA, ParkedRecord
from lorabridge.store.release import existing_database, transaction


class Inspected(msgspec.Struct, frozen=True):
    """The outbox at one moment."""

    waiting: Mapping[EventKind, int]
    """Records of each kind that are to be sent."""
    parked: list[ParkedRecord]


def look(path: Path) -> Inspected:
    """What waits and what is parked. Raises ConfigError, TransientError."""
    with existing_database(path, "ro") as connection:
        _refuse_older(path, schema_version(connection))
        return Inspected(parked.waiting(connection), parked.list_parked(connection))


def payload(path: Path, record_id: int) -> bytes | None:
    """The JSON of a record that is parked or waits, None when there is none. Raises ConfigError, TransientError."""
    with existing_database(path, "ro") as connection:
        return parked.payload_of(connection, record_id)


def retry(path: Path, ids: Sequence[int]) -> None:
    """Have the bridge put parked records back. Raises ConfigError, TransientError; then nothing was changed."""
    with existing_database(path, "rw") as connection, transaction(connection):
        parked.ask_for_retry(connection, ids)


def drop(path: Path, ids: Sequence[int]) -> None:
    """Delete parked records. Raises ConfigError, TransientError; then nothing was changed."""
    with existing_database(path, "rw") as connection, transaction(connection):
        parked.drop_parked(connection, ids)


def _refuse_older(path: Path, version: int) -> None:
    """An older database is brought up to date by the bridge, not by a command beside it."""
    if version < SINCE_SCHEMA:
        what = f"the database is of an older lorabridge (schema {version})"
        raise ConfigError([Problem(where=str(path), what=what, hint="start this version of the bridge once")])
