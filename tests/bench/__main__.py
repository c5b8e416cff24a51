"""`make bench`: everything measured, one table, build/bench.json. A missed target is marked and fails nothing."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # run as `python tests/bench`
    sys.path.insert(0, str(ROOT))

from tests.bench import (  # noqa: E402  # after the path is set
    answers,
    concentrator,
    endtoend,
    footprint,
    inprocess,
    instructions,
    outage,
)
from tests.bench.report import Report  # noqa: E402


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds: under a minute")
    parser.add_argument("--only", help="this section only")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="where the rows go")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped all the same
    begun = time.perf_counter()
    report = Report()
    arena = inprocess.Arena()
    wrong = inprocess.disagreements(arena)
    if wrong:
        sys.stderr.write("\n  ".join(["the decoders disagree, nothing was measured:", *wrong[:5], ""]))
        return 1
    sections: dict[str, Callable[[], None]] = {
        "in process": lambda: inprocess.measure(report, arena, rounds=3 if args.quick else 15),
        "instructions": (lambda: None) if args.quick else lambda: instructions.measure(report),
        "end to end": lambda: endtoend.measure(report, quick=args.quick),
        "answers": lambda: answers.measure(report, quick=args.quick),
        "outage": lambda: outage.measure(report, quick=args.quick),
        "footprint": lambda: footprint.measure(report, quick=args.quick),
        "concentrator": lambda: concentrator.measure(report),
    }
    for name, measure in sections.items():
        if args.only not in (None, name):
            continue
        sys.stderr.write(f"measuring {name} …\n")
        try:
            measure()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # the other sections still count
            report.skip(name, str(error))
    report.write(args.json)
    sys.stdout.write(f"{report.table()}\n\n{time.perf_counter() - begun:.0f} s; written to {args.json}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
