"""One connection at the front as far as TLS: ClientHello, handshake, records, a good end and the faults."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import ssl
from typing import cast

from lorabridge.simulation.standin.events import Happening, Refusal
from lorabridge.simulation.standin.front import Front
from lorabridge.simulation.standin.hello import HelloReader, MalformedHello
from lorabridge.simulation.standin.tls_front import Door, TlsSide, build_alert, find_alert, hello_refusal

_LINGER = 1.0
"""Seconds that a client has to read our last words: closing with unread bytes would reset the connection."""


class TlsEnd(asyncio.Protocol, abc.ABC):
    """The client's end. asyncio has set TCP_NODELAY on the socket. Whoever inherits says what goes on within TLS."""

    def __init__(self, front: Front, number: int, door: Door, *, stalled: bool) -> None:
        self._front = front
        self._number = number
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._hello: HelloReader | None = HelloReader()
        self._tls: TlsSide | None = None
        self._is_secured = False
        self._transport: asyncio.Transport | None = None
        self._is_closing = False
        self._stalled = stalled
        self._reads_held_by: set[str] = {"stall"} if stalled else set()
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # What goes on within.

    @abc.abstractmethod
    def _secured(self, tls: TlsSide) -> bool:
        """The handshake is done; whether the client may go on."""

    @abc.abstractmethod
    def _heard(self, plaintext: bytes) -> None:
        """The client said this."""

    def _over(self, detail: str) -> None:
        """The client has left, or is lost."""

    def _leave(self) -> None:
        """Close what is behind."""

    def _tick(self) -> None:
        """Too long for what the client had to do in this time."""
        if not self._stalled:
            self.end(Refusal.SETUP_TIMEOUT)

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
            self._tls = TlsSide(self._front.new_context(self._door))
        try:
            plaintext = self._tls.receive(data)
        except ssl.SSLError as error:
            self._refuse_tls(self._tls, error)
            return
        if not self._is_secured and self._tls.handshake_done:
            self._is_secured = True
            self._front.journal.record(self._number, Happening.HANDSHAKE_DONE, detail=self._tls.description)
            if not self._secured(self._tls):
                return
        if plaintext and self._is_secured:
            self._heard(plaintext)
        self._flush()
        if self._tls.peer_closed:
            self._over("close_notify")
            self.finish()

    def eof_received(self) -> None:
        """The client has closed: asyncio closes our end."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._over(str(exc or ""))
        self._is_closing = True
        self._leave()
        self._settle()

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
            refusal = hello_refusal(self._front.rules, self._front.names[self._door], hello, self._door)
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

    def _refuse(self, refusal: Refusal, detail: str = "") -> None:
        self._front.journal.record(self._number, Happening.REFUSED, refusal=refusal, detail=detail)
        self.finish()

    # What the stand-in calls.

    def end(self, refusal: Refusal) -> None:
        """Close it for a reason that lies not in what the client sent."""
        if not self._is_closing:
            self._refuse(refusal)

    def stall(self, on: bool) -> None:
        """Neither read nor answer while on."""
        self._stalled = on
        self._heard_at = self._loop.time()
        self.hold_reads("stall", hold=on)

    def shut_down(self) -> None:
        """Be gone."""
        self.cut()

    def cut(self) -> None:
        """Be gone at once, as a cut cable."""
        if not self._is_closing:
            self._front.journal.record(self._number, Happening.CUT)
        self._is_closing = True
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def abort_broker(self) -> None:
        """Drop what a broker does not take, where there is one behind."""

    def finish(self) -> None:
        """Close in good order: what was said so far arrives."""
        if self._is_closing or self._transport is None:
            return
        if self._tls is not None:
            self._tls.close()
            self._flush()
        self._is_closing = True
        self._leave()
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

    def _say(self, plaintext: bytes) -> None:
        """Encrypt for the client; `_flush` sends."""
        if self._tls is not None and not self._is_closing and plaintext:
            self._tls.send(plaintext)

    def _flush(self) -> None:
        if self._tls is not None:
            self._write(self._tls.outgoing())

    def _write(self, records: bytes) -> None:
        if records and self._transport is not None and not self._transport.is_closing():
            self._transport.write(records)

    def _settle(self) -> None:
        """Nothing of this connection is left."""
        if self._transport is None and not self.closed.done():
            self.closed.set_result(None)
