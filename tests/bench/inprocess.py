"""The protocol core without radio, disk and network: each stage, and the whole, beside the naive decoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from lorabridge.lorawan import frame as grammar
from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.crypto import crypt_frm_payload, data_mic
from lorabridge.lorawan.types import Direction, FCnt32
from lorabridge.lorawan.verdict import Verdict
from lorabridge.upstream import schema
from tests.bench import lora_packet, naive
from tests.bench.fleet import FIRST_FCNT, Bridge, Fleet, receptions
from tests.bench.loop import judge
from tests.bench.naive import NaiveDecoder
from tests.bench.report import Report, Row
from tests.bench.timing import compare
from tests.lora_packet import NAME

DEVICES = 500
FRAMES = 2000
SECTION = "in process"
NAIVE = "naive decoder"


class Arena:
    """The same frames for every decoder."""

    def __init__(self, devices: int = DEVICES, frames: int = FRAMES) -> None:
        fleet = Fleet(devices)
        self.bridge = Bridge(fleet)
        self._sessions = fleet.naive_sessions()
        self.nodes = fleet.nodes
        self.frames = fleet.frames(frames)
        self.heard = receptions(self.frames)
        self.first_fcnt = FIRST_FCNT + Bridge.WARM

    def naive(self) -> NaiveDecoder:
        """A naive decoder for which all frames are new."""
        return NaiveDecoder({addr: msgspec.structs.replace(known) for addr, known in self._sessions.items()})

    def run_engine(self, batch: int, heard: list[Reception] | None = None) -> int:
        """All frames through the engine; how many records came out."""
        self.bridge.rewind()
        heard = self.heard if heard is None else heard
        return sum(judge(self.bridge, heard[start : start + batch]) for start in range(0, len(heard), batch))

    def run_decisions(self, batch: int) -> int:
        """All frames judged, verified and decrypted, and no JSON made of them; how many were accepted."""
        self.bridge.rewind()
        accepted = 0
        for start in range(0, len(self.heard), batch):
            decisions = self.bridge.engine.judge_all(self.heard[start : start + batch])
            self.bridge.table.advance([decision.session for decision in decisions if decision.session is not None])
            accepted += sum(decision.verdict is Verdict.ACCEPTED for decision in decisions)
        return accepted

    def run_naive(self, heard: list[Reception] | None = None) -> int:
        """All frames through the naive decoder; how many documents came out."""
        decoder = self.naive()
        return sum(decoder.decode(one.phy_payload, one) is not None for one in (heard or self.heard))


def foreign(phy: bytes) -> bytes:
    """The same frame of a network that is not ours."""
    return phy[:1] + bytes([phy[1] ^ 0x55, phy[2] ^ 0x55, phy[3], 0x48]) + phy[5:]


def broken(phy: bytes) -> bytes:
    """The same frame with one bit of its MIC flipped."""
    return phy[:-1] + bytes([phy[-1] ^ 0x01])


def disagreements(arena: Arena) -> list[str]:
    """Where engine and naive decoder say different things of the frames, or take a broken one: must be empty."""
    arena.bridge.rewind()
    decoder = arena.naive()
    found: list[str] = []
    for phy, decision in zip(arena.frames, arena.bridge.engine.judge_all(arena.heard), strict=True):
        theirs = decoder.decode(phy, decision.reception)
        if len(decision.events) != 1 or theirs is None:
            found.append(f"{phy.hex()}: {decision.verdict}, naive {theirs}")
            continue
        ours = msgspec.json.decode(schema.encode(decision.events[0], "roof-1").payload)
        if ours != msgspec.json.decode(theirs) | {"id": ours["id"]}:
            found.append(f"{phy.hex()}: {ours}, naive {theirs}")
    arena.bridge.rewind()
    for spoil, verdict in ((foreign, Verdict.FOREIGN), (broken, Verdict.BAD_MIC)):
        spoilt = [spoil(phy) for phy in arena.frames]
        decisions = arena.bridge.engine.judge_all(heard := receptions(spoilt))
        found += [f"{d.verdict}, not {verdict}" for d in decisions if d.verdict is not verdict]
        taken = arena.run_naive(heard)
        found += [f"the naive decoder took {taken} frames that should be {verdict}"] if taken else []
    return found


def measure(report: Report, arena: Arena, rounds: int) -> None:
    """The rows of this section."""
    _stages(report, arena, rounds)
    _whole(report, arena, rounds)
    _refusals(report, arena, rounds)


def _stages(report: Report, arena: Arena, rounds: int) -> None:
    """Parse, MIC and decrypt, each alone."""
    phy, node, fcnt32 = arena.frames[0], arena.nodes[0], FCnt32(arena.first_fcnt)
    frame = grammar.parse(phy)
    if not isinstance(frame, grammar.DataFrame):
        raise TypeError("the frame of the benchmark is a data frame")
    addr, message, data = frame.dev_addr, frame.message, frame.frm_payload
    stages: dict[str, tuple[Callable[[], object], Callable[[], object], str]] = {
        "parse": (lambda: grammar.parse(phy), lambda: naive.parse(phy), "interpreted construct"),
        "MIC": (
            lambda: data_mic(node.nwk, message, Direction.UP, addr, fcnt32),
            lambda: naive.mic(node.nwk_s_key, message, addr, fcnt32),
            "CMAC.new a frame",
        ),
        "decrypt": (
            lambda: crypt_frm_payload(node.app, data, Direction.UP, addr, fcnt32),
            lambda: naive.decrypt(node.app_s_key, data, addr, fcnt32),
            "AES.new a block",
        ),
    }
    for name, (ours, theirs, reference) in stages.items():
        took = compare({"ours": (_repeat(ours, 400), 400), "theirs": (_repeat(theirs, 400), 400)}, rounds)
        report.add(_in_us(name, took["ours"], reference, took["theirs"]))


def _repeat(call: Callable[[], object], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def _in_us(name: str, ours: float, reference: str, theirs: float, target: float | None = None) -> Row:
    return Row(
        section=SECTION,
        name=name,
        value=ours,
        unit="us",
        reference=reference,
        reference_value=theirs,
        target=target,
        target_is_ratio=target is not None,
    )


def _whole(report: Report, arena: Arena, rounds: int) -> None:
    """Reception in, record out: frames a second on one core."""
    count = len(arena.frames)
    cases: dict[str, tuple[Callable[[], object], int]] = {
        "1": (lambda: arena.run_engine(1), count),
        "64": (lambda: arena.run_engine(64), count),
        "decisions": (lambda: arena.run_decisions(64), count),
        NAIVE: (arena.run_naive, count),
    }
    peer = lora_packet.start(arena, report)
    if peer is not None:
        cases[NAME] = (peer.run, count)
    took = compare(cases, rounds)
    if peer is not None:
        peer.stop()
    compared: list[tuple[str, str, str, float | None]] = [("1", "reception to record, batches of 1", NAIVE, None)]
    compared += [("64", "reception to record, batches of 64", NAIVE, 7.0)]
    if peer is not None:  # it makes no JSON and keeps no counters: the decision is what compares with it
        compared += [("decisions", "reception to decision, batches of 64", NAME, 3.0)]
    for case, name, reference, target in compared:
        report.add(
            Row(
                section=SECTION,
                name=f"engine: {name}",
                value=1e6 / took[case],
                unit="frames/s",
                reference=reference,
                reference_value=1e6 / took[reference],
                target=target,
                target_is_ratio=target is not None,
            )
        )


def _refusals(report: Report, arena: Arena, rounds: int) -> None:
    """What frames cost that are not taken; most of what a gateway hears is another network's."""
    for name, spoil in (("foreign frame, dropped", foreign), ("frame with a bad MIC, refused", broken)):
        spoilt = receptions([spoil(phy) for phy in arena.frames])
        took = compare(
            {
                "ours": (partial(arena.run_engine, 64, spoilt), len(spoilt)),
                "theirs": (partial(arena.run_naive, spoilt), len(spoilt)),
            },
            rounds,
        )
        report.add(_in_us(name, took["ours"], NAIVE, took["theirs"]))
