"""An hour on the air of each region, made once and shipped: who sends what when, and which verdict that deserves.

The expected verdict is what the scenario did: a device that sent a new frame expects `accepted`, an attacker
who played an old one expects `replay`. The engine is never asked. When several gateways hear a frame, the
first report carries its verdict; further reports of a frame that was taken are duplicates of it, and further
reports of a refused one are refused alike.

    python -m lorabridge.simulation.scenario --out DIR
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.simulation.air import Gateway
from lorabridge.simulation.cast import actors, device_file, gateways
from lorabridge.simulation.incidents import Incidents
from lorabridge.simulation.plans import PLANS, Plan
from lorabridge.simulation.routine import HOUR, SECOND, Sent, timeline

RECORDINGS = Path(__file__).parent / "recordings"
DEVICE_FILE = "devices.toml"
_STARTED_AT = 1_772_438_400 * SECOND
"""2026-03-02T08:00:00Z; every region has its own hour."""
_THOROUGH = "EU868"
"""One full recording, and smaller ones of the other regions."""
_SLOWNESS, _SLOWNESS_ELSEWHERE = 1.5, 3.0
"""How much more seldom devices report than `cast` says."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a recording: what the player reads, and `expect`, which it passes over."""

    received_at: int
    gateway_eui: EUI64
    rxpk: dict[str, Any]
    verdict: Verdict
    reason: Reason | None
    device: str | None

    def encode(self) -> bytes:
        """One JSON object."""
        return msgspec.json.encode(
            {
                "received_at": self.received_at,
                "gateway_eui": str(self.gateway_eui),
                "rxpk": self.rxpk,
                "expect": {
                    "verdict": str(self.verdict),
                    "reason": None if self.reason is None else str(self.reason),
                    "device": self.device,
                },
            }
        )


class SilentScenarioError(RuntimeError):
    """A frame that the story needs was heard by nobody: the cast stands in the wrong places."""


def play(plan: Plan) -> list[Line]:
    """The recording of one region, in order of reception."""
    rng = Random(zlib.crc32(plan.region.name.encode()))  # noqa: S311  # a recording must be repeatable
    started_at = _STARTED_AT + list(PLANS).index(plan.region.name) * HOUR
    thorough = plan.region.name == _THOROUGH
    slowness = _SLOWNESS if thorough else _SLOWNESS_ELSEWHERE
    cast = actors(plan)
    ears = gateways(plan, rng, started_at)
    timelines = {actor.role.name: timeline(actor, plan, started_at, slowness, rng) for actor in cast}
    devices = {actor.role.name: actor.device for actor in cast}
    sent = [sent for frames in timelines.values() for sent in frames]
    sent += Incidents(plan, started_at, devices, timelines, rng, thorough=thorough).all()
    sent.sort(key=lambda one: one.emission.ends_at)
    lines = [line for one in sent for line in heard(one, ears)]
    return sorted(lines, key=lambda line: line.received_at)


def heard(sent: Sent, ears: Sequence[Gateway]) -> list[Line]:
    """The reports of one emission, first come first."""
    near = ears if sent.only_by is None else ears[sent.only_by : sent.only_by + 1]
    hearings = sorted(
        (hearing for gateway in near for hearing in gateway.hear(sent.emission)), key=lambda one: one.received_at
    )
    if not hearings and not sent.may_be_lost:
        raise SilentScenarioError(f"nobody heard {sent.device or sent.verdict} at {sent.emission.ends_at}")
    return [
        Line(
            received_at=hearing.received_at,
            gateway_eui=hearing.gateway_eui,
            rxpk=hearing.rxpk,
            verdict=sent.copies if n else sent.verdict,
            reason=sent.reason,
            device=sent.device,
        )
        for n, hearing in enumerate(hearings)
    ]


def files() -> dict[str, bytes]:
    """What ships, by file name."""
    recordings = {
        f"{name.lower()}.jsonl": b"".join(line.encode() + b"\n" for line in play(plan)) for name, plan in PLANS.items()
    }
    return {DEVICE_FILE: device_file().encode(), **recordings}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the recordings and their device file."""
    parser = argparse.ArgumentParser(prog="python -m lorabridge.simulation.scenario", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=RECORDINGS, help="directory to write to (default: the package's)")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (out / name).write_bytes(content)


if __name__ == "__main__":
    main()
