"""What the cloud is told of radios: one event when a source or a gateway behind it is lost, one when it is back.

Sources that fail are told by name. Gateways that speak over a network come and go by themselves, and whoever can
reach an open port can name a thousand of them: one is missed only after it was there for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from lorabridge.lorawan.events import RadioEvent, RadioState
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import RadioSilentError

GRACE = 30.0
"""Seconds in which a gateway may come again before it is missed."""
WATCHED_AFTER = 300.0
"""Seconds that a gateway must have been there before anybody misses it."""
FORGOTTEN_AFTER = 30 * 86_400.0
"""Seconds after which a gateway that was told to be silent is no gateway of ours any more."""
GATEWAYS_LIMIT = 1024
EVENTS_LIMIT = 256
"""Events that wait to be stored; the oldest goes first."""
REASON_LIMIT = 500


class _Outage(msgspec.Struct):
    since: float
    state: RadioState
    failures: int = 0


class _Sighting(msgspec.Struct):
    since: float
    last: float
    is_silent: bool = False


class RadioWatch:
    """The state of every source, and the events that its changes make."""

    def __init__(self, clock: Callable[[], int], monotonic: Callable[[], float]) -> None:
        """`clock` gives ns since the Unix epoch, `monotonic` seconds."""
        self._clock = clock
        self._monotonic = monotonic
        self._outages: dict[str, _Outage] = {}
        self._gateways: dict[tuple[str, EUI64], _Sighting] = {}
        self._events: deque[RadioEvent] = deque(maxlen=EVENTS_LIMIT)

    @property
    def down(self) -> dict[str, str]:
        """What is lost now, by source and, where it is one gateway behind it, EUI."""
        sources = {name: outage.state.value for name, outage in self._outages.items()}
        silent = {f"{name} {eui}" for (name, eui), one in self._gateways.items() if one.is_silent}
        return sources | dict.fromkeys(sorted(silent), RadioState.SILENT.value)

    @property
    def lost_sources(self) -> frozenset[str]:
        """The sources that do not run."""
        return frozenset(self._outages)

    def failed(self, source: str, error: Exception) -> None:
        """A source failed, or failed to start."""
        outage = self._outages.get(source)
        if outage is not None:
            outage.failures += 1
            return
        state = RadioState.SILENT if isinstance(error, RadioSilentError) else RadioState.DEAD
        self._outages[source] = _Outage(self._monotonic(), state)
        self._tell(source, None, state, reason=str(error) or type(error).__name__)

    def started(self, source: str) -> None:
        """A source runs. Its gateways have to find it again, and get the time for that."""
        outage = self._outages.pop(source, None)
        if outage is None:
            return
        now = self._monotonic()
        for (name, _), sighting in self._gateways.items():
            if name == source and not sighting.is_silent:
                sighting.last = now
        self._tell(source, None, RadioState.RECOVERED, down_s=now - outage.since, failures=outage.failures)

    def look(self, source: str, reachable: frozenset[EUI64] | None) -> None:
        """The gateways that are there now; to be called often against GRACE, for a source that runs."""
        if reachable is None or source in self._outages:
            return
        now = self._monotonic()
        for eui in reachable:
            self._seen(source, eui, now)
        for key, sighting in list(self._gateways.items()):
            if key[0] == source and key[1] not in reachable:
                self._missing(key, sighting, now)

    def take(self) -> list[RadioEvent]:
        """The events since the last time."""
        taken = list(self._events)
        self._events.clear()
        return taken

    def _seen(self, source: str, eui: EUI64, now: float) -> None:
        sighting = self._gateways.get((source, eui))
        if sighting is None:
            if len(self._gateways) < GATEWAYS_LIMIT:
                self._gateways[source, eui] = _Sighting(now, now)
            return
        if sighting.is_silent:
            self._tell(source, eui, RadioState.RECOVERED, down_s=now - sighting.last)
            sighting.is_silent = False
        sighting.last = now

    def _missing(self, key: tuple[str, EUI64], sighting: _Sighting, now: float) -> None:
        gone = now - sighting.last
        if sighting.is_silent:
            if gone > FORGOTTEN_AFTER:
                del self._gateways[key]
        elif gone > GRACE and sighting.last - sighting.since < WATCHED_AFTER:
            del self._gateways[key]
        elif gone > GRACE:
            sighting.is_silent = True
            self._tell(*key, RadioState.SILENT, reason="the gateway gives no sign of life")

    def _tell(  # the fields of one event
        self,
        source: str,
        eui: EUI64 | None,
        state: RadioState,
        *,
        reason: str = "",
        down_s: float | None = None,
        failures: int = 0,
    ) -> None:
        self._events.append(
            RadioEvent(
                at=self._clock(),
                source=source,
                gateway_eui=eui,
                state=state,
                reason=reason[:REASON_LIMIT],
                down_s=None if down_s is None else round(down_s, 3),
                failures=failures,
            )
        )
