"""`make bench`: everything measured, one table, build/bench.json. A missed target is marked and fails nothing."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # run as `python tests/bench`
    sys.path.insert(0, str(ROOT))

from tests.bench import endtoend, footprint, inprocess, instructions  # noqa: E402  # after the path is set
from tests.bench.report import Report  # noqa: E402


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds: under a minute")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="where the rows go")
    args = parser.parse_args()
    begun = time.perf_counter()
    report = Report()
    arena = inprocess.Arena()
    wrong = inprocess.disagreements(arena)
    if wrong:
        sys.stderr.write("\n  ".join(["the decoders disagree, nothing was measured:", *wrong[:5], ""]))
        return 1
    _say("in process")
    inprocess.measure(report, arena, rounds=5 if args.quick else 15)
    if not args.quick:
        _say("instructions")
        instructions.measure(report)
    _say("end to end")
    endtoend.measure(report, quick=args.quick)
    _say("footprint")
    footprint.measure(report, quick=args.quick)
    report.write(args.json)
    sys.stdout.write(f"{report.table()}\n\n{time.perf_counter() - begun:.0f} s; written to {args.json}\n")
    return 0


def _say(what: str) -> None:
    sys.stderr.write(f"measuring {what} …\n")


if __name__ == "__main__":
    sys.exit(main())
