"""Link and drain against a real broker with real TLS, for both MQTT versions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabridge.lorawan.events import EventKind
from lorabridge.upstream.faults import LinkDown, LinkFault, LinkState
from lorabridge.upstream.inbound import Subscription
from tests.mosquitto import Mosquitto, publishing, watching
from tests.pki import Authority
from tests.upstream.harness import (
    DEVICE,
    ENDPOINT,
    GATEWAY,
    STATUS_TOPIC,
    UPLINK_TOPIC,
    CommandInbox,
    Upstream,
    link_settings,
    running,
)

COMMAND_TOPIC = f"lorabridge/{GATEWAY}/cmd/{DEVICE}"
BROKERS_WINDOW = 20
"""mosquitto's max_inflight_messages."""


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[Mosquitto]:
    server = authority.server(ENDPOINT)
    mosquitto = Mosquitto(tmp_path, authority.file, server, deny=f"lorabridge/{GATEWAY}/security")
    mosquitto.start()
    yield mosquitto
    mosquitto.kill()


versions = pytest.mark.parametrize("version", ["3.1.1", "5"])


@versions
def test_every_record_is_delivered_once_in_order_and_its_puback_deletes_it(
    broker: Mosquitto, authority: Authority, version: str
) -> None:
    async def deliver() -> None:
        async with running(link_settings(authority, broker.port, mqtt_version=version)) as upstream:
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            for _ in range(30):
                upstream.commit(10)
                await asyncio.sleep(0)
            await upstream.outbox.until_empty()
            assert upstream.outbox.finished == list(range(1, 301))
            assert upstream.link.counters["acknowledged"] == 300
            assert upstream.drain.counters["resent"] == 0

    with watching(broker.plain_port, "lorabridge/+/uplink/#") as watcher:
        asyncio.run(deliver())
        assert watcher.take(300) == [(UPLINK_TOPIC, b"%d" % i) for i in range(1, 301)]
        assert watcher.messages.empty()


@versions
def test_what_waited_in_the_outbox_before_the_start_goes_out_too(
    broker: Mosquitto, authority: Authority, version: str
) -> None:
    async def deliver() -> None:
        async with running(link_settings(authority, broker.port, mqtt_version=version)) as upstream:
            upstream.outbox.commit(6000)
            await upstream.outbox.until_empty()
            assert upstream.outbox.finished == list(range(1, 6001))

    asyncio.run(deliver())


@versions
def test_birth_clean_stop_and_death_are_told_on_the_status_topic(
    broker: Mosquitto, authority: Authority, version: str
) -> None:
    settings = link_settings(authority, broker.port, mqtt_version=version)

    async def live_and_stop() -> None:
        async with running(settings) as upstream:
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)

    async def live_and_die() -> None:
        upstream = Upstream(settings)
        link = asyncio.create_task(upstream.link.run())
        await upstream.reported(lambda report: report.state is LinkState.ONLINE)
        link.cancel()
        await asyncio.wait({link})

    with watching(broker.plain_port, STATUS_TOPIC) as watcher:
        asyncio.run(live_and_stop())
        assert watcher.take(2) == [(STATUS_TOPIC, b"online "), (STATUS_TOPIC, b"offline stopped")]
        assert watcher.messages.empty(), "a clean stop takes the last will back"
        asyncio.run(live_and_die())
        assert watcher.take(2) == [(STATUS_TOPIC, b"online "), (STATUS_TOPIC, b"offline connection lost")]


@versions
def test_a_broker_killed_under_load_costs_nothing(broker: Mosquitto, authority: Authority, version: str) -> None:
    async def deliver() -> None:
        async with running(link_settings(authority, broker.port, mqtt_version=version)) as upstream:
            upstream.commit(500)
            await upstream.outbox.until(lambda: len(upstream.outbox.finished) >= 100)
            broker.kill()
            await upstream.reported(lambda report: report.fault is LinkFault.UNREACHABLE)
            upstream.commit(3000)
            broker.start()
            await upstream.outbox.until_empty()
            assert sorted(upstream.outbox.finished) == list(range(1, 3501))
            assert upstream.outbox.parked == {}
            await upstream.reported(lambda report: report.state is LinkState.ONLINE and report.fault is None)

    asyncio.run(deliver())


def test_mqtt_5_names_the_record_that_the_policy_forbids_and_it_alone_is_parked(
    broker: Mosquitto, authority: Authority
) -> None:
    async def deliver() -> None:
        async with running(link_settings(authority, broker.port, mqtt_version="5")) as upstream:
            upstream.commit(3)
            (forbidden,) = upstream.commit(1, EventKind.SECURITY)
            upstream.commit(3)
            await upstream.outbox.until(lambda: bool(upstream.outbox.parked) and len(upstream.outbox.rows) == 1)
            assert list(upstream.outbox.parked) == [forbidden.id]
            assert f"lorabridge/{GATEWAY}/security" in upstream.outbox.parked[forbidden.id]
            assert upstream.parked == [(forbidden.id, upstream.outbox.parked[forbidden.id])]
            assert sorted(upstream.outbox.finished) == [1, 2, 3, 5, 6, 7]
            await upstream.reported(lambda report: report.fault is LinkFault.PUBLISH_REFUSED)

    asyncio.run(deliver())


