"""What the service manager hears, on a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabridge.daemon.notify import Notifier, Watchdog, watchdog_interval


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(5)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()

    def heard_nothing(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"@lorabridge-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    manager = Manager(name)
    yield manager
    manager.socket.close()


def test_start_reload_and_stop_are_told(manager: Manager) -> None:
    notifier = Notifier(manager.address, monotonic_ns=lambda: 1_234_567_999)
    notifier.ready("2 radios, 5 devices")
    assert manager.heard() == "READY=1\nSTATUS=2 radios, 5 devices"
    notifier.reloading()
    assert manager.heard() == "RELOADING=1\nMONOTONIC_USEC=1234567"
    notifier.stopping()
    assert manager.heard() == "STOPPING=1"


def test_a_line_break_in_a_status_cannot_become_another_assignment(manager: Manager) -> None:
    Notifier(manager.address).status("ok\nMAINPID=1\r\n\ud800" + "x" * 1000)
    heard = manager.heard()
    assert heard.startswith("STATUS=ok MAINPID=1 ?x")
    assert "\n" not in heard
    assert len(heard) < 300


def test_without_a_service_manager_nothing_happens_and_nothing_is_raised(tmp_path: Path) -> None:
    for notifier in (
        Notifier.from_environ({}),
        Notifier.from_environ({"NOTIFY_SOCKET": ""}),
        Notifier.from_environ({"NOTIFY_SOCKET": str(tmp_path / "nobody-there")}),
        Notifier.from_environ({"NOTIFY_SOCKET": "vsock:2:1234"}),
    ):
        notifier.ready()


def test_a_manager_that_does_not_read_never_blocks_us(manager: Manager) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": manager.address})
    for _ in range(2000):
        notifier.watchdog()
    assert manager.heard() == "WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "77"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval_is_the_one_meant_for_this_process(
    environ: dict[str, str], interval: float | None
) -> None:
    assert watchdog_interval(environ, pid=77) == interval


def test_the_sign_of_life_is_withheld_while_something_is_stuck_and_the_log_says_what(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    stuck: list[str] = []
    watchdog = Watchdog(Notifier(manager.address), 20, lambda: stuck)
    assert watchdog.beat()
    assert manager.heard() == "WATCHDOG=1"
    stuck.append("store commit")
    assert not watchdog.beat()
    assert manager.heard() == "STATUS=stuck: store commit"
    assert manager.heard_nothing()
    assert vars(caplog.records[0])["stuck"] == ("store commit",)


def test_signs_of_life_come_well_within_the_interval(manager: Manager) -> None:
    async def beats() -> None:
        loop = asyncio.get_running_loop()
        manager.socket.setblocking(False)
        task = loop.create_task(Watchdog(Notifier(manager.address), 0.03, list).run())
        try:
            for _ in range(5):
                assert await asyncio.wait_for(loop.sock_recv(manager.socket, 4096), 5) == b"WATCHDOG=1"
        finally:
            task.cancel()

    asyncio.run(beats())
