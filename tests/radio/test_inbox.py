"""What a source has heard and the pipeline has not taken yet."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.errors import TransientError
from lorabridge.radio.base import SourceEnded
from lorabridge.radio.inbox import BATCH_LIMIT, Inbox


def opened(limit: int = 1000) -> Inbox[int]:
    inbox: Inbox[int] = Inbox(limit)
    inbox.open()
    return inbox


@given(limit=st.integers(0, 30), costs=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=40))
def test_what_waits_comes_out_in_order_and_never_costs_more_than_the_limit(
    limit: int, costs: list[tuple[int, bool]]
) -> None:
    inbox = opened(limit)
    model: list[tuple[int, int]] = []
    for number, (cost, takes) in enumerate(costs):
        fits = sum(each for _, each in model) + cost <= limit
        assert inbox.put(number, cost) is fits
        if fits:
            model.append((number, cost))
        if takes and inbox:
            assert inbox.take() == model.pop(0)[0]
    assert bool(inbox) is bool(model)
    while model:
        assert inbox.take() == model.pop(0)[0]
    assert not inbox


def test_no_more_than_a_batch_is_taken_at_a_time() -> None:
    async def run() -> None:
        inbox = opened()
        for number in range(BATCH_LIMIT + 3):
            inbox.put(number)
        assert await inbox.receive() == list(range(BATCH_LIMIT))
        assert await inbox.receive(most=2) == [BATCH_LIMIT, BATCH_LIMIT + 1]
        assert await inbox.receive() == [BATCH_LIMIT + 2]

    asyncio.run(run())


def test_a_reader_waits_until_something_comes() -> None:
    async def run() -> None:
        inbox = opened()
        reader = asyncio.create_task(inbox.receive())
        await asyncio.sleep(0)
        assert not reader.done()
        inbox.put(7)
        assert await reader == [7]

    asyncio.run(run())


def test_a_reader_that_was_given_up_takes_nothing_with_it() -> None:
    async def run() -> None:
        inbox = opened()
        reader = asyncio.create_task(inbox.receive())
        await asyncio.sleep(0)
        inbox.put(7)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert await inbox.receive() == [7]

    asyncio.run(run())


def test_before_it_is_opened_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(SourceEnded):
        asyncio.run(Inbox(1).receive())


@pytest.mark.parametrize("is_closed", [False, True])
def test_what_came_before_an_end_is_taken_after_it(is_closed: bool) -> None:
    async def run() -> None:
        inbox = opened()
        inbox.put(7)
        if is_closed:
            inbox.close()
        else:
            inbox.fail(TransientError("unplugged"))
        assert await inbox.receive() == [7]
        with pytest.raises(SourceEnded if is_closed else TransientError):
            await inbox.receive()

    asyncio.run(run())


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_end_is_told_to_a_reader_that_waits(is_closed: bool) -> None:
    async def run() -> None:
        inbox = opened()
        reader = asyncio.create_task(inbox.receive())
        await asyncio.sleep(0)
        if is_closed:
            inbox.close()
        else:
            inbox.fail(TransientError("unplugged"))
        with pytest.raises(SourceEnded if is_closed else TransientError):
            await reader

    asyncio.run(run())


def test_a_source_that_failed_and_was_stopped_has_ended() -> None:
    async def run() -> None:
        inbox = opened()
        inbox.fail(TransientError("unplugged"))
        inbox.close()
        with pytest.raises(SourceEnded):
            await inbox.wait()
        assert inbox.failure is not None

    asyncio.run(run())


def test_opened_again_it_knows_nothing_of_the_failure_and_keeps_what_waits() -> None:
    async def run() -> None:
        inbox = opened()
        inbox.put(7)
        inbox.fail(TransientError("unplugged"))
        inbox.close()
        inbox.open()
        assert inbox.failure is None
        assert await inbox.receive() == [7]

    asyncio.run(run())
