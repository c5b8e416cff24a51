"""A real mosquitto: TLS with client certificates or a password on one port, a plain loopback port for watchers."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.components import component
from tests.pki import Pair

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
"""For who can do without."""


def require_mosquitto() -> str:
    """Its path; without it the test is skipped, or fails where CI says that everything must run."""
    return component("mosquitto", hint="apt-get install mosquitto")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker on fixed ports, which can be stopped, killed and started again."""

    def __init__(
        self, folder: Path, ca_file: Path, server: Pair, *, deny: str = "", user: tuple[str, str] | None = None
    ) -> None:
        """`deny`: a topic filter that clients with a certificate may not publish to.

        `user`: the name and password that the TLS port asks for in the place of a certificate.
        """
        self._binary = require_mosquitto()
        self.port, self.plain_port = free_port(), free_port()
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        rules = folder / "acl"
        rules.write_text(f"topic readwrite #\n{f'topic deny {deny}' if deny else ''}\n", encoding="utf-8")
        rules.chmod(0o644)
        self._configuration = folder / "mosquitto.conf"
        runs_as = "user root\n" if os.geteuid() == 0 else ""
        asks_for = "allow_anonymous true\nrequire_certificate true\ntls_version tlsv1.2\n"
        if user is not None:
            self.set_password(folder / "passwords", *user)
            rules.write_text(f"user {user[0]}\n{rules.read_text(encoding='utf-8')}", encoding="utf-8")
            asks_for = f"allow_anonymous false\npassword_file {folder / 'passwords'}\n"
        self._configuration.write_text(
            f"{runs_as}per_listener_settings true\nset_tcp_nodelay true\nmax_queued_messages 0\n"
            f"listener {self.port} 127.0.0.1\nacl_file {rules}\n{asks_for}"
            f"cafile {ca_file}\ncertfile {server.certificate}\nkeyfile {server.key}\n"
            f"listener {self.plain_port} 127.0.0.1\nallow_anonymous true\n",
            encoding="utf-8",
        )

    @staticmethod
    def set_password(path: Path, name: str, password: str) -> None:
        """The one user of a password file."""
        tool = component("mosquitto_passwd", hint="apt-get install mosquitto")
        path.write_text("", encoding="utf-8")
        subprocess.run([tool, "-b", path, name, password], check=True, capture_output=True)

    def reload(self) -> None:
        """Read the password file again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Returns when both ports answer."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._binary, "-c", self._configuration], stdout=log, stderr=log)
        for port in (self.port, self.plain_port):
            self._wait_for(port)

    def _wait_for(self, port: int) -> None:
        assert self._process is not None
        for _ in range(500):
            if self._process.poll() is not None:
                pytest.fail(f"mosquitto ended: {self._log.read_text(encoding='utf-8')}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionRefusedError:
                threading.Event().wait(0.01)
            else:
                return
        pytest.fail("mosquitto does not answer")

    def kill(self) -> None:
        """At once, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Watcher:
    """Everything that the broker delivers, by its plain port."""

    def __init__(self, port: int, topic: str = "#") -> None:
        self.messages: queue.Queue[MQTTMessage] = queue.Queue()
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _userdata, message: self.messages.put(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def take(self, count: int, timeout: float = 20) -> list[tuple[str, bytes]]:
        """The next `count` messages."""
        taken = [self.messages.get(timeout=timeout) for _ in range(count)]
        return [(message.topic, bytes(message.payload)) for message in taken]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def watching(port: int, topic: str = "#") -> Iterator[Watcher]:
    watcher = Watcher(port, topic)
    try:
        yield watcher
    finally:
        watcher.close()


class Publisher:
    """Somebody who publishes by the plain port."""

    def __init__(self, port: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes) -> None:
        """With QoS 1; returns when the broker has it."""
        self._client.publish(topic, payload, qos=1).wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def publishing(port: int) -> Iterator[Publisher]:
    publisher = Publisher(port)
    try:
        yield publisher
    finally:
        publisher.close()
