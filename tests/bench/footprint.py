"""What the bridge takes before and beside its work: memory by number of devices, and time to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.load import Load, Subscriber
from tests.bench.report import Report, Row
from tests.mosquitto import MOSQUITTO

LIBRARIES = "asyncio, sqlite3, ssl, construct, Crypto.Cipher.AES, cryptography.x509, msgspec, paho.mqtt.client"
_STARTS = 5


def measure(report: Report, *, quick: bool) -> None:
    """The rows of this section."""
    _version(report)
    if MOSQUITTO is None:
        report.skip("memory and start-up", "mosquitto is missing: apt-get install mosquitto")
        return
    bare = _memory_of_libraries()
    for devices in (10, 1_000) if quick else (10, 1_000, 10_000):
        with system.site(Fleet(devices)) as made:
            _memory(report, made, devices, bare)
            if devices == 10:
                _start(report, made)


def _memory(report: Report, made: system.Site[Fleet], devices: int, bare: float) -> None:
    """Resident memory once every device was heard."""
    subscriber = Subscriber(made.broker.plain_port)
    with system.running(partial(system.start_bridge, made, "bridge", made.broker.port)) as bridge:
        load = Load(made.fleet, bridge, subscriber)
        heard = load.offer(2000.0, devices / 2000.0 + 0.05)
        resident = bridge.resident_mib()
        load.close()
    subscriber.close()
    report.add(
        Row(
            section="footprint",
            name=f"memory with {devices:,} devices, each heard",
            value=resident,
            unit="MiB",
            reference="its libraries, imported",
            reference_value=bare,
            target=64.0 if devices == 1_000 else None,
            note=f"{heard.delivered} of {heard.sent} delivered",
        )
    )


def _memory_of_libraries() -> float:
    """Resident memory of an interpreter that imported what the bridge is built on."""
    code = f"import {LIBRARIES}\nprint(next(line for line in open('/proc/self/status') if 'VmRSS' in line))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(ran.stdout.split()[1]) / 1024


def _start(report: Report, made: system.Site[Fleet]) -> None:
    """From the command to the first READY=1: configuration, keys and database read, radio open."""
    took: list[float] = []
    bare: list[float] = []
    for number in range(_STARTS):
        with system.running(partial(system.start_bridge, made, f"start-{number}", made.broker.port)) as bridge:
            took.append(bridge.ready_after)
        bare.append(_seconds([sys.executable, "-c", f"import {LIBRARIES}"]))
    report.add(_startup("`lorabridge run` until ready", took, "its libraries, imported", bare))


def _version(report: Report) -> None:
    """The shortest command."""
    command = [str(Path(sys.executable).with_name("lorabridge")), "--version"]
    took = [(_seconds(command), _seconds([sys.executable, "-c", "pass"])) for _ in range(_STARTS)]
    ours, bare = zip(*took, strict=True)
    report.add(_startup("`lorabridge --version`", list(ours), "python -c pass", list(bare)))


def _startup(name: str, took: list[float], reference: str, bare: list[float]) -> Row:
    return Row(
        section="footprint",
        name=name,
        value=statistics.median(took) * 1e3,
        unit="ms",
        reference=reference,
        reference_value=statistics.median(bare) * 1e3,
    )


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun
