"""Who can say whether our clock is right, and who the other side says that it is.

The clock is compared with the endpoint's own `Date` (RFC 9110 §6.6.1), over HTTPS with our certificate
(ALPN x-amzn-http-ca on port 443). No time server is asked: the endpoint is the only place we talk to.
"""

from __future__ import annotations

import ctypes
import email.utils
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lorabridge.upstream import tls
from lorabridge.upstream.doctor.handshake import Patience, Peer
from lorabridge.upstream.doctor.network import Address, dial
from lorabridge.upstream.tls import TlsSettings

AMAZON_ROOTS = {
    "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e": "1",
    "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4": "2",
    "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4": "3",
    "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092": "4",
}
"""SHA-256 of Amazon Root CA 1 to 4 (amazontrust.com/repository)."""
ALPN_HTTP = "x-amzn-http-ca"
"""What makes port 443 speak HTTPS with client certificates (AWS IoT developer guide, Device communication)."""
SKEW_WORTH_TELLING = timedelta(seconds=10)
SKEW_TOO_LARGE = timedelta(minutes=5)
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h."""
_TIME_ERROR = 5
"""Of adjtimex(2): the clock is not synchronised."""
_SIZEOF_TIMEX = 512
"""More than `struct timex` has anywhere."""
_MOST_OF_A_HEAD = 1 << 14


def kernel_is_synchronised() -> bool | None:
    """Whether somebody keeps the kernel's clock; None when it does not say."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_SIZEOF_TIMEX))  # modes 0: only reads
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def date_of_endpoint(settings: TlsSettings, address: Address, patience: Patience) -> datetime | None:
    """The endpoint's own time; None when it tells none. Raises ConfigError for our own files.

    It has to prove itself as always, but for dates: those are what our clock cannot judge.
    """
    context = tls.build_context(settings)
    context.verify_flags |= _NO_CHECK_TIME
    context.set_alpn_protocols([ALPN_HTTP])
    try:
        sock, _ = dial(address, patience.connect)
    except OSError:
        return None
    peer = Peer(sock, context, settings.endpoint, patience.handshake)
    head = b""
    try:
        peer.handshake()
        peer.send(f"GET / HTTP/1.1\r\nHost: {settings.endpoint}\r\nConnection: close\r\n\r\n".encode())
        while b"\r\n\r\n" not in head and len(head) < _MOST_OF_A_HEAD and (more := peer.read()):
            head += more
    except OSError:
        pass
    finally:
        peer.close()
    return parse_date(head)


def parse_date(head: bytes) -> datetime | None:
    """The Date of an HTTP response's head; None when it has none, or is no HTTP."""
    found = re.search(rb"\r\nDate:[ \t]*([ -~]{1,64})\r\n", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.") or found is None:
        return None
    try:
        date = email.utils.parsedate_to_datetime(found[1].decode("ascii"))
    except ValueError:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)


def amazon_roots(ca_file: str) -> tuple[dict[str, bytes], int]:
    """Which of the four Amazon root CAs the file holds (PEM by number), and how many others.

    Raises OSError, ValueError.
    """
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415  # as in tls.check_files
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415  # as in tls.check_files

    held = {
        hashlib.sha256(each.public_bytes(Encoding.DER)).hexdigest(): each.public_bytes(Encoding.PEM)
        for each in load_pem_x509_certificates(Path(ca_file).read_bytes())
    }
    amazon = {number: held[digest] for digest, number in AMAZON_ROOTS.items() if digest in held}
    return amazon, len(held) - len(amazon)


def describe_certificate(der: bytes) -> str:
    """Whom a certificate is for, who signed it and until when, for a sentence; empty when it is none."""
    from cryptography import x509  # noqa: PLC0415  # as in tls.check_files

    try:
        found = x509.load_der_x509_certificate(der)
        try:
            alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = alternative.get_values_for_type(x509.DNSName)
        except x509.ExtensionNotFound:
            names = []
        whom = ", ".join(names[:3]) or found.subject.rfc4514_string()
        whom += f" and {len(names) - 3} more" if len(names) > 3 else ""
        dates = f"{found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d}"
        said = f"for {whom}, signed by {found.issuer.rfc4514_string()}, valid {dates}"
    except ValueError:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in said)[:300]
