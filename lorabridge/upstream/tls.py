"""The TLS side of the endpoint: what is offered, who is trusted, and what of our own files is wrong.

TLS 1.2 exactly unless the operator opts for 1.3; the endpoint's name as SNI and in its certificate,
whatever address is dialled; our own certificate always; suites out of AWS's list only; no session
tickets, renegotiation or compression (AWS IoT developer guide, Transport security).
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import stat
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from lorabridge.errors import ConfigError, Problem
from lorabridge.settings import Duration
from lorabridge.upstream.validity import validity_of_file

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

RECOMMENDED_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""In every security policy of AWS IoT that speaks TLS 1.2, and the only ones with forward secrecy and AEAD."""
AWS_SUITES = (
    *RECOMMENDED_SUITES,
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA256",
    "AES256-SHA256",
    "AES128-SHA",
    "AES256-SHA",
)
"""All that AWS IoT lists for TLS 1.2; the last six have no forward secrecy."""
ALPN_MQTT = "x-amzn-mqtt-ca"
"""What makes port 443 speak MQTT with client certificates."""
RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""A day this program has surely outlived: an earlier clock was never set."""

_TPM_KEY = b"-----BEGIN TSS2 PRIVATE KEY-----"
"""A key that only the TPM which made it can use; OpenSSL's provider `tpm2` reads the file."""
_MISMATCHES = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""What OpenSSL says of another key, and of a key of another type."""
_LAST_SECOND = 253_402_300_799.0
"""The end of the year 9999."""
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What decides whom we talk to, and how that is proved both ways; the defaults are those of `[aws_iot]`."""

    ROOTS: ClassVar[str] = "the Amazon root CAs"
    OWN: ClassVar[str] = "the certificate that AWS IoT made for this thing"

    endpoint: Annotated[
        str,
        Meta(
            description="host name of the endpoint, as `aws iot describe-endpoint --endpoint-type iot:Data-ATS` says",
            examples=["a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"],
        ),
    ]
    port: Annotated[int, Meta(description="of the endpoint", ge=1, le=65535)] = 8883
    connect_address: Annotated[
        str,
        Meta(
            description="`host:port` to dial instead; SNI and certificate check still use `endpoint`",
            examples=["127.0.0.1:8883"],
        ),
    ] = ""
    ca_file: Annotated[str, Meta(description="PEM file of the Amazon root CAs 1 to 4")] = (
        "/etc/lorabridge/amazon-root-cas.pem"
    )
    certificate_file: Annotated[str, Meta(description="PEM file of this gateway's certificate")] = (
        "/etc/lorabridge/certificate.pem"
    )
    private_key_file: Annotated[str, Meta(description="PEM file of its private key, readable by the service only")] = (
        "/etc/lorabridge/private-key.pem"
    )
    certificate_warning: Annotated[
        Duration, Meta(description="how long before our certificate expires that is told every day")
    ] = Duration(30 * 86_400)
    tls_max: Annotated[Literal["1.2", "1.3"], Meta(description="highest TLS version offered; the lowest is 1.2")] = (
        "1.2"
    )
    cipher_profile: Annotated[
        Literal["recommended", "aws-compatible"],
        Meta(description="`recommended`: the four ECDHE-GCM suites; `aws-compatible`: all 18 that AWS IoT lists"),
    ] = "recommended"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to dial."""
        if not self.connect_address:
            return self.endpoint, self.port
        return split_address(self.connect_address)

    @property
    def alpn(self) -> str:
        """The protocol to ask for in the handshake; empty: none."""
        return ALPN_MQTT if self.port == 443 else ""

    @property
    def wants_tls(self) -> bool:
        """False for a broker on this machine that is spoken to without."""
        return True

    @property
    def files(self) -> tuple[str, ...]:
        """What may be replaced while we run."""
        return self.ca_file, self.certificate_file, self.private_key_file


class PinnedContext(ssl.SSLContext):
    """A client context for one endpoint: its name is SNI and what the certificate must say, whatever is dialled.

    It also holds against a library that would retry without a server name when one is refused, and it
    shakes hands at once (the socket has a time-out), so that a socket on which that fails is closed.
    """

    endpoint: str

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As `SSLContext.wrap_socket`, with the name and the handshake decided here."""
        kwargs |= {"server_hostname": self.endpoint, "do_handshake_on_connect": True}
        return super().wrap_socket(sock, *args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As `SSLContext.wrap_bio`, which asyncio uses, with the name decided here."""
        return super().wrap_bio(*args, **kwargs | {"server_hostname": self.endpoint})


def context(settings: TlsSettings) -> ssl.SSLContext | None:
    """A fresh context, or None for plain TCP, which goes to this machine only. Raises ConfigError."""
    if settings.wants_tls:
        return build_context(settings)
    host, _ = settings.address
    if not is_loopback(host):
        what, hint = f"{host} is not this machine, and would be dialled without TLS", "take `plain` out"
        raise ConfigError([Problem(where="mqtt.plain", what=what, hint=hint)])
    return None


def build_context(settings: TlsSettings, alpn: str | None = None) -> ssl.SSLContext:
    """A fresh context (one a connection: files may have been renewed). Raises ConfigError for our own files.

    `alpn` in the place of what the settings ask for; empty: none.
    """
    if problems := _check_private(settings.private_key_file):
        raise ConfigError(problems)
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.endpoint = settings.endpoint
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3 if settings.tls_max == "1.3" else ssl.TLSVersion.TLSv1_2
    wanted = RECOMMENDED_SUITES if settings.cipher_profile == "recommended" else AWS_SUITES
    context.set_ciphers(":".join(wanted))
    offered = [suite["name"] for suite in context.get_ciphers() if not suite["name"].startswith("TLS_")]
    if offered != list(wanted):  # OpenSSL drops names that it does not know without a word
        missing = ", ".join(sorted(set(wanted) - set(offered)))
        hint = 'use cipher_profile = "recommended"'
        raise ConfigError([Problem(where="OpenSSL", what=f"cannot offer these suites: {missing}", hint=hint)])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    if protocol := settings.alpn if alpn is None else alpn:
        context.set_alpn_protocols([protocol])
    try:
        context.load_verify_locations(settings.ca_file)
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.private_key_file, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        told = [msgspec.structs.replace(problem, warning=False) for problem in check_files(settings)]
        raise ConfigError(told or [Problem(where="certificate files", what=str(error))]) from None
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted")  # OpenSSL would ask on the terminal


def check(settings: TlsSettings, where: str = "aws_iot", now: datetime | None = None) -> list[Problem]:
    """Everything that is wrong with endpoint, address and files; `now` is UTC, by default the system's clock."""
    return check_endpoint(settings, where) + check_files(settings, now or datetime.now(UTC))


def check_endpoint(settings: TlsSettings, where: str) -> list[Problem]:
    """What is wrong with the endpoint's name and with the address to dial."""
    problems = []
    hint = "aws iot describe-endpoint --endpoint-type iot:Data-ATS prints it"
    if is_ip_literal(settings.endpoint):
        what = "an IP address cannot be proved by SNI and certificate"
        hint = "write the host name here and the address in connect_address"
        problems.append(Problem(where=f"{where}.endpoint", what=what, hint=hint))
    elif not is_host_name(settings.endpoint):
        problems.append(Problem(where=f"{where}.endpoint", what="is no host name", hint=hint))
    elif settings.endpoint.endswith(".amazonaws.com") and "-ats.iot." not in settings.endpoint:
        what = "is not an ATS data endpoint: its certificate may come from another CA"
        problems.append(Problem(where=f"{where}.endpoint", what=what, hint=hint, warning=True))
    return problems + check_address(settings.connect_address, f"{where}.connect_address")


def check_address(text: str, where: str) -> list[Problem]:
    """What is wrong with a `connect_address`; empty is in order."""
    host, _, port = text.rpartition(":")
    host_is_valid = is_ip_literal(host.strip("[]")) or is_host_name(host)
    if not text or (host_is_valid and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        return []
    return [Problem(where=where, what="is not host:port", hint="such as 127.0.0.1:8883")]


def split_address(text: str) -> tuple[str, int]:
    """Host and port of a `connect_address` that `check_address` finds in order."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(text: str) -> bool:
    """Whether `text` is an address of this machine; a name never is, because it may come to mean another."""
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def is_ip_literal(text: str) -> bool:
    """Whether a resolver would take `text` for an address, short forms such as `127.1` included."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return re.fullmatch(r"(0x[0-9a-fA-F]*|[0-9]+)", text.rpartition(".")[2]) is not None
    return True


def is_host_name(text: str) -> bool:
    """Whether `text` is a host name in ASCII without a dot at its end, so that it is exactly what SNI will say."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def check_files(settings: TlsSettings, now: datetime | None = None) -> list[Problem]:
    """What is wrong with the three files: there, readable, PEM, a pair, private, valid at `now` (where given)."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415  # 9 MB that only a check needs

    problems: list[Problem] = []
    if not settings.wants_tls:
        return problems
    roots = _read(settings.ca_file, settings.ROOTS, problems)
    chain = _read(settings.certificate_file, settings.OWN, problems) if settings.certificate_file else None
    key = _read(settings.private_key_file, "its private key", problems) if settings.private_key_file else None
    certificates: dict[str, list[Certificate]] = {}
    for path, pem in ((settings.ca_file, roots), (settings.certificate_file, chain)):
        if pem is None:
            continue
        try:
            certificates[path] = load_pem_x509_certificates(pem)
        except ValueError:
            hint = "it begins with -----BEGIN CERTIFICATE-----"
            problems.append(Problem(where=path, what="holds no certificate in PEM form", hint=hint))
    own = certificates.get(settings.certificate_file, [])
    if key is not None:
        problems += _check_private(settings.private_key_file) + _check_key(settings, key, own)
    if own and now is not None:
        problems += _check_dates(settings, own[0], now)
    return problems


def _read(path: str, meaning: str, problems: list[Problem]) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        hint = f"this file holds {meaning}; the service's user must be able to read it"
        problems.append(Problem(where=path, what=f"cannot be read: {error.strerror}", hint=hint))
        return None


def _check_key(settings: TlsSettings, key: bytes, own: list[Certificate]) -> list[Problem]:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # as in check_files
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415  # as in check_files

    path = settings.private_key_file
    if is_in_tpm(key):
        return _check_tpm_key(settings)
    try:
        public = load_pem_private_key(key, password=None).public_key()
        matches = not own or own[0].public_key() == public
    except TypeError:
        hint = "a daemon has nobody to ask for the password: openssl pkey -in … -out … removes it"
        return [Problem(where=path, what="is encrypted", hint=hint)]
    except (ValueError, UnsupportedAlgorithm):
        hint = "it begins with -----BEGIN … PRIVATE KEY-----"
        return [Problem(where=path, what="holds no private key in PEM form", hint=hint)]
    return [] if matches else [_mismatch(settings)]


def _mismatch(settings: TlsSettings) -> Problem:
    hint = f"it belongs to another certificate than {settings.certificate_file}"
    return Problem(where=settings.private_key_file, what="does not match the certificate", hint=hint)


def is_in_tpm(key: bytes) -> bool:
    """Whether the content of a key file names a key in a TPM."""
    return key.lstrip().startswith(_TPM_KEY)


def _check_tpm_key(settings: TlsSettings) -> list[Problem]:
    """Only OpenSSL can judge it, where it has the TPM; elsewhere it is no fault of the file."""
    path, trial = settings.private_key_file, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        trial.load_cert_chain(settings.certificate_file, path, password=_no_password)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            return [_mismatch(settings)]
        what = "is the key of a TPM that cannot be used from here"
        hint = "the service needs the TPM's device and OpenSSL's provider tpm2, and so does this command: docs/tpm.md"
        return [Problem(where=path, what=what, hint=hint, warning=True)]
    except ValueError:
        hint = "a daemon has nobody to ask for the password: make a key without one"
        return [Problem(where=path, what="is the key of a TPM that asks for a password", hint=hint)]
    except OSError:  # the certificate cannot be read, which is told with its own path
        return []
    return []


def _check_private(path: str) -> list[Problem]:
    """A problem when anybody but the owner can read the key; a missing one is found elsewhere."""
    if os.path.exists(path) and others_can_read(path):  # noqa: PTH110  # the rest of the file knows it as text
        return [Problem(where=path, what="can be read by others", hint=f"chmod 600 {path}")]
    return []


def others_can_read(path: str) -> bool:
    """Whether group or others have any right on the file.

    With an access list the group bits of the mode are only its mask: systemd hands over credentials as
    root's files with an entry for the service's user, which look like 0440 and are not.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116  # os.getxattr below has no pathlib form either
    if not mode & 0o077:
        return False
    try:
        entries = os.getxattr(path, "system.posix_acl_access")[4:]
    except OSError:
        return True
    group_obj, mask, other = 0x04, 0x10, 0x20  # tags of linux/posix_acl.h
    rights = {tag: allowed for tag, allowed, _ in struct.iter_unpack("<HHI", entries)}
    return bool(rights.get(group_obj, 0) & rights.get(mask, 7) or rights.get(other, 0))


def _check_dates(settings: TlsSettings, own: Certificate, now: datetime) -> list[Problem]:
    """What is wrong with the dates of our certificate, or with the clock that they are compared with."""
    path = settings.certificate_file
    first, last = own.not_valid_before_utc, own.not_valid_after_utc
    if clock_is_unset(now, first):
        what = f"the clock says {now:%Y-%m-%d}, which is before this program or its certificate was made"
        hint = "it is set late after boot, or not at all: enable time synchronisation; the link waits for it"
        return [Problem(where="system clock", what=what, hint=hint, warning=True)]
    if now < first:
        return [Problem(where=path, what=f"is not valid before {first:%Y-%m-%d %H:%M} UTC", hint="is the clock slow?")]
    if now > last:
        hint = "make a new certificate for this thing and replace the file"
        return [Problem(where=path, what=f"expired on {last:%Y-%m-%d}", hint=hint)]
    if now > last - timedelta(seconds=settings.certificate_warning):
        hint = "replace it in time"
        return [Problem(where=path, what=f"expires on {last:%Y-%m-%d}", hint=hint, warning=True)]
    return []


def is_behind(settings: TlsSettings, seconds: float) -> bool:
    """Whether a clock that says so many seconds since the Unix epoch was never set; our own certificate is a witness.

    One that cannot be read is none, and a year beyond 9999 is not behind.
    """
    now = datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_SECOND), UTC)
    try:
        return clock_is_unset(now, validity_of_file(settings.certificate_file).not_before)
    except (OSError, ValueError):
        return clock_is_unset(now)


def clock_is_unset(now: datetime, own_not_before: datetime | None = None) -> bool:
    """Whether the clock cannot be right: before this release, or a year and more before our own certificate's start."""
    return now < RELEASED or (own_not_before is not None and now < own_not_before - timedelta(days=365))
