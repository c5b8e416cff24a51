"""The stand-in as a whole: its loopback ports, a broker behind them, and the faults that tests inject."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self, TypeVar

import msgspec
from msgspec import Meta

from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin.amqtt_broker import AmqttBroker
from lorabridge.simulation.standin.connection import ClientSide
from lorabridge.simulation.standin.credentials_side import CredentialsSide
from lorabridge.simulation.standin.events import Event, Happening, Journal, Refusal
from lorabridge.simulation.standin.front import Front
from lorabridge.simulation.standin.hello import ClientHello
from lorabridge.simulation.standin.policy import Policy, TopicEnd, topic_end
from lorabridge.simulation.standin.ports import Ports
from lorabridge.simulation.standin.publisher import Publisher
from lorabridge.simulation.standin.quotas import BYTES_PER_SECOND, MAX_UNACKNOWLEDGED, Limits
from lorabridge.simulation.standin.screen import Observer
from lorabridge.simulation.standin.services.certificates import Certificates, fingerprint_of
from lorabridge.simulation.standin.services.desk import Desk
from lorabridge.simulation.standin.services.jobs import Jobs
from lorabridge.simulation.standin.services.lending import Lending, Role
from lorabridge.simulation.standin.services.provisioning import Provisioning, Template
from lorabridge.simulation.standin.services.reply import Audience, Reply
from lorabridge.simulation.standin.services.shadow import Shadows
from lorabridge.simulation.standin.tls_end import TlsEnd
from lorabridge.simulation.standin.tls_front import Door, TlsRules, server_context

_P = TypeVar("_P", bound=asyncio.Protocol)
_PATIENCE = 1.0
"""Seconds that a broker has at the end to take what was forwarded."""


class StandInSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what, and where it listens."""

    policies: Annotated[
        Mapping[str, Policy], Meta(description="policy by the SHA-256 fingerprint (hex) of the certificate it is for")
    ]
    host: Annotated[str, Meta(description="address to listen on; not meant for any network")] = "127.0.0.1"
    port: Annotated[int, Meta(description="stands for 8883; 0 takes a free one")] = 0
    alpn_port: Annotated[int, Meta(description="stands for 443, with ALPN x-amzn-mqtt-ca; 0 takes a free one")] = 0
    websocket_port: Annotated[int, Meta(description="stands for 443 without ALPN; 0 takes a free one")] = 0
    credentials_port: Annotated[
        int, Meta(description="stands for 443 of the credentials provider; 0 takes a free one")
    ] = 0
    roles: Annotated[
        Mapping[str, Role],
        Meta(description="by their aliases; without any nobody listens on the last two ports"),
    ] = {}
    publishes_per_second: Annotated[
        int, Meta(description="quota a connection, the excess is discarded; 0 is without limit")
    ] = 100
    bytes_per_second: Annotated[
        int, Meta(description="quota a connection, both ways together, the excess is delayed; 0 is without limit")
    ] = BYTES_PER_SECOND
    unacknowledged: Annotated[
        int, Meta(description="publishes of a client that may wait for PUBACK; 0 is without limit")
    ] = MAX_UNACKNOWLEDGED
    templates: Annotated[
        Mapping[str, Template], Meta(description="provisioning templates by name, for those who hold a claim")
    ] = {}
    just_in_time: Annotated[
        bool, Meta(description="register certificates of the right authority that no policy is attached to")
    ] = False
    activation_delay: Annotated[
        float | None,
        Meta(description="seconds until what was registered just in time is active; None: `activate` does"),
    ] = 0.0
    shortest_keep_alive: Annotated[int, Meta(description="seconds; a shorter wish is taken for this")] = 30
    setup_timeout: Annotated[float, Meta(description="seconds that a client has until CONNECT")] = 30.0
    event_limit: Annotated[int, Meta(description="events that are kept, the oldest go first")] = 10_000
    events_file: Annotated[Path | None, Meta(description="JSON lines of all events are appended here")] = None
    tls: Annotated[
        TlsRules, Meta(description="anything but the default is a weakened stand-in, for tests of tests")
    ] = TlsRules()


class StandIn:
    """`async with StandIn(settings, pki=pki) as standin:`; MQTT 5 needs a `broker` other than the default.

    `broker` is host and port of one without TLS, such as mosquitto on loopback. `observer` is called with
    topic and payload of each publish once the broker has taken it, before the client hears of it; `watcher` with
    each event.
    """

    def __init__(
        self,
        settings: StandInSettings,
        *,
        pki: Pki,
        broker: tuple[str, int] | None = None,
        observer: Observer | None = None,
        watcher: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        numbers = {Door.MQTT: settings.port, Door.ALPN: settings.alpn_port}
        if settings.roles:
            numbers |= {Door.WEBSOCKET: settings.websocket_port, Door.CREDENTIALS: settings.credentials_port}
        self._ports = Ports(settings.host, numbers, self._welcome)
        self._settings = settings
        self._pki = pki
        self._broker = broker
        self._observer = observer
        self._watcher = watcher
        self._clock = clock
        self._amqtt: AmqttBroker | None = None
        self._journal: Journal
        self._front: Front
        self._clients: dict[int, TlsEnd] = {}
        self._last_number = 0
        self._refuses = self._stalls = False
        self._contexts: dict[Door, ssl.SSLContext] = {}
        self._activations: set[asyncio.TimerHandle] = set()
        self._certificates = Certificates(
            settings.policies, pki.devices.certificate_id, just_in_time=settings.just_in_time
        )
        self._lending = Lending(settings.roles, pki.endpoint, self._admit)
        self._desk = Desk(Provisioning(pki.devices, self._certificates, settings.templates))
        self._publisher: Publisher | None = None
        self._publishing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError for a port that is taken, ConfigError for OpenSSL or amqtt."""
        settings = self._settings
        server_context(settings.tls, self._pki, Door.ALPN)  # what is wrong with it is told now
        self._journal = Journal(settings.event_limit, settings.events_file, self._clock, self._watcher)
        self._front = Front(
            names=dict.fromkeys(Door, self._pki.endpoint) | {Door.CREDENTIALS: self._pki.credentials_endpoint},
            rules=settings.tls,
            admit=self._admit,
            lending=self._lending,
            answer=self._answer,
            limits=Limits(
                publishes_per_second=settings.publishes_per_second,
                bytes_per_second=settings.bytes_per_second,
                unacknowledged=settings.unacknowledged,
                shortest_keep_alive=settings.shortest_keep_alive,
            ),
            setup_timeout=settings.setup_timeout,
            new_context=self._context,
            dial=self._dial,
            observer=self._observer,
            journal=self._journal,
            clock=self._clock,
            by_client_id={},
        )
        try:
            if self._broker is None:
                self._amqtt = AmqttBroker()
                await self._amqtt.start()
            self._ports.open()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._refuses = True
        self._ports.close()
        await self._ports.settled()
        for activation in self._activations:
            activation.cancel()
        for client in list(self._clients.values()):
            client.shut_down()
        if self._publisher is not None:
            await self._publisher.close()
        while clients := list(self._clients.values()):
            done, _pending = await asyncio.wait([client.closed for client in clients], timeout=_PATIENCE)
            if len(done) < len(clients):
                for client in clients:
                    client.abort_broker()
        if self._amqtt is not None:
            await self._amqtt.stop()
        self._journal.close()

    # What tests and the simulation read.

    @property
    def port(self) -> int:
        """Stands for 8883."""
        return self._ports.number(Door.MQTT)

    @property
    def alpn_port(self) -> int:
        """Stands for 443 with ALPN."""
        return self._ports.number(Door.ALPN)

    @property
    def websocket_port(self) -> int:
        """Stands for 443 without. Raises KeyError where no role was given."""
        return self._ports.number(Door.WEBSOCKET)

    @property
    def credentials_port(self) -> int:
        """Stands for 443 of the credentials provider. Raises KeyError where no role was given."""
        return self._ports.number(Door.CREDENTIALS)

    @property
    def events(self) -> Sequence[Event]:
        """The last events, the oldest first."""
        return tuple(self._journal.events)

    @property
    def hellos(self) -> Sequence[ClientHello]:
        """The ClientHellos among them."""
        return tuple(event.hello for event in self._journal.events if event.hello is not None)

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each kind of event and each refusal was, and `delivered`."""
        return self._journal.counters

    @property
    def delivered(self) -> int:
        """Publishes that were delivered."""
        return self._journal.counters["delivered"]

    @property
    def connections(self) -> int:
        """Clients at this moment, whether they have got as far as MQTT or not."""
        return len(self._clients)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is asked after each event, each delivery and each end."""
        while not condition():
            self._journal.changed.clear()
            await self._journal.changed.wait()

    # What somebody in the cloud does.

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1 by the broker behind, to whoever subscribes; returns when the broker has taken it.

        What is published to a shadow is answered by the shadow. Raises OSError when the broker is not there.
        """
        if topic_end(topic) is TopicEnd.SERVICE:
            self._tell(self._desk.answer(topic, payload, self._clock()), None)
            return
        async with self._publishing:
            if self._publisher is None or self._publisher.closed.done():
                self._publisher = await Publisher.connected(self._dial)
            await self._publisher.publish(topic, payload)

    @property
    def shadows(self) -> Shadows:
        """The shadows of all things, to read."""
        return self._desk.shadows

    @property
    def jobs(self) -> Jobs:
        """The jobs of all things, to read."""
        return self._desk.jobs

    def create_job(self, thing: str, job_id: str, document: object) -> None:
        """Queue a job for a thing, and notify it. Raises ValueError for an id that is there."""
        self._tell(self._desk.jobs.create(thing, job_id, document, self._clock()), None)

    def cancel_job(self, thing: str, job_id: str) -> None:
        """Cancel a job, and notify its thing. Raises KeyError for an unknown one."""
        self._tell(self._desk.jobs.cancel(thing, job_id, self._clock()), None)

    def activate(self, certificate_id: str) -> None:
        """Make a certificate active that was registered just in time. Raises KeyError."""
        self._certificates.activate(certificate_id)
        self._journal.record(0, Happening.ACTIVATED, detail=certificate_id)

    def expire_credentials(self) -> None:
        """End all that were lent, and the connections that were opened with them."""
        self._lending.expire()
        for client in list(self._front.by_client_id.values()):
            client.end_lease()

    def disconnect(self) -> None:
        """End all connections in good order, as an operator can; MQTT 5 hears why."""
        for client in list(self._clients.values()):
            client.end(Refusal.DISCONNECTED)

    # The faults.

    def cut(self) -> None:
        """Drop all connections now, without a word; new ones are welcome."""
        for client in list(self._clients.values()):
            client.cut()

    def refuse(self, on: bool) -> None:
        """While on, nobody listens on the ports; connections that are there stay."""
        self._refuses = on
        if on:
            self._ports.close()
        else:
            self._ports.open()

    def stall(self, on: bool) -> None:
        """While on, connections are accepted, and neither new nor old ones get an answer."""
        self._stalls = on
        for client in list(self._clients.values()):
            client.stall(on)

    # Inside.

    def _admit(self, der: bytes) -> Policy | Refusal:
        """Judge a certificate, then register it where that is asked for: its first connection fails by design."""
        judged = self._certificates.admit(der)
        if replies := self._certificates.register(der, self._clock()):
            self._register(fingerprint_of(der), replies)
        return judged

    def _register(self, certificate_id: str, replies: Sequence[Reply]) -> None:
        self._journal.record(0, Happening.REGISTERED, detail=certificate_id)
        self._tell(replies, None)
        delay = self._settings.activation_delay
        if delay is not None:
            loop = asyncio.get_running_loop()
            self._activations.add(loop.call_later(delay, self.activate, certificate_id))

    def _answer(self, asker: ClientSide, topic: str, payload: bytes) -> None:
        self._tell(self._desk.answer(topic, payload, self._clock()), asker)

    def _tell(self, replies: Sequence[Reply], asker: ClientSide | None) -> None:
        """Deliver what services say."""
        for reply in replies:
            alone = reply.audience is not Audience.SUBSCRIBERS
            for client in [asker] if alone else list(self._front.by_client_id.values()):
                if client is not None:
                    client.deliver(reply.topic, reply.payload, unasked=reply.audience is Audience.ASKER)

    def _welcome(self, door: Door) -> TlsEnd:
        self._last_number = number = self._last_number + 1
        kind = CredentialsSide if door is Door.CREDENTIALS else ClientSide
        client = kind(self._front, number, door, stalled=self._stalls)
        self._clients[number] = client
        if self._refuses:  # accepted a moment ago
            client.cut()
        client.closed.add_done_callback(lambda _: self._forget(number))
        return client

    def _forget(self, number: int) -> None:
        del self._clients[number]
        self._journal.changed.set()

    def _context(self, door: Door) -> ssl.SSLContext:
        if self._settings.tls.fresh_context:
            return server_context(self._settings.tls, self._pki, door)
        if door not in self._contexts:
            self._contexts[door] = server_context(self._settings.tls, self._pki, door)
        return self._contexts[door]

    async def _dial(self, protocol: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
        if self._broker is None and self._amqtt is not None:
            return await self._amqtt.dial(protocol)
        host, port = self._broker or ("", 0)
        return await asyncio.get_running_loop().create_connection(protocol, host, port)
