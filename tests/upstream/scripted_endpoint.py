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
from tests.servers import ending

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


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
        self.suback: bytes | None = b"\x01"
        """What SUBACK grants, all bytes after the packet id; None: never answered; empty: answered by closing."""
        self.last_words = b""
        """Written before closing in answer to SUBSCRIBE."""
        self.subscribed: list[str] = []
        """Filters."""
        self.pubacks: list[int] = []
        """Packet ids that the client has acknowledged."""
        self.changed = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self.before_puback = b""
        """Written in one TLS record with each PUBACK."""
        self.pinged = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.port = 0
        self.connects: list[float] = []
        self.published: list[list[str]] = []
        """Payloads by connection."""

    def send(self, topic: bytes, payload: bytes, packet_id: int) -> None:
        """Publish to the client, with QoS 1, or with QoS 0 when `packet_id` is 0."""
        identifier = packet_id.to_bytes(2, "big") if packet_id else b""
        body = len(topic).to_bytes(2, "big") + topic + identifier + payload
        size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
        assert self._writer is not None
        self._writer.write(bytes([PUBLISH << 4 | (2 if packet_id else 0)]) + size + body)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a SUBSCRIBE, a PUBACK or a record that makes it true."""
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until we close, or the client says DISCONNECT."""
        self._writer = writer
        answers = {
            CONNECT: self._connect,
            PUBLISH: self._publish,
            SUBSCRIBE: self._subscribe,
            PUBACK: self._puback,
            PINGREQ: self._ping,
        }
        goes_on = True
        while goes_on:
            await self.may_read.wait()
            kind, body = await _packet(reader)
            self.changed.set()
            goes_on = kind >> 4 != DISCONNECT and answers[kind >> 4](writer, body)

    # Each answers a packet, and says whether the connection goes on.

    def _connect(self, writer: asyncio.StreamWriter, _body: bytes) -> bool:
        self.connects.append(asyncio.get_running_loop().time())
        self.published.append([])
        if self.connack is None:
            return True
        writer.write(self.connack)
        return self.connack[3:4] == b"\x00"

    def _publish(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        (size,) = struct.unpack_from(">H", body)
        topic = body[2 : 2 + size].decode()
        self.published[-1].append(body[4 + size :].decode().strip("\0 "))
        answer = "ack" if topic.endswith("/status") else self.on_publish(topic)
        if answer == "ack":
            writer.write(self.before_puback + bytes([PUBACK << 4, 2]) + body[2 + size : 4 + size])
        return answer != "close"

    def _subscribe(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        (size,) = struct.unpack_from(">H", body, 2)
        self.subscribed.append(body[4 : 4 + size].decode())
        if self.suback == b"":
            writer.write(self.last_words)
            return False
        if self.suback is not None:
            writer.write(bytes([SUBACK << 4, 2 + len(self.suback)]) + body[:2] + self.suback)
        return True

    def _puback(self, _writer: asyncio.StreamWriter, body: bytes) -> bool:
        self.pubacks.append(int.from_bytes(body[:2], "big"))
        return True

    def _ping(self, writer: asyncio.StreamWriter, _body: bytes) -> bool:
        if self.answers_pings:
            self.pinged.set()
            writer.write(bytes([PINGRESP << 4, 0]))
        return True


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
    async with ending(server) as endpoint.port:
        yield endpoint