def test_a_stop_waits_for_what_is_in_flight(broker: Mosquitto, authority: Authority) -> None:
    async def stop_at_once() -> tuple[int, int]:
        async with running(link_settings(authority, broker.port)) as upstream:
            upstream.commit(1)
            await upstream.outbox.until_empty()
            upstream.commit(400)
        return upstream.link.counters["published"], len(upstream.outbox.finished)

    published, finished = asyncio.run(stop_at_once())
    assert published == finished
    assert 1 < published <= 101


def test_the_rate_limit_holds_and_still_lets_everything_through(broker: Mosquitto, authority: Authority) -> None:
    async def deliver() -> float:
        loop = asyncio.get_running_loop()
        settings = link_settings(authority, broker.port, max_publishes_per_second=400)
        async with running(settings) as upstream:
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            begin = loop.time()
            upstream.commit(300)
            await upstream.outbox.until_empty()
            return loop.time() - begin

    assert asyncio.run(deliver()) >= (300 - 400 / 4) / 400


@pytest.mark.parametrize("batching", ["off", "auto"])
def test_fresh_records_come_through_at_once_while_a_backlog_drains_at_the_quota(
    broker: Mosquitto, authority: Authority, batching: str
) -> None:
    """The issue asks for p99 below a second during the drain; `make bench` measures it with 1.8 million records."""
    rounds, backlog, rate = 60, 100_000, 80

    async def drain() -> tuple[list[float], float, int]:
        loop = asyncio.get_running_loop()
        settings = link_settings(authority, broker.port, max_publishes_per_second=rate, batching=batching)
        waits: list[float] = []
        async with running(settings) as upstream:
            upstream.outbox.commit(backlog, size=600)
            await upstream.outbox.until(lambda: bool(upstream.outbox.finished))
            done, begin = len(upstream.outbox.finished), loop.time()
            for _ in range(rounds):
                committed = loop.time()
                (fresh,) = upstream.commit(1, size=600)
                await upstream.outbox.until(lambda wanted=fresh.id: wanted not in upstream.outbox.rows)  # type: ignore[misc]
                waits.append(loop.time() - committed)
                await asyncio.sleep(0.05)  # the rate of the frames, not synchronisation
            rest = len(upstream.outbox.finished) - done
            return waits, rest / (loop.time() - begin), upstream.drain.counters["batches"]

    waits, records_per_s, batches = asyncio.run(drain())
    assert sorted(waits)[int(len(waits) * 0.99)] < 1.0
    assert records_per_s > 0.5 * rate
    if batching == "auto":
        assert batches > 0
        assert records_per_s > 1.5 * rate, "several records a publish"


@versions
def test_commands_come_through_a_broker_that_waits_for_each_acknowledgement(
    broker: Mosquitto, authority: Authority, version: str
) -> None:
    async def order() -> None:
        inbox = CommandInbox()
        settings = link_settings(authority, broker.port, mqtt_version=version)
        async with running(settings, commands=inbox) as upstream:
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            for number in range(BROKERS_WINDOW + 2):
                await asyncio.to_thread(publisher.publish, COMMAND_TOPIC, b"%d" % number)
            first = await inbox.take(BROKERS_WINDOW)
            upstream.commit(1)
            await upstream.outbox.until_empty()
            assert inbox.is_empty, "the broker sends no more while nothing is acknowledged"
            for number, inbound in enumerate(first):
                assert (inbound.target, inbound.payload) == (str(DEVICE), b"%d" % number)
                inbound.ack()
            assert [inbound.payload for inbound in await inbox.take(2)] == [b"20", b"21"]

    with publishing(broker.plain_port) as publisher:
        asyncio.run(order())


@versions
def test_a_command_that_was_not_acknowledged_is_lost_with_its_connection_and_has_to_be_sent_again(
    broker: Mosquitto, authority: Authority, version: str
) -> None:
    async def order() -> None:
        inbox = CommandInbox()
        settings = link_settings(authority, broker.port, mqtt_version=version)
        async with running(settings, commands=inbox) as upstream:
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            await asyncio.to_thread(publisher.publish, COMMAND_TOPIC, b"once")
            (once,) = await inbox.take(1)
            connection = upstream.link._connection
            assert connection is not None
            upstream.reports.clear()
            connection.drop(LinkDown(LinkFault.CONNECTION_LOST))
            await upstream.reported(lambda report: report.subscription is Subscription.WAITING)
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            once.ack()
            await asyncio.to_thread(publisher.publish, COMMAND_TOPIC, b"again")
            assert [inbound.payload for inbound in await inbox.take(1)] == [b"again"]

    with publishing(broker.plain_port) as publisher:
        asyncio.run(order())
