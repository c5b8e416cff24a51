"""A credentials provider that answers as a test says: what the stand-in never would."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from tests.servers import ending

SECRET = "only/the+signer=knows"


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
    """`answer` is all that is written for a request; None: nothing, for ever."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.asked: list[str] = []
        """Request heads."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.decode())
            if self._answer is None:
                await reader.read()
            else:
                writer.write(self._answer)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def answering(context: ssl.SSLContext, answer: bytes | None) -> AsyncIterator[Lender]:
    lender = Lender(answer)
    server = await asyncio.start_server(lender.serve, "127.0.0.1", 0, ssl=context)
    async with ending(server) as lender.port:
        yield lender
