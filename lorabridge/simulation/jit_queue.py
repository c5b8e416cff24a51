"""The queue of a concentrator's transmissions, with the checks of the reference forwarder (sx1302_hal, jitqueue.c)."""

from __future__ import annotations

import msgspec

TX_START_DELAY_US = 1_500
TX_MARGIN_DELAY_US = 1_000
TX_JIT_DELAY_US = 40_000
TX_MAX_ADVANCE_DELAY_US = 512_000_000
"""(3 + 1) beacon periods of 128 s."""
QUEUE_SIZE = 32
_TMST_MASK = 0xFFFF_FFFF

TOO_LATE = "TOO_LATE"
TOO_EARLY = "TOO_EARLY"
COLLISION = "COLLISION_PACKET"


class Slot(msgspec.Struct, frozen=True):
    """A transmission that was accepted, by the counter of the concentrator, unwrapped."""

    starts_us: int
    ends_us: int


class JitQueue:
    """What one gateway has promised to send. Times are microseconds of its counter, not wrapped at 32 bits."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def at_tmst(self, now_us: int, tmst: int, airtime_us: int) -> Slot | str:
        """The place of a transmission timed by `tmst` (32 bits), or the reference's word for why there is none.

        A `tmst` that is past looks like one almost 2^32 µs ahead, and so it is too early.
        """
        ahead_us = (tmst - now_us) & _TMST_MASK
        if ahead_us <= TX_START_DELAY_US + TX_MARGIN_DELAY_US + TX_JIT_DELAY_US:
            return TOO_LATE
        if ahead_us > TX_MAX_ADVANCE_DELAY_US:
            return TOO_EARLY
        return self._place(now_us, Slot(now_us + ahead_us, now_us + ahead_us + airtime_us)) or COLLISION

    def at_once(self, now_us: int, airtime_us: int) -> Slot | str:
        """The first place that is free (class C)."""
        starts_us = now_us + TX_START_DELAY_US + TX_MARGIN_DELAY_US
        candidates = [starts_us, *(slot.ends_us + TX_START_DELAY_US + TX_MARGIN_DELAY_US for slot in self._slots)]
        for candidate in sorted(one for one in candidates if one >= starts_us):
            placed = self._place(now_us, Slot(candidate, candidate + airtime_us))
            if placed is not None:
                return placed
        return COLLISION

    def _place(self, now_us: int, wanted: Slot) -> Slot | None:
        self._slots = [slot for slot in self._slots if slot.ends_us > now_us]
        if len(self._slots) >= QUEUE_SIZE or any(_overlap(wanted, slot) for slot in self._slots):
            return None
        self._slots.append(wanted)
        return wanted


def _overlap(one: Slot, other: Slot) -> bool:
    """Whether two transmissions, each with its start delay and margin, share any time."""
    gap_us = TX_START_DELAY_US + TX_MARGIN_DELAY_US
    return one.starts_us - gap_us < other.ends_us and other.starts_us - gap_us < one.ends_us
