"""The drain against a link that does whatever hypothesis wants: nothing is lost or kept, and fresh ones go first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorabridge.lorawan.events import EventKind, Record
from lorabridge.upstream import drain as drain_module
from lorabridge.upstream.aws_iot import MAX_PAYLOAD
from lorabridge.upstream.batches import BATCH_BYTES, OutboxRecord, Packer, Unit
from lorabridge.upstream.drain import MAX_FRESH, MAX_QUEUED, Drain
from lorabridge.upstream.link import NOT_YOURS, Listener
from lorabridge.upstream.suspicion import SPLIT_AFTER, SPLITS, WITHOUT_BATCHES_S, Suspicion
from lorabridge.upstream.topics import Topics, TopicSettings
from tests.upstream.harness import DEVICE, GATEWAY, MemoryOutbox, Stored


class MoodyLink:
    """A link that connects, acknowledges and breaks on command; its window is 5, and 1 of it for those in a hurry."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.is_up = False
        self.unacknowledged: list[int] = []
        self.on_this_connection: list[int] = []
        self.published: list[tuple[str, bytes]] = []
        self.room = 5

    def attach(self, listener: Listener) -> None:
        self.listener = listener

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        return self.is_up and size <= MAX_PAYLOAD + 5 and len(self.unacknowledged) < self.room - patient

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        assert topic.startswith("lorabridge/")
        assert self.has_room(len(payload))
        assert key not in self.unacknowledged
        self.unacknowledged.append(key)
        self.on_this_connection.append(key)
        self.published.append((topic, payload))

    def flush(self) -> None:
        return

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


def make(outbox: MemoryOutbox, poison_after: int = 10**9, *, batching: bool = False) -> tuple[MoodyLink, Drain]:
    link = MoodyLink()
    packer = Packer(Topics(TopicSettings(), GATEWAY), GATEWAY)
    return link, Drain(outbox, link, packer, batching=batching, poison_after=poison_after, retry_delay=0)


async def others_run(turns: int = 12) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


LARGEST = 4
"""Records in a batch of the stories below."""
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


@given(happens=actions, waiting=st.integers(0, 20), batching=st.booleans(), poison_after=st.sampled_from([2, 10**9]))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_every_record_is_done_once_or_parked(
    happens: list[tuple[str, int]], waiting: int, batching: bool, poison_after: int
) -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        outbox.commit(waiting)
        link, drain = make(outbox, poison_after, batching=batching)
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
            assert drain.queued <= 2 * drain_module.MAX_QUEUED + drain_module.MAX_FRESH + 5 * LARGEST
        outbox.broken = False
        drain.offer(outbox.commit(1))
        if not link.is_up:
            link.connect()
        for _ in range(2000):
            if outbox.rows.keys() == outbox.parked.keys():
                break
            await others_run()
            link.acknowledge(0)
        task.cancel()
        assert outbox.rows.keys() == outbox.parked.keys()
        assert sorted([*outbox.finished, *outbox.parked]) == list(range(1, outbox._last_id + 1))
        assert poison_after == 2 or not outbox.parked

    with pytest.MonkeyPatch.context() as patch:  # pages so small that a short story turns many
        patch.setattr(drain_module, "PAGE", 4)
        patch.setattr(drain_module, "MAX_QUEUED", 10)
        patch.setattr(drain_module, "MAX_FRESH", 15)
        patch.setattr(drain_module, "_BATCH_RECORDS", LARGEST)
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


def test_what_is_committed_while_the_outbox_is_being_read_is_sent_once() -> None:
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
        assert link.on_this_connection == [3, 4, 1, 2]

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
        assert 1000 < drain.queued <= MAX_QUEUED
        link.connect()
        while outbox.rows:
            link.acknowledge(0)
            await asyncio.sleep(0)
            assert drain.queued <= MAX_QUEUED
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


def test_a_suspect_is_held_back_tried_alone_and_parked_when_the_link_breaks_over_it() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, _drain, task = await broken_over_the_first(outbox, 3)
        link.connect()
        assert link.on_this_connection == [2, 3, 4]
        for _ in range(3):
            assert 1 not in link.unacknowledged, "not while anything else is in flight"
            link.acknowledge(0)
        outbox.commit(1)
        await others_run()
        assert link.unacknowledged == [1]
        assert outbox.parked == {}, "not convicted yet"
        link.break_off()
        await others_run()
        task.cancel()
        assert list(outbox.parked) == [1]
        assert "3 times" in outbox.parked[1]

    asyncio.run(live())


def test_a_suspect_that_gets_through_alone_is_acquitted() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain, task = await broken_over_the_first(outbox, 3)
        link.connect()
        for _ in range(4):
            link.acknowledge(0)
        drain.offer(outbox.commit(1))
        link.break_off()
        link.connect()
        assert link.unacknowledged == [5]
        link.acknowledge(0)
        await others_run()
        task.cancel()
        assert outbox.parked == {}
        assert outbox.finished == [2, 3, 4, 1, 5]

    asyncio.run(live())


