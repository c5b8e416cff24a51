"""A TLS server that speaks just enough MQTT 3.1.1 to misbehave on purpose."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from tests.pki import Authority, Pair

CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 12, 13, 14


def server_context(authority: Authority, server: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class ScriptedEndpoint:
    """`on_publish(topic)` says what a publish is answered with: "ack", "silence" or "close"."""

    def __init__(
        self, *, connack: bytes | None = b"\x20\x02\x00\x00", on_publish: Callable[[str], str] = lambda _topic: "ack"
    ) -> None:
        """`connack` None: CONNECT is never answered; empty: answered by closing."""
        self.connack = connack
        self.on_publish = on_publish
        self.answers_pings = True
        self.before_puback = b""
        """Written in one TLS record with each PUBACK."""
        self.pinged = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.port = 0
        self.connects: list[float] = []
        self.published: list[list[str]] = []
        """Payloads by connection."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.may_read.wait()
            kind, body = await _packet(reader)
            if kind >> 4 == CONNECT:
                self.connects.append(asyncio.get_running_loop().time())
                self.published.append([])
                if self.connack is not None:
                    writer.write(self.connack)
                    if self.connack[3:4] != b"\x00":
                        return
            elif kind >> 4 == PUBLISH:
                (size,) = struct.unpack_from(">H", body)
                topic = body[2 : 2 + size].decode()
                self.published[-1].append(body[4 + size :].decode().strip("\0 "))
                answer = "ack" if topic.endswith("/status") else self.on_publish(topic)
                if answer == "close":
                    return
                if answer == "ack":
                    writer.write(self.before_puback + bytes([PUBACK << 4, 2]) + body[2 + size : 4 + size])
            elif kind >> 4 == PINGREQ and self.answers_pings:
                self.pinged.set()
                writer.write(bytes([PINGRESP << 4, 0]))
            elif kind >> 4 == DISCONNECT:
                return


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind, await reader.readexactly(length)


@contextmanager
def handshaking(context: ssl.SSLContext) -> Iterator[int]:
    """A port where handshakes are tried on blocking sockets: asyncio's servers swallow the alert of a refusal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(1)

        thread = threading.Thread(target=shake)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@asynccontextmanager
async def serving(endpoint: ScriptedEndpoint, context: ssl.SSLContext | None) -> AsyncIterator[ScriptedEndpoint]:
    server = await asyncio.start_server(endpoint._serve, "127.0.0.1", 0, ssl=context)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
        await server.wait_closed()
