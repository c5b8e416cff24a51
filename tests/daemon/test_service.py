"""The bridge as a process: what the service manager hears, what signals do, what a reload changes and what not."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorabridge.daemon.config import load
from lorabridge.daemon.log import LogSettings, set_up
from lorabridge.daemon.service import Service, check_regions, credentials_directory, load_checked, refuse
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.types import EUI64, DevAddr
from tests.daemon.config_help import Installation, captured_log, lines_of
from tests.lorawan.builders import device, device_1_1
from tests.mosquitto import free_port

METER = device()
VALVE = device(name="valve", dev_eui=EUI64(9), dev_addr=DevAddr(0x260B_9999))
LIMIT = 20.0


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    async def hears(self, state: str) -> str:
        """The next message that begins so; signs of life and others are passed over."""
        async with asyncio.timeout(LIMIT):
            while True:
                said = (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()
                if said.startswith(state):
                    return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = tmp_path / "notify"
    manager = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield manager
    manager.close()
    gc.unfreeze()


async def _asked(path: Path) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    answer: dict[str, Any] = json.loads(await reader.read())
    writer.close()
    await writer.wait_closed()
    return answer


def _serve(
    installation: Installation, manager: Manager, use: Callable[[], Awaitable[None]], end: int = signal.SIGTERM
) -> list[dict[str, Any]]:
    """Run the service; once it is ready do `use`, then end it with a signal. The lines of its log."""

    async def scenario() -> None:
        config, fingerprint = load(installation.path)
        logbook = set_up(LogSettings(), environ={})
        try:
            running = asyncio.create_task(Service(installation.path, config, fingerprint, logbook).run())
            ready = asyncio.create_task(manager.hears("READY=1"))
            await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT)
            ready.cancel()
            if running.done():
                await running
            await use()
            os.kill(os.getpid(), end)
            async with asyncio.timeout(5.0):
                await manager.hears("STOPPING=1")
                await running
        finally:
            logbook.close()

    with captured_log() as stream:
        asyncio.run(scenario())
        return lines_of(stream)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_service_manager_hears_of_start_life_and_end(tmp_path: Path, manager: Manager, end: int) -> None:
    installation = Installation(tmp_path, METER, port=free_port())

    async def use() -> None:
        assert await manager.hears("WATCHDOG=1") == "WATCHDOG=1"
        assert (await _asked(installation.socket))["devices"] == 1

    _serve(installation, manager, use, end)
    assert not installation.socket.exists()


def test_a_reload_takes_over_devices_and_says_when_it_is_done(tmp_path: Path, manager: Manager) -> None:
    installation = Installation(tmp_path, METER, port=free_port())

    async def use() -> None:
        installation.write_devices(METER, VALVE)
        os.kill(os.getpid(), signal.SIGHUP)
        assert "MONOTONIC_USEC=" in await manager.hears("RELOADING=1")
        await manager.hears("READY=1")
        assert (await _asked(installation.socket))["devices"] == 2

    lines = _serve(installation, manager, use)
    assert [line["devices"] for line in lines if line["event"] == "devices reloaded"] == [2]
    assert not [line for line in lines if "restart" in str(line["event"])]


def test_a_reload_of_something_wrong_changes_nothing_and_names_everything(tmp_path: Path, manager: Manager) -> None:
    installation = Installation(tmp_path, METER, port=free_port())

    async def use() -> None:
        broken = installation.devices / "broken.toml"
        broken.touch(mode=0o600)
        broken.write_text('[[device]]\nname = "x"\ndev_uei = "1"\n', encoding="utf-8")
        os.kill(os.getpid(), signal.SIGHUP)
        await manager.hears("RELOADING=1")
        assert "the last reload was refused" in await manager.hears("READY=1")
        assert (await _asked(installation.socket))["devices"] == 1
        broken.unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        assert await manager.hears("READY=1") == "READY=1\nSTATUS=running"
        installation.write("[gateway")
        os.kill(os.getpid(), signal.SIGHUP)
        await manager.hears("READY=1")

    lines = _serve(installation, manager, use)
    refused = [str(line["reason"]) for line in lines if line["event"] == "reload refused, nothing was changed"]
    for said in ("did you mean dev_eui?", "device[1].dev_eui: is missing", "device[1].mac_version", "is no TOML"):
        assert any(said in reason for reason in refused), said


def test_a_reload_says_that_a_changed_configuration_needs_a_restart(tmp_path: Path, manager: Manager) -> None:
    installation = Installation(tmp_path, METER, port=free_port())

    async def use() -> None:
        installation.write(f"{installation.text}# changed\n")
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        await manager.hears("RELOADING=1")
        await manager.hears("READY=1")

    lines = _serve(installation, manager, use)
    assert len([line for line in lines if "restart to take over more" in str(line["event"])]) == 1


def test_certificates_that_are_wrong_do_not_keep_frames_from_being_heard(tmp_path: Path, manager: Manager) -> None:
    installation = Installation(tmp_path, METER, port=free_port())
    installation.pki.gateway.certificate.unlink()

    async def use() -> None:
        answer = await _asked(installation.socket)
        assert answer["healthy"] is False

    lines = _serve(installation, manager, use)
    told = [line for line in lines if line["event"] == "certificate files"]
    assert [line["level"] for line in told] == ["error"]
    assert str(installation.pki.gateway.certificate) in str(told[0]["reason"])


def test_wrong_devices_end_the_start_with_everything_that_is_wrong(tmp_path: Path, manager: Manager) -> None:
    installation = Installation(tmp_path, METER)
    (installation.devices / "all.toml").chmod(0o644)

    async def never() -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="others can read"):
        _serve(installation, manager, never)
    assert not installation.socket.exists()


def test_a_status_socket_that_cannot_be_ends_the_start(tmp_path: Path, manager: Manager) -> None:
    installation = Installation(tmp_path, METER)
    installation.write(installation.text.replace(str(installation.socket), "/proc/status.sock"))

    async def never() -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"report\.status_socket"):
        _serve(installation, manager, never)


def test_without_a_watchdog_no_sign_of_life_is_given(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC")
    installation = Installation(tmp_path, METER, port=free_port())

    async def use() -> None:
        assert {task.get_name() for task in asyncio.all_tasks()} >= {"log", "link"}
        assert "watchdog" not in {task.get_name() for task in asyncio.all_tasks()}

    _serve(installation, manager, use)


def test_a_device_of_1_1_needs_a_region_from_somewhere(tmp_path: Path) -> None:
    config = Installation(tmp_path).config
    without = Installation(tmp_path / "b")
    without.write(without.text.replace('[network]\nregion = "EU868"\n', ""))
    nowhere = [device(), device_1_1(name="a"), device_1_1(name="b", region=None)]
    assert check_regions(config, nowhere) == []
    (problem,) = check_regions(without.config, nowhere)
    assert problem.where.endswith("device b")
    assert "network.region" in problem.hint


def test_warnings_alone_refuse_nothing_and_stand_in_the_log(tmp_path: Path) -> None:
    warning, error = Problem(where="a", what="odd", warning=True), Problem(where="b", what="wrong")
    with captured_log() as stream:
        refuse([warning])
        assert [(line["level"], line["reason"]) for line in lines_of(stream)] == [("warning", "a: warning: odd")]
    with pytest.raises(ConfigError) as refused:
        refuse([warning, error])
    assert refused.value.problems == [warning, error]
    assert [one.name for one in load_checked(Installation(tmp_path, METER, VALVE).config)[0]] == ["meter", "valve"]


def test_credentials_are_where_the_service_manager_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/lorabridge.service")
    assert credentials_directory() == Path("/run/credentials/lorabridge.service")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    assert credentials_directory() is None
