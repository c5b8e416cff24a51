"""The network between the bridge and the endpoint, on a loop of its own: it forwards, until it is told to misbehave."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK = 4096
_TIMEOUT = 20
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time at all: closing sends RST."""
_TCP_ESTABLISHED = 1


class _Way:
    """One client's connection and the one to the endpoint that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, endpoint: asyncio.StreamWriter) -> None:
        self.client, self.endpoint = client, endpoint
        self.said = 0
        """Bytes that the client sent."""
        self.pumps: list[asyncio.Task[None]] = []

    def leave(self) -> None:
        """Stop forwarding; nobody is told."""
        for pump in self.pumps:
            pump.cancel()


def _reset(end: asyncio.StreamWriter) -> None:
    with suppress(OSError, ValueError):
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()


def _has_left(end: asyncio.StreamWriter) -> bool:
    """Whether the other side has closed its end, though not all that it said was read yet."""
    try:
        state = end.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:  # and we know it already
        return True
    return bool(state[0] != _TCP_ESTABLISHED)


class Relay:
    """Forwards from its `port` on loopback to another. Made by `relaying`."""

    def __init__(self, target: int, stopped: asyncio.Event) -> None:
        self._target = target
        self._stopped = stopped
        self._loop = asyncio.get_running_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._bytes_per_second = self._cut_after = 0
        self._ways: list[_Way] = []
        self._silent: list[_Way] = []
        self._server: asyncio.Server
        self.port = 0
        self.accepted: list[float] = []
        """When each connection was begun, monotonic seconds: what reaches the endpoint of them is another question."""

    async def serve(self) -> None:
        """Listen, until stopped; then everything is closed."""
        # A small window, so that a slow network is felt by who sends.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _CHUNK)
        sock.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._welcome, sock=sock, limit=_CHUNK)
        self.port = sock.getsockname()[1]

    async def until_stopped(self) -> None:
        """And closes everything."""
        await self._stopped.wait()
        self._server.close()
        self._cut()
        for way in self._silent:
            _reset(way.client)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def cut(self) -> None:
        """RST on every connection, both ways; new ones are welcome."""
        self._call(self._cut)

    def half_open(self) -> None:
        """The endpoint loses every connection, and the client hears nothing of it, now or later; new ones work."""
        self._call(self._half_open)

    def hold(self, on: bool) -> None:
        """While on, nothing gets through either way, on connections old and new; nothing is closed."""
        self._call(self._open.clear if on else self._open.set)

    def swallow(self) -> Callable[[], None]:
        """Hold everything, until what is given back is called."""
        self.hold(on=True)
        return lambda: self.hold(on=False)

    def slow(self, bytes_per_second: int) -> None:
        """So much each way of each connection; 0: as much as there is."""

        def set_rate() -> None:
            self._bytes_per_second = bytes_per_second

        self._call(set_rate)

    def cut_after(self, n_bytes: int) -> None:
        """RST on each connection as soon as its client has sent more than so many bytes; 0: not any more."""

        def set_limit() -> None:
            self._cut_after = n_bytes

        self._call(set_limit)

    def _call(self, step: Callable[[], None]) -> None:
        async def on_loop() -> None:
            step()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(_TIMEOUT)

    def _cut(self) -> None:
        for way in self._ways:
            way.leave()
            for end in (way.client, way.endpoint):
                _reset(end)
        self._ways.clear()

    def _half_open(self) -> None:
        for way in self._ways:
            way.leave()
            way.client.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed has the base class
            _reset(way.endpoint)
        self._silent += self._ways
        self._ways.clear()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(time.monotonic())
        await self._open.wait()
        if _has_left(writer):  # what it said meanwhile would have been lost on the way
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
        except OSError:
            _reset(writer)
            return
        way = _Way(writer, far_writer)
        self._ways.append(way)
        pumps = ((reader, far_writer), (far_reader, writer))
        way.pumps = [asyncio.create_task(self._pump(*pump, way)) for pump in pumps]
        await asyncio.wait(way.pumps)
        if way in self._ways:  # both have ended by themselves
            self._ways.remove(way)
            for end in (way.client, way.endpoint):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._open.wait()
                if writer is way.endpoint:
                    way.said += len(data)
                if 0 < self._cut_after < way.said:
                    _reset(way.client)
                    _reset(way.endpoint)
                    return
                if self._bytes_per_second:
                    await asyncio.sleep(len(data) / self._bytes_per_second)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            _reset(writer)


@contextmanager
def relaying(target: int) -> Iterator[Relay]:
    """A relay to a port of loopback."""
    ready = threading.Event()
    made: list[tuple[Relay, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stopped = asyncio.Event()
        relay = Relay(target, stopped)
        await relay.serve()
        made.append((relay, asyncio.get_running_loop(), stopped))
        ready.set()
        await relay.until_stopped()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="relay")
    thread.start()
    assert ready.wait(_TIMEOUT), "the relay does not start"
    ((relay, loop, stopped),) = made
    try:
        yield relay
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(_TIMEOUT)
    assert not thread.is_alive(), "the relay does not stop"
