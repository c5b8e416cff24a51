"""The stand-in's way over WebSocket: who is lent credentials, what has to be signed, and that all rules hold there."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from lorabridge.simulation.pki import Pair, Pki, credentials_name, new_ec_key
from lorabridge.simulation.standin import Happening, Policy, Refusal, Role, claim_policy, gateway_policy
from lorabridge.simulation.standin.services.certificates import fingerprint_of
from lorabridge.simulation.standin.services.lending import Lending, Lent, region_of
from lorabridge.upstream.sigv4 import TemporaryCredentials, websocket_target
from tests.mosquitto import free_port
from tests.simulation.standin_help import (
    CREDENTIALS,
    ENDPOINT,
    GATEWAY,
    ROLE,
    STATUS,
    UPLINK,
    Running,
    lending,
    paho,
    raw,
    running,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ASK = f"/role-aliases/{ROLE}/credentials"
POLICY = msgspec.structs.replace(gateway_policy(GATEWAY), assume_role=(ROLE,))
DER = b"a certificate"


def lender(policy: Policy | Refusal = POLICY) -> Lending:
    return Lending({ROLE: Role()}, ENDPOINT, lambda _der: policy)


def borrow(of: Lending) -> Lent:
    lent = of.lend(ASK, {"X-Amzn-Iot-Thingname": GATEWAY}, DER, NOW.timestamp())
    assert isinstance(lent, Lent)
    return lent


def target(lent: Lent, at: datetime = NOW, region: str = "eu-west-1", endpoint: str = ENDPOINT) -> str:
    """As our own client signs it; that AWS's does it so too is shown in test_standin_aws_sdk.py."""
    ends = datetime.fromisoformat(lent.expiration)
    keys = TemporaryCredentials(lent.access_key_id, lent.secret_access_key, lent.session_token, ends)
    return websocket_target(endpoint, region, keys, at)


class TestLending:
    @pytest.mark.parametrize(
        ("path", "thing", "policy", "refusal"),
        [
            ("/", GATEWAY, POLICY, Refusal.NO_REQUEST),
            (f"{ASK}?x", GATEWAY, POLICY, Refusal.NO_REQUEST),
            ("/role-aliases/another/credentials", GATEWAY, POLICY, Refusal.ROLE_ALIAS),
            (ASK, GATEWAY, gateway_policy(GATEWAY), Refusal.ASSUME_ROLE),
            (ASK, "gw-2", POLICY, Refusal.THING_NAME),
            (ASK, GATEWAY, Refusal.NOT_ACTIVE, Refusal.NOT_ACTIVE),
        ],
    )
    def test_nothing_is_lent_without_every_right_to_it(
        self, path: str, thing: str, policy: Policy | Refusal, refusal: Refusal
    ) -> None:
        assert lender(policy).lend(path, {"x-amzn-iot-thingname": thing}, DER, 0.0) is refusal

    def test_no_two_loans_are_the_same_and_an_escaped_alias_is_read(self) -> None:
        of = Lending({"a,b": Role()}, ENDPOINT, lambda _der: msgspec.structs.replace(POLICY, assume_role=("a*",)))
        lent = [of.lend("/role-aliases/a%2Cb/credentials", {}, DER, 0.0) for _ in range(2)]
        assert all(isinstance(one, Lent) for one in lent)
        assert lent[0] != lent[1]

    def test_a_role_may_have_rights_of_its_own(self) -> None:
        of = Lending({ROLE: Role(policy=claim_policy("x"))}, ENDPOINT, lambda _der: POLICY)
        lease = of.judge(target(borrow(of)), {"Host": ENDPOINT}, NOW.timestamp())
        assert not isinstance(lease, Refusal)
        assert lease.policy == claim_policy("x")


