"""A throw-away PKI as tests need it: a root, a server, a client, and each of their ways to be wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


def pem_of_key(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def write_private(path: Path, pem: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return path


@dataclass(frozen=True)
class Pair:
    """A certificate file and its key file."""

    certificate: Path
    key: Path


class Authority:
    """A root CA that writes what it issues into `folder`."""

    def __init__(self, folder: Path, name: str = "Test Root") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = x509.BasicConstraints(ca=True, path_length=0)
        certificate = (
            self._builder(self._name, self._key, datetime.now(UTC) - DAY, datetime.now(UTC) + 3650 * DAY)
            .add_extension(ca, critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-').lower()}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, file: str = "server", valid: tuple[timedelta, timedelta] = (-DAY, DAY)) -> Pair:
        """A server certificate for `names`, valid from and until so much after now."""
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        return self._issue(file, names[0], ExtendedKeyUsageOID.SERVER_AUTH, valid, [alternative])

    def client(self, name: str, file: str = "client", valid: tuple[timedelta, timedelta] = (-DAY, 365 * DAY)) -> Pair:
        """A client certificate with `name` as its common name."""
        return self._issue(file, name, ExtendedKeyUsageOID.CLIENT_AUTH, valid, [])

    def sign(self, request: bytes) -> str:
        """A client certificate for a signing request, in PEM."""
        asked = x509.load_pem_x509_csr(request)
        now = datetime.now(UTC)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = (
            x509.CertificateBuilder()
            .subject_name(asked.subject)
            .issuer_name(self._name)
            .public_key(asked.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 365 * DAY)
            .add_extension(usage, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _issue(
        self,
        file: str,
        name: str,
        usage: x509.ObjectIdentifier,
        valid: tuple[timedelta, timedelta],
        more: list[x509.ExtensionType],
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = self._builder(subject, key, now + valid[0], now + valid[1])
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{file}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return Pair(path, write_private(self.folder / f"{file}.key", pem_of_key(key)))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, first: datetime, last: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(os.urandom(16), "big") >> 1)
            .not_valid_before(first)
            .not_valid_after(last)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
