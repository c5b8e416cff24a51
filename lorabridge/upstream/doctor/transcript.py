"""What went over the wire in a handshake, read from the records themselves (RFC 5246 §6.2.1, §7.4).

OpenSSL tells that a handshake failed, and not who answered in the endpoint's place. Up to the Certificate of
TLS 1.2 all is in clear, so it need not be trusted to be read. Everything here is hostile and proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

_ALERT, _HANDSHAKE = 21, 22
_CONTENT_TYPES = range(20, 25)
_SERVER_HELLO, _CERTIFICATE = 2, 11
_SUPPORTED_VERSIONS = 43
_VERSIONS = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}
_MOST_CERTIFICATES = 10


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What the other side said in clear."""

    banner: bytes = b""
    """The beginning of what it said, when that was no TLS."""
    alert: int | None = None
    version: str = ""
    """Of its ServerHello; empty when there was none."""
    certificates: tuple[bytes, ...] = ()
    """DER, its own first."""


class _Truncated(Exception):  # noqa: N818  # ends the reading, and is no error
    """There is no more."""


class _Cursor:
    """Reads vectors of TLS, never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise _Truncated
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        return self.take(self.number(length_size))


def read_transcript(received: bytes) -> Transcript:
    """What a server has said, from the first byte on; of a stream that ends anywhere, what is whole."""
    if received and received[0] not in _CONTENT_TYPES:
        return Transcript(banner=received[:80])
    alert: int | None = None
    messages = bytearray()
    for content_type, fragment in _records(received):
        if content_type == _HANDSHAKE:
            messages += fragment
        elif content_type == _ALERT and len(fragment) == 2:  # a longer one is encrypted
            alert = fragment[1]
            break
        else:
            break  # ChangeCipherSpec: what follows is encrypted
    version = ""
    certificates: tuple[bytes, ...] = ()
    for kind, body in _messages(bytes(messages)):
        if kind == _SERVER_HELLO:
            version = _version(body)
        elif kind == _CERTIFICATE:
            certificates = _certificates(body)
    return Transcript(alert=alert, version=version, certificates=certificates)


def offered_suites(sent: bytes) -> tuple[int, ...]:
    """The numbers of the suites in a ClientHello that we sent (RFC 5246 §7.4.1.2), signals of RFC 5746 left out."""
    messages = b"".join(fragment for content_type, fragment in _records(sent) if content_type == _HANDSHAKE)
    try:
        hello = _Cursor(messages)
        hello.take(4 + 2 + 32)
        hello.vector(1)
        suites = hello.vector(2)
    except _Truncated:
        return ()
    numbers = (int.from_bytes(suites[at : at + 2], "big") for at in range(0, len(suites), 2))
    return tuple(number for number in numbers if number != 0x00FF)


def _records(stream: bytes) -> Iterator[tuple[int, bytes]]:
    cursor = _Cursor(stream)
    try:
        while True:
            content_type = cursor.number(1)
            cursor.take(2)
            yield content_type, cursor.vector(2)
    except _Truncated:
        return


def _messages(stream: bytes) -> Iterator[tuple[int, bytes]]:
    cursor = _Cursor(stream)
    try:
        while True:
            yield cursor.number(1), cursor.vector(3)
    except _Truncated:
        return


def _version(server_hello: bytes) -> str:
    """The extension's version when there is one (RFC 8446 §4.2.1), else that of the hello."""
    cursor = _Cursor(server_hello)
    try:
        version = cursor.number(2)
        cursor.take(32)
        cursor.vector(1)
        cursor.take(3)
        extensions = _Cursor(cursor.vector(2))
        while True:
            kind, value = extensions.number(2), extensions.vector(2)
            if kind == _SUPPORTED_VERSIONS and len(value) == 2:
                version = int.from_bytes(value, "big")
    except _Truncated:
        pass
    return _VERSIONS.get(version, f"version {version:#06x}") if len(server_hello) >= 2 else ""


def _certificates(body: bytes) -> tuple[bytes, ...]:
    """The certificate_list of TLS 1.2 (RFC 5246 §7.4.2)."""
    found: list[bytes] = []
    try:
        chain = _Cursor(_Cursor(body).vector(3))
        while len(found) < _MOST_CERTIFICATES:
            found.append(chain.vector(3))
    except _Truncated:
        pass
    return tuple(found)
