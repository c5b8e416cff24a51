"""One client of the credentials provider: a request over mutual TLS, and its answer."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from websockets.http11 import Request

from lorabridge.simulation.standin.events import Happening, Refusal
from lorabridge.simulation.standin.front import Front
from lorabridge.simulation.standin.services.lending import Lent
from lorabridge.simulation.standin.tls_end import TlsEnd
from lorabridge.simulation.standin.tls_front import Door, TlsSide
from lorabridge.simulation.standin.websocket import BadWebSocket, WebSocketEnd

_REFUSED = {
    Refusal.NO_REQUEST: (HTTPStatus.BAD_REQUEST, "Bad Request"),
    Refusal.ROLE_ALIAS: (HTTPStatus.NOT_FOUND, "Role alias does not exist"),
}
_DENIED = (HTTPStatus.FORBIDDEN, "Access Denied")


class CredentialsSide(TlsEnd):
    """The client's end. One request, and the connection is closed."""

    def __init__(self, front: Front, number: int, door: Door, *, stalled: bool) -> None:
        super().__init__(front, number, door, stalled=stalled)
        self._http = WebSocketEnd()
        self._certificate = b""

    def _secured(self, tls: TlsSide) -> bool:
        """Which policy the certificate has is asked with the request, and answered in HTTP."""
        self._certificate = tls.peer_certificate
        return True

    def _heard(self, plaintext: bytes) -> None:
        try:
            request = self._http.receive(plaintext)
        except BadWebSocket as error:
            self._refuse(Refusal.NO_REQUEST, str(error))
            return
        if request is not None:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        fields = dict(request.headers.raw_items())
        found = self._front.lending.lend(request.path, fields, self._certificate, self._front.clock())
        if isinstance(found, Lent):
            self._http.answer(HTTPStatus.OK, msgspec.json.encode({"credentials": found}).decode())
            self._front.journal.record(self._number, Happening.LENT, detail=found.access_key_id)
        else:
            status, message = _REFUSED.get(found, _DENIED)
            self._http.answer(status, msgspec.json.encode({"message": message}).decode())
        self._say(self._http.outgoing())
        if isinstance(found, Refusal):
            self._refuse(found, request.path)
        else:
            self.finish()
