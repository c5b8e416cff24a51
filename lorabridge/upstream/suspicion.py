"""Which publish the endpoint hangs up on. It does not say so: it is inferred from what was in flight, drop after drop.

A network that breaks again and again has the same record in flight each time, and whoever can cut the line chooses
when: drops alone convict nobody. A record over which the link broke is held back; when another gets through it is
tried, with nothing else in flight. Only if the link breaks over that as well it is guilty.

A batch is split early: its records leave alone from then on, and the one that is guilty is found among them. When
batch after batch has to be split and none gets through, batches themselves are refused (a policy that does not know
their topic): none is made for a while.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lorabridge.upstream.batches import OutboxRecord, Unit
from lorabridge.upstream.link import NOT_YOURS

SPLIT_AFTER = 2
"""Drops in a row with the same batch as the oldest in flight."""
SPLITS = 3
"""Batches split in a row, none acknowledged between: batches are refused."""
WITHOUT_BATCHES_S = 3600.0


class Suspicion:
    """Counts the drops; `poison_after` of them in a row over one record, and it is held back."""

    def __init__(self, poison_after: int) -> None:
        self._poison_after = poison_after
        self._blamed: int | None = None
        self.drops = 0
        self.held: OutboxRecord | None = None
        """Not published on this connection until another gets through."""
        self.on_trial: OutboxRecord | None = None
        """To be published with nothing else in flight."""
        self.alone: set[int] = set()
        """Records of a batch that was split."""
        self.splits = 0
        self._splits_in_a_row = 0
        self._batches_from = -math.inf

    def allows_batches(self, now: float) -> bool:
        """Whether a batch may be tried."""
        return now >= self._batches_from

    def acknowledged(self, unit: Unit) -> None:
        """A PUBACK: what is held back gets its trial, what was tried is acquitted."""
        if unit.is_batch:
            self._splits_in_a_row = 0
        if self.alone:
            self.alone.difference_update(record.id for record in unit.records)
        if self.held is not None:
            self.on_trial, self.held = self.held, None
        elif unit.key == self._blamed:
            self._acquit()

    def _acquit(self) -> None:
        self.held = self.on_trial = self._blamed = None

    def dropped(
        self, lost: Sequence[Unit], culprit: int | None, now: float
    ) -> tuple[list[OutboxRecord], OutboxRecord | None]:
        """The connection broke with `lost` in flight, oldest first, `culprit` refused by name.

        What to send again, and the record that it proves guilty, if any.
        """
        again = [record for unit in lost for record in unit.records]
        if self.on_trial is not None:
            return self._judge(self.on_trial, again, culprit)
        if self.held is not None:  # it broke without it too
            again.insert(0, self.held)
            self._acquit()
            return again, None
        if lost and culprit != NOT_YOURS:
            blamed = lost[0] if culprit is None else next(unit for unit in lost if unit.key == culprit)
            if self._blame(blamed, now):
                self.held = blamed.records[0]
                again.remove(self.held)
        return again, None

    def _judge(
        self, suspect: OutboxRecord, again: list[OutboxRecord], culprit: int | None
    ) -> tuple[list[OutboxRecord], OutboxRecord | None]:
        """As `dropped`, with a record on trial: what was not decided now is decided on the next connection."""
        was_tried = [record.id for record in again] == [suspect.id]
        if not was_tried:
            return again, None
        if culprit == NOT_YOURS:
            return [], None
        self._acquit()
        self.alone.discard(suspect.id)
        return [], suspect

    def _blame(self, suspect: Unit, now: float) -> bool:
        """Count one more drop against it, split a batch that has had its chances; whether a record has."""
        self.drops = self.drops + 1 if suspect.key == self._blamed else 1
        self._blamed = suspect.key
        if suspect.is_batch and self.drops >= SPLIT_AFTER:
            self._split(suspect, now)
            return False
        return not suspect.is_batch and self.drops >= self._poison_after

    def _split(self, suspect: Unit, now: float) -> None:
        self.alone.update(record.id for record in suspect.records)
        self._blamed, self.drops = None, 0
        self.splits += 1
        self._splits_in_a_row += 1
        if self._splits_in_a_row >= SPLITS:
            self._splits_in_a_row = 0
            self._batches_from = now + WITHOUT_BATCHES_S
