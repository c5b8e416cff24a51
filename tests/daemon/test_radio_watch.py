"""Radios that are lost and come back: one event each, and no more of them for a stranger than for a friend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.daemon.radio_watch import (
    EVENTS_LIMIT,
    FORGOTTEN_AFTER,
    GATEWAYS_LIMIT,
    GRACE,
    REASON_LIMIT,
    WATCHED_AFTER,
    RadioWatch,
)
from lorabridge.errors import TransientError
from lorabridge.lorawan.events import RadioState
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import RadioSilentError

ROOF, CELLAR = EUI64(1), EUI64(2)
NOBODY: frozenset[EUI64] = frozenset()


class Site:
    """A watch with a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.watch = RadioWatch(lambda: round(self.now * 1e9), lambda: self.now)

    def told(self) -> list[Mapping[str, Any]]:
        return [
            {name: value for name, value in msgspec.structs.asdict(event).items() if value not in (None, "", 0)}
            for event in self.watch.take()
        ]

    def live(self, seconds: float, *there: EUI64, source: str = "udp") -> None:
        """Look every second, as the bridge does."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            self.watch.look(source, frozenset(there))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RadioSilentError("the library has hung"), RadioState.SILENT),
        (TransientError("unplugged"), RadioState.DEAD),
        (ZeroDivisionError(), RadioState.DEAD),
    ],
)
def test_a_source_that_fails_and_comes_back_is_told_twice_however_often_it_was_tried(
    error: Exception, state: RadioState
) -> None:
    site = Site()
    site.watch.started("board")
    assert site.told() == []
    site.watch.failed("board", error)
    for _ in range(3):
        site.now += 2.5
        site.watch.failed("board", TransientError("still away"))
    assert site.watch.down == {"board": state.value}
    assert site.watch.lost_sources == {"board"}
    site.watch.started("board")
    assert site.watch.down == {}
    lost, back = site.told()
    reason = str(error) or "ZeroDivisionError"
    assert lost == {"at": 1000_000_000_000, "source": "board", "state": state, "reason": reason}
    assert back == {
        "at": 1007_500_000_000,
        "source": "board",
        "state": RadioState.RECOVERED,
        "down_s": 7.5,
        "failures": 3,
    }


def test_a_gateway_that_was_there_is_missed_and_greeted() -> None:
    site = Site()
    site.live(WATCHED_AFTER + 10, ROOF, CELLAR)
    site.live(GRACE, ROOF)
    assert site.told() == []
    site.live(1000, ROOF)
    (silent,) = site.told()
    assert (silent["source"], silent["gateway_eui"], silent["state"]) == ("udp", CELLAR, RadioState.SILENT)
    assert site.watch.down == {f"udp {CELLAR}": "radio_silent"}
    assert site.watch.lost_sources == frozenset(), "the source itself works"
    site.live(1, ROOF, CELLAR)
    (back,) = site.told()
    assert (back["gateway_eui"], back["state"], back["down_s"]) == (CELLAR, RadioState.RECOVERED, GRACE + 1001)
    assert site.watch.down == {}


def test_a_short_absence_is_nothing() -> None:
    site = Site()
    site.live(WATCHED_AFTER + 10, ROOF)
    for _ in range(20):
        site.live(GRACE)
        site.live(1, ROOF)
    assert site.told() == []


def test_a_stranger_that_shows_itself_once_is_not_missed() -> None:
    site = Site()
    for number in range(3 * GATEWAYS_LIMIT):
        site.live(1, EUI64(number))
    site.live(2 * GRACE)
    assert site.told() == []
    site.live(WATCHED_AFTER + 10, ROOF)
    site.live(2 * GRACE)
    assert [event["gateway_eui"] for event in site.told()] == [ROOF], "strangers did not take its place for ever"


def test_the_tables_are_bounded() -> None:
    site = Site()
    crowd = [EUI64(number) for number in range(GATEWAYS_LIMIT + 10)]
    site.live(WATCHED_AFTER + 10, *crowd)
    site.live(2 * GRACE)
    assert len(site.watch.down) == GATEWAYS_LIMIT
    assert len(site.watch.take()) == EVENTS_LIMIT
    site.watch.failed("board", TransientError("x" * 10_000))
    assert len(site.told()[0]["reason"]) == REASON_LIMIT


def test_gateways_behind_a_source_that_failed_are_not_told_one_by_one() -> None:
    site = Site()
    site.live(WATCHED_AFTER + 10, ROOF)
    site.watch.failed("udp", TransientError("the interface is gone"))
    site.live(600)
    site.watch.started("udp")
    assert [event["state"] for event in site.told()] == [RadioState.DEAD, RadioState.RECOVERED]
    site.live(GRACE)
    site.live(10, ROOF)
    assert site.told() == [], "it found the bridge again"


def test_a_gateway_that_never_comes_again_is_forgotten() -> None:
    site = Site()
    site.live(WATCHED_AFTER + 10, ROOF)
    site.live(GRACE + 1)
    assert site.watch.down
    site.now += FORGOTTEN_AFTER
    site.live(1)
    assert site.watch.down == {}


def test_a_source_that_watches_itself_has_no_gateways() -> None:
    site = Site()
    site.watch.look("board", None)
    assert (site.told(), site.watch.down) == ([], {})


@given(st.lists(st.tuples(st.sampled_from(["look", "fail", "start"]), st.booleans(), st.integers(1, 400))))
def test_every_loss_is_followed_by_one_return_and_never_by_another_loss(steps: list[tuple[str, bool, int]]) -> None:
    site = Site()
    lost: dict[tuple[Any, Any], bool] = {}
    for what, there, seconds in steps:
        site.now += seconds
        if what == "fail":
            site.watch.failed("udp", TransientError("gone"))
        elif what == "start":
            site.watch.started("udp")
        site.watch.look("udp", frozenset({ROOF}) if there else NOBODY)
        for event in site.watch.take():
            key = (event.source, event.gateway_eui)
            assert lost.get(key, False) == (event.state is RadioState.RECOVERED)
            lost[key] = event.state is not RadioState.RECOVERED
    assert any(lost.values()) == bool(site.watch.down)
