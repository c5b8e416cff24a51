"""The real thing: `lorabridge run` as a process, the stand-in with mosquitto behind it, and what arrives there.

A `Site` is the cloud side of one test, an `Installation` one configured bridge, which can be started as often
as its state should survive, a `Bridge` one run of it. When an installation is closed, everything that the bridge
printed, answered, sent and stored is searched for the keys that it was given.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorabridge.simulation.cast import NET_ID
from lorabridge.simulation.pki import WARNING, Pki
from lorabridge.simulation.standin import Policy
from lorabridge.store.key_wrap import DEFAULT_FILE as KEY_ENCRYPTION_KEY
from tests.mosquitto import Mosquitto, free_port
from tests.pki import Pair
from tests.secret_search import assert_no_secret, device_keys, private_number
from tests.simulation.standin_help import ENDPOINT, GATEWAY, Running, new_pki, running

ROOT = Path(__file__).parents[2]
LORABRIDGE = str(Path(sys.executable).with_name("lorabridge"))
_numbers = itertools.count()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Until `condition` holds; fails with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        threading.Event().wait(0.01)


class Site:
    """The cloud side: a PKI, mosquitto, and the stand-in for AWS IoT in front of it."""

    def __init__(self, folder: Path, broker: Mosquitto, endpoint: Running) -> None:
        self.folder = folder
        self.broker = broker
        self.endpoint = endpoint
        self.pki = endpoint.pki
        self.port = endpoint.standin.port
        self.published = endpoint.published
        """(topic, payload) of every publish, from the moment that its PUBACK may leave."""

    def refuse(self, on: bool) -> None:
        """The endpoint goes away, connections and all; or comes back."""

        def change() -> None:
            self.endpoint.standin.refuse(on)
            if on:
                self.endpoint.standin.cut()

        self.endpoint.call(change)

    def stall(self, on: bool) -> None:
        """The endpoint goes on accepting connections and answers nothing."""
        self.endpoint.call(lambda: self.endpoint.standin.stall(on))

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        """Every record of a kind that was published so far."""
        prefix = f"lorabridge/{GATEWAY}/{kind}"
        return [json.loads(payload) for topic, payload in list(self.published) if f"{topic}/".startswith(f"{prefix}/")]


@contextmanager
def open_site(*, policies: Callable[[Pki], dict[str, Policy]] | None = None, **changes: Any) -> Iterator[Site]:
    """A site in a folder of its own, whose path is short enough for Unix sockets; `changes` are of the stand-in."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        pki = new_pki(folder)
        server = Pair(pki.server_ecdsa.certificate, pki.server_ecdsa.key)
        if policies is not None:
            changes["policies"] = policies(pki)
        broker = Mosquitto(folder, pki.devices.ca_file, server)
        try:
            broker.start()
            with running(pki, broker=("127.0.0.1", broker.plain_port), **{"event_limit": 100} | changes) as endpoint:
                yield Site(folder, broker, endpoint)
        finally:
            broker.kill()


