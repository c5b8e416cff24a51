"""Which count of the concentrator is which moment of GPS time. Pure: every moment is an argument.

The concentrator keeps its counter at each pulse (PPS) of the receiver, and the receiver says afterwards which second
that was. The two are paired, and a line is laid through the last pairs. It counts only while pairs agree and are fresh;
then a moment `d` seconds from the last pulse is converted with an error of at most `bound_us(d)`.

What cannot be noticed from here: a receiver that is wrong by whole seconds from its first statement on, or for longer
than `NEEDED_AGAINST_WITNESS` seconds. UTC takes no part: GPS time has no leap seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

NEEDED: Final = 8
"""Pairs in a row that must agree before they count."""
NEEDED_AGAINST_WITNESS: Final = 600
"""As many when they contradict what was known before by half a second or more."""
MAX_AGE_NS: Final = 30_000_000_000
"""The last pair must not be older."""
WITNESS_LIMIT_S: Final = 36_000
"""What was known before is forgotten after this: a bad crystal is half a second off by then."""

_SECOND_US: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000
_WRAP: Final = 2**32
_WINDOW: Final = 32
_SOONEST_NS, _LATEST_NS = 5_000_000, 950_000_000
"""How long after its pulse the statement comes; nearer to the next pulse it could be that of either."""
_PULSE_AGE_US: Final = 1_100_000
_ON_SECOND_NS: Final = 1_000_000
_DRIFT: Final = 60e-6
"""Of counter and receiver, before it is measured."""
_TOLERANCE_US: Final = 20.0
_DRIFT_CHANGE: Final = 2e-6
"""Of the measured drift, over the age of the fit."""
_CONTRADICTIONS: Final = 3
_JUMP_US: Final = 100_000
_HOST_DRIFT: Final = 500e-6
_RESTART_LIMIT_US: Final = 600 * _SECOND_US
_HALF_SECOND_US: Final = 450_000


def bound_us(distance_s: float) -> float:
    """The largest error of a conversion, for a moment so far from the last pulse."""
    return _TOLERANCE_US + abs(distance_s) * _DRIFT_CHANGE * 1e6


class _Line(NamedTuple):
    """total = at + (1e6 + drift) · (seconds - second)."""

    second: int
    at: float
    drift: float
    """Microseconds in a second."""

    def total(self, gps_ns: int) -> float:
        elapsed_ns = gps_ns - self.second * _SECOND_NS
        return self.at + elapsed_ns / 1000 * (1 + self.drift / _SECOND_US)

    def gps_ns(self, total: float) -> int:
        return self.second * _SECOND_NS + round((total - self.at) * 1000 / (1 + self.drift / _SECOND_US))


class _Pair(NamedTuple):
    second: int
    total: int


class GpsFit:
    """GPS time against one concentrator's counter. Moments are monotonic nanoseconds, counts microseconds of 32 bits.

    Within, counts are unwrapped to `total`, which goes on through restarts of the concentrator by the host's clock.
    """

    def __init__(self) -> None:
        self._count = 0
        self._total = 0
        self._at_ns: int | None = None
        self._is_new_counter = False
        self._last_pps = 0
        self._pulses: deque[tuple[int, int]] = deque(maxlen=3)
        self._stated: deque[tuple[int, int]] = deque(maxlen=3)
        self._pairs: deque[_Pair] = deque(maxlen=_WINDOW)
        self._run = 0
        self._in_a_row = 0
        self._paired_at_ns = 0
        self._line: _Line | None = None
        self._witness: _Line | None = None
        self.contradictions = 0
        """Pairs that did not agree with those before them, since the beginning."""

    def restarted(self) -> None:
        """The concentrator was started: its counter begins anew, and until it was read nothing is known of it."""
        self._is_new_counter = True
        self._begin()

    def note_pulse(self, pps_us: int, count_us: int, at_ns: int) -> None:
        """The counter at the last pulse and now, read at `at_ns`; asked at least twice a second."""
        self._follow(count_us, at_ns)
        age = (count_us - pps_us) % _WRAP
        if pps_us in (0, self._last_pps) or age > _PULSE_AGE_US:
            return
        self._last_pps = pps_us
        self._pulses.append((self._total - age, at_ns - age * 1000))
        self._join()

    def note_second(self, gps_ns: int, at_ns: int) -> None:
        """GPS time of the pulse before, as the receiver said it at `at_ns`."""
        second = round(gps_ns / _SECOND_NS)
        if abs(gps_ns - second * _SECOND_NS) <= _ON_SECOND_NS:
            self._stated.append((second, at_ns))
            self._join()

    def is_locked(self, now_ns: int) -> bool:
        """Whether conversions are to be had."""
        return self._line is not None and now_ns - self._paired_at_ns <= MAX_AGE_NS

    def count_of(self, gps_ns: int, now_ns: int) -> int | None:
        """The count at a moment of GPS time, None without lock; the counter's turn is the caller's to know."""
        if self._line is None or not self.is_locked(now_ns):
            return None
        return (round(self._line.total(gps_ns)) - self._total + self._count) % _WRAP

    def gps_ns_of(self, count_us: int, now_ns: int) -> int | None:
        """GPS time of a count within half an hour of now, None without lock."""
        if self._line is None or not self.is_locked(now_ns):
            return None
        return self._line.gps_ns(self._total + _signed(count_us - self._count))

    def now_gps_ns(self, now_ns: int) -> int | None:
        """GPS time now, to the milliseconds in which a reading of the counter comes; None without lock."""
        if self._line is None or self._at_ns is None or not self.is_locked(now_ns):
            return None
        return self._line.gps_ns(self._total + (now_ns - self._at_ns) / 1000)

    def _follow(self, count_us: int, at_ns: int) -> None:
        """Unwrap the counter; a jump of it is a restart."""
        if self._at_ns is None:
            self._total = count_us
        else:
            elapsed = (at_ns - self._at_ns) // 1000
            step = _signed(count_us - self._count - elapsed) + elapsed
            if self._is_new_counter or abs(step - elapsed) > _JUMP_US + elapsed * _HOST_DRIFT:
                self._forget_counter(elapsed)
                step = elapsed
            self._total += step
        self._count, self._at_ns, self._is_new_counter = count_us, at_ns, False

    def _forget_counter(self, elapsed_us: int) -> None:
        """Pairs are void; what was known before still tells seconds apart, if the gap was short."""
        self._begin()
        self._pulses.clear()
        self._last_pps = 0
        if elapsed_us > _RESTART_LIMIT_US:
            self._witness = None

    def _begin(self) -> None:
        self._pairs.clear()
        self._run = self._in_a_row = 0
        self._line = None

    def _join(self) -> None:
        """Pair what was stated with its pulse, once both are known."""
        for stated in tuple(self._stated):
            second, at_ns = stated
            for total, pulse_ns in self._pulses:
                if _SOONEST_NS <= at_ns - pulse_ns <= _LATEST_NS:
                    self._stated.remove(stated)
                    self._add(_Pair(second, total), at_ns)
                    break

    def _add(self, pair: _Pair, at_ns: int) -> None:
        if self._pairs and not self._agrees(pair):
            self.contradictions += 1
            self._in_a_row += 1
            if self._line is not None and self._in_a_row < _CONTRADICTIONS:
                return
            self._begin()
        elif self._pairs and pair.second - self._pairs[-1].second > MAX_AGE_NS // _SECOND_NS:
            self._begin()
        self._pairs.append(pair)
        self._run += 1
        self._in_a_row = 0
        self._paired_at_ns = at_ns
        if self._run >= NEEDED and self._run >= self._needed(pair):
            self._line = self._witness = _fitted(self._pairs)

    def _agrees(self, pair: _Pair) -> bool:
        last = self._pairs[-1]
        elapsed = pair.second - last.second
        if elapsed <= 0:
            return False
        if self._line is not None:
            return abs(self._line.total(pair.second * _SECOND_NS) - pair.total) <= bound_us(elapsed)
        return abs(pair.total - last.total - elapsed * _SECOND_US) <= _TOLERANCE_US + elapsed * _SECOND_US * _DRIFT

    def _needed(self, pair: _Pair) -> int:
        """How long a run has to be, which depends on what was known before."""
        known = self._witness
        if known is None:
            return NEEDED
        off = abs(known.total(pair.second * _SECOND_NS) - pair.total)
        # A witness too old to tell says nothing; of one that is not, its own drift was measured.
        if (pair.total - known.at) > WITNESS_LIMIT_S * _SECOND_US or off < _HALF_SECOND_US:
            return NEEDED
        return NEEDED_AGAINST_WITNESS


def _signed(difference: int) -> int:
    return (difference + _WRAP // 2) % _WRAP - _WRAP // 2


def _fitted(pairs: deque[_Pair]) -> _Line:
    """The line of least squares."""
    first, count = pairs[0], len(pairs)
    xs = [pair.second - first.second for pair in pairs]
    ys = [pair.total - first.total - x * _SECOND_US for pair, x in zip(pairs, xs, strict=True)]
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    spread = sum((x - mean_x) ** 2 for x in xs)
    drift = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    end = xs[-1]
    return _Line(pairs[-1].second, first.total + end * _SECOND_US + mean_y + drift * (end - mean_x), drift)
