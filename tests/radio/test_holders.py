"""Who has a port is found out from the kernel, and told with the reason why it cannot be had."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lorabridge.errors import TransientError
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.basics_station.source import BasicsStation
from lorabridge.radio.holders import _bound, _has_open, _leads_to, _name, holders, port_holders, taken
from lorabridge.radio.semtech_udp import SemtechUdp, SemtechUdpSettings

_HOLD = """\
import socket
held = socket.socket(socket.{family}, socket.{kind})
held.bind(("{address}", 0))
if held.type == socket.SOCK_STREAM:
    held.listen()
print(held.getsockname()[1], flush=True)
input()
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_process_that_has_a_port_is_named(kind: socket.SocketKind, address: str) -> None:
    family = "AF_INET6" if ":" in address else "AF_INET"
    code = _HOLD.format(family=family, kind=kind.name, address=address)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            port = int(other.stdout.readline())
            assert [one.pid for one in port_holders(kind, port)] == [other.pid]
            source = (
                SemtechUdp(SemtechUdpSettings(bind=address, port=port))
                if kind is socket.SOCK_DGRAM
                else BasicsStation(BasicsStationSettings(region="EU868", bind=address, port=port))
            )
            says = rf"port {port}: Address already in use by python\S* \(pid {other.pid}\)$"
            with pytest.raises(TransientError, match=says):
                asyncio.run(source.start())
        finally:
            other.kill()


def test_a_port_of_our_own_is_ours_and_one_that_is_only_spoken_to_is_nobodys() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to,
    ):
        mine.bind(("127.0.0.1", 0))
        port = mine.getsockname()[1]
        to.bind(("127.0.0.1", 0))
        to.connect(("127.0.0.1", port))
        assert [one.pid for one in port_holders(socket.SOCK_DGRAM, port)] == [os.getpid()]
        assert port_holders(socket.SOCK_STREAM, port) == []
        assert port_holders(socket.SOCK_DGRAM, to.getsockname()[1]) == []


def test_what_is_no_matter_of_others_is_told_as_it_is(tmp_path: Path) -> None:
    assert taken(OSError(99, "Cannot assign requested address"), socket.SOCK_DGRAM, 1) == (
        "Cannot assign requested address"
    )
    unseen = taken(OSError(98, "Address already in use"), socket.SOCK_DGRAM, 0x10000)
    assert re.search("in use by a program that this account may not see", unseen)
    with (tmp_path / "mine").open("w") as mine:
        assert holders(mine.name) == []


def test_a_process_that_ends_meanwhile_and_a_table_that_is_not_there_are_no_errors(tmp_path: Path) -> None:
    gone = tmp_path / "4711"
    assert _bound(gone / "udp6", 1700) == []
    assert not _has_open(gone, {"/dev/ttyACM0"})
    assert not _leads_to(gone / "fd" / "3", {"/dev/ttyACM0"})
    assert _name(gone) == "a process that has ended"