class Bridge:
    """One run of the daemon."""

    def __init__(self, command: Sequence[str], log: Path, *, watchdog_s: float | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        address = f"lorabridge-e2e-{os.getpid()}-{next(_numbers)}"
        environment["NOTIFY_SOCKET"] = f"@{address}"
        if watchdog_s is not None:
            environment["WATCHDOG_USEC"] = str(round(watchdog_s * 1e6))
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(f"\0{address}")
        self._log = log
        self._log_begins = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

    def log(self) -> str:
        """What this run wrote so far."""
        return self._log.read_bytes()[self._log_begins :].decode()

    def hears(self, state: bytes, seconds: float) -> bool:
        """Whether the service manager is told `state` within a time; what it is told before is passed over."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._notified.settimeout(left)
            try:
                if state in self._notified.recv(4096).split(b"\n"):
                    return True
            except TimeoutError:
                break
        return False

    def forget_notifications(self) -> None:
        """What the service manager was told until now is of no interest."""
        self._notified.setblocking(False)
        try:
            while True:
                self._notified.recv(4096)
        except BlockingIOError:
            return

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Until it says READY=1."""
        assert self.hears(b"READY=1", seconds), f"not ready: {self.log()[-3000:]}"

    def reload(self) -> None:
        """SIGHUP, until the service manager is told that it is over."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_ready()

    def kill(self) -> None:
        """At once, without a word; nothing happens to one that has ended."""
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def stop(self, seconds: float = 10.0) -> float:
        """SIGTERM, and the clean end of it; gives the seconds it took."""
        begun = time.monotonic()
        self.process.terminate()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop within {seconds:g} s: {self.log()[-3000:]}") from None
        self.hang_up()
        assert status == 0, self.log()[-3000:]
        return time.monotonic() - begun

    def hang_up(self) -> None:
        """The service manager listens no more."""
        self._notified.close()

    def resident_mib(self) -> float:
        """Its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


class Installation:
    """A bridge as an operator installs it: configuration, device file, state. `close` is part of every test."""

    def __init__(
        self,
        site: Site,
        devices: str,
        *,
        state: Path | None = None,
        net_id: str = str(NET_ID),
        log: str = 'level = "debug"\nformat = "json"\nburst = 100000',
        aws_iot: str = "",
        region: str = "EU868",
        more: str = "[downlinks]\nenabled = false",
    ) -> None:
        """`log` and `aws_iot`: lines for these tables of the configuration; `more`: further tables.

        Unless a test is about answers the bridge only listens.
        """
        self.site = site
        self.udp_port = free_port()
        self.folder = site.folder / f"bridge-{next(_numbers)}"
        self.folder.mkdir(mode=0o700)
        self.state = state or self.folder / "state"
        self.database = self.state / "lorabridge.db"
        self.devices = self.folder / "devices.toml"
        self._secrets: set[bytes] = {private_number(site.pki.gateway.key)}
        self._seen: dict[str, bytes] = {}
        self._runs: list[Bridge] = []
        self._log_file = self.folder / "log"
        self.write_devices(devices)
        self.configuration = self.folder / "lorabridge.toml"
        self.configuration.write_text(self._config(net_id, log, aws_iot, region, more), encoding="utf-8")

    def _config(self, net_id: str, log: str, aws_iot: str, region: str, more: str) -> str:
        pki = self.site.pki
        return (
            f'devices = "{self.devices}"\n'
            f'[gateway]\nid = "{GATEWAY}"\n'
            f'[network]\nregion = "{region}"\nnet_ids = [{f"{net_id!r}" if net_id else ""}]\n'
            f'[store]\npath = "{self.database}"\n'
            f'[aws_iot]\nendpoint = "{ENDPOINT}"\nconnect_address = "127.0.0.1:{self.site.port}"\n'
            f'ca_file = "{pki.ca_file}"\ncertificate_file = "{pki.gateway.certificate}"\n'
            f'private_key_file = "{pki.gateway.key}"\nthing_name = "{GATEWAY}"\n'
            f'certificate_warning = "{WARNING}s"\n'
            "max_publishes_per_second = 0\nmax_bytes_per_second = 0\n"
            f'backoff_base = "100ms"\nbackoff_cap = "1s"\n{aws_iot}\n'
            f'[report]\nstatus_socket = "{self.folder}/status.sock"\n'
            'stats_interval = "1s"\nsecurity_interval = "1s"\n'
            f"[log]\n{log}\n{more}\n"
            f'[[radio]]\ntype = "semtech_udp"\nport = {self.udp_port}\n'
        )

    def write_devices(self, text: str) -> None:
        """Replace the device file; its keys are searched for ever after."""
        self.devices.touch(mode=0o600)
        self.devices.write_text(text, encoding="utf-8")
        self._secrets.update(device_keys(text))

    def launch(self, *, command: Sequence[str] = (LORABRIDGE,), watchdog_s: float | None = None) -> Bridge:
        """Start it, and do not wait."""
        bridge = Bridge([*command, "run", "--config", str(self.configuration)], self._log_file, watchdog_s=watchdog_s)
        self._runs.append(bridge)
        return bridge

    def start(self, *, command: Sequence[str] = (LORABRIDGE,), watchdog_s: float | None = None) -> Bridge:
        """Start it and wait until it is ready."""
        bridge = self.launch(command=command, watchdog_s=watchdog_s)
        bridge.wait_ready()
        return bridge

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command of the program, ended; what it prints is searched for keys like all else."""
        done = subprocess.run([LORABRIDGE, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        self._seen[f"{' '.join(words)} #{len(self._seen)}"] = (done.stdout + done.stderr).encode()
        return done

    def note(self, name: str, content: bytes) -> None:
        """Something else to be searched for keys."""
        self._seen[name] = content

    def whole_log(self) -> str:
        """Of all runs."""
        return self._log_file.read_text(encoding="utf-8")

    def status(self) -> dict[str, Any]:
        """What the running bridge answers at its socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(10)
            asking.connect(str(self.folder / "status.sock"))
            with asking.makefile("rb") as answer:
                content = answer.read()
        self._seen["the last status"] = content
        found: dict[str, Any] = json.loads(content)
        return found

    def counters(self) -> dict[str, int]:
        """Of the running bridge."""
        found: dict[str, int] = self.status()["counters"]
        return found

    def judged(self) -> int:
        """Frames that the running bridge has judged."""
        verdicts: dict[str, int] = self.status()["verdicts"]
        return sum(verdicts.values())

    def wait_judged(self, frames: int, seconds: float = 30.0) -> None:
        """Until so many frames of this run were judged and committed."""
        wait_until(lambda: self.judged() >= frames, f"{frames} frames judged", seconds)

    def wait_drained(self, seconds: float = 60.0) -> None:
        """Until no record waits for its PUBACK."""
        wait_until(lambda: self.counters()["outbox_records_uplink"] == 0, "all uplinks acknowledged", seconds)

    def close(self) -> None:
        """End what runs, and look for keys in everything that came out of it."""
        for bridge in self._runs:
            bridge.kill()
        self.search_for_secrets()

    def note_secrets(self, secrets: Iterable[bytes]) -> None:
        """More keys that may stand nowhere."""
        self._secrets.update(secrets)

    def search_for_secrets(self) -> None:
        """Look for the keys in what the bridge has printed, answered, sent and stored until now."""
        key_file = self.state / KEY_ENCRYPTION_KEY
        if key_file.exists():
            self.note_secrets([bytes.fromhex(key_file.read_text(encoding="ascii"))])
        places = dict(self._seen)
        places["log"] = self._log_file.read_bytes() if self._log_file.exists() else b""
        places["published"] = b"\n".join(topic.encode() + b" " + payload for topic, payload in self.site.published)
        for file in self.state.glob("*"):
            if file != key_file:
                places[file.name] = file.read_bytes()
        assert_no_secret(places, self._secrets)


@contextmanager
def installed(site: Site, devices: str, **how: Any) -> Iterator[Installation]:
    """An installation, closed afterwards."""
    installation = Installation(site, devices, **how)
    try:
        yield installation
    finally:
        installation.close()
