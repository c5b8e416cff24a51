"""Counter and receiver brought together: what is told, what is not listened to, what is answered to a transmission."""

from __future__ import annotations

import logging

import pytest

from lorabridge.lorawan.air import GnssHealth
from lorabridge.radio.gnss.clock import GnssClock
from lorabridge.radio.gnss.messages import GpsTime, Place, Position, UtcTime
from lorabridge.radio.sx1302.gps_timing import ACCURACY_LIMIT_NS, GpsTiming
from lorabridge.radio.sx1302.mapping import NotSendableError
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.wire import Counter

NS = 10**9
GPS_S = 1_450_000_000
UNIX_NS = (GPS_S + 315_964_800 - 18) * NS
"""The same moment."""


class Bench:
    """A second of the machine is a second of GPS time, and the counter began with both."""

    def __init__(self, *, system_off_s: float = 0.0, gnss_device: str | None = None) -> None:
        self.second = 0
        settings = Sx1302Settings(gnss_device=gnss_device)
        self.timing = GpsTiming(settings, lambda: UNIX_NS + self.now_ns - round(system_off_s * NS))
        self.gnss = GnssClock()

    @property
    def now_ns(self) -> int:
        return self.second * NS + 600_000_000

    def run(self, seconds: int, *, accuracy_ns: int = 20, only_utc: bool = False) -> None:
        for _ in range(seconds):
            self.second += 1
            at = self.second + 0.1
            gps_ns = (GPS_S + self.second) * NS
            told = UtcTime(UNIX_NS + self.second * NS) if only_utc else GpsTime(gps_ns, 18, accuracy_ns)
            self.gnss.note(told, at)
            self.timing._take(self.gnss.state(at), round(at * NS))
            pulse = self.second * 1_000_000 % 2**32
            self.timing.note(Counter(pulse, (pulse + 600_000) % 2**32, self.now_ns))

    def answer(self, gps_time_ms: int | None) -> int | str:
        try:
            return self.timing.count_of(gps_time_ms, self.now_ns)
        except NotSendableError as error:
            return str(error)


def test_a_moment_becomes_a_count_once_receiver_and_concentrator_agree() -> None:
    bench = Bench()
    bench.run(5)
    assert bench.answer((GPS_S + 10) * 1000) == "GPS_UNLOCKED"
    bench.run(5)
    assert bench.answer((GPS_S + 20) * 1000 + 1) == 20_001_000
    assert bench.answer((GPS_S + 5) * 1000) == "TOO_LATE"
    assert bench.answer((GPS_S + 500) * 1000) == "TOO_EARLY"
    assert bench.answer((GPS_S + 4310) * 1000) == "TOO_EARLY", "its count is near, one turn later"
    assert bench.answer(None) == "TOO_LATE"
    assert bench.timing.gps_ns_of(9_000_000, bench.now_ns) == (GPS_S + 9) * NS


@pytest.mark.parametrize("how", [{"accuracy_ns": ACCURACY_LIMIT_NS + 1}, {"only_utc": True}])
def test_a_receiver_that_is_not_sure_is_not_listened_to(how: dict[str, bool | int]) -> None:
    bench = Bench()
    bench.run(20, **how)  # type: ignore[arg-type]
    assert bench.answer((GPS_S + 30) * 1000) == "GPS_UNLOCKED"


def test_known_and_lost_are_told_once_and_how_far_the_system_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(system_off_s=1.0)
    bench.run(20)
    for second in range(20, 60):
        bench.timing.note(Counter(20_000_000, second * 1_000_000, second * NS))
    facts = [(record.getMessage(), record.__dict__["fields"]) for record in caplog.records]
    assert facts == [
        ("GPS time is known", {"source": "sx1302", "system_clock_behind_s": 1.0}),
        ("GPS time is lost", {"source": "sx1302"}),
    ]


def test_health_says_how_good_the_time_is_and_when_it_is_stale() -> None:
    assert GpsTiming(Sx1302Settings(), lambda: 0).health(0) is None, "no receiver is configured"
    bench = Bench(gnss_device="/dev/ttyS0")
    assert bench.timing.health(0) == GnssHealth(time_quality="none", pulse_locked=False)
    bench.gnss.note(Place(Position(46.5, 7.5, 500.0, 8)), 0.5)
    bench.run(20, accuracy_ns=30)
    assert bench.timing.health(bench.now_ns) == GnssHealth(
        time_quality="gps", accuracy_ns=30, satellites=8, leap_seconds=18, pulse_locked=True
    )
    late = bench.timing.health(bench.now_ns + 10 * NS)
    assert late is not None
    assert (late.time_quality, late.accuracy_ns, late.pulse_locked) == ("stale", None, True)
    lost = bench.timing.health(bench.now_ns + 100 * NS)
    assert lost is not None
    assert not lost.pulse_locked


def test_the_place_is_the_last_that_was_told() -> None:
    bench = Bench()
    assert bench.timing.position is None
    place = Position(46.5, 7.5, 500.0, 8)
    bench.gnss.note(Place(place), 1.0)
    bench.gnss.note(Place(None), 2.0)
    bench.timing._take(bench.gnss.state(3.0), 3 * NS)
    assert bench.timing.position == place
