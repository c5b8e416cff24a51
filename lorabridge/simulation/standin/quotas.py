"""The quotas of one connection: publishes a second, bytes a second, publishes that nobody has acknowledged.

General Reference, AWS IoT Core endpoints and quotas, "Message broker and protocol limits and quotas".
"""

from __future__ import annotations

import msgspec

MAX_UNACKNOWLEDGED = 100
BYTES_PER_SECOND = 512 * 1024
LONGEST_KEEP_ALIVE = 1200


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that can be set; of the quotas 0 is without limit."""

    publishes_per_second: int = 100
    bytes_per_second: int = BYTES_PER_SECOND
    unacknowledged: int = MAX_UNACKNOWLEDGED
    shortest_keep_alive: int = 30

    def keep_alive(self, asked: int) -> int:
        """Seconds that a client is held to; 0 asks for the longest."""
        return min(max(asked or LONGEST_KEEP_ALIVE, self.shortest_keep_alive), LONGEST_KEEP_ALIVE)


class Quota:
    """Publishes of one connection in whole seconds of the clock, both directions together."""

    def __init__(self, per_second: int) -> None:
        """`per_second` 0 is without limit."""
        self.per_second = per_second
        self._second, self._count = -1, 0

    def at(self, now: float) -> None:
        """It is `now`: monotonic, in seconds."""
        if int(now) != self._second:
            self._second, self._count = int(now), 0

    def take(self) -> int:
        """Count one more; by how many the second is over the quota now."""
        self._count += 1
        return self.excess

    @property
    def excess(self) -> int:
        """By how many the second is over the quota."""
        return max(0, self._count - self.per_second) if self.per_second else 0


class Throughput:
    """Bytes of one connection, both directions together: a second's worth at once, then no faster than the quota."""

    def __init__(self, bytes_per_second: int) -> None:
        """`bytes_per_second` 0 is without limit."""
        self._rate = bytes_per_second
        self._free_at = 0.0

    def take(self, size: int, now: float) -> float:
        """So many bytes passed; the seconds until more may, 0 while within the quota. `now` is monotonic."""
        if not self._rate:
            return 0.0
        self._free_at = max(self._free_at, now) + size / self._rate
        return max(0.0, self._free_at - now - 1.0)
