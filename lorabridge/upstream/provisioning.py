"""Fleet provisioning by claim: from a certificate that all gateways share to one that is this gateway's alone.

The private key is made here and never leaves: what is sent is a certificate signing request (AWS IoT
developer guide, "Device provisioning MQTT API": CreateCertificateFromCsr, RegisterThing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from lorabridge.errors import TransientError
from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.connection import ConnectionSettings
from lorabridge.upstream.dialogue import Dialogue

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CREATE_FROM_CSR = "$aws/certificates/create-from-csr/json"


class Claim(msgspec.Struct, frozen=True):
    """What every gateway is delivered with, and what it asks for with it."""

    certificate_file: str
    private_key_file: str
    template: str
    """Name of the provisioning template."""
    parameters: Mapping[str, str]
    """What the template asks for, such as `SerialNumber`."""


class Provisioned(msgspec.Struct, frozen=True):
    """What came of it. The key must reach the disk before anything else is done with it."""

    thing_name: str
    certificate_id: str
    certificate_pem: str
    private_key_pem: str
    device_configuration: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Provisioned({self.thing_name}, {self.certificate_id})"


async def provision(settings: AwsIotSettings, claim: Claim, clock: Callable[[], float]) -> Provisioned:
    """Ask for a certificate and a thing. Raises ConfigError, TransientError (LinkError), RejectedError."""
    asking = msgspec.structs.replace(
        settings, certificate_file=claim.certificate_file, private_key_file=claim.private_key_file
    )
    key, key_pem, csr = new_key(settings.thing_name)
    async with Dialogue.open(connection_settings(asking), clock=clock) as dialogue:
        made = await dialogue.ask(CREATE_FROM_CSR, {"certificateSigningRequest": csr})
        pem = _text(made, "certificatePem")
        _check_ours(pem, key)
        thing = await dialogue.ask(
            f"$aws/provisioning-templates/{claim.template}/provision/json",
            {
                "certificateOwnershipToken": _text(made, "certificateOwnershipToken"),
                "parameters": dict(claim.parameters),
            },
        )
    return Provisioned(
        thing_name=_text(thing, "thingName"),
        certificate_id=_text(made, "certificateId"),
        certificate_pem=pem,
        private_key_pem=key_pem,
        device_configuration=thing.get("deviceConfiguration") or {},
    )


def connection_settings(settings: AwsIotSettings) -> ConnectionSettings:
    """One connection with the files of `settings`, without a last will: no policy has to allow one for this.

    It is MQTT right on TLS whatever `transport` says: there is no role for a gateway that has no certificate yet.
    """
    settings = msgspec.structs.replace(settings, transport="tls")
    return ConnectionSettings(
        tls=settings,
        context=partial(tls.build_context, settings),
        client_id=settings.thing_name,
        mqtt_5=settings.mqtt_version == "5",
        keep_alive=round(settings.keep_alive),
        in_flight=settings.in_flight,
        connect_timeout=settings.connect_timeout,
        puback_timeout=settings.puback_timeout,
        will=None,
    )


def new_key(name: str) -> tuple[EllipticCurvePrivateKey, str, str]:
    """A key on P-256, its PEM (PKCS#8), and a signing request for it."""
    from cryptography import x509  # noqa: PLC0415  # 9 MB that a running bridge does without
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key, pem.decode(), request.public_bytes(serialization.Encoding.PEM).decode()


def _check_ours(pem: str, key: EllipticCurvePrivateKey) -> None:
    """Raises TransientError when the certificate is not for our key."""
    from cryptography import x509  # noqa: PLC0415  # as above

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise TransientError("the endpoint's answer holds no certificate in PEM form") from None
    if certificate.public_key() != key.public_key():
        raise TransientError("the endpoint made a certificate for another key than ours")


def _text(answer: dict[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str) or not found:
        raise TransientError(f"the endpoint's answer has no {name}")
    return found
