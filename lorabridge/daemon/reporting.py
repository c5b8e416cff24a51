"""Security events without amplification: whoever makes us refuse a million frames makes us say so once a minute.

A refusal whose sender is proved (a replay, a counter reset …) is told at once the first time, and summed up
afterwards. A refusal that proves nothing costs a counter, and is told in sums only.
"""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.events import SecurityEvent
from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.verdict import Reason, Verdict

SUMMED = frozenset(
    {
        Verdict.BAD_MIC,
        Verdict.UNKNOWN_DEVICE,
        Verdict.MALFORMED,
        Verdict.WRONG_DIRECTION,
        Verdict.PROPRIETARY,
    }
)
"""Refusals that nobody is proved to have caused; `foreign` and `radio_crc` are the air's normal noise: statistics."""
TABLE_SIZE = 1024
"""Proven kinds of refusal told apart in one interval."""

_Key = tuple[Verdict, Reason | None, EUI64 | None]


class _Sum(msgspec.Struct):
    """What came of one kind since it was last told."""

    event: SecurityEvent
    count: int


class SecurityReporter:
    """Decides which security events leave now and which are summed up; `interval_ns` is the time between sums."""

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._sums: dict[_Key, _Sum] = {}
        self._due_at: int | None = None
        self._untold = 0

    def admit(self, event: SecurityEvent) -> bool:
        """Whether a proven refusal is told now; otherwise it is in the next sum."""
        key = (event.verdict, event.reason, None if event.device is None else event.device.dev_eui)
        known = self._sums.get(key)
        if known is not None:
            known.count += 1
            known.event = _later(known.event, event)
            return False
        if len(self._sums) >= TABLE_SIZE:
            self._untold += 1
            return False
        self._sums[key] = _Sum(event, 0)
        return True

    def count(self, decision: Decision) -> None:
        """Take an unproven refusal into the sums."""
        if decision.verdict not in SUMMED:
            return
        known = self._sums.get((decision.verdict, decision.reason, None))
        at = decision.reception.received_at
        if known is not None:
            known.count += 1
            known.event = msgspec.structs.replace(known.event, last_at=at)
            return
        event = SecurityEvent(
            verdict=decision.verdict,
            reason=decision.reason,
            device=None,
            dev_addr=None,
            fcnt32=None,
            count=1,
            first_at=at,
            last_at=at,
            detail="frames of unproven origin, summed up",
            reception=None,
        )
        self._sums[decision.verdict, decision.reason, None] = _Sum(event, 1)

    def due(self, now_ns: int, *, final: bool = False) -> list[SecurityEvent]:
        """The sums, once an interval; all that is left when `final`."""
        if self._due_at is None:
            self._due_at = now_ns + self._interval_ns
        if now_ns < self._due_at and not final:
            return []
        self._due_at = now_ns + self._interval_ns
        told = [msgspec.structs.replace(known.event, count=known.count) for known in self._sums.values() if known.count]
        self._sums.clear()
        return told

    @property
    def untold(self) -> int:
        """Proven refusals that found no place in a sum, ever."""
        return self._untold


def _later(first: SecurityEvent, last: SecurityEvent) -> SecurityEvent:
    """The sum's event: what it says is of the last one, the time it began of the first."""
    return msgspec.structs.replace(last, first_at=first.first_at)
