"""MQTT over a signed WebSocket: against a relay to mosquitto, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from lorabridge.settings import ByteSize, Duration
from lorabridge.simulation.pki import Pair, Pki, new_ec_key
from lorabridge.simulation.standin import StandIn, StandInSettings
from lorabridge.upstream import aws_settings, provisioning
from lorabridge.upstream.aws_settings import AwsIotSettings, WebSocketSettings
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.websocket import WebSocketClient
from tests.mosquitto import Mosquitto, publishing, watching
from tests.pki import Authority
from tests.pki import Pair as PemPair
from tests.servers import ending
from tests.simulation.standin_help import CREDENTIALS, ROLE, lending, new_pki
from tests.upstream.harness import (
    DEVICE,
    ENDPOINT,
    GATEWAY,
    UPLINK_TOPIC,
    CommandInbox,
    Upstream,
    files,
    running,
    settings_with,
)
from tests.upstream.scripted_endpoint import ScriptedEndpoint, handshaking, serving
from tests.upstream.websocket_endpoint import SECRET, answering, http, lent

COMMAND_TOPIC = f"lorabridge/{GATEWAY}/cmd/{DEVICE}"
ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return new_pki(tmp_path_factory.mktemp("websocket"))


@pytest.fixture(scope="module")
def contexts(pki: Pki) -> Contexts:
    """Of a lender, who wants our certificate, and of an endpoint, which does not."""
    return server_context(pki, pki.server_credentials), server_context(pki, pki.server_ecdsa)


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def server_context(pki: Pki, pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if pair is pki.server_credentials:
        context.load_verify_locations(pki.devices.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def settings_for(pki: Pki, port: int, lender_port: int, **more: Any) -> AwsIotSettings:
    websocket = WebSocketSettings(
        credentials_endpoint=CREDENTIALS,
        connect_address=f"127.0.0.1:{lender_port}",
        role_alias=ROLE,
        region="eu-west-1",
    )
    usual = {"connect_timeout": Duration(20), "puback_timeout": Duration(20)}
    own = files(pki.ca_file, pki.gateway.certificate, pki.gateway.key)
    return settings_with(port, transport="websocket", websocket=websocket, **own | usual | more)


@asynccontextmanager
async def standing_in(pki: Pki, broker_port: int = 1, *pairs: Pair, **role: Any) -> AsyncIterator[StandIn]:
    """The stand-in with a role for these pairs or the gateway's, in front of a broker."""
    granted = lending(pki, **role)
    (policy,) = granted["policies"].values()
    rights = {pair.fingerprint: policy for pair in pairs or (pki.gateway,)}
    settings = StandInSettings(policies=rights, roles=granted["roles"], publishes_per_second=0, bytes_per_second=0)
    async with StandIn(settings, pki=pki, broker=("127.0.0.1", broker_port)) as standin:
        yield standin


def at(standin: StandIn, pki: Pki, **more: Any) -> AwsIotSettings:
    return settings_for(pki, standin.websocket_port, standin.credentials_port, **more)


async def connected(standin: StandIn, times: int) -> None:
    async with asyncio.timeout(30):
        await standin.until(lambda: standin.counters["connected"] == times)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_every_record_reaches_the_broker_and_commands_come_back(pki: Pki, tmp_path: Path, version: str) -> None:
    broker = Mosquitto(tmp_path, pki.ca_file, PemPair(pki.server_ecdsa.certificate, pki.server_ecdsa.key))
    broker.start()

    async def deliver(commands: CommandInbox) -> None:
        async with standing_in(pki, broker.plain_port) as standin:
            async with running(at(standin, pki, mqtt_version=version), commands=commands) as upstream:
                upstream.commit(300)
                upstream.commit(1, size=100_000)
                await upstream.outbox.until_empty()
                with publishing(broker.plain_port) as publisher:
                    await asyncio.to_thread(publisher.publish, COMMAND_TOPIC, b"x" * 3_000)
                (command,) = await commands.take(1)
                assert command.payload == b"x" * 3_000
                command.ack()
                assert upstream.drain.counters["resent"] == 0
            assert (standin.counters["lent"], standin.counters["connected"]) == (1, 1)

    try:
        with watching(broker.plain_port, UPLINK_TOPIC) as watcher:
            asyncio.run(deliver(CommandInbox()))
            arrived = watcher.take(301)
    finally:
        broker.kill()
    assert [int(payload) for _, payload in arrived] == list(range(1, 302))


