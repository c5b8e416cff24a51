"""What can be wrong with the link, told apart as far as it can be, each with what to do about it.

All of these are tried again for ever: none is final, for the mend may be made at the other end.
`docs/link-faults.md` is generated from this file.
"""

from __future__ import annotations

import enum
import socket
import ssl
from collections.abc import Callable

import msgspec

from lorabridge.errors import ConfigError
from lorabridge.lorawan.documented import Documented

_CONNECT_POLICY = (
    "The policy must allow iot:Connect for client/<thing_name> with a last will, "
    "and the thing must be attached to the certificate."
)
_ROLE_POLICY = (
    "The certificate's policy must allow iot:AssumeRoleWithCertificate on the role alias, the role must trust "
    "credentials.iot.amazonaws.com, the thing must be attached to the certificate, and the clock must be right."
)
_SIGNATURE = (
    "HTTP 403: the role of `role_alias` must allow iot:Connect, `region` must be the endpoint's, and the clock right "
    "within 5 minutes. Anything else: a proxy or a web server answers in the endpoint's place."
)
_LOGIN = " Another broker: user name and password, and what its access list lets them do."


class LinkState(enum.Enum):
    """What the link does at the moment."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"

    def __str__(self) -> str:
        return self.value


class LinkFault(Documented):
    """Why the link is down, or went down last: what it means, and a hint for the operator."""

    CLOCK_NOT_SET = (
        "clock_not_set",
        "The system clock is before this release, or years before our certificate was made.",
        "Wait for time synchronisation, or enable it: no certificate can be checked without the date.",
    )
    LOCAL_FILES = (
        "local_files",
        "A certificate, key, CA or password file of ours cannot be used.",
        "Run `lorabridge check`; it names the file and what is wrong with it.",
    )
    NAME_NOT_RESOLVED = (
        "name_not_resolved",
        "The endpoint's name has no address.",
        "Check the DNS servers of this machine and the spelling of `endpoint` (`host` of another broker).",
    )
    UNREACHABLE = (
        "unreachable",
        "No TCP connection to the endpoint.",
        "Check the network and whether a firewall lets the port out; port 443 often passes where 8883 does not.",
    )
    TLS_CLOSED = (
        "tls_closed",
        "The peer closed or said nothing during the TLS handshake.",
        "Is this address a TLS server at all? A middlebox may be cutting, or SNI names no endpoint that it knows.",
    )
    NOT_TLS = (
        "not_tls",
        "What answers does not speak TLS.",
        "A captive portal, a proxy or another server answers in the endpoint's place: log in there, or go round it.",
    )
    TLS_VERSION = (
        "tls_version",
        "The two sides have no TLS version in common.",
        'AWS IoT speaks 1.2 and 1.3; a domain configured for 1.3 only needs `tls_max = "1.3"`.',
    )
    TLS_REFUSED = (
        "tls_refused",
        "The endpoint broke the handshake off: no common suite, or no acceptable client certificate.",
        'Try `cipher_profile = "aws-compatible"`, and check that the certificate is registered.',
    )
    SNI_REFUSED = (
        "sni_refused",
        "The endpoint does not know the name that we asked for.",
        "Copy `endpoint` from `aws iot describe-endpoint --endpoint-type iot:Data-ATS`.",
    )
    ALPN_REFUSED = (
        "alpn_refused",
        "The other side of port 443 does not take the protocol x-amzn-mqtt-ca (ALPN).",
        "It is no endpoint of AWS IoT, or a proxy that opens TLS is in between: let it through, or use `port = 8883`.",
    )
    CLIENT_CERTIFICATE_REFUSED = (
        "client_certificate_refused",
        "The endpoint does not accept our certificate.",
        "Is it registered, ACTIVE, not revoked, and in this account and region?",
    )
    CLIENT_CERTIFICATE_EXPIRED = (
        "client_certificate_expired",
        "The endpoint refuses our certificate because its time is over.",
        "Make a new certificate for this thing and replace the files; they are read anew at the next try.",
    )
    SERVER_UNKNOWN_CA = (
        "server_unknown_ca",
        "The endpoint's certificate comes from a CA that is not in `ca_file`.",
        "Put the Amazon roots 1 to 4 there (or the broker's CA); if they are, somebody is intercepting the connection.",
    )
    SERVER_WRONG_NAME = (
        "server_wrong_name",
        "The endpoint's certificate is for another name.",
        "Check `endpoint` and `connect_address` (`host` of another broker); somebody may be answering in its place.",
    )
    SERVER_EXPIRED = (
        "server_expired",
        "The endpoint's certificate has expired by our clock.",
        "If the date of this machine is right the other end must act; AWS renews in time.",
    )
    SERVER_NOT_YET_VALID = (
        "server_not_yet_valid",
        "The endpoint's certificate is not valid yet by our clock.",
        "The clock of this machine is probably slow: check time synchronisation.",
    )
    SERVER_INVALID = (
        "server_invalid",
        "The endpoint's certificate fails another check.",
        "The detail names it; somebody may be intercepting the connection.",
    )
    NO_CONNACK = (
        "no_connack",
        "The endpoint let us in and never answered the MQTT CONNECT.",
        "Usually overload at the other end; with `port = 443` look for a web server or proxy answering.",
    )
    CLOSED_BEFORE_CONNACK = (
        "closed_before_connack",
        "The connection was closed in answer to the MQTT CONNECT.",
        _CONNECT_POLICY + " At TLS 1.3 it may also be the certificate itself.",
    )
    CONNECT_NOT_AUTHORIZED = (
        "connect_not_authorized",
        "The MQTT CONNECT was refused: not authorised.",
        _CONNECT_POLICY + _LOGIN,
    )
    CLIENT_ID_REFUSED = (
        "client_id_refused",
        "The MQTT CONNECT was refused: client identifier not accepted.",
        "`thing_name` is the client id (`client_id` of another broker): it must be the thing of the certificate.",
    )
    PROTOCOL_REFUSED = (
        "protocol_refused",
        "The MQTT version was refused, or the protocol was broken.",
        "Try the other `mqtt_version`.",
    )
    SERVER_UNAVAILABLE = (
        "server_unavailable",
        "The endpoint says that it cannot serve now.",
        "Nothing to do here: it is tried again.",
    )
    TAKEN_OVER = (
        "taken_over",
        "Another client connected with our client id.",
        "Two gateways share a `thing_name` or `client_id`: give each its own.",
    )
    CONNECTION_LOST = (
        "connection_lost",
        "An established connection was closed or broke.",
        "Routine now and then. After each publish: the policy forbids the topic. Every few seconds: shared thing name.",
    )
    KEEP_ALIVE_TIMEOUT = (
        "keep_alive_timeout",
        "No answer to a ping within the keep-alive.",
        "The network went silent; a shorter `keep_alive` finds out earlier.",
    )
    PUBACK_TIMEOUT = (
        "puback_timeout",
        "A published record was not acknowledged in time.",
        "The endpoint or the network is overloaded, or the account's quota is used up.",
    )
    PUBLISH_REFUSED = (
        "publish_refused",
        "A published record was refused with a reason code (MQTT 5), or by hanging up on it.",
        "The policy must allow iot:Publish on the topic, and with `retain_status` iot:RetainPublish on that of status.",
    )
    CREDENTIALS_REFUSED = (
        "credentials_refused",
        "The credentials endpoint gives us no temporary credentials, or some that have ended.",
        _ROLE_POLICY,
    )
    WEBSOCKET_REFUSED = (
        "websocket_refused",
        "The endpoint does not open the WebSocket.",
        _SIGNATURE,
    )
    SUBSCRIBE_REFUSED = (
        "subscribe_refused",
        "The endpoint does not let us subscribe to the topic of commands: it closed the connection, or said so.",
        "The policy must allow iot:Subscribe and iot:Receive (docs/aws.md). Records leave without; asked again hourly.",
    )
    QUOTA_EXCEEDED = (
        "quota_exceeded",
        "The endpoint disconnects us for exceeding a quota.",
        "Lower `max_publishes_per_second`, or ask for a higher quota.",
    )


class LinkDown(msgspec.Struct, frozen=True):
    """How a connection ended, or why none came about. `fault` is None when we ended it ourselves."""

    fault: LinkFault | None
    detail: str = ""
    culprit: int | None = None
    """Key of the publish that was refused by name (MQTT 5)."""


class DialError(Exception):
    """Dialling failed for a reason that is known: `down`."""

    def __init__(self, down: LinkDown) -> None:
        super().__init__(down.detail)
        self.down = down


_BY_VERIFY_CODE = {  # X509_V_ERR_… of OpenSSL's x509_vfy.h
    9: LinkFault.SERVER_NOT_YET_VALID,
    10: LinkFault.SERVER_EXPIRED,
    18: LinkFault.SERVER_UNKNOWN_CA,
    19: LinkFault.SERVER_UNKNOWN_CA,
    20: LinkFault.SERVER_UNKNOWN_CA,
    21: LinkFault.SERVER_UNKNOWN_CA,
    62: LinkFault.SERVER_WRONG_NAME,
    64: LinkFault.SERVER_WRONG_NAME,  # of an IP address
}
_BY_TLS_REASON = {  # the names OpenSSL gives to alerts of the peer and to its own refusals
    "BAD_CERTIFICATE": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "CERTIFICATE_REVOKED": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "CERTIFICATE_EXPIRED": LinkFault.CLIENT_CERTIFICATE_EXPIRED,
    "CERTIFICATE_UNKNOWN": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "CERTIFICATE_REQUIRED": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "UNSUPPORTED_CERTIFICATE": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "UNKNOWN_CA": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "ACCESS_DENIED": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "DECRYPT_ERROR": LinkFault.CLIENT_CERTIFICATE_REFUSED,
    "UNRECOGNIZED_NAME": LinkFault.SNI_REFUSED,
    "NO_APPLICATION_PROTOCOL": LinkFault.ALPN_REFUSED,
    "WRONG_VERSION_NUMBER": LinkFault.NOT_TLS,
    "PROTOCOL_VERSION": LinkFault.TLS_VERSION,
    "UNSUPPORTED_PROTOCOL": LinkFault.TLS_VERSION,
    "HANDSHAKE_FAILURE": LinkFault.TLS_REFUSED,
    "INSUFFICIENT_SECURITY": LinkFault.TLS_REFUSED,
}
_BY_TYPE: tuple[tuple[type[Exception], LinkFault], ...] = (  # the first that fits
    (ConfigError, LinkFault.LOCAL_FILES),
    (socket.gaierror, LinkFault.NAME_NOT_RESOLVED),
    (ConnectionResetError, LinkFault.TLS_CLOSED),
    (BrokenPipeError, LinkFault.TLS_CLOSED),
    (OSError, LinkFault.UNREACHABLE),
)
_BY_REASON_CODE = {  # MQTT 5 §2.4; paho maps the CONNACK codes of 3.1.1 to them too
    0x81: LinkFault.PROTOCOL_REFUSED,
    0x82: LinkFault.PROTOCOL_REFUSED,
    0x84: LinkFault.PROTOCOL_REFUSED,
    0x85: LinkFault.CLIENT_ID_REFUSED,
    0x86: LinkFault.CONNECT_NOT_AUTHORIZED,
    0x87: LinkFault.CONNECT_NOT_AUTHORIZED,
    0x88: LinkFault.SERVER_UNAVAILABLE,
    0x89: LinkFault.SERVER_UNAVAILABLE,
    0x8A: LinkFault.CONNECT_NOT_AUTHORIZED,
    0x8B: LinkFault.SERVER_UNAVAILABLE,
    0x8D: LinkFault.KEEP_ALIVE_TIMEOUT,
    0x8E: LinkFault.TAKEN_OVER,
    0x93: LinkFault.QUOTA_EXCEEDED,
    0x96: LinkFault.QUOTA_EXCEEDED,
    0x97: LinkFault.QUOTA_EXCEEDED,
    0x9F: LinkFault.QUOTA_EXCEEDED,
}


def fault_of_error(error: Exception, clock_is_unset: Callable[[], bool]) -> LinkDown | None:
    """What an error of dialling means; None for one that is our own bug.

    `clock_is_unset` is asked when dates are in question: a certificate "not yet valid" may be in order.
    """
    if isinstance(error, DialError):
        return error.down
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _BY_VERIFY_CODE.get(error.verify_code, LinkFault.SERVER_INVALID)
        if fault is LinkFault.SERVER_NOT_YET_VALID and clock_is_unset():
            fault = LinkFault.CLOCK_NOT_SET
        return LinkDown(fault, error.verify_message)
    detail = "; ".join(str(error).splitlines())  # a ConfigError has a line for each problem
    if isinstance(error, ssl.SSLError):
        return LinkDown(fault_of_tls_reason(detail) or LinkFault.TLS_CLOSED, detail)
    if isinstance(error, TimeoutError) and "handshake" in detail:
        return LinkDown(LinkFault.TLS_CLOSED, detail)
    fault_of_type = next((fault for kind, fault in _BY_TYPE if isinstance(error, kind)), None)
    return fault_of_type and LinkDown(fault_of_type, detail)


def fault_of_tls_reason(text: str) -> LinkFault | None:
    """The fault that OpenSSL's wording names, such as `[SSL: TLSV1_ALERT_UNKNOWN_CA] …`; None when there is none."""
    said = text.upper().replace(" ", "_")  # older releases of Python have no name for some, only OpenSSL's sentence
    return next((fault for reason, fault in _BY_TLS_REASON.items() if reason in said), None)


def fault_of_reason_code(code: int, otherwise: LinkFault) -> LinkFault:
    """The fault that a reason code of CONNACK or DISCONNECT names."""
    return _BY_REASON_CODE.get(code, otherwise)


def fault_of_status(status: int, otherwise: LinkFault) -> LinkFault:
    """The fault that a status of HTTP names."""
    if status == 429:
        return LinkFault.QUOTA_EXCEEDED
    return LinkFault.SERVER_UNAVAILABLE if status >= 500 else otherwise


def faults_markdown() -> str:
    """The page `docs/link-faults.md`."""
    rows = [f"| `{fault}` | {fault.doc} | {fault.hint} |" for fault in LinkFault]
    head = [
        "# Faults of the link",
        "",
        "<!-- Generated from lorabridge/upstream/faults.py by `make docs`. -->",
        "",
        "What the bridge reports when it cannot reach the endpoint, and what to do. All of them are retried for ever.",
        "",
        "| fault | meaning | what to do |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])
