"""Fleet provisioning by claim (developer guide, "Device provisioning MQTT API"), and just-in-time registration."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from lorabridge.simulation.pki import Authority, new_rsa_key
from lorabridge.simulation.standin.services.certificates import Certificates
from lorabridge.simulation.standin.services.reply import Audience, Rejected, Reply, build_reply

TOKEN_LIFETIME = 3600.0
"""Seconds; a certificate that was not used to provision by then is deleted."""
_CREATE = re.compile(r"\$aws/certificates/(create|create-from-csr)/json")
_PROVISION = re.compile(r"\$aws/provisioning-templates/([0-9A-Za-z_-]+)/provision/json")
_LONGEST_TOKEN = 256


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A provisioning template: the thing's name from the parameters, and what the device is told beside it."""

    thing_name: str = "{SerialNumber}"
    """Each `{parameter}` has to be in the request."""
    device_configuration: dict[str, str] = {}

    def name_of(self, parameters: Mapping[str, str]) -> str:
        """The thing's name. Raises Rejected for a parameter that is missing."""
        wanted = [name for _, name, _, _ in string.Formatter().parse(self.thing_name) if name]
        if missing := [name for name in wanted if not parameters.get(name)]:
            raise Rejected(400, f"missing parameters: {', '.join(missing)}", errorCode="InvalidParameters")
        return self.thing_name.format_map(parameters)


class _Asked(msgspec.Struct, frozen=True, rename="camel"):
    """All that a request may say."""

    certificate_signing_request: str = ""
    certificate_ownership_token: str = ""
    parameters: dict[str, str] = {}


class Provisioning:
    """Certificates for those who hold a claim, by the templates that are there. `random` gives a secret of n bytes."""

    def __init__(
        self,
        authority: Authority,
        certificates: Certificates,
        templates: Mapping[str, Template],
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._authority = authority
        self._certificates = certificates
        self._templates = templates
        self._random = random
        self._tokens: dict[str, tuple[str, float]] = {}

    def answer(self, topic: str, payload: bytes, now: float) -> list[Reply] | None:
        """The replies to a request, or None when the topic is none of provisioning's; `now` is Unix time."""
        create, provision = _CREATE.fullmatch(topic), _PROVISION.fullmatch(topic)
        if create is None and provision is None:
            return None
        self._forget_what_expired(now)
        try:
            asked = _parse(payload)
            fields = self._provision(provision[1], asked) if provision else self._create(topic, asked, now)
        except Rejected as rejected:
            error = {"statusCode": rejected.code, "errorMessage": rejected.message, **rejected.more}
            return [build_reply(f"{topic}/rejected", error, Audience.ASKER_IF_SUBSCRIBED)]
        return [build_reply(f"{topic}/accepted", fields, Audience.ASKER_IF_SUBSCRIBED)]

    def _create(self, topic: str, asked: _Asked, now: float) -> dict[str, Any]:
        """A certificate that is not active yet, for the request's key or a new one, and a token that proves it ours."""
        key_pem: str | None = None
        if "/create-from-csr/" in topic:
            request = _signing_request(asked.certificate_signing_request)
        else:
            key = new_rsa_key()
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AWS IoT Certificate")])
            request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
            key_pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            ).decode()
        pem = self._authority.sign(request)
        certificate_id = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
        self._certificates.add_pending(certificate_id)
        token = self._random(32).hex()
        self._tokens[token] = (certificate_id, now + TOKEN_LIFETIME)
        return {
            "certificateId": certificate_id,
            "certificatePem": pem.decode(),
            "privateKey": key_pem,
            "certificateOwnershipToken": token,
        }

    def _provision(self, name: str, asked: _Asked) -> dict[str, Any]:
        """Make the thing, and its certificate active."""
        template = self._templates.get(name)
        if template is None:
            raise Rejected(404, f"no template {name}", errorCode="ResourceNotFound")
        token = asked.certificate_ownership_token
        if len(token) > _LONGEST_TOKEN or token not in self._tokens:
            raise Rejected(
                400, "the ownership token is unknown or expired", errorCode="InvalidCertificateOwnershipToken"
            )
        thing = template.name_of(asked.parameters)
        certificate_id, _ = self._tokens.pop(token)
        self._certificates.activate(certificate_id, thing)
        return {"thingName": thing, "deviceConfiguration": template.device_configuration}

    def _forget_what_expired(self, now: float) -> None:
        for token, (certificate_id, until) in list(self._tokens.items()):
            if until <= now:
                del self._tokens[token]
                self._certificates.delete(certificate_id)


def _parse(payload: bytes) -> _Asked:
    try:
        return msgspec.json.decode(payload, type=_Asked) if payload else _Asked()
    except msgspec.DecodeError as error:
        raise Rejected(400, str(error), errorCode="InvalidPayload") from None


def _signing_request(pem: str) -> x509.CertificateSigningRequest:
    """The CSR, whose signature proves that the asker has the key. Raises Rejected."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        if request.is_signature_valid:
            return request
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise Rejected(400, "not a valid certificate signing request", errorCode="InvalidCertificateSigningRequest")
