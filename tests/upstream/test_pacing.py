from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.backoff import Backoff
from lorabridge.upstream.pacing import ConnectPacing, Crowding, TokenBucket


class Highest(random.Random):
    """The least lucky draw, every time."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Lowest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


steps = st.lists(st.tuples(st.floats(0, 300), st.booleans()), max_size=80)


@given(seed=st.integers(), happened=steps)
def test_no_connect_ever_comes_within_the_interval_and_no_wait_exceeds_the_cap(
    seed: int, happened: list[tuple[float, bool]]
) -> None:
    backoff = ConnectPacing(Backoff(1, 120, random.Random(seed)), 1)
    now, last = 0.0, None
    for lasted, proved in happened:
        delay = backoff.delay(now)
        assert 0 <= delay <= 120
        now += delay
        assert last is None or now - last >= 1 - 1e-9
        backoff.tried(now)
        last = now
        now += lasted
        if proved:
            backoff.reset()


def test_the_ceiling_doubles_up_to_the_cap_until_the_link_has_proved_itself() -> None:
    backoff = ConnectPacing(Backoff(1, 20, Highest()), 0)
    assert backoff.delay(0) == 0, "the first try is at once"
    waits = []
    for _ in range(8):
        backoff.tried(0)
        waits.append(backoff.delay(1000))
    assert waits == [1, 2, 4, 8, 16, 20, 20, 20]
    backoff.reset()
    assert backoff.delay(1000) == 1


def test_a_lucky_draw_is_still_held_to_one_connect_a_second() -> None:
    backoff = ConnectPacing(Backoff(1, 20, Lowest()), 1)
    backoff.tried(10.0)
    assert backoff.delay(10.25) == 0.75
    assert backoff.delay(99.0) == 0


def test_a_connect_beside_the_connection_that_works_is_held_to_the_interval_too() -> None:
    pacing = ConnectPacing(Backoff(1, 20, Lowest()), 1)
    assert pacing.allows(0.0)
    pacing.tried(10.0)
    assert not pacing.allows(10.9)
    assert pacing.allows(11.0)
    pacing.note(11.0)
    assert not pacing.allows(11.5)


def test_thousands_of_failures_do_not_overflow() -> None:
    backoff = ConnectPacing(Backoff(1, 120, Highest()), 0)
    for _ in range(5000):
        backoff.tried(0)
    assert backoff.delay(1000) == 120


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=400))
def test_in_no_second_more_than_rate_and_burst_get_through(gaps: list[float]) -> None:
    bucket = TokenBucket(80, 20)
    now, taken = 1000.0, []
    for gap in gaps:
        now += gap
        while bucket.wait(1, now) <= 0:
            bucket.take(1)
            taken.append(now)
    for i, begin in enumerate(taken):
        assert sum(begin <= when < begin + 1 for when in taken[i:]) <= 100 + 1


def test_after_the_wait_it_said_the_amount_may_be_taken() -> None:
    bucket = TokenBucket(10, 5)
    for _ in range(5):
        assert bucket.wait(1, 100.0) == 0
        bucket.take(1)
    wait = bucket.wait(1, 100.0)
    assert 0 < wait <= 0.1
    assert bucket.wait(1, 100.0 + wait + 1e-9) <= 1e-9


def test_what_is_larger_than_a_burst_goes_when_the_bucket_is_full_and_is_paid_for_later() -> None:
    bucket = TokenBucket(10, 5)
    assert bucket.wait(50, 100.0) == 0
    bucket.take(50)
    assert bucket.wait(1, 100.0) > 4


def test_a_rate_of_zero_is_no_limit() -> None:
    bucket = TokenBucket(0, 1)
    for _ in range(1000):
        assert bucket.wait(1e9, 0.0) == 0
        bucket.take(1e9)


def test_those_that_may_wait_leave_a_quarter_of_the_burst_and_lose_no_rate_by_it() -> None:
    bucket, now, taken = TokenBucket(80, 10), 100.0, 0
    while bucket.wait(1, now, patient=True) <= 0:
        bucket.take(1)
        taken += 1
    assert taken == 7
    assert bucket.wait(1, now) == 0, "whoever is in a hurry goes at once"
    begin = now
    for _ in range(800):
        now += bucket.wait(1, now, patient=True) + 1e-9
        bucket.take(1)
    assert 9.9 <= now - begin <= 10.1


def test_a_bucket_too_small_to_leave_anything_still_lets_the_patient_through() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.wait(1, 5.0, patient=True) == 0
    bucket.take(1)
    assert bucket.wait(1, 5.0, patient=True) == pytest.approx(1.0)


def waits_behind(crowding: Crowding, rate: float, round_trip: float, most: int) -> tuple[list[float], float]:
    """A link of so many bytes a second, kept as full as it may be: how long a fresh one would wait, and the rate."""
    now, free_at, key, acknowledged = 0.0, 0.0, 0, 0
    waits: list[float] = []
    under_way: deque[tuple[float, int, int]] = deque()
    while now < 120.0:
        while crowding.has_room(size := max(600, min(most, crowding.largest))):
            key += 1
            crowding.sent(key, size, now)
            free_at = max(free_at, now) + size / rate
            under_way.append((free_at + round_trip, key, size))
        waits.append(free_at - now)
        now, done, size = under_way.popleft()
        acknowledged += size
        crowding.acknowledged(done, now)
    return waits, acknowledged / now


@pytest.mark.parametrize(
    ("rate", "round_trip"), [(10e3, 0.1), (10e3, 0.6), (50e3, 0.05), (480 * 1024.0, 0.1), (480 * 1024.0, 0.6)]
)
def test_nobody_waits_a_second_behind_the_backlog_on_a_link_however_slow(rate: float, round_trip: float) -> None:
    waits, reached = waits_behind(Crowding(), rate, round_trip, 30 * 1024)
    assert sorted(waits)[int(len(waits) * 0.99)] < 1.0
    assert reached > 0.4 * rate, "and the link is used all the same"


def test_a_new_connection_is_judged_by_itself() -> None:
    crowding = Crowding()
    waits_behind(crowding, 480 * 1024.0, 0.1, 30 * 1024)
    wide = crowding.largest
    crowding.reset()
    narrow = crowding.largest
    assert narrow < wide
    assert crowding.has_room(10**6), "one always may"
    crowding.sent(3, 10**6, 20.0)
    assert not crowding.has_room(1)
    crowding.acknowledged(99, 21.0)
    crowding.acknowledged(3, 28.0)
    assert crowding.largest > narrow, "eight seconds are as quick as this one is"
