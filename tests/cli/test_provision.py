"""From the claim certificate of a fleet to one of this gateway's own: the key stays here, nothing is left half done."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lorabridge.cli import main, provision
from lorabridge.upstream.provisioning import CREATE_FROM_CSR, Provisioned
from tests.pki import Authority, Pair
from tests.upstream.harness import ENDPOINT
from tests.upstream.scripted_endpoint import ScriptedEndpoint, server_context, serving

TEMPLATE_TOPIC = "$aws/provisioning-templates/fleet/provision/json"


class Fleet(ScriptedEndpoint):
    """The two services of AWS IoT that make a certificate and a thing, as its developer guide describes them."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self.authority = authority
        self.asked: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]] = {
            CREATE_FROM_CSR: self._create,
            TEMPLATE_TOPIC: self._provision,
        }
        self.names: list[str] = []
        self.not_active_yet = 0

    def _create(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        pem = self.authority.sign(asked["certificateSigningRequest"].encode())
        return "accepted", {"certificateId": "c0ffee", "certificatePem": pem, "certificateOwnershipToken": "t0ken"}

    def _provision(self, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if asked["certificateOwnershipToken"] != "t0ken":
            return "rejected", {"statusCode": 400, "errorCode": "InvalidCertificateOwnershipToken"}
        return "accepted", {"thingName": asked["parameters"]["SerialNumber"], "deviceConfiguration": {}}

    def _connect(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        ((((_, name),),),) = (writer.get_extra_info("peercert")["subject"],)
        self.names.append(name)
        if name != "claim" and self.not_active_yet:
            self.not_active_yet -= 1
            return False
        return super()._connect(writer, body)

    def _publish(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        size = int.from_bytes(body[:2], "big")
        topic, goes_on = body[2 : 2 + size].decode(), super()._publish(writer, body)
        if topic in self.answers:
            self.asked[topic] = json.loads(body[4 + size :])
            word, answer = self.answers[topic](self.asked[topic])
            if f"{topic}/{word}" in self.subscribed:
                self.send(f"{topic}/{word}".encode(), json.dumps(answer).encode(), 7)
        return goes_on


class Gateway:
    """A gateway as it leaves the factory: a configuration, a claim, and no certificate of its own."""

    def __init__(self, folder: Path, endpoint: Fleet, claim: Pair) -> None:
        self.certificate, self.key = folder / "etc" / "own.pem", folder / "etc" / "own.key"
        self.certificate.parent.mkdir()
        self.endpoint = endpoint
        self.config = folder / "lorabridge.toml"
        self.config.write_text(f"""
[gateway]
id = "gw-1"
[aws_iot]
endpoint = "{ENDPOINT}"
connect_address = "127.0.0.1:{endpoint.port}"
thing_name = "gw-1"
ca_file = "{endpoint.authority.file}"
certificate_file = "{self.certificate}"
private_key_file = "{self.key}"
connect_timeout = "5s"
[[radio]]
type = "semtech_udp"
bind = "127.0.0.1"
""")
        self.arguments = ["provision", "--config", str(self.config), "--template", "fleet"]
        self.arguments += ["--claim-certificate", str(claim.certificate), "--claim-key", str(claim.key)]

    def provision(self, *more: str) -> int:
        return main.main([*self.arguments, *more])


@contextmanager
def factory(folder: Path) -> Iterator[Gateway]:
    """An endpoint at work on a thread of its own: the command has a loop of its own."""
    authority = Authority(folder)
    endpoint, ready, loop = Fleet(authority), threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with serving(endpoint, server_context(authority, authority.server(ENDPOINT))):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert ready.wait(20)
        yield Gateway(folder, endpoint, authority.client("claim", file="claim"))
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()


def test_a_gateway_gets_a_certificate_for_a_key_that_never_left_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with factory(tmp_path) as gateway:
        assert gateway.provision("--parameter", "Site=roof") == 0
        key = serialization.load_pem_private_key(gateway.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate(gateway.certificate.read_bytes())
        assert certificate.public_key() == key.public_key()
        assert stat.S_IMODE(gateway.key.stat().st_mode) == 0o600
        asked = gateway.endpoint.asked
        assert asked[CREATE_FROM_CSR].keys() == {"certificateSigningRequest"}
        assert asked[TEMPLATE_TOPIC]["parameters"] == {"SerialNumber": "gw-1", "Site": "roof"}
        assert gateway.endpoint.names == ["claim", "gw-1"]
        assert [json.loads(text)["detail"] for text in gateway.endpoint.published[-1]] == [
            "provisioned, and not started yet"
        ]
        said = capsys.readouterr().out
        assert "certificate c0ffee for gw-1" in said
        assert "proved" in said
        assert sorted(path.name for path in gateway.key.parent.iterdir()) == ["own.key", "own.pem"]


def test_what_is_there_is_overwritten_only_when_told_to_and_kept(tmp_path: Path) -> None:
    with factory(tmp_path) as gateway:
        gateway.certificate.write_text("mine")
        assert gateway.provision() == 78
        assert gateway.endpoint.names == []
        assert gateway.provision("--force") == 0
        assert Path(f"{gateway.certificate}.old").read_text() == "mine"


def test_a_certificate_that_is_not_known_everywhere_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(provision, "_PAUSE", 0.01)
    with factory(tmp_path) as gateway:
        gateway.endpoint.not_active_yet = 2
        assert gateway.provision() == 0
        gateway.endpoint.not_active_yet = 99
        assert gateway.provision("--force") == 1
        assert "does not work yet: closed_before_connack" in capsys.readouterr().out
        assert gateway.provision("--force", "--no-proof") == 0


def refused(_asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "rejected", {"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "the hook said no"}


def for_another_key(authority: Authority) -> Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]:
    pem = authority.client("x", file="x").certificate.read_text()
    answer = {"certificateId": "1", "certificatePem": pem, "certificateOwnershipToken": "t"}
    return lambda _asked: ("accepted", answer)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda _: {TEMPLATE_TOPIC: refused}, 1, "AccessDenied: the hook said no"),
        (lambda _: {CREATE_FROM_CSR: refused}, 1, "look at the template"),
        (lambda fleet: {CREATE_FROM_CSR: for_another_key(fleet.authority)}, 1, "for another key than ours"),
        (lambda _: {CREATE_FROM_CSR: lambda _: ("accepted", {"certificatePem": "x"})}, 1, "no certificate in PEM"),
        (lambda _: {CREATE_FROM_CSR: lambda _: ("accepted", {})}, 1, "has no certificatePem"),
    ],
)
def test_a_refusal_or_a_strange_answer_is_told_and_leaves_no_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Fleet], dict[str, Any]],
    status: int,
    says: str,
) -> None:
    with factory(tmp_path) as gateway:
        gateway.endpoint.answers |= change(gateway.endpoint)
        assert gateway.provision() == status
        captured = capsys.readouterr()
        assert says in captured.out + captured.err
        assert list(gateway.key.parent.iterdir()) == []


