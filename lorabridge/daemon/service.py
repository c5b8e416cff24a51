"""The bridge as a process: signals, log, service manager, status socket, reload."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lorabridge.daemon import config as configuration
from lorabridge.daemon import log
from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.config import Config
from lorabridge.daemon.log import Facts
from lorabridge.daemon.notify import Notifier, Watchdog, watchdog_interval
from lorabridge.daemon.status import StatusServer
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.device import Activation, Device, MulticastGroup
from lorabridge.store.database import Store
from lorabridge.store.devices import load_devices_and_groups
from lorabridge.upstream.format_settings import check_devices
from lorabridge.upstream.link_settings import check_files

_FACTS = Facts(logging.getLogger(__name__))


class Service:
    """One configured bridge, from start to end."""

    def __init__(self, path: Path, config: Config, fingerprint: str, logbook: log.Log) -> None:
        self._path = path
        self._config = config
        self._fingerprint = fingerprint
        self._logbook = logbook
        self._notifier = Notifier.from_environ()
        self._stop = asyncio.Event()
        self._reload: asyncio.Task[str] | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises ConfigError for what only the operator can mend."""
        config = self._config
        for problem in check_files(config.link, datetime.now(UTC)):  # frames are kept until this is mended
            (_FACTS.warning if problem.warning else _FACTS.error)("certificate files", reason=str(problem))
        devices, groups = load_checked(config)
        store = await Store.open(config.store, credentials_dir=credentials_directory())
        try:
            bridge = Bridge(
                config, self._fingerprint, devices, store, groups=groups, reload=lambda: self._reload_devices(bridge)
            )
            gc.freeze()  # what was loaded stays: no collection needs to look at it again
            self._listen_for_signals(bridge)
            await self._run(bridge)
        finally:
            await store.close()

    async def _run(self, bridge: Bridge) -> None:
        server = StatusServer(self._config.report.status_socket, bridge.answer)
        await server.start()
        interval = watchdog_interval(os.environ, os.getpid())
        beats = [asyncio.create_task(self._tick_log(), name="log")]
        if interval is not None:
            watchdog = Watchdog(self._notifier, interval, bridge.health.stuck)
            beats.append(asyncio.create_task(watchdog.run(), name="watchdog"))
        try:
            await bridge.run(self._stop, on_ready=lambda: self._notifier.ready("running"))
        finally:
            self._notifier.stopping()
            for beat in beats:
                beat.cancel()
            await server.stop()

    async def _tick_log(self) -> None:
        """Sums of what the log left out, for kinds of fact that fell silent."""
        while True:
            await asyncio.sleep(1.0)
            self._logbook.tick()

    def _listen_for_signals(self, bridge: Bridge) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._start_reload, bridge)

    def _start_reload(self, bridge: Bridge) -> None:
        if self._reload is None or self._reload.done():
            self._reload = asyncio.get_running_loop().create_task(self._reload_devices(bridge), name="reload")

    async def _reload_devices(self, bridge: Bridge) -> str:
        """Take over the device files, or change nothing; what is wrong with them."""
        self._notifier.reloading()
        status, problems = "running", list[str]()
        try:
            config, fingerprint = configuration.load(self._path)
            devices, groups = await asyncio.to_thread(load_checked, config)
            bridge.reload(devices, groups)
            if fingerprint != self._fingerprint:
                _FACTS.warning("the configuration file changed: restart to take over more than the devices")
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
            status = "running, but the last reload was refused: the log says why"  # `systemctl reload` cannot tell
            for problem in problems:
                _FACTS.error("reload refused, nothing was changed", reason=problem)
        finally:
            self._notifier.ready(status)
        return "; ".join(problems)


def load_checked(config: Config) -> tuple[tuple[Device, ...], tuple[MulticastGroup, ...]]:
    """The devices and groups of the configuration.

    Raises ConfigError with every error in them; warnings go to the log.
    """
    devices, groups, problems = load_devices_and_groups(config.devices, credentials_dir=credentials_directory())
    refuse([*problems, *check_regions(config, devices), *check_format(config, devices)])
    return devices, groups


def check_format(config: Config, devices: Sequence[Device]) -> list[Problem]:
    """Devices of which the chosen form of uplinks says something that is not known."""
    refs = [device.ref for device in devices]
    return check_devices(config.link.format, refs, config.network.region, str(config.devices))


def check_regions(config: Config, devices: Sequence[Device]) -> list[Problem]:
    """Devices that only a region makes sense of: the MIC of 1.1 covers data rate and channel, joins set them."""
    hint = "set network.region in the configuration, or region of the device"
    found: list[Problem] = []
    for device in devices:
        where = f"{config.devices}: device {device.name}"
        if (device.region or config.network.region) is not None:
            continue
        if device.mac_version.is_1_1:
            what = "a device of 1.1 needs a region, or every frame of it is bad_mic"
            found.append(Problem(where=where, what=what, hint=hint))
        elif device.activation is Activation.OTAA and config.downlinks.enabled:
            what = "a device that joins needs a region, or nobody knows how to answer it"
            found.append(Problem(where=where, what=what, hint=hint))
    return found


def refuse(problems: Sequence[Problem]) -> None:
    """Raise ConfigError when one of the problems is more than a warning; write the warnings to the log."""
    if any(not problem.warning for problem in problems):
        raise ConfigError(list(problems))
    for problem in problems:
        _FACTS.warning("configuration", reason=str(problem))


def credentials_directory() -> Path | None:
    """Where systemd puts credentials, if it started us with some (systemd.exec(5))."""
    found = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(found) if found else None
