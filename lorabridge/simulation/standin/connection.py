"""One client at the front: TLS, the screens, and its connection to the broker behind."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.broker_side import BrokerSide
from lorabridge.simulation.standin.events import Happening, Journal, Refusal
from lorabridge.simulation.standin.hello import HelloReader, MalformedHello
from lorabridge.simulation.standin.policy import Policy
from lorabridge.simulation.standin.quotas import Limits, Throughput
from lorabridge.simulation.standin.screen import ClientScreen, Observer, Passed
from lorabridge.simulation.standin.services.certificates import fingerprint_of
from lorabridge.simulation.standin.tls_front import TlsRules, TlsSide, build_alert, find_alert, hello_refusal

_LINGER = 1.0
"""Seconds that a client has to read our last words: closing with unread bytes would reset the connection."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """What all connections of one stand-in share."""

    endpoint: str
    rules: TlsRules
    admit: Callable[[bytes], Policy | Refusal]
    """The policy of a certificate (DER), or why it is refused."""
    answer: Callable[[ClientSide, str, bytes], None]
    """Has a service answer a request: its topic and its payload."""
    limits: Limits
    setup_timeout: float
    new_context: Callable[[bool], ssl.SSLContext]
    dial: Callable[[Callable[[], BrokerSide]], Awaitable[tuple[asyncio.Transport, BrokerSide]]]
    observer: Observer | None
    journal: Journal
    by_client_id: dict[str, ClientSide]


class ClientSide(asyncio.Protocol):
    """The client's end. asyncio has set TCP_NODELAY on both sockets."""

    def __init__(self, front: Front, number: int, *, needs_alpn: bool, stalled: bool) -> None:
        self._front = front
        self._number = number
        self._needs_alpn = needs_alpn
        self._loop = asyncio.get_running_loop()
        self._hello: HelloReader | None = HelloReader()
        self._tls: TlsSide | None = None
        self._screen: ClientScreen | None = None
        self._broker: BrokerSide | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._is_dialling = False
        self._for_broker: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_closing = False
        self._stalled = stalled
        self._reads_held_by: set[str] = {"stall"} if stalled else set()
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._throughput = Throughput(front.limits.bytes_per_second)
        self._brake: asyncio.TimerHandle | None = None
        self._is_connected = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a ClientHello."""
        self._transport = cast("asyncio.Transport", transport)
        if self._is_closing:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(self._front.setup_timeout, self._tick)
        self._hold_reads()

    def data_received(self, data: bytes) -> None:
        """Records of TLS."""
        if self._is_closing:
            return
        self._heard_at = self._loop.time()
        if self._hello is not None and not self._greet(self._hello, data):
            return
        if self._tls is None:
            self._tls = TlsSide(self._front.new_context(self._needs_alpn))
        try:
            plaintext = self._tls.receive(data)
        except ssl.SSLError as error:
            self._refuse_tls(self._tls, error)
            return
        if self._screen is None and self._tls.handshake_done and not self._admit(self._tls):
            return
        if plaintext and self._screen is not None:
            self._charge(len(plaintext))
            self._pass_on(self._screen, self._screen.screen(plaintext, self._heard_at))
        self._flush()
        if self._tls.peer_closed:
            self._farewell("close_notify")
            self.finish()

    def eof_received(self) -> None:
        """The client has closed: asyncio closes our end."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The end; without a DISCONNECT the broker sends the last will."""
        for handle in (self._timer, self._brake):
            if handle is not None:
                handle.cancel()
        self._transport = None
        self._farewell(str(exc or ""))
        self._is_closing = True
        self._leave_broker()
        self._settle()

    def pause_writing(self) -> None:
        """The client reads slowly: so do we read from the broker."""
        if self._broker is not None:
            self._broker.hold_reads("client", hold=True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._broker is not None:
            self._broker.hold_reads("client", hold=False)

    # The stages of a connection.

    def _greet(self, reader: HelloReader, data: bytes) -> bool:
        """Read the ClientHello as it comes; whether OpenSSL may go on with it."""
        refusal: Refusal | None = Refusal.MALFORMED_HELLO
        detail = ""
        try:
            hello = reader.feed(data)
        except MalformedHello as error:
            detail = str(error)
        else:
            if hello is None:
                return True
            self._hello = None
            self._front.journal.record(self._number, Happening.CLIENT_HELLO, hello=hello)
            refusal = hello_refusal(self._front.rules, self._front.endpoint, hello, needs_alpn=self._needs_alpn)
            detail = repr(hello.server_name)
        if refusal is None:
            return True
        alert, record = build_alert(refusal)
        self._front.journal.record(self._number, Happening.REFUSED, refusal=refusal, alert=alert, detail=detail)
        self._write(record)
        self.finish()
        return False

    def _refuse_tls(self, tls: TlsSide, error: ssl.SSLError) -> None:
        records = tls.outgoing()
        self._front.journal.record(
            self._number,
            Happening.REFUSED,
            refusal=Refusal.TLS,
            alert=None if tls.handshake_done else find_alert(records),
            detail=error.reason or "",
        )
        self._write(records)
        self.finish()

    def _admit(self, tls: TlsSide) -> bool:
        """Find the policy of the certificate; whether there is one."""
        policy = self._front.admit(tls.peer_certificate)
        self._front.journal.record(self._number, Happening.HANDSHAKE_DONE, detail=tls.description)
        if isinstance(policy, Refusal):
            self._refuse(policy, fingerprint_of(tls.peer_certificate))
            return False
        self._screen = ClientScreen(policy, self._front.observer, self._front.limits)
        return True

    def _pass_on(self, screen: ClientScreen, passed: Passed) -> None:
        """Carry out what the screen decided."""
        self._note(screen, passed)
        if passed.to_broker:
            self._for_broker += passed.to_broker
            if self._dialling is None:
                self._take_over(screen)
                self._is_dialling = True
                self._dialling = self._loop.create_task(self._dial(screen), name="standin-dial")
                self.hold_reads("dial", hold=True)
            self._flush_to_broker()
        for packet in passed.to_client:
            self.send(packet)
        for topic, payload in passed.requests:
            self._front.journal.record(self._number, Happening.REQUEST, detail=topic)
            self._front.answer(self, topic, payload)
        if passed.refused is not None:
            self._refuse(passed.refused.refusal, passed.refused.detail)

    def _note(self, screen: ClientScreen, passed: Passed) -> None:
        """What was delivered and what was not."""
        delivered, screen.delivered = screen.delivered, 0
        if delivered:
            self._front.journal.count("delivered", delivered)
        for refusal, detail in passed.ignored:
            self._front.journal.record(self._number, Happening.IGNORED, refusal=refusal, detail=detail)

    def _charge(self, size: int) -> None:
        """Let so many bytes pass; above the quota nothing more is read for as long as they take."""
        wait = self._throughput.take(size, self._loop.time())
        if wait and self._brake is None:
            self._front.journal.record(self._number, Happening.DELAYED, detail=f"{wait:.3f} s")
            self._hold_both("throughput", hold=True)
            self._brake = self._loop.call_later(wait, self._release)

    def _release(self) -> None:
        self._brake = None
        self._heard_at = self._loop.time()  # what the client said meanwhile was not read
        self._hold_both("throughput", hold=False)

    def _hold_both(self, reason: str, *, hold: bool) -> None:
        self.hold_reads(reason, hold=hold)
        if self._broker is not None:
            self._broker.hold_reads(reason, hold=hold)

    def _take_over(self, screen: ClientScreen) -> None:
        """End the connection that has this client id now."""
        client_id = screen.connect.client_id if screen.connect is not None else ""
        if (older := self._front.by_client_id.get(client_id)) is not None:
            older.end(Refusal.TAKEN_OVER)
        self._front.by_client_id[client_id] = self
        self.closed.add_done_callback(lambda _: self._forget(client_id))

    def _forget(self, client_id: str) -> None:
        if self._front.by_client_id.get(client_id) is self:
            del self._front.by_client_id[client_id]

    async def _dial(self, screen: ClientScreen) -> None:
        try:
            _, self._broker = await self._front.dial(lambda: BrokerSide(self, screen))
        except OSError as error:
            self._refuse(Refusal.NO_BROKER, str(error))
        finally:
            self._is_dialling = False
        if self._is_closing or self._broker is None:
            self._leave_broker()
            self._settle()
            return
        self._broker.hold_reads("stall", hold=self._stalled)
        self._flush_to_broker()
        self._tick()
        self.hold_reads("dial", hold=False)

    def _flush_to_broker(self) -> None:
        if self._broker is not None and self._for_broker:
            self._broker.write(b"".join(self._for_broker))
            self._for_broker.clear()

    def _tick(self) -> None:
        """Hold the client to the time it has for CONNECT, then to its keep-alive (§3.1.2.10)."""
        if self._timer is not None:
            self._timer.cancel()
        patience = self._front.setup_timeout
        if self._screen is not None and self._broker is not None:
            patience = 1.5 * self._screen.keep_alive
        left = self._heard_at + patience - self._loop.time()
        if left <= 0 and not self._stalled and self._brake is None:
            self.end(Refusal.KEEP_ALIVE if self._broker is not None else Refusal.SETUP_TIMEOUT)
        else:
            self._timer = self._loop.call_later(max(left, patience / 10), self._tick)

    def _refuse(self, refusal: Refusal, detail: str = "") -> None:
        self._front.journal.record(self._number, Happening.REFUSED, refusal=refusal, detail=detail)
        self.finish()

    # What the broker's end and the stand-in call.

    def from_broker(self, screen: ClientScreen, passed: Passed) -> None:
        """Packets for the client."""
        self._note(screen, passed)
        packets = b"".join(passed.to_client)
        self._charge(len(packets))
        self.send(packets)
        self._flush()

    def broker_connected(self) -> None:
        """The broker has said CONNACK with success."""
        self._is_connected = True
        self._front.journal.record(self._number, Happening.CONNECTED, detail=self._screen_name())

    def deliver(self, topic: str, payload: bytes, *, unasked: bool) -> None:
        """Send a message of a service, when the client may have it and has subscribed, or `unasked`.

        QoS 1 where the client has asked for it; a connection that ends before its PUBACK loses it.
        """
        screen = self._screen
        if screen is None or screen.connect is None or not self._is_connected or self._is_closing or self._stalled:
            return
        qos = screen.subscriptions.qos(topic)
        if qos is None and not unasked:
            return
        if (refusal := screen.delivery_refusal(topic.encode(), self._loop.time())) is not None:
            self._front.journal.record(self._number, Happening.IGNORED, refusal=refusal, detail=topic)
            return
        packet_id = screen.subscriptions.new_packet_id() if qos else 0
        packet = wire.build_publish(topic, payload, packet_id, mqtt_5=screen.connect.mqtt_5)
        self._front.journal.record(self._number, Happening.REPLY, detail=topic)
        self._charge(len(packet))
        self.send(packet)
        self._flush()

    def broker_closed(self, detail: str) -> None:
        """The broker's connection is over: because we left, after a DISCONNECT, or of the broker's own will."""
        self._broker = None
        self._farewell(detail, Happening.BROKER_CLOSED)
        self.finish()
        self._settle()

    def end(self, refusal: Refusal) -> None:
        """Close it for a reason that lies not in what the client sent."""
        if not self._is_closing:
            for packet in self._screen.last_words(refusal) if self._screen is not None else ():
                self.send(packet)
            self._refuse(refusal)

    def stall(self, on: bool) -> None:
        """Neither read nor answer while on."""
        self._stalled = on
        self._heard_at = self._loop.time()
        self._hold_both("stall", hold=on)

    def shut_down(self) -> None:
        """Be gone; MQTT 5 hears why, if it still reads."""
        for packet in self._screen.last_words(Refusal.SHUTTING_DOWN) if self._screen is not None else ():
            self.send(packet)
        self._flush()
        self.cut()

    def cut(self) -> None:
        """Be gone at once, as a cut cable; the broker sends the last will."""
        if not self._is_closing:
            self._front.journal.record(self._number, Happening.CUT)
        self._is_closing = True
        self._leave_broker()
        if self._transport is not None:
            self._transport.abort()

    def abort_broker(self) -> None:
        """Drop what the broker does not take."""
        if self._broker is not None:
            self._broker.abort()

    def send(self, plaintext: bytes) -> None:
        """Encrypt for the client; `_flush` sends."""
        if self._tls is not None and not self._is_closing and plaintext:
            self._tls.send(plaintext)

    def finish(self) -> None:
        """Close in good order: what was said so far arrives, on both sides."""
        if self._is_closing or self._transport is None:
            return
        if self._tls is not None:
            self._tls.close()
            self._flush()
        self._is_closing = True
        self._leave_broker()
        if self._timer is not None:
            self._timer.cancel()
        if not self._transport.is_closing():
            self._timer = self._loop.call_later(_LINGER, self._transport.abort)
            self._transport.resume_reading()
            with contextlib.suppress(OSError):  # the client has reset the connection: reading will tell
                self._transport.write_eof()

    def hold_reads(self, reason: str, *, hold: bool) -> None:
        """Stop reading from the client while any reason holds."""
        (self._reads_held_by.add if hold else self._reads_held_by.discard)(reason)
        self._hold_reads()

    def _hold_reads(self) -> None:
        if self._transport is None or self._is_closing:
            return
        (self._transport.pause_reading if self._reads_held_by else self._transport.resume_reading)()

    def _leave_broker(self) -> None:
        """What is written goes out first; without a DISCONNECT among it the broker sends the last will."""
        if self._broker is not None:
            self._flush_to_broker()
            self._broker.close()

    def _settle(self) -> None:
        """Nothing of this connection is left, on either side."""
        if self._transport is None and self._broker is None and not self._is_dialling and not self.closed.done():
            self.closed.set_result(None)

    def _farewell(self, detail: str, otherwise: Happening = Happening.LOST) -> None:
        """Note how MQTT ended, unless that is known already."""
        if not self._is_closing and self._screen is not None:
            kind = Happening.DISCONNECTED if self._screen.said_goodbye else otherwise
            self._front.journal.record(self._number, kind, detail=detail)

    def _flush(self) -> None:
        if self._tls is not None:
            self._write(self._tls.outgoing())

    def _write(self, records: bytes) -> None:
        if records and self._transport is not None and not self._transport.is_closing():
            self._transport.write(records)

    def _screen_name(self) -> str:
        connect = self._screen.connect if self._screen is not None else None
        return f"{connect.client_id} MQTT {5 if connect.mqtt_5 else '3.1.1'}" if connect is not None else ""
