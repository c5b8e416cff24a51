"""What the tests of the store share."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.store.database import Batch, SessionChange, Store, StoreSettings

T = TypeVar("T")

DATABASES = Path(__file__).parent / "databases"
"""A database of every schema that was ever in use."""


def settings(folder: Path, **changes: object) -> StoreSettings:
    """Settings for a database in `folder`."""
    return msgspec.structs.replace(StoreSettings(path=str(folder / "lorabridge.db")), **changes)


def new_session(number: int) -> Session:
    """A session that was never stored."""
    return Session(session_id=number.to_bytes(8, "big"), dev_eui=EUI64(number), generation=-1)


def advance(session: Session, fcnt_up: int) -> SessionChange:
    """The change that an accepted frame makes."""
    moved = msgspec.structs.replace(session, generation=session.generation + 1, fcnt_up=FCnt32(fcnt_up))
    return SessionChange(moved, session.generation)


def records(*payloads: bytes, kind: EventKind = EventKind.UPLINK) -> tuple[Record, ...]:
    return tuple(Record(kind, EUI64(7), payload) for payload in payloads)


def with_store(wanted: StoreSettings, use: Callable[[Store], Awaitable[T]]) -> T:
    """Open the store, use it, close it."""

    async def main() -> T:
        store = await Store.open(wanted)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(main())


def old_database(folder: Path, version: int = 1) -> Path:
    """A database as an older lorabridge left it."""
    path = folder / "lorabridge.db"
    connection = sqlite3.connect(path)
    connection.executescript((DATABASES / f"v{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    path.chmod(0o600)
    return path


def store_records(wanted: StoreSettings, *payloads: bytes) -> None:
    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(*payloads)))

    with_store(wanted, use)


def stored_payloads(wanted: StoreSettings) -> list[bytes]:
    async def use(store: Store) -> list[bytes]:
        return [record.payload for record in await store.pending(0, 10**9)]

    return with_store(wanted, use)