class TestCredentials:
    def test_a_connection_that_was_cut_comes_back_with_the_same_ones_while_they_last(
        self, pki: Pki, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)

        async def deliver() -> set[str]:
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port) as standin,
                running(at(standin, pki)) as upstream,
            ):
                upstream.commit()
                await upstream.outbox.until_empty()
                standin.cut()
                await connected(standin, 2)
                upstream.commit()
                await upstream.outbox.until_empty()
                assert standin.counters["lent"] == 1
                (lease,) = standin._lending._leases.values()
                return {lease.lent.secret_access_key, lease.lent.session_token}

        secrets = {"Signature", *asyncio.run(deliver())}
        said = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
        assert not any(secret in line for line in said for secret in secrets)

    def test_what_is_signed_with_them_stays_in_no_cache(self, pki: Pki) -> None:
        async def deliver() -> None:
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port) as standin,
            ):
                cache: Any = urlsplit
                cache.cache_clear()
                async with running(at(standin, pki)):
                    await connected(standin, 1)
                assert cache.cache_info().currsize == 0

        asyncio.run(deliver())

    def test_those_that_end_within_five_minutes_are_fetched_anew(self, pki: Pki) -> None:
        async def deliver() -> None:
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port, lasts=240.0) as standin,
                running(at(standin, pki)) as upstream,
            ):
                upstream.commit()
                await upstream.outbox.until_empty()
                standin.cut()
                await connected(standin, 2)
                assert standin.counters["lent"] == 2

        asyncio.run(deliver())

    def test_those_that_the_endpoint_refuses_are_fetched_anew(self, pki: Pki) -> None:
        async def deliver() -> None:
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port) as standin,
                running(at(standin, pki)) as upstream,
            ):
                for times in (1, 2, 3):
                    upstream.commit()
                    await upstream.outbox.until_empty()
                    assert standin.counters["lent"] == times
                    standin.expire_credentials()
                    await connected(standin, times + 1)
                refused = await upstream.reported(lambda report: report.fault is LinkFault.WEBSOCKET_REFUSED)
                assert refused.detail == 'HTTP 403: b\'{"message":"Forbidden"}\''

        asyncio.run(deliver())

    def test_those_that_end_while_they_are_in_use_are_fetched_anew(self, pki: Pki) -> None:
        async def deliver() -> None:
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port, lasts=1.5) as standin,
                running(at(standin, pki)) as upstream,
            ):
                await connected(standin, 3)
                upstream.commit()
                await upstream.outbox.until_empty()
                assert standin.counters["credentials"] >= 2

        asyncio.run(deliver())

    def test_another_pair_in_the_files_fetches_its_own(self, pki: Pki, tmp_path: Path) -> None:
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        pairs = [pki.devices.client(GATEWAY, new_ec_key(), name) for name in ("first", "second")]

        def install(pair: Pair) -> None:
            for to, made in ((certificate, pair.certificate), (key, pair.key)):
                fresh = tmp_path / "fresh.pem"
                fresh.touch(mode=0o600)
                fresh.write_bytes(made.read_bytes())
                fresh.rename(to)

        async def deliver() -> None:
            install(pairs[0])
            changing = files(pki.ca_file, certificate, key)
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port, *pairs) as standin,
                running(at(standin, pki, **changing)) as upstream,
            ):
                upstream.commit()
                await upstream.outbox.until_empty()
                install(pairs[1])
                await connected(standin, 2)
                upstream.commit()
                await upstream.outbox.until_empty()
                await upstream.until(lambda: upstream.certificates == [None])
                assert standin.counters["lent"] == 2

        asyncio.run(deliver())

    @pytest.mark.parametrize(
        ("answer", "fault", "detail"),
        [
            (http(403, b"Access Denied"), LinkFault.CREDENTIALS_REFUSED, "HTTP 403: b'Access Denied'"),
            (http(404, b""), LinkFault.CREDENTIALS_REFUSED, "HTTP 404"),
            (http(429, b""), LinkFault.QUOTA_EXCEEDED, "HTTP 429"),
            (http(503, b""), LinkFault.SERVER_UNAVAILABLE, "HTTP 503"),
            (b"220 mail ready\r\n\r\n", LinkFault.CREDENTIALS_REFUSED, "no status line"),
            (b"", LinkFault.CREDENTIALS_REFUSED, "closed without an answer"),
            (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 9999, LinkFault.CREDENTIALS_REFUSED, "more than 16384 bytes"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", LinkFault.CREDENTIALS_REFUSED, "a length that"),
            (http(200, b'{"credentials": {}}'), LinkFault.CREDENTIALS_REFUSED, "no credentials: "),
            (http(200, SECRET.encode()), LinkFault.CREDENTIALS_REFUSED, "no credentials: JSON is malformed"),
            (
                http(200, lent(1, datetime(2026, 11, 1, tzinfo=UTC))),
                LinkFault.CREDENTIALS_REFUSED,
                "they ended at 2026-11-01 00:00:00 UTC by our clock: is it fast?",
            ),
            (
                http(200, lent(1, datetime.max.replace(tzinfo=UTC)).replace(b"59Z", b"59")),
                LinkFault.CREDENTIALS_REFUSED,
                "the expiration has no time zone",
            ),
        ],
    )
    def test_what_is_no_credentials_is_told_by_name_and_repeats_no_secret(
        self, pki: Pki, contexts: Contexts, answer: bytes, fault: LinkFault, detail: str
    ) -> None:
        async def dial() -> None:
            async with answering(contexts[0], answer) as lender:
                async with running(settings_for(pki, 1, lender.port)) as upstream:
                    report = await upstream.reported(lambda report: report.fault is fault)
                    assert report.detail.startswith("credentials endpoint: ")
                    assert detail in report.detail
                    assert SECRET not in report.detail
                    await upstream.until(lambda: upstream.link.counters[f"fault_{fault}"] >= 2)
                assert lender.asked[0].startswith(f"GET /role-aliases/{ROLE}/credentials HTTP/1.1\r\n")
                assert f"Host: {CREDENTIALS}\r\n" in lender.asked[0]
                assert f"x-amzn-iot-thingname: {GATEWAY}\r\n" in lender.asked[0]

        asyncio.run(dial())

    def test_a_lender_that_is_silent_is_named(self, pki: Pki, contexts: Contexts) -> None:
        async def dial() -> None:
            async with answering(contexts[0], None) as lender:
                settings = settings_for(pki, 1, lender.port, connect_timeout=Duration(2))
                async with running(settings) as upstream:
                    report = await upstream.reported(lambda report: report.fault is LinkFault.UNREACHABLE)
                    assert report.detail == "credentials endpoint: no answer after 1 s"

        asyncio.run(dial())

    def test_a_lender_that_does_not_know_our_certificate_is_named(
        self, pki: Pki, contexts: Contexts, tmp_path: Path
    ) -> None:
        stranger = Authority(tmp_path, "Another Root").client(GATEWAY)
        own = files(pki.ca_file, stranger.certificate, stranger.key)

        async def dial(port: int) -> None:
            async with running(settings_for(pki, 1, port, **own)) as upstream:
                report = await upstream.reported(lambda report: report.fault is LinkFault.CLIENT_CERTIFICATE_REFUSED)
                assert report.detail.startswith("credentials endpoint: ")

        with handshaking(contexts[0]) as port:
            asyncio.run(dial(port))

    def test_a_lender_under_another_name_gets_nothing(self, pki: Pki, contexts: Contexts) -> None:
        async def dial() -> None:
            async with answering(contexts[1], None) as lender, running(settings_for(pki, 1, lender.port)) as upstream:
                report = await upstream.reported(lambda report: report.fault is LinkFault.SERVER_WRONG_NAME)
                assert report.detail.startswith("credentials endpoint: ")
                assert lender.asked == []

        asyncio.run(dial())


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def accepted(head: bytes, more: str = "Sec-WebSocket-Protocol: mqtt\r\n") -> bytes:
    """The answer that opens a WebSocket (RFC 6455 §4.2.2)."""
    key = next(line for line in head.decode().split("\r\n") if line.startswith("Sec-WebSocket-Key: ")).split(": ")[1]
    proof = base64.b64encode(hashlib.sha1((key + ACCEPT).encode()).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {proof}\r\n{more}\r\n"
    ).encode()


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """From a server: without a mask."""
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return bytes([fin << 7 | opcode]) + size + data


TEXT, BINARY, CLOSE, PING, PONG, CONT = 1, 2, 8, 9, 10, 0
CONNACK = b"\x20\x02\x00\x00"


async def client_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of the client, unmasked."""
    first, size = await reader.readexactly(2)
    assert size & 0x80, "a client masks (RFC 6455 §5.1)"
    length = size & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    mask = await reader.readexactly(4)
    data = await reader.readexactly(length)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


@asynccontextmanager
async def against(script: Script, pki: Pki, **more: Any) -> AsyncIterator[Upstream]:
    """A link that meets a server which reads the request, and then does what the script says."""
    bugs: list[Exception] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as bug:  # noqa: BLE001  # asyncio would only log it
            bugs.append(bug)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(pki, pki.server_ecdsa))
    async with (
        ending(server) as port,
        standing_in(pki) as lender,
        running(settings_for(pki, port, lender.credentials_port, **more)) as upstream,
    ):
        yield upstream
    assert bugs == []


class TestHandshake:
    @pytest.mark.parametrize(
        ("answer", "fault", "detail"),
        [
            (http(403, b"{}"), LinkFault.WEBSOCKET_REFUSED, "HTTP 403: b'{}'"),
            (http(200, b"<html>"), LinkFault.WEBSOCKET_REFUSED, "HTTP 200"),
            (http(503, b""), LinkFault.SERVER_UNAVAILABLE, "HTTP 503"),
            (http(429, b""), LinkFault.QUOTA_EXCEEDED, "HTTP 429"),
            (b"220 mail ready\r\n\r\n", LinkFault.WEBSOCKET_REFUSED, "no status line"),
            (b"", LinkFault.WEBSOCKET_REFUSED, "closed without an answer"),
            (b"HTTP/1.1 101 Sw", LinkFault.WEBSOCKET_REFUSED, "cut off"),
            (b"HTTP/1.1 101 OK\r\n" + b"A: b\r\n" * 9999, LinkFault.WEBSOCKET_REFUSED, "more than 16384 bytes"),
            (b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\n\r\n", LinkFault.WEBSOCKET_REFUSED, "Connection"),
        ],
    )
    def test_what_opens_no_websocket_is_told_by_name_and_repeats_no_secret(
        self, pki: Pki, answer: bytes, fault: LinkFault, detail: str
    ) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

        async def dial() -> None:
            async with against(script, pki) as upstream:
                report = await upstream.reported(lambda report: report.fault is fault)
                assert detail in report.detail
                assert "Signature" not in report.detail

        asyncio.run(dial())

    def test_a_server_that_closes_as_it_opens_is_left(self, pki: Pki) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accepted(await reader.readuntil(b"\r\n\r\n")) + frame(CLOSE, b"\x03\xf5"))
            await reader.read()

        async def dial() -> None:
            async with against(script, pki) as upstream:
                report = await upstream.reported(lambda report: report.fault is LinkFault.WEBSOCKET_REFUSED)
                assert report.detail == "WebSocket: closed by the other end: 1013 ''"

        asyncio.run(dial())

    def test_no_websocket_is_opened_without_tls(self) -> None:
        client = WebSocketClient(CallbackAPIVersion.VERSION2)
        client.speak_within(ENDPOINT, "/mqtt", 5.0)
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(RuntimeError, match="needs TLS"):
            client.connect(*listener.getsockname())

    @pytest.mark.parametrize("more", ["", "Sec-WebSocket-Protocol: soap\r\n", "Sec-WebSocket-Extensions: x\r\n"])
    def test_a_server_that_agrees_to_something_else_is_left(self, pki: Pki, more: str) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accepted(await reader.readuntil(b"\r\n\r\n"), more))
            assert await reader.read() == b"", "no CONNECT"

        async def dial() -> None:
            async with against(script, pki) as upstream:
                await upstream.reported(lambda report: report.fault is LinkFault.WEBSOCKET_REFUSED)

        asyncio.run(dial())

    def test_a_server_that_never_answers_is_left(self, pki: Pki) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 101 ")
            await reader.read()

        async def dial() -> None:
            async with against(script, pki, connect_timeout=Duration(2)) as upstream:
                report = await upstream.reported(lambda report: report.fault is LinkFault.NO_CONNACK)
                assert report.detail == "no answer to the WebSocket handshake"

        asyncio.run(dial())


class TestFrames:
    @pytest.mark.parametrize(
        ("sent", "detail"),
        [
            (frame(TEXT, b" \x02"), "text where MQTT is binary"),
            (frame(BINARY, CONNACK[:2], fin=False) + frame(BINARY, b""), "expected a continuation frame"),
            (b"\x82\x7f" + (256 * 1024 + 1).to_bytes(8, "big"), "exceeds limit"),
            (b"\xf2\x00", "reserved bits"),
            (frame(CLOSE, b"\x03\xf0no"), "closed by the other end: 1008 'no'"),
            (b"", ""),
        ],
    )
    def test_what_is_no_binary_message_in_its_bounds_ends_the_connection(
        self, pki: Pki, sent: bytes, detail: str
    ) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accepted(await reader.readuntil(b"\r\n\r\n")))
            await client_frame(reader)
            writer.write(sent)
            if sent:
                await reader.read()

        async def dial() -> None:
            async with against(script, pki) as upstream:
                report = await upstream.reported(lambda report: report.fault is LinkFault.CLOSED_BEFORE_CONNACK)
                assert detail in report.detail

        asyncio.run(dial())

    def test_frames_behind_the_handshake_pieces_and_pings_are_taken_and_the_close_is_said(self, pki: Pki) -> None:
        seen: list[tuple[int, bytes]] = []
        over = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            pieces = [frame(BINARY, CONNACK[:1], fin=False), frame(PING, b"still there?"), frame(CONT, CONNACK[1:])]
            writer.write(accepted(head) + b"".join(pieces))
            while not seen or seen[-1][0] != CLOSE:
                seen.append(await client_frame(reader))
                if seen[-1][1][:1] == b"\x32":  # PUBLISH with QoS 1, of status: acknowledge it
                    (size,) = struct.unpack_from(">H", seen[-1][1], 3 if seen[-1][1][1] & 0x80 else 2)
                    at = (3 if seen[-1][1][1] & 0x80 else 2) + 2 + size
                    writer.write(frame(BINARY, b"\x40\x02" + seen[-1][1][at : at + 2]))
            over.set()

        async def dial() -> None:
            async with against(script, pki) as upstream:
                await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            async with asyncio.timeout(20):
                await over.wait()

        asyncio.run(dial())
        assert (PONG, b"still there?") in seen
        assert seen[-2:] == [(BINARY, b"\xe0\x00"), (CLOSE, b"\x03\xe8")]

    def test_pings_whose_answers_are_not_read_end_the_connection(self, pki: Pki) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(accepted(await reader.readuntil(b"\r\n\r\n")))
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader's transport can
            while True:
                writer.write(frame(PING, b"x" * 125) * 500)
                await writer.drain()

        async def dial() -> None:
            async with against(script, pki) as upstream:
                report = await upstream.reported(lambda report: report.fault is LinkFault.CLOSED_BEFORE_CONNACK)
                assert "pings without end" in report.detail

        asyncio.run(dial())

    def test_a_reader_that_is_slow_gets_every_byte_once(self, pki: Pki) -> None:
        async def deliver() -> None:
            async with (
                serving(ScriptedEndpoint(), None) as broker,
                standing_in(pki, broker.port) as standin,
                running(at(standin, pki, max_bytes_per_second=ByteSize(0))) as upstream,
            ):
                await upstream.reported(lambda report: report.state is LinkState.ONLINE)
                broker.may_read.clear()
                upstream.commit(90, size=100_000)
                async with asyncio.timeout(60):
                    while upstream.link.counters["published"] < 90:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                broker.may_read.set()
                await upstream.outbox.until_empty()
                assert broker.published[0][1:] == [str(number) for number in range(1, 91)]

        asyncio.run(deliver())


def test_settings_that_cannot_work_are_named_with_what_to_do(pki: Pki) -> None:
    usual = {"backoff_base": Duration(1), "backoff_cap": Duration(120)}
    settings = settings_for(pki, 8883, 8444, **usual)
    assert aws_settings.check_form(settings, GATEWAY) == []
    wrong = WebSocketSettings(connect_address="here", credentials_endpoint="192.0.2.7", role_alias="a b")
    problems = aws_settings.check_form(msgspec.structs.replace(settings, websocket=wrong), GATEWAY)
    names = ["connect_address", "credentials_endpoint", "role_alias", "region"]
    assert [problem.where for problem in problems] == [f"aws_iot.websocket.{name}" for name in names]
    elsewhere = msgspec.structs.replace(settings.websocket, region="us-east-1")
    (problem,) = aws_settings.check_form(msgspec.structs.replace(settings, websocket=elsewhere), GATEWAY)
    assert problem.what == "is not the region of the endpoint"
    unused = msgspec.structs.replace(settings, websocket=WebSocketSettings(), transport="tls")
    assert aws_settings.check_form(unused, GATEWAY) == []


def test_a_websocket_is_dialled_at_port_443_without_alpn(pki: Pki) -> None:
    settings = msgspec.structs.replace(settings_for(pki, 1, 1), connect_address="")
    assert (settings.address, settings.alpn) == ((ENDPOINT, 443), "")
    plain = msgspec.structs.replace(settings, transport="tls", port=443)
    assert (plain.address, plain.alpn) == ((ENDPOINT, 443), "x-amzn-mqtt-ca")
    at_aws = msgspec.structs.replace(settings, websocket=WebSocketSettings(credentials_endpoint=CREDENTIALS))
    assert at_aws.credentials_address == (CREDENTIALS, 443)


def test_provisioning_goes_by_tls_whatever_the_transport(pki: Pki) -> None:
    asking = provisioning.connection_settings(settings_for(pki, 1, 1))
    assert asking.websocket is None
    assert isinstance(asking.tls, AwsIotSettings)
    assert asking.tls.transport == "tls"
