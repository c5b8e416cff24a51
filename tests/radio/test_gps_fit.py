"""Counts and GPS time: 24 simulated hours of wraps, lost pulses, wrong receivers and leap seconds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorabridge.radio.gnss.clock import GnssClock, TimeQuality
from lorabridge.radio.gnss.messages import GpsTime
from lorabridge.radio.sx1302.gps_fit import MAX_AGE_NS, NEEDED, NEEDED_AGAINST_WITNESS, GpsFit, bound_us

NS = 10**9
EPOCH_S = 1_450_000_000
"""GPS seconds at the beginning of the simulation."""
DAY_S = 86_400


class Fault(NamedTuple):
    """What is wrong from `begin` to `end`, in seconds of the simulation."""

    kind: str
    begin: int
    end: int


class World:
    """A concentrator with a crystal, a receiver, and the host that asks both; the truth is known."""

    def __init__(self, seed: int, *, start_count: int, drift_ppm: float, faults: tuple[Fault, ...] = ()) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.drift = drift_ppm
        self.count = float(start_count)
        """Unwrapped, at the pulse of `second`."""
        self.second = 0
        self.pps = 0
        self.fit = GpsFit()

    def has(self, kind: str) -> bool:
        return any(fault.kind == kind and fault.begin <= self.second < fault.end for fault in self.faults)

    @property
    def now_ns(self) -> int:
        return 5 * NS + self.second * NS + 990_000_000

    def step(self) -> None:
        """One second: a pulse, the receiver's statement, two readings of the counter."""
        self.drift += self.random.uniform(-0.005, 0.005)
        self.second += 1
        self.count += 1e6 + self.drift
        if self.has("restart"):
            self.count = self.random.uniform(0, 2**32)
            self.fit.restarted()
            assert self.fit.count_of(EPOCH_S * NS, self.now_ns) is None, "its counter was not read yet"
        if not self.has("no pulse"):
            glitch = self.random.uniform(1e3, 4e5) if self.has("glitch") else self.random.uniform(-1, 1)
            self.pps = round(self.count + glitch) % 2**32
        events = [(self.random.uniform(0.42, 0.5), self.read), (self.random.uniform(0.92, 0.98), self.read)]
        if not self.has("silent"):
            late = 0.85 if self.has("stall") else 0.0
            events.append((self.random.uniform(0.05, 0.3) + late, self.state))
        for after, act in sorted(events, key=lambda event: event[0]):
            act(after)

    def read(self, after: float) -> None:
        count = round(self.count + after * (1e6 + self.drift)) % 2**32
        self.fit.note_pulse(self.pps, count, 5 * NS + self.second * NS + round(after * NS))

    def state(self, after: float) -> None:
        wrong = 1 if self.has("one ahead") else -1 if self.has("one behind") else 0
        at = 5 * NS + self.second * NS + round(after * NS)
        self.fit.note_second((EPOCH_S + self.second + wrong) * NS + self.random.randint(-200, 200), at)

    def check(self, ahead_s: float) -> bool:
        """Whether there is a conversion; then it is right in both directions, within the bound."""
        moment = (EPOCH_S + self.second + ahead_s) * NS
        true_count = self.count + ahead_s * (1e6 + self.drift)
        count = self.fit.count_of(round(moment), self.now_ns)
        gps_ns = self.fit.gps_ns_of(round(true_count) % 2**32, self.now_ns)
        assert (count is None) == (gps_ns is None)
        if count is None or gps_ns is None:
            return False
        error = (count - true_count + 2**31) % 2**32 - 2**31
        allowed = bound_us(abs(ahead_s) + MAX_AGE_NS / NS)
        assert abs(error) <= allowed, (self.second, error, allowed)
        assert abs(gps_ns - moment) / 1000 <= allowed + 1, (self.second, gps_ns - moment)
        return True

    def run(self, seconds: int) -> Iterator[bool]:
        for _ in range(seconds):
            self.step()
            yield self.check(self.random.choice((-2.0, 0.0, 1.0, 30.0)))


def lasting(kind: str, longest: int, latest: int = DAY_S) -> st.SearchStrategy[Fault]:
    return st.tuples(st.integers(60, latest), st.integers(1, longest)).map(
        lambda drawn: Fault(kind, drawn[0], drawn[0] + drawn[1])
    )


def test_two_seconds_of_pairs_are_not_enough_and_eight_are() -> None:
    world = World(1, start_count=5, drift_ppm=3)
    locked = list(world.run(NEEDED + 1))
    assert not any(locked[: NEEDED - 1])
    assert locked[-1]


@pytest.mark.slow
@settings(max_examples=6)  # a day each
@given(
    seed=st.integers(0, 2**32),
    start=st.integers(0, 2**32 - 1),
    drift=st.floats(-25, 25),
    faults=st.lists(
        st.one_of(
            lasting("no pulse", 20_000),
            lasting("silent", 20_000),
            lasting("one ahead", NEEDED_AGAINST_WITNESS - 5),
            lasting("one behind", NEEDED_AGAINST_WITNESS - 5),
            lasting("stall", 400),
            lasting("glitch", 400),
            lasting("restart", 1),
        ),
        max_size=8,
    ),
)
def test_through_a_whole_day_a_conversion_is_right_or_there_is_none(
    seed: int, start: int, drift: float, faults: list[Fault]
) -> None:
    begins = sorted(fault.begin for fault in faults if fault.kind.startswith("one"))
    apart = [b - a > 2 * NEEDED_AGAINST_WITNESS for a, b in pairwise(begins)]
    if not all(apart):  # two of them together are one that lasts longer than is promised
        faults = []
    world = World(seed, start_count=start, drift_ppm=drift, faults=tuple(faults))
    locked = sum(world.run(DAY_S))
    assert locked > DAY_S - 60 - sum(fault.end - fault.begin + 2 * NEEDED_AGAINST_WITNESS for fault in faults)


