"""`lorabridge decode`: what is in a frame, as a tree to read or as JSON lines for scripts (docs/decode.md)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lorabridge.errors import ConfigError
from lorabridge.lorawan.answer import Judge, answer_line, answer_text
from lorabridge.lorawan.regions import REGIONS

MAX_LINE = 1 << 20
"""Bytes of one line of input; a longer one is an error of that line, and is passed over without being kept."""
EXIT_MALFORMED = 1
EXIT_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. Keys are never among them: other users can read a command line."""
    parser.add_argument("frames", nargs="*", metavar="HEX|BASE64", help="PHYPayloads to print as trees")
    parser.add_argument("--jsonl", action="store_true", help="read one JSON object a line, write one a line")
    parser.add_argument("--devices", type=Path, metavar="PATH", help="device file or directory: judge the frames too")
    parser.add_argument("--region", choices=sorted(REGIONS), help="region of the devices of 1.1 that name none")


def run(args: argparse.Namespace) -> int:
    """Decode; the status is 1 when a frame printed as a tree is malformed, and 0 whatever the JSON lines hold."""
    if args.jsonl == bool(args.frames):
        print("lorabridge decode: give frames, or --jsonl with JSON lines on standard input", file=sys.stderr)
        return EXIT_USAGE
    judge = None if args.devices is None else load_judge(args.devices, args.region)
    if args.jsonl:
        for line in read_lines(sys.stdin.buffer):
            sys.stdout.write(to_json(answer_line(line, judge)) + "\n")
            sys.stdout.flush()
        return 0
    answers = [answer_text(text, judge) for text in args.frames]
    print("\n\n".join("\n".join(tree(answer)) for answer in answers))
    return 0 if all(answer["ok"] for answer in answers) else EXIT_MALFORMED


def load_judge(path: Path, region: str | None) -> Judge:
    """What judges by the devices in a file or folder alone; warnings go to standard error. Raises ConfigError."""
    from lorabridge.store.devices import load_devices  # noqa: PLC0415  # the command is as quick without

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    devices, problems = load_devices(path, credentials_dir=Path(credentials) if credentials else None)
    for problem in problems:
        if problem.warning:
            print(problem, file=sys.stderr)
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        raise ConfigError(errors)
    return Judge(devices, region)


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a stream; None for one that is longer than MAX_LINE."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE)
        yield None


def to_json(answer: Mapping[str, Any]) -> str:
    """One line of ASCII, whatever the `id` holds."""
    try:
        return json.dumps(answer, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        return json.dumps({**answer, "id": None}, allow_nan=False, separators=(",", ":"))


def tree(fields: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The lines of an answer for a person."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from tree(value, indent + "  ")
        else:
            yield f"{indent}{name:<{24 - len(indent)}}{_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value or "(empty)"
    return "-" if value is None else json.dumps(value)
