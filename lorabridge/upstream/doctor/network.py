"""The way to the endpoint below TLS: its name, the kernel's route, the port."""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
import time
from pathlib import Path

import msgspec

_INTERNET = (socket.AF_INET, socket.AF_INET6)
RESOLV_CONF = Path("/etc/resolv.conf")


class Address(msgspec.Struct, frozen=True):
    """One address to dial."""

    family: socket.AddressFamily
    sockaddr: tuple[str | int, ...]

    @property
    def host(self) -> str:
        """As text, without the port."""
        return str(self.sockaddr[0])

    def __str__(self) -> str:
        return f"{self.host} port {self.sockaddr[1]}"


def look_up(host: str, port: int, seconds: float) -> list[Address]:
    """The addresses of `host`, each once. Raises OSError (gaierror; TimeoutError when the resolver hangs).

    A look-up cannot be cut short: its thread may outlive the call.
    """
    answers: queue.SimpleQueue[list[Address] | OSError | UnicodeError] = queue.SimpleQueue()

    def work() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([Address(family, (*sockaddr,)) for family, _, _, _, sockaddr in found if family in _INTERNET])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=work, name="lorabridge-look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"the resolver has not answered within {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return list(dict.fromkeys(answer))


def resolvers() -> str:
    """The name servers that this machine asks, for a sentence; empty when it does not say."""
    try:
        text = RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return ", ".join(re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE))


def is_no_real_address(host: str) -> bool:
    """Whether an address is one that filters and portals answer with: none at all, or this machine's own."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return address.is_unspecified or address.is_loopback


def source_for(address: Address) -> str:
    """The address of ours that the kernel would send from; no packet is sent. Raises OSError without a route."""
    with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        probe.connect(address.sockaddr)  # of UDP: only looks the route up
        return str(probe.getsockname()[0])


def dial(address: Address, seconds: float) -> tuple[socket.socket, float]:
    """A connected socket, and the seconds that took. Raises OSError."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        begun = time.monotonic()
        sock.connect(address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock, time.monotonic() - begun
