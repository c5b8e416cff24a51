"""`lorabridge record`: write down what packet forwarders hear, one JSON object a line; `recording` plays it again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lorabridge.cli.listening import add_limits, left_out, stopping, udp_address
from lorabridge.errors import ConfigError, Problem
from lorabridge.radio.recorder import Recorded, record
from lorabridge.radio.semtech_udp import SemtechUdp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--listen",
        type=udp_address,
        default="127.0.0.1:1700",
        metavar="ADDRESS:PORT",
        help="where packet forwarders send to (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a file that does not exist yet; without it, standard output"
    )
    add_limits(parser, "lines")


def run(args: argparse.Namespace) -> int:
    """Record until told to stop: by --seconds, --count, SIGINT or SIGTERM, all of them a clean end."""
    source = SemtechUdp(args.listen)
    with _opened(args.out) as out:
        recorded = asyncio.run(_record(source, out, args.seconds, args.count))
    print(f"{recorded.lines} lines; {left_out(source.counters, recorded.left_out)}", file=sys.stderr)
    return 0


async def _record(source: SemtechUdp, out: BinaryIO, seconds: float | None, count: int | None) -> Recorded:
    async with stopping(seconds) as stop:
        return await record(source, out, stop=stop, count=count)


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """The file to write, new; an earlier recording is never written over. Raises ConfigError."""
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        # Radio traffic is for its owner first, as a capture by tcpdump is.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        raise ConfigError([Problem(where=str(path), what="exists", hint="name a new file, or remove it")]) from None
    except OSError as error:
        hint = "name a file in a directory that may be written"
        raise ConfigError([Problem(where=str(path), what=error.strerror or str(error), hint=hint)]) from None
    with os.fdopen(descriptor, "wb") as file:
        yield file
