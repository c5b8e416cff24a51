"""What a connection may cost before it is known whose it is, and after: their number, and what waits for a reader."""

from __future__ import annotations

import logging
import socket
from typing import Any, Final

from websockets.asyncio.server import ServerConnection

from lorabridge.radio.bound_socket import bound

WRITE_LIMIT: Final = 256 * 1024
"""Bytes that may wait for a station to read them: more than 256 downlinks."""


class Listener(socket.socket):
    """A TCP socket with a bound on the connections that are open at a time, those within a TLS handshake too."""

    def __init__(self, family: socket.AddressFamily, limit: int) -> None:
        """At most `limit` connections; one more is closed as it comes, before anything of it is read."""
        super().__init__(family, socket.SOCK_STREAM)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.came = 0
        """Connections so far, whatever became of them."""
        self.turned_away = 0
        """Those that came when there was no room."""
        self._limit = limit
        self._open: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises ConnectionAbortedError when it was turned away: asyncio then asks again later."""
        taken, address = super().accept()
        self.came += 1
        if len(self._open) >= self._limit:
            self._open = [one for one in self._open if one.fileno() >= 0]
        if len(self._open) >= self._limit:
            taken.close()
            self.turned_away += 1
            raise ConnectionAbortedError
        self._open.append(taken)
        return taken, address


class Connection(ServerConnection):
    """A WebSocket whose peer has to read: one that only writes would fill memory with the answers to its pings."""

    def pause_writing(self) -> None:
        """More than WRITE_LIMIT waits to be read: the end of it, once the answers to what was just read are written."""
        self.loop.call_soon(self.transport.abort)


def listen(bind: str, port: int, *, limit: int, owner: str) -> Listener:
    """An open listener. Raises ConfigError without the right to the port, TransientError when it cannot be had now."""
    return bound(
        lambda family: Listener(family, limit),
        bind,
        port,
        finish=lambda opened: opened.listen(),
        owner=owner,
    )


def silent_logger() -> logging.Logger:
    """For the library, which would print the headers of strangers and stations: the token is one of them."""
    logger = logging.Logger("websockets")  # noqa: LOG001  # no other part of the program shall get hold of it
    logger.disabled = True
    return logger
