"""Two ways out, one drain: MQTT while it works, HTTPS after MQTT was blocked several times in a row.

MQTT is tried on all the while, with its own back-off, and takes over again with its first CONNACK. What HTTPS has
under way then is still waited for. Commands come by MQTT only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.link import LinkReport, Listener

BLOCKED = frozenset({LinkFault.UNREACHABLE, LinkFault.TLS_CLOSED, LinkFault.NO_CONNACK})
"""What a firewall does to MQTT: no connection, no handshake, no answer. All else is not mended by another protocol."""


class Way(Protocol):
    """A way out, as the drain uses it."""

    def attach(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on."""

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        """Whether a payload of `size` bytes may be published now; a `patient` one leaves room for others."""

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Queue a publish."""

    def flush(self) -> None:
        """Send what was queued."""


class Fallback:
    """The drain's link. `note` every report of the MQTT link."""

    def __init__(self, mqtt: Way, https: Way, after: int, on_change: Callable[[bool], None]) -> None:
        """HTTPS is used `after` blocked tries in a row: `on_change(True)`, and at its end `on_change(False)`."""
        self._mqtt = mqtt
        self._https = https
        self._after = after
        self._on_change = on_change
        self._listener: Listener | None = None
        self._way = mqtt
        self._is_trying = False
        self._blocked = 0
        self.is_active = False
        """Whether records leave by HTTPS."""

    def note(self, report: LinkReport) -> None:
        """Count the tries of MQTT that ended as a firewall ends them."""
        if report.state is LinkState.CONNECTING:
            self._is_trying = True
        elif report.state is LinkState.ONLINE:
            self._is_trying, self._blocked = False, 0
            self._turn(False)
        elif report.state is LinkState.WAITING and self._is_trying:
            self._is_trying = False
            self._blocked = self._blocked + 1 if report.fault in BLOCKED else 0
            if self._blocked >= self._after:
                self._turn(True)

    def _turn(self, is_active: bool) -> None:
        if is_active is self.is_active:
            return
        self.is_active = is_active
        self._on_change(is_active)
        if is_active and self._listener is not None:
            self._listener.ready()

    # What the drain uses.

    def attach(self, listener: Listener) -> None:
        """Tell `listener` what comes of both ways."""
        self._listener = listener
        self._mqtt.attach(_OfMqtt(self, listener))
        self._https.attach(listener)

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        """Whether a payload of `size` bytes may be published now, and so by which way."""
        if self._mqtt.has_room(size, patient=patient):
            self._way = self._mqtt
            return True
        self._way = self._https
        return self.is_active and self._https.has_room(size, patient=patient)

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Publish by the way that had room."""
        self._way.publish(topic, payload, key)

    def flush(self) -> None:
        """Send what was published."""
        self._mqtt.flush()
        self._https.flush()


class _OfMqtt:
    """Hands on what MQTT tells, except that tries to connect failed while records leave by HTTPS."""

    def __init__(self, fallback: Fallback, listener: Listener) -> None:
        self._fallback = fallback
        self._listener = listener

    def acknowledged(self, key: int) -> None:
        """A PUBACK."""
        self._listener.acknowledged(key)

    def disconnected(self, unacknowledged: list[int], culprit: int | None) -> None:
        """No record was on that connection: it says nothing of any."""
        if unacknowledged or not self._fallback.is_active:
            self._listener.disconnected(unacknowledged, culprit)

    def ready(self) -> None:
        """There may be room."""
        self._listener.ready()
