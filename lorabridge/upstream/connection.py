"""One MQTT connection from dialling to its end, on the asyncio loop, with paho-mqtt as the protocol.

paho's `connect` blocks (DNS, TCP, TLS handshake), so it runs on a thread of its own, and nothing else
touches the client until that thread is done. From then on the client belongs to the loop alone: the
socket does not block, the loop says when it is ready, and no lock is ever waited for. A connection is
used once: a fresh context and a fresh client each time leave nothing behind of a failed one.

Packets that paho queues are written by `flush` at the end of each batch; the loop watches the socket
for writing only when the kernel's buffer is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTProtocolVersion

from lorabridge.upstream import endings, tls
from lorabridge.upstream.faults import LinkDown, LinkFault, fault_of_error
from lorabridge.upstream.login import Login
from lorabridge.upstream.websocket import WebSocket, WebSocketClient

if TYPE_CHECKING:
    from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage, SocketLike
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

_READ_ROUNDS = 16
"""Times that one wake-up may go on reading what TLS has already decrypted, before others get their turn."""


class Message(msgspec.Struct, frozen=True):
    """Something to publish."""

    topic: str
    payload: bytes
    retain: bool = False


class Delivery(msgspec.Struct, frozen=True):
    """Something published to us. `topic` is None when it is not UTF-8."""

    topic: str | None
    payload: bytes
    packet_id: int
    qos: int


def _nobody() -> None:
    """The certificate says who we are."""


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection needs to know."""

    tls: tls.TlsSettings
    context: Callable[[], ssl.SSLContext | None]
    """Called on the thread that dials; None: no TLS. Raises ConfigError."""
    client_id: str
    mqtt_5: bool
    keep_alive: int
    in_flight: int
    connect_timeout: float
    puback_timeout: float
    will: Message | None
    login: Callable[[], Login | None] = _nobody
    """Called on the thread that dials. Raises ConfigError."""
    websocket: Callable[[], str] | None = None
    """What to ask for in the handshake of a WebSocket, called on the thread that dials; None: MQTT right on TLS."""


class Owner(Protocol):
    """Who is told what happens on a connection; every call comes from the loop."""

    def connected(self) -> None:
        """CONNACK came: publishing may begin."""

    def acknowledged(self, key: int) -> None:
        """PUBACK came for the publish with this key."""

    def subscribed(self, refusal: str) -> None:
        """SUBACK came; `refusal` is empty when the subscription is granted."""

    def received(self, delivery: Delivery) -> None:
        """A message came. It is the owner's to `acknowledge`, who is told of it even when the connection is over."""

    def settled(self) -> None:
        """Everything that was waiting has been read: a good moment to publish more."""


