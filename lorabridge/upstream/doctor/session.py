"""The MQTT part of the walk, by trying: CONNECT, publish, being left alone, SUBSCRIBE, on the bridge's own connection.

What is published is a true record of the status that the gateway has: offline. No command that arrives meanwhile is
acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from lorabridge.lorawan.events import EventKind
from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.connection import Connection, ConnectionSettings, Delivery, Message
from lorabridge.upstream.doctor.handshake import Patience
from lorabridge.upstream.doctor.steps import MQTT, STEP_OF, Finding, Outcome, Step, failed
from lorabridge.upstream.faults import LinkDown, LinkFault
from lorabridge.upstream.topics import Topics

_KEY = 1
_SLOW = 2.0
"""Seconds to a PUBACK that are worth a warning: a window of 100 then carries 50 records a second."""
_LAST_WILL = (
    "Without a last will the endpoint lets us in: the policy must allow it (iot:ConnectAttributes has LastWill, "
    "iot:Publish on the topic of status, and with `retain_status` iot:RetainPublish)."
)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is examined."""

    settings: AwsIotSettings
    gateway_id: str
    status: Callable[[str, str], bytes]
    """`status(state, detail)` makes the payload of a status record."""
    subscribes: bool
    """Whether the bridge wants commands."""
    websocket: Callable[[], str] | None = None
    """What to ask for in the handshake of a WebSocket; None: MQTT right on TLS. Raises DialError, ConfigError."""
    throws_out: bool = False
    """Whether a running bridge loses its connection to us: it comes back, and throws us out in turn."""


class _Client:
    """The owner of one connection: turns what it is told into futures."""

    def __init__(self, settings: ConnectionSettings) -> None:
        loop = asyncio.get_running_loop()
        self._up: asyncio.Future[str] = loop.create_future()
        self._puback: asyncio.Future[str] = loop.create_future()
        self._suback: asyncio.Future[str] = loop.create_future()
        self.connection = Connection(settings, self, time.time)

    async def dial(self) -> LinkDown | None:
        """None once CONNACK has come."""
        self.connection.dial()
        return await self._unless_down(self._up)

    async def publish(self, message: Message) -> LinkDown | None:
        """None once PUBACK has come."""
        self._puback = asyncio.get_running_loop().create_future()
        self.connection.publish(message, _KEY)
        self.connection.flush()
        return await self._unless_down(self._puback)

    async def subscribe(self, topic_filter: str) -> LinkDown | None:
        """None once SUBACK has granted it."""
        self.connection.subscribe(topic_filter)
        self.connection.flush()
        down = await self._unless_down(self._suback)
        refusal = "" if down is not None else self._suback.result()
        return LinkDown(LinkFault.SUBSCRIBE_REFUSED, refusal) if refusal else down

    async def alone(self, seconds: float) -> LinkDown | None:
        """None when the connection outlives so many seconds of silence."""
        done, _ = await asyncio.wait({self.connection.down}, timeout=seconds)
        return self.connection.down.result() if done else None

    async def _unless_down(self, answer: asyncio.Future[str]) -> LinkDown | None:
        waited: set[asyncio.Future[Any]] = {answer, self.connection.down}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return None if answer.done() else self.connection.down.result()

    # What the connection tells (connection.Owner).

    def connected(self) -> None:
        """CONNACK came."""
        self._up.set_result("")

    def acknowledged(self, _key: int) -> None:
        """PUBACK came."""
        self._puback.set_result("")

    def subscribed(self, refusal: str) -> None:
        """SUBACK came."""
        self._suback.set_result(refusal)

    def received(self, delivery: Delivery) -> None:
        """A command: it is for the bridge, and stays unacknowledged."""

    def settled(self) -> None:
        """Nothing waits for that."""


class _Tries:
    """Connections of our client id, one after the other and never two within a second."""

    def __init__(self, subject: Subject, patience: Patience) -> None:
        self._subject = subject
        self._patience = patience
        self._client: _Client | None = None
        names = Topics(subject.settings.topics, subject.gateway_id)
        self.topic = names.topic(EventKind.STATUS, None)
        self.topic_filter = names.command_filter
        self.seconds = 0.0
        """From the last publish to its PUBACK."""

    async def connect(self, *, with_will: bool = True) -> LinkDown | None:
        """A fresh connection; None when it is up."""
        if self._client is not None:
            self.leave()
            await asyncio.sleep(self._patience.between)
        self._client = _Client(self._settings(with_will=with_will))
        return await self._client.dial()

    @property
    def client(self) -> _Client:
        """The present connection. Raises RuntimeError before there is one."""
        if self._client is None:
            raise RuntimeError("not connected")
        return self._client

    def leave(self) -> None:
        """Say DISCONNECT."""
        if self._client is not None:
            self._client.connection.disconnect()

    async def publish(self) -> LinkDown | None:
        """A status record, which says what is so."""
        payload = self._subject.status("offline", "lorabridge doctor")
        begun = time.monotonic()
        down = await self.client.publish(Message(self.topic, payload, self._subject.settings.retain_status))
        self.seconds = time.monotonic() - begun
        return down

    async def subscribe(self) -> LinkDown | None:
        """The bridge's own subscription."""
        return await self.client.subscribe(self.topic_filter)

    def _settings(self, *, with_will: bool) -> ConnectionSettings:
        settings = self._subject.settings
        will = Message(self.topic, self._subject.status("offline", "connection lost"), settings.retain_status)
        return ConnectionSettings(
            tls=settings,
            context=lambda: tls.build_context(settings),
            websocket=self._subject.websocket,
            client_id=settings.thing_name,
            mqtt_5=settings.mqtt_version == "5",
            keep_alive=round(settings.keep_alive),
            in_flight=1,
            connect_timeout=self._patience.connect + self._patience.handshake + self._patience.answer,
            puback_timeout=self._patience.answer,
            will=will if with_will else None,
        )


