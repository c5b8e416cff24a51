from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import threading
import time
import tomllib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from lorabridge.errors import Problem
from lorabridge.settings import ByteSize, Duration, describe, read_table
from lorabridge.upstream import aws_settings, tls
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.connection import Connection, ConnectionSettings, Message
from lorabridge.upstream.faults import LinkDown, LinkFault, LinkState
from lorabridge.upstream.format_settings import UplinkFormat
from lorabridge.upstream.link import LinkReport
from tests.mosquitto import free_port
from tests.pki import Authority
from tests.upstream.harness import ENDPOINT, GATEWAY, Upstream, link_settings, running
from tests.upstream.scripted_endpoint import PINGRESP, ScriptedEndpoint, server_context, serving


def test_settings_are_read_from_toml_with_their_defaults() -> None:
    table = tomllib.loads(
        f"""
        endpoint = "{ENDPOINT}"
        thing_name = "gw-1"
        port = 443
        keep_alive = "5min"
        max_bytes_per_second = "256KiB"
        [topics]
        basic_ingest_rule = "lorawan"
        """
    )
    problems: list[Problem] = []
    settings = read_table(AwsIotSettings, table, "bridge.toml", problems, "aws_iot")
    assert problems == []
    assert settings is not None
    assert (settings.port, settings.keep_alive, settings.max_bytes_per_second) == (443, 300.0, 256 * 1024)
    assert settings.topics.basic_ingest_rule == "lorawan"
    assert (settings.mqtt_version, settings.tls_max, settings.in_flight) == ("3.1.1", "1.2", 100)


def test_every_setting_says_what_it_means() -> None:
    for field in msgspec.structs.fields(AwsIotSettings):
        assert describe(field.type), field.name


