"""A recorded Basics Station: it says again, byte for byte, what the real one said, and reads what it is told."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

RECORDED = Path(__file__).parents[1] / "vectors" / "basics_station" / "lns_eu868.jsonl"
_TEXT, _CLOSE = 0x1, 0x8


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the recording: the request of a connection, or a message."""

    at: float
    connection: int
    sender: Literal["station", "bridge"] = msgspec.field(name="from")
    request: tuple[str, ...] = ()
    message: msgspec.Raw = msgspec.Raw()

    @property
    def content(self) -> dict[str, Any]:
        """The message, read."""
        found: dict[str, Any] = json.loads(bytes(self.message))
        return found


def recording() -> tuple[dict[str, Any], list[Row]]:
    """What the recording says of itself, and its lines."""
    about, *lines = RECORDED.read_bytes().splitlines()
    return json.loads(about), [msgspec.json.decode(line, type=Row) for line in lines]


class RecordedStation:
    """One connection of the station, by hand: RFC 6455 as far as the protocol needs it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, request: tuple[str, ...]) -> RecordedStation:
        """Connect with the recorded request, but for the port that is another today."""
        station = cls(*await asyncio.open_connection("127.0.0.1", port))
        lines = [f"Host: 127.0.0.1:{port}" if line.startswith("Host: ") else line for line in request]
        station._writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await station._reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return station

    def say(self, message: bytes) -> None:
        """One text frame, masked."""
        self._frame(_TEXT, message)

    async def told(self) -> dict[str, Any]:
        """The next message; pings are for others to answer."""
        while True:
            first, length = await self._reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self._reader.readexactly(2), "big")
            payload = await self._reader.readexactly(length)
            if first & 0x0F == _TEXT:
                message: dict[str, Any] = json.loads(payload)
                return message
            assert first & 0x0F != _CLOSE, payload

    async def close(self) -> None:
        """As the station does: a close frame, and the end."""
        self._frame(_CLOSE, (1000).to_bytes(2, "big"))
        self._writer.close()
        await self._writer.wait_closed()

    def _frame(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._writer.write(bytes([0x80 | kind]) + length + mask + masked)
