"""A configuration that is in order, its files with it, and ways to change it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lorabridge.daemon.config import Config, parse
from lorabridge.daemon.log import LogSettings, set_up
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.device import Device
from lorabridge.simulation.pki import Pki, make_pki
from tests.mosquitto import free_port

ENDPOINT = "test-ats.iot.eu-west-1.amazonaws.com"
GATEWAY = "roof-1"
SMALLEST = f"""
[gateway]
id = "{GATEWAY}"
[aws_iot]
endpoint = "{ENDPOINT}"
thing_name = "{GATEWAY}"
[[radio]]
type = "semtech_udp"
"""


def problems_of(text: str | bytes) -> list[Problem]:
    """Everything that is wrong with a configuration; none when it is taken."""
    try:
        parse(text if isinstance(text, bytes) else text.encode(), "file")
    except ConfigError as error:
        return error.problems
    return []


def places_of(text: str) -> list[str]:
    """Where the problems are, without the name of the file."""
    return [problem.where.removeprefix("file: ") for problem in problems_of(text)]


def device_toml(*devices: Device) -> str:
    """A device file of ABP devices of 1.0."""
    tables = []
    for device in devices:
        assert device.session_keys is not None
        keys = device.session_keys
        app_s_key = "" if keys.app_s_key is None else f'app_s_key = "{keys.app_s_key.reveal().hex()}"\n'
        tables.append(
            f'[[device]]\nname = "{device.name}"\ndev_eui = "{device.dev_eui}"\n'
            f'mac_version = "{device.mac_version.value}"\ndev_addr = "{device.dev_addr}"\n'
            f'nwk_s_key = "{keys.f_nwk_s_int_key.reveal().hex()}"\n{app_s_key}'
            f'counter_policy = "{device.counter_policy.value}"\n'
        )
    return "\n".join(tables)


class Installation:
    """All that a gateway has, in one folder: certificates, devices, places to write, and the configuration."""

    def __init__(self, folder: Path, *devices: Device, port: int | None = None, recording: Path | None = None) -> None:
        """`port`: where the endpoint is dialled; `recording` in place of a forwarder."""
        self.folder = folder
        self.pki: Pki = make_pki(folder / "pki", endpoint=ENDPOINT, gateway_id=GATEWAY)
        self.devices = folder / "devices.d"
        self.devices.mkdir(mode=0o700)
        self.write_devices(*devices)
        self.socket = folder / "status.sock"
        self.udp_port = free_port()
        radio = f'type = "semtech_udp"\nport = {self.udp_port}'
        if recording is not None:
            radio = f'type = "recording"\npath = "{recording}"\npace = "fast"'
        dial = "" if port is None else f'connect_address = "127.0.0.1:{port}"\n'
        self.text = (
            f'devices = "{self.devices}"\n[gateway]\nid = "{GATEWAY}"\n[network]\nregion = "EU868"\n'
            f'[store]\npath = "{folder}/state/lorabridge.db"\n'
            f'[aws_iot]\nendpoint = "{ENDPOINT}"\nthing_name = "{GATEWAY}"\n{dial}'
            f'ca_file = "{self.pki.ca_file}"\ncertificate_file = "{self.pki.gateway.certificate}"\n'
            f'private_key_file = "{self.pki.gateway.key}"\nbackoff_base = "100ms"\n'
            f'[report]\nstatus_socket = "{self.socket}"\n[[radio]]\n{radio}\n'
        )
        self.path = folder / "lorabridge.toml"
        self.write(self.text)
        (folder / "state").mkdir(mode=0o700)

    def write(self, text: str) -> None:
        """Replace the configuration."""
        self.path.write_text(text, encoding="utf-8")

    def write_devices(self, *devices: Device) -> None:
        """Replace the devices."""
        file = self.devices / "all.toml"
        file.touch(mode=0o600)
        file.write_text(device_toml(*devices), encoding="utf-8")

    @property
    def config(self) -> Config:
        """As the bridge reads it."""
        return parse(self.path.read_bytes(), str(self.path))


@contextmanager
def captured_log(level: Literal["debug", "info"] = "info") -> Iterator[io.StringIO]:
    """The daemon's log as it really looks, one JSON object a line, without its limits."""
    stream = io.StringIO()
    log = set_up(LogSettings(level=level, format="json", burst=100_000), stream=stream, environ={})
    try:
        yield stream
    finally:
        log.close()


def lines_of(stream: io.StringIO, event: str = "") -> list[dict[str, Any]]:
    """The lines written so far; with `event` only those of that kind."""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if not event or line["event"] == event]
