"""Temporary credentials for our certificate, from the credentials provider of AWS IoT, and what is signed with them.

AWS IoT developer guide, "Authorizing direct calls to AWS services using AWS IoT Core credential provider": a GET with
mutual TLS for a role alias. Everything here blocks, and runs on the thread that dials.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec

from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.faults import DialError, LinkDown, LinkFault, fault_of_error, fault_of_status
from lorabridge.upstream.http import MAX_HEAD, BadResponseError, HttpConnection, Response
from lorabridge.upstream.sigv4 import TemporaryCredentials, websocket_target

RESERVE = timedelta(minutes=5)
"""Credentials that end sooner are not connected with."""
PLACE = "credentials endpoint: "
"""How the detail of every fault on the way to them begins."""
_OK = 200
_SHOWN = 200
"""Bytes of a refusal that stand in the detail of a fault; of an answer with credentials not one does."""


class _Lent(msgspec.Struct, rename="camel"):
    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: datetime


class _Answer(msgspec.Struct):
    credentials: _Lent


class RoleCredentials:
    """The credentials of one link, kept until they are about to end or another pair of files is shown."""

    def __init__(self, settings: AwsIotSettings, clock: Callable[[], float]) -> None:
        """`clock`: seconds since the Unix epoch."""
        self._settings = settings
        self._clock = clock
        self._kept: tuple[Hashable, TemporaryCredentials] | None = None

    def context(self) -> ssl.SSLContext:
        """A TLS context for the credentials endpoint, with the pair in the files. Raises ConfigError."""
        name = self._settings.websocket.credentials_endpoint
        return tls.build_context(msgspec.structs.replace(self._settings, endpoint=name), "")

    def target(self, context: ssl.SSLContext, pair: Hashable) -> str:
        """What to ask the endpoint for, signed now; `pair` tells the one in `context` from others. Raises DialError."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        kept = self._kept
        if kept is None or kept[0] != pair or kept[1].ends - now < RESERVE:
            kept = self._kept = pair, self._fetch(context, now)
        return websocket_target(self._settings.endpoint, self._settings.websocket.region, kept[1], now)

    @property
    def ends(self) -> datetime | None:
        """When those that are kept end, UTC."""
        return None if self._kept is None else self._kept[1].ends

    def forget(self) -> None:
        """The endpoint refused them: ask for others next time."""
        self._kept = None

    def _fetch(self, context: ssl.SSLContext, now: datetime) -> TemporaryCredentials:
        try:
            with socket.create_connection(self._settings.credentials_address, self._patience) as sock:
                response = asyncio.run(self._ask(context, sock))
        except (BadResponseError, EOFError) as error:
            raise _refused(LinkFault.CREDENTIALS_REFUSED, str(error)) from None
        except Exception as error:
            down = fault_of_error(error, lambda: tls.is_behind(self._settings, self._clock()))
            if down is None or down.fault is None:
                raise
            raise _refused(down.fault, down.detail) from None
        if response.status != _OK:
            fault = fault_of_status(response.status, LinkFault.CREDENTIALS_REFUSED)
            raise _refused(fault, f"HTTP {response.status}: {response.body[:_SHOWN]!r}")
        try:
            lent = parse_credentials(response.body)
        except ValueError as error:
            raise _refused(LinkFault.CREDENTIALS_REFUSED, f"no credentials: {error}") from None
        if lent.ends <= now:
            what = f"they ended at {lent.ends:%Y-%m-%d %H:%M:%S} UTC by our clock: is it fast?"
            raise _refused(LinkFault.CREDENTIALS_REFUSED, what)
        return lent

    @property
    def _patience(self) -> float:
        """Seconds; shorter than that of the whole connection, so that it is this which is named."""
        return self._settings.connect_timeout / 2

    async def _ask(self, context: ssl.SSLContext, sock: socket.socket) -> Response:
        """Raises BadResponseError, EOFError, OSError."""
        settings = self._settings
        target = f"/role-aliases/{quote(settings.websocket.role_alias, safe='')}/credentials"
        fields = {"x-amzn-iot-thingname": settings.thing_name}
        name = settings.websocket.credentials_endpoint
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._patience):
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=context, server_hostname=name, limit=MAX_HEAD
                )
                connection = HttpConnection(reader, writer)
                try:
                    return await connection.get(target, name, fields)
                finally:
                    connection.close()
        except TimeoutError:
            raise TimeoutError(f"no answer after {self._patience:g} s") from None


def parse_credentials(body: bytes) -> TemporaryCredentials:
    """What the credentials provider answers. Raises ValueError, which repeats nothing of it."""
    try:
        lent = msgspec.json.decode(body, type=_Answer).credentials
    except msgspec.DecodeError as error:  # it gives places and types, and no values
        raise ValueError(str(error)) from None
    if lent.expiration.tzinfo is None:
        raise ValueError("the expiration has no time zone")
    ends = lent.expiration.astimezone(UTC)
    return TemporaryCredentials(lent.access_key_id, lent.secret_access_key, lent.session_token, ends)


def _refused(fault: LinkFault, what: str) -> DialError:
    return DialError(LinkDown(fault, f"{PLACE}{what}"))
