"""The drain against a link that does whatever hypothesis wants: nothing is lost, nothing is kept, order holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorabridge.lorawan.events import EventKind
from lorabridge.upstream import drain as drain_module
from lorabridge.upstream.aws_iot import MAX_PAYLOAD
from lorabridge.upstream.drain import MAX_QUEUED, Drain
from lorabridge.upstream.link import Listener
from lorabridge.upstream.topics import Topics, TopicSettings
from tests.upstream.harness import GATEWAY, MemoryOutbox, Stored


class MoodyLink:
    """A link that connects, acknowledges and breaks on command; its window is 5."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.is_up = False
        self.unacknowledged: list[int] = []
        self.on_this_connection: list[int] = []

    def attach(self, listener: Listener) -> None:
        self.listener = listener

    def has_room(self, size: int) -> bool:
        return self.is_up and size <= MAX_PAYLOAD + 5 and len(self.unacknowledged) < 5

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        assert topic.startswith("lorabridge/")
        assert self.has_room(len(payload))
        assert key not in self.unacknowledged
        self.unacknowledged.append(key)
        self.on_this_connection.append(key)

    def flush(self) -> None:
        assert self.on_this_connection == sorted(self.on_this_connection), "in the order of the ids"

    def connect(self) -> None:
        assert self.listener is not None
        self.is_up, self.on_this_connection = True, []
        self.listener.ready()

    def acknowledge(self, which: int) -> None:
        assert self.listener is not None
        if self.unacknowledged:
            self.listener.acknowledged(self.unacknowledged.pop(which % len(self.unacknowledged)))
            self.listener.ready()

    def break_off(self, culprit: int | None = None) -> None:
        assert self.listener is not None
        lost, self.unacknowledged, self.is_up = self.unacknowledged, [], False
        self.listener.disconnected(lost, culprit)


def make(outbox: MemoryOutbox, poison_after: int = 10**9) -> tuple[MoodyLink, Drain]:
    link = MoodyLink()
    topics = Topics(TopicSettings(), GATEWAY)
    return link, Drain(outbox, link, topics, poison_after=poison_after, retry_delay=0)


async def others_run(turns: int = 12) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(1, 12)),
        st.tuples(st.just("commit and forget to offer"), st.integers(1, 3)),
        st.tuples(st.just("acknowledge"), st.integers(0, 4)),
        st.tuples(st.just("connect"), st.just(0)),
        st.tuples(st.just("break off"), st.just(0)),
        st.tuples(st.just("disk fails"), st.just(0)),
        st.tuples(st.just("disk works"), st.just(0)),
        st.tuples(st.just("others run"), st.integers(0, 12)),
    ),
    max_size=60,
)


@given(happens=actions, waiting=st.integers(0, 20))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_every_record_is_done_once_and_in_order(happens: list[tuple[str, int]], waiting: int) -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        outbox.commit(waiting or 1)
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        doing: dict[str, Callable[[int], object]] = {
            "commit": lambda count: drain.offer(outbox.commit(count)),
            "commit and forget to offer": outbox.commit,
            "acknowledge": link.acknowledge,
            "connect": lambda _: None if link.is_up else link.connect(),
            "break off": lambda _: link.break_off() if link.is_up else None,
            "disk fails": lambda _: setattr(outbox, "broken", True),
            "disk works": lambda _: setattr(outbox, "broken", False),
            "others run": lambda _: None,
        }
        for action, number in happens:
            doing[action](number)
            if action == "others run":
                await others_run(number)
            assert len(drain._queue) <= drain_module.MAX_QUEUED + 5
        outbox.broken = False
        drain.offer(outbox.commit(1))
        if not link.is_up:
            link.connect()
        for _ in range(2000):
            if not outbox.rows:
                break
            await others_run()
            link.acknowledge(0)
        task.cancel()
        assert not outbox.rows
        assert sorted(outbox.finished) == list(range(1, outbox._last_id + 1))

    with pytest.MonkeyPatch.context() as patch:  # pages so small that a short story turns many
        patch.setattr(drain_module, "PAGE", 4)
        patch.setattr(drain_module, "MAX_QUEUED", 10)
        asyncio.run(live())


