"""A stand-in on a loop of its own, so that blocking clients (openssl, paho, plain sockets) can meet it."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from lorabridge.simulation.pki import Pair, Pki, make_pki
from lorabridge.simulation.standin import (
    Event,
    Happening,
    Policy,
    Refusal,
    Role,
    StandIn,
    StandInSettings,
    gateway_policy,
)
from lorabridge.simulation.standin.services.lending import Lent

ENDPOINT = "test-ats.iot.eu-west-1.amazonaws.com"
CREDENTIALS = "test.credentials.iot.eu-west-1.amazonaws.com"
GATEWAY = "gw-1"
UPLINK = f"lorabridge/{GATEWAY}/uplink/70b3d57ed0000001"
STATUS = f"lorabridge/{GATEWAY}/status"
COMMANDS = f"lorabridge/{GATEWAY}/command/#"
TIMEOUT = 20
ROLE = "lorabridge"


class Running:
    """The stand-in as seen from another thread."""

    def __init__(self, standin: StandIn, pki: Pki, published: list[tuple[str, bytes]], stopped: asyncio.Event) -> None:
        self.standin = standin
        self.pki = pki
        self.published = published
        """What the observer was told."""
        self._stopped = stopped
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: it has stopped already
            self._loop.call_soon_threadsafe(self._stopped.set)

    def until(self, condition: Callable[[], bool]) -> None:
        asyncio.run_coroutine_threadsafe(self.standin.until(condition), self._loop).result(TIMEOUT)

    def call(self, step: Callable[[], None]) -> None:
        """Run `step` on the stand-in's loop."""

        async def on_loop() -> None:
            step()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(TIMEOUT)

    def publish(self, topic: str, payload: bytes) -> None:
        """As somebody in the cloud."""
        asyncio.run_coroutine_threadsafe(self.standin.publish(topic, payload), self._loop).result(TIMEOUT)

    def watch_lent(self, secrets: list[bytes]) -> None:
        """Note the secret parts of all credentials that are lent from now on."""
        lending, lend = self.standin._lending, self.standin._lending.lend

        def noting(*asked: Any) -> Lent | Refusal:
            found = lend(*asked)
            if isinstance(found, Lent):
                secrets.extend(text.encode() for text in (found.secret_access_key, found.session_token))
            return found

        setattr(lending, "lend", noting)  # noqa: B010  # of this one instance

    def happened(self, kind: Happening, refusal: Refusal | None = None) -> Event:
        """The last event of this kind; waited for."""

        def found() -> list[Event]:
            return [event for event in self.standin.events if (event.kind, event.refusal) == (kind, refusal)]

        self.until(lambda: bool(found()))
        return found()[-1]

    def refused(self, refusal: Refusal) -> Event:
        return self.happened(Happening.REFUSED, refusal)

    def ignored(self, refusal: Refusal) -> Event:
        return self.happened(Happening.IGNORED, refusal)


def new_pki(folder: Path) -> Pki:
    return make_pki(folder / "pki", endpoint=ENDPOINT, gateway_id=GATEWAY)


def generous_policy() -> Policy:
    """The gateway's own rights, and commands to see what the front does with subscriptions."""
    return msgspec.structs.replace(
        gateway_policy(GATEWAY), subscribe=(COMMANDS, "lorabridge/*"), receive=("lorabridge/*",)
    )


def lending(pki: Pki, certificate: Policy | None = None, **role: Any) -> dict[str, Any]:
    """Settings with a role that the gateway's certificate may assume."""
    granted = msgspec.structs.replace(certificate or generous_policy(), assume_role=(ROLE,))
    return {"policies": {pki.gateway.fingerprint: granted}, "roles": {ROLE: Role(**role)}}


