"""What joins leave behind, as rows: keys and address of a session (keys wrapped), join histories, nonces used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.types import EUI64, DevAddr, MacVersion
from lorabridge.store.files import damaged
from lorabridge.store.key_wrap import SETTING, KeyEncryptionKey, KeyKeeper
from lorabridge.store.values import StoreConflict

SINCE_SCHEMA = 2
"""An older database knows no joins."""

_ADD_JOINED = (
    "INSERT INTO joined (session_id, dev_eui, dev_addr, mac_version, wrapped_keys, joined_at) VALUES (?, ?, ?, ?, ?, ?)"
)
_END_JOINED = "DELETE FROM joined WHERE session_id = ?"
_PUT_HISTORY = (
    "INSERT INTO join_history (join_id, dev_eui, join_nonce, last_dev_nonce, rj_count1, state) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (join_id) DO UPDATE SET dev_eui = excluded.dev_eui, "
    "join_nonce = excluded.join_nonce, last_dev_nonce = excluded.last_dev_nonce, "
    "rj_count1 = excluded.rj_count1, state = excluded.state"
)
_USE_NONCE = "INSERT INTO dev_nonce (join_id, dev_nonce) VALUES (?, ?) ON CONFLICT DO NOTHING"
_OF_DEVICE = "(SELECT join_id FROM join_history WHERE dev_eui = ?)"


class _State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a JoinHistory that have no column. Fields may be added with a default, never renamed or removed."""

    last_mic: bytes = b""
    last_at: int = 0
    last_gateway: int = 0


_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(_State).decode


class NoncesUsed(msgspec.Struct, frozen=True, kw_only=True):
    """How much of its nonces a device has used, over all root keys it had."""

    random: int = 0
    """DevNonces in the complete history (1.0.0 to 1.0.3), of 65 536."""
    last_dev_nonce: int | None = None
    """The highest one of a device that counts."""
    rj_count1: int | None = None


def add_joined(connection: sqlite3.Connection, joined: Iterable[JoinedSession], key: KeyEncryptionKey) -> None:
    """Store the fixed part of new sessions inside the open transaction. Raises StoreConflict for one that is there."""
    rows = [
        (
            one.session_id,
            one.dev_eui.to_bytes(8, "big"),
            int(one.dev_addr),
            one.mac_version.value,
            key.wrap_session_keys(one.keys),
            one.joined_at,
        )
        for one in joined
    ]
    try:
        connection.executemany(_ADD_JOINED, rows)
    except sqlite3.IntegrityError:
        raise StoreConflict("a joined session said to be new is stored already") from None


def end_joined(connection: sqlite3.Connection, session_ids: Iterable[bytes]) -> None:
    """Remove the fixed part of sessions; one that was not joined costs nothing."""
    connection.executemany(_END_JOINED, [(session_id,) for session_id in session_ids])


def load_joined(connection: sqlite3.Connection, keeper: KeyKeeper, path: Path) -> dict[bytes, JoinedSession]:
    """Every joined session by its id, keys unwrapped.

    Raises ConfigError when the key-encryption key is not there or not the right one, StoreDamaged, ValueError.
    """
    key = keeper.find()
    rows = connection.execute(
        "SELECT session_id, dev_eui, dev_addr, mac_version, wrapped_keys, joined_at FROM joined"
    ).fetchall()
    if not rows:
        return {}
    if key is None:
        raise _locked_up(keeper, path, f"{path} holds keys of joined sessions, but what opens them is missing")
    found: dict[bytes, JoinedSession] = {}
    closed: list[bytes] = []
    for session_id, dev_eui, dev_addr, mac_version, wrapped, joined_at in rows:
        try:
            keys = key.unwrap_session_keys(wrapped)
        except ValueError:
            closed.append(session_id)
            continue
        found[session_id] = JoinedSession(
            session_id=session_id,
            dev_eui=EUI64.from_bytes(dev_eui, "big"),
            dev_addr=DevAddr(dev_addr),
            mac_version=MacVersion(mac_version),
            keys=keys,
            joined_at=joined_at,
        )
    if closed and found:
        raise damaged(path, f"the database is damaged: the keys of {len(closed)} joined session(s) cannot be opened")
    if closed:
        raise _locked_up(keeper, path, f"does not open the keys of the joined sessions in {path}")
    return found


