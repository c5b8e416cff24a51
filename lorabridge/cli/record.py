"""`lorabridge record`: write down what packet forwarders hear, one JSON object a line; `recording` plays it again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lorabridge.errors import ConfigError, Problem
from lorabridge.radio.recorder import Recorded, record
from lorabridge.radio.semtech_udp import SemtechUdp, SemtechUdpSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--listen",
        type=_listen,
        default="127.0.0.1:1700",
        metavar="ADDRESS:PORT",
        help="where packet forwarders send to (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a file that does not exist yet; without it, standard output"
    )
    parser.add_argument("--seconds", type=_positive_float, metavar="S", help="stop after this time")
    parser.add_argument("--count", type=_positive, metavar="N", help="stop after this many lines")


def run(args: argparse.Namespace) -> int:
    """Record until told to stop: by --seconds, --count, SIGINT or SIGTERM, all of them a clean end."""
    source = SemtechUdp(args.listen)
    with _opened(args.out) as out:
        recorded = asyncio.run(_record(source, out, args.seconds, args.count))
    counters = source.counters
    lost = counters["kernel_dropped"] + counters["inbox_dropped"]
    faults = sum(count for name, count in counters.items() if name.startswith("fault_"))
    unread = recorded.left_out + faults
    print(f"{recorded.lines} lines; left out: {unread} unreadable, {lost} for want of room", file=sys.stderr)
    return 0


async def _record(source: SemtechUdp, out: BinaryIO, seconds: float | None, count: int | None) -> Recorded:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    timer = None if seconds is None else loop.call_later(seconds, stop.set)
    try:
        return await record(source, out, stop=stop, count=count)
    finally:
        if timer is not None:
            timer.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


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


def _listen(text: str) -> SemtechUdpSettings:
    """`127.0.0.1:1700` or `[::1]:1700`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 127.0.0.1:1700 or [::1]:1700")
    try:
        return SemtechUdpSettings(bind=host.removeprefix("[").removesuffix("]"), port=int(port))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")
    return value
