"""The server's end of a WebSocket that carries MQTT (RFC 6455, MQTT §6), and of one HTTP request: without any I/O."""

from __future__ import annotations

from http import HTTPStatus

from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_TEXT, Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

_MAX_MESSAGE = 256 * 1024
"""More than a packet may have: that is judged behind."""


class BadWebSocket(Exception):  # noqa: N818  # named as the other malformed things of the house
    """What came opens no WebSocket, or is none of MQTT. The answer to it is in `outgoing`."""


class WebSocketEnd:
    """Bytes of the wire in and out, MQTT out and in."""

    def __init__(self) -> None:
        self._protocol = ServerProtocol(subprotocols=[Subprotocol("mqtt")], max_size=_MAX_MESSAGE)
        self._inbox = bytearray()
        self._was_asked = False
        self.is_over = False
        """The client has said Close, or broken the rules."""

    def receive(self, data: bytes) -> Request | None:
        """The request, once, when it is complete; it waits for `accept` or `answer`. Raises BadWebSocket."""
        self._protocol.receive_data(data)
        found: Request | None = None
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                found, self._was_asked = event, True
            elif isinstance(event, Frame):
                self._take(event)
        error = self._protocol.parser_exc if self._was_asked else self._protocol.handshake_exc
        if error is not None:
            raise BadWebSocket(str(error))
        return found

    def accept(self, request: Request) -> None:
        """Open it. Raises BadWebSocket for what asks for something else."""
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            raise BadWebSocket(str(self._protocol.handshake_exc))

    def answer(self, status: HTTPStatus, body: str) -> None:
        """Say this in HTTP, and nothing more."""
        response = self._protocol.reject(status, body)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"  # headers add up
        self._protocol.send_response(response)

    def take(self) -> bytes:
        """The MQTT that came."""
        taken = bytes(self._inbox)
        self._inbox.clear()
        return taken

    def frame(self, packets: bytes) -> bytes:
        """One message with these packets, for the wire; nothing when it is not open."""
        if packets and self._protocol.state is State.OPEN:
            self._protocol.send_binary(packets)
        return self.outgoing()

    def close(self) -> bytes:
        """Close, for the wire; nothing when it is not open."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
        return self.outgoing()

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        return b"".join(self._protocol.data_to_send())

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (OP_BINARY, OP_CONT):
            self._inbox += frame.data
        elif frame.opcode is OP_TEXT:  # MQTT §6.0
            self._protocol.fail(1003)
            raise BadWebSocket("text where MQTT is binary")
        elif frame.opcode is OP_CLOSE:
            self.is_over = True
