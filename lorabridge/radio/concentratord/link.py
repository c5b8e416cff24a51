"""The two ZeroMQ sockets to Concentratord. Only a bridge with such a radio imports this module, and pyzmq with it."""

from __future__ import annotations

import asyncio
from typing import Final

import zmq
import zmq.asyncio

from lorabridge.errors import TransientError

MESSAGE_LIMIT: Final = 65_536
"""Bytes of one ZeroMQ frame; libzmq cuts off a peer that sends a longer one, for good: what follows is silence."""
EVENTS_WAITING: Final = 1000
"""Events that libzmq keeps while the loop is busy; what comes after is lost."""
_CLOSED: Final = "the link to Concentratord is closed"
_OPTIONS: Final = {
    zmq.LINGER: 0,
    zmq.MAXMSGSIZE: MESSAGE_LIMIT,
    zmq.RCVHWM: EVENTS_WAITING,
    zmq.IMMEDIATE: 1,  # a command waits here, not at a peer that is away
    zmq.RECONNECT_IVL_MAX: 2000,
    zmq.IPV6: 1,
}


class Link:
    """A subscription to the events, and the commands: one at a time, each with its answer.

    A REQ socket that got no answer can never be used again, so it is thrown away and the next command has a new one;
    what it had not sent yet goes with it, so that no frame is sent by a Concentratord that starts later.
    """

    def __init__(self, event_url: str, command_url: str) -> None:
        """Connecting is libzmq's own business, again and again. Raises TransientError for a bad address."""
        self._context = zmq.asyncio.Context()
        self._command_url = command_url
        self._commands: zmq.asyncio.Socket | None = None
        self._turn = asyncio.Lock()
        self._is_closed = False
        try:
            self._events = self._open(zmq.SUB, event_url)
        except TransientError:
            self.close()
            raise
        self._events.setsockopt(zmq.SUBSCRIBE, b"")

    async def event(self) -> list[bytes]:
        """The frames of the next event."""
        return await self._events.recv_multipart()

    async def ask(self, frames: list[bytes], limit: float) -> list[bytes]:
        """The frames of the answer. Raises TimeoutError after `limit` seconds, TransientError when there is no link."""
        async with asyncio.timeout(limit), self._turn:
            if self._is_closed:
                raise TransientError(_CLOSED)
            if self._commands is None:
                self._commands = self._open(zmq.REQ, self._command_url)
            commands = self._commands
            try:
                await commands.send_multipart(frames)
                return await commands.recv_multipart()
            except BaseException as error:
                commands.close(linger=0)
                self._commands = None
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
                    raise TransientError(_CLOSED) from None  # pyzmq cancels what waits at a socket that is closed
                raise

    def close(self) -> None:
        """Let go of both sockets; whoever waits for an answer gets TransientError."""
        self._is_closed = True
        self._context.destroy(linger=0)

    def _open(self, kind: int, url: str) -> zmq.asyncio.Socket:
        """A socket of ours. Raises TransientError."""
        try:
            opened = self._context.socket(kind)
            for option, value in _OPTIONS.items():
                opened.setsockopt(option, value)
            opened.connect(url)
        except zmq.ZMQError as error:
            raise TransientError(f"{url}: {error}") from None
        return opened
