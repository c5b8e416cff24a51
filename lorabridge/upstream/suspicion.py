"""Which publish the endpoint hangs up on. It does not say so: it is inferred from what was in flight, drop after drop.

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
        """Not published on this connection: if another gets through it is guilty."""
        self.alone: set[int] = set()
        """Records of a batch that was split."""
        self.splits = 0
        self._splits_in_a_row = 0
        self._batches_from = -math.inf

    def allows_batches(self, now: float) -> bool:
        """Whether a batch may be tried."""
        return now >= self._batches_from

    def acknowledged(self, unit: Unit) -> OutboxRecord | None:
        """A PUBACK; the record that it proves guilty, if any."""
        if unit.is_batch:
            self._splits_in_a_row = 0
        self.alone.difference_update(record.id for record in unit.records)
        guilty = self.held
        if guilty is not None:
            self.alone.discard(guilty.id)
        if guilty is not None or unit.key == self._blamed:
            self.held, self._blamed = None, None
        return guilty

    def dropped(self, lost: Sequence[Unit], culprit: int | None, now: float) -> list[OutboxRecord]:
        """The connection broke with `lost` in flight, oldest first, `culprit` refused by name; what to send again."""
        again = [record for unit in lost for record in unit.records]
        if self.held is not None:  # it broke without it too
            again.insert(0, self.held)
            self.held, self._blamed, self.drops = None, None, 0
        elif lost and culprit != NOT_YOURS:
            suspect = lost[0] if culprit is None else next(unit for unit in lost if unit.key == culprit)
            if self._blame(suspect, now):
                self.held = suspect.records[0]
                again.remove(self.held)
        return again

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
