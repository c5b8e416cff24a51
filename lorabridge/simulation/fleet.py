"""A fleet of end-devices around virtual forwarders, on one loop and in simulated time, with attackers among them.

Each device joins (and tries again, more and more seldom, when no accept comes), reports, hears what it is sent
and obeys. The bridge may die at any moment: a device that confirmed frames in vain joins anew, as real ones do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.frame import DataFrame, parse
from lorabridge.lorawan.grammar import MalformedFrame
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import FCnt32
from lorabridge.lorawan.verdict import Verdict
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.books import Books, HeardDownlink, SentUplink
from lorabridge.simulation.cast import derived_eui
from lorabridge.simulation.clock import SimulatedClock
from lorabridge.simulation.device_session import Downlink, Flaw
from lorabridge.simulation.end_device import EndDevice, Heard, Joined
from lorabridge.simulation.fleet_cast import fleet_device_file, fleet_members
from lorabridge.simulation.forwarder import Push, VirtualForwarder
from lorabridge.simulation.listening import Radiation, Slot
from lorabridge.simulation.live_attackers import Attack, LiveAttacker
from lorabridge.simulation.living import Living, Plot

_SECOND = 1_000_000_000
_MICROSECOND = 1_000
_F_PORT = 10
_AFTER_WINDOWS = 1.0
"""Seconds a device waits after RX2 opened: the longest join-accept is on the air for less."""
_CONFIRMED_EVERY = 4
_LINK_CHECK_EVERY = 6
_TIME_EVERY = 9
_REJOIN_EVERY = 12
_TRIALS = 3
"""How often a confirmed frame is sent at most."""
_GIVES_UP_AFTER = 3
"""Confirmed frames in vain, one after the other, until a device joins anew."""
_JOIN_BACKOFF = (3.0, 60.0)
"""Seconds before the second and, at most, before any further try."""
_RADIUS_M = 1500.0
_STALE_REAL_S = 2.0
"""Seconds of the wall clock after which a recorded frame is no copy of the air: the bridge's window is 1.5 s."""

_FRAME = "data"
_REPEATED = "data, repeated"
_JOIN = "join-request"
_REJOIN = "rejoin-request"
_DESERVED = {
    _FRAME: frozenset({Verdict.ACCEPTED, Verdict.DUPLICATE}),
    _REPEATED: frozenset({Verdict.RETRANSMISSION, Verdict.DUPLICATE, Verdict.ACCEPTED}),
    _JOIN: frozenset({Verdict.JOIN_REQUEST, Verdict.DUPLICATE}),
    _REJOIN: frozenset({Verdict.JOIN_REQUEST, Verdict.DUPLICATE}),
}


class FleetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet is like."""

    devices: int
    region: str = "US915"
    every_s: float = 60.0
    """Simulated seconds between two reports of a device."""
    gateways: int = 1
    attacked: float = 0.0
    """Share of the frames that an attacker makes something of."""
    seed: int = 1
    loss: float = 0.0
    """Share of the datagrams between gateways and bridge that are lost."""
    keepalive_s: float = 1.0
    """Seconds of the wall clock between two PULL_DATA of a gateway."""


class Fleet:
    """Devices, gateways, attackers and their books."""

    def __init__(self, settings: FleetSettings, clock: SimulatedClock) -> None:
        self.settings = settings
        self.books = Books()
        self.members = fleet_members(settings.devices, settings.region)
        self._clock = clock
        self._rng = Random(settings.seed)  # noqa: S311  # a simulation must be repeatable
        region = REGIONS[settings.region]
        self._living = [
            Living(member, EndDevice(member.device, region, self._place(), rng=self._new_rng()))
            for member in self.members
        ]
        self._attacker = LiveAttacker(self._place(), self._new_rng())
        self.forwarders = [
            VirtualForwarder(
                derived_eui(f"{settings.region} fleet gateway {n}"),
                self._place(),
                clock,
                rng=self._new_rng(),
                on_air=self._radiated,
                tmst_zero_at=clock.now() - self._rng.randrange(1 << 32) * _MICROSECOND,
                loss=settings.loss,
                keepalive_s=settings.keepalive_s,
            )
            for n in range(settings.gateways)
        ]
        self._on_downlink: Callable[[HeardDownlink], None] = lambda _: None

    @property
    def device_file(self) -> str:
        """The device file for the bridge, with all keys that it may have."""
        return fleet_device_file(self.members)

    @property
    def session_keys(self) -> list[SessionKeys]:
        """Of the sessions that the devices are in, which only they and the bridge may know."""
        return [living.device.session.keys for living in self._living if living.device.session is not None]

    @property
    def stuck(self) -> list[str]:
        """Devices without a session, or whose network has been silent for as long as they would give up after."""
        return [
            living.name
            for living in self._living
            if not living.device.is_activated or living.in_vain >= _GIVES_UP_AFTER
        ]

    @property
    def flaws(self) -> dict[Flaw, int]:
        """What was wrong with downlinks, as the devices saw them."""
        return {flaw: count for flaw in Flaw if (count := sum(living.device.flaws[flaw] for living in self._living))}

    def on_downlink(self, told: Callable[[HeardDownlink], None]) -> None:
        """Tell of every data downlink that a device accepts."""
        self._on_downlink = told

    def note(self, reception: Reception, verdict: Verdict) -> None:
        """The bridge has judged a reception."""
        self.books.judge((reception.gateway_eui, reception.tmst or 0, reception.phy_payload), verdict)

    async def run(self, host: str, port: int, until: int) -> None:
        """Live until a simulated time; the gateways stay up a little longer, for what is still under way."""
        for forwarder in self.forwarders:
            await forwarder.start(host, port)
        try:
            for forwarder in self.forwarders:
                await forwarder.connected()
            async with asyncio.TaskGroup() as group:
                for living in self._living:
                    group.create_task(self._live(living, until))
        finally:
            for forwarder in self.forwarders:
                await forwarder.stop()

    async def _live(self, living: Living, until: int) -> None:
        """Join, report, and so on; what was begun is ended."""
        next_at = self._clock.now() + self._seconds(self.settings.every_s * self._rng.random())
        while next_at < until:
            await self._clock.sleep_until(max(next_at, living.device.quiet_until))
            if living.device.is_activated or await self._join(living, until):
                await self._report(living)
                self._play_plots(living)
                await self._maybe_rejoin(living)
            next_at = self._clock.now() + self._seconds(self.settings.every_s * self._rng.uniform(0.8, 1.2))

    async def _join(self, living: Living, until: int) -> bool:
        """Ask to join until somebody answers; False when the time is up before."""
        pause, longest = _JOIN_BACKOFF
        while self._clock.now() < until:
            self.books.events["join_attempts"] += 1
            emission = living.device.join(self._instant())
            living.join_request = emission
            self._deliver(emission, _JOIN)
            await self._listen(living)
            if living.device.is_activated:
                self._maybe_attack(living, emission)
                return True
            await asyncio.sleep(self._rng.uniform(pause / 2, pause) / self._clock.speed)
            pause = min(2 * pause, longest)
        return False

    async def _report(self, living: Living) -> None:
        """One new frame, repeated while it wants an acknowledgement that does not come."""
        device, n = living.device, living.reports
        living.reports += 1
        session = device.session
        if session is None:
            return
        if n % _LINK_CHECK_EVERY == 1:
            device.mac.ask("LinkCheckReq")
        if n % _TIME_EVERY == 2:
            device.mac.ask("DeviceTimeReq")
        confirmed = n % _CONFIRMED_EVERY == 0
        payload = self._rng.randbytes(10)
        fcnt32 = FCnt32(session.fcnt_up)
        emission = device.send(self._instant(), f_port=_F_PORT, payload=payload, confirmed=confirmed)
        is_jammed = not confirmed and self._is_attacked() and self._steal(living, emission)
        sent = SentUplink(
            device=living.name,
            session=living.sessions,
            fcnt32=fcnt32,
            f_port=_F_PORT,
            payload=payload,
            confirmed=confirmed,
            at=emission.ends_at,
            pushes=[] if is_jammed else self._deliver(emission, _FRAME),
        )
        self.books.uplinks.append(sent)
        living.last_sent = sent
        await self._listen(living)
        if confirmed:
            await self._insist(living, sent)
        if not is_jammed:
            self._maybe_attack(living, emission)

    async def _insist(self, living: Living, sent: SentUplink) -> None:
        """Repeat a confirmed frame; give the session up when the network does not answer at all any more."""
        for _ in range(_TRIALS - 1):
            if not living.device.waits_for_ack:
                break
            await asyncio.sleep(self._rng.uniform(1, 3) / self._clock.speed)
            self.books.events["repeated"] += 1
            sent.pushes += self._deliver(living.device.repeat(self._instant()), _REPEATED)
            await self._listen(living)
        if not living.device.waits_for_ack:
            self.books.events["acknowledged"] += 1
            living.in_vain = 0
            return
        self.books.events["unacknowledged"] += 1
        living.in_vain += 1
        if living.in_vain >= _GIVES_UP_AFTER and living.device.joiner.can_join:
            self.books.events["given_up"] += 1
            living.in_vain = 0
            living.device.leave()

    async def _maybe_rejoin(self, living: Living) -> None:
        """What the network ordered, and now and then of its own accord (1.1)."""
        device = living.device
        if device.session is None or not device.session.is_1_1 or not device.joiner.can_join:
            return
        rejoin_type = device.due_rejoin
        if rejoin_type is None and living.reports % _REJOIN_EVERY == 0:
            rejoin_type = living.reports // _REJOIN_EVERY % 3
        if rejoin_type is not None:
            self.books.events["rejoin_attempts"] += 1
            self._deliver(device.rejoin(self._instant(), rejoin_type), _REJOIN)
            await self._listen(living)

    async def _listen(self, living: Living) -> None:
        """Until both windows of the last frame are over."""
        opens_at = [window.opens_at for window in living.device.windows]
        await self._clock.sleep_until(max(opens_at, default=self._clock.now()) + self._seconds(_AFTER_WINDOWS))

    def _deliver(self, emission: Emission, what: str, deserved: frozenset[Verdict] | None = None) -> list[Push]:
        """A frame was on the air: every gateway pushes it."""
        pushes: list[Push] = []
        for forwarder in self.forwarders:
            receipt = (forwarder.eui, forwarder.tmst(emission.ends_at), emission.phy_payload)
            self.books.expect(receipt, what, _DESERVED[what] if deserved is None else deserved)
            pushes.append(forwarder.hear(emission))
        return pushes

    def _radiated(self, radiation: Radiation) -> None:
        """A gateway sends: whoever listens there and then hears it."""
        self._count_radiated(radiation)
        for living in self._living:
            heard = living.device.hear(radiation)
            if heard is not None:
                self._heard(living, heard, radiation)

    def _count_radiated(self, radiation: Radiation) -> None:
        """Note the counter of a data downlink, whether its device listens or not."""
        try:
            frame = parse(radiation.phy_payload)
        except MalformedFrame:
            self.books.wrong.append("a gateway was ordered to send what is no frame")
            return
        if not isinstance(frame, DataFrame):
            return
        for living in self._living:
            session = living.device.session
            if session is not None and session.dev_addr == frame.dev_addr:
                found = session.identify(frame)
                if found is not None:
                    self.books.radiated[living.name, living.sessions, found[0], found[1]] += 1

    def _heard(self, living: Living, heard: Heard, radiation: Radiation) -> None:
        """Into the books."""
        if radiation.ordered_at is not None and heard.slot is not Slot.RXC:
            to_rx1 = heard.opens_at - radiation.ordered_at - (_SECOND if heard.slot is Slot.RX2 else 0)
            self.books.margins_ns.append(to_rx1)
        what = heard.what
        if isinstance(what, Joined):
            living.sessions += 1
            living.plots.clear()
            self.books.events["joins"] += 1
        elif isinstance(what, Downlink):
            downlink = HeardDownlink(
                device=living.name,
                session=living.sessions,
                a_fcnt_down=what.a_fcnt_down,
                fcnt32=what.fcnt32,
                f_port=what.f_port,
                payload=what.payload,
                ack=what.ack,
                at=radiation.starts_at,
            )
            self.books.downlinks.append(downlink)
            self._on_downlink(downlink)

    # Attacks.

    def _is_attacked(self) -> bool:
        return self._rng.random() < self.settings.attacked

    def _steal(self, living: Living, emission: Emission) -> bool:
        """Suppress a frame and keep it for later; one in so many, since every other attack needs its frames heard."""
        if self._rng.randrange(len(Attack)):
            return False
        living.plots.append(Plot(Attack.DELAYED, emission, living.sessions))
        return True

    def _maybe_attack(self, living: Living, emission: Emission) -> None:
        """Make something of a frame that was heard."""
        if not self._is_attacked():
            return
        attack = self._rng.choice([attack for attack in Attack if attack is not Attack.DELAYED])
        at = self._instant()
        request = living.join_request
        if attack is Attack.UPLINK_REPLAY:
            if emission is not request and living.was_acknowledged:
                living.plots.append(Plot(attack, emission, living.sessions))
        elif attack is Attack.STRANGER_FLOOD:
            self._attack(attack, self._attacker.stranger(emission, at))
        elif attack in (Attack.JOIN_FLOOD, Attack.JOIN_REPLAY):
            if request is None or not living.device.is_activated:
                return
            if attack is Attack.JOIN_REPLAY:
                living.plots.append(Plot(attack, request, living.sessions))
            else:
                self._attack(attack, self._attacker.sign_wrong(request, at))
        elif emission is not request:
            alter = {
                Attack.BIT_FLIP: self._attacker.flip,
                Attack.ACK_SPOOF: self._attacker.spoof_ack,
                Attack.COUNTER_JUMP: self._attacker.jump,
            }
            self._attack(attack, alter[attack](emission, at))

    def _play_plots(self, living: Living) -> None:
        """Old frames, now that the last frame, a confirmed one, was acknowledged: the network has a newer counter."""
        last, now = living.last_sent, self._instant()
        if last is None or not living.was_acknowledged:
            return
        latest = min(last.at - 1, now - self._seconds(_STALE_REAL_S * self._clock.speed))
        for plot in [plot for plot in living.plots if plot.emission.ends_at <= latest]:
            living.plots.remove(plot)
            if plot.session == living.sessions:
                self._attack(plot.attack, self._attacker.play(plot.emission, now))

    def _attack(self, attack: Attack, emission: Emission) -> None:
        self.books.attacks[attack.value] += 1
        self._deliver(emission, attack.value, attack.deserves)

    def _instant(self) -> int:
        """Now, on the microsecond, which is all that a concentrator tells."""
        return self._clock.now() // _MICROSECOND * _MICROSECOND

    def _seconds(self, seconds: float) -> int:
        return int(seconds * _SECOND)

    def _place(self) -> Place:
        return Place(self._rng.uniform(-_RADIUS_M, _RADIUS_M), self._rng.uniform(-_RADIUS_M, _RADIUS_M))

    def _new_rng(self) -> Random:
        return Random(self._rng.getrandbits(64))  # noqa: S311  # a simulation must be repeatable
