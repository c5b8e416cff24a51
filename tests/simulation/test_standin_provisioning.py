"""Fleet provisioning by claim and just-in-time registration on the stand-in, driven by a plain MQTT client."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from lorabridge.simulation.pki import Pair, Pki, PrivateKey, new_ec_key
from lorabridge.simulation.standin import Happening, Policy, Refusal, Template, claim_policy
from lorabridge.simulation.standin.services.certificates import Certificates, fingerprint_of
from lorabridge.simulation.standin.services.provisioning import TOKEN_LIFETIME, Provisioning
from tests.simulation.standin_help import UPLINK, Running, Things, paho, running

FROM_CSR = "$aws/certificates/create-from-csr/json"
CREATE = "$aws/certificates/create/json"
PROVISION = "$aws/provisioning-templates/gateways/provision/json"
TEMPLATES = {"gateways": Template(thing_name="gw-{SerialNumber}", device_configuration={"region": "EU868"})}


@pytest.fixture(scope="module")
def claim(pki: Pki) -> Pair:
    return pki.devices.client("claim", new_ec_key(), "claim")


@pytest.fixture
def standin(pki: Pki, claim: Pair) -> Iterator[Running]:
    policies = {claim.fingerprint: claim_policy("gateways")}
    with running(pki, policies=policies, templates=TEMPLATES) as started:
        yield started


def signing_request(key: PrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "new")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def pair_of(folder: Path, certificate: str, key: str) -> Pair:
    (folder / "new.pem").write_text(certificate)
    (folder / "new.key").write_text(key)
    return Pair(folder / "new.pem", folder / "new.key", fingerprint_of(ssl.PEM_cert_to_DER_cert(certificate)))


def pem_of(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.mark.parametrize("create", [FROM_CSR, CREATE])
def test_a_claim_becomes_a_thing_with_a_certificate_of_its_own(
    pki: Pki, claim: Pair, standin: Running, tmp_path: Path, create: str
) -> None:
    key = new_ec_key()
    port = standin.standin.port
    with paho(pki, port, pair=claim, client_id="any-id") as client:
        things = Things(client.ready())
        things.subscribe(f"{create}/accepted", f"{create}/rejected", f"{PROVISION}/accepted", f"{PROVISION}/rejected")
        request = {"certificateSigningRequest": signing_request(key)} if create == FROM_CSR else {}
        topic, made = things.ask(create, request)
        assert topic == f"{create}/accepted"
        pair = pair_of(tmp_path, made["certificatePem"], made.get("privateKey") or pem_of(key))
        assert pair.fingerprint == made["certificateId"]
        with paho(pki, port, pair=pair, client_id="gw-7") as early:
            early.closed()
            assert standin.refused(Refusal.NOT_ACTIVE).detail == pair.fingerprint
        asked = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": "7"}}
        topic, provisioned = things.ask(PROVISION, asked)
        assert (topic, provisioned) == (
            f"{PROVISION}/accepted",
            {"thingName": "gw-7", "deviceConfiguration": {"region": "EU868"}},
        )
    with paho(pki, port, pair=pair, client_id="gw-7") as gateway:
        gateway.ready().acknowledgement(gateway.publish(UPLINK.replace("gw-1", "gw-7")))


def test_a_claim_may_do_nothing_else(pki: Pki, claim: Pair, standin: Running) -> None:
    with paho(pki, standin.standin.port, pair=claim, client_id="any-id") as client:
        client.ready().publish(UPLINK)
        client.closed()
        standin.refused(Refusal.PUBLISH)


@pytest.fixture
def desk(pki: Pki) -> Provisioning:
    certificates = Certificates({}, "ca", just_in_time=False)
    return Provisioning(pki.devices, certificates, TEMPLATES, random=lambda size: b"t" * size)


def asked(desk: Provisioning, topic: str, request: object, now: float = 0.0) -> dict[str, Any]:
    payload = request if isinstance(request, bytes) else msgspec.json.encode(request)
    replies = desk.answer(topic, payload, now)
    assert replies is not None
    (reply,) = replies
    fields: dict[str, Any] = msgspec.json.decode(reply.payload)
    assert reply.topic == f"{topic}/{'rejected' if 'errorCode' in fields else 'accepted'}"
    return fields


GOOD_TOKEN = (b"t" * 32).hex()


@pytest.mark.parametrize(
    ("topic", "request_", "status", "code"),
    [
        (FROM_CSR, b"{", 400, "InvalidPayload"),
        (FROM_CSR, {}, 400, "InvalidCertificateSigningRequest"),
        (FROM_CSR, {"certificateSigningRequest": "?"}, 400, "InvalidCertificateSigningRequest"),
        (PROVISION, {"certificateOwnershipToken": "x"}, 400, "InvalidCertificateOwnershipToken"),
        (PROVISION, {"certificateOwnershipToken": GOOD_TOKEN}, 400, "InvalidParameters"),
        (PROVISION.replace("gateways", "others"), {"certificateOwnershipToken": GOOD_TOKEN}, 404, "ResourceNotFound"),
    ],
)
def test_a_wrong_request_is_rejected_with_status_and_code(
    desk: Provisioning, topic: str, request_: object, status: int, code: str
) -> None:
    asked(desk, FROM_CSR, {"certificateSigningRequest": signing_request(new_ec_key())})
    error = asked(desk, topic, request_)
    assert (error["statusCode"], error["errorCode"]) == (status, code)
    assert error["errorMessage"]


def test_a_signing_request_for_a_key_that_the_asker_does_not_have_is_rejected(desk: Provisioning) -> None:
    good = x509.load_pem_x509_csr(signing_request(new_ec_key()).encode()).public_bytes(serialization.Encoding.DER)
    other = (
        new_ec_key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    at = good.index(other[:27])  # the same algorithm and size, so that only the point changes
    forged = ssl.DER_cert_to_PEM_cert(good[:at] + other + good[at + len(other) :]).replace(
        "CERTIFICATE", "CERTIFICATE REQUEST"
    )
    error = asked(desk, FROM_CSR, {"certificateSigningRequest": forged})
    assert error["errorCode"] == "InvalidCertificateSigningRequest"


def test_a_token_lasts_an_hour_and_is_used_once(desk: Provisioning) -> None:
    request = {"certificateSigningRequest": signing_request(new_ec_key())}
    provision = {"certificateOwnershipToken": GOOD_TOKEN, "parameters": {"SerialNumber": "7"}}
    asked(desk, FROM_CSR, request)
    late = asked(desk, PROVISION, provision, TOKEN_LIFETIME)
    assert late["errorCode"] == "InvalidCertificateOwnershipToken"
    asked(desk, FROM_CSR, request)
    assert asked(desk, PROVISION, provision)["thingName"] == "gw-7"
    assert asked(desk, PROVISION, provision)["errorCode"] == "InvalidCertificateOwnershipToken"


def test_other_topics_are_none_of_provisionings(desk: Provisioning) -> None:
    for topic in ("$aws/certificates/create/cbor", "$aws/things/t/shadow/get", f"{PROVISION}/accepted"):
        assert desk.answer(topic, b"", 0) is None


def test_the_first_connection_of_a_new_certificate_registers_it_and_a_later_one_works(pki: Pki) -> None:
    new = pki.devices.client("gw-9", new_ec_key(), "gw-9")
    watcher = pki.devices.client("watcher", new_ec_key(), "watcher")
    event_topic = f"$aws/events/certificates/registered/{pki.devices.certificate_id}"
    policies = {watcher.fingerprint: Policy(client_id="watcher", subscribe=("*",), receive=("*",))}
    with running(pki, policies=policies, just_in_time=True, activation_delay=None) as started:
        port = started.standin.port
        with paho(pki, port, pair=watcher, client_id="watcher") as cloud:
            things = Things(cloud.ready())
            things.subscribe(event_topic)
            for _ in range(2):
                with paho(pki, port, pair=new, client_id="gw-9") as gateway:
                    gateway.closed()
                    started.refused(Refusal.NOT_ACTIVE)
                topic, event = things.next()
                assert topic == event_topic
                assert (event["certificateId"], event["certificateStatus"]) == (new.fingerprint, "PENDING_ACTIVATION")
            started.call(lambda: started.standin.activate(new.fingerprint))
        with paho(pki, port, pair=new, client_id="gw-9") as gateway:
            gateway.ready().acknowledgement(gateway.publish(UPLINK.replace("gw-1", "gw-9")))


def test_a_registered_certificate_becomes_active_by_itself_where_that_is_asked_for(pki: Pki) -> None:
    new = pki.devices.client("gw-10", new_ec_key(), "gw-10")
    with running(pki, policies={}, just_in_time=True) as started:
        with paho(pki, started.standin.port, pair=new, client_id="gw-10") as gateway:
            gateway.closed()
        assert started.happened(Happening.ACTIVATED).detail == new.fingerprint
        with paho(pki, started.standin.port, pair=new, client_id="gw-10") as gateway:
            gateway.ready()


def test_what_a_claim_made_is_not_registered_just_in_time(pki: Pki) -> None:
    certificates = Certificates({}, "ca", just_in_time=True)
    der = ssl.PEM_cert_to_DER_cert(pki.gateway.certificate.read_text())
    certificates.add_pending(fingerprint_of(der))
    assert certificates.admit(der) is Refusal.NOT_ACTIVE
    assert certificates.register(der, 0) == []