def websocket_table(credentials_port: int, **changes: str) -> str:
    """`transport` and the table of `[aws_iot.websocket]`, for the end of `[aws_iot]`."""
    lines = {
        "credentials_endpoint": CREDENTIALS,
        "connect_address": f"127.0.0.1:{credentials_port}",
        "role_alias": ROLE,
        "region": "eu-west-1",
    } | changes
    return 'transport = "websocket"\n[aws_iot.websocket]\n' + "".join(f'{name} = "{lines[name]}"\n' for name in lines)


@contextmanager
def running(pki: Pki, *, broker: tuple[str, int] | None = None, **changes: Any) -> Iterator[Running]:
    """A stand-in for the gateway's certificate; `changes` are of its settings."""
    settings = StandInSettings(
        policies={pki.gateway.fingerprint: generous_policy()}, publishes_per_second=0, bytes_per_second=0
    )
    settings = msgspec.structs.replace(settings, **changes)
    started: queue.Queue[Running | BaseException] = queue.Queue()
    problems: list[dict[str, Any]] = []

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        published: list[tuple[str, bytes]] = []
        standin = StandIn(settings, pki=pki, broker=broker, observer=lambda *publish: published.append(publish))
        async with standin:
            stopped = asyncio.Event()
            started.put(Running(standin, pki, published, stopped))
            await stopped.wait()
        problems.extend({"task": task} for task in asyncio.all_tasks() if task is not asyncio.current_task())

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  # for the thread that waits to raise
            started.put(error)

    thread = threading.Thread(target=work, name="standin")
    thread.start()
    first = started.get(timeout=TIMEOUT)
    if isinstance(first, BaseException):
        raise first
    try:
        yield first
    finally:
        first.stop()
        thread.join(TIMEOUT)
    assert not thread.is_alive(), "the stand-in does not stop"
    assert started.empty(), started.get()
    assert not problems, problems


class Pinned(ssl.SSLContext):
    """Says the endpoint's name whatever address is dialled."""

    endpoint = ENDPOINT

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **kwargs | {"server_hostname": self.endpoint})


def _context(ca_file: Path, pair: Pair, alpn: str | None = None, endpoint: str = ENDPOINT) -> ssl.SSLContext:
    context = Pinned(ssl.PROTOCOL_TLS_CLIENT)
    context.endpoint = endpoint
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_file)
    context.load_cert_chain(pair.certificate, pair.key)
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context


class Paho:
    """paho-mqtt with everything right, on a thread of its own, and what it was told."""

    def __init__(
        self,
        context: ssl.SSLContext,
        port: int,
        *,
        client_id: str = GATEWAY,
        mqtt_5: bool = False,
        will: tuple[str, bool] | None = None,
        keep_alive: int = 60,
        websocket: str = "",
    ) -> None:
        """`websocket`: what to ask for in the handshake of one."""
        self.connected: queue.Queue[ReasonCode] = queue.Queue()
        self.acknowledged: queue.Queue[tuple[int, ReasonCode]] = queue.Queue()
        self.subscribed: queue.Queue[list[ReasonCode]] = queue.Queue()
        self.messages: queue.Queue[MQTTMessage] = queue.Queue()
        self.disconnected: queue.Queue[ReasonCode] = queue.Queue()
        self.limits: Properties | None = None
        version = MQTTProtocolVersion.MQTTv5 if mqtt_5 else MQTTProtocolVersion.MQTTv311
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=version,
            transport="websockets" if websocket else "tcp",
            reconnect_on_failure=False,
        )
        self.client.ws_set_options(websocket, {"Host": ENDPOINT})
        self.client.on_connect = self._on_connect
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self.acknowledged.put((mid, reason))
        self.client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subscribed.put(reasons)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.disconnected.put(reason)
        self.client.tls_set_context(context)
        if will is not None:
            self.client.will_set(will[0], b"gone", qos=1, retain=will[1])
        self.client.connect("127.0.0.1", port, keep_alive)
        self.client.loop_start()

    def _on_connect(self, _c: Client, _u: Any, _f: ConnectFlags, reason: ReasonCode, limits: Properties | None) -> None:
        self.limits = limits
        self.connected.put(reason)

    def ready(self) -> Paho:
        """Wait for a CONNACK that says yes."""
        assert not self.connected.get(timeout=TIMEOUT).is_failure
        return self

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, retain: bool = False) -> int:
        """The packet id."""
        return self.client.publish(topic, payload, qos, retain).mid

    def acknowledgement(self, mid: int) -> ReasonCode:
        """What the next PUBACK says; it must be for `mid`."""
        of, reason = self.acknowledged.get(timeout=TIMEOUT)
        assert of == mid
        return reason

    def closed(self) -> ReasonCode:
        """Wait until the other side closes."""
        return self.disconnected.get(timeout=TIMEOUT)

    def limit(self, name: str) -> int:
        """A property of the CONNACK of MQTT 5."""
        return int(getattr(self.limits, name))

    def vanish(self) -> None:
        """Be gone without a DISCONNECT."""
        sock = self.client.socket()
        assert isinstance(sock, ssl.SSLSocket)
        sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def paho(pki: Pki, port: int, *, pair: Pair | None = None, alpn: str | None = None, **how: Any) -> Iterator[Paho]:
    with _paho(_context(pki.ca_file, pair or pki.gateway, alpn), port, **how) as client:
        yield client


