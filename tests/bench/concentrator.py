"""Memory of a concentrator's two processes while a million frames pass through them: it has to stay flat."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from lorabridge.lorawan.air import Reception
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302
from tests.bench.report import Report, Row
from tests.radio.sx1302_bench import CC, compiled
from tests.radio.sx1302_plan import PLAN

FRAMES = 1_000_000
SAMPLES = 100
_SETTLED = SAMPLES // 10
"""Samples that are left out: caches and arenas fill up first."""


def measure(report: Report) -> None:
    """The rows of this section."""
    if CC is None:
        report.skip("memory of a concentrator", "a C compiler is missing: apt-get install gcc")
        return
    with tempfile.TemporaryDirectory() as name:
        parent, child, seconds = asyncio.run(_pass_through(Path(name)))
    for who, samples in (("daemon's side", parent), ("child", child)):
        kept = samples[_SETTLED:]
        report.add(
            Row(
                section="concentrator",
                name=f"memory per 10⁶ frames, {who}",
                value=max(0.0, _slope(kept) * SAMPLES),
                unit="MiB",
                reference="at the beginning",
                reference_value=kept[0],
                target=1.0,
                note=f"{FRAMES:,} frames in {seconds:.0f} s; {kept[-1]:.2f} MiB at the end, {max(kept):.2f} at most",
            )
        )
    report.add(
        Row(
            section="concentrator",
            name="frames from the library to the pipeline",
            value=FRAMES / seconds,
            unit="frames/s",
            reference="eight channels, SF7, 20 bytes each, without a pause",
            reference_value=8 / 0.0617,
            note="16 frames in every fetch, one fetch after the other",
        )
    )


async def _pass_through(folder: Path) -> tuple[list[float], list[float], float]:
    """(MiB of this process, MiB of the child, seconds): SAMPLES of each, evenly over the frames."""
    os.environ["SX1302_STANDIN"] = str(folder)
    plan = folder / "global_conf.json"
    plan.write_text(json.dumps({"SX130x_conf": PLAN}))
    source = Sx1302(Sx1302Settings(library=compiled(folder), configuration=plan))
    await source.start()
    try:
        (folder / "flood").touch()
        return await _sample(source)
    finally:
        await source.stop()


async def _sample(source: Sx1302) -> tuple[list[float], list[float], float]:
    own, child = os.getpid(), _only_child()
    parents, children, heard, begun = list[float](), list[float](), 0, time.perf_counter()
    while heard < FRAMES:
        heard += sum(isinstance(one, Reception) for one in await source.receive())
        if heard >= (len(parents) + 1) * FRAMES // SAMPLES:
            parents.append(_resident_mib(own))
            children.append(_resident_mib(child))
    return parents, children, time.perf_counter() - begun


def _only_child() -> int:
    """The process of the library: the last that this one started."""
    own = os.getpid()
    return int(Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()[-1])


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def _slope(samples: list[float]) -> float:
    """MiB from one sample to the next."""
    return statistics.linear_regression(range(len(samples)), samples).slope
