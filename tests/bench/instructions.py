"""Instructions a frame, counted by callgrind: the one number that does not depend on what else the machine does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.bench.report import Report, Row
from tests.bench.system import ROOT

FRAMES = 300


def measure(report: Report) -> None:
    """The row of this section: so many frames and twice as many, subtracted, so that start-up does not count."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        report.skip("instructions a frame", "valgrind is missing: apt-get install valgrind")
        return
    runs = [(decoder, count) for decoder in ("engine", "naive") for count in (FRAMES, 2 * FRAMES)]
    with ThreadPoolExecutor(2) as pool:
        counted = dict(zip(runs, pool.map(lambda run: _count(valgrind, *run), runs), strict=True))
    ours, theirs = (
        (counted[decoder, 2 * FRAMES] - counted[decoder, FRAMES]) / FRAMES / 1000 for decoder in ("engine", "naive")
    )
    report.add(
        Row(
            section="in process",
            name="instructions a frame, batches of 64",
            value=ours,
            unit="thousand",
            reference="naive decoder",
            reference_value=theirs,
        )
    )


def _count(valgrind: str, decoder: str, count: int) -> int:
    """All instructions of a process that decodes `count` frames."""
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", "tests.bench.loop"]
    ran = subprocess.run(
        [*command, decoder, str(count), str(2 * FRAMES)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if found is None:
        raise RuntimeError(f"valgrind said nothing of instructions: {ran.stderr[-500:]}")
    return int(found[1])
