"""The dates of a certificate, read where a daemon of 50 MB does not want a library of 9 MB for two numbers."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Validity(msgspec.Struct, frozen=True):
    """From when until when, both UTC and included (RFC 5280 §4.1.2.5)."""

    not_before: datetime
    not_after: datetime


def validity_of_file(path: str) -> Validity:
    """Of the first certificate in a PEM file: ours, whatever chain follows. Raises OSError, ValueError."""
    _, begin, rest = Path(path).read_text(encoding="latin-1").partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    return validity(ssl.PEM_cert_to_DER_cert(begin + body + end + "\n"))


def validity(der: bytes) -> Validity:
    """Of one certificate in DER (RFC 5280 §4.1). Raises ValueError."""
    certificate, _ = _element(der, _SEQUENCE)
    rest, _ = _element(certificate, _SEQUENCE)
    if rest[:1] == bytes([_VERSION]):
        _, rest = _element(rest, _VERSION)
    for _ in ("serialNumber", "signature", "issuer"):
        _, rest = _element(rest)
    dates, _ = _element(rest, _SEQUENCE)
    first, dates = _time(dates)
    last, _ = _time(dates)
    return Validity(first, last)


def _element(data: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """The contents of the element that begins here, and what follows it. Raises ValueError."""
    if len(data) < 2 or (tag is not None and data[0] != tag):
        raise ValueError("is no certificate")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("is cut off")
    return data[start : start + size], data[start + size :]


def _time(data: bytes) -> tuple[datetime, bytes]:
    text, rest = _element(data)
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(data[0])
    if form is None:
        raise ValueError("is no time")
    found = datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
    if data[0] == _UTC_TIME and found.year >= 2050:  # RFC 5280 §4.1.2.5.1: 50 to 99 are of the last century
        found = found.replace(year=found.year - 100)
    return found, rest
