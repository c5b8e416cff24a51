from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.validity import validity, validity_of_file
from tests.pki import Authority

KEY = ed25519.Ed25519PrivateKey.generate()
moments = st.integers(-631_152_000, 253_370_764_800).map(lambda at: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(0, at))


def certificate(first: datetime, last: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 2**150 + 1, first, last)
    return builder.sign(KEY, None).public_bytes(serialization.Encoding.DER)


@given(moments, st.timedeltas(timedelta(0), timedelta(days=300)))
def test_the_dates_are_those_that_another_library_wrote(first: datetime, life: timedelta) -> None:
    last = first + life - timedelta(microseconds=life.microseconds)
    found = validity(certificate(first, last))
    assert (found.not_before, found.not_after) == (first, last)


@given(st.binary(max_size=400))
def test_anything_else_is_no_certificate(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever it says
        validity(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_certificate_gives_dates_or_an_error(at: int, byte: int) -> None:
    der = bytearray(certificate(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)))
    der[at % len(der)] = byte
    for damaged in (bytes(der), bytes(der[: at % len(der)])):
        try:
            validity(damaged)
        except ValueError:
            continue


def test_of_a_chain_the_first_certificate_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.client("gw").certificate
    expected = x509.load_pem_x509_certificate(own.read_bytes())
    own.write_bytes("# für das Dach\n".encode() + own.read_bytes() + authority.file.read_bytes())
    assert validity_of_file(str(own)).not_after == expected.not_valid_after_utc
    own.write_bytes(b"nothing")
    with pytest.raises(ValueError):  # noqa: PT011  # whatever it says
        validity_of_file(str(own))
