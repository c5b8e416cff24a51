"""The link to AWS IoT Core: keeps one connection up for ever, publishes within the account's quotas.

What the endpoint does not forgive is prevented here: more than 100 publishes a second (the excess is
thrown away unanswered), more than 100 without PUBACK, more than one CONNECT a second. What it does not
tell is inferred: a connection closed in answer to CONNECT, a PUBACK that never comes.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lorabridge.backoff import Backoff
from lorabridge.lorawan.events import EventKind
from lorabridge.upstream import tls
from lorabridge.upstream.allowance import Allowance
from lorabridge.upstream.connection import Connection, ConnectionSettings, Delivery, Message, Owner
from lorabridge.upstream.credentials import Choice, Credentials
from lorabridge.upstream.faults import LinkDown, LinkFault, LinkState
from lorabridge.upstream.inbound import CommandSink, Intake, Subscription
from lorabridge.upstream.link import NOT_YOURS, LinkReport, Listener
from lorabridge.upstream.link_settings import MAX_PAYLOAD, LinkSettings
from lorabridge.upstream.pacing import ConnectPacing, Pace
from lorabridge.upstream.rotation import Rotation
from lorabridge.upstream.service_topics import Voice
from lorabridge.upstream.subscriptions import Subscriber, Subscriptions
from lorabridge.upstream.topics import Topics

__all__ = ["MAX_PAYLOAD", "AwsIot"]

_COUNTERS = ("connections", "published", "acknowledged", "drops", "certificates_replaced", "certificates_refused")
_BIRTH_KEY, _FAREWELL_KEY, _STATUS_KEY, _SERVICE_KEY = -1, -2, -3, -4
"""Keys of our own publishes; a listener's are above 0."""
_CLOCK_POLL = 1.0
"""Seconds between looks at a clock that is not set."""


class AwsIot:
    """The link. `run` keeps it up until `stop`; a listener publishes while `has_room`."""

    def __init__(  # noqa: PLR0913  # what it needs of the outside, each by its name
        self,
        settings: LinkSettings,
        gateway_id: str,
        *,
        status: Callable[[str, str], bytes],
        rng: random.Random,
        commands: CommandSink | None = None,
        on_change: Callable[[LinkReport], None] = lambda _report: None,
        on_certificate: Callable[[LinkDown | None], None] = lambda _refusal: None,
        clock: Callable[[], float] = time.time,
        pace: Pace | None = None,
    ) -> None:
        """`status(state, detail)` makes the payload of a status record; `rng` is the jitter's.

        `commands` None: nothing is subscribed to. `on_certificate` is told of a new certificate that proved itself
        (None), or why the one before it stays in use.
        """
        pace = pace or Pace()
        names = Topics(settings.topics, gateway_id)
        self._settings = settings
        self._status = status
        self._status_topic = names.topic(EventKind.STATUS, None)
        self._on_change = on_change
        self._clock = clock
        self._proved_after = pace.proved_after
        self._listener: Listener | None = None
        self._connection: Connection | None = None
        self._dialled: Connection | None = None
        self._successor: Connection | None = None
        self._on_certificate = on_certificate
        self._rotation = Rotation(Credentials(settings, pace.certificate_again, clock), self, pace.look_interval)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        """No more waiting: there is a stop, or a connection that was accepted already."""
        self._online_since = math.inf
        self._is_proved = False
        self._farewell: asyncio.Future[None] | None = None
        self._said_farewell = False
        self._pacing = ConnectPacing(Backoff(settings.backoff_base, settings.backoff_cap, rng), pace.connect_interval)
        self._allowance = Allowance(settings, self._rate_allows, with_commands=commands is not None)
        self._counters: Counter[str] = Counter(
            dict.fromkeys(_COUNTERS, 0) | {f"fault_{fault}": 0 for fault in LinkFault}
        )
        self._intake = None if commands is None else Intake(commands, names, self._counters)
        self._subscriptions = Subscriptions(pace.subscribe_again, self._subscribe, self._announce)
        self._subscriptions.add([] if self._intake is None else [self._intake])
        self._is_announced = self._is_heard = False
        self._voice = Voice(pace.subscribe_again)
        self.report = LinkReport(since=clock())

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals since the process began."""
        return self._counters

    @property
    def certificate_valid_until(self) -> datetime | None:
        """When the certificate in use expires, UTC; None until one proved itself."""
        return self._rotation.valid_until

    def status(self, state: str, detail: str) -> Message:
        """Our status as of now, by whatever way it leaves."""
        return Message(self._status_topic, self._status(state, detail), self._settings.retain_status)

    def tell(self, detail: str) -> None:
        """Publish our status once more, with something that somebody should know; nothing happens while offline."""
        if self._is_at_work() and self._is_announced:
            self._publish_status("online", detail, _STATUS_KEY)
            self.flush()

    def add_services(self, subscribers: Sequence[Subscriber]) -> None:
        """More to subscribe to than commands, from the next connection on."""
        self._subscriptions.add(subscribers)

    def say(self, topic: str, payload: bytes) -> bool:
        """Publish something that may be lost to a service of AWS IoT; False when it cannot be now."""
        if not (self._is_announced and self._voice.may_speak(time.monotonic()) and self.has_room(len(payload))):
            return False
        self._allowance.take(len(payload))
        if self._connection is not None:
            self._connection.publish(Message(topic, payload), _SERVICE_KEY)
            self._connection.flush()
        return True

    def attach(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on."""
        self._listener = listener

    async def run(self) -> None:
        """Connect, again and again, until `stop`. Only our own bugs leave it as exceptions."""
        try:
            while not self._stopping.is_set():
                if self._successor is None:
                    await self._wait_until_due()
                if not self._stopping.is_set():
                    self._after(await self._connect_once())
        finally:
            self._allowance.stop()
            self._subscriptions.stop()
            self._rotation.stop()
            for connection in (self._connection, self._successor):
                if connection is not None:
                    connection.drop(LinkDown(None))
            self._connection = self._successor = None
            self._change(LinkState.STOPPED)

    async def stop(self, limit: float) -> None:
        """Publish nothing new, wait up to `limit` seconds for PUBACKs, say farewell, DISCONNECT; `run` returns."""
        deadline = time.monotonic() + limit
        self._stopping.set()
        self._hurry.set()
        connection = self._connection
        if connection is None:
            return
        if connection.is_up:
            self._farewell = asyncio.get_running_loop().create_future()
            self._say_farewell_when_idle()
            over: set[asyncio.Future[Any]] = {self._farewell, connection.down}
            await asyncio.wait(over, timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
        connection.disconnect()

    async def _wait_until_due(self) -> None:
        """Until the next CONNECT may go."""
        await self._wait_for_clock()
        delay = self._pacing.delay(time.monotonic())
        if delay > 0:
            self._change(LinkState.WAITING, retry_in=delay)
            await self._pause(delay)

    async def _wait_for_clock(self) -> None:
        """Until the clock is set no certificate can be judged, and trying would only blame the wrong one."""
        while tls.clock_is_unset(now := datetime.fromtimestamp(self._clock(), UTC)) and not self._hurry.is_set():
            if self.report.fault is not LinkFault.CLOCK_NOT_SET:
                self._counters[f"fault_{LinkFault.CLOCK_NOT_SET}"] += 1
                self._change(LinkState.WAITING, LinkDown(LinkFault.CLOCK_NOT_SET, f"it says {now:%Y-%m-%d}"))
            await self._pause(_CLOCK_POLL)

    async def _pause(self, delay: float) -> None:
        """Sleep, but not when there is something to do."""
        try:
            async with asyncio.timeout(delay):
                await self._hurry.wait()
        except TimeoutError:
            return

    async def _connect_once(self) -> LinkDown:
        """One connection from beginning to end; how it ended."""
        if self._successor is not None:
            self._connection, self._successor = self._successor, None
            self._hurry.clear()
            self.connected()
            return await asyncio.shield(self._connection.down)
        self._pacing.tried(time.monotonic())
        if self._dialled is not None and self._dialled.is_dialling:  # never more than one thread in a look-up
            return LinkDown(LinkFault.NAME_NOT_RESOLVED, "the last look-up still hangs")
        self._change(LinkState.CONNECTING)
        self._connection = self._dialled = self.dial(self._rotation.choose(), self)
        return await asyncio.shield(self._connection.down)  # a cancelled `run` still has to close the socket

    def _connection_settings(self, choice: Choice) -> ConnectionSettings:
        settings = self._settings
        will = self.status("offline", "connection lost")
        return ConnectionSettings(
            tls=settings,
            context=choice.context,
            login=choice.login,
            websocket=choice.websocket,
            client_id=settings.thing_name,
            mqtt_5=settings.mqtt_version == "5",
            keep_alive=round(settings.keep_alive),
            in_flight=settings.in_flight,
            connect_timeout=settings.connect_timeout,
            puback_timeout=settings.puback_timeout,
            will=will,
        )

    def _after(self, down: LinkDown) -> None:
        """Draw the consequences of a connection that is over or did not come about."""
        connection, self._connection = self._connection, None
        self._is_announced = False
        if self._successor is None:
            self._rotation.ended(down)
        self._subscriptions.disconnected(down)
        if down.fault is not None and not self._rotation.is_trying and self._successor is None:
            self._counters["drops"] += 1
            self._counters[f"fault_{down.fault}"] += 1
            self._change(LinkState.WAITING, down)
        if connection is not None and self._listener is not None:
            keys = [key for key, _ in connection.unacknowledged.values()]
            culprit = down.culprit
            if down.fault is None or not self._is_heard:
                culprit = NOT_YOURS
            elif keys and (culprit or keys[0]) == _SERVICE_KEY:
                culprit = NOT_YOURS
                self._voice.hung_up(time.monotonic())
            self._listener.disconnected([key for key in keys if key > 0], culprit)

    def _change(self, state: LinkState, down: LinkDown | None = None, retry_in: float | None = None) -> None:
        """Report a new state; the last fault stays in the report until the link has proved itself."""
        fault, detail = (down.fault, down.detail) if down else (self.report.fault, self.report.detail)
        self.report = LinkReport(
            state=state,
            fault=fault,
            detail=detail,
            since=self._clock(),
            retry_in=retry_in,
            rolled_back=self._rotation.is_rolled_back,
            subscription=Subscription.OFF if self._intake is None else self._intake.state,
        )
        self._on_change(self.report)

    # What a rotation of certificates needs (rotation.Host).

    def may_try(self) -> bool:
        """Whether there is a connection to fall back on, no stop under way, and no other CONNECT a moment ago."""
        return self._is_at_work() and self._pacing.allows(time.monotonic())

    def _is_at_work(self) -> bool:
        return self._connection is not None and self._connection.is_up and not self._stopping.is_set()

    def dial(self, choice: Choice, owner: Owner) -> Connection:
        """Begin a connection with this pair."""
        if owner is not self:
            self._pacing.note(time.monotonic())
        self._counters["connections"] += 1
        connection = Connection(self._connection_settings(choice), owner, self._clock)
        connection.down.add_done_callback(lambda _: self._note_connect(connection))
        connection.dial()
        return connection

    def _note_connect(self, connection: Connection) -> None:
        """Dialling may have taken long: what counts at the endpoint is when CONNECT left."""
        if connection.connect_sent_at is not None:
            self._pacing.note(connection.connect_sent_at)

    def accepted(self, connection: Connection) -> None:
        """The endpoint accepted the new connection, and so ends the old one: what is under way there is sent again."""
        connection.owner = self
        self._successor = connection
        self._hurry.set()
        if self._connection is not None:
            self._connection.disconnect()

    def judged(self, refusal: LinkDown | None) -> None:
        """A new certificate proved itself, or is not used any more."""
        self._counters["certificates_replaced" if refusal is None else "certificates_refused"] += 1
        self._on_certificate(refusal)
        self._change(self.report.state)

    def broke(self, bug: BaseException) -> None:
        """What nobody foresaw ends `run`."""
        if self._connection is not None:
            self._connection.fail(bug)

    # What a listener uses.

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        """Whether a payload of `size` bytes may be published now; if only the rate forbids it `ready` comes in time.

        A `patient` one leaves a quarter of the window, and something of the rate, to those that are not.
        """
        connection = self._connection
        if connection is None or not self._is_heard or self._subscriptions.is_asking or not self._is_at_work():
            return False
        left_free = connection.window // 4 if patient else 0
        if len(connection.unacknowledged) >= connection.window - left_free:
            return False
        return self._allowance.allows(size, patient=patient)

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Queue a publish under `key` (> 0), allowed by `has_room`; `flush` when there is no more."""
        if self._connection is None:
            raise RuntimeError("publish without has_room")
        self._allowance.take(len(payload))
        self._counters["published"] += 1
        self._connection.publish(Message(topic, payload), key)

    def flush(self) -> None:
        """Send what was published."""
        if self._connection is not None:
            self._connection.flush()

    def _rate_allows(self) -> None:
        self.settled()
        self.flush()

    # What the connection tells (connection.Owner).

    def connected(self) -> None:
        """CONNACK came: subscribe, and announce ourselves when that is settled."""
        self._online_since = time.monotonic()
        self._is_proved = self._is_heard = False
        self._change(LinkState.ONLINE)
        self._subscriptions.connected()

    def _subscribe(self, topic_filter: str) -> None:
        if self._connection is not None and self._connection.is_up:
            self._connection.subscribe(topic_filter)
            self._connection.flush()

    def _announce(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            self._publish_status("online", "", _BIRTH_KEY)

    def subscribed(self, refusal: str) -> None:
        """SUBACK: with commands or without, records may leave."""
        if refusal:
            self._counters[f"fault_{LinkFault.SUBSCRIBE_REFUSED}"] += 1
        self._subscriptions.answered(refusal)
        self._change(LinkState.ONLINE)

    def received(self, delivery: Delivery) -> None:
        """A message: AWS IoT counts it against the same quotas as ours."""
        connection = self._connection
        self._allowance.take(len(delivery.payload))

        def acknowledge() -> None:
            if connection is not None:
                connection.acknowledge(delivery)

        self._subscriptions.received(delivery, acknowledge)

    def acknowledged(self, key: int) -> None:
        """A PUBACK: the only thing that proves that records get through. The first is for our status."""
        self._is_heard = True
        self._rotation.puback()
        if not self._is_proved and time.monotonic() - self._online_since >= self._proved_after:
            self._is_proved = True
            self._pacing.reset()
            self._change(LinkState.ONLINE, LinkDown(None))
        if key > 0:
            self._counters["acknowledged"] += 1
            if self._listener is not None:
                self._listener.acknowledged(key)
        elif key == _SERVICE_KEY:
            self._voice.heard()
        elif key == _FAREWELL_KEY and self._farewell is not None and not self._farewell.done():
            self._farewell.set_result(None)

    def settled(self) -> None:
        """A batch of PUBACKs has been read, or the rate allows more."""
        if self._farewell is not None and not self._said_farewell:
            self._say_farewell_when_idle()
        if self._listener is not None:
            self._listener.ready()

    def _say_farewell_when_idle(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_up and not connection.unacknowledged:
            self._said_farewell = True
            self._publish_status("offline", "stopped", _FAREWELL_KEY)
            connection.flush()

    def _publish_status(self, state: str, detail: str, key: int) -> None:
        if self._connection is not None:
            self._connection.publish(self.status(state, detail), key)
