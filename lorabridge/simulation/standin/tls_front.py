"""The TLS side of the stand-in: its rules, and OpenSSL pumped by hand.

asyncio's own TLS drops the fatal alert of a handshake that fails, so that every refusal would look the
same to the client; here each record OpenSSL writes, alerts above all, goes out. A fresh context for each
connection leaves no session to resume: without tickets OpenSSL would still resume by session id, past the
check of the client's certificate.
"""

from __future__ import annotations

import contextlib
import enum
import ssl

import msgspec

from lorabridge.errors import ConfigError, Problem
from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin.events import Refusal
from lorabridge.simulation.standin.hello import SUITES, ClientHello

ALPN_MQTT = b"x-amzn-mqtt-ca"
_ALERTS = {
    Refusal.MALFORMED_HELLO: 50,
    Refusal.NO_SERVER_NAME: 112,
    Refusal.WRONG_SERVER_NAME: 112,
    Refusal.NO_ALPN: 120,
}
"""Alert numbers: decode_error, unrecognized_name (RFC 6066 §3), no_application_protocol (RFC 7301 §3.2)."""
_ALERT_RECORD = 21
_RECORD = 1 << 14


class Door(enum.Enum):
    """A port of the stand-in, by what it stands for."""

    MQTT = "8883"
    ALPN = "443 with ALPN x-amzn-mqtt-ca"
    WEBSOCKET = "443 without ALPN"
    CREDENTIALS = "443 of the credentials provider"


class TlsRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is demanded of a client. The defaults are the documented rules; tests weaken one to see a refusal go."""

    server_name: bool = True
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    suites: tuple[str, ...] = tuple(SUITES.values())
    security_level: int = 2
    """OpenSSL's; below 1 it speaks versions older than TLS 1.2."""
    certificate: bool = True
    trusted: tuple[str, ...] = ()
    """Files of further authorities of clients."""
    revocation: bool = True
    tickets: bool = False
    fresh_context: bool = True


def hello_refusal(rules: TlsRules, name: str, hello: ClientHello, door: Door) -> Refusal | None:
    """What is wrong with the offer, as far as OpenSSL does not judge it."""
    if rules.server_name:
        if hello.server_name is None:
            return Refusal.NO_SERVER_NAME
        if hello.server_name != name.encode():
            return Refusal.WRONG_SERVER_NAME
    return Refusal.NO_ALPN if door is Door.ALPN and ALPN_MQTT not in hello.alpn else None


def build_alert(refusal: Refusal) -> tuple[int, bytes]:
    """The alert for a refusal by us, and its record: fatal, in clear, as before any key exists (RFC 5246 §7.2)."""
    alert = _ALERTS[refusal]
    return alert, bytes([_ALERT_RECORD, 3, 3, 0, 2, 2, alert])


def find_alert(records: bytes) -> int | None:
    """The number of the alert in clear at the end of `records`, if there is one."""
    is_alert = len(records) >= 7 and records[-7] == _ALERT_RECORD and records[-4:-2] == b"\0\2"
    return records[-1] if is_alert else None


def server_context(rules: TlsRules, pki: Pki, door: Door) -> ssl.SSLContext:
    """A context by the rules, from the files as they are now. Raises ConfigError when OpenSSL cannot keep the rules."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = rules.lowest, rules.highest
    context.set_ciphers(":".join((*rules.suites, f"@SECLEVEL={rules.security_level}")))
    offered = {suite["name"] for suite in context.get_ciphers()}
    if missing := set(rules.suites) - offered:
        what = f"cannot offer {', '.join(sorted(missing))}"
        raise ConfigError([Problem(where="OpenSSL", what=what, hint="the stand-in needs all 18 suites of AWS IoT")])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if not rules.tickets:
        context.options |= ssl.OP_NO_TICKET
    pairs = (pki.server_credentials,) if door is Door.CREDENTIALS else (pki.server_rsa, pki.server_ecdsa)
    for pair in pairs:  # OpenSSL keeps one of each kind
        context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(pki.devices.ca_file)
    for file in rules.trusted:
        context.load_verify_locations(file)
    if rules.certificate and door is not Door.WEBSOCKET:
        context.verify_mode = ssl.CERT_REQUIRED
    if rules.revocation:
        context.load_verify_locations(pki.devices.crl_file)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if door is Door.ALPN:
        context.set_alpn_protocols([ALPN_MQTT.decode()])
    return context


class TlsSide:
    """One TLS connection without a socket: bytes of the wire in and out, plaintext out and in."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_done = False
        self.peer_closed = False

    def receive(self, wire: bytes) -> bytes:
        """What `wire` holds in plaintext. Raises SSLError; the alert is then in `outgoing`."""
        self._incoming.write(wire)
        chunks: list[bytes] = []
        read = self._tls.read
        try:
            if not self._is_done:
                self._tls.do_handshake()
                self._is_done = True
            while chunk := read(_RECORD):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            return b"".join(chunks)
        except ssl.SSLZeroReturnError:
            pass
        self.peer_closed = True
        return b"".join(chunks)

    @property
    def handshake_done(self) -> bool:
        """Whether both sides have said Finished."""
        return self._is_done

    @property
    def description(self) -> str:
        """Version and suite."""
        suite = self._tls.cipher()
        return f"{self._tls.version()} {suite[0] if suite else ''}"

    @property
    def peer_certificate(self) -> bytes:
        """The client's certificate (DER), empty without one."""
        return self._tls.getpeercert(binary_form=True) or b""

    def send(self, plaintext: bytes) -> None:
        """Encrypt; the records are then in `outgoing`."""
        rest = memoryview(plaintext)
        while rest:
            rest = rest[self._tls.write(rest) :]

    def close(self) -> None:
        """Say close_notify."""
        with contextlib.suppress(ssl.SSLError, ValueError):  # no answer is waited for; there may be nobody to say it to
            self._tls.unwrap()

    def outgoing(self) -> bytes:
        """The records that are to be sent now."""
        return self._outgoing.read()
