"""A radio that is a file: plays what was recorded, at the pace of the recording, N times as fast, or at once."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import SourceEnded
from lorabridge.radio.rxpk_lines import Passed, Read, read_lines
from lorabridge.radio.source_settings import SourceName

_LOGGER = logging.getLogger(__name__)

BATCH_LIMIT: Final = 256
"""Lines or packets read before the event loop gets its turn."""
DEAF: Final = "RECORDING"
"""TxResult.error: a recording hears nobody."""

_CAPTURES: Final = frozenset(
    bytes.fromhex(magic)
    for magic in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "a1b2cd34", "34cdb2a1", "0a0d0d0a")
)
"""How captures begin: libpcap in microseconds, in nanoseconds and "modified", in both byte orders, and pcapng."""
_PACE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)x", re.ASCII)


class RecordingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[radio]]` of type `recording`: frames out of a file."""

    name: SourceName = "recording"
    path: Annotated[Path, Meta(description="the recording", examples=["/var/lib/lorabridge/roof.jsonl"])]
    format: Annotated[
        Literal["auto", "rxpk", "pcap", "loratap"],
        Meta(
            description="rxpk lines (what `lorabridge record` writes), a packet capture of the UDP protocol, "
            "or one of LoRaTap; auto looks into the file"
        ),
    ] = "auto"
    pace: Annotated[str, Meta(description='"recorded", N times as fast ("10x"), or "fast"', examples=["10x"])] = (
        "recorded"
    )
    gateway_eui: Annotated[EUI64, Meta(description="the gateway of frames whose recording names none")] = EUI64(0)
    port: Annotated[
        int, Meta(ge=0, le=65535, description="UDP port of the server in a packet capture; 0 takes every port")
    ] = 1700

    def __post_init__(self) -> None:
        found = _PACE.fullmatch(self.pace)
        if self.pace not in ("recorded", "fast") and (found is None or float(found[1]) == 0):
            raise ValueError(f'pace: {self.pace!r} is neither "recorded" nor "fast" nor of the form "10x"')

    @property
    def speed(self) -> float | None:
        """How many times as fast as recorded; None without any pause."""
        if self.pace == "fast":
            return None
        found = _PACE.fullmatch(self.pace)
        return 1.0 if found is None else float(found[1])


class Recording:
    """A radio source that ends: SourceEnded after the last frame."""

    def __init__(
        self,
        settings: RecordingSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`monotonic` in seconds; `sleep` waits for as many."""
        self._settings = settings
        self._monotonic = monotonic
        self._sleep = sleep
        self._file: BufferedReader | None = None
        self._reads: Iterator[Read] = iter(())
        self._failure: TransientError | None = None
        self._ahead: Reception | GatewayStatus | None = None
        self._origin: tuple[float, int] | None = None
        self._counters: Counter[str] = Counter(dict.fromkeys(("frames", "statuses", "damaged", "skipped"), 0))

    @property
    def name(self) -> str:
        """The name of this source in the configuration."""
        return self._settings.name

    @property
    def reachable(self) -> None:
        """A recording speaks as it was recorded."""
        return None

    @property
    def counters(self) -> Mapping[str, int]:
        """`damaged` could not be read; `skipped` is neither a frame heard nor a status report."""
        return dict(self._counters)

    async def start(self) -> None:
        """Open the file at its beginning. Raises ConfigError for a file that is missing or none of the formats."""
        await self.stop()
        settings = self._settings
        try:
            self._file = _open_file(settings.path)
            self._reads = self._reader(self._file)
        except (OSError, ValueError) as error:
            await self.stop()
            what = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            hint = 'name a recording that may be read; format = "auto" finds out what is in it'
            raise ConfigError([Problem(where=str(settings.path), what=what, hint=hint)]) from None

    async def receive(self) -> list[Reception | GatewayStatus]:
        """All that is due. Raises SourceEnded after the last, TransientError when the disk fails."""
        while True:
            await asyncio.sleep(0)  # a long recording without pauses must not keep the loop to itself
            due, pause = self._take_due()
            if due:
                return due
            if pause > 0:
                await self._sleep(pause)

    @property
    def can_transmit(self) -> bool:
        """Nobody is there."""
        return False

    async def transmit(self, transmission: Transmission) -> TxResult:  # noqa: ARG002  # there is nobody to send it to
        """Nobody is there: an error at once."""
        return TxResult(error=DEAF)

    async def stop(self) -> None:
        """Close the file."""
        closing, self._file = self._file, None
        self._reads, self._failure, self._ahead, self._origin = iter(()), None, None, None
        if closing is not None:
            closing.close()

    def _take_due(self) -> tuple[list[Reception | GatewayStatus], float]:
        """What is due now, or how many seconds until something will be. Raises SourceEnded, TransientError."""
        due: list[Reception | GatewayStatus] = []
        for _ in range(BATCH_LIMIT):
            if self._ahead is None:
                read = self._next()
                if read is None:
                    if due:
                        break
                    raise self._failure or SourceEnded
                if isinstance(read, Passed):
                    self._pass(read)
                    continue
                self._ahead = read
            pause = self._pause(self._ahead.received_at)
            if pause > 0:
                return due, pause
            self._counters["frames" if isinstance(self._ahead, Reception) else "statuses"] += 1
            due.append(self._ahead)
            self._ahead = None
        return due, 0.0

    def _next(self) -> Read | None:
        """The next piece; None at the end, and from where the disk fails."""
        try:
            return next(self._reads, None)
        except OSError as error:
            self._failure = TransientError(f"{self._settings.path}: {error.strerror or error}")
            return None

    def _pause(self, received_at: int) -> float:
        """Seconds until what was received then is due; time zero is what has no time."""
        speed = self._settings.speed
        if speed is None or received_at == 0:
            return 0.0
        now = self._monotonic()
        if self._origin is None:
            self._origin = (now, received_at)
        began, first = self._origin
        return began + (received_at - first) / 1e9 / speed - now

    def _pass(self, passed: Passed) -> None:
        self._counters["damaged" if passed.damaged else "skipped"] += 1
        if passed.damaged:
            fields = {"source": self.name, "where": f"{self._settings.path}: {passed.where}", "reason": passed.reason}
            _LOGGER.warning("a piece of the recording was left out", extra={"fields": fields})

    def _reader(self, file: BufferedReader) -> Iterator[Read]:
        """The reader for the format of `file`. Raises ValueError with a sentence when there is none."""
        settings = self._settings
        kind = settings.format
        if kind == "rxpk" or (kind == "auto" and file.peek(4)[:4] not in _CAPTURES):
            return read_lines(file, source=self.name, gateway_eui=settings.gateway_eui)
        from lorabridge.radio.captures import read_capture  # noqa: PLC0415  # only a recording needs dpkt

        return read_capture(file, kind=kind, source=self.name, gateway_eui=settings.gateway_eui, port=settings.port)


def _open_file(path: Path) -> BufferedReader:
    """The file at its beginning; only a regular one, for a pipe could keep the event loop waiting."""
    file = path.open("rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("is no regular file")
    return file
