"""What a client offers first: a ClientHello read off the wire (RFC 5246 §7.4.1.2, RFC 8446 §4.1.2).

The client's own idea of what it offers is no evidence (OpenSSL lists suites that it then leaves out);
these bytes are.
"""

from __future__ import annotations

import msgspec

SUITES = {
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xC023: "ECDHE-ECDSA-AES128-SHA256",
    0xC027: "ECDHE-RSA-AES128-SHA256",
    0xC024: "ECDHE-ECDSA-AES256-SHA384",
    0xC028: "ECDHE-RSA-AES256-SHA384",
    0xC009: "ECDHE-ECDSA-AES128-SHA",
    0xC013: "ECDHE-RSA-AES128-SHA",
    0xC00A: "ECDHE-ECDSA-AES256-SHA",
    0xC014: "ECDHE-RSA-AES256-SHA",
    0x009C: "AES128-GCM-SHA256",
    0x009D: "AES256-GCM-SHA384",
    0x003C: "AES128-SHA256",
    0x003D: "AES256-SHA256",
    0x002F: "AES128-SHA",
    0x0035: "AES256-SHA",
}
"""The 18 that AWS IoT lists for TLS 1.2 (developer guide, Transport security), written down apart from the client's."""
EMPTY_RENEGOTIATION_INFO = 0x00FF
"""Not a suite but a signal (RFC 5746 §3.3)."""
SESSION_TICKET = 35
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43
_HANDSHAKE_RECORD, _CLIENT_HELLO = 22, 1
_MAX_RECORD = (1 << 14) + 2048
_MAX_HELLO = 1 << 14


class MalformedHello(Exception):  # noqa: N818  # named as the other malformed things of the house
    """What came is no ClientHello."""


class ClientHello(msgspec.Struct, frozen=True, kw_only=True):
    """The offer. `versions` is the extension's list when there is one, else the one version of the hello."""

    versions: tuple[int, ...]
    suites: tuple[int, ...]
    extensions: tuple[int, ...]
    server_name: bytes | None = None
    alpn: tuple[bytes, ...] = ()
    session_id: bytes = b""

    @property
    def suite_names(self) -> tuple[str, ...]:
        """Names as OpenSSL writes them, hex for those that AWS IoT does not list, the signal of RFC 5746 left out."""
        return tuple(SUITES.get(suite, f"{suite:#06x}") for suite in self.suites if suite != EMPTY_RENEGOTIATION_INFO)


class HelloReader:
    """Collects records until the hello is whole."""

    def __init__(self) -> None:
        self._wire = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """The hello, or None while it is incomplete. Raises MalformedHello."""
        self._wire += data
        while self._wire:
            if self._wire[0] != _HANDSHAKE_RECORD:
                raise MalformedHello("no TLS handshake record")
            size = int.from_bytes(self._wire[3:5], "big")
            if len(self._wire) < 5 or len(self._wire) < 5 + size:
                if size > _MAX_RECORD:
                    raise MalformedHello("a record longer than TLS has them")
                return None
            self._message += self._wire[5 : 5 + size]
            del self._wire[: 5 + size]
            length = int.from_bytes(self._message[1:4], "big")
            if not size or self._message[0] != _CLIENT_HELLO or length > _MAX_HELLO:
                raise MalformedHello("no ClientHello, or an absurd one")
            if len(self._message) >= 4 + max(length, 1):
                return parse_client_hello(bytes(self._message[4 : 4 + length]))
        return None


class _Cursor:
    """Reads vectors of TLS, never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise MalformedHello("shorter than its lengths say")
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        return self.take(self.number(length_size))

    @property
    def more(self) -> bool:
        return self._at < len(self._data)


def parse_client_hello(body: bytes) -> ClientHello:
    """Read the body of a ClientHello (after the handshake header). Raises MalformedHello."""
    cursor = _Cursor(body)
    version = cursor.number(2)
    cursor.take(32)
    session_id = cursor.vector(1)
    suites = _numbers(cursor.vector(2))
    cursor.vector(1)
    block = _Cursor(cursor.vector(2) if cursor.more else b"")
    extensions: dict[int, bytes] = {}
    while block.more:
        kind, value = block.number(2), block.vector(2)
        if kind in extensions:
            raise MalformedHello("an extension twice")
        extensions[kind] = value
    versions = extensions.get(_SUPPORTED_VERSIONS)
    return ClientHello(
        versions=(version,) if versions is None else _numbers(_Cursor(versions).vector(1)),
        suites=suites,
        extensions=tuple(extensions),
        server_name=_server_name(extensions.get(_SERVER_NAME)),
        alpn=_protocols(extensions.get(_ALPN)),
        session_id=session_id,
    )


def _numbers(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise MalformedHello("half a number")
    return tuple(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))


def _server_name(value: bytes | None) -> bytes | None:
    """The host name of RFC 6066 §3."""
    if value is None:
        return None
    names = _Cursor(_Cursor(value).vector(2))
    while names.more:
        if names.number(1) == 0:
            return names.vector(2)
        names.vector(2)
    return None


def _protocols(value: bytes | None) -> tuple[bytes, ...]:
    """The protocol names of RFC 7301 §3.1."""
    if value is None:
        return ()
    names, found = _Cursor(_Cursor(value).vector(2)), []
    while names.more:
        found.append(names.vector(1))
    return tuple(found)