def test_a_suspect_that_others_keep_from_its_trial_has_it_first_on_the_next_connection() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, _drain, task = await broken_over_the_first(outbox, 3)
        link.connect()
        link.acknowledge(0)
        link.break_off()  # over 3, say
        for _ in range(2):
            link.connect()
            assert link.on_this_connection == [1]
            link.break_off(culprit=NOT_YOURS)
        link.connect()
        link.break_off()
        link.connect()
        assert link.on_this_connection == [3, 4]
        await others_run()
        task.cancel()
        assert list(outbox.parked) == [1]

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


async def caught_up(link: MoodyLink) -> None:
    link.connect()
    await others_run()


def test_a_drain_that_keeps_up_sends_in_the_order_of_the_commits() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox, batching=True)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        for _ in range(20):
            drain.offer(outbox.commit(2))
            link.acknowledge(0)
            link.acknowledge(0)
        task.cancel()
        assert outbox.finished == list(range(1, 41))
        assert drain.counters["batches"] == 0, "alone when idle"

    asyncio.run(live())


@pytest.mark.parametrize("batching", [False, True])
def test_fresh_records_overtake_the_backlog_and_find_room_however_long_it_is(batching: bool) -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        outbox.commit(3000)
        link, drain = make(outbox, batching=batching)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        assert 0 < len(link.unacknowledged) <= 4, "a place is left free"
        for _ in range(30):
            (fresh,) = outbox.commit(1)
            drain.offer([fresh])
            assert link.unacknowledged[-1] == fresh.id
            link.acknowledge(len(link.unacknowledged) - 1)
            link.acknowledge(0)
            await others_run()
        while outbox.rows:
            link.acknowledge(0)
            await asyncio.sleep(0)
        task.cancel()
        assert sorted(outbox.finished) == list(range(1, 3031)), "none twice: none was read that was taken as fresh"

    asyncio.run(live())