@contextmanager
def paho_at(ca_file: Path, port: int, pair: Pair, endpoint: str, **how: Any) -> Iterator[Paho]:
    """With nothing but files and a name, as somebody else would."""
    with _paho(_context(ca_file, pair, endpoint=endpoint), port, **how) as client:
        yield client


@contextmanager
def _paho(context: ssl.SSLContext, port: int, **how: Any) -> Iterator[Paho]:
    client = Paho(context, port, **how)
    try:
        yield client
    finally:
        client.close()


def properties(kind: int, **values: int) -> Properties:
    """Properties of MQTT 5 for packets of `kind`."""
    made = Properties(kind)  # type: ignore[no-untyped-call]  # paho's own
    for name, value in values.items():
        setattr(made, name, value)
    return made


class RawClient:
    """Packets byte by byte, over TLS that does everything right."""

    def __init__(
        self,
        pki: Pki,
        port: int,
        *,
        endpoint: str = ENDPOINT,
        pair: Pair | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        context = context or _context(pki.ca_file, pair or pki.gateway, endpoint=endpoint)
        with sock:  # what TLS has not taken over
            self.tls = context.wrap_socket(sock, server_hostname=endpoint)

    def send(self, *packets: bytes) -> None:
        self.tls.sendall(b"".join(packets))

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end."""
        data = b""
        while len(data) < size and (more := self.tls.recv(min(size - len(data), 65536))):
            data += more
        return data

    def rest(self) -> bytes:
        """All until the other side closes."""
        return self.read(1 << 30)

    def close(self) -> None:
        self.tls.close()


@contextmanager
def raw(pki: Pki, port: int, **how: Any) -> Iterator[RawClient]:
    client = RawClient(pki, port, **how)
    try:
        yield client
    finally:
        client.close()


class Things:
    """Requests to the services of AWS IoT and their replies, by a connected client."""

    def __init__(self, paho: Paho) -> None:
        self._paho = paho

    def subscribe(self, *filters: str) -> None:
        self._paho.client.subscribe([(one, 1) for one in filters])
        assert not any(reason.is_failure for reason in self._paho.subscribed.get(timeout=TIMEOUT))

    def ask(self, topic: str, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The next reply, which repeats the request's token."""
        token = request.get("clientToken")
        self._paho.acknowledgement(self._paho.publish(topic, msgspec.json.encode(request)))
        return self.next(token)

    def next(self, token: str | None = None) -> tuple[str, dict[str, Any]]:
        """Topic and payload of the next message, its time and its token left out."""
        message = self._paho.messages.get(timeout=TIMEOUT)
        told: dict[str, Any] = msgspec.json.decode(message.payload)
        assert told.pop("clientToken", None) == token, told
        if "state" not in told:
            told.pop("timestamp", None)
        return message.topic, told