async def _persist(tries: _Tries, step: Callable[[], Awaitable[LinkDown | None]], chances: int) -> LinkDown | None:
    """Do a step again on a fresh connection when it fails: another with our client id may have come in between."""
    down = await step()
    while down is not None and chances and await tries.connect() is None:
        chances -= 1
        down = await step()
    return down


async def examine(subject: Subject, patience: Patience) -> AsyncGenerator[Finding, None]:
    """Each step of MQTT, as soon as it is known."""
    tries = _Tries(subject, patience)
    chances = 2 if subject.throws_out else 1
    try:
        finding = await _try_connect(tries, subject)
        yield finding
        if finding.outcome is Outcome.FAILED:
            return
        finding = await _try_publish(tries, chances)
        yield finding
        is_up = finding.outcome is not Outcome.FAILED
        if is_up:
            finding = await _try_alone(tries, subject, patience)
            yield finding
            is_up = finding.outcome is not Outcome.FAILED
        if not subject.subscribes:
            yield Finding(Step.SUBSCRIBE, Outcome.SKIPPED, "downlinks are switched off: nothing is subscribed to")
            return
        if is_up or await tries.connect() is None:
            yield await _try_subscribe(tries, chances)
    finally:
        tries.leave()


async def _try_connect(tries: _Tries, subject: Subject) -> Finding:
    begun = time.monotonic()
    down = await tries.connect()
    seconds = time.monotonic() - begun
    who = f"client id {subject.settings.thing_name!r}"
    if down is None:
        return Finding(Step.CONNECT, Outcome.OK, f"{who} is let in, with its last will", seconds=seconds)
    fault = down.fault or LinkFault.CONNECTION_LOST
    detail = "; ".join(filter(None, (who, down.detail)))
    refusals = (LinkFault.CLOSED_BEFORE_CONNACK, LinkFault.CONNECT_NOT_AUTHORIZED)
    if fault in refusals and await tries.connect(with_will=False) is None:
        return failed(fault, detail, fix=_LAST_WILL)
    return failed(fault, detail, step=Step.CONNECT if STEP_OF[fault] in MQTT else STEP_OF[fault])


async def _try_publish(tries: _Tries, chances: int) -> Finding:
    down = await _persist(tries, tries.publish, chances)
    seconds = tries.seconds
    if down is None:
        outcome = Outcome.OK if seconds < _SLOW else Outcome.WARNING
        fix = "" if seconds < _SLOW else LinkFault.PUBACK_TIMEOUT.hint
        return Finding(Step.PUBLISH, outcome, f"PUBACK for {tries.topic} after {seconds * 1000:.0f} ms", fix)
    fault = down.fault or LinkFault.CONNECTION_LOST
    if fault is LinkFault.CONNECTION_LOST:  # with MQTT 3.1.1 the only answer that there is
        fault = LinkFault.PUBLISH_REFUSED
    detail = f"topic {tries.topic}, {down.detail or 'the endpoint hung up'}"
    return failed(fault, detail, step=Step.ALONE if fault is LinkFault.TAKEN_OVER else Step.PUBLISH)


async def _try_alone(tries: _Tries, subject: Subject, patience: Patience) -> Finding:
    if subject.throws_out:
        return Finding(Step.ALONE, Outcome.SKIPPED, "the bridge that we have thrown out is coming back")
    begun = time.monotonic()
    down = await tries.client.alone(patience.alone)
    if down is None:
        return Finding(Step.ALONE, Outcome.OK, f"nobody has thrown us out within {patience.alone:g} s")
    detail = down.detail or f"closed after {time.monotonic() - begun:.1f} s, and a PUBACK had come before"
    fault = down.fault if down.fault not in (None, LinkFault.CONNECTION_LOST) else LinkFault.TAKEN_OVER
    return failed(fault, detail, step=Step.ALONE)


async def _try_subscribe(tries: _Tries, chances: int) -> Finding:
    down = await _persist(tries, tries.subscribe, chances)
    if down is None:
        return Finding(Step.SUBSCRIBE, Outcome.OK, f"commands come on {tries.topic_filter}")
    detail = f"topic filter {tries.topic_filter}" + (f", {down.detail}" if down.detail else "")
    return failed(down.fault or LinkFault.SUBSCRIBE_REFUSED, detail, step=Step.SUBSCRIBE)
