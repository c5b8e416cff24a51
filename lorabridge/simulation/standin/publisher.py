"""Somebody in the cloud: publishes straight to the broker behind the front, as a console or a rule would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.mqtt_wire import Fields, Header, PacketType

_CLIENT_ID = b"lorabridge-standin"
_CONNECT = b"\0\4MQTT\4\2\0\0" + len(_CLIENT_ID).to_bytes(2, "big") + _CLIENT_ID
"""MQTT 3.1.1, a clean session, no keep-alive."""
_QOS_1 = 0x02


class Publisher(asyncio.Protocol):
    """One connection to the broker, as MQTT 3.1.1 and without TLS."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._last_id = 0
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def connected(
        cls, dial: Callable[[Callable[[], Publisher]], Awaitable[tuple[asyncio.Transport, Publisher]]]
    ) -> Publisher:
        """Connect, and wait for CONNACK. Raises OSError."""
        _, publisher = await dial(cls)
        await publisher.ready
        return publisher

    async def publish(self, topic: str, payload: bytes) -> None:
        """QoS 1; returns on PUBACK. Raises OSError when the connection is over."""
        if self._transport is None:
            raise ConnectionResetError("the broker has closed the connection")
        packet_id = self._last_id = self._last_id % 0xFFFF + 1
        name = topic.encode()
        body = len(name).to_bytes(2, "big") + name + packet_id.to_bytes(2, "big") + payload
        answer = self._waiting[packet_id] = self._loop.create_future()
        self._transport.write(wire.build_packet(PacketType.PUBLISH << 4 | _QOS_1, body))
        await answer

    async def close(self) -> None:
        """Say DISCONNECT, and wait for the end."""
        if self._transport is not None:
            self._transport.write(wire.build_packet(PacketType.DISCONNECT << 4, b""))
            self._transport.close()
        await self.closed

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(wire.build_packet(PacketType.CONNECT << 4, _CONNECT))

    def data_received(self, data: bytes) -> None:
        """Packets of the broker, which behaves: it is ours."""
        buffer, at = self._rest + data, 0
        while len(buffer) - at >= 2:
            header = wire.parse_header(buffer, at)
            if header is None or header.stop > len(buffer):
                break
            self._take(buffer, buffer[at], header)
            at = header.stop
        self._rest = buffer[at:]

    def _take(self, buffer: bytes, first: int, header: Header) -> None:
        fields = Fields(buffer, header.body, header.stop)
        if first >> 4 == PacketType.CONNACK and fields.number(2) == 0 and not self.ready.done():
            self.ready.set_result(None)
        elif first >> 4 == PacketType.PUBACK:
            answer = self._waiting.pop(fields.number(2), None)
            if answer is not None and not answer.done():
                answer.set_result(None)
        elif first >> 4 == PacketType.PUBLISH and first & _QOS_1 and self._transport is not None:
            fields.binary()  # amqtt greets every client with what is retained
            self._transport.write(wire.build_puback(fields.number(2)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self._transport = None
        for answer in (self.ready, *self._waiting.values()):
            if not answer.done():
                answer.set_exception(ConnectionResetError(str(exc or "the broker has closed the connection")))
        self._waiting.clear()
        self.closed.set_result(None)
