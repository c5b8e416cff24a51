"""Sets of record ids that come in ascending runs: a day of fresh records in a few numbers."""

from __future__ import annotations

import bisect


class IdRanges:
    """Ids added in ascending order. Pure."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []

    def __contains__(self, record_id: int) -> bool:
        at = bisect.bisect_right(self._first, record_id) - 1
        return at >= 0 and record_id <= self._last[at]

    def add(self, first: int, last: int) -> None:
        """All from `first` to `last`, which are above all that were added before."""
        if self._last and self._last[-1] == first - 1:
            self._last[-1] = last
        else:
            self._first.append(first)
            self._last.append(last)

    def absorb(self, up_to: int) -> int:
        """Forget what is not above `up_to`, nor above a run that follows it at once; where that ends."""
        count = 0
        while count < len(self._first) and self._first[count] <= up_to + 1:
            up_to = max(up_to, self._last[count])
            count += 1
        del self._first[:count], self._last[:count]
        return up_to
