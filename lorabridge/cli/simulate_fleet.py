"""The living part of `lorabridge simulate`: a fleet over UDP, the bridge, and the stand-in, in one process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.daemon.answering import JoinSettings
from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.config import Config, GatewaySettings, NetworkSettings, ReportSettings
from lorabridge.daemon.service import load_checked
from lorabridge.lorawan.decision import Decision
from lorabridge.radio.semtech_udp import SemtechUdpSettings
from lorabridge.settings import Duration
from lorabridge.simulation.books import HeardDownlink
from lorabridge.simulation.cast import NET_ID
from lorabridge.simulation.clock import SimulatedClock
from lorabridge.simulation.device_session import Flaw
from lorabridge.simulation.fleet import Fleet, FleetSettings
from lorabridge.simulation.fleet_cast import FLEET_ADDRESS_RANGE
from lorabridge.simulation.pki import WARNING, Pki
from lorabridge.simulation.standin import StandIn
from lorabridge.store.database import Store, StoreSettings
from lorabridge.upstream.aws_settings import AwsIotSettings

_SECOND = 1_000_000_000
_HOST = "127.0.0.1"
_F_PORT = 7
_MAX_ORDERS = 20
SETTLE_LIMIT_S = 20.0
"""Seconds for the last records to be delivered."""
_FAULTS = (Flaw.REPEATED_COUNTER, Flaw.OVERTAKEN_COUNTER, Flaw.TOO_LONG, Flaw.JOIN_NONCE)
"""What a network must never do to its devices."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a live simulation takes place."""

    folder: Path
    """Its own, for device file and store."""
    pki: Pki
    endpoint: str
    gateway: str
    standin: StandIn


class Arrivals:
    """The records of the fleet's uplinks and commands as they arrive at the stand-in."""

    def __init__(self) -> None:
        self.uplinks: Counter[tuple[str, int, bytes | None]] = Counter()
        """(device, FCnt, payload; None where it came sealed)."""
        self.kinds: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def note(self, _topic: str, payload: bytes) -> None:
        """One publish was delivered."""
        record: dict[str, Any] = json.loads(payload)
        kind = record["schema"].split("/")[1]
        self.kinds[kind] += 1
        if kind == "uplink":
            said = None if record["sealed"] else base64.b64decode(record["payload"])
            self.uplinks[record["device"]["name"], record["fcnt32"], said] += 1
        self._changed.set()

    async def next(self) -> None:
        """Wait until something more has arrived."""
        self._changed.clear()
        await self._changed.wait()


