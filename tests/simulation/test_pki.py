"""The throw-away PKI: private, short-lived, and never the same."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lorabridge.simulation.pki import make_pki
from lorabridge.upstream.tls import TlsSettings, build_context, check

ENDPOINT = "test-ats.iot.eu-west-1.amazonaws.com"


def test_keys_are_readable_by_their_owner_only_and_no_authoritys_key_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    pki = make_pki(folder, endpoint=ENDPOINT, gateway_id="gw-1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = [file for file in folder.iterdir() if b"PRIVATE KEY" in file.read_bytes()]
    names = ["gateway.key", "server-credentials.key", "server-ecdsa.key", "server-rsa.key"]
    assert sorted(file.name for file in keys) == names
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys} == {0o600}
    for ca_file in (pki.endpoints.ca_file, pki.devices.ca_file):
        authority = x509.load_pem_x509_certificate(ca_file.read_bytes()).public_key()
        assert all(load_pem_private_key(key.read_bytes(), None).public_key() != authority for key in keys)


def test_a_used_folder_is_not_written_over(tmp_path: Path) -> None:
    made = make_pki(tmp_path / "pki", endpoint=ENDPOINT, gateway_id="gw-1")
    before = made.gateway.key.read_bytes()
    with pytest.raises(FileExistsError):
        make_pki(tmp_path / "pki", endpoint=ENDPOINT, gateway_id="gw-1")
    assert made.gateway.key.read_bytes() == before


def test_everything_says_that_it_is_throw_away_and_ends_within_a_day(tmp_path: Path) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    make_pki(tmp_path, endpoint=ENDPOINT, gateway_id="gw-1", now=now)
    certificates = [
        x509.load_pem_x509_certificate(file.read_bytes())
        for file in tmp_path.glob("*.pem")
        if b"BEGIN CERTIFICATE-" in file.read_bytes()
    ]
    assert len(certificates) == 6
    for certificate in certificates:
        assert "throw-away" in certificate.subject.rfc4514_string()
        assert certificate.not_valid_after_utc <= now + timedelta(days=1)


def test_the_gateways_own_checks_find_nothing_wrong_but_the_short_life(tmp_path: Path) -> None:
    pki = make_pki(tmp_path, endpoint=ENDPOINT, gateway_id="gw-1")
    settings = TlsSettings(
        endpoint=ENDPOINT,
        ca_file=str(pki.ca_file),
        certificate_file=str(pki.gateway.certificate),
        private_key_file=str(pki.gateway.key),
    )
    assert [problem for problem in check(settings) if not problem.warning] == []
    build_context(settings)
