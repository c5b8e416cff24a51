"""Publishing over HTTPS, where MQTT does not get out: one POST a record, 200 in the place of the PUBACK.

AWS IoT developer guide, "HTTPS publish": the same endpoint and certificate, port 8443, or 443 with ALPN
`x-amzn-http-ca`; there is no client id, no last will, and nothing can be received. Requests run side by side on
connections that stay open. What fails is collected until nothing is under way any more, and told as the end of a
connection is: so the drain's rules for what is sent again, and what is poison, are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

import msgspec

from lorabridge.backoff import Backoff
from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.connection import Message
from lorabridge.upstream.faults import LinkDown, LinkFault, fault_of_error, fault_of_tls_reason
from lorabridge.upstream.http import MAX_HEAD, BadResponseError, HttpConnection, Response
from lorabridge.upstream.link import NOT_YOURS, Listener
from lorabridge.upstream.link_settings import MAX_PAYLOAD
from lorabridge.upstream.pacing import TokenBucket

ALPN_HTTP = "x-amzn-http-ca"
"""What makes port 443 speak HTTPS with client certificates."""
_OK = 200
_OF_THE_RECORD = frozenset({400, 401, 403, 413})
"""Statuses that refuse this record on this topic, and say nothing of others."""
_TOO_MANY_REQUESTS = 429
_OWN_KEY = -1
"""Key of what `say` publishes; a listener's are above 0."""
_COUNTERS = ("connections", "published", "acknowledged", "refused", "failed", "rounds_failed")
_SHOWN = 200
"""Bytes of an answer that stand in the detail of a fault."""


