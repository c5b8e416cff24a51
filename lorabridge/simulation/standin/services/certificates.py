"""The certificates that the account knows, and what their holders may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from lorabridge.simulation.standin.events import Refusal
from lorabridge.simulation.standin.policy import Policy, thing_policy
from lorabridge.simulation.standin.services.reply import Reply, build_reply

ACCOUNT = "123456789012"


class _Known(msgspec.Struct):
    """A certificate; it is active when it has a policy."""

    policy: Policy | None = None
    thing: str = ""


class Certificates:
    """By fingerprint (SHA-256 of the DER, in hex), which is what AWS IoT calls the certificate's id."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        authority_id: str,
        *,
        just_in_time: bool,
        policy_of: Callable[[str], Policy] = thing_policy,
    ) -> None:
        """`authority_id` is the registered authority; `policy_of` makes the policy of a thing that is made here."""
        self._known = {fingerprint: _Known(policy) for fingerprint, policy in policies.items()}
        self._authority_id = authority_id
        self._just_in_time = just_in_time
        self._policy_of = policy_of

    def admit(self, der: bytes) -> Policy | Refusal:
        """The policy of the certificate of a connection, or why it is refused."""
        known = self._known.get(fingerprint_of(der))
        if known is None:
            return Refusal.NOT_ACTIVE if self._just_in_time else Refusal.UNKNOWN_CERTIFICATE
        return known.policy or Refusal.NOT_ACTIVE

    def register(self, der: bytes, now: float) -> list[Reply]:
        """Just in time: the first connection makes a certificate known, fails, and is told to the cloud (JITR).

        So is every other connection while it is not active. Nothing is told otherwise, nor of what a claim made.
        """
        if not self._just_in_time or not isinstance(self.admit(der), Refusal):
            return []
        certificate_id = fingerprint_of(der)
        names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        thing = str(names[0].value) if names else certificate_id
        if not self._known.setdefault(certificate_id, _Known(thing=thing)).thing:
            return []
        event = {
            "certificateId": certificate_id,
            "caCertificateId": self._authority_id,
            "timestamp": int(now),
            "certificateStatus": "PENDING_ACTIVATION",
            "awsAccountId": ACCOUNT,
            "certificateRegistrationTimestamp": str(int(now)),
        }
        return [build_reply(f"$aws/events/certificates/registered/{self._authority_id}", event)]

    def add_pending(self, certificate_id: str) -> None:
        """A certificate made for a claim."""
        self._known[certificate_id] = _Known()

    def activate(self, certificate_id: str, thing: str = "") -> None:
        """Give it the policy of a thing, by default the one that its own name says. Raises KeyError."""
        known = self._known[certificate_id]
        known.policy = self._policy_of(thing or known.thing)

    def delete(self, certificate_id: str) -> None:
        """Forget it."""
        self._known.pop(certificate_id, None)


def fingerprint_of(der: bytes) -> str:
    """SHA-256 of a certificate, in hex; of none when there is none."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize().hex()
