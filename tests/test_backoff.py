"""Full jitter: nothing is tried sooner than drawn, and nobody waits longer than the cap."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.backoff import Backoff


class Highest(random.Random):
    """Draws the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def test_the_longest_wait_doubles_up_to_the_cap_and_begins_again_after_a_success() -> None:
    backoff = Backoff(1.0, 60.0, Highest())
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next() == 1


@given(st.integers(), st.floats(0.001, 10), st.floats(0.001, 1000), st.integers(0, 5000))
def test_every_wait_lies_between_zero_and_its_bound(seed: int, base: float, cap: float, failures: int) -> None:
    backoff = Backoff(base, cap, random.Random(seed))
    for _ in range(min(failures, 40)):
        backoff.next()
    backoff._failures = max(backoff._failures, failures)
    assert 0 <= backoff.next() <= min(cap, base * 2.0**failures if failures < 1000 else cap)


def test_two_who_failed_together_do_not_retry_together() -> None:
    one, other = (Backoff(1.0, 60.0, random.Random(seed)) for seed in (1, 2))
    assert [one.next() for _ in range(5)] != [other.next() for _ in range(5)]
