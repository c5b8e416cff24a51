"""A TPM in software for OpenSSL's provider: swtpm, a resource manager before it as a kernel has, and a bus for that.

Debian: swtpm, tpm2-openssl, tpm2-abrmd, libtss2-tcti-tabrmd0, dbus. The kernel's own resource manager (`/dev/tpmrm0`)
needs a driver that a container does not have.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.components import component
from tests.mosquitto import free_port

MODULES = Path("/usr/lib")
HINT = ".ci/tpm-tools installs it"
CONFIGURATION = """\
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
alg_section = algorithm_sect
[provider_sect]
default = default_sect
tpm2 = tpm2_sect
[default_sect]
activate = 1
[tpm2_sect]
activate = 1
[algorithm_sect]
default_properties = ?tpm2.signature=yes
"""
"""As docs/tpm.md has it for tpm2-openssl 1.1."""
_KINDS = {"EC": ("-algorithm", "EC", "-pkeyopt", "group:P-256"), "RSA": ("-algorithm", "RSA", "-pkeyopt", "bits:2048")}


class SoftwareTpm:
    """One that runs; `environment` is what a process needs to use it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        configuration = folder / "openssl.cnf"
        configuration.write_text(CONFIGURATION, encoding="ascii")
        self.environment = {
            "OPENSSL_CONF": str(configuration),
            "TPM2OPENSSL_TCTI": "tabrmd:bus_type=session",
            "DBUS_SESSION_BUS_ADDRESS": address,
        }

    @property
    def command(self) -> tuple[str, ...]:
        """What to put before a command."""
        return ("env", *(f"{name}={value}" for name, value in self.environment.items()))

    def openssl(self, *arguments: str) -> bytes:
        """What `openssl` prints, with the TPM."""
        done = subprocess.run([*self.command, "openssl", *arguments], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def new_key(self, kind: str, path: Path, password: str = "") -> bytes:
        """A key made in the TPM, as a file (0600) that only this TPM can use; its public key as PEM."""
        path.touch(mode=0o600)
        sealed = ("-pkeyopt", f"user-auth:{password}") if password else ()
        self.openssl("genpkey", "-propquery", "?provider=tpm2", *_KINDS[kind], *sealed, "-out", str(path))
        return self.openssl("pkey", "-in", str(path), "-passin", f"pass:{password}", "-pubout")


@contextmanager
def software_tpm(folder: Path) -> Iterator[SoftwareTpm]:
    """Skips where something is missing; with CI=true that is a failure."""
    lack("OpenSSL's provider tpm2", *MODULES.glob("*-linux-gnu*/ossl-modules/tpm2.so"))
    lack("libtss2-tcti-tabrmd", *MODULES.glob("*-linux-gnu*/libtss2-tcti-tabrmd.so.0"))
    programs = {name: component(name, hint=HINT) for name in ("swtpm", "tpm2-abrmd", "dbus-daemon", "openssl")}
    state = folder / "tpm"
    state.mkdir(parents=True)
    port = _two_ports()
    bus = f"unix:path={folder}/bus"
    with ExitStack() as started:

        def start(*command: str, until: bytes = b"", environment: dict[str, str] | None = None) -> None:
            started.enter_context(_running(command, state / f"{Path(command[0]).name}.log", until, environment))

        control = f"type=tcp,port={port + 1},bindaddr=127.0.0.1"
        server = f"type=tcp,port={port},bindaddr=127.0.0.1"
        words = ("--tpm2", "--tpmstate", f"dir={state}", "--flags", "startup-clear", "--log", "fd=1,level=1")
        start(programs["swtpm"], "socket", *words, "--server", server, "--ctrl", control)
        _wait_for_port(port + 1)
        start(programs["dbus-daemon"], "--session", "--nofork", f"--address={bus}", "--print-address", until=b"unix:")
        start(
            programs["tpm2-abrmd"],
            "--session",
            "--allow-root",
            f"--tcti=swtpm:host=127.0.0.1,port={port}",
            environment={"DBUS_SESSION_BUS_ADDRESS": bus},
        )
        tpm = SoftwareTpm(folder, bus)
        _wait_for(tpm)
        yield tpm


def lack(what: str, *found: Path) -> None:
    """Skips, or fails with CI=true, when nothing was found."""
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing: {HINT}")
    pytest.skip(f"{what} is missing: {HINT}")


def skip_unless_python_uses_it() -> None:
    """A Python with an OpenSSL of its own finds no provider of the system's."""
    asking = [component("openssl", hint=HINT), "version"]
    system = subprocess.run(asking, capture_output=True, text=True, check=True).stdout
    if ssl.OPENSSL_VERSION not in system:
        pytest.skip(f"this Python has {ssl.OPENSSL_VERSION} of its own, the system {system.strip()}")


def _wait_for(tpm: SoftwareTpm, seconds: float = 60.0) -> None:
    """Until the provider reaches the TPM through the resource manager."""
    asking = [*tpm.command, "openssl", "list", "-providers"]
    deadline = time.monotonic() + seconds
    while b"TPM 2.0" not in (done := subprocess.run(asking, capture_output=True, check=False)).stdout:
        assert time.monotonic() < deadline, f"no TPM: {done.stderr.decode(errors='replace')[-2000:]}"
        threading.Event().wait(0.05)


@contextmanager
def _running(
    command: Sequence[str], log: Path, until: bytes, environment: dict[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has printed `until`, ended afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | (environment or {}))
    try:
        deadline = time.monotonic() + 60
        while until not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            threading.Event().wait(0.01)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _two_ports() -> int:
    """The first of two free ports in a row: the library expects swtpm's control channel on the second."""
    while True:
        port = free_port()
        with socket.socket() as probe, contextlib.suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", port + 1))
            return port


def _wait_for_port(port: int, seconds: float = 60.0) -> None:
    """Until somebody listens; the control channel may be connected to, while the other one serves a single client."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 10):
            return
        assert time.monotonic() < deadline, "swtpm does not listen"
        threading.Event().wait(0.01)
