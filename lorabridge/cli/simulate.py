"""`lorabridge simulate`: recordings, or living devices, through the whole bridge into a stand-in for the endpoint."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorabridge.cli.simulate_fleet import Arrivals, LiveRun, Place
from lorabridge.daemon import log
from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.config import Config, GatewaySettings, NetworkSettings, RadioSettings, ReportSettings
from lorabridge.daemon.service import load_checked
from lorabridge.lorawan.decision import Decision
from lorabridge.radio.recording import RecordingSettings
from lorabridge.settings import Duration
from lorabridge.simulation.cast import NET_ID
from lorabridge.simulation.delivery import Delivery
from lorabridge.simulation.fleet import FleetSettings
from lorabridge.simulation.pki import WARNING, Pki, make_pki
from lorabridge.simulation.scenario import DEVICE_FILE, RECORDINGS
from lorabridge.simulation.score import Score, read_expected
from lorabridge.simulation.standin import StandIn, StandInSettings, gateway_policy
from lorabridge.store.database import Store, StoreSettings
from lorabridge.upstream.aws_settings import AwsIotSettings

GATEWAY = "simulated-gateway"
ENDPOINT = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"
TIME_LIMIT = 600.0
FLEET_REGION = "US915"
"""No duty cycle: one gateway can answer any number of devices."""
DEMONSTRATION = FleetSettings(devices=1, region="EU868", every_s=4.0)
DEMONSTRATION_SPEED = 6.0
DEMONSTRATION_SECONDS = 24.0
_REFRESH = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "recordings",
        nargs="*",
        type=Path,
        metavar="RECORDING",
        help="rxpk lines, a pcap of the UDP protocol or of LoRaTap (default: an hour of four regions, shipped)",
    )
    parser.add_argument("--device-file", type=Path, help="device file or folder for your recordings")
    parser.add_argument(
        "--region", help=f"region of your recordings, or of the fleet (default for a fleet: {FLEET_REGION})"
    )
    parser.add_argument("--pace", default="300x", help='"recorded", "fast", or N times as fast: "10x" (default: 300x)')
    fleet = parser.add_argument_group("a living fleet in place of recordings")
    fleet.add_argument("--devices", type=int, metavar="N", help="N virtual devices join, report and are answered")
    fleet.add_argument("--seconds", type=float, default=300.0, metavar="S", help="simulated time (default: 300)")
    fleet.add_argument("--speed", type=float, default=10.0, help="simulated seconds in a real one (default: 10)")
    fleet.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds between reports (default: 60)")
    fleet.add_argument("--gateways", type=int, default=1, help="virtual packet forwarders (default: 1)")
    fleet.add_argument("--attacked", type=float, default=0.0, metavar="SHARE", help="of the frames, such as 0.01")
    fleet.add_argument("--seed", type=int, default=1, help="repeats a fleet's places, payloads and attacks")
    parser.add_argument("--log", choices=["info", "warning", "error"], default="error", help="what to log beside")


def run(args: argparse.Namespace) -> int:
    """Play or live, then print what became of it; exit status 0 when everything was as it deserved."""
    logbook = log.set_up(log.LogSettings(level=args.log))
    try:
        with tempfile.TemporaryDirectory(prefix="lorabridge-simulation-") as folder:
            return asyncio.run(_simulate(args, Path(folder)))
    finally:
        logbook.close()


async def _simulate(args: argparse.Namespace, folder: Path) -> int:
    """One simulation, all of it in `folder`."""
    _say("making a throw-away certificate authority, and starting a stand-in for the endpoint")
    pki = make_pki(folder / "pki", endpoint=ENDPOINT, gateway_id=GATEWAY)
    if args.devices is not None:
        return await _live_fleet(args, folder, pki)
    status = await _recordings(args, folder, pki)
    return status if args.recordings else max(status, await _demonstrate(folder, pki))


async def _live_fleet(args: argparse.Namespace, folder: Path, pki: Pki) -> int:
    """A fleet for as long as was asked."""
    settings = FleetSettings(
        devices=args.devices,
        region=args.region or FLEET_REGION,
        every_s=args.every,
        gateways=args.gateways,
        attacked=args.attacked,
        seed=args.seed,
    )
    _say(f"{args.devices} devices live {args.seconds:g} s at {args.speed:g}x around {args.gateways} gateway(s)")
    live = await _live(settings, args.speed, args.seconds, folder, pki)
    print(f"\n{live.report()}")
    return told(live.problems, "every frame got a verdict that it deserves, every accepted uplink arrived once")


async def _demonstrate(folder: Path, pki: Pki) -> int:
    """One device joins and is answered."""
    print()
    _say("one factory-fresh device joins over UDP, and the cloud answers it")
    live = await _live(DEMONSTRATION, DEMONSTRATION_SPEED, DEMONSTRATION_SECONDS, folder, pki)
    print(live.story)
    return told(live.problems, "it joined, its uplinks arrived, and it heard what the cloud ordered")


async def _live(settings: FleetSettings, speed: float, seconds: float, folder: Path, pki: Pki) -> LiveRun:
    """A fleet with a bridge and a stand-in of its own."""
    arrivals = Arrivals()
    policies = {pki.gateway.fingerprint: gateway_policy(GATEWAY)}
    async with StandIn(StandInSettings(policies=policies), pki=pki, observer=arrivals.note) as standin:
        place = Place(folder=folder, pki=pki, endpoint=ENDPOINT, gateway=GATEWAY, standin=standin)
        live = LiveRun(settings, speed=speed, place=place, arrivals=arrivals)
        await live.run(seconds)
    return live


def told(problems: list[str], success: str) -> int:
    """The exit status, and the last lines."""
    print("\n".join(["", *problems] if problems else ["", success]))
    return 1 if problems else 0


async def _recordings(args: argparse.Namespace, folder: Path, pki: Pki) -> int:
    """Play recordings, and tell what became of them."""
    recordings: list[Path] = args.recordings or sorted(RECORDINGS.glob("*.jsonl"))
    names = {_source_name(path, number): path for number, path in enumerate(recordings, 1)}
    score = Score({name: [] if args.recordings else read_expected(path) for name, path in names.items()})
    delivery = Delivery()
    policies = {pki.gateway.fingerprint: gateway_policy(GATEWAY)}
    async with StandIn(StandInSettings(policies=policies), pki=pki, observer=delivery.note) as standin:
        config = _config(args, folder, pki, standin.port, names)
        _say(f"playing {len(names)} recording(s) at {args.pace} through the bridge, to {ENDPOINT} on 127.0.0.1")
        await _play(config, score, delivery)
    complete = delivery.is_complete(None if args.recordings else score.accepted)
    print(_report(score, delivery, complete=complete))
    return 0 if score.is_perfect() and complete else 1


async def _play(config: Config, score: Score, delivery: Delivery) -> None:
    """Run the bridge until the recordings are over and everything is acknowledged."""
    store = await Store.open(config.store)
    try:
        bridge = Bridge(config, "simulation", load_checked(config)[0], store, observer=_observer(score))
        stop = asyncio.Event()
        limit = asyncio.get_running_loop().call_later(TIME_LIMIT, stop.set)
        with _progress(score, delivery):
            await bridge.run(stop)
        limit.cancel()
    finally:
        await store.close()


def _observer(score: Score) -> Callable[[Decision], None]:
    def note(decision: Decision) -> None:
        device = None if decision.device is None else decision.device.name
        score.note(decision.reception.source, decision.verdict, decision.reason, device)

    return note


def _config(args: argparse.Namespace, folder: Path, pki: Pki, port: int, names: dict[str, Path]) -> Config:
    """The configuration of the simulated gateway, as an operator's file would say it."""
    devices = args.device_file
    if devices is None:
        devices = folder / DEVICE_FILE
        shutil.copyfile(RECORDINGS / DEVICE_FILE, devices)
        devices.chmod(0o600)  # git and wheels do not keep modes, and the loader insists
    radios: tuple[RadioSettings, ...] = tuple(
        RecordingSettings(name=name, path=path, pace=args.pace) for name, path in names.items()
    )
    return Config(
        gateway=GatewaySettings(id=GATEWAY),
        devices=devices,
        network=NetworkSettings(region=args.region, net_ids=() if args.recordings else (NET_ID,)),
        store=StoreSettings(path=str(folder / "state" / "lorabridge.db")),
        aws_iot=AwsIotSettings(
            endpoint=ENDPOINT,
            connect_address=f"127.0.0.1:{port}",
            thing_name=GATEWAY,
            ca_file=str(pki.ca_file),
            certificate_file=str(pki.gateway.certificate),
            private_key_file=str(pki.gateway.key),
            certificate_warning=Duration(WARNING),
        ),
        report=ReportSettings(stats_interval=Duration(5), security_interval=Duration(5)),
        radios=radios,
    )


