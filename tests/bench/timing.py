"""Measuring on a machine that does other things too: cases take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def compare(cases: Mapping[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """Median microseconds a unit, by case; a case is what to call and how many units one call does."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, (call, units) in cases.items():
            begun = time.perf_counter()
            call()
            took = time.perf_counter() - begun
            if turn:  # the first turn warms caches up
                samples[name].append(took / units * 1e6)
    return {name: statistics.median(taken) for name, taken in samples.items()}


def percentile(values: list[float], part: float) -> float:
    """The value that `part` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
