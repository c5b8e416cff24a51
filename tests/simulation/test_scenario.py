"""The shipped recordings: made by the generator, complete, and judged by the engine as the scenario says."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.decision import Decision, JoinTaken, Network
from lorabridge.lorawan.device import CounterPolicy
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.session import History
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.lorawan.verdict import Verdict
from lorabridge.radio.rxpk import Rxpk, parse_rxpk
from lorabridge.simulation import load
from lorabridge.simulation.air import Place
from lorabridge.simulation.attackers import MALFORMED
from lorabridge.simulation.cast import NET_ID, actors, gateways
from lorabridge.simulation.devices import VirtualDevice
from lorabridge.simulation.plans import PLANS
from lorabridge.simulation.routine import Sent
from lorabridge.simulation.scenario import DEVICE_FILE, RECORDINGS, SilentScenarioError, files, heard, main

REGIONS = list(PLANS)
WELL_KNOWN = {
    "00" * 16,
    "ff" * 16,
    "2b7e151628aed2a6abf7158809cf4f3c",
    "000102030405060708090a0b0c0d0e0f",
    "0102030405060708090a0b0c0d0e0f10",
}


class _Remembered(History):
    """The history of policy `confirm` and of joins, as the store keeps it."""

    def __init__(self) -> None:
        self.rows: set[tuple[bytes, FCnt32, bytes]] = set()
        self.joins: dict[bytes, JoinHistory] = {}
        self.nonces: set[tuple[bytes, int]] = set()

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        return (session_id, fcnt32, mic) in self.rows

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        return self.joins.get(join_id)

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        return (join_id, dev_nonce) in self.nonces

    def note_join(self, taken: JoinTaken) -> None:
        self.joins[taken.history.join_id] = taken.history
        if taken.nonce is not None:
            self.nonces.add((taken.history.join_id, taken.nonce))


def lines(region: str) -> list[dict[str, Any]]:
    text = (RECORDINGS / f"{region.lower()}.jsonl").read_text(encoding="ascii")
    return [json.loads(line) for line in text.splitlines()]


def receptions(region: str) -> list[Reception]:
    """As the bridge reads them."""
    return [
        parse_rxpk(
            msgspec.convert(line["rxpk"], Rxpk),
            gateway_eui=EUI64.parse(line["gateway_eui"]),
            source="recording",
            received_at=line["received_at"],
        )
        for line in lines(region)
    ]


def judged(region: str, batches: Iterator[int]) -> list[Decision]:
    """The engine's decisions, committed after every batch."""
    table = SessionTable([actor.known_to_bridge for actor in actors(PLANS[region])], {}, region)
    history = _Remembered()
    engine = Engine(table, Network(net_ids=(NET_ID,)), history)
    waiting, decisions = receptions(region), []
    while waiting:
        size = next(batches)
        batch, waiting = engine.judge_all(waiting[:size]), waiting[size:]
        table.advance(decision.session for decision in batch if decision.session is not None)
        history.rows.update(decision.heard for decision in batch if decision.heard is not None)
        for taken in [decision.join for decision in batch if decision.join is not None]:
            history.note_join(taken)
        decisions += batch
    return decisions


def told(decision: Decision) -> dict[str, str | None]:
    return {
        "verdict": str(decision.verdict),
        "reason": None if decision.reason is None else str(decision.reason),
        "device": None if decision.device is None else decision.device.name,
    }


def one_by_one() -> Iterator[int]:
    while True:
        yield 1


def in_batches() -> Iterator[int]:
    rng = Random(7)
    while True:
        yield rng.randrange(1, 65)


def test_the_files_that_ship_are_byte_for_byte_what_the_generator_makes() -> None:
    made = files()
    assert {path.name for path in RECORDINGS.iterdir()} == set(made)
    for name, content in made.items():
        assert (RECORDINGS / name).read_bytes() == content, f"{name}: run python -m lorabridge.simulation.scenario"
    assert sum(map(len, made.values())) <= 600_000


def test_the_generator_writes_its_files_where_it_is_told(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "new")])
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == files()


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("batches", [one_by_one, in_batches])
def test_the_engine_finds_what_the_scenario_did(region: str, batches: Any) -> None:
    recorded = lines(region)
    decisions = judged(region, batches())
    wrong = [
        (number, line["expect"], told(decision), decision.detail)
        for number, (line, decision) in enumerate(zip(recorded, decisions, strict=True), 1)
        if line["expect"] != told(decision)
    ]
    assert wrong == []