def _source_name(path: Path, number: int) -> str:
    """A name for the source of a recording."""
    plain = "".join(character if character.isascii() and character.isalnum() else "_" for character in path.stem)
    return plain.lower()[:32] or f"recording_{number}"


@contextmanager
def _progress(score: Score, delivery: Delivery) -> Iterator[None]:
    """A line that counts while frames are played, where somebody is watching."""
    if not sys.stdout.isatty():
        yield
        return
    loop = asyncio.get_running_loop()
    timer = loop.call_soon(lambda: None)

    def show() -> None:
        nonlocal timer
        print(f"\r  {score.progress}; delivered and acknowledged: {delivery.total}   ", end="", flush=True)
        timer = loop.call_later(_REFRESH, show)

    show()
    try:
        yield
    finally:
        timer.cancel()
        print(f"\r  {score.progress}; delivered and acknowledged: {delivery.total}   ")


def _say(line: str) -> None:
    print(f"simulate: {line}", flush=True)


def _report(score: Score, delivery: Delivery, *, complete: bool) -> str:
    """What became of it, for people."""
    parts = ["", score.table(), "", delivery.table(), "", *delivery.samples()]
    if not complete:
        parts += ["", "an accepted frame did not arrive, or arrived twice"]
    elif score.is_perfect() and score.frames:
        parts += ["", f"all {score.frames} frames got the verdict they deserve, every accepted one arrived once"]
    if score.wrong:
        parts += ["", f"{len(score.wrong)} frame(s) got another verdict than they deserve:", *score.wrong[:20]]
    return "\n".join(parts)
