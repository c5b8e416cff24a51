"""A Concentratord for the tests: its two ZeroMQ sockets, and messages by protobuf's own runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import zmq
import zmq.asyncio

from tests.radio.gateway_api import EUI_TEXT, made, read, stats, uplink

OK = 1
LIMIT = 60.0


class ConcentratordStandIn:
    """One gateway. `answer(order)` gives the bytes that a DownlinkFrame is answered with; None: nothing, ever again."""

    def __init__(self, folder: Path, *, before_4_5: bool = False) -> None:
        self.event_url = f"ipc://{folder}/event"
        self.command_url = f"ipc://{folder}/command"
        self.before_4_5 = before_4_5
        self.gateway_id = EUI_TEXT
        self.orders: asyncio.Queue[Any] = asyncio.Queue()
        self.answer: Callable[[Any], bytes | None] = acked(OK)
        self.has_ended = False
        """A command of two frames ends Concentratord from 4.5 on: seen of 4.7.1."""

    async def __aenter__(self) -> Self:
        self._context = zmq.asyncio.Context()
        # XPUB is PUB that says who subscribed, so that nothing is published too early.
        self._events = self._context.socket(zmq.XPUB)
        self._commands = self._context.socket(zmq.REP)
        self._events.bind(self.event_url)
        self._commands.bind(self.command_url)
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._context.destroy(linger=0)

    async def subscribed(self) -> None:
        """Wait until somebody listens."""
        async with asyncio.timeout(LIMIT):
            while await self._events.recv() != b"\x01":
                pass

    async def publish(self, *frames: bytes) -> None:
        await self._events.send_multipart(frames)

    async def say_uplink(self, phy_payload: bytes, **how: Any) -> None:
        """Publish a frame as it was heard; `how`: see `uplink`."""
        frame = uplink(phy_payload, **how)
        if self.before_4_5:
            await self.publish(b"up", made("UplinkFrame", **frame).SerializeToString())
        else:
            await self.publish(made("Event", uplink_frame=frame).SerializeToString())

    async def say_stats(self, **change: Any) -> None:
        """Publish statistics."""
        told = stats(**change)
        if self.before_4_5:
            await self.publish(b"stats", made("GatewayStats", **told).SerializeToString())
        else:
            await self.publish(made("Event", gateway_stats=told).SerializeToString())

    async def ordered(self) -> Any:
        """The next order."""
        async with asyncio.timeout(LIMIT):
            return await self.orders.get()

    async def _serve(self) -> None:
        while True:
            frames = await self._commands.recv_multipart()
            said = self._answer_old(frames) if self.before_4_5 else self._answer_new(frames)
            if said is None:
                return
            await self._commands.send(said)

    def _answer_old(self, frames: list[bytes]) -> bytes | None:
        if len(frames) != 2:
            return b""
        if frames[0] == b"gateway_id":
            return bytes.fromhex(self.gateway_id)
        return self._take(read("DownlinkFrame", frames[1]))

    def _answer_new(self, frames: list[bytes]) -> bytes | None:
        if len(frames) != 1:
            self.has_ended = True
            return None
        command = read("Command", frames[0])
        if command.HasField("get_gateway_id"):
            answer: bytes = made("GetGatewayIdResponse", gateway_id=self.gateway_id).SerializeToString()
            return answer
        return self._take(command.send_downlink_frame)

    def _take(self, order: Any) -> bytes | None:
        self.orders.put_nowait(order)
        return self.answer(order)


def acked(*statuses: int, change: int = 0) -> Callable[[Any], bytes]:
    """Answers each order with these statuses; `change` is added to its id."""

    def answer(order: Any) -> bytes:
        items = [{"status": status} for status in statuses]
        ack = made("DownlinkTxAck", downlink_id=order.downlink_id + change, gateway_id=EUI_TEXT, items=items)
        told: bytes = ack.SerializeToString()
        return told

    return answer
