"""Publishing over HTTPS against a real web server with TLS, and falling back to it while a real broker is away."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.events import EventKind
from lorabridge.settings import Duration
from lorabridge.upstream import aws_settings, tls
from lorabridge.upstream.aws_settings import AwsIotSettings, HttpsSettings
from lorabridge.upstream.batches import Packer
from lorabridge.upstream.drain import Drain
from lorabridge.upstream.fallback import Fallback
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.https_publish import ALPN_HTTP, HttpsPublisher
from lorabridge.upstream.link import LinkReport
from lorabridge.upstream.topics import Topics
from tests.mosquitto import Mosquitto, free_port
from tests.pki import Authority
from tests.servers import ending
from tests.upstream.harness import ENDPOINT, GATEWAY, UPLINK_TOPIC, MemoryOutbox, Upstream, link_settings
from tests.upstream.https_endpoint import HttpsEndpoint, https_endpoint
from tests.upstream.scripted_endpoint import ScriptedEndpoint, handshaking, server_context, serving

SECURITY_TOPIC = f"lorabridge/{GATEWAY}/security"


@pytest.fixture
def endpoint(authority: Authority) -> Iterator[HttpsEndpoint]:
    with https_endpoint(server_context(authority, authority.server(ENDPOINT))) as server:
        yield server


def https_settings(authority: Authority, at: int, *, mqtt_port: int = 1, **more: Any) -> AwsIotSettings:
    """Settings with HTTPS at this port of loopback; `requests`, `after` and `port` are those of `[aws_iot.https]`."""
    names = ("requests", "after", "port")
    https = HttpsSettings(connect_address=f"127.0.0.1:{at}", **{name: more.pop(name) for name in names if name in more})
    usual = {"connect_timeout": Duration(20), "puback_timeout": Duration(20)}
    settings = link_settings(authority, mqtt_port, **usual | more)
    assert isinstance(settings, AwsIotSettings)
    return msgspec.structs.replace(settings, fallback="https", https=https)


class Publishing:
    """An outbox that is drained by HTTPS alone."""

    def __init__(self, settings: AwsIotSettings) -> None:
        self.outbox = MemoryOutbox()
        self.https = HttpsPublisher(settings, random.Random(1), time.time, proved_after=0.0)
        packer = Packer(Topics(settings.topics, GATEWAY), GATEWAY)
        batching = settings.batching == "auto"
        self.drain = Drain(self.outbox, self.https, packer, batching=batching, retry_delay=0.01)

    def commit(self, count: int = 1, kind: EventKind = EventKind.UPLINK) -> None:
        self.drain.offer(self.outbox.commit(count, kind))

    async def trouble(self, fault: LinkFault) -> str:
        """The detail of a round that failed for this reason."""
        async with asyncio.timeout(60):
            while self.https.trouble is None or self.https.trouble.fault is not fault:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return self.https.trouble.detail


@asynccontextmanager
async def publishing(settings: AwsIotSettings) -> AsyncIterator[Publishing]:
    work = Publishing(settings)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work.https.run()), tasks.create_task(work.drain.run())]
        try:
            yield work
        finally:
            await work.https.stop(5.0)
            for task in running:
                task.cancel()


class TestPublishing:
    def test_every_record_arrives_once_and_its_200_deletes_it(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port)) as work:
                work.commit(200)
                await work.outbox.until_empty()
                assert work.https.counters["acknowledged"] == 200
                assert work.drain.counters["resent"] == 0

        asyncio.run(deliver())
        assert sorted(endpoint.taken) == sorted((UPLINK_TOPIC, b"%d" % number) for number in range(1, 201))
        assert 1 <= len(endpoint.clients) <= 8, "connections stay open"
        assert dict(part[0] for part in endpoint.clients[0]["subject"]) == {"commonName": GATEWAY}

    def test_requests_run_side_by_side_and_never_more_than_are_allowed(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        endpoint.may_answer.clear()

        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port, requests=4)) as work:
                work.commit(50)
                async with asyncio.timeout(60):
                    while endpoint.open_requests < 4:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                endpoint.may_answer.set()
                await work.outbox.until_empty()

        asyncio.run(deliver())
        assert endpoint.most_at_once == 4

    def test_a_server_that_closes_its_connections_costs_nothing(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        endpoint.closes_after_each = True

        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port, requests=2)) as work:
                for _ in range(10):
                    work.commit(2)
                    await work.outbox.until_empty()
                assert work.https.counters["rounds_failed"] == 0

        asyncio.run(deliver())
        assert len(endpoint.taken) == 20

    def test_the_rate_limit_holds(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        async def deliver() -> float:
            settings = https_settings(authority, endpoint.port, max_publishes_per_second=100)
            async with publishing(settings) as work:
                begin = time.monotonic()
                work.commit(100)
                await work.outbox.until_empty()
                return time.monotonic() - begin

        assert asyncio.run(deliver()) >= (100 - 100 / 4) / 100

    @pytest.mark.parametrize("status", [400, 403, 413])
    def test_a_record_that_is_refused_each_time_is_parked_and_the_rest_flows_on(
        self, authority: Authority, endpoint: HttpsEndpoint, status: int
    ) -> None:
        endpoint.answer = lambda topic: status if topic == SECURITY_TOPIC else 200

        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port)) as work:
                work.commit(5)
                work.commit(2, EventKind.SECURITY)
                for _ in range(100):
                    work.commit(1)
                    await work.outbox.until(lambda: len(work.outbox.rows) <= 2)
                    await asyncio.sleep(0.01)
                    if len(work.outbox.parked) == 2:
                        break
                assert set(work.outbox.parked) == {6, 7}
                assert all(SECURITY_TOPIC in reason for reason in work.outbox.parked.values())
                assert set(work.outbox.rows) == {6, 7}

        asyncio.run(deliver())
        assert Counter(endpoint.asked)[SECURITY_TOPIC] >= 10, "each had its five chances"

    def test_a_batch_that_is_refused_is_taken_apart_and_its_records_leave_alone(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        endpoint.answer = lambda topic: 413 if topic.endswith("/batch") else 200

        async def deliver() -> None:
            settings = https_settings(authority, endpoint.port, batching="auto", requests=2)
            async with publishing(settings) as work:
                work.outbox.commit(100)
                work.commit(1)
                await work.outbox.until_empty()
                assert work.drain.counters["batches_split"] >= 1
                assert work.outbox.parked == {}

        asyncio.run(deliver())
        alone = [payload for topic, payload in endpoint.taken if topic == UPLINK_TOPIC]
        assert sorted(set(alone)) == sorted(b"%d" % number for number in range(1, 102))

    @pytest.mark.parametrize(
        ("status", "fault"),
        [
            (429, LinkFault.QUOTA_EXCEEDED),
            (500, LinkFault.SERVER_UNAVAILABLE),
            (503, LinkFault.SERVER_UNAVAILABLE),
            (302, LinkFault.PROTOCOL_REFUSED),
            (0, LinkFault.CONNECTION_LOST),
        ],
    )
    def test_what_no_record_is_to_blame_for_has_a_name_and_parks_nothing(
        self, authority: Authority, endpoint: HttpsEndpoint, status: int, fault: LinkFault
    ) -> None:
        endpoint.answer = lambda _topic: status

        async def suffer() -> None:
            async with publishing(https_settings(authority, endpoint.port)) as work:
                work.commit(20)
                await work.trouble(fault)
                async with asyncio.timeout(60):
                    while work.https.counters["rounds_failed"] < 12:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                endpoint.answer = lambda _topic: 200
                await work.outbox.until_empty()
                assert work.outbox.parked == {}
                assert work.https.trouble is None

        asyncio.run(suffer())

    def test_rounds_that_fail_wait_longer_and_longer(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        endpoint.answer = lambda _topic: 503

        async def count() -> int:
            settings = https_settings(authority, endpoint.port, backoff_base=Duration(30), backoff_cap=Duration(60))
            async with publishing(settings) as work:
                work.commit(20)
                await work.trouble(LinkFault.SERVER_UNAVAILABLE)
                await asyncio.sleep(0.1)
                return work.https.counters["rounds_failed"]

        assert asyncio.run(count()) == 1
        assert len(endpoint.asked) <= 8

    def test_no_answer_is_a_fault_and_the_record_is_sent_again(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        endpoint.may_answer.clear()

        async def wait() -> None:
            async with publishing(https_settings(authority, endpoint.port, puback_timeout=Duration(0.2))) as work:
                work.commit(1)
                assert "0.2 s" in await work.trouble(LinkFault.PUBACK_TIMEOUT)
                endpoint.may_answer.set()
                await work.outbox.until_empty()

        asyncio.run(wait())

    def test_whom_we_dial_is_proved_both_ways(self, authority: Authority, tmp_path: Path) -> None:
        other = Authority(tmp_path, "Another Root")

        async def fail(port: int, fault: LinkFault) -> None:
            async with publishing(https_settings(authority, port)) as work:
                work.commit(1)
                await work.trouble(fault)

        with handshaking(server_context(authority, authority.server("another.example.net", file="wrong"))) as port:
            asyncio.run(fail(port, LinkFault.SERVER_WRONG_NAME))
        with handshaking(server_context(authority, other.server(ENDPOINT))) as port:
            asyncio.run(fail(port, LinkFault.SERVER_UNKNOWN_CA))
        with handshaking(server_context(other, authority.server(ENDPOINT))) as port:
            asyncio.run(fail(port, LinkFault.CLIENT_CERTIFICATE_REFUSED))
        asyncio.run(fail(free_port(), LinkFault.UNREACHABLE))

    def test_a_server_that_never_shakes_hands_is_told_from_one_that_is_not_there(self, authority: Authority) -> None:
        async def fail(port: int) -> None:
            async with publishing(https_settings(authority, port, connect_timeout=Duration(0.2))) as work:
                work.commit(20)
                await work.trouble(LinkFault.TLS_CLOSED)
                assert work.https.counters["connections"] <= 3, "those that waited did not dial after it"

        with socket.create_server(("127.0.0.1", 0)) as silent:
            asyncio.run(fail(silent.getsockname()[1]))

    @pytest.mark.parametrize(("port", "protocol"), [(8443, None), (443, ALPN_HTTP)])
    def test_on_port_443_alpn_says_that_it_is_https(
        self, authority: Authority, endpoint: HttpsEndpoint, port: int, protocol: str | None
    ) -> None:
        endpoint.context.set_alpn_protocols([ALPN_HTTP, tls.ALPN_MQTT])

        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port, port=port)) as work:
                work.commit(1)
                await work.outbox.until_empty()

        asyncio.run(deliver())
        assert endpoint.protocols == [protocol]

    @pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"])
    def test_what_is_no_http_acknowledges_nothing(self, authority: Authority, said: bytes) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            writer.close()

        async def suffer() -> None:
            context = server_context(authority, authority.server(ENDPOINT))
            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
            async with ending(server) as port, publishing(https_settings(authority, port)) as work:
                work.commit(1)
                await work.trouble(LinkFault.PROTOCOL_REFUSED)
                assert work.outbox.finished == []

        asyncio.run(suffer())

    def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used_again(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        endpoint.idle_limit = 0.05

        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port, requests=1)) as work:
                for number in range(1, 4):
                    work.commit(1)
                    await work.outbox.until_empty()
                    async with asyncio.timeout(60):
                        while endpoint.closed < number:  # noqa: ASYNC110
                            await asyncio.sleep(0.01)
                assert work.https.counters["connections"] == 3
                assert work.https.counters["rounds_failed"] == 0

        asyncio.run(deliver())

    def test_connections_rest_while_nothing_is_to_be_published(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        async def deliver() -> None:
            async with publishing(https_settings(authority, endpoint.port)) as work:
                work.commit(8)
                await work.outbox.until_empty()
                work.https.rest()
                async with asyncio.timeout(60):
                    while endpoint.closed < len(endpoint.clients):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

        asyncio.run(deliver())

    def test_our_own_bug_ends_it_and_is_not_called_a_fault(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        async def break_it() -> None:
            work = Publishing(https_settings(authority, endpoint.port))
            running = asyncio.create_task(work.https.run())
            await asyncio.sleep(0)
            work.https.publish(7, b"", 1)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await running

        asyncio.run(break_it())

    def test_the_end_of_the_process_cuts_what_is_under_way(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        endpoint.may_answer.clear()

        async def end() -> None:
            async with publishing(https_settings(authority, endpoint.port)) as work:
                work.commit(3)
                async with asyncio.timeout(60):
                    while endpoint.open_requests < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                await work.https.stop(0.0)
            assert len(work.outbox.rows) == 3

        asyncio.run(end())

    def test_a_stop_waits_for_what_is_under_way(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        endpoint.may_answer.clear()

        async def stop() -> None:
            async with publishing(https_settings(authority, endpoint.port)) as work:
                work.commit(3)
                async with asyncio.timeout(60):
                    while endpoint.open_requests < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                asyncio.get_running_loop().call_later(0.05, endpoint.may_answer.set)
                await work.https.stop(30.0)
                assert not work.https.has_room(1)
                await work.outbox.until_empty()

        asyncio.run(stop())


class Ways(Upstream):
    """Both ways, put together as the daemon does."""

    def __init__(self, settings: AwsIotSettings) -> None:
        super().__init__(settings)
        self.turns: list[bool] = []
        self.https = HttpsPublisher(settings, random.Random(1), time.time)
        self.fallback = Fallback(self.link, self.https, settings.https.after, self.turns.append)
        packer = Packer(Topics(settings.topics, GATEWAY), GATEWAY)
        self.drain = Drain(self.outbox, self.fallback, packer, retry_delay=0.01, on_parked=self._note_parked)

    def _note(self, report: LinkReport) -> None:
        super()._note(report)
        self.fallback.note(report)


@asynccontextmanager
async def both_ways(settings: AwsIotSettings) -> AsyncIterator[Ways]:
    ways = Ways(settings)
    async with asyncio.TaskGroup() as tasks:
        link = tasks.create_task(ways.link.run())
        others = [tasks.create_task(ways.drain.run()), tasks.create_task(ways.https.run())]
        try:
            yield ways
        finally:
            await ways.link.stop(5.0)
            await link
            await ways.https.stop(5.0)
            for task in others:
                task.cancel()


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(tmp_path, authority.file, authority.server(ENDPOINT, file="broker"))
    try:
        yield mosquitto
    finally:
        mosquitto.kill()


class TestFallingBack:
    def test_records_leave_by_https_while_the_broker_is_away_and_by_mqtt_when_it_is_back(
        self, authority: Authority, endpoint: HttpsEndpoint, broker: Mosquitto
    ) -> None:
        async def deliver() -> None:
            settings = https_settings(authority, endpoint.port, mqtt_port=broker.port, after=3)
            async with both_ways(settings) as ways:
                ways.commit(100)
                await ways.outbox.until_empty()
                assert (ways.turns, len(endpoint.taken)) == ([True], 100)
                assert ways.link.counters["fault_unreachable"] >= 3
                broker.start()
                await ways.until(lambda: ways.link.report.state is LinkState.ONLINE)
                ways.commit(100)
                await ways.outbox.until_empty()
                assert ways.turns == [True, False]
                assert (len(endpoint.taken), ways.link.counters["acknowledged"]) == (100, 100)
                broker.kill()
                await ways.until(lambda: ways.turns == [True, False, True])
                ways.commit(100)
                await ways.outbox.until_empty()
                assert ways.outbox.parked == {}
            assert sorted(ways.outbox.finished) == list(range(1, 301))

        asyncio.run(deliver())

    def test_an_endpoint_that_never_answers_the_connect_is_a_block(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        async def deliver() -> None:
            context = server_context(authority, authority.server(ENDPOINT, file="silent"))
            async with serving(ScriptedEndpoint(connack=None), context) as silent:
                settings = https_settings(
                    authority, endpoint.port, mqtt_port=silent.port, after=2, connect_timeout=Duration(1)
                )
                async with both_ways(settings) as ways:
                    ways.commit(20)
                    await ways.outbox.until_empty()
                    assert ways.link.counters["fault_no_connack"] >= 2

        asyncio.run(deliver())

    def test_a_port_that_says_nothing_at_all_is_a_block(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        async def deliver(port: int) -> None:
            settings = https_settings(authority, endpoint.port, mqtt_port=port, after=2, connect_timeout=Duration(1))
            async with both_ways(settings) as ways:
                ways.commit(20)
                await ways.outbox.until_empty()
                assert ways.turns == [True]

        with socket.create_server(("127.0.0.1", 0)) as silent:
            asyncio.run(deliver(silent.getsockname()[1]))

    def test_poison_is_found_although_mqtt_fails_all_the_while(
        self, authority: Authority, endpoint: HttpsEndpoint
    ) -> None:
        endpoint.answer = lambda topic: 403 if topic == SECURITY_TOPIC else 200

        async def deliver() -> None:
            settings = https_settings(authority, endpoint.port, mqtt_port=free_port(), after=1)
            async with both_ways(settings) as ways:
                ways.commit(1, EventKind.SECURITY)
                for _ in range(1000):
                    ways.commit(1)
                    await ways.outbox.until(lambda: len(ways.outbox.rows) <= 1)
                    await asyncio.sleep(0.01)
                    if ways.outbox.parked:
                        break
                assert list(ways.outbox.parked) == [1]

        asyncio.run(deliver())

    def test_a_handful_of_failures_is_no_block(self, authority: Authority, endpoint: HttpsEndpoint) -> None:
        async def fail() -> None:
            settings = https_settings(authority, endpoint.port, mqtt_port=free_port(), after=1000)
            async with both_ways(settings) as ways:
                ways.commit(1)
                await ways.until(lambda: ways.link.counters["fault_unreachable"] >= 5)
                assert (ways.turns, endpoint.asked) == ([], [])

        asyncio.run(fail())


class _Nothing:
    """A way that is never used."""

    def attach(self, listener: object) -> None:
        """Nobody is told."""

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        return size < 0 and patient

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        raise AssertionError((topic, payload, key))

    def flush(self) -> None:
        """Nothing waits."""


def _tries(note: Callable[[LinkReport], None], *faults: LinkFault | None) -> None:
    """Tries of MQTT that end so; None: one that comes up. Each failure is reported twice, as the link does."""
    for fault in faults:
        note(LinkReport(state=LinkState.CONNECTING))
        for _ in range(2):
            note(LinkReport(state=LinkState.ONLINE if fault is None else LinkState.WAITING, fault=fault))


@pytest.mark.parametrize(
    ("faults", "turns"),
    [
        ([LinkFault.UNREACHABLE] * 2, []),
        ([LinkFault.UNREACHABLE, LinkFault.TLS_CLOSED, LinkFault.NO_CONNACK], [True]),
        ([LinkFault.UNREACHABLE] * 9, [True]),
        ([LinkFault.UNREACHABLE] * 2 + [LinkFault.CONNECT_NOT_AUTHORIZED] + [LinkFault.UNREACHABLE] * 2, []),
        ([LinkFault.UNREACHABLE] * 2 + [None] + [LinkFault.UNREACHABLE] * 2, []),
        ([LinkFault.UNREACHABLE] * 3 + [LinkFault.SERVER_EXPIRED], [True]),
        ([LinkFault.UNREACHABLE] * 3 + [None], [True, False]),
        ([LinkFault.NAME_NOT_RESOLVED] * 9, []),
    ],
)
def test_three_blocked_tries_in_a_row_turn_to_https_and_the_first_connack_turns_back(
    faults: list[LinkFault | None], turns: list[bool]
) -> None:
    told: list[bool] = []
    fallback = Fallback(_Nothing(), _Nothing(), 3, told.append)
    _tries(fallback.note, *faults)
    assert told == turns


def test_a_wrong_address_for_https_is_told_with_its_place(authority: Authority) -> None:
    settings = https_settings(authority, 1, backoff_base=Duration(1), backoff_cap=Duration(60))
    assert aws_settings.check_form(settings, GATEWAY) == []
    wrong = msgspec.structs.replace(settings, https=HttpsSettings(connect_address="here"))
    assert [problem.where for problem in aws_settings.check_form(wrong, GATEWAY)] == ["aws_iot.https.connect_address"]
    assert msgspec.structs.replace(settings, https=HttpsSettings(port=443)).https_address == (ENDPOINT, 443)
