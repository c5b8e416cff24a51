"""A gateway of its own for each test of `lorabridge doctor`, and endpoints, portals and black holes for it to meet."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.simulation.pki import Pair
from lorabridge.simulation.standin import Policy, gateway_policy
from lorabridge.upstream.doctor.handshake import Patience
from lorabridge.upstream.doctor.reach import Surroundings
from tests.daemon.config_help import GATEWAY, Installation
from tests.simulation.standin_help import Running, lending, running, websocket_table
from tests.upstream.scripted_endpoint import handshaking

PATIENT = Patience(linger=20.0, alone=0.05, between=0.01, answer=30.0, connect=30.0, handshake=30.0, look_up=30.0)
"""Generous where a test waits for something that comes, short where nothing does."""
LINGERS_LITTLE = msgspec.structs.replace(PATIENT, linger=0.05)
IMPATIENT = msgspec.structs.replace(LINGERS_LITTLE, connect=0.2, handshake=0.3, look_up=0.05)
DAY = timedelta(days=1)


@dataclass
class Gateway:
    """An installation, what surrounds it, and what has to be undone in the end."""

    installed: Installation
    stack: ExitStack
    around: Surroundings = field(
        default_factory=lambda: Surroundings(is_synchronised=lambda: True, patience=LINGERS_LITTLE)
    )

    def set(self, **lines: str | int | bool) -> None:
        """Lines of `[aws_iot]`, in place of those that are there."""
        text = self.installed.path.read_text(encoding="utf-8").splitlines()
        names = tuple(f"{name} = " for name in lines)
        at = text.index("[aws_iot]") + 1
        end = next((number for number in range(at, len(text)) if text[number].startswith("[")), len(text))
        kept = [line for line in text[at:end] if not line.startswith(names)]
        new = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in lines.items()]
        self.installed.write("\n".join([*text[:at], *new, *kept, *text[end:], ""]))

    def surround(self, **changes: Any) -> None:
        """Change what is around."""
        self.around = msgspec.structs.replace(self.around, **changes)

    def dial(self, port: int) -> None:
        self.set(connect_address=f"127.0.0.1:{port}")

    def standin(self, policy: Policy | None = None, **changes: Any) -> Running:
        """The endpoint's stand-in; with another policy than that of the guide, or with none for our certificate."""
        pki = self.installed.pki
        granted = {"policies": {pki.gateway.fingerprint: policy or gateway_policy(GATEWAY)}}
        found = self.stack.enter_context(running(pki, **granted | changes))
        self.dial(found.standin.port)
        return found

    def websocket(self, rights: Policy | None = None, **role: Any) -> Running:
        """The stand-in's way over WebSocket, with the rights of the role's own, and other changes of it."""
        pki = self.installed.pki
        found = self.stack.enter_context(running(pki, **lending(pki, gateway_policy(GATEWAY), policy=rights, **role)))
        self.set(transport="websocket", connect_address=f"127.0.0.1:{found.standin.websocket_port}")
        self.borrow(found.standin.credentials_port)
        return found

    def borrow(self, port: int, **changes: str) -> None:
        """`[aws_iot.websocket]`, with credentials from this port."""
        table = websocket_table(port, **changes).partition("[aws_iot.websocket]")
        text = self.installed.path.read_text(encoding="utf-8").partition("[aws_iot.websocket]")[0]
        self.installed.write(text + "".join(table[1:]))

    def server(self, pair: Pair | None = None, change: Callable[[ssl.SSLContext], None] = lambda _context: None) -> int:
        """A bare TLS server with this certificate; its port is dialled."""
        context = server_context(self.installed, pair)
        change(context)
        port = self.stack.enter_context(handshaking(context))
        self.dial(port)
        return port

    def answering(self, answer: bytes) -> None:
        """A server without TLS, which gives one answer; its port is dialled."""
        self.dial(self.stack.enter_context(serving(lambda connection: connection.sendall(answer))))

    def use(self, pair: Pair) -> None:
        """Another certificate of ours."""
        self.set(certificate_file=str(pair.certificate), private_key_file=str(pair.key))

    @property
    def key(self) -> Path:
        return self.installed.pki.gateway.key


def server_context(installed: Installation, pair: Pair | None = None) -> ssl.SSLContext:
    pki = installed.pki
    pair = pair or pki.server_ecdsa
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(pki.devices.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def serving(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port where each connection is heard once and gets an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(30)
                    connection.recv(65536, socket.MSG_PEEK)
                    answer(connection)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # closing with unread bytes would reset the connection
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answering_tls(gateway: Gateway, pair: Pair, answer: bytes) -> int:
    """The port of a server that has this certificate, and one answer to everything."""
    context = server_context(gateway.installed, pair)

    def say(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            if wrapped.recv(4096):
                wrapped.sendall(answer)

    return gateway.stack.enter_context(serving(say))


@contextmanager
def at_work(gateway: Gateway, **changes: object) -> Iterator[None]:
    """A bridge that is online, as far as its status socket tells, but for `changes`."""
    answer = {
        "uptime_s": 61,
        "link": "online",
        "link_fault": None,
        "link_detail": "",
        "commands": "on",
        "healthy": True,
        "stuck": [],
        "verdicts": {},
        "counters": {"link_acknowledged": 41},
        "gateways": {},
    }
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(gateway.installed.socket))
        listening.listen()

        def serve() -> None:
            with suppress(OSError), listening.accept()[0] as connection:
                connection.sendall(msgspec.json.encode(answer | changes))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def https(installed: Installation, date: datetime, pair: Pair | None = None) -> AbstractContextManager[int]:
    """The endpoint's HTTPS, with a date of its own; there is no MQTT on it."""
    context = server_context(installed, pair)
    context.set_alpn_protocols(["x-amzn-http-ca"])

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(4096)
            wrapped.sendall(f"HTTP/1.1 403 Forbidden\r\ndate: {format_datetime(date, usegmt=True)}\r\n\r\n".encode())

    return serving(answer)


def speaking(gateway: Gateway, connack: bytes, on_publish: Callable[[bytes], bytes]) -> None:
    """An endpoint that takes CONNECT and SUBSCRIBE, and answers a publish so; empty is hanging up."""
    context = server_context(gateway.installed)

    def converse(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            while packet := wrapped.recv(65536):
                match packet[0] & 0xF0:
                    case 0x10:
                        answer = connack
                    case 0x30:
                        answer = on_publish(packet)
                    case _:
                        answer = b"\x90\x03" + packet[2:4] + b"\x01"
                if not answer:
                    return
                wrapped.sendall(answer)

    gateway.dial(gateway.stack.enter_context(serving(converse)))


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: the kernel answers no SYN, as if a firewall dropped it."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(16):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(full.getsockname())
        yield int(full.getsockname()[1])
