"""Three weeks without an endpoint at one frame a second, on a slow disk: what is kept, the start after it, the way out.

The weeks are simulated: the frames are written as fast as the disk takes them, under a clock of their own. The start
and the drain are those of the real bridge as a process, with the limits that AWS IoT demands.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.load import Load, Result, Subscriber
from tests.bench.report import Report, Row
from tests.bench.system import ROOT, Process, Site
from tests.mosquitto import MOSQUITTO

THREE_WEEKS = 1_814_400
"""Records of one a second."""
SHORT = 20_000
QUOTA = 2 << 30
DEFAULT_QUOTA = 512 << 20
FRESH_PER_S = 10.0
PUBLISHES_PER_S = 80
BATCHING = ("off", "auto")
FLEET_PREFIX = b"70b3d57ed000"
SECTION = "outage"


def measure(report: Report, *, quick: bool) -> None:
    """The rows of this section."""
    if MOSQUITTO is None:
        report.skip(SECTION, "mosquitto is missing: apt-get install mosquitto")
        return
    with system.site(Fleet(50)) as made:
        slow = system.build_slow_fsync(made.folder)
        if slow is None:
            report.skip(SECTION, "cc is missing: apt-get install gcc libc6-dev")
            return
        records, seconds = (SHORT, 5.0) if quick else (THREE_WEEKS, 60.0)
        _wear(report, made.folder, slow, records=200 if quick else 3_000)
        if not quick:
            _within_default_quota(report, made.folder, slow)
        database = made.folder / "weeks" / "lorabridge.db"
        kept = write(database, slow, records, 200, QUOTA)
        report.add(
            _row(
                f"{records:,} records kept, on the disk",
                kept["file"] / 2**20,
                "MiB",
                ("what they count in the quota", kept["bytes"] / 2**20),
                note=f"{kept['records']:,} kept, {kept['dropped']:,} dropped",
            )
        )
        _start_and_drain(report, made, slow, database, (records, seconds))


def write(database: Path, slow_fsync: Path, records: int, at_a_time: int, quota: int, *, acked: bool = False) -> Any:
    """An outage in a store; what the writer reports."""
    database.parent.mkdir(mode=0o700, exist_ok=True)
    words = [str(database), *map(str, (records, at_a_time, quota, int(acked)))]
    environment = {**os.environ, "LD_PRELOAD": str(slow_fsync), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.outage_writer", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def status(process: Process) -> dict[str, Any]:
    """What the bridge answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(10)
        asking.connect(str(process.status_socket))
        with asking.makefile("rb") as answer:
            found: dict[str, Any] = json.loads(answer.read())
    return found


def _wear(report: Report, folder: Path, slow_fsync: Path, records: int) -> None:
    """Bytes that reach the disk for one record, each in a commit of its own or many together."""
    size = 0.0
    for name, at_a_time, acked in (
        ("offline, each in its own commit", 1, False),
        ("online, each in its own commit and acknowledged at once", 1, True),
        ("offline, 20 in a commit", 20, False),
    ):
        wrote = write(folder / f"wear-{at_a_time}-{acked}" / "db", slow_fsync, records, at_a_time, QUOTA, acked=acked)
        size = size or wrote["bytes"] / wrote["records"]
        note = f"{records} records; a gigabyte of flash lasts {2**30 * records // max(wrote['written'], 1):,} records"
        written, reference = wrote["written"] / records, ("a record in the quota", size)
        report.add(_row(f"bytes written a record, {name}", written, "bytes", reference, note=note))


def _within_default_quota(report: Report, folder: Path, slow_fsync: Path) -> None:
    """The same weeks under the bound that an operator gets who sets none."""
    database = folder / "bounded" / "db"
    wrote = write(database, slow_fsync, THREE_WEEKS, 200, DEFAULT_QUOTA)
    report.add(
        _row(
            "three weeks under the default quota, on the disk",
            wrote["file"] / 2**20,
            "MiB",
            ("the quota", DEFAULT_QUOTA / 2**20),
            note=f"{wrote['records']:,} kept, {wrote['dropped']:,} dropped and counted",
        )
    )
    for file in database.parent.iterdir():
        file.unlink()


