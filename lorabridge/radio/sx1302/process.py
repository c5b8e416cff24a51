"""The parent's side of the child process: its start, its messages, its words, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from typing import Final

import msgspec

from lorabridge.errors import TransientError
from lorabridge.radio.base import RadioSilentError
from lorabridge.radio.sx1302.wire import FRAME_LIMIT, FROM_CHILD, HEADER_SIZE, FromChild, pack

_LOGGER = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds for a child that was told to stop; then it is killed: a library that hangs heeds no SIGTERM."""
_WORDS_LIMIT: Final = 20
"""Lines of the library that are logged in each _WORDS_INTERVAL seconds; the rest is counted."""
_WORDS_INTERVAL: Final = 10.0
_LINE_LIMIT: Final = 300


class ChildProcess:
    """One run of the child."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._source = source
        self._window = 0.0
        self._in_window = 0
        self.words_dropped = 0
        """Lines of the library that were not logged."""
        self._listening = asyncio.create_task(self._listen(), name=f"{source} words")

    @classmethod
    async def spawn(cls, source: str) -> ChildProcess:
        """Start the process. Raises TransientError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "lorabridge.radio.sx1302.child",
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=PIPE,
                    stderr=STDOUT,
                )
        except OSError as error:
            ours.close()
            raise TransientError(f"the child process cannot be started: {error.strerror or error}") from None
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer, source)

    async def read(self, limit: float) -> FromChild:
        """The next message. Raises TransientError when the child is silent for `limit` seconds, ended or babbles."""
        try:
            async with asyncio.timeout(limit):
                size = int.from_bytes(await self._reader.readexactly(HEADER_SIZE), "big")
                if size > FRAME_LIMIT:
                    raise TransientError("the child process sent what is no message")
                message: FromChild = FROM_CHILD.decode(await self._reader.readexactly(size))
                return message
        except TimeoutError:
            raise RadioSilentError(f"the library has hung: silent for {limit:g} s") from None
        except (asyncio.IncompleteReadError, OSError):
            raise TransientError(f"the library's process ended: {await self._how_it_ended()}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TransientError("the child process sent what is no message") from None

    def send(self, message: msgspec.Struct) -> None:
        """Hand a message over; what a dead child does not take is lost with it."""
        self._writer.write(pack(message))

    async def end(self) -> None:
        """Wait for the end of a child that was told to stop, then kill it. Cancellation kills it at once."""
        try:
            async with asyncio.timeout(GRACE):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            self._writer.close()
        await self.reap()

    def kill(self) -> None:
        """End it now."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def reap(self) -> None:
        """Collect a child that was killed or has ended, and its last words."""
        self._writer.close()
        await self._process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._listening, GRACE)

    async def _how_it_ended(self) -> str:
        try:
            code = await asyncio.wait_for(self._process.wait(), GRACE)
        except TimeoutError:
            return "its socket closed"
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    async def _listen(self) -> None:
        """Log what the library prints, with bounds; read on whatever it prints, so that it never blocks on us."""
        stream = self._process.stdout
        rest = b""
        while stream is not None and (chunk := await stream.read(65_536)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._say(line)
            rest = rest[:_LINE_LIMIT]
        if rest:
            self._say(rest)

    def _say(self, line: bytes) -> None:
        now = time.monotonic()
        if now - self._window >= _WORDS_INTERVAL:
            self._window, self._in_window = now, 0
        self._in_window += 1
        if self._in_window > _WORDS_LIMIT:
            self.words_dropped += 1
            return
        text = line[:_LINE_LIMIT].decode("ascii", "replace").strip()
        if text:
            _LOGGER.info("the concentrator library says", extra={"fields": {"source": self._source, "text": text}})
