"""HTTP/1.1 as a client that sends small requests to one server and trusts none of its answers (RFC 9112).

One request at a time on a connection that stays open between them. Whatever is ambiguous is refused: two lengths,
a length and a coding, folded lines, bytes that no token has; and an answer is never larger than we have room for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec

MAX_HEAD = 16 * 1024
"""Bytes of a status line with its headers."""
MAX_BODY = 64 * 1024
_MAX_TRAILERS = 100
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*?)[\t ]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_EMPTY_STATUSES = (204, 304)


class BadResponseError(Exception):
    """What came is no HTTP/1.1, or too large."""


class Head(msgspec.Struct, frozen=True):
    """The part of an answer that says how to read the rest."""

    status: int
    length: int | None
    """Bytes of the body; None: chunked, or until the connection ends."""
    is_chunked: bool
    goes_on: bool
    """Whether the connection stays open."""


class Response(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    body: bytes


def parse_head(data: bytes) -> Head:
    """Status line and headers, the empty line included. Raises BadResponseError."""
    first, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise BadResponseError(f"no status line of HTTP/1.1: {_shown(first)}")
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadResponseError(f"no header: {_shown(line)}")
        fields.setdefault(field[1].lower(), []).append(field[2])
    status = int(status_line[2])
    is_chunked, length = _framing(fields)
    options = {option.strip().lower() for text in fields.get(b"connection", []) for option in text.split(b",")}
    has_end = is_chunked or length is not None or status in _EMPTY_STATUSES
    keeps = b"keep-alive" in options if status_line[1] == b"0" else b"close" not in options
    return Head(status, 0 if status in _EMPTY_STATUSES else length, is_chunked, has_end and keeps)


def _framing(fields: dict[bytes, list[bytes]]) -> tuple[bool, int | None]:
    """Whether the body is chunked, and its length where that is known (RFC 9112 §6)."""
    codings, lengths = fields.get(b"transfer-encoding", []), fields.get(b"content-length", [])
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise BadResponseError("a coding other than chunked, or a length beside it")
        return True, None
    if not lengths:
        return False, None
    if len(lengths) > 1 or re.fullmatch(rb"[0-9]{1,9}", lengths[0]) is None or int(lengths[0]) > MAX_BODY:
        raise BadResponseError(f"a length that cannot be: {_shown(b', '.join(lengths))}")
    return False, int(lengths[0])


class HttpConnection:
    """An open connection. After any exception, a cancellation among them, it is of no further use: `close` it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`reader` must have been made with a limit of MAX_HEAD."""
        self._reader = reader
        self._writer = writer
        self.goes_on = True
        """Whether the last answer leaves it open."""

    @property
    def is_over(self) -> bool:
        """Whether it is known that the server has closed it."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def post(self, target: str, host: str, body: bytes) -> Response:
        """Send a request and read its answer. Raises BadResponseError, EOFError when none came, OSError."""
        head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode("ascii") + body)
        await self._writer.drain()
        head_data = await self._until(b"\r\n\r\n")
        found = parse_head(head_data)
        if found.status < 200:
            raise BadResponseError(f"status {found.status}, which nobody asked for")
        content = await self._body(found)
        self.goes_on = found.goes_on
        return Response(found.status, content)

    def close(self) -> None:
        """Close without waiting for anything."""
        self._writer.transport.abort()

    async def _until(self, end: bytes) -> bytes:
        try:
            return await self._reader.readuntil(end)
        except asyncio.LimitOverrunError:
            raise BadResponseError(f"more than {MAX_HEAD} bytes without an end") from None
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise BadResponseError("an answer that is cut off") from None
            raise EOFError("closed without an answer") from None

    async def _body(self, head: Head) -> bytes:
        if head.is_chunked:
            return await self._chunks()
        if head.length is not None:
            return await self._exactly(head.length)
        body = bytearray()
        while piece := await self._reader.read(MAX_BODY):
            body += piece
            _fits(len(body))
        return bytes(body)

    async def _chunks(self) -> bytes:
        """RFC 9112 §7.1; trailers are read over."""
        body = bytearray()
        while True:
            line = await self._until(b"\r\n")
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise BadResponseError(f"no chunk: {_shown(line)}")
            size = int(found[1], 16)
            _fits(len(body) + size)
            if size == 0:
                break
            body += await self._exactly(size)
            if await self._exactly(2) != b"\r\n":
                raise BadResponseError("a chunk longer than it says")
        for _ in range(_MAX_TRAILERS):
            if await self._until(b"\r\n") == b"\r\n":
                return bytes(body)
        raise BadResponseError("trailers without an end")

    async def _exactly(self, size: int) -> bytes:
        with contextlib.suppress(asyncio.IncompleteReadError):
            return await self._reader.readexactly(size)
        raise BadResponseError("an answer that is cut off")


def _fits(size: int) -> None:
    if size > MAX_BODY:
        raise BadResponseError(f"more than {MAX_BODY} bytes")


def _shown(data: bytes) -> str:
    """The beginning of something hostile, for a person."""
    return repr(data[:60])
