"""One TLS handshake as the bridge makes it, with a record of every byte, and what its failure means.

OpenSSL is pumped by hand (MemoryBIO): only so is there something left to read when it gives up. No
handshake here trusts anybody whom the bridge would not, but for dates, where that is asked for to measure a clock.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from lorabridge.upstream import tls
from lorabridge.upstream.doctor.network import Address, dial
from lorabridge.upstream.doctor.transcript import Transcript, offered_suites, read_transcript
from lorabridge.upstream.faults import LinkDown, LinkFault, fault_of_error
from lorabridge.upstream.tls import TlsSettings

_T = TypeVar("_T")

_CHUNK = 1 << 14
_MOST_KEPT = 1 << 17
_NO_APPLICATION_PROTOCOL = 120
"""RFC 7301 §3.2."""


class Peer:
    """One TLS connection over a connected socket; `close` it in the end."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str, seconds: float) -> None:
        self._sock = sock
        self._deadline = time.monotonic() + seconds
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.sent, self.received = bytearray(), bytearray()
        """The wire, its first 128 KiB each way."""

    def handshake(self) -> None:
        """Raises OSError: ssl.SSLError, a reset, TimeoutError."""
        self._pump(self.tls.do_handshake)

    def send(self, plaintext: bytes) -> None:
        """Raises OSError."""
        self._pump(lambda: self.tls.write(plaintext))

    def read(self) -> bytes:
        """Some plaintext; empty at the end. Raises OSError."""
        try:
            return self._pump(lambda: self.tls.read(_CHUNK))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def farewell(self, seconds: float) -> Exception | None:
        """Say nothing for so long; the error when the other side hangs up or complains meanwhile."""
        self._deadline = time.monotonic() + seconds
        try:
            if self._pump(lambda: self.tls.read(_CHUNK)):
                return None
        except TimeoutError:
            return None
        except OSError as error:
            return error
        return ssl.SSLZeroReturnError("closed")

    def close(self) -> None:
        """Say close_notify, as far as that goes, and close."""
        with contextlib.suppress(OSError, ValueError):
            self._pump(self.tls.unwrap, answers=False)
        self._sock.close()

    def _pump(self, step: Callable[[], _T], *, answers: bool = True) -> _T:
        """Do `step`, with the wire moved as it asks; without `answers` none is waited for."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if not answers:
                    raise
                self._flush()
                self._receive()
            finally:
                self._flush()

    def _flush(self) -> None:
        records = self._outgoing.read()
        if records:
            self.sent += records[: _MOST_KEPT - len(self.sent)]
            self._sock.settimeout(self._left())
            self._sock.sendall(records)

    def _receive(self) -> None:
        self._sock.settimeout(self._left())
        try:
            data = self._sock.recv(_CHUNK)
        except TimeoutError:
            raise TimeoutError("the handshake timed out") from None
        if data:
            self.received += data[: _MOST_KEPT - len(self.received)]
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _left(self) -> float:
        return max(0.001, self._deadline - time.monotonic())


class Shake(msgspec.Struct, frozen=True, kw_only=True):
    """How one handshake went."""

    down: LinkDown | None
    """Why it failed; None when it did not."""
    transcript: Transcript
    offered: tuple[str, ...]
    """Suites by OpenSSL's names, out of the ClientHello itself."""
    seconds: float
    version: str = ""
    suite: str = ""
    protocol: str | None = None
    """What the server chose of ALPN."""
    leaf: bytes = b""
    """DER of the server's own certificate, as far as it was in clear or is proved."""
    hung_up: str | None = None
    """What it said when it closed right after the handshake, before we had said anything."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for each thing that somebody else may keep us waiting for."""

    look_up: float = 10.0
    connect: float = 10.0
    handshake: float = 10.0
    linger: float = 1.0
    """After the handshake, for an endpoint that hangs up on a certificate it does not like."""
    answer: float = 10.0
    """CONNACK, PUBACK, SUBACK."""
    alone: float = 5.0
    """For somebody else with our client id, whom our CONNECT has thrown out, to come back."""
    between: float = 1.1
    """Between two CONNECTs: AWS IoT takes one a second of one client id."""


def shake_hands(
    settings: TlsSettings, address: Address, patience: Patience, clock_is_unset: Callable[[], bool]
) -> Shake:
    """Shake hands as the bridge does, and say nothing more. Raises ConfigError for our own files; OSError of TCP."""
    context = tls.build_context(settings)
    sock, _ = dial(address, patience.connect)
    peer = Peer(sock, context, settings.endpoint, patience.handshake)
    begun = time.monotonic()
    try:
        try:
            peer.handshake()
        except OSError as error:
            said = read_transcript(bytes(peer.received))
            return Shake(
                down=_sort(error, said, clock_is_unset),
                transcript=said,
                offered=_offered(context, peer),
                seconds=time.monotonic() - begun,
                version=said.version,
                leaf=next(iter(said.certificates), b""),
            )
        agreed = Shake(
            down=None,
            transcript=read_transcript(bytes(peer.received)),
            offered=_offered(context, peer),
            seconds=time.monotonic() - begun,
            version=(peer.tls.version() or "").replace("TLSv", "TLS "),
            suite=(peer.tls.cipher() or ("",))[0],
            protocol=peer.tls.selected_alpn_protocol(),
            leaf=peer.tls.getpeercert(binary_form=True) or b"",
        )
        farewell = peer.farewell(patience.linger)
        return msgspec.structs.replace(agreed, hung_up=None if farewell is None else _said(farewell))
    finally:
        peer.close()


def _offered(context: ssl.SSLContext, peer: Peer) -> tuple[str, ...]:
    """The suites in the ClientHello that was sent, by OpenSSL's names."""
    names = {int(each["id"]) & 0xFFFF: str(each["name"]) for each in context.get_ciphers()}
    return tuple(names.get(number, f"{number:#06x}") for number in offered_suites(bytes(peer.sent)))


def _sort(error: Exception, transcript: Transcript, clock_is_unset: Callable[[], bool]) -> LinkDown:
    """The fault, told further apart by what was on the wire."""
    if transcript.banner:
        first_line = transcript.banner.splitlines()[0].decode("ascii", "backslashreplace")
        return LinkDown(LinkFault.NOT_TLS, f"it says {first_line[:60]!r}")
    if transcript.alert == _NO_APPLICATION_PROTOCOL:
        return LinkDown(LinkFault.ALPN_REFUSED, _said(error))
    down = fault_of_error(error, clock_is_unset) or LinkDown(LinkFault.TLS_CLOSED, _said(error))
    if down.fault is LinkFault.TLS_REFUSED and transcript.version:  # it had found a suite already
        return LinkDown(LinkFault.CLIENT_CERTIFICATE_REFUSED, down.detail)
    return down


def _said(error: Exception) -> str:
    """OpenSSL's words without the place in its source."""
    return str(error).partition(" (_ssl.c")[0]
