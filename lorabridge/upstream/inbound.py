"""Commands on their way in: what to make of what comes on their topic (`subscriptions.Subscriber`)."""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from lorabridge.upstream.commands import MAX_COMMAND
from lorabridge.upstream.connection import Delivery
from lorabridge.upstream.faults import LinkFault
from lorabridge.upstream.topics import Topics

_LOGGER = logging.getLogger(__name__)

MAX_UNACKNOWLEDGED = 64
"""Commands in the hands of the sink at a time."""


class Inbound(msgspec.Struct, frozen=True):
    """A message on a topic of commands."""

    topic: str
    target: str
    """DevEUI or name of a group, as the topic says it: not checked yet."""
    payload: bytes
    ack: Callable[[], None]
    """Sends the PUBACK, once: to be called when the message is durable. Later calls do nothing."""


class CommandSink(Protocol):
    """Who takes commands; every call comes from the loop and returns at once."""

    def received(self, inbound: Inbound) -> None:
        """A message has come; it may have come before, and the sink knows by the id in it."""


class Subscription(enum.Enum):
    """Whether commands are received."""

    OFF = "off"
    """Nobody wants any."""
    WAITING = "waiting"
    """Not subscribed on this connection yet, or none is there."""
    ON = "on"
    REFUSED = "refused"
    """The endpoint does not let us; it is tried again after a while."""

    def __str__(self) -> str:
        return self.value


class Intake:
    """The way in. `counters` are the link's."""

    def __init__(self, sink: CommandSink, topics: Topics, counters: Counter[str]) -> None:
        self.topic_filter = topics.command_filter
        self.state = Subscription.WAITING
        self._sink = sink
        self._topics = topics
        self._counters = counters
        self._unacknowledged = 0
        for name in ("received", "unacknowledged", "oversize", "not_for_us", "overflow", "subscribe_refused"):
            counters[f"commands_{name}"] = 0

    def takes(self, topic: str | None) -> bool:
        """All but what AWS IoT's own services say: what is not for us is counted."""
        return topic is None or not topic.startswith("$aws/")

    def granted(self) -> None:
        """SUBACK says yes."""
        self._enter(Subscription.ON, "")

    def refused(self, detail: str) -> None:
        """The endpoint does not let us."""
        self._enter(Subscription.REFUSED, detail)

    def lost(self) -> None:
        """The connection is over."""
        if self.state is Subscription.ON:
            self.state = Subscription.WAITING

    def _enter(self, state: Subscription, detail: str) -> None:
        if state is Subscription.REFUSED:
            self._counters["commands_subscribe_refused"] += 1
            fields = {"detail": detail, "hint": LinkFault.SUBSCRIBE_REFUSED.hint, "filter": self.topic_filter}
            _LOGGER.warning("commands are not received", extra=fields)
        elif self.state is Subscription.REFUSED:
            _LOGGER.info("commands are received again")
        self.state = state

    def received(self, delivery: Delivery, acknowledge: Callable[[], None]) -> None:
        """Hand a message on, or drop it: a dropped one is acknowledged, for nothing would be gained by its return."""
        target = None if delivery.topic is None else self._topics.target(delivery.topic)
        if delivery.topic is None or target is None:
            self._drop("not_for_us", acknowledge)
        elif len(delivery.payload) > MAX_COMMAND:
            self._drop("oversize", acknowledge)
        elif self._unacknowledged >= MAX_UNACKNOWLEDGED:
            self._drop("overflow", acknowledge)
        else:
            self._counters["commands_received"] += 1
            self._count(1)
            self._sink.received(Inbound(delivery.topic, target, delivery.payload, self._once(acknowledge)))

    def _drop(self, why: str, acknowledge: Callable[[], None]) -> None:
        self._counters[f"commands_{why}"] += 1
        acknowledge()

    def _once(self, acknowledge: Callable[[], None]) -> Callable[[], None]:
        is_done = False

        def ack() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                self._count(-1)
                acknowledge()

        return ack

    def _count(self, by: int) -> None:
        self._unacknowledged += by
        self._counters["commands_unacknowledged"] = self._unacknowledged
