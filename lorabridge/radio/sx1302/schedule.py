"""Frames that wait for their moment: the concentrator holds one at a time, so each is handed over shortly before.

Counter values are microseconds, 32 bits, and wrap. The rules are those of the reference (jitqueue.c of 2.1.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lorabridge.radio.sx1302.wire import Order

HAND_OVER_US: Final = 60_000
"""How long before its moment a frame is given to the library."""
LEAST_LEAD_US: Final = 20_000
"""A frame that comes later than this before its moment is TOO_LATE."""
MOST_LEAD_US: Final = 384_000_000
"""A frame for a later moment is TOO_EARLY: three beacon periods, as in the reference."""
MARGIN_US: Final = 2_500
"""Between two frames: TX_START_DELAY and TX_MARGIN_DELAY of the reference."""
QUEUE_LIMIT: Final = 32

TOO_LATE: Final = "TOO_LATE"
TOO_EARLY: Final = "TOO_EARLY"
COLLISION: Final = "COLLISION_PACKET"
FULL: Final = "FULL"


def lead(count_us: int, now: int) -> int:
    """Microseconds from `now` to `count_us`, negative when it is past."""
    return (count_us - now + 2**31) % 2**32 - 2**31


@dataclass(slots=True)
class _Slot:
    order: Order
    at: int
    airtime_us: int
    waiting: bool


class Schedule:
    """What is to be sent, and what is on the air."""

    def __init__(self) -> None:
        self._slots: list[_Slot] = []

    def add(self, order: Order, now: int, airtime_us: int) -> str | None:
        """Take a frame, or the word for why not. One without a moment is due at once."""
        self.settle(now)
        at = now if order.count_us is None else order.count_us
        ahead = lead(at, now)
        if order.count_us is not None and ahead < LEAST_LEAD_US:
            return TOO_LATE
        if ahead > MOST_LEAD_US:
            return TOO_EARLY
        if len(self._slots) >= QUEUE_LIMIT:
            return FULL
        for other in self._slots:
            distance = lead(at, other.at)
            needed = (other.airtime_us if distance >= 0 else airtime_us) + MARGIN_US
            if abs(distance) < needed:
                return COLLISION
        self._slots.append(_Slot(order, at, airtime_us, waiting=True))
        return None

    def settle(self, now: int) -> None:
        """Forget what was on the air; asked every few minutes, because half a turn later the past is the future."""
        self._slots = [one for one in self._slots if one.waiting or lead(one.at, now) + one.airtime_us > 0]

    def due(self, now: int) -> list[Order]:
        """Frames to hand over now."""
        found = [one for one in self._slots if one.waiting and lead(one.at, now) <= HAND_OVER_US]
        for one in found:
            one.waiting = False
        return [one.order for one in found]

    @property
    def is_waiting(self) -> bool:
        """Whether any frame still waits for its moment."""
        return any(one.waiting for one in self._slots)

    def postpone(self, order: Order) -> None:
        """It is to be tried again: the one before it is still on the air."""
        for one in self._slots:
            if one.order is order:
                one.waiting = True

    def forget(self, order: Order) -> None:
        """It will not go on the air."""
        self._slots = [one for one in self._slots if one.order is not order]
