"""A loop that waits is healthy, a loop that holds work without a step is not."""

from __future__ import annotations

import pytest

from lorabridge.daemon.health import Health


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_waiting_for_work_is_healthy_for_any_length_of_time(clock: Clock) -> None:
    health = Health(clock)
    health.add("pipeline", 10)
    clock.now += 1e9
    assert health.stuck() == []


def test_work_held_longer_than_its_limit_is_stuck_and_named(clock: Clock) -> None:
    health = Health(clock)
    health.add("radio", 10)
    with health.add("store", 10).working():
        clock.now += 10
        assert health.stuck() == []
        clock.now += 0.1
        assert health.stuck() == ["store"]
    assert health.stuck() == []


def test_a_step_inside_long_work_renews_the_limit(clock: Clock) -> None:
    health = Health(clock)
    check = health.add("store", 10)
    with check.working():
        clock.now += 9
        check.progress()
        clock.now += 9
        assert health.stuck() == []


def test_work_that_failed_is_not_held_any_more(clock: Clock) -> None:
    health = Health(clock)
    check = health.add("store", 10)
    with pytest.raises(OSError, match="disk"), check.working():
        raise OSError("disk")
    clock.now += 100
    assert health.stuck() == []


def test_a_stuck_loop_is_well_again_when_it_is_replaced_or_removed(clock: Clock) -> None:
    health = Health(clock)
    with health.add("pipeline", 10).working():
        clock.now += 10.1
        assert health.stuck() == ["pipeline"]
        health.add("pipeline", 10)
        assert health.stuck() == []
    with health.add("pipeline", 10).working():
        clock.now += 10.1
        health.remove("pipeline")
        health.remove("pipeline")
        assert health.stuck() == []
