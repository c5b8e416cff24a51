"""The commands that wait for their devices: what the store keeps of them, in memory and in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.types import EUI64, FCnt32

FINISHED_KEPT = 1024
"""Ids of finished commands that are known again when their sender repeats them."""

Target = EUI64 | str


class CommandQueue:
    """Every waiting command. Only memory: whoever changes it commits the change."""

    def __init__(self, queued: Iterable[QueuedCommand], next_id: int, *, per_target: int, total: int) -> None:
        """`queued`: what the store holds; `next_id`: a number that was never used there."""
        self._per_target = per_target
        self._total = total
        self._by_id: dict[int, QueuedCommand] = {}
        self._by_target: dict[Target, list[int]] = {}
        self._finished: OrderedDict[tuple[Target, str], None] = OrderedDict()
        self._next_id = next_id
        for one in queued:
            self._insert(one)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Devices and groups that something waits for."""
        return tuple(self._by_target)

    def add(self, command: DownlinkCommand) -> QueuedCommand | CommandReason:
        """Take a command in, or say why not. DUPLICATE_ID: its sender ordered it before."""
        ids = self._by_target.get(command.target, [])
        key = (command.target, command.id)
        if key in self._finished or any(self._by_id[one].command.id == command.id for one in ids):
            return CommandReason.DUPLICATE_ID
        if len(ids) >= self._per_target or len(self._by_id) >= self._total:
            return CommandReason.QUEUE_FULL
        queued = QueuedCommand(queue_id=self._next_id, command=command)
        self._next_id += 1
        self._insert(queued)
        return queued

    def find(self, target: Target, command_id: str) -> QueuedCommand | None:
        """The waiting command of this id."""
        found = (self._by_id[one] for one in self._by_target.get(target, ()))
        return next((one for one in found if one.command.id == command_id), None)

    def get(self, queue_id: int) -> QueuedCommand | None:
        """The command, as long as it waits."""
        return self._by_id.get(queue_id)

    def awaiting(self, target: Target) -> QueuedCommand | None:
        """The confirmed command that was sent and waits for its acknowledgement."""
        found = (self._by_id[one] for one in self._by_target.get(target, ()))
        return next((one for one in found if one.sent_fcnt is not None), None)

    def head(self, target: Target, may_go: Callable[[DownlinkCommand], bool] = lambda _: True) -> QueuedCommand | None:
        """The next command to send: the most urgent, then the oldest; none while one awaits its acknowledgement."""
        if self.awaiting(target) is not None:
            return None
        waiting = [one for one in map(self._by_id.__getitem__, self._by_target.get(target, ())) if may_go(one.command)]
        return max(waiting, key=lambda one: (one.command.priority, -one.queue_id), default=None)

    def count(self, target: Target) -> int:
        """How many commands wait for a target."""
        return len(self._by_target.get(target, ()))

    def begun(self, queued: QueuedCommand) -> QueuedCommand:
        """One more transmission of it begins."""
        return self._replace(msgspec.structs.replace(queued, attempts=queued.attempts + 1))

    def sent(self, queued: QueuedCommand, fcnt32: FCnt32) -> QueuedCommand:
        """A confirmed command is on the air: its acknowledgement is awaited."""
        return self._replace(msgspec.structs.replace(queued, sent_fcnt=fcnt32))

    def again(self, queued: QueuedCommand) -> QueuedCommand:
        """No acknowledgement came: it may be sent once more."""
        return self._replace(msgspec.structs.replace(queued, sent_fcnt=None))

    def finish(self, queued: QueuedCommand) -> None:
        """It is done with, however it ended; its id is known for a while."""
        target = queued.command.target
        del self._by_id[queued.queue_id]
        self._by_target[target].remove(queued.queue_id)
        if not self._by_target[target]:
            del self._by_target[target]
        self._finished[target, queued.command.id] = None
        if len(self._finished) > FINISHED_KEPT:
            self._finished.popitem(last=False)

    def expired(self, now: int) -> list[QueuedCommand]:
        """Commands whose time is over; `now` in nanoseconds since the Unix epoch."""
        found = [one for one in self._by_id.values() if _expires_at(one) is not None]
        return [one for one in found if (_expires_at(one) or 0) <= now]

    def next_expiry(self) -> int | None:
        """When the first command expires."""
        times = [at for one in self._by_id.values() if (at := _expires_at(one)) is not None]
        return min(times, default=None)

    def _insert(self, queued: QueuedCommand) -> None:
        self._by_id[queued.queue_id] = queued
        self._by_target.setdefault(queued.command.target, []).append(queued.queue_id)

    def _replace(self, queued: QueuedCommand) -> QueuedCommand:
        self._by_id[queued.queue_id] = queued
        return queued


def _expires_at(queued: QueuedCommand) -> int | None:
    return queued.command.expires_at
