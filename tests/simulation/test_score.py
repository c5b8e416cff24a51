"""The score of a played recording, and what arrived of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.simulation.delivery import Delivery
from lorabridge.simulation.scenario import RECORDINGS
from lorabridge.simulation.score import Expected, Score, read_expected


def _score() -> Score:
    return Score({"a": [Expected(Verdict.ACCEPTED, None, "d1"), Expected(Verdict.MALFORMED, Reason.TOO_SHORT)]})


def test_every_frame_with_its_verdict_is_a_perfect_score() -> None:
    score = _score()
    score.note("a", Verdict.ACCEPTED, None, "d1")
    assert not score.is_perfect(), "a frame is still missing"
    score.note("a", Verdict.MALFORMED, Reason.TOO_SHORT, None)
    assert score.is_perfect()
    assert (score.accepted, score.progress) == (1, "frames judged: 2 of 2")


def test_a_wrong_verdict_a_wrong_reason_and_a_wrong_device_are_each_told() -> None:
    for verdict, reason, device, said in (
        (Verdict.REPLAY, None, "d1", "a: replay of d1, expected accepted"),
        (Verdict.ACCEPTED, None, "d2", "a: accepted of d2, expected of d1"),
    ):
        score = _score()
        score.note("a", verdict, reason, device)
        score.note("a", Verdict.MALFORMED, Reason.TOO_SHORT, None)
        assert score.wrong == [said]
        assert not score.is_perfect()
    score = _score()
    score.note("a", Verdict.ACCEPTED, None, "d1")
    score.note("a", Verdict.MALFORMED, Reason.BAD_MAJOR, None)
    assert score.wrong == ["a: malformed (bad_major) of None, expected malformed (too_short)"]


def test_a_frame_too_many_is_no_perfect_score() -> None:
    score = _score()
    score.note("a", Verdict.ACCEPTED, None, "d1")
    score.note("a", Verdict.MALFORMED, Reason.TOO_SHORT, None)
    score.note("a", Verdict.MALFORMED, Reason.TOO_SHORT, None)
    assert not score.is_perfect()


def test_the_table_marks_the_row_that_differs() -> None:
    score = _score()
    score.note("a", Verdict.ACCEPTED, None, "d1")
    rows = {row.split()[0]: row for row in score.table().splitlines()}
    assert "<--" in rows["malformed"]
    assert "<--" not in rows["accepted"]


def test_recordings_without_expectations_cannot_fail() -> None:
    score = Score({"own": []})
    score.note("own", Verdict.BAD_MIC, None, None)
    assert score.is_perfect()
    assert score.progress == "frames judged: 1"


def test_status_reports_in_a_recording_have_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    frame = {"rxpk": {"tmst": 1}, "expect": {"verdict": "foreign", "reason": None, "device": None}}
    path.write_text(
        f"{json.dumps({'stat': {}})}\n{json.dumps(frame)}\n\n{json.dumps({'rxpk': {}})}\n", encoding="utf-8"
    )
    assert read_expected(path) == [Expected(Verdict.FOREIGN), None]


def test_the_shipped_recordings_say_what_every_frame_deserves() -> None:
    for path in RECORDINGS.glob("*.jsonl"):
        assert None not in read_expected(path)


def _uplink(number: int, **more: Any) -> bytes:
    record = {
        "schema": "lorabridge/uplink/1",
        "id": f"{number:032x}",
        "mac_version": "1.0.3",
        "sealed": False,
        "payload": "aGk=",
        "device": {"name": "d"},
        "fcnt32": number,
        "f_port": 1,
        "rx": [{"gateway_eui": "00"}],
        "received_at": "2026-03-02T08:00:00Z",
    }
    return json.dumps(record | more).encode()


def test_an_uplink_that_arrives_twice_is_not_complete() -> None:
    delivery = Delivery()
    delivery.note("t", _uplink(1))
    assert delivery.is_complete(1)
    assert not delivery.is_complete(2)
    assert delivery.is_complete(None)
    delivery.note("t", _uplink(1))
    assert not delivery.is_complete(1)


def test_samples_show_decrypted_payloads_of_the_newest_versions_only() -> None:
    delivery = Delivery()
    delivery.note("sealed", _uplink(1, sealed=True, sealed_payload="aGk=", payload=None, mac_version="1.1.0"))
    for number, version in enumerate(("1.0.0", "1.0.2", "1.0.3", "1.0.4"), 2):
        delivery.note(f"topic/{version}", _uplink(number, mac_version=version))
    assert [sample.splitlines()[0] for sample in delivery.samples()] == ["topic/1.0.4", "topic/1.0.3", "topic/1.0.2"]
    assert "payload 6869" in delivery.samples()[0]
    assert delivery.table().splitlines()[-1].split() == ["uplinks", "sealed", "1"]
