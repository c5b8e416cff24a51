"""The processes of the end-to-end rows: the bridge as the service starts it, the naive bridge, the stand-in."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from lorabridge.simulation.pki import WARNING, make_pki
from lorabridge.simulation.standin.policy import gateway_policy
from lorabridge.simulation.standin.server import StandIn, StandInSettings
from tests import preload
from tests.bench.fleet import NET_ID
from tests.mosquitto import Mosquitto, free_port
from tests.pki import Pair

ROOT = Path(__file__).parents[2]
GATEWAY_ID = "bench"
ENDPOINT = "bench-ats.iot.eu-central-1.amazonaws.com"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Described(Protocol):
    """Devices that can be written down."""

    def toml(self) -> str:
        """The device file."""


F = TypeVar("F", bound=Described)


class Site(Generic[F]):
    """A folder with a PKI, a device file and a broker; several bridges can be started in it."""

    def __init__(self, folder: Path, fleet: F) -> None:
        self.folder = folder
        self.fleet = fleet
        self.pki = make_pki(folder / "pki", endpoint=ENDPOINT, gateway_id=GATEWAY_ID)
        server = Pair(self.pki.server_ecdsa.certificate, self.pki.server_ecdsa.key)
        self.broker = Mosquitto(folder, self.pki.devices.ca_file, server)
        self.devices = folder / "devices.toml"
        self.devices.touch(mode=0o600)
        self.devices.write_text(fleet.toml(), encoding="utf-8")


@contextmanager
def site(fleet: F) -> Iterator[Site[F]]:
    """A site on the disk of this checkout (the temporary directory may be memory), its broker running."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as folder:
        made = Site(Path(folder), fleet)
        made.broker.start()
        try:
            yield made
        finally:
            made.broker.kill()


@contextmanager
def stand_in(made: Site[Any]) -> Iterator[int]:
    """The stand-in for the endpoint before the broker, without quota, as a process; gives its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve_stand_in, args=(made, theirs), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve_stand_in(made: Site[Any], pipe: Connection) -> None:
    settings = StandInSettings(
        policies={made.pki.gateway.fingerprint: gateway_policy(GATEWAY_ID)},
        publishes_per_second=0,
        bytes_per_second=0,
        unacknowledged=0,
    )

    async def serve() -> None:
        async with StandIn(settings, pki=made.pki, broker=("127.0.0.1", made.broker.plain_port)) as standin:
            pipe.send(standin.port)
            await asyncio.Event().wait()

    asyncio.run(serve())


class Process:
    """A bridge that runs."""

    def __init__(
        self, command: list[str], udp_port: int, topic: bytes, folder: Path, *, slow_fsync: Path | None
    ) -> None:
        self.udp_port = udp_port
        self.topic = topic
        self.ready_after = 0.0
        self.status_socket = Path(os.path.relpath(folder, ROOT)) / "status.sock"
        self._log = folder / "log"
        environment = dict(os.environ)
        if slow_fsync is not None:
            environment["LD_PRELOAD"] = str(slow_fsync)
        notify = f"\0lorabridge-bench-{udp_port}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self._log.open("wb") as log:
            ready.bind(notify)
            ready.settimeout(0.1)
            environment["NOTIFY_SOCKET"] = notify.replace("\0", "@")
            begun = time.perf_counter()
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            while not _says_ready(ready):
                if self._process.poll() is not None or time.perf_counter() > begun + 60:
                    self._process.kill()
                    raise RuntimeError(f"{command[0]} did not start: {self.log()}")
            self.ready_after = time.perf_counter() - begun

    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def resident_mib(self) -> float:
        """Its resident memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Without a moment of processor time."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it as the service manager does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _says_ready(notified: socket.socket) -> bool:
    """Whether the process said so just now."""
    try:
        return b"READY=1" in notified.recv(4096)
    except TimeoutError:
        return False


LISTENING = f'[network]\nregion = "EU868"\nnet_ids = ["{NET_ID}"]\n[downlinks]\nenabled = false\n'
"""What the other bridges do too: nobody is answered."""


UNLIMITED = "max_publishes_per_second = 0\nmax_bytes_per_second = 0\n"


def start_bridge(
    made: Site[Any],
    name: str,
    mqtt_port: int,
    *,
    slow_fsync: Path | None = None,
    network: str = LISTENING,
    aws_iot: str = UNLIMITED,
    store: str = "",
) -> Process:
    """`lorabridge run` with a free UDP port; durability on. Its own state, unless `store` has the lines of another."""
    folder = made.folder / name
    folder.mkdir()
    udp_port = free_port()
    configuration = folder / "lorabridge.toml"
    store = store or f'path = "{folder}/lorabridge.db"'
    configuration.write_text(
        f'devices = "{made.devices}"\n'
        f'[gateway]\nid = "{GATEWAY_ID}"\n'
        f"{network}"
        f"[store]\n{store}\n"
        f'[aws_iot]\nendpoint = "{ENDPOINT}"\nconnect_address = "127.0.0.1:{mqtt_port}"\n'
        f'ca_file = "{made.pki.ca_file}"\ncertificate_file = "{made.pki.gateway.certificate}"\n'
        f'private_key_file = "{made.pki.gateway.key}"\nthing_name = "{GATEWAY_ID}"\n'
        f'certificate_warning = "{WARNING}s"\n'
        f"{aws_iot}"
        'backoff_base = "100ms"\nbackoff_cap = "1s"\n'
        f'[report]\nstatus_socket = "{os.path.relpath(folder, ROOT)}/status.sock"\n'
        f'[[radio]]\ntype = "semtech_udp"\nport = {udp_port}\n',
        encoding="utf-8",
    )
    command = [str(Path(sys.executable).with_name("lorabridge")), "run", "--config", str(configuration)]
    topic = f"lorabridge/{GATEWAY_ID}/uplink/".encode()
    return Process(command, udp_port, topic, folder, slow_fsync=slow_fsync)


def start_naive_bridge(made: Site[Any], name: str, *, slow_fsync: Path | None = None) -> Process:
    """The naive bridge, with the same certificates and devices."""
    folder = made.folder / name
    folder.mkdir()
    udp_port = free_port()
    pki = made.pki
    files = [str(path) for path in (folder / "naive.db", pki.ca_file, pki.gateway.certificate, pki.gateway.key)]
    command = [sys.executable, "-m", "tests.bench.naive_bridge", str(udp_port), str(made.broker.port), *files]
    return Process([*command, str(made.devices)], udp_port, b"naive/uplink", folder, slow_fsync=slow_fsync)


@contextmanager
def running(start: Callable[[], Process]) -> Iterator[Process]:
    """A process, ended afterwards."""
    process = start()
    try:
        yield process
    finally:
        process.stop()


def build_slow_fsync(folder: Path) -> Path | None:
    """The library that delays every write-through; None without a C compiler."""
    compiler = shutil.which("cc")
    return None if compiler is None else preload.build(Path(__file__).with_name("slow_fsync.c"), folder, compiler)
