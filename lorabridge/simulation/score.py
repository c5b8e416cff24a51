"""Keeping the score of a played recording: which verdict each frame deserved, and which it got."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.lorawan.verdict import Reason, Verdict

_COLUMN = 17


class Expected(msgspec.Struct, frozen=True):
    """The `expect` object of one line of a recording."""

    verdict: Verdict
    reason: Reason | None = None
    device: str | None = None


class _Line(msgspec.Struct, frozen=True):
    """The part of a recording's line that keeps score; the player reads the rest."""

    expect: Expected | None = None
    rxpk: dict[str, Any] | None = None


def read_expected(recording: Path) -> list[Expected | None]:
    """What each frame of a recording deserves, in order; None where the recording does not say."""
    lines = [msgspec.json.decode(line, type=_Line) for line in recording.read_bytes().splitlines() if line.strip()]
    return [line.expect for line in lines if line.rxpk is not None]


class Score:
    """The frames of several recordings, by the name of their source."""

    def __init__(self, expected: dict[str, list[Expected | None]]) -> None:
        self._waiting = {source: iter(frames) for source, frames in expected.items()}
        self.frames = sum(len(frames) for frames in expected.values())
        self.judged = 0
        self.wanted = Counter(frame.verdict for frames in expected.values() for frame in frames if frame is not None)
        self.got: Counter[Verdict] = Counter()
        self.wrong: list[str] = []

    def note(self, source: str, verdict: Verdict, reason: Reason | None, device: str | None) -> None:
        """One frame of a source was judged; frames of one source are judged in their order."""
        self.judged += 1
        self.got[verdict] += 1
        expected = next(self._waiting[source], None)
        if expected is not None and (verdict, reason) != (expected.verdict, expected.reason):
            self.wrong.append(f"{source}: {_said(verdict, reason)} of {device}, expected {_said(*_parts(expected))}")
        elif expected is not None and device is not None and device != expected.device:
            self.wrong.append(f"{source}: {verdict} of {device}, expected of {expected.device}")

    def is_perfect(self) -> bool:
        """Every frame was judged, and as it deserved; of recordings that do not say what they deserve, always."""
        return not self.frames or (not self.wrong and self.judged == self.frames and self.wanted == self.got)

    @property
    def accepted(self) -> int:
        """How many frames deserve to be forwarded."""
        return self.wanted[Verdict.ACCEPTED]

    @property
    def progress(self) -> str:
        """How far it is."""
        return f"frames judged: {self.judged}" + (f" of {self.frames}" if self.frames else "")

    def table(self) -> str:
        """Verdicts with their expected and actual counts."""
        rows = [f"{'verdict':<{_COLUMN}}{'expected':>10}{'got':>10}"]
        for verdict in Verdict:
            wanted, got = self.wanted[verdict], self.got[verdict]
            if wanted or got:
                rows.append(f"{verdict.value:<{_COLUMN}}{wanted:>10}{got:>10}{'' if wanted == got else '   <--'}")
        return "\n".join(rows)


def _parts(expected: Expected) -> tuple[Verdict, Reason | None]:
    return expected.verdict, expected.reason


def _said(verdict: Verdict, reason: Reason | None) -> str:
    return str(verdict) if reason is None else f"{verdict} ({reason})"
