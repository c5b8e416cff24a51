"""Sessions as rows. What is compared or looked for has a column; the rest is one MessagePack blob."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from lorabridge.lorawan.mac_state import DEFAULT_MAC_STATE, MacState
from lorabridge.lorawan.session import ResetTrack, Session
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.store.values import SessionChange, StoreConflict

_INSERT = "INSERT INTO session (dev_eui, generation, fcnt_up, updated_at, state, session_id) VALUES (?, ?, ?, ?, ?, ?)"
_UPDATE = (
    "UPDATE session SET dev_eui = ?, generation = ?, fcnt_up = ?, updated_at = ?, state = ? "
    "WHERE session_id = ? AND generation = ?"
)
_END = ("DELETE FROM session WHERE session_id = ?", "DELETE FROM heard WHERE session_id = ?")
_REMEMBER = "INSERT INTO heard (session_id, fcnt32, mic) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


class _State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a Session that have no column. Fields may be added with a default, never renamed or removed."""

    last_gateway: int = 0
    last_tmst: int | None = None
    retransmissions: int = 0
    copies: int = 0
    first_mics: bytes = b""
    recent: bytes = b""
    reset: tuple[int, int] | None = None
    resets: int = 0
    fcnt_down: int = 0
    a_fcnt_down: int = 0
    conf_fcnt_down: int = 0
    conf_fcnt_before: int | None = None
    rj_count0: int | None = None
    mac: MacState = DEFAULT_MAC_STATE
    """Costs nothing while it is this very object, as that of a device without MAC commands is."""


_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(_State).decode


def apply_changes(connection: sqlite3.Connection, changes: Iterable[SessionChange], now: int) -> None:
    """Compare-and-set every session inside the open transaction. Raises StoreConflict."""
    new, moved = [], []
    for change in changes:
        if change.session.generation != change.expected_generation + 1:
            raise StoreConflict("the new generation of a session does not follow the expected one")
        row = _to_row(change.session, now)
        if change.expected_generation < 0:
            new.append(row)
        else:
            moved.append((*row, change.expected_generation))
    if new:
        try:
            connection.executemany(_INSERT, new)
        except sqlite3.IntegrityError:
            raise StoreConflict("a session said to be new is stored already") from None
    if moved and connection.executemany(_UPDATE, moved).rowcount != len(moved):
        raise StoreConflict("a session was changed by somebody else since it was read")


def end(connection: sqlite3.Connection, session_ids: Iterable[bytes]) -> None:
    """Remove sessions with their history of frames inside the open transaction; one that is not there costs nothing."""
    rows = [(session_id,) for session_id in session_ids]
    for statement in _END:
        connection.executemany(statement, rows)


def remember(connection: sqlite3.Connection, heard: Iterable[tuple[bytes, FCnt32, bytes]]) -> None:
    """Add to the history of frames heard inside the open transaction."""
    connection.executemany(_REMEMBER, heard)


def was_heard(connection: sqlite3.Connection, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
    """Whether exactly this frame is in the history."""
    query = "SELECT 1 FROM heard WHERE session_id = ? AND fcnt32 = ? AND mic = ?"
    return connection.execute(query, (session_id, fcnt32, mic)).fetchone() is not None


def load_sessions(connection: sqlite3.Connection) -> dict[bytes, Session]:
    """Every session by its id. Raises ValueError for one that cannot be read."""
    query = "SELECT session_id, dev_eui, generation, fcnt_up, state FROM session"
    return {row[0]: _from_row(row) for row in connection.execute(query)}


def _to_row(session: Session, now: int) -> tuple[bytes, int, int | None, int, bytes, bytes]:
    """The columns in the order of _INSERT."""
    reset = session.reset
    state = _State(
        last_gateway=int(session.last_gateway),
        last_tmst=session.last_tmst,
        retransmissions=session.retransmissions,
        copies=session.copies,
        first_mics=session.first_mics,
        recent=session.recent,
        reset=None if reset is None else (reset.last_fcnt32, reset.consecutive),
        resets=session.resets,
        fcnt_down=session.fcnt_down,
        a_fcnt_down=session.a_fcnt_down,
        conf_fcnt_down=session.conf_fcnt_down,
        conf_fcnt_before=session.conf_fcnt_before,
        rj_count0=session.rj_count0,
        mac=session.mac,
    )
    return (
        session.dev_eui.to_bytes(8, "big"),
        session.generation,
        session.fcnt_up,
        now,
        _encode_state(state),
        session.session_id,
    )


def _from_row(row: tuple[bytes, bytes, int, int | None, bytes]) -> Session:
    session_id, dev_eui, generation, fcnt_up, blob = row
    state = _decode_state(blob)
    return Session(
        session_id=session_id,
        dev_eui=EUI64.from_bytes(dev_eui, "big"),
        generation=generation,
        fcnt_up=None if fcnt_up is None else FCnt32(fcnt_up),
        last_gateway=EUI64(state.last_gateway),
        last_tmst=state.last_tmst,
        retransmissions=state.retransmissions,
        copies=state.copies,
        first_mics=state.first_mics,
        recent=state.recent,
        reset=None if state.reset is None else ResetTrack(FCnt32(state.reset[0]), state.reset[1]),
        resets=state.resets,
        fcnt_down=FCnt32(state.fcnt_down),
        a_fcnt_down=FCnt32(state.a_fcnt_down),
        conf_fcnt_down=state.conf_fcnt_down,
        conf_fcnt_before=state.conf_fcnt_before,
        rj_count0=state.rj_count0,
        mac=state.mac,
    )
