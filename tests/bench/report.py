"""What was measured: one table for people, one JSON file for comparisons."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec

HIGHER_IS_BETTER = frozenset({"frames/s", "records/s", "ms ahead"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement beside its reference, which was measured in the same run."""

    section: str
    name: str
    value: float
    unit: str
    reference: str
    reference_value: float | None
    """None: the reference did not finish what it was given."""
    target: float | None = None
    """In `unit`, or the least `times_better` when `target_is_ratio`."""
    target_is_ratio: bool = False
    note: str = ""
    times_better: float | None = None
    target_met: bool | None = None


def row(made: Row) -> Row:
    """The same row with its ratio, and whether the target was met."""
    higher = made.unit in HIGHER_IS_BETTER
    ratio = None
    if made.reference_value and made.value:
        ratio = made.value / made.reference_value if higher else made.reference_value / made.value
    met: bool | None = None
    if made.target is not None and made.target_is_ratio:
        met = ratio is not None and ratio >= made.target
    elif made.target is not None:
        met = made.value >= made.target if higher else made.value < made.target
    return msgspec.structs.replace(made, times_better=ratio, target_met=met)


class Report:
    """Collects rows and says at once what is being measured."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.skipped: list[str] = []

    def add(self, *rows: Row) -> None:
        """Take over rows."""
        self.rows += [row(made) for made in rows]

    def skip(self, what: str, why: str) -> None:
        """Say what could not be measured."""
        self.skipped.append(f"{what}: {why}")

    def table(self) -> str:
        """All rows as text."""
        head = ("", "measured", "reference", "", "times better", "target", "")
        lines = [head, *((f"[{r.section}] {r.name}", *_columns(r)) for r in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [_line(line, widths) for line in lines]
        notes = [f"  {r.name}: {r.note}" for r in self.rows if r.note]
        if notes:
            text += ["", "Notes", *notes]
        if self.skipped:
            text += ["", "Not measured", *(f"  {line}" for line in self.skipped)]
        missed = sum(r.target_met is False for r in self.rows)
        asked = sum(r.target_met is not None for r in self.rows)
        return "\n".join([*text, "", f"{asked - missed} of {asked} targets met."])

    def write(self, path: Path) -> None:
        """All rows as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "rows": self.rows,
            "skipped": self.skipped,
        }
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def _columns(r: Row) -> tuple[str, ...]:
    reference = "did not finish" if r.reference_value is None else _number(r.reference_value, r.unit)
    target = ""
    if r.target is not None:
        sign = ">=" if r.target_is_ratio or r.unit in HIGHER_IS_BETTER else "<"
        target = f"{sign} {r.target:g}x" if r.target_is_ratio else f"{sign} {r.target:g} {r.unit}"
    mark = {None: "", True: "met", False: "MISSED"}[r.target_met]
    times = "" if r.times_better is None else f"{r.times_better:.1f}x"
    return _number(r.value, r.unit), r.reference, reference, times, target, mark


def _number(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return f"{text} {unit}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = (0, 2, 5, 6)
    return "  ".join(
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
