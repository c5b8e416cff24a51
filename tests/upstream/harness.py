"""The link and the drain put together as the daemon does, with an outbox in memory and short patience."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.errors import TransientError
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.types import EUI64
from lorabridge.settings import Duration
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.batches import Packer
from lorabridge.upstream.drain import Drain, OutboxRecord
from lorabridge.upstream.faults import LinkDown, LinkFault
from lorabridge.upstream.inbound import CommandSink, Inbound
from lorabridge.upstream.link import LinkReport
from lorabridge.upstream.link_settings import LinkSettings
from lorabridge.upstream.pacing import Pace
from lorabridge.upstream.topics import Topics
from tests.pki import Authority

ENDPOINT = "test-ats.iot.eu-west-1.amazonaws.com"
GATEWAY = "gw-1"
DEVICE = EUI64(0x70B3D57ED0000001)
UPLINK_TOPIC = f"lorabridge/{GATEWAY}/uplink/{DEVICE}"
STATUS_TOPIC = f"lorabridge/{GATEWAY}/status"


class Stored(msgspec.Struct, frozen=True):
    id: int
    kind: EventKind
    dev_eui: EUI64 | None
    payload: bytes


class MemoryOutbox:
    """The contract of `Outbox` without a disk. `changed` lets a test wait for what it expects."""

    def __init__(self) -> None:
        self.rows: dict[int, Stored] = {}
        self.parked: dict[int, str] = {}
        self.finished: list[int] = []
        self.reads = 0
        self.broken = False
        self._last_id = 0
        self._changed = asyncio.Event()

    def commit(self, count: int = 1, kind: EventKind = EventKind.UPLINK, size: int = 0) -> list[Stored]:
        first = self._last_id + 1
        self._last_id += count
        new = [Stored(i, kind, DEVICE, b"%d" % i + b" " * size) for i in range(first, self._last_id + 1)]
        self.rows |= {row.id: row for row in new}
        return new

    async def pending(self, after_id: int, limit: int) -> list[Stored]:
        self.reads += 1
        if self.broken:
            raise TransientError("the disk is away")
        page = [row for row in self.rows.values() if row.id > after_id and row.id not in self.parked][:limit]
        await asyncio.sleep(0)  # as a store on another thread: others run in between
        return page

    def done(self, ids: Iterable[int]) -> None:
        for record_id in ids:
            del self.rows[record_id]
            self.finished.append(record_id)
        self._changed.set()

    async def park(self, record_id: int, reason: str, report: Record | None) -> list[Stored]:
        if self.broken:
            raise TransientError("the disk is away")
        self.parked[record_id] = reason
        self._changed.set()
        return [] if report is None else self.commit(1, report.kind)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_empty(self) -> None:
        await self.until(lambda: not self.rows)


class CommandInbox:
    """A sink that keeps what comes and acknowledges nothing by itself."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[Inbound] = asyncio.Queue()

    def received(self, inbound: Inbound) -> None:
        self._inbox.put_nowait(inbound)

    async def take(self, count: int) -> list[Inbound]:
        """The next `count` messages."""
        async with asyncio.timeout(20):
            return [await self._inbox.get() for _ in range(count)]

    @property
    def is_empty(self) -> bool:
        return self._inbox.empty()


def link_settings(authority: Authority, port: int, **more: Any) -> AwsIotSettings:
    """Settings for a server on loopback, with the client certificate of this authority."""
    pair = authority.client(GATEWAY)
    return settings_with(port, **files(authority.file, pair.certificate, pair.key) | more)


def files(ca_file: Path, certificate: Path, key: Path) -> dict[str, str]:
    """The settings of three files."""
    return {"ca_file": str(ca_file), "certificate_file": str(certificate), "private_key_file": str(key)}


def settings_with(port: int, **more: Any) -> AwsIotSettings:
    """The same, with the files that are among `more`."""
    quick: dict[str, Any] = {
        "connect_timeout": Duration(5),
        "puback_timeout": Duration(5),
        "backoff_base": Duration(0.02),
        "backoff_cap": Duration(0.1),
        "max_publishes_per_second": 0,
    }
    names = {"endpoint": ENDPOINT, "connect_address": f"127.0.0.1:{port}", "thing_name": GATEWAY}
    return AwsIotSettings(**names | quick | more)


class Upstream:
    """Link, drain and outbox, and what they reported."""

    def __init__(
        self,
        settings: LinkSettings,
        *,
        proved_after: float = 0.0,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        status: Callable[[str, str], bytes] = lambda state, detail: f"{state} {detail}".encode(),
        commands: CommandSink | None = None,
        subscribe_again: float = 3600.0,
        certificate_again: float = 3600.0,
        connect_interval: float = 0.01,
    ) -> None:
        self.reports: list[LinkReport] = []
        self.parked: list[tuple[int, str]] = []
        self.certificates: list[LinkFault | None] = []
        """Each new certificate: None, or why it is not used."""
        self._reported = asyncio.Event()
        self.outbox = MemoryOutbox()
        self.link = AwsIot(
            settings,
            GATEWAY,
            status=status,
            rng=rng or random.Random(1),
            on_change=self._note,
            commands=commands,
            on_certificate=self._note_certificate,
            pace=Pace(
                connect_interval=connect_interval,
                proved_after=proved_after,
                subscribe_again=subscribe_again,
                certificate_again=certificate_again,
                look_interval=0.02,
            ),
            clock=clock,
        )
        self.drain = Drain(
            self.outbox,
            self.link,
            Packer(Topics(settings.topics, GATEWAY), GATEWAY),
            batching=settings.batching == "auto",
            max_payload=settings.largest_payload,
            retry_delay=0.01,
            on_parked=self._note_parked,
        )

    def _note(self, report: LinkReport) -> None:
        self.reports.append(report)
        self._reported.set()

    def _note_certificate(self, refusal: LinkDown | None) -> None:
        self.certificates.append(None if refusal is None else refusal.fault)
        self._reported.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that comes with a report."""
        async with asyncio.timeout(30):
            while not condition():
                self._reported.clear()
                await self._reported.wait()

    def _note_parked(self, record: OutboxRecord, reason: str) -> None:
        self.parked.append((record.id, reason))

    def commit(self, count: int = 1, kind: EventKind = EventKind.UPLINK, size: int = 0) -> Sequence[Stored]:
        records = self.outbox.commit(count, kind, size)
        self.drain.offer(records)
        return records

    async def reported(self, condition: Callable[[LinkReport], bool]) -> LinkReport:
        """The first report, past or future, that fulfils the condition."""
        async with asyncio.timeout(30):
            while True:
                for report in self.reports:
                    if condition(report):
                        return report
                self._reported.clear()
                await self._reported.wait()


@asynccontextmanager
async def running(settings: LinkSettings, **more: Any) -> AsyncIterator[Upstream]:
    """An upstream at work; it is stopped gracefully in the end."""
    upstream = Upstream(settings, **more)
    async with asyncio.TaskGroup() as tasks:
        link = tasks.create_task(upstream.link.run())
        drain = tasks.create_task(upstream.drain.run())
        try:
            yield upstream
        finally:
            await upstream.link.stop(2.0)
            await link
            drain.cancel()