@pytest.mark.parametrize(
    ("toml", "where"),
    [
        ("port = 1883", "aws_iot.port"),
        ('mqtt_version = "3.1"', "aws_iot.mqtt_version"),
        ("in_flight = 101", "aws_iot.in_flight"),
        ("in_flight = 0", "aws_iot.in_flight"),
        ('tls_max = "1.1"', "aws_iot.tls_max"),
        ('keep_alive = "soon"', "aws_iot.keep_alive"),
        ('thing_name = ""', "aws_iot.thing_name"),
        ("tls_insecure = true", "aws_iot.tls_insecure"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(toml: str, where: str) -> None:
    table = {"endpoint": ENDPOINT, "thing_name": "gw-1"} | tomllib.loads(toml)
    problems: list[Problem] = []
    assert read_table(AwsIotSettings, table, "bridge.toml", problems, "aws_iot") is None
    assert [problem.where for problem in problems] == [f"bridge.toml: {where}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("keep_alive", 29), ("keep_alive", 1201), ("puback_timeout", 0), ("backoff_cap", 4000), ("connect_timeout", 0)],
)
def test_a_duration_out_of_range_is_a_problem(authority: Authority, name: str, value: float) -> None:
    usual = {"backoff_base": Duration(1), "backoff_cap": Duration(60)}
    settings = link_settings(authority, 8883, **usual | {name: Duration(value)})
    (problem,) = aws_settings.check_form(settings, GATEWAY)
    assert problem.where == f"aws_iot.{name}"
    assert "between" in problem.hint


def test_batches_go_with_our_own_form_of_uplinks_only(authority: Authority) -> None:
    usual = {"backoff_base": Duration(1), "backoff_cap": Duration(60), "batching": "auto"}
    assert aws_settings.check_form(link_settings(authority, 8883, **usual), GATEWAY) == []
    foreign = link_settings(authority, 8883, **usual, format=UplinkFormat.AWS_LORAWAN)
    (problem,) = aws_settings.check_form(foreign, GATEWAY)
    assert problem.where == "aws_iot.batching"


def test_problems_of_names_topics_and_ranges_are_told_together(authority: Authority) -> None:
    settings = link_settings(
        authority,
        8883,
        endpoint="10.0.0.1",
        thing_name="gw 1",
        keep_alive=Duration(1),
        backoff_base=Duration(1),
        backoff_cap=Duration(60),
    )
    problems = aws_settings.check_form(settings, "a/b", "bridge.toml: aws_iot")
    assert {problem.where.removeprefix("bridge.toml: aws_iot") for problem in problems} == {
        ".endpoint",
        ".topics",
        ".thing_name",
        ".keep_alive",
    }


class Ceilings(random.Random):
    """Remembers the ceilings it was asked to draw under, and draws nothing."""

    def __init__(self) -> None:
        super().__init__(0)
        self.asked: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append(b)
        return a


async def ceilings_of(authority: Authority, *, proved_after: float) -> list[float]:
    """What the back-off drew under while an endpoint acknowledged one record on each connection and then hung up."""
    context = server_context(authority, authority.server(ENDPOINT))
    acknowledged: list[int] = []

    def one_each(_topic: str) -> str:
        acknowledged.append(1)
        return "ack" if len(acknowledged) % 2 else "close"

    rng = Ceilings()
    async with (
        serving(ScriptedEndpoint(on_publish=one_each), context) as endpoint,
        running(link_settings(authority, endpoint.port), rng=rng, proved_after=proved_after) as upstream,
    ):
        upstream.commit(20)
        while len(rng.asked) < 5:
            upstream.reports.clear()
            await upstream.reported(lambda report: report.state is LinkState.CONNECTING)
    return rng.asked[:5]


def test_the_backoff_grows_while_connections_do_not_last_even_if_records_get_through(authority: Authority) -> None:
    assert asyncio.run(ceilings_of(authority, proved_after=20)) == pytest.approx([0.02, 0.04, 0.08, 0.1, 0.1])


def test_the_backoff_starts_over_once_the_link_has_proved_itself(authority: Authority) -> None:
    assert asyncio.run(ceilings_of(authority, proved_after=0)) == pytest.approx([0.02] * 5)


def test_connects_never_come_faster_than_the_interval(authority: Authority) -> None:
    async def hang_up() -> list[float]:
        context = server_context(authority, authority.server(ENDPOINT))
        async with serving(ScriptedEndpoint(connack=b""), context) as endpoint:
            rng = Ceilings()
            async with running(link_settings(authority, endpoint.port), rng=rng) as upstream:
                while len(endpoint.connects) < 10:
                    upstream.reports.clear()
                    await upstream.reported(lambda report: report.state is LinkState.CONNECTING)
                return endpoint.connects

    connects = asyncio.run(hang_up())
    assert (connects[-1] - connects[0]) / (len(connects) - 1) >= 0.009


def test_dialling_blocks_a_thread_of_its_own_and_never_the_loop(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial, the_loop_lives = socket.create_connection, threading.Event()
    threads: list[int] = []

    def waits_for_the_loop(*args: Any, **kwargs: Any) -> socket.socket:
        threads.append(threading.get_ident())
        assert the_loop_lives.wait(20), "the loop is stuck"
        return dial(*args, **kwargs)

    async def connect() -> None:
        monkeypatch.setattr(socket, "create_connection", waits_for_the_loop)
        context = server_context(authority, authority.server(ENDPOINT))
        async with (
            serving(ScriptedEndpoint(), context) as endpoint,
            running(link_settings(authority, endpoint.port)) as upstream,
        ):
            await upstream.reported(lambda report: report.state is LinkState.CONNECTING)
            for _ in range(100):
                await asyncio.sleep(0)
            the_loop_lives.set()
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            upstream.commit(10)
            await upstream.outbox.until_empty()

    asyncio.run(connect())
    assert threads
    assert threading.get_ident() not in threads


def test_a_look_up_that_hangs_holds_up_neither_stop_nor_a_second_thread(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    made: list[socket.socket] = []

    def hangs(*_args: Any, **_kwargs: Any) -> socket.socket:
        answer.wait(20)
        ours, theirs = socket.socketpair()
        theirs.close()
        made.append(ours)
        return ours

    async def give_up() -> None:
        monkeypatch.setattr(socket, "create_connection", hangs)
        async with running(link_settings(authority, 1, connect_timeout=Duration(0.05))) as upstream:
            await upstream.reported(lambda report: "still hangs" in report.detail)
            dialling = [thread for thread in threading.enumerate() if thread.name == "lorabridge-dial"]
            assert len(dialling) == 1
        assert upstream.link.report.state is LinkState.STOPPED
        answer.set()
        await asyncio.to_thread(dialling[0].join)

    asyncio.run(give_up())
    assert [sock.fileno() for sock in made] == [-1], "what came too late was closed"


def test_a_connection_given_up_between_the_handshake_and_the_loop_is_closed(authority: Authority) -> None:
    context = server_context(authority, authority.server(ENDPOINT))
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        peer.settimeout(20)
        with context.wrap_socket(peer, server_side=True) as tls:
            tls.recv(1024)  # CONNECT
            with contextlib.suppress(ConnectionError):
                if tls.recv(1) == b"":
                    ended.set()

    async def give_up(port: int) -> Connection:
        settings = link_settings(authority, port)
        link = AwsIot(settings, GATEWAY, status=lambda *_: b"", rng=random.Random(1))
        told = ConnectionSettings(
            tls=settings,
            context=partial(tls.build_context, settings),
            client_id=GATEWAY,
            mqtt_5=False,
            keep_alive=30,
            in_flight=1,
            connect_timeout=20.0,
            puback_timeout=20.0,
            will=Message("will", b""),
        )
        connection = Connection(told, link, time.time)
        connection.dial()
        (dialling,) = [thread for thread in threading.enumerate() if thread.name == "lorabridge-dial"]
        dialling.join(20)
        asyncio.get_running_loop().stop()  # the loop has not been told of the handshake yet, and never will be
        connection.drop(LinkDown(None))
        return connection

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=[listener])
        server.start()
        loop = asyncio.new_event_loop()
        given_up = loop.run_until_complete(give_up(listener.getsockname()[1]))
        loop.close()
        server.join(20)
        assert ended.is_set(), f"the peer still waits for {given_up}"


def test_a_connect_that_left_late_keeps_the_next_one_away_from_it(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial, delays = socket.create_connection, [0.6]

    def slow_at_first(*args: Any, **kwargs: Any) -> socket.socket:
        time.sleep(delays.pop() if delays else 0.0)
        return dial(*args, **kwargs)

    async def connect() -> list[float]:
        endpoint = ScriptedEndpoint(connack=b"")
        context = server_context(authority, authority.server(ENDPOINT))
        async with (
            serving(endpoint, context),
            running(link_settings(authority, endpoint.port), connect_interval=0.5),
        ):
            await endpoint.until(lambda: len(endpoint.connects) >= 2)
        return endpoint.connects

    monkeypatch.setattr(socket, "create_connection", slow_at_first)
    first, second, *_ = asyncio.run(connect())
    assert second - first >= 0.45


def test_a_peer_that_is_gone_when_connect_is_written_is_told_on_the_loop(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(authority, authority.server(ENDPOINT))
    is_gone = threading.Event()
    threads: list[int] = []
    shake, drop = tls.PinnedContext.wrap_socket, Connection.drop

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with context.wrap_socket(peer, server_side=True) as wrapped:
            wrapped.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by RST
        is_gone.set()

    def shake_and_wait(*args: Any, **kwargs: Any) -> ssl.SSLSocket:
        wrapped = shake(*args, **kwargs)
        assert is_gone.wait(20)
        return wrapped

    def note(self: Connection, reason: LinkDown) -> None:
        threads.append(threading.get_ident())
        drop(self, reason)

    async def connect(port: int) -> LinkReport:
        async with running(link_settings(authority, port)) as upstream:
            return await upstream.reported(lambda report: report.fault is not None)

    monkeypatch.setattr(tls.PinnedContext, "wrap_socket", shake_and_wait)
    monkeypatch.setattr(Connection, "drop", note)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=[listener])
        server.start()
        report = asyncio.run(connect(listener.getsockname()[1]))
        server.join(20)
    assert report.fault is LinkFault.CLOSED_BEFORE_CONNACK
    assert set(threads) == {threading.get_ident()}


def test_a_silent_network_is_noticed_by_the_keep_alive(authority: Authority) -> None:
    async def fall_silent() -> None:
        endpoint = ScriptedEndpoint()
        endpoint.answers_pings = False
        context = server_context(authority, authority.server(ENDPOINT))
        async with (
            serving(endpoint, context),
            running(link_settings(authority, endpoint.port, keep_alive=Duration(1))) as upstream,
        ):
            await upstream.reported(lambda report: report.fault is LinkFault.KEEP_ALIVE_TIMEOUT)

    asyncio.run(fall_silent())


def test_an_idle_link_is_kept_alive(authority: Authority) -> None:
    async def idle() -> None:
        context = server_context(authority, authority.server(ENDPOINT))
        endpoint = ScriptedEndpoint()
        async with (
            serving(endpoint, context),
            running(link_settings(authority, endpoint.port, keep_alive=Duration(1))) as upstream,
        ):
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            async with asyncio.timeout(20):
                await endpoint.pinged.wait()
            assert upstream.link.counters["drops"] == 0

    asyncio.run(idle())


def test_packets_that_share_a_tls_record_are_all_read_though_the_kernel_tells_only_once(authority: Authority) -> None:
    async def acknowledge() -> None:
        endpoint = ScriptedEndpoint()
        endpoint.before_puback = bytes([PINGRESP << 4, 0]) * 40
        context = server_context(authority, authority.server(ENDPOINT))
        async with (
            serving(endpoint, context),
            running(link_settings(authority, endpoint.port, puback_timeout=Duration(1))) as upstream,
        ):
            upstream.commit(1)
            await upstream.outbox.until_empty()
            assert upstream.link.counters["drops"] == 0
            assert len(endpoint.connects) == 1

    asyncio.run(acknowledge())


def test_the_receive_maximum_of_mqtt_5_narrows_the_window(authority: Authority) -> None:
    async def publish() -> None:
        receive_maximum_5 = b"\x20\x06\x00\x00\x03\x21\x00\x05"
        endpoint = ScriptedEndpoint(connack=receive_maximum_5, on_publish=lambda _topic: "silence")
        context = server_context(authority, authority.server(ENDPOINT))
        settings = {"mqtt_version": "5", "puback_timeout": Duration(0.2)}
        async with (
            serving(endpoint, context),
            running(link_settings(authority, endpoint.port, **settings)) as upstream,
        ):
            upstream.commit(50)
            await upstream.reported(lambda report: report.fault is LinkFault.PUBACK_TIMEOUT)
        assert endpoint.published[0] == ["online", "1", "2", "3", "4"], "the fifth place is for fresh ones"

    asyncio.run(publish())


def test_our_own_bug_is_not_retried_but_raised(authority: Authority) -> None:
    async def break_inside() -> None:
        def broken_status(state: str, _detail: str) -> bytes:
            if state == "online":
                raise ZeroDivisionError
            return b""

        context = server_context(authority, authority.server(ENDPOINT))
        async with serving(ScriptedEndpoint(), context) as endpoint:
            upstream = Upstream(link_settings(authority, endpoint.port), status=broken_status)
            async with asyncio.timeout(20):
                await upstream.link.run()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(break_inside())


def test_stopping_a_link_that_waits_for_its_next_try_is_quick(authority: Authority) -> None:
    async def wait_and_stop() -> None:
        settings = link_settings(authority, free_port(), backoff_base=Duration(60), backoff_cap=Duration(3600))
        async with running(settings) as upstream:
            await upstream.reported(lambda report: (report.retry_in or 0) > 0)
        assert upstream.link.report.state is LinkState.STOPPED

    asyncio.run(asyncio.wait_for(wait_and_stop(), 10))


async def turn_until(condition: Callable[[], bool]) -> None:
    for _ in range(200_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came")


def test_an_endpoint_that_reads_slowly_fills_the_kernel_and_not_the_loop(authority: Authority) -> None:
    async def press() -> None:
        context = server_context(authority, authority.server(ENDPOINT))
        endpoint = ScriptedEndpoint()
        async with (
            serving(endpoint, context),
            running(link_settings(authority, endpoint.port, max_bytes_per_second=ByteSize(0))) as upstream,
        ):
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            endpoint.may_read.clear()
            upstream.commit(300, size=100_000)
            connection = upstream.link._connection
            assert connection is not None
            await turn_until(lambda: connection._watches_write)
            endpoint.may_read.set()
            await upstream.outbox.until_empty()
            await turn_until(lambda: not connection._watches_write)
            assert upstream.link.counters["drops"] == 0
            endpoint.may_read.clear()
            upstream.commit(100, size=100_000)
            await turn_until(lambda: connection._watches_write)
            connection.drop(LinkDown(LinkFault.CONNECTION_LOST))
            endpoint.may_read.set()
            await upstream.outbox.until_empty()

    asyncio.run(press())


def test_publishing_without_room_is_our_bug(authority: Authority) -> None:
    async def publish() -> None:
        upstream = Upstream(link_settings(authority, 1))
        assert not upstream.link.has_room(1)
        upstream.link.flush()
        upstream.link.publish("a", b"", 1)

    with pytest.raises(RuntimeError):
        asyncio.run(publish())
