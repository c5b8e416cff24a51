"""Answers that a web server may give, those that none should give, and what is made of them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.http import MAX_BODY, MAX_HEAD, BadResponseError, HttpConnection, Response, parse_head
from tests.servers import end

OK = b"HTTP/1.1 200 OK\r\n"


async def answers(*pieces: bytes) -> tuple[Response, bool, bytes]:
    """What a server that says this is understood to say, whether the connection goes on, and what it was asked."""
    asked = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.extend(await reader.readuntil(b"\r\n\r\n"))
        asked.extend(await reader.readexactly(3))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=MAX_HEAD)
    connection = HttpConnection(reader, writer)
    try:
        async with asyncio.timeout(20):
            response = await connection.post("/topics/a%2Fb?qos=1", "here:8443", b"abc")
        return response, connection.goes_on, bytes(asked)
    finally:
        connection.close()
        await end(server)


def understood(*pieces: bytes) -> tuple[int, bytes, bool]:
    response, goes_on, _ = asyncio.run(answers(*pieces))
    return response.status, response.body, goes_on


def test_a_request_says_what_http_asks_for_and_nothing_else() -> None:
    _, _, asked = asyncio.run(answers(OK, b"Content-Length: 0\r\n\r\n"))
    assert asked == b"POST /topics/a%2Fb?qos=1 HTTP/1.1\r\nHost: here:8443\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (OK + b"Content-Length: 2\r\n\r\nok", (200, b"ok", True)),
        (OK + b"content-length:2\r\nX-Y: \xe4\r\n\r\nok", (200, b"ok", True)),
        (OK + b"Content-Length: 2\r\nConnection: Close\r\n\r\nok", (200, b"ok", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", False)),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True)),
        (b"HTTP/1.1 403\r\n\r\nuntil the end", (403, b"until the end", False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n00A;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", None),
    ],
)
def test_an_answer_is_read_to_its_end(said: bytes, meant: tuple[int, bytes, bool] | None) -> None:
    meant = meant or (200, b"ok0123456789", True)
    assert understood(said) == meant
    assert understood(*(said[i : i + 1] for i in range(len(said)))) == meant


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Length: +2\r\n\r\nok",
        OK + b"Content-Length: 65537\r\n\r\n",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"A: 1\r\n folded\r\n\r\n",
        OK + b"A B: 1\r\n\r\n",
        OK + b"A : 1\r\n\r\n",
        OK + b"A: \0\r\n\r\n",
        OK + b"Content-Length: 9\r\n\r\nok",
        OK + b"Content-Length",
        OK + b"A: " + b"x" * MAX_HEAD,
        OK + b"\r\n" + b"x" * (MAX_BODY + 1),
        OK + b"Transfer-Encoding: chunked\r\n\r\nno\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: 1\r\n" * 101,
    ],
)
def test_what_is_ambiguous_too_large_or_cut_off_is_refused(said: bytes) -> None:
    with pytest.raises(BadResponseError):
        understood(said)


def test_a_server_that_hangs_up_has_not_answered() -> None:
    with pytest.raises(EOFError):
        understood()


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: OK + tail))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        head = parse_head(data + b"\r\n\r\n")
    except BadResponseError:
        return
    assert 100 <= head.status <= 599
    assert head.length is None or 0 <= head.length <= MAX_BODY
