"""One decoder over so many frames and nothing else: what callgrind counts instructions of."""

from __future__ import annotations

import sys

from lorabridge.lorawan.air import Reception
from lorabridge.upstream import schema
from tests.bench.fleet import Bridge, Fleet, receptions
from tests.bench.naive import NaiveDecoder

DEVICES = 20
BATCH = 64


def run(decoder: str, count: int, prepared: int) -> None:
    """Decode `count` of `prepared` frames with `engine` or `naive`."""
    fleet = Fleet(DEVICES)
    bridge = Bridge(fleet)
    naive = NaiveDecoder(fleet.naive_sessions())
    frames = fleet.frames(prepared)
    heard = receptions(frames)
    if decoder == "naive":
        for one in heard[:count]:
            naive.decode(one.phy_payload, one)
        return
    for start in range(0, count, BATCH):
        judge(bridge, heard[start : min(start + BATCH, count)])


def judge(bridge: Bridge, batch: list[Reception]) -> int:
    """What the pipeline does with a batch between radio and store; how many records came of it."""
    decisions = bridge.engine.judge_all(batch)
    bridge.table.advance([decision.session for decision in decisions if decision.session is not None])
    return len([schema.encode(event, "roof-1") for decision in decisions for event in decision.events])


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
