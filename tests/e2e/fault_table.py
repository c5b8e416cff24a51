"""What the fault suite measured, written into docs/fault-suite.md: `python -m tests.e2e.fault_table REPORT`.

REPORT is the file that LORABRIDGE_FAULTS_REPORT named. Of two runs of one fault the later one counts.
"""

from __future__ import annotations

import platform
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.mosquitto import require_mosquitto

PAGE = Path(__file__).parents[2] / "docs" / "fault-suite.md"
BEGIN, END = "<!-- measured -->\n", "<!-- the end of what was measured -->\n"
COLUMNS = (
    *("fault", "times", "frames", "over", "arrived twice", "CONNECTs", "closest two", "back after", "at worst"),
    *("MiB", "descriptors"),
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, and what it cost; times in seconds, memory and descriptors in the first and the last third."""

    fault: str
    is_full: bool
    rounds: int
    seconds: float
    frames: int
    again: int
    connects: int
    closest_s: float | None
    recovery_median_s: float
    recovery_worst_s: float
    drained_s: float
    mib: tuple[float, float]
    descriptors: tuple[int, int]

    def line(self) -> str:
        """A line of the table."""
        closest = "" if self.closest_s is None else f"{self.closest_s:.2f} s"
        times = f"{self.rounds}" if self.is_full else f"{self.rounds} (small)"
        cells = (
            *(self.fault, times, self.frames, f"{self.seconds:.0f} s", self.again, self.connects, closest),
            *(f"{self.recovery_median_s:.2f} s", f"{self.recovery_worst_s:.2f} s"),
            *(f"{self.mib[0]:.1f} → {self.mib[1]:.1f}", f"{self.descriptors[0]} → {self.descriptors[1]}"),
        )
        return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def measured(rows: dict[str, Row]) -> str:
    """What stands between the marks."""
    version = subprocess.run([require_mosquitto(), "-h"], capture_output=True, text=True, check=False).stdout
    cpu = next((line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if "model name" in line), "")
    machine = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: Linux {platform.release().partition('-')[0]} in a virtual machine, "
        f"{len(cpu_list())} CPUs ({cpu.partition(': ')[2]}), shared with other work; "
        f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {version.partition(chr(10))[0]}.\n\n"
    )
    head = f"| {' | '.join(COLUMNS)} |\n|---{'|--:' * (len(COLUMNS) - 1)}|\n"
    return machine + head + "".join(row.line() for row in rows.values())


def cpu_list() -> list[str]:
    """The CPUs of this machine."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("processor")]


def main(report: str) -> None:
    """Put the rows of a report into the page, in the order of their first runs."""
    read = [msgspec.json.decode(line, type=Row) for line in Path(report).read_bytes().splitlines()]
    rows = {row.fault: row for row in read}
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + measured(rows) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
