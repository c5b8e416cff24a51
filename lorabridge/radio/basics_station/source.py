"""The endpoint (LNS) for Basics Stations: a WebSocket server as a radio source.

A station asks at `/router-info` where to go, connects there, says its version, is told the channels, and from then
on sends what it hears. Nothing that runs something on the station (`runcmd`, `rmtsh`) is ever sent.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from lorabridge.errors import TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult
from lorabridge.lorawan.gps_time import gps_ns_of
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.basics_station.listener import WRITE_LIMIT, Connection, Listener, listen, silent_logger
from lorabridge.radio.basics_station.messages import (
    Message,
    SentMessage,
    TimeSyncMessage,
    VersionMessage,
    build,
    parse_id6,
    parse_message,
    parse_router,
)
from lorabridge.radio.basics_station.orders import order
from lorabridge.radio.basics_station.router_config import data_rates, router_config
from lorabridge.radio.basics_station.settings import BasicsStationSettings, read_token, tls_context
from lorabridge.radio.basics_station.station import NOT_CONNECTED, Station
from lorabridge.radio.basics_station.uplinks import Heard, reception
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.inbox import INBOX_LIMIT, Inbox
from lorabridge.radio.outcomes import BUSY, PENDING_LIMIT, UNSENDABLE

_LOGGER = logging.getLogger(__name__)

MAX_MESSAGE: Final = 40 * 1024
"""Bytes of one message: what a station itself takes."""
INBOX_SHARE: Final = 512
"""Frames of one station that may wait: a concentrator hears fewer than that in a second."""
MORE_CONNECTIONS: Final = 32
"""Beside two for each station, one of which may be dead: those that are at the door, or ask at `/router-info`."""
PATIENCE: Final = 20.0
"""Seconds between pings, and without an answer until a station is given up."""
HANDSHAKE_LIMIT: Final = 10.0
"""Seconds that a connection has for TLS and its request, and then for its first message."""
LONGEST_STOP: Final = 1.0

_INFO_PATH = "/router-info"
_MUX_PATH = "/router/"
_COUNTERS = (
    "tcp_connections",
    "turned_away",
    "connections",
    "refused",
    "replaced",
    "messages",
    "frames",
    "inbox_dropped",
    "ignored",
    "transmitted",
    "dntxed",
    "dntxed_unmatched",
    *(f"fault_{fault.value}" for fault in DatagramFault),
)


class BasicsStation:
    """A radio source: the stations that connect to one TCP port."""

    def __init__(
        self,
        settings: BasicsStationSettings,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives ns since the Unix epoch, `monotonic` seconds."""
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._rates = data_rates(settings.plan.region)
        self._router_config = build(router_config(settings.plan))
        self._token: str | None = None
        self._stations: dict[EUI64, Station] = {}
        self._inbox: Inbox[tuple[Station, Reception]] = Inbox(INBOX_LIMIT)
        self._listener: Listener | None = None
        self._server: Server | None = None
        self._next_diid = 1
        self._counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))

    @property
    def name(self) -> str:
        """The name of this source in the configuration."""
        return self._settings.name

    @property
    def can_transmit(self) -> bool:
        """Stations send."""
        return True

    @property
    def reachable(self) -> frozenset[EUI64]:
        """The stations that are connected."""
        return frozenset(self._stations)

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals by name, and how many stations are connected now.

        `tcp_connections` are all that came; what failed within TLS is counted nowhere else.
        """
        return {**self._counters, **self._at_the_door(), "stations": len(self._stations)}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: (IP address, port). Raises TransientError while it does not."""
        if self._listener is None:
            raise TransientError(f"{self.name} is not listening")
        host, port = self._listener.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Listen. Raises ConfigError for what only the operator can mend, TransientError for the rest."""
        await self.stop()
        settings = self._settings
        context, self._token = tls_context(settings), read_token(settings)
        limit = 2 * settings.max_stations + MORE_CONNECTIONS
        self._listener = listen(settings.bind, settings.port, limit=limit, owner=settings.name)
        self._server = await serve(
            self._serve,
            sock=self._listener,
            ssl=context,
            process_request=self._door,
            create_connection=Connection,
            compression=None,
            max_size=MAX_MESSAGE,
            write_limit=WRITE_LIMIT,
            ping_interval=PATIENCE,
            ping_timeout=PATIENCE,
            open_timeout=HANDSHAKE_LIMIT,
            close_timeout=LONGEST_STOP,
            server_header=None,
            logger=silent_logger(),
        )
        self._inbox.open()
        if settings.is_open:
            _LOGGER.warning(
                "any station of the network may speak here: set gateways, token_file or client_ca_file",
                extra={"fields": {"source": self.name, "bind": settings.bind}},
            )

    async def receive(self) -> list[Reception | GatewayStatus]:
        """All that waits. After `stop` what was heard before, then SourceEnded."""
        heard: list[Reception | GatewayStatus] = []
        for station, told in await self._inbox.receive(INBOX_LIMIT):
            station.waiting -= 1
            heard.append(told)
        return heard

    async def transmit(self, transmission: Transmission) -> TxResult:
        """Give the order, and wait until the station says that the frame is on the air (of `dnsched` it does not)."""
        station = self._stations.get(transmission.gateway_eui)
        if station is None or not station.is_configured:
            return TxResult(error=NOT_CONNECTED)
        if station.owes >= PENDING_LIMIT:
            return TxResult(error=BUSY)
        diid, self._next_diid = self._next_diid, self._next_diid + 1
        now, gps_ns = self._monotonic(), gps_ns_of(self._clock())
        try:
            told = order(transmission, station.uplinks, self._rates, diid, monotonic=now, gps_ns=gps_ns)
        except ValueError:
            return TxResult(error=UNSENDABLE)
        self._counters["transmitted"] += 1
        return await station.send(told, diid)

    async def stop(self) -> None:
        """Close every connection and the port; what was heard stays for `receive`."""
        closing, self._server = self._server, None
        if closing is not None:
            closing.close()
            await closing.wait_closed()
        if self._listener is not None:
            for name, total in self._at_the_door().items():
                self._counters[name] = total
            self._listener.close()
            self._listener = None
        self._inbox.close()

    def _at_the_door(self) -> dict[str, int]:
        """Totals of what the listeners have counted."""
        now = self._listener
        came, turned_away = (0, 0) if now is None else (now.came, now.turned_away)
        return {
            "tcp_connections": self._counters["tcp_connections"] + came,
            "turned_away": self._counters["turned_away"] + turned_away,
        }

    def _door(self, connection: ServerConnection, request: Request) -> Response | None:
        """Who may come in, before anything of theirs is read."""
        refusal = None
        if self._token is not None and not self._has_token(request):
            refusal = HTTPStatus.UNAUTHORIZED
        elif request.path != _INFO_PATH:
            eui = self._eui_of(request.path)
            if eui is None:
                refusal = HTTPStatus.NOT_FOUND
            elif eui not in self._stations and len(self._stations) >= self._settings.max_stations:
                refusal = HTTPStatus.SERVICE_UNAVAILABLE
        if refusal is None:
            return None
        self._counters["refused"] += 1
        return connection.respond(refusal, f"{refusal.phrase}\n")

    def _has_token(self, request: Request) -> bool:
        said = request.headers.get_all("Authorization")
        asked = (self._token or "").encode()
        return len(said) == 1 and hmac.compare_digest(said[0].encode("utf-8", "replace"), asked)

    def _eui_of(self, path: str) -> EUI64 | None:
        """The gateway that a path belongs to, None when it is none of ours."""
        try:
            eui = parse_id6(path.removeprefix(_MUX_PATH)) if path.startswith(_MUX_PATH) else None
        except MalformedDatagram:
            return None
        return eui if not self._settings.gateways or eui in self._settings.gateways else None

    async def _serve(self, connection: ServerConnection) -> None:
        """One connection from its beginning to its end."""
        self._counters["connections"] += 1
        request = connection.request
        path = "" if request is None else request.path
        try:
            if path == _INFO_PATH:
                await self._tell_where(connection)
            elif (eui := self._eui_of(path)) is not None:
                await self._converse(connection, eui)
        except (ConnectionClosed, TimeoutError):
            pass  # a station went, or never said anything: it comes again
        except MalformedDatagram as error:
            self._counters[f"fault_{error.fault.value}"] += 1
        except Exception:
            # The library would tell it to its own logger, which is silent.
            _LOGGER.exception("a bug ended the connection of a station", extra={"fields": {"source": self.name}})

    async def _tell_where(self, connection: ServerConnection) -> None:
        """`/router-info`: the same endpoint under the gateway's own path. Raises MalformedDatagram."""
        async with asyncio.timeout(HANDSHAKE_LIMIT):
            eui = parse_router(await connection.recv())
        scheme = "ws" if self._settings.certificate_file is None else "wss"
        host = "" if connection.request is None else connection.request.headers.get("Host", "")
        if not host.rpartition(":")[2].isdigit():
            host = f"{host}:{self.address[1]}"
        id6 = ":".join(f"{int(eui) >> shift & 0xFFFF:x}" for shift in (48, 32, 16, 0))
        answer = {"router": id6, "muxs": "::0", "uri": f"{scheme}://{host}{_MUX_PATH}{id6}"}
        if self._settings.gateways and eui not in self._settings.gateways:
            self._counters["refused"] += 1
            answer = {"router": id6, "error": "this gateway is not among those of the bridge"}
        await connection.send(build(answer))

    async def _converse(self, connection: ServerConnection, eui: EUI64) -> None:
        """A station at work; a second connection of the same gateway takes the place of the first.

        Raises MalformedDatagram when it does not begin with `version`.
        """
        async with asyncio.timeout(HANDSHAKE_LIMIT):
            version = parse_message(await connection.recv())
        if not isinstance(version, VersionMessage):
            raise MalformedDatagram(DatagramFault.UNEXPECTED_TYPE)
        before = self._stations.get(eui)
        if before is None and len(self._stations) >= self._settings.max_stations:
            self._counters["refused"] += 1
            await connection.close(CloseCode.TRY_AGAIN_LATER)
            return
        station = self._stations[eui] = Station(connection)
        facts = {"source": self.name, "gateway": str(eui)}
        try:
            if before is not None:
                self._counters["replaced"] += 1
                await before.connection.close()
            fields = {**facts, "station": version.station, "model": version.model}
            _LOGGER.info("a station is connected", extra={"fields": fields})
            await connection.send(self._router_config)
            station.is_configured = True
            async for text in connection:
                await self._read(text, station, eui)
        finally:
            if self._stations.get(eui) is station:
                del self._stations[eui]
            station.gone()
            _LOGGER.info("a station is gone", extra={"fields": facts})

    async def _read(self, text: str | bytes, station: Station, eui: EUI64) -> None:
        """One message of a station at work."""
        self._counters["messages"] += 1
        try:
            message = parse_message(text)
            if message is None or isinstance(message, VersionMessage):
                self._counters["ignored"] += 1
            else:
                await self._take(message, station, eui)
        except MalformedDatagram as error:
            self._counters[f"fault_{error.fault.value}"] += 1

    async def _take(self, message: Message, station: Station, eui: EUI64) -> None:
        """What a message is about. Raises MalformedDatagram."""
        if isinstance(message, SentMessage):
            self._counters["dntxed" if station.conclude(message) else "dntxed_unmatched"] += 1
        elif isinstance(message, TimeSyncMessage):
            now = self._clock()
            gps = {"gpstime": gps_ns_of(now) // 1000, "MuxTime": now // 1000 / 1e6}
            await station.connection.send(build({"msgtype": "timesync", "txtime": message.txtime} | gps))
        elif not isinstance(message, VersionMessage):
            info = message.upinfo
            tmst = station.uplinks.note(Heard(info.xtime, info.rctx, self._monotonic()))
            told = reception(message, tmst, self._rates, gateway_eui=eui, source=self.name, received_at=self._clock())
            if station.waiting < INBOX_SHARE and self._inbox.put((station, told)):
                self._counters["frames"] += 1
                station.waiting += 1
            else:
                self._counters["inbox_dropped"] += 1