def test_fresh_records_that_come_too_fast_wait_in_the_outbox() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        for _ in range(10):
            drain.offer(outbox.commit(MAX_FRESH // 2))
        assert drain.queued <= MAX_FRESH
        while outbox.rows:
            link.acknowledge(0)
            await asyncio.sleep(0)
            assert drain.queued <= MAX_FRESH + MAX_QUEUED
        task.cancel()
        assert sorted(outbox.finished) == list(range(1, 5 * MAX_FRESH + 1))

    asyncio.run(live())


def test_records_offered_out_of_order_are_all_sent_once() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        first, second = outbox.commit(1), outbox.commit(2)
        drain.offer(second)
        drain.offer(first)
        await others_run()
        while outbox.rows:
            link.acknowledge(0)
            await asyncio.sleep(0)
        task.cancel()
        assert sorted(outbox.finished) == [1, 2, 3]

    asyncio.run(live())


def test_what_waits_leaves_together_in_one_publish_that_one_puback_settles() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        outbox.commit(10)
        link, drain = make(outbox, batching=True)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        ((topic, payload),) = link.published
        assert topic == f"lorabridge/{GATEWAY}/batch"
        batch = json.loads(payload)
        assert (batch["schema"], batch["gateway_id"]) == ("lorabridge/batch/1", GATEWAY)
        assert batch["records"] == list(range(1, 11))
        link.acknowledge(0)
        task.cancel()
        assert outbox.finished == list(range(1, 11))
        assert drain.counters["batches"] == 1

    asyncio.run(live())


def test_fresh_records_leave_together_when_the_link_is_crowded() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox, batching=True)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        drain.offer(outbox.commit(40))
        task.cancel()
        assert link.on_this_connection == [1, 2, 3, 4, 5]
        assert [topic.rpartition("/")[2] for topic, _ in link.published[:4]] == [str(DEVICE)] * 4, "while there is room"
        assert json.loads(link.published[4][1])["records"] == list(range(5, 41))

    asyncio.run(live())


def test_a_batch_is_no_larger_than_it_may_be_and_the_same_for_the_same_records() -> None:
    packer = Packer(Topics(TopicSettings(), 'gw "1"'), 'gw "1"')
    records = MemoryOutbox().commit(1000, size=400)
    count = packer.fitting(records, BATCH_BYTES, ())
    batch = packer.payload(Unit(tuple(records[:count])))
    assert len(batch) <= BATCH_BYTES < len(packer.payload(Unit(tuple(records[: count + 1]))))
    assert json.loads(batch)["gateway_id"] == 'gw "1"'
    assert packer.payload(Unit(tuple(records[:count]))) == batch
    assert packer.fitting(records, 10, ()) == 1, "one always goes"
    assert packer.fitting(records, BATCH_BYTES, {4}) == 3
    assert packer.fitting(records, BATCH_BYTES, {1}) == 1
    assert packer.fitting(records[:3], BATCH_BYTES, ()) == 3


async def broken_over_batches(link: MoodyLink, times: int) -> None:
    for _ in range(times):
        link.connect()
        await others_run()
        link.break_off()


def test_a_batch_that_the_link_breaks_over_is_split_and_the_poison_in_it_parked() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        outbox.commit(6)
        link, drain = make(outbox, poison_after=3, batching=True)
        task = asyncio.create_task(drain.run())
        await others_run()
        await broken_over_batches(link, SPLIT_AFTER)
        assert drain.counters["batches_split"] == 1
        link.connect()
        assert link.on_this_connection == [1, 2, 3, 4]
        link.acknowledge(0)
        link.acknowledge(0)
        link.break_off()  # over 3
        for _ in range(2):
            link.connect()
            assert link.unacknowledged[0] == 3
            link.break_off()
        link.connect()
        assert link.on_this_connection == [4, 5, 6]
        while len(outbox.finished) < 5:
            link.acknowledge(0)
        assert link.unacknowledged == [3]
        link.break_off()
        await others_run()
        task.cancel()
        assert list(outbox.parked) == [3]

    asyncio.run(live())


def test_batches_are_not_made_for_a_while_when_none_gets_through() -> None:
    suspicion = Suspicion(poison_after=5)
    number = 0

    def refuse(times: int, now: float) -> None:
        nonlocal number
        for _ in range(times):
            number += 2
            unit = Unit(tuple(Stored(i, EventKind.UPLINK, None, b"{}") for i in (number, number + 1)))
            for _ in range(SPLIT_AFTER):
                assert suspicion.dropped([unit], None, now) == (list(unit.records), None)

    refuse(SPLITS - 1, 0.0)
    good = Unit(tuple(Stored(i, EventKind.UPLINK, None, b"{}") for i in (900, 901)))
    suspicion.acknowledged(good)
    refuse(SPLITS - 1, 0.0)
    assert suspicion.allows_batches(0.0)
    refuse(1, 7.0)
    assert not suspicion.allows_batches(7.0 + WITHOUT_BATCHES_S - 1)
    assert suspicion.allows_batches(7.0 + WITHOUT_BATCHES_S)
    assert suspicion.splits == 2 * SPLITS - 1


def test_what_tells_of_a_parked_record_is_stored_and_sent_but_not_what_tells_of_itself() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link = MoodyLink()

        def report(record: OutboxRecord, reason: str) -> Record:
            return Record(EventKind.OUTBOX, None, f"{record.id}: {reason}".encode())

        drain = Drain(outbox, link, Packer(Topics(TopicSettings(), GATEWAY), GATEWAY), report=report)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        drain.offer(outbox.commit(1, size=MAX_PAYLOAD))
        await others_run()
        assert link.on_this_connection == [2]
        assert link.published[0][0] == f"lorabridge/{GATEWAY}/outbox"
        drain.offer(outbox.commit(1, EventKind.OUTBOX, size=MAX_PAYLOAD))
        await others_run()
        task.cancel()
        assert list(outbox.parked) == [1, 3]
        assert outbox._last_id == 3

    asyncio.run(live())


def test_a_pause_keeps_fresh_records_in_the_outbox_and_afterwards_all_leave() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        link, drain = make(outbox)
        task = asyncio.create_task(drain.run())
        await caught_up(link)
        drain.pause(True)
        for _ in range(MAX_FRESH):
            drain.offer(outbox.commit(2))
        await others_run()
        assert link.on_this_connection == []
        assert drain.is_paused
        drain.pause(False)
        drain.offer(outbox.commit(1))
        assert link.on_this_connection[:2] == [1, 2]
        assert 2 * MAX_FRESH + 1 in link.on_this_connection, "fresh, before the backlog is through"
        while outbox.rows:
            link.acknowledge(0)
            await asyncio.sleep(0)
        task.cancel()
        assert len(outbox.finished) == 2 * MAX_FRESH + 1

    asyncio.run(live())


def test_a_drop_that_is_no_fault_of_a_record_splits_no_batch() -> None:
    async def live() -> None:
        outbox = MemoryOutbox()
        outbox.commit(10)
        link, drain = make(outbox, poison_after=1, batching=True)
        task = asyncio.create_task(drain.run())
        await others_run()
        for _ in range(5):
            link.connect()
            await others_run()
            link.break_off(culprit=NOT_YOURS)
        task.cancel()
        assert drain.counters["batches_split"] == 0
        assert outbox.parked == {}

    asyncio.run(live())