class LiveRun:
    """One fleet and its bridge."""

    def __init__(self, settings: FleetSettings, *, speed: float, place: Place, arrivals: Arrivals) -> None:
        """`arrivals`: what the observer of the place's stand-in is told."""
        self.clock = SimulatedClock(speed)
        self.fleet = Fleet(settings, self.clock)
        self.arrivals = arrivals
        self.ordered: dict[str, bytes] = {}
        """Payload of the downlink that the cloud ordered, by device."""
        self.heard: dict[str, bytes] = {}
        """And what the device heard of it."""
        self._place = place
        self._port = free_udp_port()
        self.fleet.on_downlink(self._note_downlink)

    async def run(self, seconds: float) -> None:
        """Live for so many simulated seconds, then until everything has been delivered."""
        store = await Store.open(StoreSettings(path=str(self._place.folder / "fleet" / "lorabridge.db")))
        try:
            config = self._config()
            devices, groups = load_checked(config)
            bridge = Bridge(config, "simulation", devices, store, groups=groups, observer=self._note_decision)
            await self._with_bridge(bridge, seconds)
        finally:
            await store.close()

    @property
    def expected(self) -> Counter[tuple[str, int, bytes | None]]:
        """The uplinks that have to arrive, once each: those that reached the bridge."""
        sealed = {member.device.name for member in self.fleet.members if member.is_sealed}
        return Counter(
            (sent.device, int(sent.fcnt32), None if sent.device in sealed else sent.payload)
            for sent in self.fleet.books.uplinks
            if sent.reached_bridge
        )

    @property
    def problems(self) -> list[str]:
        """Everything that is not as it ought to be, for people; empty when all is well."""
        books, fleet = self.fleet.books, self.fleet
        found = list(books.wrong[:20])
        found += [f"no session at the end: {name}" for name in fleet.stuck]
        found += [f"downlink counter on the air twice: {counter}" for counter in books.repeated_counters]
        found += [f"devices saw {flaw.value}: {fleet.flaws[flaw]}" for flaw in _FAULTS if flaw in fleet.flaws]
        missing, strange = self.expected - self.arrivals.uplinks, self.arrivals.uplinks - self.expected
        found += [f"uplink of {name}, FCnt {fcnt32}, did not arrive" for name, fcnt32, _ in missing]
        found += [f"uplink of {name}, FCnt {fcnt32}, arrived unasked or twice" for name, fcnt32, _ in strange]
        found += [f"downlink ordered for {name} was not heard" for name in self.ordered if name not in self.heard]
        return found

    @property
    def story(self) -> str:
        """What happened to a device or two, in order, for people."""
        books = self.fleet.books
        lines = [f"  joined: {books.events['joins']} device(s) by OTAA, with session keys that only the join made"]
        lines += [
            f"  {sent.device} sent {'a confirmed' if sent.confirmed else 'an'} uplink, FCnt {sent.fcnt32}"
            for sent in books.uplinks[:2]
        ]
        for downlink in books.downlinks:
            said = f"payload {downlink.payload!r} on FPort {downlink.f_port}" if downlink.payload else "no payload"
            ack = ", with ACK" if downlink.ack else ""
            lines.append(f"  {downlink.device} heard a downlink, FCnt {downlink.fcnt32}{ack}: {said}")
        return "\n".join(lines)

    def report(self) -> str:
        """What became of it, for people."""
        books = self.fleet.books
        answered = sum(downlink.ack for downlink in books.downlinks)
        p50, p99 = books.margin_ms(50), books.margin_ms(99)
        rows = [
            ("devices", str(len(self.fleet.members))),
            ("joins", f"{books.events['joins']} of {books.events['join_attempts']} requests"),
            ("uplinks sent", str(len(books.uplinks))),
            ("uplinks delivered", str(self.arrivals.uplinks.total())),
            ("confirmed, acknowledged", f"{books.events['acknowledged']}, unanswered {books.events['unacknowledged']}"),
            ("downlinks heard", f"{len(books.downlinks)}, with ACK {answered}"),
            ("ordered by the cloud", f"{len(self.ordered)}, heard {len(self.heard)}"),
            ("attacks", str(books.attacks.total())),
            ("margin to RX1, p50 p99", "none" if p50 is None else f"{p50:.0f} ms  {p99:.0f} ms (simulated time)"),
        ]
        return "\n".join([*(f"{name:<24}{said}" for name, said in rows), "", books.table()])

    async def _with_bridge(self, bridge: Bridge, seconds: float) -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(bridge.run(stop, on_ready=ready.set))
        orders = asyncio.create_task(self._order())
        try:
            await ready.wait()
            await self.fleet.run(_HOST, self._port, self.clock.now() + int(seconds * _SECOND))
            await self._settle()
        finally:
            orders.cancel()
            stop.set()
            await asyncio.gather(running, orders, return_exceptions=True)

    async def _order(self) -> None:
        """One downlink for each of some devices, as soon as their first uplink has arrived in the cloud."""
        able = {member.device.name: member for member in self.fleet.members if not member.is_sealed}
        while len(self.ordered) < min(_MAX_ORDERS, len(able)):
            await self.arrivals.next()
            arrived = {name for name, _, _ in self.arrivals.uplinks}
            for name in sorted(arrived & able.keys() - self.ordered.keys())[: _MAX_ORDERS - len(self.ordered)]:
                payload = f"to {name}".encode()[-12:]
                self.ordered[name] = payload
                said = {"id": f"simulated-{name}", "f_port": _F_PORT, "payload": base64.b64encode(payload).decode()}
                topic = f"lorabridge/{self._place.gateway}/cmd/{able[name].device.dev_eui}"
                await self._place.standin.publish(topic, json.dumps(said).encode())

    async def _settle(self) -> None:
        """Until what reached the bridge has arrived, or too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_LIMIT_S):
                while self.arrivals.uplinks.total() < self.expected.total():
                    await self.arrivals.next()

    def _note_decision(self, decision: Decision) -> None:
        self.fleet.note(decision.reception, decision.verdict)

    def _note_downlink(self, downlink: HeardDownlink) -> None:
        if downlink.f_port == _F_PORT and downlink.payload == self.ordered.get(downlink.device):
            self.heard[downlink.device] = downlink.payload

    def _config(self) -> Config:
        """The configuration of the simulated gateway, as an operator's file would say it."""
        place = self._place
        devices = place.folder / "fleet.toml"
        devices.touch(mode=0o600)
        devices.write_text(self.fleet.device_file, encoding="utf-8")
        return Config(
            gateway=GatewaySettings(id=place.gateway),
            devices=devices,
            network=NetworkSettings(region=self.fleet.settings.region, net_ids=(NET_ID,)),
            join=JoinSettings(dev_addr_range=FLEET_ADDRESS_RANGE),
            store=StoreSettings(path=str(place.folder / "fleet" / "lorabridge.db")),
            aws_iot=AwsIotSettings(
                endpoint=place.endpoint,
                connect_address=f"{_HOST}:{place.standin.port}",
                thing_name=place.gateway,
                ca_file=str(place.pki.ca_file),
                certificate_file=str(place.pki.gateway.certificate),
                private_key_file=str(place.pki.gateway.key),
                certificate_warning=Duration(WARNING),
            ),
            report=ReportSettings(stats_interval=Duration(5), security_interval=Duration(5)),
            radios=(SemtechUdpSettings(name="udp", port=self._port),),
        )


def free_udp_port() -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