def test_another_name_than_the_configured_one_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with factory(tmp_path) as gateway:
        assert gateway.provision("--parameter", "SerialNumber=gw-2") == 1
        assert "write that as aws_iot.thing_name" in capsys.readouterr().out
        assert gateway.key.exists()


def test_a_closed_connection_and_a_refused_subscription_have_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with factory(tmp_path) as gateway:
        gateway.endpoint.suback = b"\x80"
        assert gateway.provision() == 1
        assert "subscribe_refused" in capsys.readouterr().err
        gateway.endpoint.suback = b""
        assert gateway.provision() == 1
        assert "subscribe_refused" in capsys.readouterr().err
        gateway.endpoint.connack = b"\x20\x02\x00\x05"
        assert gateway.provision() == 1
        assert "connect_not_authorized" in capsys.readouterr().err


def test_files_that_cannot_be_written_are_told_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with factory(tmp_path) as gateway:
        gateway.key.parent.rmdir()
        assert gateway.provision() == 78
        assert "no file can be written there" in capsys.readouterr().err
        assert gateway.endpoint.names == []
        assert gateway.provision("--parameter", "nonsense") == 78


def test_no_key_is_shown_when_the_result_is() -> None:
    made = Provisioned("gw-1", "c0ffee", "CERT", "-----BEGIN PRIVATE KEY-----", {})
    assert "PRIVATE" not in repr(made)