class TestSignature:
    def test_what_is_signed_rightly_has_the_policy_of_the_certificate_until_the_credentials_end(self) -> None:
        of = lender()
        lease = of.judge(target(borrow(of)), {"HOST": ENDPOINT}, NOW.timestamp())
        assert not isinstance(lease, Refusal)
        assert (lease.policy, lease.ends) == (POLICY, NOW.timestamp() + 3600)

    @pytest.mark.parametrize(
        ("spoil", "refusal"),
        [
            (lambda text: text.replace("/mqtt?", "/mqtt2?"), Refusal.SIGNATURE),
            (lambda text: text.partition("?")[0], Refusal.SIGNATURE),
            (lambda text: text.replace("HMAC-SHA256", "HMAC-SHA512"), Refusal.SIGNATURE),
            (lambda text: text.replace("iotdevicegateway", "iotdata"), Refusal.SIGNATURE),
            (lambda text: text.replace("eu-west-1", "us-east-1"), Refusal.SIGNATURE),
            (lambda text: text.replace("20261124%2F", "20261123%2F"), Refusal.SIGNATURE),
            (lambda text: text.replace("X-Amz-Date=2026", "X-Amz-Date=x"), Refusal.SIGNATURE),
            (lambda text: text.replace("T120000Z", "T120001Z"), Refusal.SIGNATURE),
            (lambda text: text.replace("T120000Z", "T120501Z"), Refusal.SIGNATURE_DATE),
            (lambda text: text.replace("SignedHeaders=host", "SignedHeaders=date"), Refusal.SIGNATURE),
            (lambda text: text[:-1], Refusal.CREDENTIALS),
            (lambda text: text.replace("ASIA", "ASIB"), Refusal.CREDENTIALS),
            (lambda text: text.replace("Signature=", "Signature=0"), Refusal.SIGNATURE),
            (lambda text: text + "&X-Amz-Date=20261124T120000Z", Refusal.SIGNATURE),
            (lambda text: text.replace("X-Amz-Signature", "X-Amz-Nothing"), Refusal.SIGNATURE),
        ],
    )
    def test_what_is_changed_by_one_thing_is_refused(self, spoil: Callable[[str], str], refusal: Refusal) -> None:
        of = lender()
        assert of.judge(spoil(target(borrow(of))), {"Host": ENDPOINT}, NOW.timestamp()) is refusal

    @pytest.mark.parametrize("host", ["other.example", f"{ENDPOINT}:443", ""])
    def test_it_is_for_this_host(self, host: str) -> None:
        of = lender()
        assert of.judge(target(borrow(of)), {"Host": host}, NOW.timestamp()) is Refusal.SIGNATURE

    @pytest.mark.parametrize(
        ("later", "refusal"), [(-301, Refusal.SIGNATURE_DATE), (301, Refusal.SIGNATURE_DATE), (300, None)]
    )
    def test_it_is_good_for_five_minutes_around_its_date(self, later: float, refusal: Refusal | None) -> None:
        of = lender()
        judged = of.judge(target(borrow(of)), {"Host": ENDPOINT}, NOW.timestamp() + later)
        assert (judged if isinstance(judged, Refusal) else None) is refusal

    def test_credentials_that_have_ended_sign_nothing(self) -> None:
        of = lender()
        lent = borrow(of)
        later = datetime.fromtimestamp(NOW.timestamp() + 3600, UTC)
        assert of.judge(target(lent, later), {"Host": ENDPOINT}, later.timestamp()) is Refusal.CREDENTIALS
        of.expire()
        assert of.judge(target(lent), {"Host": ENDPOINT}, NOW.timestamp()) is Refusal.CREDENTIALS


def test_names_and_regions_are_those_of_the_endpoint() -> None:
    assert credentials_name(ENDPOINT) == CREDENTIALS
    assert credentials_name("localhost") == "credentials.localhost"
    assert (region_of(ENDPOINT), region_of("localhost")) == ("eu-west-1", "us-east-1")


# On the wire.


@pytest.fixture(scope="module")
def standin(pki: Pki) -> Iterator[Running]:
    with running(pki, **lending(pki, POLICY)) as started:
        yield started


def exchange(pki: Pki, port: int, name: str, request: bytes, pair: Pair | None = None) -> bytes:
    """All that is answered to a request, over TLS with this name."""
    with raw(pki, port, endpoint=name, pair=pair) as client:
        client.send(request)
        return client.rest()