class Connection:
    """One connection. `down` is set, once, when it is over; publishes without a PUBACK are then in `unacknowledged`."""

    def __init__(self, settings: ConnectionSettings, owner: Owner, clock: Callable[[], float]) -> None:
        self._settings = settings
        self.owner = owner
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.down: asyncio.Future[LinkDown] = self._loop.create_future()
        self.unacknowledged: dict[int, tuple[int, float]] = {}
        """Key and time of each publish without a PUBACK, by packet id, the oldest first."""
        self.is_dialling = False
        self.connect_sent_at: float | None = None
        """When CONNECT was handed to the network, in the loop's time."""
        self._handing_over = threading.Lock()
        self._has_dialled = False
        self._is_given_up = False
        self.is_up = False
        self.window = settings.in_flight
        self._fate: LinkDown | None = None
        self._descriptor = -1
        self._wants_write = False
        self._watches_write = False
        self._last_error = ""
        self._subscribed_at: float | None = None
        self._suback: str | None = None
        self._arrived: list[Delivery] = []
        self._client = self._new_client()
        self._timer = self._loop.call_later(settings.connect_timeout, self._gave_no_answer)

    def _new_client(self) -> Client:
        settings = self._settings
        version = MQTTProtocolVersion.MQTTv5 if settings.mqtt_5 else MQTTProtocolVersion.MQTTv311
        client = (Client if settings.websocket is None else WebSocketClient)(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if settings.mqtt_5 else True,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout
        client.max_inflight_messages_set(settings.in_flight)
        if settings.will is not None:
            client.will_set(settings.will.topic, settings.will.payload, qos=1, retain=settings.will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_log = self._on_log
        client.on_socket_open = _send_at_once
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        return client

    def dial(self) -> None:
        """Start to connect. The thread that does it may outlive the connection: a name look-up cannot be cut short."""
        self.is_dialling = True
        threading.Thread(target=self._dial, name="lorabridge-dial", daemon=True).start()

    def _dial(self) -> None:
        """On a thread of its own: everything that blocks."""
        error: Exception | None = None
        try:
            context, login = self._settings.context(), self._settings.login()
            if context is not None:
                self._client.tls_set_context(context)
            if login is not None:
                self._client.username_pw_set(login.user_name, login.reveal())
            if self._settings.websocket is not None and isinstance(self._client, WebSocketClient):
                patience = self._settings.connect_timeout / 2  # so that it is this which is named
                self._client.speak_within(self._settings.tls.endpoint, self._settings.websocket(), patience)
            host, port = self._settings.tls.address
            self._client.connect(host, port, self._settings.keep_alive)
        except Exception as raised:  # noqa: BLE001  # sorted out on the loop: a fault, or a bug that `down` carries on
            error = raised
        outcome = error and (fault_of_error(error, self._clock_is_behind) or error)
        with self._handing_over:
            self._has_dialled = True
            if self._is_given_up:
                self._close_socket()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._dialled, outcome)

    def _clock_is_behind(self) -> bool:
        return tls.is_behind(self._settings.tls, self._clock())

    def _dialled(self, outcome: LinkDown | Exception | None) -> None:
        """The dialling thread is done; from here on the client is the loop's."""
        self.is_dialling = False
        if self.down.done():  # given up in the meantime
            return
        if isinstance(outcome, LinkDown):
            self.drop(outcome)
        elif outcome is not None:
            self.fail(outcome)
        else:
            sock = self._client.socket()
            self._descriptor = -1 if sock is None else sock.fileno()
            self._loop.add_reader(self._descriptor, self._guard, self._read)
            self.connect_sent_at = self._loop.time()
            self._guard(self.flush)
            if isinstance(sock, WebSocket):  # the kernel is silent about what came right behind its handshake
                self._guard(self._read)

    def _gave_no_answer(self) -> None:
        dialling = self._descriptor < 0
        fault = LinkFault.UNREACHABLE if dialling else LinkFault.NO_CONNACK
        self.drop(LinkDown(fault, f"nothing after {self._settings.connect_timeout:g} s"))

    def publish(self, message: Message, key: int) -> None:
        """Queue a QoS 1 publish; `flush` sends it. The caller keeps within `window` and publishes when `is_up` only."""
        info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        self.unacknowledged[info.mid] = (key, self._loop.time())

    def subscribe(self, topic_filter: str) -> None:
        """Queue a SUBSCRIBE for QoS 1; `Owner.subscribed` follows, or the end of the connection."""
        self._subscribed_at = self._loop.time()
        self._client.subscribe(topic_filter, qos=1)

    def acknowledge(self, delivery: Delivery) -> None:
        """Send the PUBACK for `delivery`; nothing happens when the connection is over."""
        if self.is_up and delivery.qos:
            self._client.ack(delivery.packet_id, delivery.qos)
            self.flush()

    def flush(self) -> None:
        """Write what is queued, as far as the kernel takes it; the loop writes the rest."""
        if self._descriptor < 0:  # closed, or still in the hands of the dialling thread
            return
        if self._client.want_write():
            self._client.loop_write()
        if self._wants_write and not self._watches_write and self._descriptor >= 0:
            self._watches_write = True
            self._loop.add_writer(self._descriptor, self._guard, self._client.loop_write)

    def disconnect(self) -> None:
        """Say DISCONNECT, so that the last will is not sent, and close."""
        self._fate = LinkDown(None)
        if self.is_up:
            self._client.disconnect()
            self.flush()
        self.drop(LinkDown(None))

    def drop(self, reason: LinkDown) -> None:
        """Close without a word: the endpoint sends the last will. Nothing happens when it is closed already."""
        if self.down.done():
            return
        self._timer.cancel()
        self.is_up = False
        self._let_go()
        self.down.set_result(self._fate or reason)

    def fail(self, bug: BaseException) -> None:
        """What nobody foresaw ends the connection and travels on to whoever awaits `down`."""
        if not self.down.done():
            self.down.set_exception(bug)
        self._timer.cancel()
        self._let_go()

    def _let_go(self) -> None:
        """Close the socket; one that is still being dialled is closed by the thread that does it."""
        self._unwatch()
        with self._handing_over:
            self._is_given_up = True
            if self._has_dialled:
                self._close_socket()

    def _guard(self, step: Callable[[], object]) -> None:
        """Run one step of the loop's, so that an exception of ours is not merely logged by asyncio."""
        try:
            step()
        except Exception as bug:  # noqa: BLE001  # re-raised where `down` is awaited
            self.fail(bug)

    def _read(self) -> None:
        """Read all that is there, what TLS has decrypted already included: for that the kernel stays silent."""
        was_up = self.is_up
        for _ in range(_READ_ROUNDS):
            self._client.loop_read()
            sock = self._client.socket()
            if self.down.done() or not isinstance(sock, ssl.SSLSocket | WebSocket) or not sock.pending():
                break
        else:
            self._loop.call_soon(self._guard, self._read)
        self._hand_on()
        if self._fate is not None:
            self.drop(self._fate)
        elif self.is_up:
            if not was_up:
                self._timer.cancel()
                self._tick()
                self.owner.connected()
            self.owner.settled()
            self.flush()

    def _hand_on(self) -> None:
        """Tell the owner what was noted down while packets were read."""
        suback, self._suback = self._suback, None
        if suback is not None and self.is_up:
            self.owner.subscribed(suback)
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            for delivery in arrived:
                self.owner.received(delivery)

    def _tick(self) -> None:
        """Keep-alive, and the patience with PUBACKs."""
        patience = self._settings.puback_timeout
        self._timer = self._loop.call_later(min(1.0, patience / 4), self._guard, self._tick)
        self._client.loop_misc()
        oldest = next(iter(self.unacknowledged.values()), None)
        if oldest is not None and self._loop.time() - oldest[1] > patience:
            self.drop(LinkDown(LinkFault.PUBACK_TIMEOUT, f"no PUBACK after {patience:g} s"))
        elif self._subscribed_at is not None and self._loop.time() - self._subscribed_at > patience:
            self.drop(LinkDown(LinkFault.SUBSCRIBE_REFUSED, f"no SUBACK after {patience:g} s"))
        elif not self.down.done():
            self.flush()

    def _unwatch(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        self._wants_write = False
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            if self._watches_write:
                self._loop.remove_writer(descriptor)
                self._watches_write = False

    def _close_socket(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    # What paho calls back. They only take notes: a socket is not closed under paho's feet.

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._fate = endings.of_connack(reason)
            return
        self._client.on_log = None  # it costs a formatted line a packet, and has told what it was wanted for
        self._last_error = ""
        self.window = min(self.window, getattr(properties, "ReceiveMaximum", self.window))  # MQTT 5 §3.2.2.3.3
        self.is_up = True

    def _on_publish(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        if reason.is_failure:
            self._fate = self._fate or endings.of_puback(reason, self.unacknowledged[mid][0])
            return
        self.owner.acknowledged(self.unacknowledged.pop(mid)[0])

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._subscribed_at = None
        self._suback = next((f"SUBACK: {reason}" for reason in reasons if reason.is_failure), "")

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = None
        self._arrived.append(Delivery(topic, bytes(message.payload), message.mid, message.qos))

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        is_up, is_subscribing = self.is_up, self._subscribed_at is not None
        if flags.is_disconnect_packet_from_server:
            self.drop(endings.of_disconnect(reason, is_up=is_up, is_subscribing=is_subscribing))
        else:
            self.drop(endings.of_silence(reason, self._last_error, is_up=is_up, is_subscribing=is_subscribing))

    def _on_log(self, _client: Client, _userdata: Any, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self._last_error = text

    def _on_socket_close(self, _client: Client, _userdata: Any, _sock: object) -> None:
        self._unwatch()

    def _on_register_write(self, _client: Client, _userdata: Any, _sock: object) -> None:
        self._wants_write = True

    def _on_unregister_write(self, _client: Client, _userdata: Any, _sock: object) -> None:
        self._wants_write = False
        if self._watches_write:
            self._watches_write = False
            self._loop.remove_writer(self._descriptor)


def _send_at_once(_client: Client, _userdata: Any, sock: SocketLike) -> None:
    """Nagle's algorithm against delayed acknowledgements costs 40 ms a message: switch it off."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
