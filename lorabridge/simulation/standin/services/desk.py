"""All services together: one request in, the replies out."""

from __future__ import annotations

from typing import Protocol

from lorabridge.simulation.standin.services.jobs import Jobs
from lorabridge.simulation.standin.services.provisioning import Provisioning
from lorabridge.simulation.standin.services.reply import Reply
from lorabridge.simulation.standin.services.shadow import Shadows


class Service(Protocol):
    """What each of them does."""

    def answer(self, topic: str, payload: bytes, now: float) -> list[Reply] | None:
        """The replies, or None when the topic is another's."""


class Desk:
    """Asks each service in turn."""

    def __init__(self, provisioning: Provisioning) -> None:
        self.shadows = Shadows()
        self.jobs = Jobs()
        self._services: tuple[Service, ...] = (self.shadows, self.jobs, provisioning)

    def answer(self, topic: str, payload: bytes, now: float) -> list[Reply]:
        """The replies; none to a topic that is no request."""
        for service in self._services:
            if (replies := service.answer(topic, payload, now)) is not None:
                return replies
        return []
