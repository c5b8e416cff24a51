"""Transmissions under way: each a task that tries its windows in order, and its outcome for the next turn."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from lorabridge.daemon.log import Facts
from lorabridge.daemon.work import Job
from lorabridge.lorawan.air import Transmission, TxResult
from lorabridge.lorawan.planner import LEAST_LEAD_US, Attempt

_FACTS = Facts(logging.getLogger(__name__))

_US = 1_000_000
_RESERVE = 0.05
"""Seconds before the last moment for RX2 at which RX1 is given up."""
NO_ANSWER_IN_TIME = "NO_TX_ACK"
"""The gateway said nothing of RX1 before RX2 had to be ordered."""

Transmit = Callable[[str, Transmission], Awaitable[TxResult]]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended."""

    job: Job
    attempt: Attempt | None
    """The one that `result` is of; None: it was too late for all."""
    result: TxResult
    used: tuple[Attempt, ...]
    """What was on the air, or may have been."""


class Transmitter:
    """Runs jobs. `on_outcome` is called on the loop when there is one to take; `monotonic` gives seconds."""

    def __init__(
        self, transmit: Transmit, on_outcome: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._transmit = transmit
        self._monotonic = monotonic
        self._on_outcome = on_outcome
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcomes: list[Outcome] = []

    @property
    def under_way(self) -> int:
        """Jobs that have no outcome yet."""
        return len(self._tasks)

    def start(self, job: Job) -> None:
        """Begin a job whose session and airtime are committed."""
        task = asyncio.get_running_loop().create_task(self._run(job), name=f"transmit {job.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take_outcomes(self) -> list[Outcome]:
        """The outcomes since the last call."""
        taken, self._outcomes = self._outcomes, []
        return taken

    async def settle(self, limit: float) -> None:
        """Wait up to `limit` seconds for what is under way."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=limit)

    async def _run(self, job: Job) -> None:
        run = self._run_all if job.plan.all_attempts else self._run_first
        try:
            outcome = await run(job)
        except Exception as bug:  # noqa: BLE001  # the command must not be lost over it, nor the bridge end
            _FACTS.error("a bug ended a transmission", exc=bug, device=job.name)
            outcome = Outcome(job=job, attempt=None, result=TxResult(), used=job.plan.attempts)
        self._outcomes.append(outcome)
        self._on_outcome()

    async def _run_first(self, job: Job) -> Outcome:
        """The windows in their order, until the radio takes one."""
        attempts = job.plan.attempts
        tried, result, used = None, TxResult(), list[Attempt]()
        for number, attempt in enumerate(attempts):
            if self._latest(job, attempt) < self._monotonic():
                continue
            following = attempts[number + 1] if number + 1 < len(attempts) else None
            tried, result = attempt, await self._try(job, attempt, following)
            if result.error is None or result.error == NO_ANSWER_IN_TIME:
                used.append(attempt)
            if result.error is None:
                break
        return Outcome(job=job, attempt=tried, result=result, used=tuple(used))

    async def _run_all(self, job: Job) -> Outcome:
        """Every gateway; it counts as sent when one of them took it."""
        attempts = job.plan.attempts
        results = await asyncio.gather(*(self._try(job, attempt, None) for attempt in attempts))
        used = tuple(a for a, one in zip(attempts, results, strict=True) if one.error in (None, NO_ANSWER_IN_TIME))
        best = min(range(len(attempts)), key=lambda number: results[number].error is not None)
        return Outcome(job=job, attempt=attempts[best], result=results[best], used=used)

    async def _try(self, job: Job, attempt: Attempt, following: Attempt | None) -> TxResult:
        """Hand one over; while there is a second window its time is not spent waiting for the first one's answer."""
        patience = None
        if following is not None:
            patience = max(0.0, self._latest(job, following) - _RESERVE - self._monotonic())
        try:
            async with asyncio.timeout(patience):
                return await self._transmit(attempt.source, attempt.transmission)
        except TimeoutError:
            return TxResult(error=NO_ANSWER_IN_TIME)

    @staticmethod
    def _latest(job: Job, attempt: Attempt) -> float:
        """When the gateway must have it, by `monotonic`."""
        if job.heard_at is None:
            return float("inf")
        return job.heard_at + (attempt.window.delay_us - LEAST_LEAD_US) / _US
