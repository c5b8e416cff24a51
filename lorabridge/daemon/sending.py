"""What every way of sending has in common: the next command of a target, what is begun, and what cannot be sent."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from lorabridge.daemon.command_queue import CommandQueue
from lorabridge.daemon.log import Facts
from lorabridge.daemon.orders import Orders
from lorabridge.daemon.work import Job, Work
from lorabridge.lorawan.air import GatewayStatus, Reception
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.decision import Network
from lorabridge.lorawan.downlink import command_problem
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.planner import Gateways, Plan, largest_mac_payload
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regulation import AirtimeLedger
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import Entry, SessionTable
from lorabridge.lorawan.types import EUI64, DeviceClass

_FACTS = Facts(logging.getLogger(__name__))

MAX_GATEWAYS = 256
"""Gateways whose radio source is remembered."""
_COUNTERS = ("join_accepts", "sent", "refused_by_radio", "too_late", "no_airtime", "orders")


class Sending:
    """The means of the daemon's downlinks. `clock`: nanoseconds since the Unix epoch."""

    def __init__(
        self,
        table: SessionTable,
        queue: CommandQueue,
        orders: Orders,
        ledger: AirtimeLedger,
        network: Network,
        clock: Callable[[], int],
    ) -> None:
        self.table = table
        self.queue = queue
        self.orders = orders
        self.ledger = ledger
        self.network = network
        self.in_flight: set[int] = set()
        """Commands that the radio has, and has not answered for."""
        self.sources: dict[EUI64, str] = {}
        """Through which radio source each gateway is reached."""
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        self._clock = clock

    @property
    def policy(self) -> MacPolicy:
        """What devices are to be set to."""
        answering = self.network.answering
        return MacPolicy() if answering is None else answering.policy

    @property
    def air(self) -> Gateways:
        """What the law leaves, now."""
        return Gateways(self.ledger, self._clock())

    def note_sources(self, heard: Sequence[Reception | GatewayStatus]) -> None:
        """Remember through which radio source each gateway is reached."""
        for one in heard:
            if one.gateway_eui in self.sources or len(self.sources) < MAX_GATEWAYS:
                self.sources[one.gateway_eui] = one.source

    def next_command(
        self, entry: Entry, session: Session, region: Region, uplink: Reception | None, work: Work
    ) -> QueuedCommand | None:
        """The next command for the windows after `uplink`, or for now; those that never can go are rejected."""
        may_go = partial(goes_at_once, entry, session) if uplink is None else _goes_after_uplinks
        target = entry.device.dev_eui
        limit = largest_mac_payload(region, session, uplink, entry.device.channels_hz)
        while (command := self.queue.head(target, may_go)) is not None and command.queue_id not in self.in_flight:
            problem = command_problem(entry, session, command, limit)
            if problem is None:
                return command
            self.orders.reject(command, problem, work)
        return None

    def begin(self, plan: Plan, name: str, session: Session | None, heard_at: float | None, work: Work) -> None:
        """Write down what has to be durable before the first attempt."""
        queued = None
        if plan.downlink is not None and plan.downlink.command is not None:
            queued = self.orders.begin(plan.downlink.command, work)
            self.in_flight.add(queued.queue_id)
        if plan.session is not None and session is not None:
            moved = msgspec.structs.replace(plan.session, generation=session.generation + 1)
            work.sessions[moved.session_id] = moved
        work.airtimes += [attempt.airtime for attempt in plan.attempts if attempt.airtime is not None]
        work.jobs.append(Job(plan=plan, name=name, queued=queued, heard_at=heard_at))

    def cannot(self, what: str, name: str, reason: CommandReason) -> None:
        """Count and log what is not sent."""
        self.counters["too_late" if reason is CommandReason.TOO_LATE else "no_airtime"] += 1
        _FACTS.warning(what, device=name, reason=reason)


def goes_at_once(entry: Entry, session: Session, command: DownlinkCommand) -> bool:
    """Whether a command waits for no uplink: as it says itself, else as the device listens.

    How it listens the device said itself (DeviceModeInd of 1.1), else its file says.
    """
    if command.device_class is not None:
        return command.device_class is DeviceClass.C
    said = session.mac.is_class_c
    return entry.device.device_class is DeviceClass.C if said is None else said


def _goes_after_uplinks(_: DownlinkCommand) -> bool:
    """Every device listens after its uplinks."""
    return True
