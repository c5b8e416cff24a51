"""MQTT within WebSocket (MQTT §6, RFC 6455): a socket for paho over a TLS socket of ours.

paho has a wrapper of its own, which reads the handshake without a bound and hides what TLS has decrypted already. The
protocol here is that of `websockets`, without its input and output. Handshake, frames and what waits to be sent are
bounded.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from typing import TYPE_CHECKING

from paho.mqtt.client import Client

from lorabridge.upstream.faults import DialError, LinkDown, LinkFault, fault_of_status
from lorabridge.upstream.http import MAX_HEAD, BadResponseError, parse_head

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike
    from websockets.client import ClientProtocol

MAX_MESSAGE = 256 * 1024
"""Bytes of a message that comes: an MQTT packet of AWS IoT has 128 KiB."""
MAX_UNSENT = 512 * 1024
"""Bytes that may wait for the kernel: one packet of ours, and answers to pings."""
_CHUNK = 64 * 1024
_SUBPROTOCOL = "mqtt"
_SWITCHING = 101
_HTTPS = 443
_SHOWN = 200
_WANTS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WebSocket:
    """An open WebSocket as paho wants a socket: `recv` and `send` bytes of MQTT, never blocking."""

    def __init__(self, sock: ssl.SSLSocket, protocol: ClientProtocol) -> None:
        """`protocol` has had the answer to its handshake, and may have had frames behind it."""
        self._sock = sock
        self._protocol = protocol
        self._inbox = bytearray()
        self._outgoing = bytearray()
        self._framed = 0
        """Bytes of MQTT in the frame that `send` could not finish: paho comes with the same ones again."""
        self.end = ""
        """Why nothing more comes after what is in the inbox."""
        self._take_events()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; none: the peer closed. One read at most, so that others get their turn."""
        if not self._inbox and not self.end:
            data = self._sock.recv(_CHUNK)
            if not data:
                return b""
            self._protocol.receive_data(data)
            self._take_events()
        if self._inbox:
            taken = bytes(self._inbox[:size])
            del self._inbox[:size]
            return taken
        if self.end:
            raise ConnectionAbortedError(self.end)
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """All of `data` as one frame; BlockingIOError until the kernel has taken it."""
        if not self._framed:
            if self.end:
                raise ConnectionAbortedError(self.end)
            self._protocol.send_binary(bytes(data))
            self._framed = len(data)
        self._write()
        framed, self._framed = self._framed, 0
        return framed

    def pending(self) -> int:
        """Whether `recv` has something to tell of which the kernel is silent."""
        return len(self._inbox) or len(self.end) or self._sock.pending()

    def close(self) -> None:
        """Say so as far as the kernel takes it at once, and close."""
        if not self.end:
            self.end = "closed"
            with contextlib.suppress(OSError):
                self._protocol.send_close(1000)
                self._write()
        self._sock.close()

    def fileno(self) -> int:
        """Of the TCP connection; -1 when it is closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of a socket; paho says False, once."""
        self._sock.setblocking(flag)

    def _take_events(self) -> None:
        """Keep what came, answer pings and the peer's Close."""
        from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, Frame  # noqa: PLC0415  # as in open_websocket

        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode in (OP_BINARY, OP_CONT):
                self._inbox += event.data
            elif event.opcode is OP_TEXT:
                self.end = "WebSocket: text where MQTT is binary (MQTT §6.0)"
                break
        if (close := self._protocol.close_rcvd) is not None:
            self.end = f"WebSocket: closed by the other end: {close.code} {close.reason!r}"
        if (broken := self._protocol.parser_exc) is not None:
            self.end = f"WebSocket: {broken}"
        with contextlib.suppress(*_WANTS):
            self._write()
        if len(self._outgoing) > MAX_UNSENT:
            self.end = "WebSocket: pings without end"

    def _write(self) -> None:
        """Send what waits, in its order. Raises what stands in _WANTS while the kernel takes no more."""
        self._outgoing += b"".join(self._protocol.data_to_send())
        while self._outgoing:
            del self._outgoing[: self._sock.send(self._outgoing)]


