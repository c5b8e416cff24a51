"""`lorabridge radio probe`: what is attached, for people and for machines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lorabridge.cli import radio_probe
from lorabridge.cli.main import main
from lorabridge.radio.usb_mcu import find_ports
from tests.radio.gnss_sender import gga, rmc, time_gps
from tests.radio.pty_device import PtyDevice, attached, concentrator, silent

NOON = 1_477_742_418
"""2026-11-03 12:00:00 UTC, in GPS seconds."""


def test_people_read_who_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with attached(concentrator) as device:
        assert main(["radio", "probe", "--port", device.path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        device.path,
        "  USB concentrator (SX1302 or SX1303), firmware V01.00.00, id 0035002b5453500f20343737",
        "  25.31 °C, up for 1000 s",
    ]


def test_machines_get_every_port_and_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with attached(concentrator) as good, attached(silent) as bad:
        assert main(["radio", "probe", "--json", "--timeout", "0.3", "--port", good.path, "--port", bad.path]) == 1
    first, second = json.loads(capsys.readouterr().out)["ports"]
    assert first.keys() == second.keys()
    assert (first["port"], first["unique_id"], first["fault"]) == (good.path, "0035002b5453500f20343737", None)
    assert (first["uptime_ms"], first["temperature_c"]) == (1_000_000, 25.31)
    assert (second["unique_id"], second["fault"], second["says"]) == (None, "silent", "does not answer")


def test_who_was_identified_is_told_although_it_fails_then(capsys: pytest.CaptureFixture[str]) -> None:
    def half(request: bytes) -> bytes:
        return concentrator(request)[: 25 if request[3] == 0 else 6]

    with attached(half) as device:
        assert main(["radio", "probe", "--timeout", "0.3", "--port", device.path]) == 1
    told = capsys.readouterr().out
    assert "id 0035002b5453500f20343737" in told
    assert "  incomplete: stopped in the middle of an answer\n  unplug it" in told


def test_a_port_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["radio", "probe", "--port", str(tmp_path / "ttyACM7")]) == 1
    assert "absent: there is no such device" in capsys.readouterr().out


@pytest.mark.skipif(bool(find_ports()), reason="this machine has a device with the identity of a concentrator")
def test_where_nothing_is_attached_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["radio", "probe"]) == 1
    assert capsys.readouterr().out.strip() == radio_probe._NONE_FOUND
    assert main(["radio", "probe", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"ports": [], "gnss": []}


@contextmanager
def _talking(device: PtyDevice, data: bytes) -> Iterator[None]:
    """A receiver that says the same again and again, as one does every second."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.02):
            device.send(data)

    thread = threading.Thread(target=talk)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_receiver_says_where_it_is_and_what_time(capsys: pytest.CaptureFixture[str]) -> None:
    said = gga() + rmc(NOON, 18) + time_gps(NOON, 18)
    with attached(concentrator) as usb, attached(silent) as device, _talking(device, said):
        asked = ["radio", "probe", "--port", usb.path, "--gnss", device.path, "--timeout", "5"]
        assert main([*asked, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["gnss"]
        assert main(asked) == 0
    assert (found["fault"], found["state"]["gps_ns"]) == (None, NOON * 1_000_000_000)
    told = capsys.readouterr().out
    assert "  GNSS receiver, time 2026-11-03T12:00:00Z (quality " in told
    assert "  46.86367, -7.43200, 8 satellites" in told


def test_a_receiver_without_sky_is_in_order_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        attached(concentrator) as usb,
        attached(silent) as device,
        _talking(device, gga(0) + rmc(NOON, 18, status="V")),
    ):
        assert main(["radio", "probe", "--port", usb.path, "--gnss", device.path, "--timeout", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "GNSS receiver, no time yet\n  no position yet" in told


def test_a_port_without_a_receiver_fails_the_probe(capsys: pytest.CaptureFixture[str]) -> None:
    with attached(concentrator) as usb, attached(silent) as device:
        assert main(["radio", "probe", "--port", usb.path, "--gnss", device.path, "--timeout", "0.3"]) == 1
    assert f"{device.path}\n  silent: says nothing\n" in capsys.readouterr().out
