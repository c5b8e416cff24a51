"""The benchmark itself: its decoders agree and its rows are made. Nothing here looks at the clock."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from tests.bench import concentrator, inprocess, outage_writer
from tests.bench.inprocess import Arena
from tests.bench.report import Report, Row
from tests.lora_packet import NAME
from tests.radio.sx1302_bench import needs_cc


@pytest.fixture(scope="module")
def arena() -> Arena:
    return Arena(devices=20, frames=60)


def test_engine_and_naive_decoder_say_the_same_of_every_frame(arena: Arena) -> None:
    assert inprocess.disagreements(arena) == []


def test_a_disagreement_would_be_found(arena: Arena) -> None:
    spoilt = Arena(devices=20, frames=60)
    spoilt.frames[7] = arena.frames[8]
    assert inprocess.disagreements(spoilt)


def test_every_frame_is_taken_in_every_round(arena: Arena) -> None:
    for _ in range(2):
        assert arena.run_engine(1) == arena.run_engine(64) == arena.run_naive() == len(arena.frames)


def test_the_rows_of_the_core_have_a_reference_and_a_ratio(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    report = Report()
    inprocess.measure(report, arena, rounds=1)
    assert [row.name for row in report.rows if row.times_better is None] == []
    assert len(report.rows) == 7
    assert report.skipped == [f"{NAME}: node or npm is missing: apt-get install nodejs npm"]
    report.write(tmp_path / "bench.json")
    assert len(msgspec.json.decode((tmp_path / "bench.json").read_bytes())["rows"]) == 7


@pytest.mark.parametrize(
    ("value", "unit", "target", "is_ratio", "met", "times"),
    [
        (2.0, "ms", 5.0, False, True, 5.0),
        (7.0, "ms", 5.0, False, False, 10 / 7),
        (30.0, "frames/s", 20.0, False, True, 3.0),
        (30.0, "frames/s", 4.0, True, False, 3.0),
        (2.0, "us", None, False, None, 5.0),
    ],
)
def test_a_missed_target_is_marked(
    value: float, unit: str, target: float | None, is_ratio: bool, met: bool | None, times: float
) -> None:
    report = Report()
    report.add(
        Row(
            section="s",
            name="n",
            value=value,
            unit=unit,
            reference="r",
            reference_value=10.0,
            target=target,
            target_is_ratio=is_ratio,
        )
    )
    assert report.rows[0].target_met is met
    assert report.rows[0].times_better == pytest.approx(times)
    assert ("MISSED" in report.table()) is (met is False)


def test_a_simulated_outage_is_kept_whole_or_lost_in_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for quota, kept in ((1 << 30, 600), (100_000, None)):
        folder = tmp_path / str(quota)
        folder.mkdir(mode=0o700)
        asyncio.run(outage_writer.main(folder / "db", 600, 20, quota, 0))
        told = msgspec.json.decode(capsys.readouterr().out)
        assert told["records"] + told["dropped"] == 600
        assert told["records"] == kept or told["bytes"] <= quota


@needs_cc
def test_the_memory_of_a_concentrator_is_sampled_on_both_sides_and_has_a_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SX1302_STANDIN", "")  # which the benchmark sets, and nobody else is to see
    monkeypatch.setattr(concentrator, "FRAMES", 20_000)
    report = Report()
    concentrator.measure(report)
    daemon, child, rate = report.rows
    assert (daemon.target, child.target, rate.target) == (1.0, 1.0, None)
    assert daemon.reference_value is not None
    assert daemon.reference_value > 1
    monkeypatch.setattr(concentrator, "CC", None)
    concentrator.measure(report)
    assert report.skipped == ["memory of a concentrator: a C compiler is missing: apt-get install gcc"]
