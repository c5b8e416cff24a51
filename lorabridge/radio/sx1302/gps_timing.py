"""GPS time for one concentrator: its counter and its receiver brought together, while both work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from lorabridge.lorawan.air import GnssHealth
from lorabridge.lorawan.gps_time import utc_ns_of
from lorabridge.radio.gnss.clock import FRESH, GnssState, TimeQuality
from lorabridge.radio.gnss.messages import Position
from lorabridge.radio.sx1302.gnss_watch import GnssWatch
from lorabridge.radio.sx1302.gps_fit import GpsFit
from lorabridge.radio.sx1302.mapping import GPS_UNLOCKED, NotSendableError
from lorabridge.radio.sx1302.schedule import MOST_LEAD_US, TOO_EARLY, TOO_LATE
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.wire import Counter

_LOGGER = logging.getLogger(__name__)

ACCURACY_LIMIT_NS: Final = 10_000
"""A receiver that thinks itself farther off is not listened to: its pulse is where its time is."""


class GpsTiming:
    """Knows nothing until receiver and concentrator agree; without a receiver it never does."""

    def __init__(self, settings: Sx1302Settings, clock: Callable[[], int]) -> None:
        """`clock` gives ns since the Unix epoch."""
        port = settings.gnss_device
        self._source = settings.name
        self._fit = GpsFit()
        self._was_known = False
        self._clock = clock
        self._watch = None if port is None else GnssWatch(port, settings.gnss_baud, settings.name, self._take)
        self._last_gps_ns: int | None = None
        self._state: GnssState | None = None
        self._told_at_ns = 0

    @property
    def position(self) -> Position | None:
        """The last fix of the receiver, however old."""
        return None if self._state is None else self._state.position

    def health(self, now_ns: int) -> GnssHealth | None:
        """How good time and place are; None without a receiver. `now_ns`: monotonic."""
        if self._watch is None:
            return None
        state, is_locked = self._state, self._fit.is_locked(now_ns)
        if state is None:
            return GnssHealth(time_quality=TimeQuality.NONE.value, pulse_locked=is_locked)
        is_late = now_ns - self._told_at_ns > FRESH * 1e9 and state.quality is not TimeQuality.NONE
        quality = TimeQuality.STALE if is_late else state.quality
        return GnssHealth(
            time_quality=quality.value,
            accuracy_ns=None if is_late else state.accuracy_ns,
            satellites=None if state.position is None else state.position.satellites,
            leap_seconds=None if state.leap_seconds_assumed else state.leap_seconds,
            missed_seconds=state.missed_seconds,
            pulse_locked=is_locked,
        )

    @property
    def contradictions(self) -> int:
        """Seconds of the receiver that did not agree with those before, since the beginning."""
        return self._fit.contradictions

    def start(self) -> None:
        """The concentrator was started: its counter begins anew; read the receiver."""
        self._fit.restarted()
        if self._watch is not None:
            self._watch.start()

    async def stop(self) -> None:
        """Let go of the receiver. May be called twice."""
        if self._watch is not None:
            await self._watch.stop()

    def note(self, counter: Counter) -> None:
        """A reading of the concentrator's counter; half a second later there is another."""
        self._fit.note_pulse(counter.pps_us, counter.count_us, counter.at_ns)
        is_known = self._fit.is_locked(counter.at_ns)
        if is_known != self._was_known:
            self._was_known = is_known
            self._say(counter.at_ns)

    def gps_ns_of(self, count_us: int, now_ns: int) -> int | None:
        """GPS time of a count of the last minutes, None when it is not known."""
        return self._fit.gps_ns_of(count_us, now_ns)

    def count_of(self, gps_time_ms: int | None, now_ns: int) -> int:
        """The count of a moment to transmit at. Raises NotSendableError."""
        gps_ns, now_gps_ns = (gps_time_ms or 0) * 1_000_000, self._fit.now_gps_ns(now_ns)
        count = self._fit.count_of(gps_ns, now_ns)
        if count is None or now_gps_ns is None:
            raise NotSendableError(GPS_UNLOCKED)
        if gps_ns <= now_gps_ns:  # by counts alone it would be as far ahead as the counter is long
            raise NotSendableError(TOO_LATE)
        if gps_ns - now_gps_ns > MOST_LEAD_US * 1000:
            raise NotSendableError(TOO_EARLY)
        return count

    def _say(self, now_ns: int) -> None:
        """That GPS time is known or lost; seconds between it and a clock that NTP keeps show a fault."""
        facts: dict[str, object] = {"source": self._source}
        gps_ns = self._fit.now_gps_ns(now_ns)
        if gps_ns is not None:
            facts["system_clock_behind_s"] = round((utc_ns_of(gps_ns) - self._clock()) / 1e9, 1)
        _LOGGER.info("GPS time is lost" if gps_ns is None else "GPS time is known", extra={"fields": facts})

    def _take(self, state: GnssState, now_ns: int) -> None:
        """Only NAV-TIMEGPS tells seconds: those of UTC stand on leap seconds that may be wrong."""
        self._state, self._told_at_ns = state, now_ns
        is_good = state.quality is TimeQuality.GPS and (state.accuracy_ns or 0) <= ACCURACY_LIMIT_NS
        if is_good and state.gps_ns is not None and state.gps_ns != self._last_gps_ns:
            self._last_gps_ns = state.gps_ns
            self._fit.note_second(state.gps_ns, now_ns - round((state.time_age_s or 0.0) * 1e9))
