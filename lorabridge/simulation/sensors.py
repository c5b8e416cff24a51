"""What the virtual devices have to say: plaintexts of the kinds that real ones send."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

import msgspec

from lorabridge.simulation.air import Emission
from lorabridge.simulation.devices import ADR_ACK_REQ, VirtualDevice

_LINK_CHECK_REQ = b"\x02"
_LINK_ADR_ANS = b"\x03\x07"
_DEV_STATUS_ANS = b"\x06\xff\x0c"


def _climate(rng: Random, n: int) -> bytes:
    """Cayenne LPP: temperature in 0.1 °C on channel 1, humidity in 0.5 % on channel 2."""
    return struct.pack(">BBhBBB", 1, 0x67, rng.randrange(120, 260) - n % 40, 2, 0x68, rng.randrange(70, 160))


def _meter(rng: Random, n: int) -> bytes:
    """Watt-hours, watts and the supply in millivolts."""
    return struct.pack(">IHH", 4_180_000 + 35 * n, rng.randrange(20, 2400), rng.randrange(3280, 3320))


def _door(rng: Random, n: int) -> bytes:
    """Plain text."""
    return f"{rng.choice(('open', 'shut'))} {n:04d}".encode("ascii")


def _tracker(rng: Random, n: int) -> bytes:
    """Cayenne LPP: latitude and longitude in 0.0001°, altitude in 0.01 m on channel 1."""
    place = (473_000 + 3 * n, 84_000 + rng.randrange(400), 45_000 + rng.randrange(800))
    return b"\x01\x88" + b"".join(value.to_bytes(3, "big", signed=True) for value in place)


SENSORS: dict[str, Callable[[Random, int], bytes]] = {
    "climate": _climate,
    "meter": _meter,
    "door": _door,
    "tracker": _tracker,
}
"""The application of a device: its n-th payload."""


class Habit(msgspec.Struct, frozen=True):
    """A form of frame that a device sends now and then: every `every`-th time, beginning with the `first`."""

    every: int
    first: int
    f_port: int | None
    f_opts: bytes = b""
    payload: bytes | None = None
    """None: what the sensor says."""
    confirmed: bool = False
    flags: int = 0
    acknowledges: int | None = None


HABITS = (
    Habit(every=11, first=5, f_port=0, payload=_DEV_STATUS_ANS),
    Habit(every=13, first=7, f_port=None, payload=b""),
    Habit(every=7, first=3, f_port=2, f_opts=_LINK_ADR_ANS),
    Habit(every=9, first=6, f_port=2, f_opts=_LINK_CHECK_REQ, flags=ADR_ACK_REQ),
    Habit(every=5, first=1, f_port=2, confirmed=True),
    Habit(every=10, first=4, f_port=2, acknowledges=0),
)
"""The first that applies; otherwise a plain unconfirmed frame."""
_PLAIN = Habit(1, 0, f_port=2)


def report(device: VirtualDevice, sensor: str, n: int, now: int, rng: Random) -> tuple[Emission, bool]:
    """The n-th frame of a device's routine, and whether it is confirmed."""
    habit = next((habit for habit in HABITS if n % habit.every == habit.first), _PLAIN)
    if habit.acknowledges is not None:
        device.acknowledge(habit.acknowledges)
    payload = SENSORS[sensor](rng, n) if habit.payload is None else habit.payload
    emission = device.send(
        now,
        f_port=habit.f_port,
        payload=payload,
        f_opts=habit.f_opts,
        confirmed=habit.confirmed,
        flags=habit.flags,
    )
    return emission, habit.confirmed
