"""`lorabridge radio listen`: show frames as they arrive; nothing is committed, published or answered."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lorabridge.backoff import Backoff
from lorabridge.cli.decode import load_judge
from lorabridge.cli.heard_lines import Table, facts
from lorabridge.cli.listening import add_limits, left_out, stopping, udp_address
from lorabridge.cli.main import EXIT_OK
from lorabridge.daemon import config, log
from lorabridge.daemon.assembly import RADIO_BACKOFF, network_of, source_of
from lorabridge.daemon.config import Config, RadioSettings
from lorabridge.daemon.health import Health
from lorabridge.daemon.log import LogSettings
from lorabridge.daemon.radios import Heard, Radios
from lorabridge.daemon.service import credentials_directory, load_checked
from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import GatewayStatus
from lorabridge.lorawan.answer import Judge, Past
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import RadioSource, SourceEnded
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.holders import PortTakenError, holders
from lorabridge.radio.recording import RecordingSettings
from lorabridge.radio.semtech_udp import SemtechUdpSettings
from lorabridge.radio.sx1302.plan import read_plan
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.settings import did_you_mean
from lorabridge.store.snapshot import open_snapshot

SAYS = "show frames as they arrive, and do nothing else with them"
_ABOUT = """\
Without --udp or --recording every [[radio]] of the configuration is opened, so the bridge must not run: frames that
are heard here are told to nobody else."""
_HINT = "stop that program, the service with sudo systemctl stop lorabridge, or listen elsewhere with --udp"
_PIPED = 1000
"""Columns of what is no terminal."""
_WATCH_INTERVAL = 0.5
_GATEWAYS = 256
"""That are told of: anybody can make up more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the action's arguments."""
    parser.epilog = _ABOUT
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--radio", metavar="NAME", help="only this [[radio]] of the configuration")
    where.add_argument(
        "--udp",
        type=udp_address,
        metavar="ADDRESS:PORT",
        help="listen to packet forwarders that send there",
    )
    where.add_argument("--recording", type=Path, metavar="FILE", help="a recording, all of it at once")
    parser.add_argument(
        "--decode",
        action="store_true",
        help="check the frames with the keys of the devices, and the counters in the store, which do not move",
    )
    parser.add_argument("--devices", type=Path, metavar="PATH", help="check them by a device file or directory alone")
    parser.add_argument("--region", choices=sorted(REGIONS), help="with --devices: of devices of 1.1 that name none")
    parser.add_argument("--json", action="store_true", help="write one JSON object a frame")
    add_limits(parser, "frames")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Show frames until told to stop: by --seconds, --count, SIGINT or SIGTERM, all of them a clean end."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # with --decode keys are in memory
    needs = (args.udp is None and args.recording is None) or (args.decode and args.devices is None)
    loaded = config.load(args.config)[0] if needs else None
    settings = _free(_settings(args, loaded))
    logbook = log.set_up(LogSettings(level="error"))
    try:
        with _judge(args, loaded) as judge:
            return asyncio.run(_listen(settings, _Screen(judge, as_json=args.json, limit=args.count), args.seconds))
    finally:
        logbook.close()


def _settings(args: argparse.Namespace, loaded: Config | None) -> tuple[RadioSettings, ...]:
    """The radios that were asked for. Raises ConfigError."""
    if args.udp is not None:
        return (args.udp,)
    if args.recording is not None or loaded is None:
        return (RecordingSettings(path=args.recording, pace="fast"),)
    if args.radio is None:
        return loaded.radios
    names = [one.name for one in loaded.radios]
    if args.radio not in names:
        hint = did_you_mean(args.radio, names)
        raise ConfigError([Problem(where="--radio", what=f"there is no radio {args.radio!r}", hint=hint)])
    return tuple(one for one in loaded.radios if one.name == args.radio)


def _free(asked: tuple[RadioSettings, ...]) -> tuple[RadioSettings, ...]:
    """Those that nobody else drives: a device, unlike a port, can be opened twice, and then serves neither.

    Raises ConfigError, and TransientError when none is left.
    """
    taken: dict[str, str] = {}
    for one in asked:
        if isinstance(one, Sx1302Settings):
            device = one.device or read_plan(one.configuration).com_path
            others = ", ".join(map(str, holders(device)))
            if others:
                taken[one.name] = f"{one.name}: {device} is in use by {others}"
    if len(taken) == len(asked):
        raise TransientError(f"{'; '.join(taken.values())} ({_HINT})")
    for said in taken.values():
        print(f"{said} ({_HINT})", file=sys.stderr)
    return tuple(one for one in asked if one.name not in taken)