def _locked_up(keeper: KeyKeeper, path: Path, what: str) -> ConfigError:
    """The key-encryption key is not there, or is another one than before."""
    hint = (
        f"put the old key back, or run `lorabridge store forget-sessions {path} --yes`: every device that joined then "
        "has to join again"
    )
    return ConfigError([Problem(where=f"{SETTING} ({keeper.place})", what=what, hint=hint)])


def put_histories(connection: sqlite3.Connection, histories: Iterable[JoinHistory]) -> None:
    """Store join histories as they are now inside the open transaction."""
    connection.executemany(
        _PUT_HISTORY,
        [
            (
                one.join_id,
                one.dev_eui.to_bytes(8, "big"),
                one.join_nonce,
                one.last_dev_nonce,
                one.rj_count1,
                _encode_state(_State(last_mic=one.last_mic, last_at=one.last_at, last_gateway=int(one.last_gateway))),
            )
            for one in histories
        ],
    )


def use_nonces(connection: sqlite3.Connection, nonces: Iterable[tuple[bytes, int]]) -> None:
    """Add (join_id, DevNonce) to the complete history inside the open transaction."""
    connection.executemany(_USE_NONCE, [(join_id, int(dev_nonce)) for join_id, dev_nonce in nonces])


def join_history(connection: sqlite3.Connection, join_id: bytes) -> JoinHistory | None:
    """One join history, None for a device that never joined. Raises ValueError when it cannot be read."""
    query = "SELECT dev_eui, join_nonce, last_dev_nonce, rj_count1, state FROM join_history WHERE join_id = ?"
    row = connection.execute(query, (join_id,)).fetchone()
    if row is None:
        return None
    state = _decode_state(row[4])
    return JoinHistory(
        join_id=join_id,
        dev_eui=EUI64.from_bytes(row[0], "big"),
        join_nonce=row[1],
        last_dev_nonce=row[2],
        rj_count1=row[3],
        last_mic=state.last_mic,
        last_at=state.last_at,
        last_gateway=EUI64(state.last_gateway),
    )


def nonce_used(connection: sqlite3.Connection, join_id: bytes, dev_nonce: int) -> bool:
    """Whether this DevNonce is in the complete history."""
    query = "SELECT 1 FROM dev_nonce WHERE join_id = ? AND dev_nonce = ?"
    return connection.execute(query, (join_id, int(dev_nonce))).fetchone() is not None


def let_go_of_nonces(connection: sqlite3.Connection, dev_eui: EUI64) -> None:
    """Let a device use its nonces again, inside the open transaction. JoinNonce goes on."""
    device = (dev_eui.to_bytes(8, "big"),)
    connection.execute(f"DELETE FROM dev_nonce WHERE join_id IN {_OF_DEVICE}", device)  # noqa: S608  # a constant
    connection.execute("UPDATE join_history SET last_dev_nonce = NULL, rj_count1 = NULL WHERE dev_eui = ?", device)


def end_all_joined(connection: sqlite3.Connection) -> int:
    """Remove every joined session with its counters and history of frames; returns how many there were."""
    for table in ("session", "heard"):
        connection.execute(f"DELETE FROM {table} WHERE session_id IN (SELECT session_id FROM joined)")  # noqa: S608
    return connection.execute("DELETE FROM joined").rowcount


def nonces_used(connection: sqlite3.Connection, dev_eui: EUI64) -> NoncesUsed | None:
    """How much a device has used; None when it never joined."""
    device = (dev_eui.to_bytes(8, "big"),)
    known, last_dev_nonce, rj_count1 = connection.execute(
        "SELECT count(*), max(last_dev_nonce), max(rj_count1) FROM join_history WHERE dev_eui = ?", device
    ).fetchone()
    if not known:
        return None
    query = f"SELECT count(*) FROM dev_nonce WHERE join_id IN {_OF_DEVICE}"  # noqa: S608  # a constant
    (random,) = connection.execute(query, device).fetchone()
    return NoncesUsed(random=random, last_dev_nonce=last_dev_nonce, rj_count1=rj_count1)
