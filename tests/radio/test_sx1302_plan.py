"""Channel plans of the vendor, and the moments of frames that wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.errors import ConfigError
from lorabridge.radio.sx1302 import abi
from lorabridge.radio.sx1302.plan import read_plan
from lorabridge.radio.sx1302.schedule import (
    HAND_OVER_US,
    LEAST_LEAD_US,
    MARGIN_US,
    MOST_LEAD_US,
    QUEUE_LIMIT,
    Schedule,
    lead,
)
from lorabridge.radio.sx1302.wire import Order
from tests.radio.sx1302_plan import GAINS, PLAN


def test_times_of_the_counter_are_told_apart_across_its_wrap() -> None:
    assert lead(5, 2**32 - 5) == 10
    assert lead(2**32 - 5, 5) == -10


def order(number: int, at: int | None) -> Order:
    return Order(
        number=number,
        payload=b"x",
        frequency_hz=868_100_000,
        count_us=at,
        rf_chain=0,
        power_dbm=14,
        modulation=abi.MOD_LORA,
        bandwidth=4,
        data_rate=7,
        code_rate=1,
        invert=True,
        deviation_khz=0,
        preamble=8,
        crc=False,
    )


@pytest.mark.parametrize("now", [1_000_000, 2**32 - 100_000])
def test_a_frame_waits_for_its_moment_and_collides_with_no_other(now: int) -> None:
    schedule = Schedule()
    at = (now + 1_000_000) % 2**32
    assert schedule.add(order(1, at), now, 50_000) is None
    assert schedule.due(now) == []
    assert schedule.add(order(2, (at + 40_000) % 2**32), now, 50_000) == "COLLISION_PACKET"
    assert schedule.add(order(3, (at - 40_000) % 2**32), now, 50_000) == "COLLISION_PACKET"
    assert schedule.add(order(4, (at + 60_000) % 2**32), now, 50_000) is None
    assert schedule.add(order(5, (now - 1) % 2**32), now, 50_000) == "TOO_LATE"
    assert schedule.add(order(6, (now + 19_999) % 2**32), now, 50_000) == "TOO_LATE"
    assert schedule.add(order(7, (now + 400_000_000) % 2**32), now, 50_000) == "TOO_EARLY"
    assert [one.number for one in schedule.due((at - 50_000) % 2**32)] == [1]
    assert schedule.due((at - 50_000) % 2**32) == []
    assert schedule.add(order(8, None), (at + 10_000) % 2**32, 1_000) == "COLLISION_PACKET"


TURN_US = 2**32
AIRTIME_US = 50_000


class Queue:
    """The schedule as the child uses it; `now`, `taken` (moments by number) and `handed` do not wrap."""

    def __init__(self, now: int) -> None:
        self.schedule = Schedule()
        self.now = now
        self.taken: dict[int, int] = {}
        self.handed: dict[int, int] = {}

    def run_until(self, end: int) -> None:
        """A look every few minutes, and when something is due."""
        while self.now < end:
            self.schedule.settle(self.now % TURN_US)
            for one in self.schedule.due(self.now % TURN_US):
                assert one.number not in self.handed
                self.handed[one.number] = self.now
            waiting = (at - HAND_OVER_US for number, at in self.taken.items() if number not in self.handed)
            self.now = min([end, self.now + 300_000_000, *(max(at, self.now + 1) for at in waiting)])

    def ask(self, number: int, ahead: int) -> str | None:
        """The answer, which is one of those that may be."""
        at = self.now + ahead
        word = self.schedule.add(order(number, at % TURN_US), self.now % TURN_US, AIRTIME_US)
        if word is None:
            self.taken[number] = at
        others = (other for taken, other in self.taken.items() if taken != number)
        if ahead < LEAST_LEAD_US:
            allowed: set[str | None] = {"TOO_LATE"}
        elif ahead > MOST_LEAD_US:
            allowed = {"TOO_EARLY"}
        elif any(abs(other - at) < AIRTIME_US + MARGIN_US for other in others):
            allowed = {"COLLISION_PACKET", "FULL"}
        else:
            allowed = {None} if len(self.taken) - len(self.handed) < QUEUE_LIMIT // 2 else {None, "FULL"}
        assert word in allowed
        return word


@given(
    start=st.integers(0, TURN_US - 1),
    asked=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 2_000_000), st.integers(0, TURN_US), st.just(TURN_US - 1_000_000)),
            st.one_of(st.integers(-100_000, 200_000), st.just(1_000_000), st.integers(0, 400_000_000)),
        ),
        max_size=40,
    ),
)
def test_through_days_of_wraps_every_frame_is_handed_over_once_and_no_two_meet(
    start: int, asked: list[tuple[int, int]]
) -> None:
    """`asked`: microseconds since the one before, and how far ahead its moment is."""
    queue = Queue(start)
    for number, (after, ahead) in enumerate(asked):
        queue.run_until(queue.now + after)
        queue.ask(number, ahead)
    queue.run_until(queue.now + MOST_LEAD_US + 1)
    assert queue.handed.keys() == queue.taken.keys()
    assert all(0 < queue.taken[number] - moment <= HAND_OVER_US for number, moment in queue.handed.items())


def test_what_was_sent_one_turn_of_the_counter_ago_is_in_nobodys_way() -> None:
    queue = Queue(0)
    queue.ask(0, 1_000_000)
    queue.run_until(TURN_US)
    assert queue.ask(1, 1_000_000) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sx1261_conf": {"lbt": {"enable": True}}}, "without a channel nothing could be sent"),
        ({"sx1261_conf": {"spectral_scan": {"enable": True}}}, "spi_path is missing"),
        ({"sx1261_conf": {"spectral_scan": {"enable": True, "nb_chan": 8, "nb_scan": 9}}}, "freq_start"),
        ({"sx1261_conf": {"lbt": {"channels": [{"freq_hz": 1, "bandwidth": 500_000}]}}}, "bandwidth"),
        ({"sx1261_conf": {"spi_path": "/dev/spidev0.1 "}}, "spi_path"),
        ({"radio_0": {"enable": False}}, "clksrc"),
        ({"radio_1": {"enable": True, "freq": 5}}, "radio_1.freq"),
        ({"radio_1": {"enable": True, "freq": 868_500_000, "tx_enable": True}}, "tx_gain_lut"),
        ({"chan_multiSF_3": {"enable": True, "if": 760_000}}, "800 kHz"),
        ({"chan_Lora_std": {"enable": True, "bandwidth": 250_000}}, "spread_factor"),
        ({"chan_Lora_std": {"enable": True, "bandwidth": 7, "spread_factor": 7}}, "chan_Lora_std.bandwidth"),
        ({"chan_FSK": {"enable": True, "bandwidth": 125_000}}, "chan_FSK.datarate"),
        ({"radio_1": {}}, "radio_1 is not enabled"),
        ({"radio_0": {**PLAN["radio_0"], "tx_gain_lut": GAINS * 2}}, "length <= 16"),
        ({"com_type": "I2C"}, "I2C"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_with_its_reason(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "conf.json"
    path.write_text(json.dumps({"SX130x_conf": {**PLAN, **change}}))
    with pytest.raises(ConfigError, match=says):
        read_plan(path)


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b"[" * 100_000, b" " * (1 << 21)])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "conf.json"
    path.write_bytes(text)
    with pytest.raises(ConfigError):
        read_plan(path)
    with pytest.raises(ConfigError):
        read_plan(tmp_path / "missing.json")


def test_every_plan_that_we_ship_is_read() -> None:
    folder = Path(__file__).parents[2] / "firmware_configs"
    plans = sorted(folder.rglob("*global_conf.json"))
    assert plans
    for path in plans:
        assert read_plan(path).radio_0.enable
