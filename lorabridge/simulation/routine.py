"""What honest devices do in an hour: report, repeat, lose their battery, skip counters, ask to join."""

from __future__ import annotations

from random import Random

import msgspec

from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.cast import BARN, Actor
from lorabridge.simulation.devices import VirtualDevice
from lorabridge.simulation.plans import Plan
from lorabridge.simulation.sensors import report

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
_REPEAT_AFTER = (2.2, 4.5)
"""Seconds: past both receive windows, ACK_TIMEOUT is 2 s ± 1 s (RP002-1.0.4 §3)."""
_LOSES_FRAMES = "far-field"
_REPEATS = frozenset({"climate-1", "climate-4", "door-1", "meter-1"})
"""Roles that send a confirmed frame twice, since this version of the bridge never acknowledges."""


_COPIED = frozenset({Verdict.ACCEPTED, Verdict.JOIN_REQUEST})
"""What is taken once, so that further reports of it are copies."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """An emission, and the verdict that its first report deserves."""

    emission: Emission
    verdict: Verdict
    reason: Reason | None = None
    device: str | None = None
    """The device that the MIC proves."""
    only_by: int | None = None
    """Index of the one gateway that hears it; None: whoever can."""
    may_be_lost: bool = False

    @property
    def copies(self) -> Verdict:
        """The verdict of every further report."""
        return Verdict.DUPLICATE if self.verdict in _COPIED else self.verdict


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a device in the middle of its hour."""

    skips: int | None = None
    """Counters skipped; None: the counter restarts at zero."""
    refused: int | None = 0
    """How many of the frames after it are refused; None: all."""
    verdict: Verdict = Verdict.ACCEPTED


TURNS = {
    "reset-strict": Turn(refused=None, verdict=Verdict.COUNTER_RESET),
    # The third consecutive frame of the new count is the one that is taken.
    "reset-confirm": Turn(refused=2, verdict=Verdict.COUNTER_RESET),
    "reset-confirm-1-1": Turn(refused=2, verdict=Verdict.COUNTER_RESET),
    "skips-1-0-3": Turn(skips=20_000, refused=None, verdict=Verdict.COUNTER_GAP),
    "skips-1-0-4": Turn(skips=20_000),
}
"""By role."""


def timeline(actor: Actor, plan: Plan, started_at: int, slowness: float, rng: Random) -> list[Sent]:
    """Everything that one device sends in the hour, in order."""
    role = actor.role
    device = VirtualDevice(actor.device, plan, _place(actor, rng), rng=rng, fcnt_up=role.first_fcnt)
    device.data_rate = actor.data_rate
    times = _times(round(role.every_s * slowness), started_at, rng)
    if role.otaa:
        return [_says(device, device.request_join(at), Verdict.JOIN_REQUEST) for at in times]
    turn, turns_at = TURNS.get(role.name), len(times) // 2
    sent: list[Sent] = []
    for n, at in enumerate(times):
        if turn is not None and n == turns_at:
            _turn(device, turn)
        refused = turn is not None and n >= turns_at and (turn.refused is None or n < turns_at + turn.refused)
        verdict = turn.verdict if turn is not None and refused else Verdict.ACCEPTED
        emission, confirmed = report(device, role.sensor, n, at, rng)
        sent.append(_says(device, emission, verdict, may_be_lost=role.name == _LOSES_FRAMES))
        if confirmed and role.name in _REPEATS:
            again = device.repeat(at + int(rng.uniform(*_REPEAT_AFTER) * SECOND))
            sent.append(_says(device, again, Verdict.RETRANSMISSION))
    return sent


def _says(device: VirtualDevice, emission: Emission, verdict: Verdict, *, may_be_lost: bool = False) -> Sent:
    return Sent(emission=emission, verdict=verdict, device=device.device.name, may_be_lost=may_be_lost)


def _turn(device: VirtualDevice, turn: Turn) -> None:
    if turn.skips is None:
        device.change_battery()
    else:
        device.skip(turn.skips)


def _times(every_s: int, started_at: int, rng: Random) -> list[int]:
    """One time in every interval, a little off its place, on the microsecond."""
    first_s = rng.uniform(0.05, 0.6) * every_s
    count = max(3600 // every_s, 2)
    jitter_s = 0.06 * every_s
    return [
        started_at + round((first_s + n * every_s + rng.uniform(-jitter_s, jitter_s)) * 1e6) * 1000
        for n in range(count)
    ]


def _place(actor: Actor, rng: Random) -> Place:
    """At its distance from the first gateway, or in the barn."""
    if actor.role.metres == 0:
        return Place(BARN.x_m + 3, BARN.y_m + 2)
    x, y = rng.choice(((1.0, 0.0), (0.8, 0.6), (0.6, -0.8), (-0.6, -0.8), (-0.28, 0.96), (0.0, -1.0)))
    return Place(actor.role.metres * x, actor.role.metres * y)
