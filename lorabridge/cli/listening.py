"""What commands that listen to a radio share: where to listen, when to stop, and what they could not tell."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping

from lorabridge.radio.semtech_udp import SemtechUdpSettings


def add_limits(parser: argparse.ArgumentParser, things: str) -> None:
    """Declare `--seconds` and `--count`; `things` are counted."""
    parser.add_argument("--seconds", type=seconds, metavar="S", help="stop after this time")
    parser.add_argument("--count", type=count, metavar="N", help=f"stop after this many {things}")


def udp_address(text: str) -> SemtechUdpSettings:
    """`127.0.0.1:1700`, `[::1]:1700`, or `1700` of this machine alone."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = SemtechUdpSettings().bind
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1700, 127.0.0.1:1700 or [::1]:1700")
    try:
        return SemtechUdpSettings(bind=host.removeprefix("[").removesuffix("]"), port=int(port))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """A whole number above zero."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def seconds(text: str) -> float:
    """A time above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")
    return value


@contextlib.asynccontextmanager
async def stopping(after: float | None) -> AsyncIterator[asyncio.Event]:
    """An event that is set by SIGINT, by SIGTERM, and after so many seconds."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    timer = None if after is None else loop.call_later(after, stop.set)
    try:
        yield stop
    finally:
        if timer is not None:
            timer.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def left_out(counters: Mapping[str, int], unread: int = 0) -> str:
    """What was heard and could not be told, by the counters of radio sources; `unread` things more."""
    lost = sum(value for name, value in counters.items() if name.endswith(("kernel_dropped", "inbox_dropped")))
    unread += sum(value for name, value in counters.items() if "fault_" in name or name.endswith("damaged"))
    return f"left out: {unread} unreadable, {lost} for want of room"
