"""Write down what a radio hears, so that `recording` can play it again."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import BinaryIO, Final

import msgspec

from lorabridge.errors import TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception
from lorabridge.radio.base import RadioSource, SourceEnded
from lorabridge.radio.rxpk_lines import build_line

_NO_DISK: Final = frozenset({errno.EINVAL, errno.EROFS, errno.ENOTSUP})
"""What fsync says of pipes and terminals."""


class Recorded(msgspec.Struct):
    """How a recording went."""

    lines: int = 0
    left_out: int = 0
    """Frames at a data rate that the format has no name for."""


async def record(source: RadioSource, out: BinaryIO, *, stop: asyncio.Event, count: int | None = None) -> Recorded:
    """Write a line for each thing that `source` hears, until `stop` is set, `count` lines are written or it ends.

    What was heard before `stop` is written too, whole lines only, and is on the disk when this returns.
    Raises what `source` raises, and TransientError when the file takes no more.
    """
    recorded = Recorded()
    await source.start()
    stopping = asyncio.create_task(_stop_when(stop, source))
    try:
        while count is None or recorded.lines < count:
            _write(await source.receive(), out, recorded, count)
    except SourceEnded:
        pass
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TransientError(f"writing the recording: {error.strerror or error}") from None
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        await source.stop()
    _sync(out)
    return recorded


async def _stop_when(stop: asyncio.Event, source: RadioSource) -> None:
    """A source that is stopped gives what it still has, and ends."""
    await stop.wait()
    await source.stop()


def _write(heard: list[Reception | GatewayStatus], out: BinaryIO, recorded: Recorded, count: int | None) -> None:
    lines = []
    for item in heard:
        if count is not None and recorded.lines == count:
            break
        try:
            lines.append(build_line(item))
        except ValueError:
            recorded.left_out += 1
        else:
            recorded.lines += 1
    out.write(b"".join(lines))
    out.flush()


def _sync(out: BinaryIO) -> None:
    """Onto the disk, if it is one."""
    try:
        os.fsync(out.fileno())
    except OSError as error:
        if error.errno not in _NO_DISK:
            raise TransientError(f"writing the recording: {error.strerror or error}") from None
