"""One connection for questions and answers: what is asked of AWS IoT itself, before or beside the records.

Its services answer on topics of their own, `…/accepted` and `…/rejected`, to whoever subscribed before asking.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from lorabridge.errors import TransientError
from lorabridge.upstream.connection import Connection, ConnectionSettings, Delivery, Message
from lorabridge.upstream.faults import LinkDown, LinkFault

ACCEPTED, REJECTED = "accepted", "rejected"


class LinkError(TransientError):
    """There is no connection, or no more: `fault` says why."""

    def __init__(self, down: LinkDown) -> None:
        fault = down.fault or LinkFault.CONNECTION_LOST
        super().__init__(f"{fault}: {down.detail}. {fault.doc} {fault.hint}")
        self.fault = fault


class RejectedError(Exception):
    """AWS IoT understood the question and says no."""

    def __init__(self, topic: str, said: dict[str, Any]) -> None:
        code, message = said.get("errorCode") or said.get("code"), said.get("errorMessage") or said.get("message")
        super().__init__(f"{topic}: {said.get('statusCode', '')} {code or ''}: {message or ''}"[:500])
        self.code = code


class Dialogue:
    """`async with Dialogue.open(settings) as dialogue:`; every method raises LinkError when the connection is over."""

    def __init__(self, settings: ConnectionSettings, patience: float, clock: Callable[[], float]) -> None:
        self._patience = patience
        self._steps: asyncio.Queue[str] = asyncio.Queue()
        self._replies: dict[str, asyncio.Future[bytes]] = {}
        self._connection = Connection(settings, self, clock)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: ConnectionSettings, *, patience: float = 30.0, clock: Callable[[], float] = time.time
    ) -> AsyncIterator[Dialogue]:
        """A connection that is up, closed in the end; `patience`: seconds for each answer."""
        dialogue = cls(settings, patience, clock)
        dialogue._connection.dial()
        try:
            await dialogue._step("connected")
            yield dialogue
        finally:
            dialogue._connection.disconnect()

    async def prove(self, topic: str, payload: bytes) -> None:
        """Publish, and wait for the PUBACK."""
        self._connection.publish(Message(topic, payload), 1)
        self._connection.flush()
        await self._step("acknowledged")

    async def ask(self, topic: str, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question of one of AWS IoT's services. Raises RejectedError."""
        for word in (ACCEPTED, REJECTED):
            self._replies[f"{topic}/{word}"] = asyncio.get_running_loop().create_future()
            self._connection.subscribe(f"{topic}/{word}")
            self._connection.flush()
            refusal = await self._step("subscribed")
            if refusal:
                raise LinkError(LinkDown(LinkFault.SUBSCRIBE_REFUSED, f"{topic}/{word}: {refusal}"))
        await self.prove(topic, msgspec.json.encode(question))
        waiting = {word: self._replies[f"{topic}/{word}"] for word in (ACCEPTED, REJECTED)}
        await self._first(set(waiting.values()), f"no answer on {topic}/{ACCEPTED} or /{REJECTED}")
        if waiting[REJECTED].done():
            raise RejectedError(topic, _object(waiting[REJECTED].result()))
        return _object(waiting[ACCEPTED].result())

    async def _step(self, kind: str) -> str:
        """The next thing that happens on the connection, which must be of this kind; its detail."""
        getter = asyncio.ensure_future(self._steps.get())
        try:
            await self._first({getter}, f"not {kind}")
        finally:
            getter.cancel()
        said, _, detail = getter.result().partition(" ")
        if said != kind:
            raise LinkError(LinkDown(LinkFault.CONNECTION_LOST, f"{said} where {kind} was expected"))
        return detail

    async def _first(self, awaited: set[asyncio.Future[Any]], otherwise: str) -> None:
        """Wait for one of these, or for the end of the connection."""
        down = self._connection.down
        await asyncio.wait({*awaited, down}, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        if any(one.done() for one in awaited):
            return
        raise LinkError(down.result() if down.done() else LinkDown(LinkFault.PUBACK_TIMEOUT, otherwise))

    # connection.Owner

    def connected(self) -> None:
        """CONNACK."""
        self._steps.put_nowait("connected")

    def acknowledged(self, key: int) -> None:  # noqa: ARG002  # one is under way at a time
        """PUBACK."""
        self._steps.put_nowait("acknowledged")

    def subscribed(self, refusal: str) -> None:
        """SUBACK."""
        self._steps.put_nowait(f"subscribed {refusal}")

    def received(self, delivery: Delivery) -> None:
        """An answer; what nobody asked is passed over."""
        self._connection.acknowledge(delivery)
        waiting = self._replies.get(delivery.topic or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(delivery.payload)

    def settled(self) -> None:
        """Nothing waits for room."""


def _object(payload: bytes) -> dict[str, Any]:
    """Raises TransientError for what is no JSON object."""
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise TransientError(f"the endpoint's answer is no JSON object: {error}") from None
