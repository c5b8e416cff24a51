"""Everything that is sent to devices: what they are owed, what the cloud orders, and what became of it.

The pipeline asks what is to be done (`resolve`, `turn`), commits that, and only then lets it go
(`launch`): a counter is durable before a frame is on the air, and an order before it is acknowledged to
the cloud. No session is changed here, and no lock is needed: all of it happens on the loop, between two
awaits of the pipeline. Only the transmissions are tasks of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from lorabridge.daemon.answering import DownlinkSettings
from lorabridge.daemon.answers import Waiting, WaitingAnswers
from lorabridge.daemon.command_queue import CommandQueue, Target
from lorabridge.daemon.log import Facts
from lorabridge.daemon.orders import Orders
from lorabridge.daemon.transmitter import Outcome, Transmit, Transmitter
from lorabridge.daemon.work import Job, Work
from lorabridge.lorawan.air import Airtime, GatewayStatus, Reception
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.decision import Decision, Network, OwedData, OwedJoin
from lorabridge.lorawan.device import DeviceClass, MulticastGroup
from lorabridge.lorawan.downlink import Contents, Downlink, build_downlink, build_multicast, command_problem
from lorabridge.lorawan.events import Uplink
from lorabridge.lorawan.mac_layer import ask
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.planner import Gateways, Plan, largest_mac_payload, plan_data, plan_join, plan_now
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regulation import AirtimeLedger
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import Entry, SessionTable
from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.windows import JOIN_ACCEPT_DELAY1, Window, multicast_window, rx2

_FACTS = Facts(logging.getLogger(__name__))

MAX_GATEWAYS = 256
"""Gateways whose radio source is remembered."""
TRY_AGAIN = 2.0
"""Seconds until a command for a device that always listens is tried again after a refusal."""
ACK_PATIENCE = 60.0
"""Seconds that such a device has for its acknowledgement."""
_NS = 1_000_000_000
_US = 1_000_000


class Order(msgspec.Struct, frozen=True):
    """A command as it came in."""

    command: DownlinkCommand
    taken: Callable[[], None]
    """Called when the command is durable, or durably rejected."""
    refusal: CommandReason | None = None
    """It is none: why, and `detail` in words."""
    detail: str = ""


class Downlinks:
    """What goes to devices. `clock`: nanoseconds since the Unix epoch; `monotonic`: seconds of the loop."""

    def __init__(  # noqa: PLR0913  # it joins the rooms for the other direction
        self,
        *,
        settings: DownlinkSettings,
        table: SessionTable,
        network: Network,
        transmit: Transmit,
        queued: Iterable[QueuedCommand],
        next_queue_id: int,
        airtimes: Iterable[Airtime],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._table = table
        self._network = network
        self._clock = clock
        self._monotonic = monotonic
        self._ledger = AirtimeLedger(airtimes, clock())
        queue = CommandQueue(queued, next_queue_id, per_target=settings.queue_per_device, total=settings.queue_total)
        self._orders = Orders(queue, table, settings.confirmed_attempts, clock)
        self._queue = queue
        self._answers = WaitingAnswers(settings.gather, monotonic, clock)
        self._transmitter = Transmitter(transmit, self.wake_up, monotonic)
        self._in_flight: set[int] = set()
        self._sources: dict[EUI64, str] = {}
        self._ready: dict[Target, float] = dict.fromkeys(queue.targets, 0.0)
        """Targets that listen all the time, perhaps: when their next command is looked at."""
        self._arrived: list[Order] = []
        self._woken = asyncio.Event()
        self._counters: Counter[str] = Counter(
            dict.fromkeys(("join_accepts", "sent", "refused_by_radio", "too_late", "no_airtime", "orders"), 0)
        )

    def own(self, network: Network) -> None:
        """Take over what is ours on the air, after the devices changed."""
        self._network = network

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals since the process began."""
        return {
            **self._counters,
            "queued": len(self._queue),
            "waiting_answers": len(self._answers),
            "unanswered": self._answers.dropped,
        }

    # What wakes the pipeline.

    def wake_up(self) -> None:
        """There is something to do."""
        self._woken.set()

    async def woken(self) -> None:
        """Wait until there is something to do that came by no timer."""
        await self._woken.wait()

    def next_due(self) -> float | None:
        """Seconds until the next turn is due, None when nothing waits for its time."""
        now = self._monotonic()
        times = [*self._ready.values()]
        if (due := self._answers.next_due()) is not None:
            times.append(due)
        if (expiry := self._queue.next_expiry()) is not None:
            times.append(now + (expiry - self._clock()) / _NS)
        return max(0.0, min(times) - now) if times else None

    def order(self, order: Order) -> None:
        """The cloud wants something sent."""
        self._counters["orders"] += 1
        self._arrived.append(order)
        self.wake_up()

    # What the pipeline does with what was heard.

    def note_sources(self, heard: Sequence[Reception | GatewayStatus]) -> None:
        """Remember through which radio source each gateway is reached."""
        for one in heard:
            if one.gateway_eui in self._sources or len(self._sources) < MAX_GATEWAYS:
                self._sources[one.gateway_eui] = one.source

    def resolve(self, decisions: Sequence[Decision]) -> Work:
        """What uplinks say about commands sent before; belongs into the transaction of the uplinks themselves."""
        work = Work()
        if not len(self._queue):
            return work
        for decision in decisions:
            for event in decision.events:
                if isinstance(event, Uplink):
                    self._orders.heard(event, work, self._in_flight)
                    target = event.device.dev_eui
                    if target in self._ready and self._queue.awaiting(target) is None:
                        self._ready[target] = 0.0
        return work

    def note(self, decisions: Sequence[Decision]) -> None:
        """Uplinks are committed: what may be sent for them waits for its moment."""
        for decision in decisions:
            owed = decision.owed
            if owed is None:
                self._answers.note_copy(decision)
            elif isinstance(owed, OwedJoin):
                self._answers.add(owed, JOIN_ACCEPT_DELAY1, alone=len(self._sources) < 2)
            elif self._is_worth_it(owed, decision.session):
                delay = decision.session.mac.rx1_delay if decision.session is not None else 1
                self._answers.add(owed, delay, alone=len(self._sources) < 2)

    def _is_worth_it(self, owed: OwedData, session: Session | None) -> bool:
        """Whether there is anything to say after this uplink."""
        if owed.must_answer or self._queue.head(owed.entry.device.dev_eui) is not None:
            return True
        return session is not None and bool(self._ask(owed, session))

    def _ask(self, owed: OwedData, session: Session) -> bytes:
        """What we would ask of the device's MAC layer."""
        entry = owed.entry
        return ask(
            session.mac,
            self._policy,
            mac_version=entry.device.mac_version,
            region=owed.region,
            device_adr=entry.device.adr,
            uplink_adr=owed.adr,
            room=15,
        ).wire

    @property
    def _policy(self) -> MacPolicy:
        answering = self._network.answering
        return MacPolicy() if answering is None else answering.policy

    # A turn.

    def turn(self) -> Work:
        """All that is due now, to be committed before `launch`."""
        self._woken.clear()
        work = Work()
        for outcome in self._transmitter.take_outcomes():
            self._conclude(outcome, work)
        arrived, self._arrived = self._arrived, []
        for order in arrived:
            if self._orders.take(order.command, work, refusal=order.refusal, detail=order.detail):
                self._ready.setdefault(order.command.target, 0.0)
            work.taken.append(order.taken)
        self._orders.expire(work, self._in_flight)
        for waiting in self._answers.take_due():
            self._plan_answer(waiting, work)
        now = self._monotonic()
        for target in [one for one, at in self._ready.items() if at <= now]:
            self._plan_ready(target, now, work)
        return work

    def launch(self, work: Work) -> None:
        """The work is committed: tell the senders of orders, and send."""
        for taken in work.taken:
            taken()
        for job in work.jobs:
            self._transmitter.start(job)

    async def settle(self, limit: float) -> Work:
        """Before a stop: wait up to `limit` seconds for transmissions under way; their outcomes."""
        await self._transmitter.settle(limit)
        work = Work()
        for outcome in self._transmitter.take_outcomes():
            self._conclude(outcome, work)
        return work

    def _plan_answer(self, waiting: Waiting, work: Work) -> None:
        """The windows after one uplink."""
        owed, now = waiting.owed, self._monotonic()
        elapsed_us = round((now - waiting.heard_at) * _US)
        air = Gateways(self._ledger, self._clock())
        if isinstance(owed, OwedJoin):
            plan = plan_join(owed, waiting.copies, air, elapsed_us)
            if isinstance(plan, CommandReason):
                self._cannot("join-accept not sent", owed.device.name, plan)
            else:
                self._begin(plan, owed.device.name, None, waiting.heard_at, work)
            return
        session = self._table.stored(owed.entry.session_id)
        if session is None or session.session_id in work.sessions:
            return
        command = self._next_command(owed.entry, session, owed.region, owed.uplink, work)
        if command is None and not owed.must_answer and not self._ask(owed, session):
            return
        planned = plan_data(
            owed,
            waiting.copies,
            session,
            self._table.crypto(owed.entry),
            command,
            more_waits=self._queue.count(owed.entry.device.dev_eui) > 1,
            policy=self._policy,
            air=air,
            elapsed_us=elapsed_us,
        )
        if isinstance(planned, CommandReason):
            self._cannot("downlink not sent", owed.entry.device.name, planned)
            if command is not None:
                self._orders.hold(command, planned, work)
            return
        self._begin(planned, owed.entry.device.name, session, waiting.heard_at, work)

    def _next_command(
        self, entry: Entry, session: Session, region: Region, uplink: Reception | None, work: Work
    ) -> QueuedCommand | None:
        """The next command that can be sent to a device; those that never can are rejected on the way."""
        target = entry.device.dev_eui
        limit = largest_mac_payload(region, session, uplink, entry.device.channels_hz)
        while (command := self._queue.head(target)) is not None and command.queue_id not in self._in_flight:
            problem = command_problem(entry, session, command, limit)
            if problem is None:
                return command
            self._orders.reject(command, problem, work)
        return None

    def _plan_ready(self, target: Target, now: float, work: Work) -> None:
        """The next command for a target that may listen all the time."""
        del self._ready[target]
        if not isinstance(target, EUI64):
            group = self._table.group(target)
            if group is not None:
                self._plan_group(group, now, work)
            return
        entry = self._table.current(target)
        session = None if entry is None else self._table.stored(entry.session_id)
        if entry is None or session is None or entry.region is None or not _is_class_c(entry, session):
            return
        awaiting = self._queue.awaiting(target)
        if awaiting is not None and awaiting.queue_id not in self._in_flight:
            self._orders.unacknowledged(awaiting, work)
        command = self._next_command(entry, session, entry.region, None, work)
        window = rx2(entry.region, session.mac)
        if command is None or window is None or session.session_id in work.sessions:
            return
        source = self._sources.get(session.last_gateway)
        gateways = [] if source is None else [(session.last_gateway, source)]
        downlink = build_downlink(
            entry,
            self._table.crypto(entry),
            session,
            Contents(command=command, f_pending=self._queue.count(target) > 1),
            policy=self._policy,
            uplink_adr=False,
            limit=window.max_mac_payload,
        )
        self._plan_at_once(downlink, command, window, entry.region, gateways, session, target, now, work, every=False)

    def _plan_group(self, group: MulticastGroup, now: float, work: Work) -> None:
        """The next command of a multicast group, by every gateway of it."""
        command, region = self._queue.head(group.name), self._table.region(group.region)
        if command is None or command.queue_id in self._in_flight:
            return
        window = None if region is None else multicast_window(region, group.frequency_hz, group.data_rate)
        if region is None or window is None:
            self._orders.reject(command, CommandReason.NO_REGION, work)
            return
        session = self._table.group_session(group)
        downlink = build_multicast(group, self._table.group_crypto(group), session, command)
        if downlink is None or len(downlink.phy_payload) - 5 > window.max_mac_payload:
            self._orders.reject(command, _group_problem(group, session, command), work)
            self._ready[group.name] = now
            return
        wanted = group.gateways or tuple(self._sources)
        gateways = [(eui, self._sources[eui]) for eui in wanted if eui in self._sources]
        self._plan_at_once(downlink, command, window, region, gateways, session, group.name, now, work, every=True)

    def _plan_at_once(  # noqa: PLR0913, PLR0917  # one step of the two above
        self,
        downlink: Downlink | None,
        command: QueuedCommand,
        window: Window,
        region: Region,
        gateways: Sequence[tuple[EUI64, str]],
        session: Session,
        target: Target,
        now: float,
        work: Work,
        *,
        every: bool,
    ) -> None:
        plan: Plan | CommandReason = CommandReason.COUNTER_EXHAUSTED
        if downlink is not None:
            plan = plan_now(downlink, window, region, gateways, Gateways(self._ledger, self._clock()), every=every)
        self._ready[target] = now + TRY_AGAIN
        if plan is CommandReason.NO_GATEWAY:  # it is only a matter of hearing one
            return
        if isinstance(plan, CommandReason):
            self._orders.hold(command, plan, work)
            self._cannot("downlink not sent", str(target), plan)
            return
        self._begin(plan, str(target), session, None, work)

    def _begin(self, plan: Plan, name: str, session: Session | None, heard_at: float | None, work: Work) -> None:
        """Write down what has to be durable before the first attempt."""
        queued = None
        if plan.downlink is not None and plan.downlink.command is not None:
            queued = self._orders.begin(plan.downlink.command, work)
            self._in_flight.add(queued.queue_id)
        if plan.session is not None and session is not None:
            moved = msgspec.structs.replace(plan.session, generation=session.generation + 1)
            work.sessions[moved.session_id] = moved
        work.airtimes += [attempt.airtime for attempt in plan.attempts if attempt.airtime is not None]
        work.jobs.append(Job(plan=plan, name=name, queued=queued, heard_at=heard_at))

    def _conclude(self, outcome: Outcome, work: Work) -> None:
        """A transmission is over, one way or the other."""
        job, attempt, error = outcome.job, outcome.attempt, outcome.result.error
        for unused in job.plan.attempts:
            if unused not in outcome.used and unused.airtime is not None:
                self._ledger.give_back(unused.airtime)
        if job.queued is not None:
            self._in_flight.discard(job.queued.queue_id)
            target = job.queued.command.target
            self._orders.concluded(job, attempt, outcome.result, work)
            if target in self._ready:
                now = self._monotonic()
                wait = ACK_PATIENCE if self._queue.awaiting(target) is not None else TRY_AGAIN if error else 0.0
                self._ready[target] = now + wait
        facts = {"device": job.name, "fcnt": None if job.plan.downlink is None else job.plan.downlink.fcnt32}
        if attempt is None:
            self._counters["too_late"] += 1
            _FACTS.warning("downlink not sent", reason=CommandReason.TOO_LATE, **facts)
        elif error is not None:
            self._counters["refused_by_radio"] += 1
            gateway = attempt.transmission.gateway_eui
            _FACTS.warning("the gateway did not take a downlink", reason=error, gateway=gateway, **facts)
        else:
            self._counters["join_accepts" if job.plan.session is None else "sent"] += 1
            window, gateway = attempt.window.number, attempt.transmission.gateway_eui
            _FACTS.info("downlink sent", window=window, gateway=gateway, **facts)

    def _cannot(self, what: str, name: str, reason: CommandReason) -> None:
        self._counters["too_late" if reason is CommandReason.TOO_LATE else "no_airtime"] += 1
        _FACTS.warning(what, device=name, reason=reason)


def _is_class_c(entry: Entry, session: Session) -> bool:
    """As the device said itself (DeviceModeInd of 1.1), else as its file says."""
    said = session.mac.is_class_c
    return entry.device.device_class is DeviceClass.C if said is None else said


def _group_problem(group: MulticastGroup, session: Session, command: QueuedCommand) -> CommandReason:
    """Why nothing could be built for a group."""
    order = command.command
    if order.fcnt_down is None and group.mc_app_s_key is None:
        return CommandReason.NO_APP_S_KEY
    if order.fcnt_down is not None and order.fcnt_down < session.fcnt_down:
        return CommandReason.COUNTER_USED
    return CommandReason.TOO_LONG
