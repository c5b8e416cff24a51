"""The bridge: builds the rooms, joins them, runs them until told to stop, and takes them down in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lorabridge import __version__
from lorabridge.backoff import Backoff
from lorabridge.daemon.assembly import RADIO_BACKOFF, encoder_of, network_of, source_of
from lorabridge.daemon.certificate_watch import CertificateWatch, certificate_facts
from lorabridge.daemon.command_desk import CommandDesk
from lorabridge.daemon.config import Config
from lorabridge.daemon.downlinks import Downlinks
from lorabridge.daemon.health import Health
from lorabridge.daemon.log import Facts
from lorabridge.daemon.outbox_watch import OutboxWatch, parked_event
from lorabridge.daemon.pipeline import Pipeline
from lorabridge.daemon.radios import Radios
from lorabridge.daemon.remote import CloudServices
from lorabridge.daemon.reporting import SecurityReporter
from lorabridge.daemon.way_out import LinkLog, WayOut
from lorabridge.errors import TransientError
from lorabridge.lorawan.decision import Decision, Network
from lorabridge.lorawan.device import CounterPolicy, Device, MulticastGroup
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.events import Event, Status
from lorabridge.lorawan.table import SessionTable
from lorabridge.store.database import Store
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.batches import OutboxRecord, Packer
from lorabridge.upstream.drain import Drain
from lorabridge.upstream.faults import LinkDown, LinkState
from lorabridge.upstream.link import LinkReport
from lorabridge.upstream.topics import Topics

_FACTS = Facts(logging.getLogger(__name__))

STORE_BACKOFF = (0.1, 5.0)
PIPELINE_LIMIT = 30.0
"""Seconds the pipeline may hold a batch without a step."""
JUDGE_LIMIT = 2.0
LINK_LIMIT = 1.5
SETTLE_LIMIT = 0.5
"""Seconds of a clean stop for the last batch, the last PUBACKs, and their deletion; it may take five in all."""
TICK = 1.0
DRAIN_POLL = 0.05
_LAST_NS = 253_402_300_799 * 10**9
"""The end of the year 9999: a gateway's clock may say anything."""


async def _nothing_to_reload() -> str:
    return "there are no files to read anew"


