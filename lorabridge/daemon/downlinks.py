"""Everything that is sent to devices: what they are owed, what the cloud orders, and what became of it.

The pipeline asks what is to be done (`resolve`, `turn`), commits that, and only then lets it go
(`launch`): a counter is durable before a frame is on the air, and an order before it is acknowledged to
the cloud. No session is changed here, and no lock is needed: all of it happens on the loop, between two
awaits of the pipeline. Only the transmissions are tasks of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from lorabridge.daemon.always_listening import AlwaysListening
from lorabridge.daemon.answering import DownlinkSettings
from lorabridge.daemon.answers import Waiting, WaitingAnswers
from lorabridge.daemon.command_queue import CommandQueue
from lorabridge.daemon.log import Facts
from lorabridge.daemon.orders import Orders
from lorabridge.daemon.sending import Sending
from lorabridge.daemon.transmitter import Outcome, Transmit, Transmitter
from lorabridge.daemon.work import Work
from lorabridge.lorawan.air import Airtime, GatewayStatus, Reception
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.decision import Decision, Network, OwedData, OwedJoin
from lorabridge.lorawan.downlink import MAX_F_OPTS
from lorabridge.lorawan.events import Uplink
from lorabridge.lorawan.mac_layer import ask
from lorabridge.lorawan.planner import plan_data, plan_join
from lorabridge.lorawan.regulation import AirtimeLedger
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.windows import JOIN_ACCEPT_DELAY1

_FACTS = Facts(logging.getLogger(__name__))

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
        queue = CommandQueue(queued, next_queue_id, per_target=settings.queue_per_device, total=settings.queue_total)
        orders = Orders(queue, table, settings.confirmed_attempts, clock)
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._queue = queue
        self._orders = orders
        self._sending = Sending(table, queue, orders, AirtimeLedger(airtimes, clock()), network, clock)
        self._always = AlwaysListening(self._sending, queue.targets)
        self._answers = WaitingAnswers(settings.gather, monotonic, clock)
        self._transmitter = Transmitter(transmit, self.wake_up, monotonic)
        self._arrived: list[Order] = []
        self._woken = asyncio.Event()

    def own(self, network: Network) -> None:
        """Take over what is ours on the air, after the devices changed."""
        self._sending.network = network

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals since the process began."""
        return {
            **self._sending.counters,
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
        times = [*self._always.times]
        if (due := self._answers.next_due()) is not None:
            times.append(due)
        if (expiry := self._queue.next_expiry()) is not None:
            times.append(now + (expiry - self._clock()) / _NS)
        return max(0.0, min(times) - now) if times else None

    def order(self, order: Order) -> None:
        """The cloud wants something sent."""
        self._sending.counters["orders"] += 1
        self._arrived.append(order)
        self.wake_up()

    # What the pipeline does with what was heard.

    def note_sources(self, heard: Sequence[Reception | GatewayStatus]) -> None:
        """Remember through which radio source each gateway is reached."""
        self._sending.note_sources(heard)

    def resolve(self, decisions: Sequence[Decision]) -> Work:
        """What uplinks say about commands sent before; belongs into the transaction of the uplinks themselves."""
        work = Work()
        if not len(self._queue):
            return work
        for decision in decisions:
            for event in decision.events:
                if isinstance(event, Uplink):
                    self._orders.heard(event, work, self._sending.in_flight)
                    self._always.heard(event.device.dev_eui)
        return work

    def note(self, decisions: Sequence[Decision]) -> None:
        """Uplinks are committed: what may be sent for them waits for its moment."""
        is_alone = len(self._sending.sources) < 2
        for decision in decisions:
            owed, session = decision.owed, decision.session
            if owed is None:
                self._answers.note_copy(decision)
            elif isinstance(owed, OwedJoin):
                self._answers.add(owed, JOIN_ACCEPT_DELAY1, alone=is_alone)
            elif session is not None and self._is_worth_it(owed, session):
                self._answers.add(owed, session.mac.rx1_delay, alone=is_alone)

    def _is_worth_it(self, owed: OwedData, session: Session) -> bool:
        """Whether there is anything to say after this uplink."""
        has_command = self._queue.head(owed.entry.device.dev_eui) is not None
        return owed.must_answer or has_command or bool(self._asks(owed, session))

    def _asks(self, owed: OwedData, session: Session) -> bytes:
        """What we would ask of the device's MAC layer."""
        entry = owed.entry
        return ask(
            session.mac,
            self._sending.policy,
            mac_version=entry.device.mac_version,
            region=owed.region,
            device_adr=entry.device.adr,
            uplink_adr=owed.adr,
            room=MAX_F_OPTS,
        ).wire

    # A turn.

    def turn(self) -> Work:
        """All that is due now, to be committed before `launch`."""
        self._woken.clear()
        work = Work()
        self._take_outcomes(work)
        arrived, self._arrived = self._arrived, []
        for order in arrived:
            if self._orders.take(order.command, work, refusal=order.refusal, detail=order.detail):
                self._always.ordered(order.command.target)
            work.taken.append(order.taken)
        self._orders.expire(work, self._sending.in_flight)
        for waiting in self._answers.take_due():
            self._plan_answer(waiting, work)
        self._always.plan_due(self._monotonic(), work)
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
        self._take_outcomes(work)
        return work

    def _plan_answer(self, waiting: Waiting, work: Work) -> None:
        """The windows after one uplink."""
        owed, sending = waiting.owed, self._sending
        elapsed_us = round((self._monotonic() - waiting.heard_at) * _US)
        if isinstance(owed, OwedJoin):
            accept = plan_join(owed, waiting.copies, sending.air, elapsed_us)
            if isinstance(accept, CommandReason):
                sending.cannot("join-accept not sent", owed.device.name, accept)
            else:
                sending.begin(accept, owed.device.name, None, waiting.heard_at, work)
            return
        entry = owed.entry
        session = self._table.stored(entry.session_id)
        if session is None or session.session_id in work.sessions:
            return
        command = sending.next_command(entry, session, owed.region, owed.uplink, work)
        if command is None and not owed.must_answer and not self._asks(owed, session):
            return
        plan = plan_data(
            owed,
            waiting.copies,
            session,
            self._table.crypto(entry),
            command,
            more_waits=self._queue.count(entry.device.dev_eui) > 1,
            policy=sending.policy,
            air=sending.air,
            elapsed_us=elapsed_us,
        )
        if isinstance(plan, CommandReason):
            sending.cannot("downlink not sent", entry.device.name, plan)
            if command is not None:
                self._orders.hold(command, plan, work)
            return
        sending.begin(plan, entry.device.name, session, waiting.heard_at, work)
        self._always.answering(session, plan, waiting.heard_at)

    def _take_outcomes(self, work: Work) -> None:
        for outcome in self._transmitter.take_outcomes():
            self._conclude(outcome, work)

    def _conclude(self, outcome: Outcome, work: Work) -> None:
        """A transmission is over, one way or the other."""
        job, attempt, error = outcome.job, outcome.attempt, outcome.result.error
        sending = self._sending
        for unused in job.plan.attempts:
            if unused not in outcome.used and unused.airtime is not None:
                sending.ledger.give_back(unused.airtime)
        if job.queued is not None:
            sending.in_flight.discard(job.queued.queue_id)
            self._orders.concluded(job, attempt, outcome.result, work)
        is_sent = attempt is not None and error is None
        self._always.concluded(job, attempt, is_sent=is_sent, now=self._monotonic())
        facts = {"device": job.name, "fcnt": None if job.plan.downlink is None else job.plan.downlink.fcnt32}
        if attempt is None:
            sending.counters["too_late"] += 1
            _FACTS.warning("downlink not sent", reason=CommandReason.TOO_LATE, **facts)
        elif error is not None:
            sending.counters["refused_by_radio"] += 1
            gateway = attempt.transmission.gateway_eui
            _FACTS.warning("the gateway did not take a downlink", reason=error, gateway=gateway, **facts)
        else:
            sending.counters["join_accepts" if job.plan.session is None else "sent"] += 1
            window, gateway = attempt.window.number, attempt.transmission.gateway_eui
            _FACTS.info("downlink sent", window=window, gateway=gateway, **facts)
