"""One client of MQTT at the front: the screens, and its connection to the broker behind."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from websockets.http11 import Request

from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.broker_side import BrokerSide
from lorabridge.simulation.standin.events import Happening, Refusal
from lorabridge.simulation.standin.front import Front
from lorabridge.simulation.standin.policy import Policy
from lorabridge.simulation.standin.quotas import Throughput
from lorabridge.simulation.standin.screen import ClientScreen, Passed
from lorabridge.simulation.standin.services.certificates import fingerprint_of
from lorabridge.simulation.standin.services.lending import FORBIDDEN, Lease
from lorabridge.simulation.standin.tls_end import TlsEnd
from lorabridge.simulation.standin.tls_front import Door, TlsSide
from lorabridge.simulation.standin.websocket import BadWebSocket, WebSocketEnd


class ClientSide(TlsEnd):
    """The client's end of MQTT, right within TLS or within a WebSocket there."""

    def __init__(self, front: Front, number: int, door: Door, *, stalled: bool) -> None:
        super().__init__(front, number, door, stalled=stalled)
        self._websocket: WebSocketEnd | None = None
        self._lease: Lease | None = None
        self._lease_ends: asyncio.TimerHandle | None = None
        self._screen: ClientScreen | None = None
        self._broker: BrokerSide | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._is_dialling = False
        self._for_broker: list[bytes] = []
        self._throughput = Throughput(front.limits.bytes_per_second)
        self._brake: asyncio.TimerHandle | None = None
        self._is_connected = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end; without a DISCONNECT the broker sends the last will."""
        for handle in (self._brake, self._lease_ends):
            if handle is not None:
                handle.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly: so do we read from the broker."""
        if self._broker is not None:
            self._broker.hold_reads("client", hold=True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._broker is not None:
            self._broker.hold_reads("client", hold=False)

    # The stages of a connection.

    def _secured(self, tls: TlsSide) -> bool:
        """Find the policy of the certificate; whether there is one. A WebSocket is judged by its signature."""
        if self._door is Door.WEBSOCKET:
            self._websocket = WebSocketEnd()
            return True
        policy = self._front.admit(tls.peer_certificate)
        if isinstance(policy, Refusal):
            self._refuse(policy, fingerprint_of(tls.peer_certificate))
            return False
        self._open(policy)
        return True

    def _open(self, policy: Policy) -> None:
        self._screen = ClientScreen(policy, self._front.observer, self._front.limits)

    def _heard(self, plaintext: bytes) -> None:
        """Packets of MQTT, or frames that hold them."""
        if self._websocket is not None:
            plaintext = self._unframe(self._websocket, plaintext)
        if plaintext and self._screen is not None:
            self._charge(len(plaintext))
            self._pass_on(self._screen, self._screen.screen(plaintext, self._heard_at))
        if self._websocket is not None and self._websocket.is_over:  # what came before it, a DISCONNECT say, counts
            self._over("WebSocket closed")
            self.finish()

    def _unframe(self, websocket: WebSocketEnd, data: bytes) -> bytes:
        """The MQTT in frames; the handshake is judged here, once."""
        try:
            request = websocket.receive(data)
            if request is not None:
                self._judge(websocket, request)
        except BadWebSocket as error:
            self._say(websocket.outgoing())
            self._refuse(Refusal.WEBSOCKET, str(error))
            return b""
        self._say(websocket.outgoing())
        return websocket.take()

    def _judge(self, websocket: WebSocketEnd, request: Request) -> None:
        """Open the WebSocket for who has signed rightly. Raises BadWebSocket."""
        lease = self._front.lending.judge(request.path, dict(request.headers.raw_items()), self._front.clock())
        if isinstance(lease, Refusal):
            websocket.answer(HTTPStatus.FORBIDDEN, FORBIDDEN)
            self._say(websocket.outgoing())
            self._refuse(lease)
            return
        websocket.accept(request)
        self._lease = lease
        self._lease_ends = self._loop.call_later(lease.ends - self._front.clock(), self.end, Refusal.CREDENTIALS)
        self._open(lease.policy)

    def end_lease(self) -> None:
        """The credentials of this connection have ended."""
        if self._lease is not None:
            self.end(Refusal.CREDENTIALS)

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
            self._leave()
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

    def abort_broker(self) -> None:
        """Drop what the broker does not take."""
        if self._broker is not None:
            self._broker.abort()

    def send(self, plaintext: bytes) -> None:
        """Packets for the client; `_flush` sends."""
        self._say(plaintext if self._websocket is None else self._websocket.frame(plaintext))

    def finish(self) -> None:
        """Close in good order: what was said so far arrives, on both sides."""
        if self._websocket is not None:
            self._say(self._websocket.close())
        super().finish()

    def _leave(self) -> None:
        """What is written goes out first; without a DISCONNECT among it the broker sends the last will."""
        if self._broker is not None:
            self._flush_to_broker()
            self._broker.close()

    def _settle(self) -> None:
        """Nothing of this connection is left, on either side."""
        if self._broker is None and not self._is_dialling:
            super()._settle()

    def _over(self, detail: str) -> None:
        self._farewell(detail)

    def _farewell(self, detail: str, otherwise: Happening = Happening.LOST) -> None:
        """Note how MQTT ended, unless that is known already."""
        if not self._is_closing and self._screen is not None:
            kind = Happening.DISCONNECTED if self._screen.said_goodbye else otherwise
            self._front.journal.record(self._number, kind, detail=detail)

    def _screen_name(self) -> str:
        connect = self._screen.connect if self._screen is not None else None
        return f"{connect.client_id} MQTT {5 if connect.mqtt_5 else '3.1.1'}" if connect is not None else ""
