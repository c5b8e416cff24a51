"""What one turn of the downlinks wants committed, and what it starts once that is durable."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lorabridge.lorawan.air import Airtime
from lorabridge.lorawan.commands import QueuedCommand
from lorabridge.lorawan.events import Event
from lorabridge.lorawan.planner import Plan
from lorabridge.lorawan.session import Session
from lorabridge.store.values import Dropped


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A transmission to be made: the plan, whom it is for, and when the windows it names are counted from."""

    plan: Plan
    name: str
    """Device or group, for the log."""
    queued: QueuedCommand | None
    """The command that the frame carries, as it is in the queue since the attempt began."""
    heard_at: float | None
    """End of the uplink, seconds of the loop's clock; None: at once."""


class Work:
    """Filled during a turn. Nothing of it is true before its commit."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.queued: dict[int, QueuedCommand] = {}
        self.unqueued: list[int] = []
        self.airtimes: list[Airtime] = []
        self.events: list[Event] = []
        self.told: list[Dropped] = []
        """Losses of the outbox that the events tell of."""
        self.jobs: list[Job] = []
        self.taken: list[Callable[[], None]] = []
        """Orders that are durable now: their senders may be told."""

    def __bool__(self) -> bool:
        return bool(self.sessions or self.queued or self.unqueued or self.airtimes or self.events or self.jobs)

    def keep(self, queued: QueuedCommand) -> None:
        """A command is new in the queue, or has got further."""
        self.queued[queued.queue_id] = queued

    def drop(self, queued: QueuedCommand) -> None:
        """A command is done with."""
        self.queued.pop(queued.queue_id, None)
        self.unqueued.append(queued.queue_id)