@contextlib.contextmanager
def _judge(args: argparse.Namespace, loaded: Config | None) -> Iterator[Judge | None]:
    """What says whose frames are; None unless it was asked for. Raises ConfigError, TransientError."""
    if args.devices is not None:
        region = args.region or (None if loaded is None else loaded.network.region)
        yield load_judge(args.devices, region)
        return
    if loaded is None or not args.decode:
        yield None
        return
    devices, _ = load_checked(loaded)
    credentials = credentials_directory()
    with open_snapshot(loaded.store, credentials_dir=credentials) as found:
        if found is None:
            print(f"{loaded.store.path}: no database yet, so every counter is a new one", file=sys.stderr)
        past = Past() if found is None else Past(sessions=found.sessions, joined=found.joined, history=found)
        yield Judge(devices, loaded.network.region, network=network_of(loaded, devices), past=past)


async def _listen(settings: tuple[RadioSettings, ...], screen: _Screen, seconds: float | None) -> int:
    """Open the radios and show what they hear. Raises ConfigError, and TransientError when none can be opened."""
    sources = [source_of(one) for one in settings]
    rng = random.SystemRandom()
    backoff = {source.name: Backoff(*RADIO_BACKOFF, rng) for source in sources}
    radios = Radios(sources, Health(time.monotonic), backoff)
    try:
        async with stopping(seconds) as stop:
            failures = await radios.start()
            said = [f"{name}: {error}{_what_to_do(error)}" for name, error in failures.items()]
            if len(failures) == len(sources):
                raise TransientError("; ".join(said))
            for line in said:
                print(f"{line}; it is tried again", file=sys.stderr)
            logging.getLogger("lorabridge").setLevel(logging.INFO)  # how it started was said already, in fewer words
            screen.begin([_described(one) for one in settings if one.name not in failures])
            watching = asyncio.create_task(_watch(sources, screen))
            try:
                await _show(radios, screen, stop)
            finally:
                watching.cancel()
    finally:
        await radios.stop()
    print(f"frames: {screen.shown}; {left_out(radios.counters)}", file=sys.stderr)
    return EXIT_OK


def _what_to_do(error: TransientError) -> str:
    """A hint, where the message has none of its own."""
    return f" ({_HINT})" if isinstance(error, PortTakenError) else ""


def _described(settings: RadioSettings) -> str:
    """A radio, and where it listens."""
    if isinstance(settings, SemtechUdpSettings | BasicsStationSettings):
        return f"{settings.name} ({settings.bind} port {settings.port})"
    return settings.name


async def _show(radios: Radios, screen: _Screen, stop: asyncio.Event) -> None:
    """Every frame, until `stop` is set, the limit is reached or the radios end; what was heard before a stop too."""
    closing = asyncio.create_task(_stop_when(stop, radios))
    try:
        while not screen.is_full:
            screen.show(await radios.receive())
    except SourceEnded:
        pass
    finally:
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)


async def _watch(sources: list[RadioSource], screen: _Screen) -> None:
    """Tell of gateways before the first frame, where a source knows that they are there."""
    while True:
        for source in sources:
            for eui in source.reachable or ():
                screen.note(source.name, eui)
        await asyncio.sleep(_WATCH_INTERVAL)


async def _stop_when(stop: asyncio.Event, radios: Radios) -> None:
    await stop.wait()
    await radios.stop()


class _Screen:
    """What is on standard output: a table, or a JSON object a line; about gateways it tells on standard error."""

    def __init__(self, judge: Judge | None, *, as_json: bool, limit: int | None) -> None:
        self._judge = judge
        self._limit = limit
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPED
        table = Table(columns, judged=judge is not None)
        self._head = None if as_json else table.head
        self._line: Callable[..., str] = _to_json if as_json else table.row
        self._gateways: set[tuple[str, EUI64]] = set()
        self.shown = 0

    @property
    def is_full(self) -> bool:
        """Whether as many frames were shown as were asked for."""
        return self._limit is not None and self.shown >= self._limit

    def begin(self, radios: list[str]) -> None:
        """Say that it listens."""
        print(f"listening to {', '.join(radios)}; Ctrl-C ends it", file=sys.stderr, flush=True)
        if self._head is not None:
            print(self._head, flush=True)

    def show(self, heard: list[Heard]) -> None:
        """Frames up to the limit; of a status report only whose it is."""
        for item in heard:
            if self.is_full:
                break
            if isinstance(item, GatewayStatus):
                self.note(item.source, item.gateway_eui)
                continue
            print(self._line(facts(item, None if self._judge is None else self._judge.hear(item))))
            self.shown += 1
        sys.stdout.flush()

    def note(self, source: str, gateway_eui: EUI64) -> None:
        """A gateway is there: told once."""
        gateway = (source, gateway_eui)
        if gateway not in self._gateways and len(self._gateways) < _GATEWAYS:
            self._gateways.add(gateway)
            print(f"gateway {gateway_eui} is there ({source})", file=sys.stderr, flush=True)


def _to_json(told: dict[str, object]) -> str:
    return json.dumps(told, allow_nan=False, separators=(",", ":"))
