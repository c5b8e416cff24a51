"""The life of a command: taken, begun, sent, acknowledged or not, expired or rejected; each step is a result event."""

from __future__ import annotations

from collections.abc import Callable

from lorabridge.daemon.command_queue import CommandQueue, Target
from lorabridge.daemon.work import Job, Work
from lorabridge.lorawan.air import TxResult
from lorabridge.lorawan.commands import CommandReason, CommandState, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.downlink import next_app_fcnt
from lorabridge.lorawan.events import DeviceRef, DownlinkResult, Uplink
from lorabridge.lorawan.planner import Attempt
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, FCnt32

SAID_NOTHING = "the device answered without an acknowledgement"


class Orders:
    """Commands from the cloud, from their arrival to their end. `clock`: nanoseconds since the Unix epoch."""

    def __init__(self, queue: CommandQueue, table: SessionTable, attempts: int, clock: Callable[[], int]) -> None:
        """`attempts`: how often a confirmed command is sent before it is given up."""
        self.queue = queue
        self._table = table
        self._attempts = attempts
        self._clock = clock

    def take(
        self, command: DownlinkCommand, work: Work, *, refusal: CommandReason | None = None, detail: str = ""
    ) -> bool:
        """Put an order into the queue, or reject it; whether it is in the queue now. `refusal`: a reason to reject."""
        reason = refusal or self._impossible(command)
        if reason is not None:
            self.tell(command, CommandState.REJECTED, work, reason=reason, detail=detail)
            return False
        taken = self.queue.add(command)
        if taken is CommandReason.DUPLICATE_ID and self.queue.find(command.target, command.id) is not None:
            self.tell(command, CommandState.QUEUED, work, detail="ordered before, and still waiting")
            return False
        if isinstance(taken, CommandReason):
            self.tell(command, CommandState.REJECTED, work, reason=taken)
            return False
        work.keep(taken)
        self.tell(command, CommandState.QUEUED, work)
        return True

    def heard(self, uplink: Uplink, work: Work, in_flight: set[int]) -> None:
        """An uplink says whether the confirmed command before it arrived."""
        awaiting = self.queue.awaiting(uplink.device.dev_eui)
        if awaiting is None or awaiting.queue_id in in_flight:
            return
        if uplink.ack:
            self._end(awaiting, CommandState.ACKNOWLEDGED, work, fcnt_down=awaiting.sent_fcnt)
        else:
            self.unacknowledged(awaiting, work)

    def unacknowledged(self, queued: QueuedCommand, work: Work) -> None:
        """No acknowledgement came: once more, or never again."""
        if queued.attempts >= self._attempts:
            self._end(queued, CommandState.NOT_ACKNOWLEDGED, work, detail=SAID_NOTHING, fcnt_down=queued.sent_fcnt)
        else:
            work.keep(self.queue.again(queued))

    def expire(self, work: Work, in_flight: set[int]) -> None:
        """Take out the commands whose time is over."""
        for queued in self.queue.expired(self._clock()):
            if queued.queue_id not in in_flight:
                self._end(queued, CommandState.EXPIRED, work)

    def begin(self, queued: QueuedCommand, work: Work) -> QueuedCommand:
        """A transmission of it begins: durable before the frame is on the air."""
        begun = self.queue.begun(queued)
        work.keep(begun)
        return begun

    def reject(self, queued: QueuedCommand, reason: CommandReason, work: Work) -> None:
        """It can never be sent."""
        self._end(queued, CommandState.REJECTED, work, reason=reason)

    def hold(self, queued: QueuedCommand, reason: CommandReason, work: Work) -> None:
        """It cannot be sent this time."""
        self.tell(queued.command, CommandState.REFUSED_BY_RADIO, work, reason=reason, attempt=queued.attempts)

    def concluded(self, job: Job, attempt: Attempt | None, result: TxResult, work: Work) -> None:
        """What the radio said of a transmission that carried a command."""
        queued = None if job.queued is None else self.queue.get(job.queued.queue_id)
        if queued is None or job.plan.downlink is None:
            return
        fcnt32 = job.plan.downlink.fcnt32
        if attempt is None or result.error is not None:
            reason = CommandReason.TOO_LATE if attempt is None else CommandReason.RADIO
            self.tell(
                queued.command,
                CommandState.REFUSED_BY_RADIO,
                work,
                reason=reason,
                detail=result.error or "",
                attempt=queued.attempts,
                fcnt_down=fcnt32,
                attempted=attempt,
            )
            return
        detail = result.warning or ""
        if queued.command.confirmed:
            work.keep(self.queue.sent(queued, fcnt32))
            self.tell(
                queued.command,
                CommandState.SENT,
                work,
                detail=detail,
                attempt=queued.attempts,
                fcnt_down=fcnt32,
                attempted=attempt,
            )
        else:
            self._end(queued, CommandState.SENT, work, detail=detail, fcnt_down=fcnt32, attempted=attempt)

    def tell(  # noqa: PLR0913  # what a result can say
        self,
        command: DownlinkCommand,
        state: CommandState,
        work: Work,
        *,
        reason: CommandReason | None = None,
        detail: str = "",
        attempt: int = 0,
        fcnt_down: FCnt32 | None = None,
        attempted: Attempt | None = None,
    ) -> None:
        """A result event."""
        sent = None if attempted is None else attempted.transmission
        work.events.append(
            DownlinkResult(
                command_id=command.id,
                correlation_id=command.correlation_id,
                device=self._ref(command.target),
                target=str(command.target),
                state=state,
                reason=reason,
                detail=detail,
                at=self._clock(),
                attempt=attempt,
                fcnt_down=fcnt_down,
                next_fcnt_down=self._next_fcnt(command.target, work),
                gateway_eui=None if sent is None else sent.gateway_eui,
                frequency_hz=None if sent is None else sent.frequency_hz,
                data_rate=None if sent is None else sent.data_rate,
            )
        )

    def _impossible(self, command: DownlinkCommand) -> CommandReason | None:
        """Why nothing can come of a command: it is for nobody, or for somebody who cannot be answered."""
        target = command.target
        known = self._table.device(target) if isinstance(target, EUI64) else self._table.group(target)
        if known is None:
            return CommandReason.UNKNOWN_DEVICE
        return CommandReason.NO_REGION if self._table.region(known.region) is None else None

    def _end(  # as `tell`
        self,
        queued: QueuedCommand,
        state: CommandState,
        work: Work,
        *,
        reason: CommandReason | None = None,
        detail: str = "",
        fcnt_down: FCnt32 | None = None,
        attempted: Attempt | None = None,
    ) -> None:
        """The last result of a command."""
        self.queue.finish(queued)
        work.drop(queued)
        self.tell(
            queued.command,
            state,
            work,
            reason=reason,
            detail=detail,
            attempt=queued.attempts,
            fcnt_down=fcnt_down,
            attempted=attempted,
        )

    def _ref(self, target: Target) -> DeviceRef | None:
        device = self._table.device(target) if isinstance(target, EUI64) else None
        return None if device is None else device.ref

    def _next_fcnt(self, target: Target, work: Work) -> FCnt32 | None:
        """The counter that a sealed payload has to be made for."""
        if not isinstance(target, EUI64):
            group = self._table.group(target)
            return None if group is None else self._table.group_session(group).fcnt_down
        entry = self._table.current(target)
        if entry is None:
            return None
        return next_app_fcnt(entry, work.sessions.get(entry.session_id) or self._table.session(entry))
