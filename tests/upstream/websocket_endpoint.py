"""The two servers of MQTT over WebSocket on loopback: one lends credentials, one relays what is signed to a broker."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from lorabridge.upstream.sigv4 import TemporaryCredentials, websocket_target
from tests.servers import ending

SECRET = "only/the+signer=knows"
REGION = "eu-west-1"


def lent(number: int, ends: datetime) -> bytes:
    """What the credentials provider answers the `number`th time."""
    said = {
        "accessKeyId": f"ASIA{number}",
        "secretAccessKey": SECRET,
        "sessionToken": f"token/{number}+=",
        "expiration": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
    }
    return json.dumps({"credentials": said}).encode()


def http(status: int, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Lender:
    """`answer(number)` is all that is written for the `number`th request; None: nothing, for ever."""

    def __init__(self) -> None:
        self.lasts = timedelta(hours=1)
        self.answer: Callable[[int], bytes | None] = lambda number: http(
            200, lent(number, datetime.now(UTC) + self.lasts)
        )
        self.asked: list[str] = []
        """Request heads."""
        self.clients: list[Any] = []
        """The certificate of each."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.decode())
            self.clients.append(writer.get_extra_info("peercert"))
            answer = self.answer(len(self.asked))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()


class Relay:
    """A WebSocket server that takes what is signed rightly, and relays its bytes to a broker on a plain port."""

    def __init__(self, endpoint: str, broker_port: int) -> None:
        self._endpoint = endpoint
        self._broker_port = broker_port
        self.port = 0
        self.refuses: set[str] = set()
        """Access keys that are answered with 403."""
        self.used: list[str] = []
        """The access key of each handshake."""
        self.subprotocols: list[str | None] = []
        self.connections: list[ServerConnection] = []
        self.chunk = 1 << 20
        """Bytes of MQTT in a message to the client."""

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        """403 for a signature that is not ours of that second, as AWS IoT does it."""
        query = parse_qs(urlsplit(request.path).query, strict_parsing=True)
        key = query["X-Amz-Credential"][0].partition("/")[0]
        self.used.append(key)
        at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        with_token = TemporaryCredentials(key, SECRET, query["X-Amz-Security-Token"][0], at)
        is_signed = request.path == websocket_target(self._endpoint, REGION, with_token, at)
        if request.headers["Host"] != self._endpoint or not is_signed or key in self.refuses:
            return connection.respond(HTTPStatus.FORBIDDEN, '{"message":"Forbidden"}')
        return None

    async def handle(self, connection: ServerConnection) -> None:
        self.subprotocols.append(connection.subprotocol)
        self.connections.append(connection)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._broker_port)

        async def to_client() -> None:
            while data := await reader.read(self.chunk):
                await connection.send(data)
            await connection.close()

        back = asyncio.create_task(to_client())
        try:
            async for message in connection:
                assert isinstance(message, bytes)
                writer.write(message)
        except ConnectionClosed:
            pass
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            writer.close()


@asynccontextmanager
async def lending(context: ssl.SSLContext) -> AsyncIterator[Lender]:
    lender = Lender()
    server = await asyncio.start_server(lender.serve, "127.0.0.1", 0, ssl=context)
    async with ending(server) as lender.port:
        yield lender


@asynccontextmanager
async def relaying(endpoint: str, broker_port: int, context: ssl.SSLContext) -> AsyncIterator[Relay]:
    relay = Relay(endpoint, broker_port)
    async with serve(
        relay.handle,
        "127.0.0.1",
        0,
        ssl=context,
        subprotocols=[Subprotocol("mqtt")],
        process_request=relay.check,
        compression=None,
        max_size=None,
    ) as server:
        relay.port = next(iter(server.sockets)).getsockname()[1]
        yield relay
