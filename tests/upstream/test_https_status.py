"""The status of a gateway whose records leave by HTTPS, against a real web server with TLS."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.batches import Packer
from lorabridge.upstream.connection import Message
from lorabridge.upstream.drain import Drain
from lorabridge.upstream.faults import LinkDown, LinkState
from lorabridge.upstream.https_publish import HttpsPublisher
from lorabridge.upstream.https_status import BY_HTTPS, HttpsStatus
from lorabridge.upstream.link import LinkReport
from lorabridge.upstream.topics import Topics
from tests.pki import Authority
from tests.upstream.harness import ENDPOINT, GATEWAY, UPLINK_TOPIC, MemoryOutbox
from tests.upstream.https_endpoint import HttpsEndpoint, https_endpoint
from tests.upstream.scripted_endpoint import server_context
from tests.upstream.test_https_publish import https_settings

STATUS_TOPIC = f"lorabridge/{GATEWAY}/status"
ONLINE = (STATUS_TOPIC, f"online|{BY_HTTPS}".encode())
STOPPED = (STATUS_TOPIC, b"offline|stopped")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def endpoint(authority: Authority) -> Iterator[HttpsEndpoint]:
    with https_endpoint(server_context(authority, authority.server(ENDPOINT))) as server:
        yield server


class Reporting:
    """An outbox that is drained by HTTPS alone, and the status beside it."""

    def __init__(self, settings: AwsIotSettings, will_within: float) -> None:
        self.outbox = MemoryOutbox()
        self.refused: list[LinkDown] = []
        self.https = HttpsPublisher(settings, random.Random(1), time.time, proved_after=0.0)

        def status(state: str, detail: str) -> Message:
            return Message(STATUS_TOPIC, f"{state}|{detail}".encode(), settings.retain_status)

        self.status = HttpsStatus(self.https, status, self.refused.append, will_within)
        packer = Packer(Topics(settings.topics, GATEWAY), GATEWAY)
        self.drain = Drain(self.outbox, self.status, packer, retry_delay=0.01)

    def commit(self, count: int) -> None:
        self.drain.offer(self.outbox.commit(count))


@asynccontextmanager
async def reporting(settings: AwsIotSettings, will_within: float = 0.0) -> AsyncIterator[Reporting]:
    work = Reporting(settings, will_within)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work.https.run()), tasks.create_task(work.drain.run())]
        try:
            yield work
        finally:
            await work.https.stop(60.0, work.status.farewell())
            for task in running:
                task.cancel()


async def until(endpoint: HttpsEndpoint, count: int) -> None:
    """So many requests were answered with 200."""
    async with asyncio.timeout(60):
        while len(endpoint.taken) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("retain", [False, True])
def test_online_is_said_once_after_the_first_record_and_stopped_at_the_end(
    authority: Authority, endpoint: HttpsEndpoint, retain: bool
) -> None:
    async def work_by_https() -> None:
        settings = https_settings(authority, endpoint.port, requests=1, retain_status=retain)
        async with reporting(settings) as work:
            work.commit(1)
            work.status.turn(True)
            await until(endpoint, 2)
            work.commit(20)
            await work.outbox.until_empty()

    asyncio.run(work_by_https())
    assert endpoint.taken[:2] == [(UPLINK_TOPIC, b"1"), ONLINE]
    assert endpoint.taken[-1] == STOPPED
    assert [topic for topic, _ in endpoint.taken].count(STATUS_TOPIC) == 2
    assert endpoint.retained == ([STATUS_TOPIC] * 2 if retain else [])


def test_online_is_said_at_once_when_no_record_waits(authority: Authority, endpoint: HttpsEndpoint) -> None:
    async def turn() -> None:
        async with reporting(https_settings(authority, endpoint.port)) as work:
            work.status.turn(True)
            await until(endpoint, 1)

    asyncio.run(turn())
    assert endpoint.taken == [ONLINE, STOPPED]


def test_a_status_leaves_no_record_waiting(authority: Authority, endpoint: HttpsEndpoint) -> None:
    """With one request at a time every record that waits goes before it."""

    async def drain() -> None:
        async with reporting(https_settings(authority, endpoint.port, requests=1)) as work:
            endpoint.may_answer.clear()
            work.commit(30)
            work.status.turn(True)
            endpoint.may_answer.set()
            await until(endpoint, 31)
            assert work.https.counters["acknowledged"] == 30, "a status is counted with no records"

    asyncio.run(drain())
    assert [topic for topic, _ in endpoint.taken] == [UPLINK_TOPIC] * 30 + [STATUS_TOPIC] * 2


def test_online_waits_for_the_last_will_that_would_overwrite_it(authority: Authority, endpoint: HttpsEndpoint) -> None:
    async def lose() -> None:
        async with reporting(https_settings(authority, endpoint.port), will_within=2.0) as work:
            work.status.note(LinkReport(state=LinkState.ONLINE))
            await asyncio.sleep(0)
            work.status.note(LinkReport(state=LinkState.WAITING))
            lost = time.monotonic()
            work.status.note(LinkReport(state=LinkState.CONNECTING))
            work.status.turn(True)
            work.commit(1)
            await work.outbox.until_empty()
            await until(endpoint, 2)
            assert time.monotonic() - lost >= 2.0

    asyncio.run(lose())
    assert endpoint.taken == [(UPLINK_TOPIC, b"1"), ONLINE, STOPPED]


def test_nothing_is_said_any_more_when_mqtt_is_back(authority: Authority, endpoint: HttpsEndpoint) -> None:
    async def come_back() -> None:
        async with reporting(https_settings(authority, endpoint.port)) as work:
            work.status.turn(True)
            await until(endpoint, 1)
            work.status.turn(False)
            work.commit(3)
            await work.outbox.until_empty()

    asyncio.run(come_back())
    assert [topic for topic, _ in endpoint.taken] == [STATUS_TOPIC, *[UPLINK_TOPIC] * 3]


def test_each_turn_to_https_is_said_anew(authority: Authority, endpoint: HttpsEndpoint) -> None:
    async def turn_twice() -> None:
        async with reporting(https_settings(authority, endpoint.port)) as work:
            for count in (1, 2):
                work.status.turn(True)
                await until(endpoint, count)
                work.status.turn(False)

    asyncio.run(turn_twice())
    assert endpoint.taken == [ONLINE, ONLINE]


def test_a_status_that_the_policy_forbids_is_told_once_and_costs_no_record(
    authority: Authority, endpoint: HttpsEndpoint
) -> None:
    endpoint.answer = lambda topic: 403 if topic == STATUS_TOPIC else 200

    async def refuse() -> list[LinkDown]:
        async with reporting(https_settings(authority, endpoint.port)) as work:
            work.status.turn(True)
            for _ in range(5):
                work.commit(4)
                await work.outbox.until_empty()
            assert work.https.counters["rounds_failed"] == 0
            assert work.https.trouble is None
            return work.refused

    (refused,) = asyncio.run(refuse())
    assert "403" in refused.detail
    assert endpoint.asked.count(STATUS_TOPIC) == 1
    assert len(endpoint.taken) == 20


@pytest.mark.parametrize("status", [0, 429, 503])
def test_a_status_that_got_lost_is_said_when_records_get_through_again(
    authority: Authority, endpoint: HttpsEndpoint, status: int
) -> None:
    answers: list[Any] = [status]
    endpoint.answer = lambda _topic: answers.pop() if answers else 200

    async def lose() -> None:
        async with reporting(https_settings(authority, endpoint.port)) as work:
            work.status.turn(True)
            async with asyncio.timeout(60):
                while not work.https.counters["rounds_failed"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            work.commit(1)
            await until(endpoint, 2)
            assert work.refused == []

    asyncio.run(lose())
    assert sorted(endpoint.taken[:2]) == sorted([ONLINE, (UPLINK_TOPIC, b"1")])
    assert endpoint.taken[2:] == [STOPPED]


def test_at_a_stop_nothing_is_taken_back_that_was_not_said(authority: Authority, endpoint: HttpsEndpoint) -> None:
    async def stop() -> None:
        async with reporting(https_settings(authority, endpoint.port), will_within=3600) as work:
            work.status.turn(True)
            work.commit(1)
            await work.outbox.until_empty()

    asyncio.run(stop())
    assert endpoint.taken == [(UPLINK_TOPIC, b"1")]