class WebSocketClient(Client):
    """paho with our WebSocket on the TLS socket that it makes: for paho this is MQTT on a socket as ever."""

    _opening: tuple[str, str, float] | None = None

    def speak_within(self, host: str, target: str, patience: float) -> None:
        """Open a WebSocket at `target` of `host` within `patience` seconds, each time a socket is made."""
        self._opening = host, target, patience

    def _create_socket(self) -> SocketLike:
        """The one place where paho takes a socket that is not of its own making; there is no public one."""
        sock = super()._create_socket()
        if self._opening is None or not isinstance(sock, ssl.SSLSocket):
            sock.close()
            raise RuntimeError("a WebSocket needs TLS below it")
        try:
            return open_websocket(sock, *self._opening)
        except BaseException:
            sock.close()
            raise


def open_websocket(sock: ssl.SSLSocket, host: str, target: str, patience: float) -> WebSocket:
    """Shake hands, within `patience` seconds. Raises DialError, OSError; `target` is a secret that neither repeats."""
    from websockets.client import ClientProtocol  # noqa: PLC0415  # only who wants a WebSocket pays for it
    from websockets.typing import Subprotocol  # noqa: PLC0415
    from websockets.uri import WebSocketURI  # noqa: PLC0415

    silent = logging.Logger("websockets")  # noqa: LOG001  # it would write the signature into a log of level debug
    silent.disabled = True
    path, _, query = target.partition("?")  # urllib would keep the last 128 that it has parsed, secrets and all
    protocol = ClientProtocol(
        WebSocketURI(secure=True, host=host, port=_HTTPS, path=path, query=query, username=None, password=None),
        subprotocols=[Subprotocol(_SUBPROTOCOL)],
        max_size=MAX_MESSAGE,
        logger=silent,
    )
    protocol.send_request(protocol.connect())
    deadline = time.monotonic() + patience
    sock.settimeout(patience)
    sock.sendall(b"".join(protocol.data_to_send()))
    try:
        answer = _read_head(sock, deadline)
        _check_status(answer)
    except TimeoutError:
        raise DialError(LinkDown(LinkFault.NO_CONNACK, "no answer to the WebSocket handshake")) from None
    except BadResponseError as error:
        raise DialError(LinkDown(LinkFault.WEBSOCKET_REFUSED, str(error))) from None
    protocol.receive_data(answer)
    if protocol.handshake_exc is not None:
        raise DialError(LinkDown(LinkFault.WEBSOCKET_REFUSED, repr(str(protocol.handshake_exc))[:_SHOWN]))
    if protocol.subprotocol != _SUBPROTOCOL:
        raise DialError(LinkDown(LinkFault.WEBSOCKET_REFUSED, "it opens, and does not speak mqtt"))
    opened = WebSocket(sock, protocol)
    if opened.end:
        raise DialError(LinkDown(LinkFault.WEBSOCKET_REFUSED, opened.end))
    return opened


def _read_head(sock: ssl.SSLSocket, deadline: float) -> bytes:
    """Everything until the head is complete, and what came with its end. Raises BadResponseError, OSError."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        if len(data) > MAX_HEAD:
            raise BadResponseError(f"more than {MAX_HEAD} bytes without an end")
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        piece = sock.recv(4096)
        if not piece:
            raise BadResponseError("closed without an answer" if not data else "an answer that is cut off")
        data += piece
    return bytes(data)


def _check_status(answer: bytes) -> None:
    """Raises DialError for anything but 101, BadResponseError for what is no answer."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = parse_head(head + b"\r\n\r\n").status
    if status != _SWITCHING:
        fault = fault_of_status(status, LinkFault.WEBSOCKET_REFUSED)
        raise DialError(LinkDown(fault, f"HTTP {status}: {rest[:_SHOWN]!r}"))
