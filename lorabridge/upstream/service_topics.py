"""Topics of AWS IoT's own services (Device Shadow, Jobs): heard and answered on the link that carries the records.

What is said here may be lost: it is said again when the connection comes back. It must never cost a record:
nothing is said as long as the endpoint did not grant the subscription that belongs to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from lorabridge.upstream.connection import Delivery
from lorabridge.upstream.subscriptions import SUBSCRIBE_TRIES

_LOGGER = logging.getLogger(__name__)

MAX_ANSWER = 128 * 1024


class Voice:
    """Whether anything is said: not for a while after the endpoint hung up on it too often. Monotonic seconds."""

    def __init__(self, silence: float) -> None:
        """`silence`: for how long, in seconds."""
        self._silence = silence
        self._hung_up = 0
        self._silent_until = -math.inf

    def may_speak(self, now: float) -> bool:
        """Whether something may be said."""
        return now >= self._silent_until

    def heard(self) -> None:
        """PUBACK for something that was said."""
        self._hung_up = 0

    def hung_up(self, now: float) -> None:
        """The connection ended over something that was said."""
        self._hung_up += 1
        if self._hung_up >= SUBSCRIBE_TRIES:
            self._hung_up, self._silent_until = 0, now + self._silence
            hint = "the policy must allow iot:Publish on the topics of Device Shadow and Jobs that are switched on"
            _LOGGER.warning("nothing is said to services of AWS IoT for a while", extra={"hint": hint})


class ServiceTopic:
    """One topic of a service (`subscriptions.Subscriber`)."""

    def __init__(
        self, topic: str, heard: Callable[[bytes], None], *, granted: Callable[[], None] = lambda: None
    ) -> None:
        """`heard` is called with each payload, `granted` each time the endpoint grants the subscription."""
        self.topic_filter = topic
        self.is_granted = False
        self._heard = heard
        self._tell_granted = granted

    def takes(self, topic: str | None) -> bool:
        """Whether a message on this topic is for it."""
        return topic == self.topic_filter

    def granted(self) -> None:
        """SUBACK says yes."""
        self.is_granted = True
        self._tell_granted()

    def refused(self, detail: str) -> None:
        """The endpoint does not let us."""
        self.is_granted = False
        hint = "the policy must allow iot:Subscribe, iot:Receive and iot:Publish on the topics of this service"
        _LOGGER.warning(
            "a service of AWS IoT is not used", extra={"detail": detail, "hint": hint, "filter": self.topic_filter}
        )

    def lost(self) -> None:
        """The connection is over."""
        self.is_granted = False

    def received(self, delivery: Delivery, acknowledge: Callable[[], None]) -> None:
        """A message; it is not kept, so it is acknowledged at once."""
        acknowledge()
        if len(delivery.payload) <= MAX_ANSWER:
            self._heard(delivery.payload)