class HttpsPublisher:
    """`publish` while `has_room`; the listener is told as by the MQTT link. `run` raises what is a bug of ours."""

    def __init__(
        self, settings: AwsIotSettings, rng: random.Random, clock: Callable[[], float], proved_after: float = 20.0
    ) -> None:
        """`proved_after` seconds without a failure the next one is retried soon again."""
        self._settings = settings
        self._clock = clock
        self._proved_after = proved_after
        self._listener: Listener | None = None
        self._backoff = Backoff(settings.backoff_base, settings.backoff_cap, rng)
        rate = settings.max_publishes_per_second
        self._publishes = TokenBucket(rate, max(1.0, rate / 4))
        self._bytes = TokenBucket(settings.max_bytes_per_second, max(MAX_PAYLOAD, settings.max_bytes_per_second / 4))
        self._under_way: dict[int, asyncio.Task[LinkDown | None]] = {}
        self._failed: dict[int, LinkDown] = {}
        self._idle: list[HttpConnection] = []
        self._dialling = asyncio.Lock()
        self._is_reaching = False
        self._broken: asyncio.Future[None] | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._reopen: asyncio.TimerHandle | None = None
        self._told = False
        self._on_said: Callable[[LinkDown | None], None] = lambda _down: None
        self._refusal: LinkDown | None = None
        """Why nothing new is begun: what failed first in this round; None while all is well."""
        self._is_stopping = False
        self._is_resting = True
        self._working_since = math.inf
        self.trouble: LinkDown | None = None
        """Why the last round failed; None since an answer came that was in order."""
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))

    async def run(self) -> None:
        """Until cancelled."""
        self._broken = asyncio.get_running_loop().create_future()
        try:
            await self._broken
        finally:
            self._is_stopping = True
            for timer in (self._wake, self._reopen):
                if timer is not None:
                    timer.cancel()
            for task in self._under_way.values():
                task.cancel()
            self.rest()

    async def stop(self, limit: float, farewell: Message | None = None) -> None:
        """Publish nothing new, wait for what is under way and say `farewell` after it, in `limit` seconds together."""
        self._is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                if self._under_way:
                    await asyncio.wait(set(self._under_way.values()))
                if farewell is not None:
                    await self._send(farewell, _OWN_KEY)
        self.rest()

    def rest(self) -> None:
        """Keep no connection open that nothing is under way on, until there is something to publish again."""
        self._is_resting = True
        while self._idle:
            self._idle.pop().close()

    # What a listener uses.

    def attach(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on."""
        self._listener = listener

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        """Whether a payload of `size` bytes may be published now; if not, `ready` comes in time.

        A `patient` one leaves a quarter of the requests, and something of the rate, to those that are not.
        """
        most = self._settings.https.requests
        left_free = most // 4 if patient else 0
        if self._is_stopping or self._refusal is not None or len(self._under_way) >= most - left_free:
            return False
        now = time.monotonic()
        wait = max(self._publishes.wait(1, now, patient=patient), self._bytes.wait(size, now, patient=patient))
        if wait > 0 and self._wake is None:
            self._wake = asyncio.get_running_loop().call_later(wait, self._rate_allows)
        return wait <= 0

    def _rate_allows(self) -> None:
        self._wake = None
        self._tell_ready()

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Begin a request under `key`, allowed by `has_room`."""
        self.counters["published"] += 1
        self._begin(Message(topic, payload), key)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def say(self, message: Message, on_said: Callable[[LinkDown | None], None]) -> None:
        """Publish something that is no record, one at a time, allowed by `has_room`; a refusal of it fails no round."""
        self._on_said = on_said
        self._begin(message, _OWN_KEY)

    def _begin(self, message: Message, key: int) -> None:
        self._publishes.take(1)
        self._bytes.take(len(message.payload))
        self._is_resting = False
        if math.isinf(self._working_since):
            self._working_since = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._send(message, key), name=f"https-{key}")
        self._under_way[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    def flush(self) -> None:
        """Nothing waits to be sent."""

    # A request and its end.

    async def _send(self, message: Message, key: int) -> LinkDown | None:
        """One publish; None when it was taken, else why not."""
        target = f"/topics/{quote(message.topic, safe='')}?qos=1{'&retain=true' if message.retain else ''}"
        try:
            response = await self._post(target, message.payload)
        except _UnansweredError as error:
            return error.down
        detail = f"HTTP {response.status}: {response.body[:_SHOWN]!r}"
        if response.status == _OK:
            return None
        if response.status in _OF_THE_RECORD:
            return LinkDown(LinkFault.PUBLISH_REFUSED, detail, key)
        if response.status == _TOO_MANY_REQUESTS:
            return LinkDown(LinkFault.QUOTA_EXCEEDED, detail)
        if response.status >= 500:
            return LinkDown(LinkFault.SERVER_UNAVAILABLE, detail)
        return LinkDown(LinkFault.PROTOCOL_REFUSED, detail)

    async def _post(self, target: str, payload: bytes) -> Response:
        """On a connection that is there, or a new one. Raises _UnansweredError."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_over:
                connection.close()
                continue
            with contextlib.suppress(EOFError, OSError):  # closed by the server just now, after it had been idle
                return await self._post_on(connection, target, payload)
        connection = await self._open()
        try:
            return await self._post_on(connection, target, payload)
        except (EOFError, OSError) as error:  # with TLS 1.3 a certificate is refused after the handshake
            fault = fault_of_tls_reason(str(error)) or LinkFault.CONNECTION_LOST
            raise _UnansweredError(LinkDown(fault, str(error))) from None

    async def _post_on(self, connection: HttpConnection, target: str, payload: bytes) -> Response:
        """Raises _UnansweredError, EOFError, OSError; the connection is kept for the next one, or closed."""
        patience = self._settings.puback_timeout
        is_kept = False
        try:
            async with asyncio.timeout(patience):
                response = await connection.post(target, self._host, payload)
            is_kept = connection.goes_on and not (self._is_resting or self._is_stopping)
        except TimeoutError:
            raise _UnansweredError(
                LinkDown(LinkFault.PUBACK_TIMEOUT, f"no answer by HTTPS after {patience:g} s")
            ) from None
        except BadResponseError as error:
            raise _UnansweredError(LinkDown(LinkFault.PROTOCOL_REFUSED, str(error))) from None
        finally:
            if is_kept:
                self._idle.append(connection)
            else:
                connection.close()
        return response

    @property
    def _host(self) -> str:
        port = self._settings.https.port
        return self._settings.endpoint if port == 443 else f"{self._settings.endpoint}:{port}"

    def _ended(self, key: int, task: asyncio.Task[LinkDown | None]) -> None:
        """A request is over: taken, or one more failure of this round."""
        del self._under_way[key]
        if task.cancelled():
            return
        if (bug := task.exception()) is not None:
            if self._broken is not None and not self._broken.done():
                self._broken.set_exception(bug)
            return
        down = task.result()
        if key == _OWN_KEY:
            self._on_said(down)
        if down is None:
            self._taken(key)
        elif key != _OWN_KEY or down.culprit is None:
            self._failed[key] = down
            self.counters["failed" if down.culprit is None else "refused"] += 1
            self._refusal = self._refusal or down
        if self._failed and not self._under_way:
            self._end_round()

    def _taken(self, key: int) -> None:
        self.counters["acknowledged"] += key != _OWN_KEY
        if time.monotonic() - self._working_since >= self._proved_after:
            self._backoff.reset()
        if self._refusal is None:
            self.trouble = None
        if self._listener is not None:
            if key != _OWN_KEY:
                self._listener.acknowledged(key)
            if not self._told:
                self._told = True
                asyncio.get_running_loop().call_soon(self._tell_ready)

    def _end_round(self) -> None:
        """Nothing is under way: tell what failed, as of a connection that broke, and pause."""
        failed, self._failed = self._failed, {}
        keys = sorted(key for key in failed if key != _OWN_KEY)
        culprit = next((key for key in keys if failed[key].culprit is not None), NOT_YOURS)
        self.trouble = failed[culprit or min(failed)]
        self.counters["rounds_failed"] += 1
        self._working_since = math.inf
        self._reopen = asyncio.get_running_loop().call_later(self._backoff.next(), self._go_on)
        if self._listener is not None:
            self._listener.disconnected(keys, culprit)

    def _go_on(self) -> None:
        """The pause is over."""
        self._refusal = None
        self._tell_ready()

    def _tell_ready(self) -> None:
        self._told = False
        if self._listener is not None:
            self._listener.ready()

    # Connections.

    async def _open(self) -> HttpConnection:
        """One at a time, and none after one that failed: all would for the same reason. Raises _UnansweredError."""
        async with self._dialling:
            if self._refusal is None:
                self.counters["connections"] += 1
                try:
                    return await self._dial()
                except _UnansweredError as error:
                    self._refusal = error.down
            raise _UnansweredError(msgspec.structs.replace(self._refusal, culprit=None))

    async def _dial(self) -> HttpConnection:
        """Raises _UnansweredError."""
        patience = self._settings.connect_timeout
        late = LinkDown(LinkFault.UNREACHABLE, f"no connection for HTTPS after {patience:g} s")
        try:
            async with asyncio.timeout(patience):
                context, sock = await self._on_thread()
            late = LinkDown(LinkFault.TLS_CLOSED, f"no handshake for HTTPS after {patience:g} s")
            async with asyncio.timeout(patience):
                return await self._shake_hands(context, sock)
        except TimeoutError:
            raise _UnansweredError(late) from None
        except Exception as error:
            down = fault_of_error(error, self._clock_is_behind)
            if down is None:
                raise
            raise _UnansweredError(down) from None

    async def _shake_hands(self, context: ssl.SSLContext, sock: socket.socket) -> HttpConnection:
        name = self._settings.endpoint
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock,
                ssl=context,
                server_hostname=name,
                ssl_handshake_timeout=2 * self._settings.connect_timeout,  # ours ends first, and says so
                limit=MAX_HEAD,
            )
        except BaseException:
            sock.close()
            raise
        return HttpConnection(reader, writer)

    async def _on_thread(self) -> tuple[ssl.SSLContext, socket.socket]:
        """What blocks: our files, the look-up, TCP. No look-up can be cut short: never more than one thread in it."""
        if self._is_reaching:
            raise socket.gaierror(socket.EAI_AGAIN, "the last look-up still hangs")
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[tuple[ssl.SSLContext, socket.socket]] = loop.create_future()

        def hand_over(context: ssl.SSLContext | None, sock: socket.socket | None, error: Exception | None) -> None:
            self._is_reaching = False
            if reached.done():
                if sock is not None:
                    sock.close()
            elif context is not None and sock is not None:
                reached.set_result((context, sock))
            else:
                reached.set_exception(error or OSError("no connection"))

        def reach() -> None:
            context, sock, failure = None, None, None
            try:
                context = tls.build_context(self._settings, ALPN_HTTP if self._settings.https.port == 443 else "")
                sock = socket.create_connection(self._settings.https_address, self._settings.connect_timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
            except Exception as error:  # noqa: BLE001  # sorted out on the loop: a fault, or a bug of ours
                failure = error
            try:
                loop.call_soon_threadsafe(hand_over, context, sock, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                if sock is not None:
                    sock.close()

        self._is_reaching = True
        threading.Thread(target=reach, name="lorabridge-https-dial", daemon=True).start()
        return await reached

    def _clock_is_behind(self) -> bool:
        return tls.is_behind(self._settings, self._clock())


class _UnansweredError(Exception):
    """No answer, or none that can be read: `down` says why."""

    def __init__(self, down: LinkDown) -> None:
        super().__init__(down.detail)
        self.down = down
