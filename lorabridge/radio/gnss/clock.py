"""What is known of place and time, from messages and when they came. Takes the time as an argument, touches nothing."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from lorabridge.lorawan.gps_time import LEAP_SECONDS, gps_ns_of, utc_ns_of
from lorabridge.radio.gnss.messages import SECOND_NS, GpsTime, Place, Position, UtcTime

FRESH: Final = 3.0
"""Seconds for which a statement of time counts: receivers make one a second, two may be lost on the way."""


class TimeQuality(enum.Enum):
    """How good the time is, best first."""

    GPS = "gps"
    """NAV-TIMEGPS: GPS time from the receiver itself."""
    UTC = "utc"
    """RMC: UTC from the receiver, GPS time by the leap seconds last known."""
    STALE = "stale"
    """There was one, but not lately: no fix, no pulse, or no receiver any more."""
    NONE = "none"
    """There was none yet."""


class GnssState(msgspec.Struct, frozen=True, kw_only=True):
    """Place and time as last told, and how old that is."""

    quality: TimeQuality
    position: Position | None
    """The last fix, however old: a gateway stands still."""
    position_age_s: float | None
    utc_ns: int | None
    """UTC of the pulse before the last statement of time, nanoseconds since the Unix epoch."""
    gps_ns: int | None
    """The same moment in GPS time, nanoseconds since 1980-01-06."""
    time_age_s: float | None
    """Seconds since that statement came; the pulse was up to one second before it."""
    accuracy_ns: int | None
    """The receiver's estimate; only of quality `gps`."""
    leap_seconds: int
    leap_seconds_assumed: bool
    """Whether no receiver has said it yet."""
    missed_seconds: int
    """Seconds that passed without a statement between two that came, since the beginning."""


class GnssClock:
    """Keeps the last statement of each kind. `at` and `now` are monotonic seconds."""

    def __init__(self) -> None:
        self._position: Position | None = None
        self._position_at = 0.0
        self._gps_ns: int | None = None
        self._time_at = 0.0
        self._accuracy_ns: int | None = None
        self._leap_seconds: int | None = None
        self._in_leap_second = False
        self._missed_seconds = 0

    def note(self, statement: Place | UtcTime | GpsTime, at: float) -> None:
        """Take in what a message said that came at `at`."""
        if isinstance(statement, Place):
            if statement.position is not None:
                self._position, self._position_at = statement.position, at
        elif isinstance(statement, GpsTime):
            self._note_gps(statement, at)
        else:
            self._note_utc(statement, at)

    def state(self, now: float) -> GnssState:
        """All that is known at `now`."""
        gps_ns, quality = self._gps_ns, TimeQuality.NONE
        if gps_ns is not None:
            fresh = TimeQuality.UTC if self._accuracy_ns is None else TimeQuality.GPS
            quality = fresh if now - self._time_at <= FRESH else TimeQuality.STALE
        return GnssState(
            quality=quality,
            position=self._position,
            position_age_s=None if self._position is None else now - self._position_at,
            utc_ns=None if gps_ns is None else utc_ns_of(gps_ns, self._leap()),
            gps_ns=gps_ns,
            time_age_s=None if gps_ns is None else now - self._time_at,
            accuracy_ns=self._accuracy_ns if quality is TimeQuality.GPS else None,
            leap_seconds=self._leap(),
            leap_seconds_assumed=self._leap_seconds is None,
            missed_seconds=self._missed_seconds,
        )

    def _leap(self) -> int:
        return LEAP_SECONDS if self._leap_seconds is None else self._leap_seconds

    def _note_gps(self, told: GpsTime, at: float) -> None:
        if told.gps_ns is None:
            return
        if told.leap_seconds is not None:
            self._leap_seconds = told.leap_seconds
        self._set(told.gps_ns, at, told.accuracy_ns)

    def _note_utc(self, told: UtcTime, at: float) -> None:
        """RMC counts only while NAV-TIMEGPS does not come: of a receiver that sends both, it is the poorer one."""
        if told.utc_ns is None or (self._accuracy_ns is not None and at - self._time_at <= FRESH):
            self._in_leap_second = False
            return
        if self._in_leap_second and not told.leap_second:
            self._leap_seconds = self._leap() + 1  # it has been inserted: GPS time goes on, UTC stood still
        self._in_leap_second = told.leap_second
        self._set(gps_ns_of(told.utc_ns, self._leap()), at, None)

    def _set(self, gps_ns: int, at: float, accuracy_ns: int | None) -> None:
        if self._gps_ns is not None:
            self._missed_seconds += max(0, round((gps_ns - self._gps_ns) / SECOND_NS) - 1)
        self._gps_ns, self._time_at, self._accuracy_ns = gps_ns, at, accuracy_ns
