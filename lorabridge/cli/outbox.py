"""`lorabridge outbox list|show|retry|drop`: what waits to be sent, and what the endpoint would not take."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.cli.main import EXIT_FAILED, EXIT_OK
from lorabridge.daemon import config
from lorabridge.errors import ConfigError, Problem
from lorabridge.store import inspection
from lorabridge.store.parked import ParkedRecord

_ABOUT = """\
A record is parked when the endpoint hung up on it again and again while others
got through, or when it is too large: the others flow on. `list` and `show` tell
which and why; usually it is the policy of the certificate. `retry` puts parked
records at the end of the queue again, `drop` deletes them for ever.

All of them work beside a running bridge, which sends what is to be tried again
within seconds, and without one: then it does so when it starts."""
_SECRET = ("payload", "sealed_payload", "phy_payload")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _ABOUT
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what waits, and every parked record with the reason")
    show = actions.add_parser("show", help="one record, parked or waiting, as the cloud would read it")
    show.add_argument("id", type=int, help="its number in the list")
    show.add_argument("--payload", action="store_true", help="also what the device said")
    retry = actions.add_parser("retry", help="send parked records once more, behind all that waits")
    drop = actions.add_parser("drop", help="delete parked records for ever")
    for action in (retry, drop):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", type=int, nargs="*", metavar="ID", default=[], help="their numbers in the list")
        which.add_argument("--all", action="store_true", help="every parked record")
    drop.add_argument("--yes", action="store_true", help="do it: they cannot be had back")
    for action in (listing, show, retry, drop):
        action.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file")
    for action in (listing, retry, drop):
        action.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Do it; the result is the exit status. Raises ConfigError, TransientError."""
    loaded, _ = config.load(args.config)
    path = Path(loaded.store.path)
    if args.action == "list":
        return _list(path, as_json=args.json)
    if args.action == "show":
        return _show(path, args.id, with_payload=args.payload)
    return _decide(path, args)


def _list(path: Path, *, as_json: bool) -> int:
    found = inspection.look(path)
    if as_json:
        waiting = {kind.value: count for kind, count in found.waiting.items()}
        print(json.dumps({"waiting": waiting, "parked": [_object(record) for record in found.parked]}, indent=2))
        return EXIT_OK
    kinds = ", ".join(f"{count} {kind.value}" for kind, count in found.waiting.items() if count)
    print(f"waiting: {sum(found.waiting.values())} record(s){f' ({kinds})' if kinds else ''}")
    print(f"parked:  {len(found.parked)} record(s)")
    for record in found.parked:
        device = "" if record.dev_eui is None else f" of {record.dev_eui}"
        print(f"\n{record.id}  {record.kind.value}{device}, {record.size} bytes, stored {_utc(record.stored_at)}")
        print(f"  parked {_utc(record.parked_at)}{', to be sent again' if record.is_to_be_retried else ''}")
        print(f"  {record.reason}")
    return EXIT_OK


def _show(path: Path, record_id: int, *, with_payload: bool) -> int:
    payload = inspection.payload(path, record_id)
    if payload is None:
        print(f"there is no record {record_id}, neither waiting nor parked")
        return EXIT_FAILED
    record = msgspec.json.decode(payload)
    if not with_payload:
        _hide(record)
    print(json.dumps(record, indent=2, ensure_ascii=False))
    return EXIT_OK


def _decide(path: Path, args: argparse.Namespace) -> int:
    """Retry or drop; all of the records or none."""
    parked = {record.id for record in inspection.look(path).parked}
    ids = sorted(parked if args.all else set(args.ids))
    unknown = [record_id for record_id in ids if record_id not in parked]
    if unknown:
        what = f"not parked: {', '.join(map(str, unknown))}"
        raise ConfigError([Problem(where=str(path), what=what, hint="`lorabridge outbox list` tells what is")])
    if args.action == "drop" and not args.yes:
        print(f"{len(ids)} record(s) would be deleted for ever; to do it add --yes")
        return EXIT_FAILED
    change = inspection.retry if args.action == "retry" else inspection.drop
    change(path, ids)
    if args.json:
        print(json.dumps({args.action: ids}))
    else:
        print(f"{len(ids)} record(s) {'to be sent again' if args.action == 'retry' else 'deleted'}")
    return EXIT_OK


def _hide(record: Any) -> None:
    """Put its length in the place of what a device said."""
    if isinstance(record, dict):
        for name in _SECRET:
            if isinstance(record.get(name), str):
                record[name] = f"{len(record[name])} characters of base64, shown with --payload"


def _object(record: ParkedRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "kind": record.kind.value,
        "dev_eui": None if record.dev_eui is None else str(record.dev_eui),
        "size": record.size,
        "stored_at": _utc(record.stored_at),
        "parked_at": _utc(record.parked_at),
        "reason": record.reason,
        "is_to_be_retried": record.is_to_be_retried,
    }


def _utc(ns: int) -> str:
    """RFC 3339 of nanoseconds since the Unix epoch, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns / 1e9))
