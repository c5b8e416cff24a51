"""The corridor of the house: heard, judged, committed, told. Nothing is told that is not committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lorabridge.backoff import Backoff
from lorabridge.daemon.downlinks import Downlinks
from lorabridge.daemon.health import Check
from lorabridge.daemon.log import Facts
from lorabridge.daemon.radios import Heard
from lorabridge.daemon.reporting import SecurityReporter
from lorabridge.daemon.work import Work
from lorabridge.errors import TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception
from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.events import Event, GatewayStats, Record, SecurityEvent, Uplink
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.verdict import Verdict
from lorabridge.radio.base import SourceEnded
from lorabridge.store.database import Store
from lorabridge.store.values import Batch, SessionChange, StoredRecord, StoreState, StoreTrouble

_LOGGER = logging.getLogger(__name__)
_FACTS = Facts(_LOGGER)
_QUIET = frozenset({Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.FOREIGN, Verdict.RADIO_CRC})
"""Verdicts of an ordinary day: told to whoever looks for a fault."""
MAX_GATEWAYS = 256
"""Gateways whose last status report is kept."""


class Source(Protocol):
    """Where frames come from: `Radios`."""

    async def receive(self) -> list[Heard]:
        """All that waits, oldest first."""


class Pipeline:
    """Receive, judge, commit, hand on."""

    def __init__(  # noqa: PLR0913  # the corridor touches every room
        self,
        *,
        source: Source,
        engine: Engine,
        table: SessionTable,
        store: Store,
        downlinks: Downlinks,
        encode: Callable[[Event], Record],
        hand_on: Callable[[Sequence[StoredRecord]], None],
        reporter: SecurityReporter,
        backoff: Backoff,
        check: Check,
        observer: Callable[[Decision], None] | None = None,
    ) -> None:
        self._source = source
        self._engine = engine
        self._table = table
        self._store = store
        self._downlinks = downlinks
        self._encode = encode
        self._hand_on = hand_on
        self._reporter = reporter
        self._backoff = backoff
        self._check = check
        self._observer = observer
        self.verdicts: Counter[Verdict] = Counter()
        self.gateways: dict[EUI64, GatewayStatus] = {}
        self.last_heard: dict[EUI64, int] = {}
        """When each gateway last sent anything, nanoseconds since the Unix epoch."""
        self.trouble = ""
        """Why the store cannot take what was judged; empty while it can."""
        self.store_state = StoreState.OK

    async def run(self) -> None:
        """Until the source has no more."""
        receiving: asyncio.Future[list[Heard]] | None = None
        woken = asyncio.ensure_future(self._downlinks.woken())
        try:
            with contextlib.suppress(SourceEnded):
                while True:
                    receiving = receiving or asyncio.ensure_future(self._source.receive())
                    await asyncio.wait(
                        (receiving, woken),
                        timeout=self._downlinks.next_due(),
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    heard: list[Heard] = []
                    if receiving.done():
                        heard, receiving = receiving.result(), None
                    with self._check.working():
                        await self.process(heard)
                    if woken.done():
                        woken = asyncio.ensure_future(self._downlinks.woken())
        finally:
            for waiting in (receiving, woken):
                if waiting is not None:
                    waiting.cancel()

    async def process(self, heard: Sequence[Heard]) -> None:
        """One batch all the way to the outbox: one transaction for its counters and its records.

        What is due to be sent follows in a transaction of its own, and goes to the radio after that.
        """
        decisions = await self._judge_at_last([one for one in heard if isinstance(one, Reception)])
        self._note_gateways(heard)
        events = [event for decision in decisions for event in self._events(decision)]
        resolved = self._downlinks.resolve(decisions)
        stored = await self.commit(decisions, [*events, *resolved.events], resolved)
        rows = {id(event): record.id for event, record in zip(events, stored, strict=False)}
        whole = len(stored) == len(events) + len(resolved.events)
        for decision in decisions:
            self._tell(decision, rows if whole else {})
        self._downlinks.note(decisions)
        due = self._downlinks.turn()
        await self.commit([], due.events, due)
        self._downlinks.launch(due)

    async def commit(
        self, decisions: Sequence[Decision], events: Sequence[Event], work: Work | None = None
    ) -> list[StoredRecord]:
        """Make decisions and work true and put the events into the outbox; tries until the store can.

        Returns the records, in the order of the events; a full outbox may have dropped some at once.
        """
        batch = _batch(decisions, tuple(self._encode(event) for event in events), work or Work())
        if batch == Batch():
            return []
        stored = await self._commit_at_last(batch)
        self._table.advance([change.session for change in batch.changes], batch.joined, batch.ended)
        self._hand_on(stored)
        return stored

    async def _judge_at_last(self, receptions: Sequence[Reception]) -> list[Decision]:
        """Judging is pure but for the history of frames, which may be unreadable for a while."""
        while True:
            try:
                return self._engine.judge_all(receptions)
            except TransientError as error:
                await self._wait(error)

    async def _commit_at_last(self, batch: Batch) -> list[StoredRecord]:
        """Nothing that was judged is given up while the disk is full or busy: the radio has to wait."""
        while True:
            try:
                stored = await self._store.commit(batch)
            except TransientError as error:
                await self._wait(error)
            else:
                self._backoff.reset()
                if self.trouble:
                    self.trouble, self.store_state = "", StoreState.OK
                    _FACTS.info("the store can again")
                return stored

    async def _wait(self, error: TransientError) -> None:
        self.trouble = str(error)
        self.store_state = error.state if isinstance(error, StoreTrouble) else StoreState.UNAVAILABLE
        _FACTS.error(
            "the store cannot, trying again; frames wait in the radio's buffers",
            reason=self.trouble,
            hint=self.store_state.hint,
        )
        await asyncio.sleep(self._backoff.next())
        self._check.progress()

    def _events(self, decision: Decision) -> list[Event]:
        """What of a decision leaves now."""
        self._reporter.count(decision)
        return [
            event for event in decision.events if not isinstance(event, SecurityEvent) or self._reporter.admit(event)
        ]

    def _note_gateways(self, heard: Sequence[Heard]) -> None:
        """Keep the last word of each gateway; the tables are bounded, and those in them stay current."""
        for one in heard:
            eui = one.gateway_eui
            if eui in self.last_heard or len(self.last_heard) < MAX_GATEWAYS:
                self.last_heard[eui] = one.received_at
                if isinstance(one, GatewayStatus):
                    self.gateways[eui] = one
        self._downlinks.note_sources(heard)

    def _tell(self, decision: Decision, rows: Mapping[int, int]) -> None:
        """Count the verdict and write the line of this frame; `rows` names the outbox records of its events."""
        verdict = decision.verdict
        self.verdicts[verdict] += 1
        level = logging.DEBUG if verdict in _QUIET else logging.INFO
        if _LOGGER.isEnabledFor(level):
            _FACTS.log(level, "frame judged", **_facts(decision, rows))
        if self._observer is not None:
            self._observer(decision)

    def stats(self, at: int, interval_s: float, counters: dict[str, int]) -> GatewayStats:
        """What was done since the process began, and the last word of each gateway."""
        return GatewayStats(
            at=at,
            interval_s=interval_s,
            verdicts=tuple(self.verdicts.items()),
            counters=tuple(counters.items()),
            gateways=tuple(self.gateways.values()),
        )


def _batch(decisions: Sequence[Decision], records: tuple[Record, ...], work: Work) -> Batch:
    """What becomes true together."""
    if not decisions and not records and not work:
        return Batch()
    ended = tuple(session_id for decision in decisions for session_id in decision.ended)
    joins = [decision.join for decision in decisions if decision.join is not None]
    sessions: dict[bytes, Session] = {
        decision.session.session_id: decision.session for decision in decisions if decision.session is not None
    }
    sessions |= {one.session.session_id: one.session for one in joins if one.session is not None}
    sessions |= work.sessions
    for session_id in ended:  # it moved, and then a newer one took its place
        sessions.pop(session_id, None)
    return Batch(
        changes=tuple(SessionChange(session, session.generation - 1) for session in sessions.values()),
        records=records,
        heard=tuple(decision.heard for decision in decisions if decision.heard is not None),
        joined=tuple(one.joined for one in joins if one.joined is not None),
        ended=ended,
        joins=tuple({one.history.join_id: one.history for one in joins}.values()),
        nonces=tuple((one.history.join_id, one.nonce) for one in joins if one.nonce is not None),
        queued=tuple(work.queued.values()),
        unqueued=tuple(work.unqueued),
        airtimes=tuple(work.airtimes),
        told=tuple(work.told),
    )


def _facts(decision: Decision, rows: Mapping[int, int]) -> dict[str, object]:
    """The fields of a frame's line; what is unknown is left out.

    `uplink` is the `id` that the cloud sees, `record` what the lines of the drain call it.
    """
    uplinks = [event.id for event in decision.events if isinstance(event, Uplink)]
    fields: dict[str, object] = {
        "frame": decision.frame_id,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "device": None if decision.device is None else decision.device.name,
        "dev_addr": decision.dev_addr,
        "fcnt": decision.fcnt32,
        "gateway": decision.reception.gateway_eui,
        "detail": decision.detail or None,
        "uplink": uplinks[0] if uplinks else None,
        "record": [rows[id(event)] for event in decision.events if id(event) in rows] or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
