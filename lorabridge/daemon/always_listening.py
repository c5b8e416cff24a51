"""Devices that listen all the time: class C and multicast groups, sent to as soon as there is something to say.

Whether a device is one of them a command may say itself. Such a device is answered in the windows of class A as
well. While such an answer waits for its window no command may overtake it: the device would have seen the later
counter first, and drop the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorabridge.daemon.command_queue import Target
from lorabridge.daemon.sending import Sending, goes_at_once
from lorabridge.daemon.work import Job, Work
from lorabridge.lorawan.commands import CommandReason, QueuedCommand
from lorabridge.lorawan.device import MulticastGroup
from lorabridge.lorawan.downlink import Contents, Downlink, build_downlink, build_multicast
from lorabridge.lorawan.grammar import MIC_SIZE
from lorabridge.lorawan.planner import Attempt, Plan, plan_now
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.windows import Window, downlink_airtime_us, multicast_window, rx2

TRY_AGAIN = 2.0
"""Seconds until a command is tried again after a refusal."""
ACK_PATIENCE = 60.0
"""Seconds that a device has for its acknowledgement."""
_US = 1_000_000
_MHDR_SIZE = 1


class AlwaysListening:
    """When the next command of each target is looked at, and what becomes of it. Times are seconds of the loop."""

    def __init__(self, sending: Sending, targets: Iterable[Target]) -> None:
        """`targets`: those that something waits for at the start."""
        self._sending = sending
        self._ready: dict[Target, float] = dict.fromkeys(targets, 0.0)
        self._answered_until: dict[bytes, float] = {}

    @property
    def times(self) -> Iterable[float]:
        """When something is due."""
        return self._ready.values()

    def ordered(self, target: Target) -> None:
        """A command has come: it is looked at now, unless the target waits for something already."""
        self._ready.setdefault(target, 0.0)

    def heard(self, target: Target) -> None:
        """A device spoke: if nothing awaits its acknowledgement any more, the next command may go."""
        if target in self._ready and self._sending.queue.awaiting(target) is None:
            self._ready[target] = 0.0

    def answering(self, session: Session, plan: Plan, heard_at: float) -> None:
        """An answer in the windows of class A is on its way."""
        self._forget_answers(heard_at)
        self._answered_until[session.session_id] = heard_at + _ends_after(plan.attempts[-1])

    def concluded(self, job: Job, attempt: Attempt | None, *, is_sent: bool, now: float) -> None:
        """A transmission is over: which window it takes is known, and when the next command may follow."""
        session = job.plan.session
        if session is not None and session.session_id in self._answered_until and job.heard_at is not None:
            until = now if attempt is None or not is_sent else job.heard_at + _ends_after(attempt)
            self._answered_until[session.session_id] = until
            if session.dev_eui in self._ready:
                self._ready[session.dev_eui] = until
        if job.queued is not None and (target := job.queued.command.target) in self._ready:
            is_awaited = self._sending.queue.awaiting(target) is not None
            self._ready[target] = now + (ACK_PATIENCE if is_awaited else 0.0 if is_sent else TRY_AGAIN)

    def plan_due(self, now: float, work: Work) -> None:
        """Everything that is due."""
        for target in [one for one, at in self._ready.items() if at <= now]:
            del self._ready[target]
            if isinstance(target, EUI64):
                self._plan_device(target, now, work)
            else:
                group = self._sending.table.group(target)
                if group is not None:
                    self._plan_group(group, now, work)

    def _forget_answers(self, now: float) -> None:
        """Those whose windows are over; they stand in about the order of their ends."""
        while self._answered_until and (oldest := next(iter(self._answered_until.items())))[1] <= now:
            del self._answered_until[oldest[0]]

    def _plan_device(self, target: EUI64, now: float, work: Work) -> None:
        """The next command for a device that waits for no uplink."""
        sending = self._sending
        entry = sending.table.current(target)
        session = None if entry is None else sending.table.stored(entry.session_id)
        if entry is None or session is None or entry.region is None:
            return
        until = self._answered_until.get(session.session_id, 0.0)
        if until > now:
            self._ready[target] = until
            return
        awaiting = sending.queue.awaiting(target)
        if awaiting is not None and awaiting.queue_id not in sending.in_flight:
            if not goes_at_once(entry, session, awaiting.command):
                return
            sending.orders.unacknowledged(awaiting, work)
        command = sending.next_command(entry, session, entry.region, None, work)
        window = rx2(entry.region, session.mac)
        if command is None or window is None or session.session_id in work.sessions:
            return
        downlink = build_downlink(
            entry,
            sending.table.crypto(entry),
            session,
            Contents(command=command, f_pending=sending.queue.count(target) > 1),
            policy=sending.policy,
            uplink_adr=False,
            limit=window.max_mac_payload,
        )
        plan = self._plan(downlink, window, entry.region, [session.last_gateway], every=False)
        self._begin(plan, command, session, target, now, work)

    def _plan_group(self, group: MulticastGroup, now: float, work: Work) -> None:
        """The next command of a multicast group, by every gateway of it."""
        sending = self._sending
        command, region = sending.queue.head(group.name), sending.table.region(group.region)
        if command is None or command.queue_id in sending.in_flight:
            return
        window = None if region is None else multicast_window(region, group.frequency_hz, group.data_rate)
        if region is None or window is None:
            sending.orders.reject(command, CommandReason.NO_REGION, work)
            return
        session = sending.table.group_session(group)
        downlink = build_multicast(group, sending.table.group_crypto(group), session, command)
        if downlink is None or len(downlink.phy_payload) - _MHDR_SIZE - MIC_SIZE > window.max_mac_payload:
            sending.orders.reject(command, _group_problem(group, session, command), work)
            self._ready[group.name] = now
            return
        plan = self._plan(downlink, window, region, group.gateways or tuple(sending.sources), every=True)
        self._begin(plan, command, session, group.name, now, work)

    def _plan(
        self, downlink: Downlink | None, window: Window, region: Region, wanted: Sequence[EUI64], *, every: bool
    ) -> Plan | CommandReason:
        """By the gateways among the wanted ones that were heard since the start."""
        if downlink is None:
            return CommandReason.COUNTER_EXHAUSTED
        sources = self._sending.sources
        gateways = [(eui, sources[eui]) for eui in wanted if eui in sources]
        return plan_now(downlink, window, region, gateways, self._sending.air, every=every)

    def _begin(
        self,
        plan: Plan | CommandReason,
        command: QueuedCommand,
        session: Session,
        target: Target,
        now: float,
        work: Work,
    ) -> None:
        self._ready[target] = now + TRY_AGAIN
        if plan is CommandReason.NO_GATEWAY:  # it is only a matter of hearing one
            return
        if isinstance(plan, CommandReason):
            self._sending.orders.hold(command, plan, work)
            self._sending.cannot("downlink not sent", str(target), plan)
            return
        self._sending.begin(plan, str(target), session, None, work)


def _ends_after(attempt: Attempt) -> float:
    """Seconds from the end of the uplink to the end of what is sent for it."""
    airtime_us = downlink_airtime_us(attempt.window, len(attempt.transmission.phy_payload))
    return (attempt.window.delay_us + airtime_us) / _US


def _group_problem(group: MulticastGroup, session: Session, command: QueuedCommand) -> CommandReason:
    """Why nothing could be built for a group."""
    order = command.command
    if order.fcnt_down is None and group.mc_app_s_key is None:
        return CommandReason.NO_APP_S_KEY
    if order.fcnt_down is not None and order.fcnt_down < session.fcnt_down:
        return CommandReason.COUNTER_USED
    return CommandReason.TOO_LONG