def _start_and_drain(
    report: Report, made: Site[Fleet], slow_fsync: Path, database: Path, how: tuple[int, float]
) -> None:
    """Start on it, and drain it for a while, with fresh frames between, both ways of batching."""
    records, seconds = how
    subscriber = Subscriber(made.broker.plain_port)
    with closing(subscriber):
        start = partial(system.start_bridge, made, "empty", made.broker.port, slow_fsync=slow_fsync)
        with system.running(start) as bridge, closing(Load(made.fleet, bridge, subscriber)) as load:
            empty, idle = bridge.ready_after, load.offer(FRESH_PER_S, min(seconds, 10.0))
        for batching in BATCHING:
            _forget_pages(database)
            start = partial(
                system.start_bridge,
                made,
                f"after-{batching}",
                made.broker.port,
                slow_fsync=slow_fsync,
                aws_iot=f'batching = "{batching}"\n',
                store=f'path = "{database}"\noutbox_max_bytes = {QUOTA}',
            )
            with system.running(start) as bridge:
                report.add(
                    _row(
                        f"start with {records:,} records waiting ({batching})",
                        bridge.ready_after,
                        "s",
                        ("with an empty outbox", empty),
                        target=3.0,
                    )
                )
                _fresh(report, _drain(report, made, bridge, subscriber, (batching, seconds)), idle, batching)


def _forget_pages(database: Path) -> None:
    """As after a boot: what is read comes from the disk."""
    with database.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _drain(
    report: Report, made: Site[Fleet], bridge: Process, subscriber: Subscriber, how: tuple[str, float]
) -> Result:
    """How fast the backlog leaves; what came of fresh frames meanwhile."""
    batching, seconds = how
    deadline = time.perf_counter() + 30
    while not status(bridge)["counters"]["drain_done"]:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"the drain did not begin: {bridge.log()}")
        time.sleep(0.05)
    bridge.topic += FLEET_PREFIX  # the backlog is of other devices
    with closing(Load(made.fleet, bridge, subscriber)) as load:
        before, begun, cpu = status(bridge)["counters"], time.perf_counter(), bridge.cpu_seconds()
        fresh = load.offer(FRESH_PER_S, seconds, grace=10)
        after, took = status(bridge)["counters"], time.perf_counter() - begun
        busy = (bridge.cpu_seconds() - cpu) / took
    published = (after["link_published"] - before["link_published"]) / took
    rate = (after["drain_done"] - before["drain_done"]) / took
    note = f"{published:.1f} publishes/s, {busy:.0%} of a core, {bridge.resident_mib():.0f} MiB"
    reference = (f"{PUBLISHES_PER_S} publishes/s", float(PUBLISHES_PER_S))
    target = 0.95 * PUBLISHES_PER_S
    report.add(_row(f"drain, batching {batching}", rate, "records/s", reference, target=target, note=note))
    return fresh


def _fresh(report: Report, fresh: Result, idle: Result, batching: str) -> None:
    """How long fresh frames took, beside those of a bridge that has nothing else to do."""
    note = f"{fresh.delivered} of {fresh.sent} delivered, {fresh.twice} twice"
    for label, part in (("p50", 0.50), ("p99", 0.99)):
        value = fresh.ms(part)
        if value is None:
            report.skip(f"fresh records during the drain, {batching}, {label}", note)
            continue
        target = 1000.0 if part == 0.99 else None
        name = f"fresh records during the drain, batching {batching}, {label}"
        report.add(_row(name, value, "ms", ("with an empty outbox", idle.ms(part)), target=target, note=note))


def _row(
    name: str,
    value: float,
    unit: str,
    reference: tuple[str, float | None],
    *,
    target: float | None = None,
    note: str = "",
) -> Row:
    return Row(
        section=SECTION,
        name=name,
        value=value,
        unit=unit,
        reference=reference[0],
        reference_value=reference[1],
        target=target,
        note=note,
    )
