"""The receiver of a board, read in a thread for as long as the board is used, and opened again when it was lost."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from lorabridge.radio.gnss.clock import GnssState
from lorabridge.radio.gnss.reader import GnssReader
from lorabridge.radio.serial_port import PortError

_LOGGER = logging.getLogger(__name__)

RETRY: Final = 5.0
"""Seconds before a port that failed is opened again."""
_READ_LIMIT: Final = 0.25


class GnssWatch:
    """One receiver; `start` and `stop` are called on the event loop, and so is `tell`."""

    def __init__(self, port: str, baud: int, source: str, tell: Callable[[GnssState, int], None]) -> None:
        """`tell` takes what is known after bytes came, and monotonic nanoseconds."""
        self._port = port
        self._baud = baud
        self._source = source
        self._tell = tell
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, args=(loop,), name=f"{self._source} gnss", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Let go of the port. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopped.set()
            await asyncio.to_thread(thread.join)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        said = ""
        while not self._stopped.is_set():
            try:
                self._read(loop)
            except PortError as error:
                if str(error) != said:
                    said = str(error)
                    facts = {"source": self._source, "reason": said}
                    _LOGGER.warning("the GNSS receiver cannot be read", extra={"fields": facts})
                self._stopped.wait(RETRY)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until stopped. Raises PortError."""
        last: tuple[object, object] = (None, None)
        with GnssReader(self._port, baud=self._baud) as reader:
            while not self._stopped.is_set():
                state = reader.read(_READ_LIMIT)
                if (state.gps_ns, state.position) != last:
                    last = state.gps_ns, state.position
                    loop.call_soon_threadsafe(self._tell, state, time.monotonic_ns())
