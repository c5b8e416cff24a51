"""The downlink queue and what was sent of late, as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

import msgspec

from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import DownlinkCommand, Priority, QueuedCommand
from lorabridge.lorawan.types import EUI64, DeviceClass, FCnt32
from lorabridge.store.values import StoreConflict

AIRTIME_KEPT_NS = 3600 * 1_000_000_000
"""Duty cycles are counted over an hour."""

_PUT = (
    "INSERT INTO downlink (queue_id, target, command_id, state) VALUES (?, ?, ?, ?) ON CONFLICT (queue_id) DO UPDATE "
    "SET target = excluded.target, command_id = excluded.command_id, state = excluded.state"
)
_ADD_AIRTIME = "INSERT INTO airtime (gateway, band_hz, at, duration_us) VALUES (?, ?, ?, ?)"


class _State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a QueuedCommand that have no column. Fields may be added with a default, never renamed or removed.

    `target` and `id` have columns.
    """

    f_port: int
    payload: bytes
    fcnt_down: int | None = None
    confirmed: bool = False
    priority: int = Priority.NORMAL
    expires_at: int | None = None
    correlation_id: str | None = None
    received_at: int = 0
    attempts: int = 0
    sent_fcnt: int | None = None
    device_class: DeviceClass | None = None


_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(_State).decode


def change_queue(connection: sqlite3.Connection, queued: Iterable[QueuedCommand], unqueued: Collection[int]) -> None:
    """Remove what is done with and put the rest, inside the open transaction. Raises StoreConflict.

    A command in both is done with: its number never comes again.
    """
    connection.executemany("DELETE FROM downlink WHERE queue_id = ?", [(queue_id,) for queue_id in unqueued])
    gone = set(unqueued)
    rows = [_to_row(one) for one in queued if one.queue_id not in gone]
    try:
        connection.executemany(_PUT, rows)
    except sqlite3.IntegrityError:
        raise StoreConflict("a command with this id waits for the same target already") from None


def load_queue(connection: sqlite3.Connection) -> list[QueuedCommand]:
    """The queue, ascending. Raises ValueError for a command that cannot be read."""
    rows = connection.execute("SELECT queue_id, target, command_id, state FROM downlink ORDER BY queue_id")
    return [_from_row(row) for row in rows]


def next_queue_id(connection: sqlite3.Connection) -> int:
    """A number above all that were ever used."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'downlink'").fetchone()
    return 1 if row is None else int(row[0]) + 1


def add_airtimes(connection: sqlite3.Connection, airtimes: Collection[Airtime]) -> None:
    """Add transmissions inside the open transaction, and forget those an hour away from the newest of them.

    Those in the future go too: the clock was wrong then, and they would count for ever.
    """
    newest = max(airtime.at for airtime in airtimes)
    connection.execute(
        "DELETE FROM airtime WHERE at NOT BETWEEN ? AND ?", (newest - AIRTIME_KEPT_NS, newest + AIRTIME_KEPT_NS)
    )
    connection.executemany(
        _ADD_AIRTIME,
        [(one.gateway_eui.to_bytes(8, "big"), one.band_hz, one.at, one.duration_us) for one in airtimes],
    )


def load_airtimes(connection: sqlite3.Connection) -> list[Airtime]:
    """What was sent, oldest first."""
    rows = connection.execute("SELECT gateway, band_hz, at, duration_us FROM airtime ORDER BY at, id")
    return [Airtime(EUI64.from_bytes(row[0], "big"), *row[1:]) for row in rows]


def _to_row(queued: QueuedCommand) -> tuple[int, bytes | str, str, bytes]:
    """The columns in the order of _PUT."""
    command = queued.command
    target, fcnt_down, sent_fcnt = command.target, command.fcnt_down, queued.sent_fcnt
    state = _State(
        f_port=command.f_port,
        payload=command.payload,
        fcnt_down=fcnt_down,
        confirmed=command.confirmed,
        priority=int(command.priority),
        expires_at=command.expires_at,
        correlation_id=command.correlation_id,
        received_at=command.received_at,
        attempts=queued.attempts,
        sent_fcnt=sent_fcnt,
        device_class=command.device_class,
    )
    column = target.to_bytes(8, "big") if isinstance(target, EUI64) else target
    return queued.queue_id, column, command.id, _encode_state(state)


def _from_row(row: tuple[int, bytes | str, str, bytes]) -> QueuedCommand:
    queue_id, target, command_id, blob = row
    state = _decode_state(blob)
    command = DownlinkCommand(
        id=command_id,
        target=EUI64.from_bytes(target, "big") if isinstance(target, bytes) else target,
        f_port=state.f_port,
        payload=state.payload,
        fcnt_down=None if state.fcnt_down is None else FCnt32(state.fcnt_down),
        confirmed=state.confirmed,
        device_class=state.device_class,
        priority=Priority(state.priority),
        expires_at=state.expires_at,
        correlation_id=state.correlation_id,
        received_at=state.received_at,
    )
    sent_fcnt = None if state.sent_fcnt is None else FCnt32(state.sent_fcnt)
    return QueuedCommand(queue_id=queue_id, command=command, attempts=state.attempts, sent_fcnt=sent_fcnt)
