"""Answers that wait for their moment: copies of the uplink are gathered until the gateway has to be chosen."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.decision import Decision, Owed, OwedJoin
from lorabridge.lorawan.verdict import Verdict

LEAD = 0.35
"""Seconds before RX1 at which the gateway is chosen at the latest: 0.2 to hand over, the rest to commit."""
MAX_WAITING = 4096
"""Answers that wait at a time; beyond it the air is flooded by devices of ours, and the oldest go unanswered."""
_STALE_S = 30.0
"""A reception that seems older than this was stamped by another clock."""
_NS = 1_000_000_000

_Key = tuple[bytes, int]


class Waiting(msgspec.Struct):
    """One answer, and who heard the uplink."""

    owed: Owed
    copies: list[Reception]
    due_at: float
    heard_at: float
    """When the uplink ended, seconds of the loop's clock."""


class WaitingAnswers:
    """The answers that are not yet due. `monotonic` gives seconds, `clock` ns since the Unix epoch."""

    def __init__(self, gather: float, monotonic: Callable[[], float], clock: Callable[[], int]) -> None:
        self._gather = gather
        self._monotonic = monotonic
        self._clock = clock
        self._waiting: dict[_Key, Waiting] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, owed: Owed, delay: float, *, alone: bool) -> None:
        """Wait for copies of an uplink whose RX1 opens after `delay` seconds; `alone`: nobody else could hear it."""
        now = self._monotonic()
        age = (self._clock() - owed.uplink.received_at) / _NS
        heard_at = now - age if 0 <= age <= _STALE_S else now
        gather = 0.0 if alone else max(0.0, min(self._gather, heard_at + delay - LEAD - now))
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
        self._waiting[_key(owed)] = Waiting(owed, [owed.uplink], now + gather, heard_at)

    def note_copy(self, decision: Decision) -> None:
        """Another gateway heard an uplink that waits for its answer."""
        if decision.verdict is not Verdict.DUPLICATE:
            return
        session, fcnt32, join_id = decision.session, decision.fcnt32, decision.join_id
        if join_id is not None:
            waiting = self._waiting.get((join_id, -1))
        elif session is not None and fcnt32 is not None:
            waiting = self._waiting.get((session.session_id, fcnt32))
        else:
            return
        if waiting is not None:
            waiting.copies.append(decision.reception)

    def take_due(self) -> list[Waiting]:
        """The answers whose moment has come; for one session only the newest."""
        now = self._monotonic()
        due = [(key, waiting) for key, waiting in self._waiting.items() if waiting.due_at <= now]
        for key, _ in due:
            del self._waiting[key]
        return list({key[0]: waiting for key, waiting in due}.values())

    def next_due(self) -> float | None:
        """When the next one is due, seconds of the loop's clock."""
        return min((waiting.due_at for waiting in self._waiting.values()), default=None)


def _key(owed: Owed) -> _Key:
    if isinstance(owed, OwedJoin):
        return owed.join_id, -1
    return owed.entry.session_id, owed.fcnt32
