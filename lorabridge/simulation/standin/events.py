"""What the stand-in saw and decided: the evidence that tests and the simulation read."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from lorabridge.lorawan.documented import Documented
from lorabridge.simulation.standin.hello import ClientHello


class Happening(enum.Enum):
    """What an event tells."""

    CLIENT_HELLO = "client_hello"
    HANDSHAKE_DONE = "handshake_done"
    CONNECTED = "connected"
    REFUSED = "refused"
    IGNORED = "ignored"
    DISCONNECTED = "disconnected"
    LOST = "lost"
    BROKER_CLOSED = "broker_closed"
    CUT = "cut"
    DELAYED = "delayed"
    REGISTERED = "registered"
    ACTIVATED = "activated"
    REQUEST = "request"
    REPLY = "reply"
    LENT = "lent"


class Refusal(Documented):
    """Why something was not done. All but the last four end the connection."""

    MALFORMED_HELLO = "malformed_hello", "the first bytes are no ClientHello; alert decode_error"
    NO_SERVER_NAME = "no_server_name", "no SNI; alert unrecognized_name"
    WRONG_SERVER_NAME = "wrong_server_name", "SNI is not exactly the endpoint; alert unrecognized_name"
    NO_ALPN = "no_alpn", "no `x-amzn-mqtt-ca` on the port that stands for 443; alert no_application_protocol"
    TLS = "tls", "OpenSSL refused the handshake or a record; the alert is the one that it sent"
    UNKNOWN_CERTIFICATE = "unknown_certificate", "a valid certificate that no policy is attached to"
    NOT_ACTIVE = "not_active", "a certificate that was registered just in time, or made for a claim, and is not active"
    NO_REQUEST = "no_request", "what came to the credentials provider is no request for credentials: HTTP 400"
    ROLE_ALIAS = "role_alias", "no role has this alias: HTTP 404"
    ASSUME_ROLE = (
        "assume_role",
        "no right to the credentials of this role alias (iot:AssumeRoleWithCertificate): HTTP 403",
    )
    THING_NAME = "thing_name", "the thing that is named is not the certificate's: HTTP 403"
    WEBSOCKET = "websocket", "no handshake of a WebSocket with the subprotocol `mqtt`, or no binary messages in it"
    SIGNATURE = "signature", "the handshake is not signed, or wrongly, or for another host, region or service: HTTP 403"
    SIGNATURE_DATE = "signature_date", "the handshake was signed more than five minutes from now: HTTP 403"
    CREDENTIALS = "credentials", "signed with credentials that nobody was lent (HTTP 403), or that have ended"
    SETUP_TIMEOUT = "setup_timeout", "no CONNECT in time"
    KEEP_ALIVE = "keep_alive", "nothing heard for one and a half times the keep-alive"
    MALFORMED_PACKET = "malformed_packet", "not MQTT"
    UNEXPECTED_PACKET = "unexpected_packet", "a packet that a client may not send then, or never (PUBREL, AUTH …)"
    PROTOCOL_VERSION = "protocol_version", "neither MQTT 3.1.1 nor MQTT 5"
    OVERSIZE = "oversize", "a packet of more than 128 KiB"
    CLIENT_ID = "client_id", "not the client id of this certificate"
    LAST_WILL = "last_will", "a last will without the right to it, or to its topic"
    PERSISTENT_SESSION = "persistent_session", "a persistent session without the right to it"
    TOPIC_LENGTH = "topic_length", "a topic of more than 256 bytes"
    TOPIC_SLASHES = "topic_slashes", "a topic with more than 7 slashes"
    PUBLISH = "publish", "no right to publish to this topic"
    RETAIN = "retain", "no right to publish retained to this topic"
    SUBSCRIBE = "subscribe", "no right to subscribe to this filter"
    FILTERS = "filters", "more than 8 filters in a SUBSCRIBE"
    SUBSCRIPTIONS = "subscriptions", "more than 50 subscriptions"
    SUBSCRIPTION_IDENTIFIER = "subscription_identifier", "MQTT 5 subscription identifiers are not supported"
    TOPIC_ALIAS = "topic_alias", "an MQTT 5 topic alias out of range, or one that stands for nothing yet"
    TAKEN_OVER = "taken_over", "the same client id connected anew: the new connection wins"
    SHUTTING_DOWN = "shutting_down", "the stand-in ends"
    DISCONNECTED = "disconnected_by_operator", "somebody in the cloud ended the connection"
    NO_BROKER = "no_broker", "the broker behind cannot be reached"
    QOS_2 = "qos_2", "QoS 2: never answered (3.1.1), connection closed (MQTT 5)"
    RATE = "rate", "more publishes a second than the quota, both ways together: the excess is discarded"
    UNACKNOWLEDGED = (
        "unacknowledged",
        "more than 100 publishes without PUBACK: not taken (3.1.1), connection closed (MQTT 5)",
    )
    RECEIVE = "receive", "no right to receive from this topic: the message is not delivered"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the record. `detail` may hold what a peer sent: show it escaped."""

    at: float
    """Seconds, by the clock given to the stand-in."""
    connection: int
    kind: Happening
    refusal: Refusal | None = None
    alert: int | None = None
    """The TLS alert that was sent (RFC 5246 §7.2)."""
    detail: str = ""
    hello: ClientHello | None = None


class Journal:
    """The last `limit` events, counters over all of them, and optionally a file of JSON lines."""

    def __init__(
        self,
        limit: int,
        file: Path | None,
        clock: Callable[[], float],
        watcher: Callable[[Event], None] | None = None,
    ) -> None:
        """`watcher` is given each event as it happens."""
        self.events: deque[Event] = deque(maxlen=limit)
        self.counters: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self._clock = clock
        self._watcher = watcher
        self._file: BinaryIO | None = None if file is None else file.open("ab")

    def record(
        self,
        connection: int,
        kind: Happening,
        *,
        refusal: Refusal | None = None,
        alert: int | None = None,
        detail: str = "",
        hello: ClientHello | None = None,
    ) -> None:
        """Note an event, count it, and wake whoever waits."""
        at = self._clock()
        event = Event(at=at, connection=connection, kind=kind, refusal=refusal, alert=alert, detail=detail, hello=hello)
        self.events.append(event)
        self.counters[kind.value if refusal is None else refusal.value] += 1
        if self._file is not None:
            self._file.write(msgspec.json.encode(event) + b"\n")
        if self._watcher is not None:
            self._watcher(event)
        self.changed.set()

    def count(self, name: str, by: int = 1) -> None:
        """Count what is too frequent to be an event, and wake whoever waits."""
        self.counters[name] += by
        self.changed.set()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
