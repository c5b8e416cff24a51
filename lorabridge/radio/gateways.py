"""Which gateways may speak to the UDP server, and where each of them can be reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from lorabridge.lorawan.types import EUI64

_REMEMBERED_HOSTS: Final = 4096


class AllowList:
    """Source networks and gateway EUIs; an empty list allows all. Where both are given, both must hold."""

    def __init__(self, networks: Iterable[str], gateways: Iterable[EUI64]) -> None:
        """`networks` in CIDR form. Raises ValueError with a sentence for the operator."""
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._gateways = frozenset(gateways)
        self._hosts: dict[str, bool] = {}

    @property
    def is_open(self) -> bool:
        """Whether anybody may speak."""
        return not self._networks and not self._gateways

    def allows_host(self, host: str) -> bool:
        """Whether a datagram from this IP address is read at all."""
        if not self._networks:
            return True
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= _REMEMBERED_HOSTS:  # forged source addresses must not cost memory
                self._hosts.clear()
            known = self._hosts[host] = self._in_networks(host)
        return known

    def allows_gateway(self, gateway_eui: EUI64) -> bool:
        """Whether this gateway is answered and heard."""
        return not self._gateways or gateway_eui in self._gateways

    def _in_networks(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)


class Route(NamedTuple):
    """How to reach a gateway."""

    address: Any
    """As the socket gave it; (host, port, …)."""
    version: int
    """Protocol version the gateway speaks."""
    seen: float
    """Monotonic seconds of its last PULL_DATA."""


class RouteTable:
    """The return address of each gateway. Only PULL_DATA sets one: that datagram comes from the socket that listens."""

    def __init__(self, *, limit: int, lifetime: float) -> None:
        """At most `limit` gateways, each for `lifetime` seconds after its last PULL_DATA."""
        self._limit = limit
        self._lifetime = lifetime
        self._routes: dict[EUI64, Route] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def learn(self, gateway_eui: EUI64, route: Route) -> bool:
        """Remember a route; False when the table is full of gateways that are alive, which keep their places."""
        self._expire(route.seen)
        if self._routes.pop(gateway_eui, None) is None and len(self._routes) >= self._limit:
            return False
        self._routes[gateway_eui] = route  # at the end: the one that called longest ago is always the first
        return True

    def alive(self, now: float) -> frozenset[EUI64]:
        """The gateways that can be reached."""
        self._expire(now)
        return frozenset(self._routes)

    def find(self, gateway_eui: EUI64, now: float) -> Route | None:
        """The route to a gateway, None when it never called or not for too long."""
        route = self._routes.get(gateway_eui)
        return route if route is not None and now - route.seen <= self._lifetime else None

    def _expire(self, now: float) -> None:
        while self._routes:
            first = next(iter(self._routes))
            if now - self._routes[first].seen <= self._lifetime:
                return
            del self._routes[first]