class Bridge:
    """One running bridge. `observer` sees every decision once it is committed (the simulation's table)."""

    def __init__(
        self,
        config: Config,
        fingerprint: str,
        devices: Sequence[Device],
        store: Store,
        *,
        groups: Sequence[MulticastGroup] = (),
        observer: Callable[[Decision], None] | None = None,
        reload: Callable[[], Awaitable[str]] = _nothing_to_reload,
    ) -> None:
        rng = random.SystemRandom()
        self._config = config
        self._fingerprint = fingerprint
        self._started_at = time.monotonic()
        self._store = store
        self.health = Health(time.monotonic)
        self._table = SessionTable(
            devices, store.sessions(), config.network.region, joined=store.joined(), groups=groups
        )
        sources = [source_of(settings) for settings in config.radios]
        backoff = {source.name: Backoff(*RADIO_BACKOFF, rng) for source in sources}
        self._radios = Radios(sources, self.health, backoff)
        network = network_of(config, devices, self._radios.mute)
        self._engine = Engine(self._table, network, store)
        self._downlinks = self._new_downlinks(network)
        self._encode = encoder_of(config)
        self._link_log = LinkLog()
        self._certificate = CertificateWatch(config.link.certificate_warning, time.time)
        self._link = self._new_link(rng)
        self._way_out = WayOut(config.aws_iot, self._link, rng)
        self._drain = self._new_drain()
        self._outbox_watch = OutboxWatch(store, config.report.security_interval, time.time_ns, time.monotonic)
        self._services = CloudServices(
            config, fingerprint, self._link, answer=self.answer, pause=self._drain.pause, reload=reload
        )
        self._reporter = SecurityReporter(int(config.report.security_interval * 1e9))
        self._pipeline = Pipeline(
            source=self._radios,
            engine=self._engine,
            table=self._table,
            store=store,
            downlinks=self._downlinks,
            encode=self._encode,
            hand_on=self._drain.offer,
            reporter=self._reporter,
            backoff=Backoff(*STORE_BACKOFF, rng),
            check=self.health.add("pipeline", PIPELINE_LIMIT),
            observer=observer,
        )
        _warn_of_policies(devices)

    def _link_changed(self, report: LinkReport) -> None:
        self._link_log.tell(report)
        self._way_out.note(report)

    def _certificate_judged(self, refusal: LinkDown | None) -> None:
        self._certificate.judged(refusal)
        self._services.certificate_judged(refusal)

    def _new_downlinks(self, network: Network) -> Downlinks:
        """The other direction, with what the store kept of it."""
        return Downlinks(
            settings=self._config.downlinks,
            table=self._table,
            network=network,
            transmit=self._radios.transmit,
            queued=self._store.queue(),
            next_queue_id=self._store.next_queue_id(),
            airtimes=self._store.airtimes(),
            clock=time.time_ns,
            monotonic=time.monotonic,
        )

    def _new_link(self, rng: random.Random) -> AwsIot:
        """The way to the endpoint, and the commands that come along it."""
        config = self._config
        return AwsIot(
            config.link,
            config.gateway.id,
            status=self._status,
            rng=rng,
            commands=CommandDesk(self._downlinks, time.time_ns) if config.downlinks.enabled else None,
            on_change=self._link_changed,
            on_certificate=self._certificate_judged,
        )

    def _new_drain(self) -> Drain:
        """What empties the outbox by the way out."""
        config = self._config
        return Drain(
            self._store,
            self._way_out.link,
            Packer(Topics(config.link.topics, config.gateway.id), config.gateway.id),
            batching=config.link.batching == "auto",
            max_payload=config.link.largest_payload,
            report=lambda record, reason: self._encode(parked_event(record, reason, time.time_ns())),
            on_parked=_tell_parked,
        )

    async def run(self, stop: asyncio.Event, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` is set, or until every radio source has ended and the outbox is empty.

        Raises ConfigError when a source cannot be opened for a reason that only the operator can mend.
        """
        await self._radios.start()
        _FACTS.info("bridge started", version=__version__, gateway=self._config.gateway.id)
        pipeline = asyncio.create_task(self._pipeline.run(), name="pipeline")
        supporting = [
            asyncio.create_task(self._link.run(), name="link"),
            asyncio.create_task(self._way_out.run(), name="way_out"),
            asyncio.create_task(self._drain.run(), name="drain"),
            asyncio.create_task(self._tick(), name="tick"),
        ]
        told = asyncio.create_task(stop.wait(), name="stop")
        on_ready()
        try:
            await asyncio.wait([pipeline, told, *supporting], return_when=asyncio.FIRST_COMPLETED)
            if pipeline.done() and not told.done():
                pipeline.result()
                emptied = asyncio.create_task(self._until_empty(), name="emptied")
                await asyncio.wait([emptied, told, *supporting], return_when=asyncio.FIRST_COMPLETED)
                emptied.cancel()
            for task in supporting:
                if task.done():
                    task.result()
        finally:
            told.cancel()
            await self._take_down(pipeline, supporting)

    async def _take_down(self, pipeline: asyncio.Task[None], supporting: Sequence[asyncio.Task[None]]) -> None:
        """Radio first, then what it heard, then the link, so that nothing acknowledged is left unjudged."""
        _FACTS.info("bridge stopping")
        self._services.stop()
        under_way = await self._downlinks.settle(SETTLE_LIMIT)
        await self._radios.stop()
        try:
            async with asyncio.timeout(JUDGE_LIMIT):
                if not pipeline.done():  # else `run` has raised what ended it, and to ask again loses the traceback
                    await pipeline
                if pipeline.exception() is None:
                    last = [*under_way.events, *self._radios.watch.take(), *self._sums(final=True)]
                    await self._pipeline.commit([], last, under_way)
        except TimeoutError:
            _FACTS.error("frames were heard that could not be committed before the stop")
        finally:  # whatever ended the pipeline, what is committed gets its chance to leave
            await self._way_out.stop(LINK_LIMIT)
            for task in supporting:
                task.cancel()
            await asyncio.gather(*supporting, return_exceptions=True)
            with contextlib.suppress(TransientError, TimeoutError):  # a read takes due deletions along
                await asyncio.wait_for(self._store.pending(0, 1), SETTLE_LIMIT)
            _FACTS.info("bridge stopped", unsent=self._store.counters["outbox_records"])

    def reload(self, devices: Sequence[Device], groups: Sequence[MulticastGroup] = ()) -> None:
        """Take over new devices and groups; sessions stay."""
        self._table.load(devices, groups)
        network = network_of(self._config, devices, self._radios.mute)
        self._engine.own(network)
        self._downlinks.own(network)
        _warn_of_policies(devices)
        _FACTS.info("devices reloaded", devices=len(devices))

    def answer(self) -> dict[str, Any]:
        """What `lorabridge status` prints."""
        link, stuck, lost = self._link.report, self.health.stuck(), self._radios.watch.lost_sources
        return {
            "version": __version__,
            "gateway_id": self._config.gateway.id,
            "uptime_s": round(time.monotonic() - self._started_at),
            "devices": self._table.device_count,
            "link": link.state.value,
            "link_fault": None if link.fault is None else link.fault.value,
            "link_detail": link.detail,
            "link_hint": "" if link.fault is None else link.fault.hint,
            **self._way_out.facts(),
            **certificate_facts(link, self._link.certificate_valid_until),
            "paused": self._drain.is_paused,
            "commands": link.subscription.value,
            "store": self._pipeline.store_state.value,
            "store_detail": self._pipeline.trouble,
            "store_hint": self._pipeline.store_state.hint,
            "outbox_used": self._outbox_watch.filled(self._config.store),
            "healthy": not (stuck or lost or self._pipeline.trouble) and link.state is LinkState.ONLINE,
            "stuck": stuck,
            "radios_down": self._radios.watch.down,
            "verdicts": {verdict.value: count for verdict, count in self._pipeline.verdicts.most_common()},
            "counters": self.counters,
            "gateways": {str(gateway): _utc(at) for gateway, at in self._pipeline.last_heard.items()},
        }

    @property
    def counters(self) -> dict[str, int]:
        """Every counter of every room."""
        return {
            **{f"radio_{name}": value for name, value in self._radios.counters.items()},
            **self._store.counters,
            **{f"link_{name}": value for name, value in self._link.counters.items()},
            **self._way_out.counters,
            **{f"drain_{name}": value for name, value in self._drain.counters.items()},
            **{f"downlink_{name}": value for name, value in self._downlinks.counters.items()},
            **self._services.counters,
            "security_untold": self._reporter.untold,
        }

    async def _tick(self) -> None:
        """Once a second: what is due of sums and statistics."""
        last_stats = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            self._certificate.look(self._link)
            events: list[Event] = [*self._radios.look(), *self._sums()]
            now, interval = time.monotonic(), self._services.stats_interval
            if now >= last_stats + interval:
                last_stats = now if now >= last_stats + 2 * interval else last_stats + interval
                events.append(self._pipeline.stats(time.time_ns(), interval, self.counters))
            self._services.tick(now)
            lost = self._outbox_watch.look()
            await self._pipeline.commit([], [*events, *lost.events], lost)
            with contextlib.suppress(TransientError):
                self._drain.offer(await self._store.put_back())

    async def _until_empty(self) -> None:
        """Wait until every record has its PUBACK and is deleted."""
        while self._store.counters["outbox_records"]:  # noqa: ASYNC110  # the store counts on a thread of its own
            await asyncio.sleep(DRAIN_POLL)

    def _sums(self, *, final: bool = False) -> list[Event]:
        return list(self._reporter.due(time.time_ns(), final=final))

    def _status(self, state: str, detail: str) -> bytes:
        status = Status(
            at=time.time_ns(),
            state=state,
            version=__version__,
            config_fingerprint=self._fingerprint,
            detail=detail,
        )
        return self._encode(status).payload


def _warn_of_policies(devices: Sequence[Device]) -> None:
    for device in devices:
        if device.counter_policy is CounterPolicy.OFF:
            _FACTS.warning(
                "frame counters of this device are not checked: whoever recorded its frames can play them back",
                device=device.name,
                reason=device.name,
            )


def _utc(ns: int) -> str:
    """RFC 3339 of nanoseconds since the Unix epoch, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(ns, 0), _LAST_NS) / 1e9))


def _tell_parked(record: OutboxRecord, reason: str) -> None:
    _FACTS.error("record parked: the endpoint will not have it", record=record.id, kind=record.kind, detail=reason)
