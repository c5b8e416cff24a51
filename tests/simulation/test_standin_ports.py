from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable

import pytest

from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin import StandIn, StandInSettings
from lorabridge.simulation.standin.ports import Ports
from lorabridge.simulation.standin.tls_front import Door


def dialled(port: int) -> socket.socket:
    """A connection that the kernel has taken, and nobody else yet."""
    return socket.create_connection(("127.0.0.1", port))


def after_turns(turns: int, step: Callable[[], None]) -> None:
    """Call `step` so many turns of the loop later."""
    asyncio.get_running_loop().call_soon(after_turns, turns - 1, step) if turns else step()


@pytest.mark.parametrize("turns", range(6))
def test_who_comes_in_the_turn_in_which_the_ports_close_has_an_end(pki: Pki, turns: int) -> None:
    async def live() -> None:
        async with StandIn(StandInSettings(policies={}), pki=pki, broker=("127.0.0.1", 9)) as standin:
            with dialled(standin.port) as client:
                client.setblocking(False)
                after_turns(turns, lambda: standin.refuse(on=True))
                after_turns(turns + 4, standin.cut)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 20) == b""
                await asyncio.wait_for(standin.until(lambda: not standin.connections), 20)

    asyncio.run(asyncio.wait_for(live(), 30))


class Welcome(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self.door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.door.value.encode())
        transport.close()


async def heard(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        await writer.wait_closed()


def test_ports_open_again_as_they_were() -> None:
    async def live() -> None:
        ports = Ports("127.0.0.1", {Door.MQTT: 0, Door.ALPN: 0}, Welcome)
        ports.open()
        numbers = [ports.number(door) for door in (Door.MQTT, Door.ALPN)]
        for _ in range(2):
            ports.open()
            assert await heard(numbers[0]) == b"8883"
            assert await heard(numbers[1]) == b"443 with ALPN x-amzn-mqtt-ca"
            ports.close()
            for number in numbers:
                with pytest.raises(ConnectionRefusedError):
                    await heard(number)
            assert numbers == [ports.number(door) for door in (Door.MQTT, Door.ALPN)]
        await ports.settled()

    asyncio.run(live())


def test_when_one_port_is_taken_none_is_open() -> None:
    async def live() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as once_free:
            free = once_free.getsockname()[1]
            once_free.close()
            ports = Ports("127.0.0.1", {Door.MQTT: free, Door.ALPN: taken.getsockname()[1]}, Welcome)
            with pytest.raises(OSError, match="in use"):
                ports.open()
            with pytest.raises(ConnectionRefusedError):
                await heard(free)

    asyncio.run(live())


def test_who_comes_when_there_are_no_descriptors_is_welcomed_later() -> None:
    async def live() -> None:
        ports = Ports("127.0.0.1", {Door.MQTT: 0}, Welcome)
        ports.open()
        with dialled(ports.number(Door.MQTT)) as client:
            client.setblocking(False)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                await asyncio.sleep(0.1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4), 20) == b"8883"
        ports.close()

    asyncio.run(live())
