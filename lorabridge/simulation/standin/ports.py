"""The open ports of the stand-in.

`asyncio.Server` forgets what it has accepted when it is closed in the same turn of the loop (CPython 3.11 to 3.13): its
protocol is made and never connected. Here everyone who was accepted is welcomed, and gets an end.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Mapping

from lorabridge.simulation.standin.tls_front import Door

_BACKLOG = 128
_NOBODY = (BlockingIOError, InterruptedError, ConnectionAbortedError)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 1.0
"""Seconds without accepting, when there are no descriptors left."""


class Ports:
    """One port for each door, all open or all closed."""

    def __init__(self, host: str, numbers: Mapping[Door, int], welcome: Callable[[Door], asyncio.Protocol]) -> None:
        """`numbers`: 0 lets the kernel choose, once and for good."""
        self._host = host
        self._numbers = dict(numbers)
        self._welcome = welcome
        self._sockets: dict[Door, socket.socket] = {}
        self._arriving: set[asyncio.Task[object]] = set()

    def number(self, door: Door) -> int:
        """Raises KeyError for a door that there is not."""
        return self._numbers[door]

    def open(self) -> None:
        """From here on the kernel accepts. Raises OSError for a port that is taken; then none is open."""
        if self._sockets:
            return
        try:
            for door, number in self._numbers.items():
                self._sockets[door] = socket.create_server((self._host, number), backlog=_BACKLOG)
        except OSError:
            self.close()
            raise
        for door, listening in self._sockets.items():
            self._numbers[door] = listening.getsockname()[1]
            listening.setblocking(False)
            self._listen(door, listening)

    def close(self) -> None:
        """Nobody is accepted any more; who was, is welcomed in the next turns of the loop."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets.values():
            loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()

    async def settled(self) -> None:
        """Everybody who was accepted has been welcomed, and is connected."""
        await asyncio.gather(*self._arriving, return_exceptions=True)

    def _listen(self, door: Door, listening: socket.socket) -> None:
        if self._sockets.get(door) is listening:  # and was not closed in the meantime
            asyncio.get_running_loop().add_reader(listening, self._accept, door, listening)

    def _accept(self, door: Door, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_BACKLOG):
            try:
                taken, _address = listening.accept()
            except _NOBODY:
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                loop.remove_reader(listening)
                loop.call_later(_PAUSE, self._listen, door, listening)
                return
            arriving = loop.create_task(self._connect(door, taken), name="standin-arriving")
            self._arriving.add(arriving)
            arriving.add_done_callback(self._arriving.discard)

    async def _connect(self, door: Door, taken: socket.socket) -> None:
        taken.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._welcome(door), taken)