def test_the_counter_wraps_without_a_gap() -> None:
    world = World(2, start_count=2**32 - 30_000_000, drift_ppm=-20)
    assert all(list(world.run(60))[NEEDED:])


@pytest.mark.parametrize("kind", ["no pulse", "silent"])
def test_without_pulses_or_statements_it_unlocks_and_comes_back(kind: str) -> None:
    world = World(3, start_count=0, drift_ppm=10, faults=(Fault(kind, 100, 4_500),))
    locked = list(world.run(4_600))
    assert locked[100]
    assert not any(locked[100 + MAX_AGE_NS // NS + 2 : 4_498])
    assert all(locked[4_500 + NEEDED + 2 :])


@pytest.mark.parametrize("kind", ["one ahead", "one behind"])
def test_a_receiver_that_is_one_second_wrong_for_a_while_is_not_believed(kind: str) -> None:
    world = World(4, start_count=0, drift_ppm=0, faults=(Fault(kind, 100, 100 + 500),))
    locked = list(world.run(700))
    assert not any(locked[104:598])
    assert all(locked[600 + NEEDED + 4 :])
    assert world.fit.contradictions >= 3


def test_one_wrong_statement_is_passed_over() -> None:
    world = World(5, start_count=0, drift_ppm=0, faults=(Fault("one ahead", 50, 52),))
    assert all(list(world.run(100))[NEEDED:])


def test_after_a_lost_hour_a_receiver_that_returns_wrong_is_noticed() -> None:
    faults = (Fault("silent", 100, 3_700), Fault("one behind", 3_700, 3_900))
    world = World(6, start_count=0, drift_ppm=15, faults=faults)
    locked = list(world.run(4_000))
    assert not any(locked[140:3_900])
    assert locked[-1]


def test_a_restart_of_the_concentrator_unlocks_until_new_pairs_agree() -> None:
    world = World(7, start_count=0, drift_ppm=0, faults=(Fault("restart", 50, 51),))
    locked = list(world.run(80))
    assert locked[48]
    assert not any(locked[49 : 49 + NEEDED - 1])
    assert locked[-1]


def test_after_a_long_gap_a_new_counter_begins_with_nothing() -> None:
    """What was known before is not carried over by the host's clock, which may be off by then."""
    world = World(7, start_count=0, drift_ppm=0)
    list(world.run(20))
    world.fit.restarted()
    world.second += 3_600
    world.faults = (Fault("one ahead", 3_600, DAY_S),)
    for _ in range(NEEDED + 2):
        world.step()
    assert world.fit.is_locked(world.now_ns)


def test_a_counter_that_jumps_by_itself_is_a_restart() -> None:
    world = World(8, start_count=0, drift_ppm=0)
    assert list(world.run(20))[-1]
    world.count += 5e6
    assert not list(world.run(1))[-1]
    assert list(world.run(12))[-1]


def test_a_pulse_that_stands_still_is_none_after_the_counter_came_round() -> None:
    world = World(9, start_count=0, drift_ppm=0, faults=(Fault("no pulse", 100, 10_000),))
    assert not any(list(world.run(9_900))[140:])


def test_a_receiver_that_stays_wrong_is_believed_in_the_end() -> None:
    world = World(10, start_count=0, drift_ppm=0)
    list(world.run(20))
    world.faults = (Fault("one ahead", 21, 10_000),)
    for _ in range(NEEDED_AGAINST_WITNESS + 30):
        world.step()
    assert world.fit.is_locked(world.now_ns)


def test_statements_between_two_seconds_and_without_a_pulse_are_passed_over() -> None:
    fit = GpsFit()
    for second in range(20):
        at = second * NS
        fit.note_pulse(0, 1_000_000 * second, at)
        fit.note_second(second * NS + NS // 2, at + NS // 4)
        fit.note_second(second * NS, at + NS // 4)
    assert not fit.is_locked(20 * NS)
    assert fit.now_gps_ns(20 * NS) is None


def test_gps_time_now_is_told_while_it_is_known() -> None:
    world = World(11, start_count=0, drift_ppm=20)
    list(world.run(40))
    told = world.fit.now_gps_ns(world.now_ns)
    assert told is not None
    assert abs(told - (EPOCH_S * NS + world.now_ns - 5 * NS)) < NS // 1000


@given(
    leap_at=st.integers(NEEDED + 2, 60),
    new_leap=st.sampled_from([17, 19]),
    told_late=st.integers(0, 20),
)
def test_a_leap_second_changes_nothing_of_gps_time(leap_at: int, new_leap: int, told_late: int) -> None:
    """UTC repeats or skips a second; the receiver may say the new number late, and the conversion does not care."""
    world = World(12, start_count=123, drift_ppm=1)
    clock = GnssClock()
    for second in range(1, 90):
        world.step()
        at = 5 * NS + second * NS + NS // 5
        leap = new_leap if second >= leap_at + told_late else 18
        clock.note(GpsTime((EPOCH_S + second) * NS, leap, 20), at / NS)
        state = clock.state(at / NS)
        assert state.quality is TimeQuality.GPS
        assert state.gps_ns is not None
        assert state.gps_ns == (EPOCH_S + second) * NS
        assert world.check(1.0) == (second >= NEEDED)