def test_a_drain_that_keeps_up_never_reads_the_outbox_again() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        link.connect()
        await others_run()
        reads = outbox.reads
        for _ in range(50):
            drain.offer(outbox.commit(3))
            for _ in range(3):
                link.acknowledge(0)
        await others_run()
        task.cancel()
        assert len(outbox.finished) == 150
        assert outbox.reads == reads

    asyncio.run(live())


class SlowOutbox(MemoryOutbox):
    """Reads as of the moment it was asked, and answers only when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def pending(self, after_id: int, limit: int) -> list[Stored]:
        page = await super().pending(after_id, limit)
        await self.may_answer.wait()
        return page


def test_what_is_committed_while_the_outbox_is_being_read_is_not_skipped() -> None:
    async def live() -> None:
        outbox = SlowOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        link.connect()
        outbox.commit(2)
        await others_run()
        drain.offer(outbox.commit(2))
        outbox.may_answer.set()
        await others_run()
        task.cancel()
        assert link.on_this_connection == [1, 2, 3, 4]

    asyncio.run(live())


def test_memory_stays_bounded_through_an_outage_however_long() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        await others_run()
        for _ in range(100):
            drain.offer(outbox.commit(100))
        await others_run()
        assert 1000 < len(drain._queue) <= MAX_QUEUED
        link.connect()
        while outbox.rows:
            link.acknowledge(0)
            await asyncio.sleep(0)
            assert len(drain._queue) <= MAX_QUEUED
        task.cancel()
        assert outbox.finished == list(range(1, 10_001))

    asyncio.run(live())


def test_a_payload_that_aws_would_hang_up_on_is_parked_without_being_sent() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        link.connect()
        await others_run()
        drain.offer(outbox.commit(1, EventKind.GATEWAY_STATS, size=MAX_PAYLOAD))
        drain.offer(outbox.commit(1))
        await others_run()
        task.cancel()
        assert link.on_this_connection == [2]
        assert list(outbox.parked) == [1]
        assert drain.counters["parked"] == 1

    asyncio.run(live())


def test_parking_waits_for_a_disk_that_is_away() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        link.connect()
        await others_run()
        outbox.broken = True
        drain.offer(outbox.commit(1, size=MAX_PAYLOAD))
        await others_run()
        assert outbox.parked == {}
        assert drain.counters["outbox_errors"] > 0
        outbox.broken = False
        await others_run()
        task.cancel()
        assert list(outbox.parked) == [1]

    asyncio.run(live())


async def broken_over_the_first(outbox: MemoryOutbox, times: int) -> tuple[MoodyLink, Drain, asyncio.Task[None]]:
    link, drain = make(outbox, poison_after=3)
    task = asyncio.create_task(drain.run())
    outbox.commit(4)
    await others_run()
    for _ in range(times):
        link.connect()
        assert link.unacknowledged[0] == 1
        link.break_off()
    return link, drain, task


def test_a_suspect_is_held_back_and_parked_when_another_record_gets_through() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, _drain, task = await broken_over_the_first(outbox, 3)
        link.connect()
        assert link.on_this_connection == [2, 3, 4]
        assert outbox.parked == {}, "not convicted yet"
        link.acknowledge(0)
        await others_run()
        task.cancel()
        assert list(outbox.parked) == [1]
        assert "3 times" in outbox.parked[1]

    asyncio.run(live())


def test_a_suspect_without_which_the_link_breaks_too_goes_back_to_the_front() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, _drain, task = await broken_over_the_first(outbox, 3)
        link.connect()
        link.break_off()
        link.connect()
        task.cancel()
        assert link.on_this_connection == [1, 2, 3, 4]
        assert outbox.parked == {}

    asyncio.run(live())


def test_a_puback_wipes_the_slate_clean() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, _drain, task = await broken_over_the_first(outbox, 2)
        link.connect()
        link.acknowledge(0)
        link.break_off()
        link.connect()
        task.cancel()
        assert link.on_this_connection == [2, 3, 4]
        assert outbox.parked == {}

    asyncio.run(live())


def test_a_record_refused_by_name_is_the_suspect_wherever_it_stands() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox, poison_after=2)
        task = asyncio.create_task(drain.run())
        outbox.commit(4)
        await others_run()
        for _ in range(2):
            link.connect()
            link.break_off(culprit=3)
        link.connect()
        task.cancel()
        assert link.on_this_connection == [1, 2, 4]

    asyncio.run(live())
