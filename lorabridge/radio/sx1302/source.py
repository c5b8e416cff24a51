"""A concentrator as a radio source: the child process that drives it, watched, and restarted by the daemon.

Whatever is wrong with library or board becomes a TransientError of `receive` or `start`; the child is then ended.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import ChannelNoise, GatewayStatus, Reception, Transmission, TxResult, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.inbox import INBOX_LIMIT, Inbox
from lorabridge.radio.outcomes import BUSY, NO_ANSWER, NOT_RUNNING, UNSENDABLE
from lorabridge.radio.sx1302.board_reset import BoardReset
from lorabridge.radio.sx1302.gps_timing import GpsTiming
from lorabridge.radio.sx1302.mapping import (
    TX_POWER,
    NotSendableError,
    noise_of,
    order_of,
    reception_of,
)
from lorabridge.radio.sx1302.plan import Plan, read_plan
from lorabridge.radio.sx1302.process import ChildProcess
from lorabridge.radio.sx1302.schedule import MOST_LEAD_US, lead
from lorabridge.radio.sx1302.settings import COM_PATH_LIMIT, Sx1302Settings
from lorabridge.radio.sx1302.wire import (
    Beat,
    Counter,
    Failed,
    FromChild,
    Heard,
    Refused,
    Scanned,
    Sent,
    Setup,
    Started,
    Stop,
)

PENDING_LIMIT: Final = 64
NOISE_LIMIT: Final = 64
"""Channels whose noise is kept."""
ANSWER_LIMIT: Final = 10.0
"""Seconds for the answer to a frame beyond its moment: it comes when the frame is handed over, shortly before."""


_COUNTERS = (
    "frames",
    "malformed",
    "fetch_errors",
    "inbox_dropped",
    "starts",
    "transmitted",
    "tx_refused",
    "library_lines_dropped",
    "scans",
    "scans_failed",
    "gps_contradictions",
)


class Sx1302:
    """A radio source: one concentrator on this machine."""

    def __init__(self, settings: Sx1302Settings, *, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` gives ns since the Unix epoch."""
        self._settings = settings
        self._clock = clock
        self._plan: Plan | None = None
        self._child: ChildProcess | None = None
        self._reading: asyncio.Task[None] | None = None
        self._eui = EUI64(0)
        self._inbox: Inbox[Reception | GatewayStatus] = Inbox(INBOX_LIMIT)
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[str | None]] = {}
        self._counters = collections.Counter(dict.fromkeys(_COUNTERS, 0))
        self._told = Beat(0, 0)
        self._board = BoardReset(settings.board)
        self._did_not_start = False
        self._timing = GpsTiming(settings, clock)
        self._counter: Counter | None = None
        self._noise: dict[int, ChannelNoise] = {}

    @property
    def name(self) -> str:
        """The name of this source in the configuration."""
        return self._settings.name

    @property
    def can_transmit(self) -> bool:
        """Whether the plan has a transmitter; asked before the start too."""
        try:
            return (self._plan or self._read_plan()).can_transmit
        except ConfigError:  # `start` tells
            return True

    @property
    def reachable(self) -> None:
        """A board that gives no sign of life is a failure of the source."""
        return None

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals by name."""
        return {**self._counters, "gps_contradictions": self._timing.contradictions}

    async def start(self) -> None:
        """Start child and concentrator. Raises ConfigError for files that do not serve, TransientError else."""
        await self.stop()
        plan = self._read_plan()
        self._told, self._counter = Beat(0, 0), None
        await self._board.prepare(plan, was_there=self._counters["starts"] > 0, reset=self._did_not_start)
        self._did_not_start = True
        self._child, self._eui = await self._start_child(plan)
        self._plan, self._did_not_start = plan, False
        self._counters["starts"] += 1
        self._timing.start()
        self._inbox.open()
        self._reading = asyncio.create_task(self._read(self._child), name=f"{self.name} child")

    async def receive(self) -> list[Reception | GatewayStatus]:
        """All that waits. After `stop` what was heard before, then SourceEnded."""
        return await self._inbox.receive()

    async def transmit(self, transmission: Transmission) -> TxResult:
        """Hand a frame over; the answer comes when the concentrator has it, shortly before its moment."""
        child, plan = self._child, self._plan
        if child is None or plan is None or self._inbox.failure or transmission.gateway_eui != self._eui:
            return TxResult(error=NOT_RUNNING)
        if len(self._pending) >= PENDING_LIMIT:
            return TxResult(error=BUSY)
        number = next(self._numbers)
        try:
            count_us = self._count_of(transmission)
            order, power = order_of(transmission, plan, number, count_us)
        except NotSendableError as error:
            self._counters["tx_refused"] += 1
            return TxResult(error=str(error))
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            child.send(order)
            word = await asyncio.wait_for(answer, ANSWER_LIMIT + self._ahead(count_us))
        except TimeoutError:
            word = NO_ANSWER
        finally:
            self._pending.pop(number, None)
        if word is not None:
            self._counters["tx_refused"] += 1
            return TxResult(error=word)
        self._counters["transmitted"] += 1
        if power != transmission.power_dbm:
            return TxResult(warning=TX_POWER, power_dbm=power)
        return TxResult()

    async def stop(self) -> None:
        """Stop the concentrator and end the child; what was heard stays for `receive`."""
        child, self._child = self._child, None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        self._release()
        self._inbox.close()
        try:
            await asyncio.gather(self._timing.stop(), self._end_child(child))
        finally:
            self._board.release()

    async def _start_child(self, plan: Plan) -> tuple[ChildProcess, EUI64]:
        """A child whose concentrator runs, and its EUI. Raises ConfigError, TransientError."""
        child = await ChildProcess.spawn(self.name)
        try:
            child.send(Setup(str(self._settings.library), plan))
            first = await child.read(self._settings.start_timeout)
            if isinstance(first, Refused):
                where = f"{self.name}: library"
                raise ConfigError([Problem(where=where, what=first.what, hint=first.hint)])  # noqa: TRY301
            if not isinstance(first, Started):
                reason = first.reason if isinstance(first, Failed) else "an unexpected message"
                raise TransientError(f"the concentrator did not start: {reason}")  # noqa: TRY301
        except BaseException:
            child.kill()
            await child.reap()
            self._counters["library_lines_dropped"] += child.words_dropped
            raise
        return child, EUI64(int.from_bytes(first.eui, "big"))

    async def _end_child(self, child: ChildProcess | None) -> None:
        if child is None:
            return
        if self._inbox.failure is None:
            child.send(Stop())
            await child.end()
        else:
            child.kill()
            await child.reap()
        self._counters["library_lines_dropped"] += child.words_dropped

    def _count_of(self, transmission: Transmission) -> int | None:
        """The moment of a transmission by the concentrator's counter, None for at once. Raises NotSendableError."""
        if transmission.timing is TxTiming.IMMEDIATELY:
            return None
        if transmission.timing is TxTiming.AT_GPS_TIME:
            return self._timing.count_of(transmission.gps_time_ms, time.monotonic_ns())
        if transmission.tmst is None:
            raise NotSendableError(UNSENDABLE)
        return transmission.tmst

    def _ahead(self, count_us: int | None) -> float:
        """Seconds until a count at most; 0 for one that is past."""
        if count_us is None:
            return 0.0
        if self._counter is None:
            return MOST_LEAD_US / 1e6
        now = self._counter.count_us + (time.monotonic_ns() - self._counter.at_ns) // 1000
        return max(0.0, lead(count_us, now) / 1e6)

    def _read_plan(self) -> Plan:
        """The file, with what the settings say otherwise. Raises ConfigError."""
        settings, plan = self._settings, read_plan(self._settings.configuration)
        plan = msgspec.structs.replace(
            plan,
            com_type=settings.com_type or plan.com_type,
            com_path=plan.com_path if settings.device is None else settings.device,
        )
        if not 0 < len(plan.com_path.encode()) <= COM_PATH_LIMIT or "\0" in plan.com_path:
            what = f"com_path: {plan.com_path!r} is no device path of 1 to {COM_PATH_LIMIT} bytes"
            raise ConfigError([Problem(where=str(settings.configuration), what=what, hint="or set device")])
        return plan

    async def _read(self, child: ChildProcess) -> None:
        """Everything the child says, until it fails; then it is killed."""
        try:
            while True:
                self._take(await child.read(self._settings.silence))
        except Exception as error:  # noqa: BLE001  # a bug here must reach `receive` too, never end in silence
            self._inbox.fail(error)
            child.kill()
            self._release()

    def _take(self, message: FromChild) -> None:
        """One message. Raises TransientError when it says that the concentrator is lost."""
        if isinstance(message, Heard):
            self._take_heard(message)
        elif isinstance(message, Sent):
            answer = self._pending.get(message.number)
            if answer is not None and not answer.done():
                answer.set_result(message.error)
        elif isinstance(message, Beat):
            self._counters["fetch_errors"] += max(0, message.fetch_errors - self._told.fetch_errors)
            self._counters["malformed"] += max(0, message.malformed - self._told.malformed)
            self._counters["scans_failed"] += max(0, message.scans_failed - self._told.scans_failed)
            self._told = message
            if message.counter is not None:
                self._counter = message.counter
                self._timing.note(message.counter)
            if message.temperature_c is not None:
                self._keep(self._status(message.temperature_c))
        elif isinstance(message, Scanned):
            self._counters["scans"] += 1
            noise = noise_of(message)
            if noise is not None and (message.frequency_hz in self._noise or len(self._noise) < NOISE_LIMIT):
                self._noise[message.frequency_hz] = noise
        else:
            reason = message.reason if isinstance(message, Failed) else "an unexpected message"
            raise TransientError(f"the concentrator is lost: {reason}")

    def _take_heard(self, message: Heard) -> None:
        now, now_ns = self._clock(), time.monotonic_ns()
        for packet in message.packets:
            gps_ns = self._timing.gps_ns_of(packet.count_us, now_ns)
            heard = reception_of(packet, gateway_eui=self._eui, source=self.name, received_at=now, gps_ns=gps_ns)
            self._counters["malformed" if heard is None else "frames"] += 1
            if heard is not None:
                self._keep(heard)

    def _status(self, temperature_c: float) -> GatewayStatus:
        place = self._timing.position
        return GatewayStatus(
            gateway_eui=self._eui,
            source=self.name,
            received_at=self._clock(),
            latitude=None if place is None else place.latitude,
            longitude=None if place is None else place.longitude,
            altitude_m=None if place is None else place.altitude_m,
            temperature_c=temperature_c,
            gnss=self._timing.health(time.monotonic_ns()),
            noise=tuple(self._noise[frequency_hz] for frequency_hz in sorted(self._noise)),
        )

    def _keep(self, heard: Reception | GatewayStatus) -> None:
        if not self._inbox.put(heard):
            self._counters["inbox_dropped"] += 1

    def _release(self) -> None:
        """Nobody will answer the waiting transmissions."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_result(NOT_RUNNING)