def ask(pki: Pki, standin: Running, path: str = ASK, pair: Pair | None = None) -> tuple[int, Any]:
    """Status and body of the credentials provider's answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: {CREDENTIALS}\r\n\r\n".encode()
    head, _, body = exchange(pki, standin.standin.credentials_port, CREDENTIALS, request, pair).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def signed(pki: Pki, standin: Running) -> str:
    status, answer = ask(pki, standin)
    assert status == 200
    return target(msgspec.convert(answer["credentials"], Lent), datetime.now(UTC))


def test_the_credentials_provider_says_why_it_lends_nothing(pki: Pki, standin: Running) -> None:
    assert ask(pki, standin, "/role-aliases/x/credentials") == (404, {"message": "Role alias does not exist"})
    assert ask(pki, standin, "/") == (400, {"message": "Bad Request"})
    stranger = pki.devices.client(GATEWAY, new_ec_key(), "without-policy")
    assert ask(pki, standin, pair=stranger) == (403, {"message": "Access Denied"})
    assert standin.refused(Refusal.UNKNOWN_CERTIFICATE).detail == ASK
    assert fingerprint_of(b"") not in lending(pki)["policies"]


def test_what_is_no_http_is_closed(pki: Pki, standin: Running) -> None:
    assert exchange(pki, standin.standin.credentials_port, CREDENTIALS, b"\x10\x02\r\n\r\n") == b""
    assert standin.refused(Refusal.NO_REQUEST).detail
    assert exchange(pki, standin.standin.websocket_port, ENDPOINT, b"\x10\x02\r\n\r\n") == b""
    assert standin.refused(Refusal.WEBSOCKET).detail


@pytest.mark.parametrize(("door", "name"), [("websocket_port", CREDENTIALS), ("credentials_port", ENDPOINT)])
def test_each_door_has_its_own_name(pki: Pki, standin: Running, door: str, name: str) -> None:
    with pytest.raises(ssl.SSLError), raw(pki, getattr(standin.standin, door), endpoint=name):
        pass
    standin.refused(Refusal.WRONG_SERVER_NAME)


def opening(target: str) -> str:
    """A handshake without its end."""
    return (
        f"GET {target} HTTP/1.1\r\nHost: {ENDPOINT}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    )


@pytest.mark.parametrize(
    ("frames", "refusal", "last"),
    [
        (b"\x81\x80\0\0\0\0", Refusal.WEBSOCKET, b"\x88\x02\x03\xeb"),  # text: 1003, unsupported data
        (b"\x82\x00", Refusal.WEBSOCKET, b"\x03\xeaincorrect masking"),  # without a mask: 1002, protocol error
        (b"\x82\x84\0\0\0\0\xf0\x00\xf0\x00", Refusal.UNEXPECTED_PACKET, b"\x88\x02\x03\xe8"),
    ],
)
def test_a_websocket_is_opened_without_a_certificate_and_closed_for_what_is_no_mqtt(
    pki: Pki, standin: Running, frames: bytes, refusal: Refusal, last: bytes
) -> None:
    before = standin.standin.counters[refusal.value]
    context = ssl.create_default_context(cafile=str(pki.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with raw(pki, standin.standin.websocket_port, context=context) as client:
        client.send(f"{opening(signed(pki, standin))}Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode())
        assert client.read(12) == b"HTTP/1.1 101"
        client.send(b"\x89\x82\0\0\0\0hi" + frames)
        said = client.rest()
        assert b"\x8a\x02hi" in said, "a ping has its pong"
        assert said.endswith(last)
    assert standin.standin.counters[refusal.value] > before


def test_what_opens_no_websocket_is_answered_in_http(pki: Pki, standin: Running) -> None:
    request = f"{opening(signed(pki, standin))}\r\n".encode()
    answer = exchange(pki, standin.standin.websocket_port, ENDPOINT, request)
    assert answer.startswith(b"HTTP/1.1 400"), "without a subprotocol"
    unsigned = f"GET /mqtt HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n".encode()
    answer = exchange(pki, standin.standin.websocket_port, ENDPOINT, unsigned)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"\r\nDate: " in answer


def test_the_policy_and_the_quotas_hold_within_a_websocket(pki: Pki) -> None:
    with running(pki, **lending(pki, POLICY), publishes_per_second=5) as standin:
        port = standin.standin.websocket_port
        with paho(pki, port, websocket=signed(pki, standin)) as client:
            client.ready()
            client.acknowledgement(client.publish(UPLINK))
            for _ in range(40):
                client.publish(STATUS, b"x" * 2000)
            standin.ignored(Refusal.RATE)
        with paho(pki, port, websocket=signed(pki, standin)) as client:
            client.ready().publish("elsewhere")
            client.closed()
            standin.refused(Refusal.PUBLISH)
        with paho(pki, port, websocket=signed(pki, standin), client_id="gw-2") as other:
            other.closed()
            standin.refused(Refusal.CLIENT_ID)


def test_credentials_that_end_end_their_connections_and_no_others(pki: Pki) -> None:
    with running(pki, **lending(pki, msgspec.structs.replace(POLICY, client_id="*"))) as standin:
        way = signed(pki, standin)
        with (
            paho(pki, standin.standin.websocket_port, websocket=way) as signed_in,
            paho(pki, standin.standin.port, client_id="other") as certified,
        ):
            signed_in.ready()
            certified.ready()
            standin.call(standin.standin.expire_credentials)
            signed_in.closed()
            certified.acknowledgement(certified.publish(UPLINK))
        again = f"GET {way} HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n".encode()
        assert exchange(pki, standin.standin.websocket_port, ENDPOINT, again).startswith(b"HTTP/1.1 403")
        assert standin.standin.counters["credentials"] == 2


def test_a_client_that_says_close_is_lost(pki: Pki, standin: Running) -> None:
    with raw(pki, standin.standin.websocket_port) as client:
        client.send(f"{opening(signed(pki, standin))}Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode())
        assert client.read(12) == b"HTTP/1.1 101"
        client.send(b"\x88\x82\0\0\0\0\x03\xe8")
        assert client.rest().endswith(b"\x88\x02\x03\xe8")
    assert standin.happened(Happening.LOST).detail == "WebSocket closed"


def test_a_disconnect_right_before_the_close_is_heard(pki: Pki, standin: Running) -> None:
    with raw(pki, standin.standin.websocket_port) as client:
        client.send(f"{opening(signed(pki, standin))}Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode())
        assert client.read(12) == b"HTTP/1.1 101"
        connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04gw-1"
        client.send(b"\x82\x92\0\0\0\0" + connect)
        standin.happened(Happening.CONNECTED)
        client.send(b"\x82\x82\0\0\0\0\xe0\x00" + b"\x88\x82\0\0\0\0\x03\xe8")
        client.rest()
    standin.happened(Happening.DISCONNECTED)


def test_who_asks_for_nothing_is_left_at_both_doors(pki: Pki) -> None:
    with running(pki, **lending(pki), setup_timeout=0.2) as standin:
        for port, name in ((standin.standin.websocket_port, ENDPOINT), (standin.standin.credentials_port, CREDENTIALS)):
            with raw(pki, port, endpoint=name) as client:
                assert client.rest() == b""
        assert standin.standin.counters["setup_timeout"] == 2


def test_a_port_that_is_taken_gives_back_the_others(pki: Pki) -> None:
    port = free_port()
    with running(pki, **lending(pki), port=port) as first:
        taken = first.standin.port
        with pytest.raises(OSError, match="in use"), running(pki, **lending(pki), credentials_port=taken):
            pytest.fail("it listens")
    with running(pki, **lending(pki), port=port):
        pass


def test_a_fault_strikes_the_credentials_provider_as_well(pki: Pki) -> None:
    with (
        running(pki, **lending(pki)) as standin,
        raw(pki, standin.standin.credentials_port, endpoint=CREDENTIALS) as it,
    ):
        standin.happened(Happening.HANDSHAKE_DONE)
        standin.call(lambda: standin.standin.stall(True))
        it.send(f"GET {ASK} HTTP/1.1\r\n\r\n".encode())
        standin.call(standin.standin.disconnect)
        assert it.rest() == b""
        standin.refused(Refusal.DISCONNECTED)
