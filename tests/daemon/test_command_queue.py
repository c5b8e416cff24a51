"""The queue of commands: bounded, in order, and every id taken once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.daemon.command_queue import FINISHED_KEPT, CommandQueue
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, Priority, QueuedCommand
from lorabridge.lorawan.types import EUI64, FCnt32

VALVE, LAMP = EUI64(1), EUI64(2)


def order(command_id: str, target: EUI64 | str = VALVE, **fields: Any) -> DownlinkCommand:
    return DownlinkCommand(id=command_id, target=target, f_port=1, payload=b"", **fields)


def queue_of(*queued: QueuedCommand, per_target: int = 4, total: int = 6) -> CommandQueue:
    return CommandQueue(queued, 1 + len(queued), per_target=per_target, total=total)


def taken(queue: CommandQueue, command: DownlinkCommand) -> QueuedCommand:
    found = queue.add(command)
    assert isinstance(found, QueuedCommand)
    return found


def test_the_most_urgent_goes_first_and_of_equals_the_oldest() -> None:
    queue = queue_of()
    names = [("late", Priority.LOW), ("first", Priority.NORMAL), ("second", Priority.NORMAL), ("now", Priority.HIGH)]
    for name, priority in names:
        taken(queue, order(name, priority=priority))
    found = []
    while (head := queue.head(VALVE)) is not None:
        found.append(head.command.id)
        queue.finish(head)
    assert found == ["now", "first", "second", "late"]
    assert (len(queue), queue.targets, queue.count(VALVE)) == (0, (), 0)


def test_a_queue_takes_no_more_than_it_may_hold() -> None:
    queue = queue_of()
    for n in range(4):
        taken(queue, order(str(n)))
    assert queue.add(order("too much")) is CommandReason.QUEUE_FULL
    for n in range(2):
        taken(queue, order(str(n), LAMP))
    assert queue.add(order("even here", LAMP)) is CommandReason.QUEUE_FULL


def test_an_id_is_taken_once_while_it_waits_and_for_a_while_after() -> None:
    queue = queue_of()
    first = taken(queue, order("a"))
    assert queue.add(order("a")) is CommandReason.DUPLICATE_ID
    assert queue.find(VALVE, "a") == first
    taken(queue, order("a", LAMP))
    queue.finish(first)
    assert queue.find(VALVE, "a") is None
    assert queue.add(order("a")) is CommandReason.DUPLICATE_ID
    for n in range(FINISHED_KEPT):
        queue.finish(taken(queue, order(f"other {n}")))
    taken(queue, order("a"))


def test_nothing_overtakes_a_confirmed_command_that_awaits_its_acknowledgement() -> None:
    queue = queue_of()
    first = taken(queue, order("a", confirmed=True))
    taken(queue, order("b", priority=Priority.HIGH))
    begun = queue.begun(first)
    sent = queue.sent(begun, FCnt32(7))
    assert (sent.attempts, sent.sent_fcnt) == (1, 7)
    assert queue.head(VALVE) is None
    assert queue.awaiting(VALVE) == sent == queue.get(first.queue_id)
    again = queue.again(sent)
    assert (again.attempts, again.sent_fcnt) == (1, None)
    assert queue.awaiting(VALVE) is None
    head = queue.head(VALVE)
    assert head is not None
    assert head.command.id == "b"


def test_what_the_store_held_is_there_again_and_numbers_go_on() -> None:
    waiting = [QueuedCommand(queue_id=n, command=order(str(n))) for n in (1, 2)]
    queue = queue_of(*waiting)
    assert queue.head(VALVE) == waiting[0]
    assert taken(queue, order("new")).queue_id == 3


@given(st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=6), st.integers(0, 50))
def test_a_command_expires_when_its_time_is_over(times: list[int | None], now: int) -> None:
    queue = queue_of(per_target=10)
    for n, at in enumerate(times):
        taken(queue, order(str(n), expires_at=at))
    due = [at for at in times if at is not None]
    assert [one.command.expires_at for one in queue.expired(now)] == [at for at in due if at <= now]
    assert queue.next_expiry() == min(due, default=None)
