"""What one client has subscribed to, for the messages that the front itself delivers: those of the services."""

from __future__ import annotations

from collections.abc import Iterable

_FIRST_ID, _LAST_ID = 0x8000, 0xFFFF
"""Packet ids of the front; those of a broker begin at 1 and would need as many messages on one connection."""


class Subscriptions:
    """Filters with the QoS that was asked for, and the packet ids of what was delivered and not acknowledged."""

    def __init__(self) -> None:
        self._filters: dict[str, int] = {}
        self._last_id = _FIRST_ID
        self._waiting: set[int] = set()

    def add(self, filters: Iterable[str], qos: int) -> int:
        """Subscribe; how many filters there are now."""
        self._filters |= dict.fromkeys(filters, qos)
        return len(self._filters)

    def remove(self, filters: Iterable[str]) -> None:
        """Unsubscribe."""
        for topic_filter in filters:
            self._filters.pop(topic_filter, None)

    def qos(self, topic: str) -> int | None:
        """The highest QoS of the filters that match, or None when none does."""
        return max((qos for name, qos in self._filters.items() if matches(name, topic)), default=None)

    def new_packet_id(self) -> int:
        """For a message with QoS 1; `acknowledged` takes the PUBACK."""
        self._last_id = self._last_id + 1 if self._last_id < _LAST_ID else _FIRST_ID
        self._waiting.add(self._last_id)
        return self._last_id

    def acknowledged(self, packet_id: int) -> bool:
        """Whether the PUBACK was for a message of the front's."""
        if packet_id not in self._waiting:
            return False
        self._waiting.remove(packet_id)
        return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter covers a topic (MQTT 3.1.1 §4.7); a wildcard in front does not cover `$` (§4.7.2).

    `a/#` does not cover `a`: so AWS IoT has it (developer guide, MQTT, "Differences from MQTT specifications").
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) <= len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(part in ("+", level) for part, level in zip(wanted, levels, strict=True))