@pytest.mark.parametrize("region", REGIONS)
def test_every_verdict_and_every_reason_that_can_arise_occurs(region: str) -> None:
    expected = [line["expect"] for line in lines(region)]
    answered = {Verdict.JOIN_REPLAY, Verdict.JOIN_REFUSED}  # those of bridges that answer: the living fleet has them
    assert {line["verdict"] for line in expected} == {str(verdict) for verdict in set(Verdict) - answered}
    assert {line["reason"] for line in expected} - {None} == {str(reason) for reason in MALFORMED}


@pytest.mark.parametrize("region", REGIONS)
def test_a_device_of_policy_confirm_is_taken_with_its_third_frame_of_the_new_count(region: str) -> None:
    for name in (f"{region.lower()}-reset-confirm", f"{region.lower()}-reset-confirm-1-1"):
        verdicts = [told(decision) for decision in judged(region, one_by_one()) if told(decision)["device"] == name]
        story = [line["verdict"] for line in verdicts if line["verdict"] in ("accepted", "counter_reset")]
        first_held = story.index("counter_reset")
        assert set(story[:first_held]) == {"accepted"}
        assert "accepted" in story[first_held:]
        assert "replay" in [line["verdict"] for line in verdicts]
    resets = [
        event
        for decision in judged(region, in_batches())
        for event in decision.events
        if getattr(event, "counter_reset", False)
    ]
    assert len(resets) == 2


@pytest.mark.parametrize("region", REGIONS)
def test_lines_stand_in_the_order_of_reception_and_frequencies_have_six_decimals(region: str) -> None:
    text = (RECORDINGS / f"{region.lower()}.jsonl").read_text(encoding="ascii")
    times = [line["received_at"] for line in lines(region)]
    assert times == sorted(times)
    assert len(re.findall(r'"freq":\d{3}\.\d{6},', text)) == len(times)


def test_the_recordings_have_every_kind_of_gateway_fsk_and_a_counter_that_wraps() -> None:
    rxpks = [line["rxpk"] for line in lines("EU868")]
    assert any("rsig" in rxpk for rxpk in rxpks)
    assert any("ftime" in rxpk for rxpk in rxpks)
    assert {rxpk["modu"] for rxpk in rxpks} == {"LORA", "FSK"}
    barn = [rxpk["tmst"] for rxpk in rxpks if "jver" not in rxpk]
    assert any(later < earlier - (1 << 31) for earlier, later in itertools.pairwise(barn))


def test_keys_of_the_device_file_are_all_different_and_none_is_well_known() -> None:
    tables = tomllib.loads((RECORDINGS / DEVICE_FILE).read_text(encoding="utf-8"))["device"]
    keys = [value for table in tables for name, value in table.items() if name.endswith("_key")]
    assert len(keys) == len(set(keys))
    assert not set(keys) & WELL_KNOWN
    assert {table["region"] for table in tables} == set(PLANS)
    assert any(table["counter_policy"] == CounterPolicy.CONFIRM.value for table in tables if "counter_policy" in table)
    sealed = [table for table in tables if "dev_addr" in table and "app_s_key" not in table]
    assert len(sealed) == len(PLANS)


def test_a_story_that_nobody_hears_is_an_error_of_the_story() -> None:
    plan = PLANS["EU868"]
    actor = actors(plan)[0]
    lonely = VirtualDevice(actor.device, plan, Place(500_000, 0), rng=Random(1)).send(1_772_438_400_000_000_000)
    ears = gateways(plan, Random(1), 1_772_438_400_000_000_000)
    with pytest.raises(SilentScenarioError):
        heard(Sent(emission=lonely, verdict=Verdict.ACCEPTED, device=actor.device.name), ears)
    assert heard(Sent(emission=lonely, verdict=Verdict.ACCEPTED, may_be_lost=True), ears) == []


def test_every_frame_of_the_load_generator_is_accepted_once() -> None:
    raw = list(load.frames(7, 300, seed=3))
    assert raw == list(load.frames(7, 300, seed=3))
    waiting = [
        parse_rxpk(
            msgspec.json.decode(rxpk, type=Rxpk), gateway_eui=EUI64(1), source="load", received_at=n * 10_000_000
        )
        for n, rxpk in enumerate(raw)
    ]
    engine = Engine(SessionTable(load.devices(7), {}), Network(net_ids=(NET_ID,)))
    decisions = engine.judge_all(waiting)
    assert {decision.verdict for decision in decisions} == {Verdict.ACCEPTED}
    assert len({decision.device.name for decision in decisions if decision.device}) == 7
