"""A throw-away PKI for one run: a root for the endpoint, another for devices, and what they sign.

As with AWS IoT, the endpoint's certificates and the gateway's come from different authorities. The
authorities' keys live in memory only; the others are files that only their owner can read. Everything
is valid for a day and made anew each time, so that nothing of it is worth keeping or stealing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LIFETIME = timedelta(days=1)
WARNING = 3600
"""Seconds before its end at which a gateway warns of such a certificate: it lasts for a day only."""
_BACKDATED = timedelta(hours=1)
_ORGANISATION = "lorabridge throw-away test PKI"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate file, its key file, and the SHA-256 of the certificate (DER) in hex."""

    certificate: Path
    key: Path
    fingerprint: str


class Authority:
    """A root that issues into `folder`; its own key never reaches the disk."""

    def __init__(self, folder: Path, name: str, now: datetime) -> None:
        self.folder = folder
        self.ca_file = folder / f"{name.replace(' ', '-').lower()}.pem"
        self.crl_file = self.ca_file.with_suffix(".crl.pem")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        self._now = now
        self._revoked: list[int] = []
        certificate = (
            self._builder(self._name, self._key.public_key(), now - _BACKDATED, now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate_id = certificate.fingerprint(hashes.SHA256()).hex()
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._write_crl()

    def server(self, name: str, key: PrivateKey, file: str) -> Pair:
        """A server certificate for the host name `name`."""
        alternative = x509.SubjectAlternativeName([x509.DNSName(name)])
        return self._issue(file, name, key, ExtendedKeyUsageOID.SERVER_AUTH, alternative, self._now + LIFETIME)

    def client(self, name: str, key: PrivateKey, file: str, until: datetime | None = None) -> Pair:
        """A device certificate with `name` as its common name; `until` in the past makes an expired one."""
        return self._issue(file, name, key, ExtendedKeyUsageOID.CLIENT_AUTH, None, until or self._now + LIFETIME)

    def sign(self, request: x509.CertificateSigningRequest) -> bytes:
        """A device certificate (PEM) for the key and the name of a signing request, whose signature is valid."""
        certificate = (
            self._builder(request.subject, request.public_key(), self._now - _BACKDATED, self._now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def revoke(self, pair: Pair) -> None:
        """Put `pair` on the revocation list."""
        self._revoked.append(x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number)
        self._write_crl()

    def _write_crl(self) -> None:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._name, last_update=self._now - _BACKDATED, next_update=self._now + LIFETIME
        )
        for serial in self._revoked:
            entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=self._now - _BACKDATED)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(self._key, hashes.SHA256())
        self.crl_file.write_bytes(crl.public_bytes(serialization.Encoding.PEM))

    def _issue(
        self,
        file: str,
        name: str,
        key: PrivateKey,
        usage: x509.ObjectIdentifier,
        alternative: x509.SubjectAlternativeName | None,
        until: datetime,
    ) -> Pair:
        first = min(self._now, until) - _BACKDATED
        builder = (
            self._builder(_subject(name), key.public_key(), first, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if alternative is not None:
            builder = builder.add_extension(alternative, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{file}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path = self.folder / f"{file}.key"
        _write_private(key_path, key)
        return Pair(path, key_path, certificate.fingerprint(hashes.SHA256()).hex())

    def _builder(
        self, subject: x509.Name, key: CertificatePublicKeyTypes, first: datetime, last: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(first)
            .not_valid_after(last)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


@dataclass(frozen=True, slots=True)
class Pki:
    """What both ends of one run need; `endpoints` signs for the stand-in, `devices` for gateways."""

    endpoint: str
    credentials_endpoint: str
    endpoints: Authority
    devices: Authority
    server_rsa: Pair
    server_ecdsa: Pair
    server_credentials: Pair
    """Of the credentials provider, which has a name of its own."""
    gateway: Pair

    @property
    def ca_file(self) -> Path:
        """What a gateway trusts, in place of the Amazon root CAs."""
        return self.endpoints.ca_file


def make_pki(folder: Path, *, endpoint: str, gateway_id: str, now: datetime | None = None) -> Pki:
    """Make everything in `folder`, which is made (0700) when it is missing; raises FileExistsError for used ones."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = now or datetime.now(UTC)
    endpoints = Authority(folder, "Test Root of the Endpoint", now)
    devices = Authority(folder, "Test Root of Devices", now)
    credentials_endpoint = credentials_name(endpoint)
    return Pki(
        endpoint=endpoint,
        credentials_endpoint=credentials_endpoint,
        endpoints=endpoints,
        devices=devices,
        server_rsa=endpoints.server(endpoint, new_rsa_key(), "server-rsa"),
        server_ecdsa=endpoints.server(endpoint, new_ec_key(), "server-ecdsa"),
        server_credentials=endpoints.server(credentials_endpoint, new_ec_key(), "server-credentials"),
        gateway=devices.client(gateway_id, new_ec_key(), "gateway"),
    )


def credentials_name(endpoint: str) -> str:
    """A name for the credentials provider that goes with one of AWS IoT's; any other endpoint has it below itself."""
    account, iot, rest = endpoint.partition(".iot.")
    return f"{account.removesuffix('-ats')}.credentials{iot}{rest}" if iot else f"credentials.{endpoint}"


def new_ec_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def new_rsa_key() -> rsa.RSAPrivateKey:
    """A fresh RSA key of 2048 bits."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _write_private(path: Path, key: PrivateKey) -> None:
    """Never readable by others, not even for a moment, and never over a file that is there."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=not authority,  # the suites with static RSA encrypt to the server's key
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
