"""The endpoint (LNS) for Basics Stations: a WebSocket server as a radio source.

A station asks at `/router-info` where to go, connects there, says its version, is told the channels, and from then
on sends what it hears. Nothing that runs something on the station (`runcmd`, `rmtsh`) is ever sent.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult, TxTiming
from lorabridge.lorawan.gps_time import gps_ns_of
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import SourceEnded
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
from lorabridge.radio.basics_station.router_config import data_rates, router_config
from lorabridge.radio.basics_station.settings import BasicsStationSettings, read_token, tls_context
from lorabridge.radio.basics_station.uplinks import Heard, Uplinks, downlink, reception
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.holders import opening_error

_LOGGER = logging.getLogger(__name__)

MAX_MESSAGE: Final = 40 * 1024
"""Bytes of one message: what a station itself takes."""
INBOX_LIMIT: Final = 4096
"""Frames that may wait for the pipeline."""
PENDING_LIMIT: Final = 256
"""Downlinks of a station that may wait for their `dntxed`."""
PATIENCE: Final = 20.0
"""Seconds between pings, and without an answer until a station is given up."""
HANDSHAKE_LIMIT: Final = 10.0
"""Seconds that a station has for its first message."""
SENT_LIMIT: Final = 0.5
"""Seconds after a window has opened until a silent station counts as having refused."""
AT_ONCE_LIMIT: Final = 2.0
"""The same for what is sent at once: a station tries for a second."""
LONGEST_STOP: Final = 1.0

NOT_CONNECTED: Final = "NOT_CONNECTED"
"""TxResult.error: no station of this EUI is connected."""
NOT_SENT: Final = "NO_DNTXED"
"""TxResult.error: the station did not report the frame as sent; it never says why."""
BUSY: Final = "TOO_MANY_PENDING"
"""TxResult.error: too many downlinks wait for their `dntxed`."""
UNSENDABLE: Final = "UNSENDABLE"
"""TxResult.error: the protocol has no words for the transmission."""

_INFO_PATH = "/router-info"
_MUX_PATH = "/router/"
_COUNTERS = (
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


class _Station:
    """One station that is connected."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.uplinks = Uplinks()
        self.is_configured = False
        self.pending: dict[int, asyncio.Future[TxResult]] = {}


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
        self._plan = settings.plan
        self._rates = data_rates(self._plan.region)
        self._token: str | None = None
        self._server: Server | None = None
        self._stations: dict[EUI64, _Station] = {}
        self._inbox: deque[Reception | GatewayStatus] = deque()
        self._arrived = asyncio.Event()
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
        """Totals by name, and how many stations are connected now."""
        return {**self._counters, "stations": len(self._stations)}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: (IP address, port). Raises TransientError while it does not."""
        if self._server is None:
            raise TransientError(f"{self.name} is not listening")
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Listen. Raises ConfigError for what only the operator can mend, TransientError for the rest."""
        await self.stop()
        settings = self._settings
        context, self._token = tls_context(settings), read_token(settings)
        place = f"{settings.bind} port {settings.port}"
        try:
            self._server = await serve(
                self._serve,
                settings.bind,
                settings.port,
                ssl=context,
                process_request=self._door,
                compression=None,
                max_size=MAX_MESSAGE,
                ping_interval=PATIENCE,
                ping_timeout=PATIENCE,
                open_timeout=HANDSHAKE_LIMIT,
                close_timeout=LONGEST_STOP,
                server_header=None,
            )
        except PermissionError as error:
            hint = "use a port of 1024 or above"
            raise ConfigError([Problem(where=settings.name, what=f"{place}: {error.strerror}", hint=hint)]) from None
        except OSError as error:
            raise opening_error(place, error, socket.SOCK_STREAM, settings.port) from None
        if settings.is_open:
            _LOGGER.warning(
                "any station of the network may speak here: set gateways, token_file or client_ca_file",
                extra={"fields": {"source": self.name, "bind": settings.bind}},
            )

    async def receive(self) -> list[Reception | GatewayStatus]:
        """All that waits. After `stop` what was heard before, then SourceEnded."""
        while True:
            if self._inbox:
                heard = list(self._inbox)
                self._inbox.clear()
                return heard
            if self._server is None:
                raise SourceEnded
            self._arrived.clear()
            await self._arrived.wait()

    async def transmit(self, transmission: Transmission) -> TxResult:
        """Send `dnmsg` and wait until the station says that the frame is on the air."""
        station = self._stations.get(transmission.gateway_eui)
        if station is None or not station.is_configured:
            return TxResult(error=NOT_CONNECTED)
        if len(station.pending) >= PENDING_LIMIT:
            return TxResult(error=BUSY)
        after = None if transmission.tmst is None else station.uplinks.find(transmission.tmst)
        diid, self._next_diid = self._next_diid, self._next_diid + 1
        try:
            order = build(downlink(transmission, after, self._rates, diid))
        except ValueError:
            return TxResult(error=UNSENDABLE)
        limit = AT_ONCE_LIMIT
        if after is not None and transmission.timing is TxTiming.AT_TMST:
            heard, delay = after
            limit = heard.heard_at + delay + SENT_LIMIT - self._monotonic()
        answer: asyncio.Future[TxResult] = asyncio.get_running_loop().create_future()
        station.pending[diid] = answer
        try:
            async with asyncio.timeout(max(0.0, limit)):
                await station.connection.send(order)
                self._counters["transmitted"] += 1
                return await answer
        except ConnectionClosed:
            return TxResult(error=NOT_CONNECTED)
        except TimeoutError:
            return TxResult(error=NOT_SENT)
        finally:
            station.pending.pop(diid, None)

    async def stop(self) -> None:
        """Close every connection and the port; what was heard stays for `receive`."""
        closing, self._server = self._server, None
        if closing is not None:
            closing.close()
            await closing.wait_closed()
        self._arrived.set()

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
        """A station at work; a second connection of the same gateway takes the place of the first."""
        station, before = _Station(connection), self._stations.get(eui)
        self._stations[eui] = station
        facts = {"source": self.name, "gateway": str(eui)}
        if before is not None:
            self._counters["replaced"] += 1
            await before.connection.close()
        try:
            async for text in connection:
                self._counters["messages"] += 1
                try:
                    message = parse_message(text)
                    if message is None:
                        self._counters["ignored"] += 1
                    elif isinstance(message, VersionMessage):
                        fields = {**facts, "station": message.station, "model": message.model}
                        _LOGGER.info("a station is connected", extra={"fields": fields})
                        await connection.send(build(router_config(self._plan)))
                        station.is_configured = True
                    else:
                        await self._take(message, station, eui)
                except MalformedDatagram as error:
                    self._counters[f"fault_{error.fault.value}"] += 1
        finally:
            if self._stations.get(eui) is station:
                del self._stations[eui]
            for answer in station.pending.values():
                if not answer.done():
                    answer.set_result(TxResult(error=NOT_CONNECTED))
            _LOGGER.info("a station is gone", extra={"fields": facts})

    async def _take(self, message: Message, station: _Station, eui: EUI64) -> None:
        """One message of a station at work. Raises MalformedDatagram."""
        if isinstance(message, SentMessage):
            self._conclude(message, station)
        elif isinstance(message, TimeSyncMessage):
            now = self._clock()
            gps = {"gpstime": gps_ns_of(now) // 1000, "MuxTime": now // 1000 / 1e6}
            await station.connection.send(build({"msgtype": "timesync", "txtime": message.txtime} | gps))
        elif not isinstance(message, VersionMessage):
            info = message.upinfo
            tmst = station.uplinks.note(Heard(info.xtime, info.rctx, self._monotonic()))
            told = reception(message, tmst, self._rates, gateway_eui=eui, source=self.name, received_at=self._clock())
            if len(self._inbox) >= INBOX_LIMIT:
                self._counters["inbox_dropped"] += 1
                return
            self._counters["frames"] += 1
            self._inbox.append(told)
            self._arrived.set()

    def _conclude(self, message: SentMessage, station: _Station) -> None:
        """A downlink is on the air."""
        diid = message.seqno if message.diid is None else message.diid
        answer = None if diid is None else station.pending.get(diid)
        if answer is None or answer.done():
            self._counters["dntxed_unmatched"] += 1
            return
        self._counters["dntxed"] += 1
        answer.set_result(TxResult())
