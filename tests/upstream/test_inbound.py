"""The way in for commands, against an endpoint that refuses and misbehaves on purpose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lorabridge.settings import Duration
from lorabridge.upstream.commands import MAX_COMMAND
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.inbound import MAX_UNACKNOWLEDGED, Inbound, Subscription
from lorabridge.upstream.link import LinkReport
from lorabridge.upstream.pacing import TokenBucket
from lorabridge.upstream.subscriptions import SUBSCRIBE_TRIES
from tests.pki import Authority
from tests.upstream.harness import ENDPOINT, GATEWAY, CommandInbox, Upstream, link_settings, running
from tests.upstream.scripted_endpoint import ScriptedEndpoint, server_context, serving

TOPIC = f"lorabridge/{GATEWAY}/cmd/70b3d57ed0000001"
FILTER = f"lorabridge/{GATEWAY}/cmd/+"
MQTT_5_CONNACK = b"\x20\x03\x00\x00\x00"


@asynccontextmanager
async def linked(
    authority: Authority, endpoint: ScriptedEndpoint, inbox: CommandInbox | None, **more: Any
) -> AsyncIterator[Upstream]:
    settings = {name: more.pop(name) for name in ("mqtt_version", "puback_timeout") if name in more}
    context = server_context(authority, authority.server(ENDPOINT))
    async with (
        serving(endpoint, context),
        running(link_settings(authority, endpoint.port, **settings), commands=inbox, **more) as upstream,
    ):
        yield upstream


def is_on(report: LinkReport) -> bool:
    return report.subscription is Subscription.ON


def is_refused(report: LinkReport) -> bool:
    return report.subscription is Subscription.REFUSED


def test_the_subscription_comes_first_and_the_birth_says_that_commands_are_received(authority: Authority) -> None:
    async def connect() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        endpoint.suback = None
        async with linked(authority, endpoint, inbox) as upstream:
            upstream.commit(3)
            await endpoint.until(lambda: endpoint.subscribed == [FILTER])
            assert not upstream.link.has_room(1)
            assert endpoint.published == [[]], "nothing else could have ended the connection"
            assert upstream.link.report.subscription is Subscription.WAITING

    asyncio.run(connect())


def test_a_command_is_acknowledged_when_the_sink_says_so_and_once(authority: Authority) -> None:
    async def order() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        async with linked(authority, endpoint, inbox) as upstream:
            await upstream.reported(is_on)
            endpoint.send(TOPIC.encode(), b"first", 7)
            endpoint.send(TOPIC.encode(), b"second", 8)
            first, second = await inbox.take(2)
            assert (first.topic, first.target, first.payload) == (TOPIC, "70b3d57ed0000001", b"first")
            upstream.commit(1)
            await upstream.outbox.until_empty()
            assert endpoint.pubacks == []
            assert upstream.link.counters["commands_unacknowledged"] == 2
            second.ack()
            second.ack()
            await endpoint.until(lambda: bool(endpoint.pubacks))
            first.ack()
            await endpoint.until(lambda: len(endpoint.pubacks) == 2)
            assert endpoint.pubacks == [8, 7]
            assert upstream.link.counters["commands_unacknowledged"] == 0
            assert upstream.link.counters["commands_received"] == 2

    asyncio.run(order())


def test_an_acknowledgement_after_the_connection_is_gone_does_nothing(authority: Authority) -> None:
    async def order() -> None:
        endpoint, inbox = ScriptedEndpoint(on_publish=lambda _topic: "close"), CommandInbox()
        async with linked(authority, endpoint, inbox) as upstream:
            await upstream.reported(is_on)
            endpoint.send(TOPIC.encode(), b"late", 7)
            (late,) = await inbox.take(1)
            upstream.commit(1)
            await upstream.reported(lambda report: report.fault is LinkFault.CONNECTION_LOST)
            assert upstream.link.report.subscription is not Subscription.REFUSED
            late.ack()
            endpoint.on_publish = lambda _topic: "ack"
            await upstream.outbox.until_empty()
            assert endpoint.subscribed == [FILTER] * len(endpoint.connects)
            assert endpoint.pubacks == []
            assert upstream.link.counters["commands_unacknowledged"] == 0

    asyncio.run(order())


def test_an_endpoint_that_hangs_up_on_subscribe_does_not_keep_records_and_is_asked_again_later(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lorabridge.upstream.inbound")

    async def refuse() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        endpoint.suback = b""
        async with linked(authority, endpoint, inbox, subscribe_again=1.0) as upstream:
            upstream.commit(5)
            await upstream.outbox.until_empty()
            assert len(endpoint.subscribed) == SUBSCRIBE_TRIES
            assert upstream.link.counters["fault_subscribe_refused"] == SUBSCRIBE_TRIES
            assert upstream.drain.counters["resent"] == 0, "nothing was in flight while it was asked"
            report = await upstream.reported(lambda report: report.state is LinkState.ONLINE and is_refused(report))
            assert report.fault in {LinkFault.SUBSCRIBE_REFUSED, None}
            await upstream.reported(lambda report: report.fault is LinkFault.SUBSCRIBE_REFUSED)
            endpoint.suback = b"\x01"
            upstream.reports.clear()
            await upstream.reported(is_on)
            assert len(endpoint.connects) == SUBSCRIBE_TRIES + 1, "on the connection that was there"
            upstream.commit(1)
            await upstream.outbox.until_empty()
            endpoint.send(TOPIC.encode(), b"now", 1)
            assert (await inbox.take(1))[0].payload == b"now"

    asyncio.run(refuse())
    assert [record.message for record in caplog.records] == [
        "commands are not received",
        "commands are received again",
    ]


def test_an_endpoint_that_still_hangs_up_costs_one_connection_each_time_it_is_asked(authority: Authority) -> None:
    async def refuse() -> None:
        endpoint = ScriptedEndpoint()
        endpoint.suback = b""
        async with linked(authority, endpoint, CommandInbox(), subscribe_again=0.3) as upstream:
            await endpoint.until(lambda: len(endpoint.subscribed) == SUBSCRIBE_TRIES + 2)
            upstream.commit(5)
            await upstream.outbox.until_empty()
            assert upstream.outbox.parked == {}
            assert len(endpoint.connects) <= SUBSCRIBE_TRIES + 3

    asyncio.run(refuse())


@pytest.mark.parametrize(
    ("version", "connack", "suback"), [("3.1.1", b"\x20\x02\x00\x00", b"\x80"), ("5", MQTT_5_CONNACK, b"\x00\x87")]
)
def test_a_refusal_in_suback_keeps_the_connection_and_the_records_leave(
    authority: Authority, version: str, connack: bytes, suback: bytes
) -> None:
    async def refuse() -> None:
        endpoint = ScriptedEndpoint(connack=connack)
        endpoint.suback = suback
        async with linked(authority, endpoint, CommandInbox(), mqtt_version=version) as upstream:
            await upstream.reported(is_refused)
            assert upstream.link.report.state is LinkState.ONLINE
            if version == "3.1.1":  # this endpoint cannot read what MQTT 5 publishes
                upstream.commit(5)
                await upstream.outbox.until_empty()
            assert len(endpoint.connects) == 1
            assert upstream.link.counters["fault_subscribe_refused"] == 1

    asyncio.run(refuse())


@pytest.mark.parametrize("reason", [0x87, 0x8F, 0x80])
def test_a_disconnect_in_answer_to_subscribe_is_a_refusal(authority: Authority, reason: int) -> None:
    async def refuse() -> None:
        endpoint = ScriptedEndpoint(connack=MQTT_5_CONNACK)
        endpoint.suback, endpoint.last_words = b"", bytes([0xE0, 2, reason, 0])
        async with linked(authority, endpoint, CommandInbox(), mqtt_version="5") as upstream:
            report = await upstream.reported(lambda report: report.fault is LinkFault.SUBSCRIBE_REFUSED)
            assert "DISCONNECT" in report.detail

    asyncio.run(refuse())


def test_a_suback_that_never_comes_is_a_refusal_too(authority: Authority) -> None:
    async def wait() -> None:
        endpoint = ScriptedEndpoint()
        endpoint.suback = None
        async with linked(authority, endpoint, CommandInbox(), puback_timeout=Duration(0.1)) as upstream:
            upstream.commit(1)
            await upstream.outbox.until_empty()
            await upstream.reported(lambda report: "no SUBACK" in report.detail)

    asyncio.run(wait())


def test_what_cannot_be_a_command_is_acknowledged_and_counted(authority: Authority) -> None:
    async def send() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        async with linked(authority, endpoint, inbox) as upstream:
            await upstream.reported(is_on)
            endpoint.send(TOPIC.encode(), bytes(MAX_COMMAND + 1), 1)
            endpoint.send(b"lorabridge/elsewhere", b"", 2)
            endpoint.send(b"\xff/\xfe", b"", 3)
            endpoint.send(b"x", b"", 0)
            endpoint.send(TOPIC.encode(), bytes(MAX_COMMAND), 4)
            (largest,) = await inbox.take(1)
            assert len(largest.payload) == MAX_COMMAND
            largest.ack()
            await endpoint.until(lambda: len(endpoint.pubacks) == 4)
            assert endpoint.pubacks == [1, 2, 3, 4]
            counters = upstream.link.counters
            assert [counters[f"commands_{name}"] for name in ("oversize", "not_for_us", "received")] == [1, 3, 1]

    asyncio.run(send())


def test_more_than_the_sink_can_hold_is_dropped_and_counted(authority: Authority) -> None:
    async def flood() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        async with linked(authority, endpoint, inbox) as upstream:
            await upstream.reported(is_on)
            for packet_id in range(1, MAX_UNACKNOWLEDGED + 4):
                endpoint.send(TOPIC.encode(), b"%d" % packet_id, packet_id)
            await endpoint.until(lambda: len(endpoint.pubacks) == 3)
            assert endpoint.pubacks == [MAX_UNACKNOWLEDGED + extra for extra in (1, 2, 3)]
            assert upstream.link.counters["commands_overflow"] == 3
            held = await inbox.take(MAX_UNACKNOWLEDGED)
            held[0].ack()
            endpoint.send(TOPIC.encode(), b"again", 500)
            assert (await inbox.take(1))[0].payload == b"again"

    asyncio.run(flood())


def test_who_wants_no_commands_subscribes_to_nothing_and_still_answers_what_comes(authority: Authority) -> None:
    async def send() -> None:
        endpoint = ScriptedEndpoint()
        async with linked(authority, endpoint, None) as upstream:
            upstream.commit(1)
            await upstream.outbox.until_empty()
            endpoint.send(TOPIC.encode(), b"", 9)
            await endpoint.until(lambda: endpoint.pubacks == [9])
            assert endpoint.subscribed == []
            assert upstream.link.report.subscription is Subscription.OFF
            assert str(upstream.link.report.subscription) == "off"

    asyncio.run(send())


def test_commands_count_against_the_same_quota_as_records(authority: Authority) -> None:
    async def send() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        async with linked(authority, endpoint, inbox) as upstream:
            await upstream.reported(is_on)
            link = upstream.link
            bucket = link._allowance._publishes = TokenBucket(1.0, 5.0)
            bucket.wait(1, 0.0)
            for packet_id in range(1, 6):
                endpoint.send(TOPIC.encode(), b"", packet_id)
            await inbox.take(5)
            assert bucket.wait(1, 0.0) > 0

    asyncio.run(send())


def test_records_leave_room_for_ten_commands_a_second_within_the_quota(authority: Authority) -> None:
    async def fill() -> int:
        settings = link_settings(authority, 1, max_publishes_per_second=80)
        bucket = Upstream(settings, commands=CommandInbox()).link._allowance._publishes
        taken = 0
        for step in range(101):
            while bucket.wait(1, 1000 + step / 100) <= 0:
                bucket.take(1)
                taken += 1
        return taken

    assert asyncio.run(fill()) <= 90


def test_a_sink_that_fails_is_our_bug_and_is_raised(authority: Authority) -> None:
    class Broken:
        def received(self, _inbound: Inbound) -> None:
            raise ZeroDivisionError

    async def send() -> None:
        endpoint = ScriptedEndpoint()
        context = server_context(authority, authority.server(ENDPOINT))
        async with serving(endpoint, context):
            upstream = Upstream(link_settings(authority, endpoint.port), commands=Broken())
            link = asyncio.create_task(upstream.link.run())
            await upstream.reported(is_on)
            endpoint.send(TOPIC.encode(), b"", 1)
            async with asyncio.timeout(20):
                await link

    with pytest.raises(ZeroDivisionError):
        asyncio.run(send())
