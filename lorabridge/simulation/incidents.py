"""What attackers, neighbours and noise do in the hour, and what a bridge can prove of each act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import msgspec

from lorabridge.lorawan.air import CrcStatus
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, MacVersion
from lorabridge.lorawan.verdict import Verdict
from lorabridge.simulation.air import Place
from lorabridge.simulation.attackers import FLIPS, MALFORMED, Attacker, damage, downlink, noise
from lorabridge.simulation.cast import derived_dev_addr, derived_key
from lorabridge.simulation.devices import VirtualDevice
from lorabridge.simulation.plans import Plan
from lorabridge.simulation.routine import HOUR, Sent

_BARN = 1
"""Index of the gateway in the barn."""
_FOREIGN = (
    DevAddr(0x26_0B_5C_11),
    DevAddr(0x27_FC_02_9A),
    DevAddr(0x48_00_13_77),
    DevAddr(0xE0_14_22_05),
    DevAddr(0x00_51_9E_3D),
)
"""Addresses of other networks, large and small."""
_FLIP_SIZES = range(20, 23)
"""Sizes that no join- or rejoin-request has."""


class Incidents:
    """The acts of one region's hour, made from what its devices sent."""

    def __init__(
        self,
        plan: Plan,
        started_at: int,
        devices: Mapping[str, Device],
        timelines: Mapping[str, list[Sent]],
        rng: Random,
        *,
        thorough: bool,
    ) -> None:
        """`devices` and `timelines` by role; not `thorough`: about every second act."""
        self._plan = plan
        self._started_at = started_at
        self._devices = devices
        self._timelines = timelines
        self._rng = rng
        self._step = 1 if thorough else 2
        self._attacker = Attacker(plan, Place(240.0, -310.0), rng)

    def all(self) -> list[Sent]:
        """Everything, in no order."""
        return [
            *self._flips(),
            *self._fresh_replays(),
            *self._stale_replays(),
            *self._replays_around_a_reset(),
            *self._forgeries(),
            *self._not_uplinks(),
            *self._joins(),
            *self._crc_errors(),
        ]

    def _flips(self) -> Iterator[Sent]:
        """One bit turned over, in every part of a frame of 1.0 and of 1.1."""
        for first, victim in enumerate(("climate-1", "meter-1")):
            plain = [
                sent
                for sent in self._timelines[victim]
                if sent.emission.phy_payload[0] == MType.UNCONFIRMED_DATA_UP << 5
                and not sent.emission.phy_payload[5] & 0x2F
                and len(sent.emission.phy_payload) in _FLIP_SIZES
            ]
            for n, flip in enumerate(FLIPS[first * (self._step - 1) :: self._step]):
                heard = plain[n % len(plain)].emission
                after = 8 + 3 * (n // len(plain))
                at = heard.ends_at + self._seconds(after, after + 2)
                yield Sent(emission=self._attacker.flip(heard, at, flip), verdict=flip.verdict, reason=flip.reason)

    def _fresh_replays(self) -> Iterator[Sent]:
        """The last frame of a device again: within a second an echo, within minutes as the device itself repeats.

        Nothing is forwarded twice, and nothing distinguishes the attacker from the air or the device.
        """
        for victim in ("climate-1", "meter-2"):
            for first, (least, most), verdict in (
                (2, (0.15, 0.3), Verdict.DUPLICATE),
                (3, (20, 30), Verdict.RETRANSMISSION),
            ):
                heard = self._unrepeated(victim)[first]
                again = self._attacker.replay(heard.emission, heard.emission.ends_at + self._seconds(least, most))
                yield Sent(emission=again, verdict=verdict, device=heard.device)

    def _stale_replays(self) -> Iterator[Sent]:
        """Old frames: after newer ones, after more than ten minutes, on another channel."""
        for victim in ("climate-1", "meter-1", "door-1", "rolls-over", "third-epoch"):
            frames = self._unrepeated(victim)
            for old, later in ((0, 2), (1, len(frames) - 1)):
                yield self._replay(frames[old], frames[later].emission.ends_at + self._seconds(35, 50))
        seldom = self._timelines["seldom"][0]
        yield self._replay(seldom, seldom.emission.ends_at + self._seconds(690, 720))
        frames = self._unrepeated("climate-1")
        at = frames[5].emission.ends_at + self._seconds(14, 18)
        moved = self._attacker.replay_elsewhere(frames[3].emission, at)
        yield Sent(emission=moved, verdict=Verdict.REPLAY, device=frames[3].device)
        bound = self._unrepeated("meter-1")[2].emission
        moved = self._attacker.replay_elsewhere(bound, bound.ends_at + self._seconds(40, 50))
        yield Sent(emission=moved, verdict=Verdict.BAD_MIC)

    def _replays_around_a_reset(self) -> Iterator[Sent]:
        """Frames of the count before a reset, and of those that were held, after the new count was taken."""
        for victim in ("reset-confirm", "reset-confirm-1-1"):
            frames = self._timelines[victim]
            held = next(n for n, sent in enumerate(frames) if sent.verdict is Verdict.COUNTER_RESET)
            at = frames[-1].emission.ends_at
            for n, old in enumerate((held - 2, held - 1, held, held + 1)):
                yield self._replay(frames[old], at + self._seconds(20 + 9 * n, 24 + 9 * n))
        frames = self._timelines["reset-strict"]
        yield self._replay(frames[1], frames[-1].emission.ends_at + self._seconds(20, 30))

    def _forgeries(self) -> Iterator[Sent]:
        """Well-formed frames without a key: a counter far ahead or behind, addresses of nobody, of other networks."""
        for victim in ("climate-1", "meter-1", "rolls-over", "twin-a")[:: self._step]:
            dev_addr = self._devices[victim].dev_addr
            if dev_addr is None:
                continue
            for fcnt16 in (0, 200, 5000, 0xFFFF):
                yield Sent(emission=self._attacker.forge(dev_addr, fcnt16, self._any_time()), verdict=Verdict.BAD_MIC)
        for n in range(0, 6, self._step):
            nobody = derived_dev_addr(f"nobody {n}")
            forged = self._attacker.forge(nobody, self._rng.randrange(400), self._any_time())
            yield Sent(emission=forged, verdict=Verdict.UNKNOWN_DEVICE)
        for n in range(0, 15, self._step):
            neighbour = self._attacker.forge(_FOREIGN[n % len(_FOREIGN)], 800 + n, self._any_time())
            yield Sent(emission=neighbour, verdict=Verdict.FOREIGN)

    def _not_uplinks(self) -> Iterator[Sent]:
        """Downlinks heard on the air, proprietary frames, and whatever is malformed."""
        for n, receiver in enumerate(("climate-1", "meter-1", "door-1")):
            phy_payload = downlink(self._devices[receiver], 40 + n, b"\x01set")
            yield self._emit(phy_payload, Verdict.WRONG_DIRECTION)
        for size in (16, 32):
            yield self._emit(b"\x20" + self._rng.randbytes(size), Verdict.WRONG_DIRECTION)
        for _ in range(3):
            yield Sent(emission=self._attacker.proprietary(self._any_time()), verdict=Verdict.PROPRIETARY)
        for reason in (*MALFORMED, *MALFORMED)[: len(MALFORMED) * 2 // self._step]:
            broken = self._attacker.malformed(reason, self._any_time())
            yield Sent(emission=broken, verdict=Verdict.MALFORMED, reason=reason)

    def _joins(self) -> Iterator[Sent]:
        """Join-requests by a device of nobody, and in the name of ours without its key."""
        stranger = Device(
            name="stranger",
            dev_eui=EUI64(0x02_5E_C0_00_00_00_00_01),
            mac_version=MacVersion.V1_0_4,
            activation=Activation.OTAA,
            join_eui=EUI64(0x02_5E_C0_00_00_00_00_02),
            app_key=derived_key("stranger", "app_key"),
        )
        radio = VirtualDevice(stranger, self._plan, Place(-300.0, 420.0), rng=self._rng)
        for _ in range(0, 4, self._step):
            yield Sent(emission=radio.request_join(self._any_time()), verdict=Verdict.UNKNOWN_DEVICE)
        for name in ("joins-1-0-4", "joins-1-1"):
            real = self._timelines[name][0].emission
            yield Sent(emission=self._attacker.sign_wrong(real, self._any_time()), verdict=Verdict.BAD_MIC)
        other_root = msgspec.structs.replace(self._devices["joins-1-0-4"], app_key=AES128Key(self._rng.randbytes(16)))
        impostor = VirtualDevice(other_root, self._plan, Place(310.0, 90.0), rng=self._rng)
        yield Sent(emission=impostor.request_join(self._any_time()), verdict=Verdict.BAD_MIC)

    def _crc_errors(self) -> Iterator[Sent]:
        """Noise at single gateways, and frames that reach the far one damaged and the near one whole."""
        for n in range(0, 14, self._step):
            yield Sent(
                emission=noise(self._plan, self._any_time(), self._rng), verdict=Verdict.RADIO_CRC, only_by=n % 3
            )
        for sent in self._timelines["climate-3"][:5]:
            damaged = damage(sent.emission, self._rng)
            yield Sent(emission=damaged, verdict=Verdict.RADIO_CRC, only_by=_BARN)
        bare = msgspec.structs.replace(noise(self._plan, self._any_time(), self._rng), crc=CrcStatus.NONE)
        yield Sent(emission=bare, verdict=Verdict.RADIO_CRC, only_by=0)

    def _replay(self, heard: Sent, at: int) -> Sent:
        return Sent(emission=self._attacker.replay(heard.emission, at), verdict=Verdict.REPLAY, device=heard.device)

    def _emit(self, phy_payload: bytes, verdict: Verdict) -> Sent:
        return Sent(emission=self._attacker.emit(phy_payload, self._any_time()), verdict=verdict)

    def _unrepeated(self, role: str) -> list[Sent]:
        """What a device sent that it did not send twice."""
        frames = self._timelines[role]
        repeated = {sent.emission.phy_payload for sent in frames if sent.verdict is Verdict.RETRANSMISSION}
        return [sent for sent in frames if sent.emission.phy_payload not in repeated]

    def _any_time(self) -> int:
        return self._started_at + self._rng.randrange(HOUR // 1000) * 1000

    def _seconds(self, least: float, most: float) -> int:
        return int(self._rng.uniform(least, most) * 1e6) * 1000
