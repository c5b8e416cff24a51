"""`lorabridge store check|set-aside|forget-sessions`: what an operator can do about the database."""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
from pathlib import Path

from lorabridge.cli.main import EXIT_FAILED, EXIT_OK
from lorabridge.store.connection import check_integrity, connect, schema_version, translate
from lorabridge.store.files import set_aside
from lorabridge.store.release import forget_sessions
from lorabridge.store.values import StoreSettings

_ABOUT = """\
set-aside renames the database so that the next start begins with an empty one. What that means: every frame
counter restarts from the first frame heard of each device, so frames that somebody recorded earlier could be
played back once; and records that were not sent yet stay in the file that was set aside."""
_ABOUT_SESSIONS = """\
forget-sessions removes the sessions of all devices that joined, when the key that encrypts them
(store.key_encryption_key) is lost. What that means: each of these devices is unknown until it joins again, which some
do only when somebody restarts them. Devices with keys of their own (ABP), nonces, waiting commands and unsent records
stay. The bridge must not run."""

_COUNTED = {
    "session": 1,
    "heard": 1,
    "outbox": 1,
    "parked": 1,
    "joined": 2,
    "join_history": 2,
    "dev_nonce": 2,
    "downlink": 2,
}
"""Tables that `check` counts, and the schema since which there is one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{_ABOUT}\n\n{_ABOUT_SESSIONS}"
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="read all of the database and say whether it holds together")
    aside = actions.add_parser("set-aside", help="rename a damaged database; the next start makes a new one")
    forget = actions.add_parser("forget-sessions", help="remove joined sessions whose keys cannot be opened any more")
    for action in (check, aside, forget):
        action.add_argument(
            "path", type=Path, nargs="?", default=Path(StoreSettings().path), help="the database (%(default)s)"
        )
    aside.add_argument("--yes", action="store_true", help="do it: counters restart, see `lorabridge store --help`")
    forget.add_argument("--yes", action="store_true", help="do it: devices join again, see `lorabridge store --help`")


def run(args: argparse.Namespace) -> int:
    """Do it; the result is the exit status."""
    if args.action == "check":
        return _check(args.path)
    if args.action == "forget-sessions":
        return _forget_sessions(args.path, agreed=args.yes)
    return _set_aside(args.path, agreed=args.yes)


def _check(path: Path) -> int:
    """The thorough check, beside a running bridge too. Raises ConfigError for damage."""
    if not path.is_file():
        print(f"{path}: there is no database here")
        return EXIT_FAILED
    try:
        with contextlib.closing(connect(path, mode="ro")) as connection:
            check_integrity(connection, path, thorough=True)
            version = schema_version(connection)
            print(f"{path}: holds together, schema {version}")
            for table in (table for table, since in _COUNTED.items() if since <= version):
                count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # our own names
                print(f"  {table:<14}{count:>10}")
            for record_id, size, reason in connection.execute(
                "SELECT id, length(payload), reason FROM parked ORDER BY parked_at DESC LIMIT 10"
            ):
                print(f"  parked record {record_id}, {size} bytes: {reason}")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return EXIT_OK


def _set_aside(path: Path, *, agreed: bool) -> int:
    """Rename, when the operator knows what it means."""
    if not agreed:
        print(f"{_ABOUT}\n\nTo do it: lorabridge store set-aside {path} --yes")
        return EXIT_FAILED
    for renamed in set_aside(path):
        print(f"set aside as {renamed}")
    print("the next start begins with an empty database")
    return EXIT_OK


def _forget_sessions(path: Path, *, agreed: bool) -> int:
    """Remove them, when the operator knows what it means. Raises ConfigError while the bridge runs."""
    if not agreed:
        print(f"{_ABOUT_SESSIONS}\n\nTo do it: lorabridge store forget-sessions {path} --yes")
        return EXIT_FAILED
    print(f"{forget_sessions(path)} joined session(s) removed: these devices have to join again")
    return EXIT_OK
