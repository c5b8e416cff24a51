"""`openssl s_client` against the stand-in: each refusal by its alert, each beside the control that passes.

A refusal counts only when the same command without the fault gets through in the same test, and when the
stand-in, weakened in that one rule, lets the fault through.
"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from lorabridge.simulation.pki import Authority, Pair, Pki, new_ec_key, new_rsa_key
from lorabridge.simulation.standin import Happening, Refusal, TlsRules
from lorabridge.simulation.standin.hello import SESSION_TICKET, SUITES
from lorabridge.upstream.tls import AWS_SUITES, RECOMMENDED_SUITES, TlsSettings, build_context
from tests.components import component
from tests.simulation.standin_help import ENDPOINT, GATEWAY, TIMEOUT, Running, new_pki, running

UNLISTED = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
ANY_LEVEL = "DEFAULT:@SECLEVEL=0"  # OpenSSL speaks TLS 1.0 and 1.1 at level 0 only


@dataclass(frozen=True)
class Clients:
    """Certificates that are wrong in one way each."""

    pki: Pki
    foreign_authority: Authority
    foreign: Pair
    expired: Pair
    revoked: Pair
    unknown: Pair
    with_rsa: Pair


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    folder = tmp_path_factory.mktemp("standin")
    pki = new_pki(folder)
    foreign = Authority(folder, "Foreign Root", datetime.now(UTC))
    revoked = pki.devices.client(GATEWAY, new_ec_key(), "revoked")
    pki.devices.revoke(revoked)
    return Clients(
        pki=pki,
        foreign_authority=foreign,
        foreign=foreign.client(GATEWAY, new_ec_key(), "foreign"),
        expired=pki.devices.client(GATEWAY, new_ec_key(), "expired", datetime.now(UTC) - timedelta(minutes=5)),
        revoked=revoked,
        unknown=pki.devices.client(GATEWAY, new_ec_key(), "unknown"),
        with_rsa=pki.devices.client(GATEWAY, new_rsa_key(), "with-rsa"),
    )


def s_client(pki: Pki, port: int, pair: Pair | None, *arguments: str, name: str | None = ENDPOINT) -> str:
    """All that `openssl s_client` says of one handshake."""
    command = [component("openssl", hint="apt-get install openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    command += (
        ["-CAfile", str(pki.ca_file), "-servername", name] if name else ["-CAfile", str(pki.ca_file), "-noservername"]
    )
    if pair is not None:
        command += ["-cert", str(pair.certificate), "-key", str(pair.key)]
    done = subprocess.run(
        [*command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
    )
    return (done.stdout + done.stderr).decode(errors="replace")


def passed(output: str) -> bool:
    return "Verify return code: 0 (ok)" in output and "Cipher is (NONE)" not in output and "alert number" not in output


def alert_of(output: str) -> int | None:
    found = re.search(r"SSL alert number (\d+)", output)
    return int(found[1]) if found else None


REFUSALS = {
    "no SNI": (112, Refusal.NO_SERVER_NAME),
    "wrong SNI": (112, Refusal.WRONG_SERVER_NAME),
    "SNI of a subdomain": (112, Refusal.WRONG_SERVER_NAME),
    "TLS 1.0": (70, Refusal.TLS),
    "TLS 1.1": (70, Refusal.TLS),
    "TLS 1.3 only": (70, Refusal.TLS),
    "no certificate": (40, Refusal.TLS),
    "foreign certificate": (48, Refusal.TLS),
    "expired certificate": (45, Refusal.TLS),
    "revoked certificate": (44, Refusal.TLS),
    "unlisted suites": (40, Refusal.TLS),
}
"""Alert and refusal: unrecognized_name, protocol_version, handshake_failure, unknown_ca and so on (RFC 5246 §7.2)."""


def attempt(case: str, clients: Clients, port: int) -> str:
    """One handshake with the fault that `case` names, everything else right."""
    own = clients.pki.gateway
    faults: dict[str, tuple[Pair | None, str | None, tuple[str, ...]]] = {
        "none": (own, ENDPOINT, ()),
        "no SNI": (own, None, ()),
        "wrong SNI": (own, "other-ats.iot.eu-west-1.amazonaws.com", ()),
        "SNI of a subdomain": (own, f"a.{ENDPOINT}", ()),
        "TLS 1.0": (own, ENDPOINT, ("-tls1", "-cipher", ANY_LEVEL)),
        "TLS 1.1": (own, ENDPOINT, ("-tls1_1", "-cipher", ANY_LEVEL)),
        "TLS 1.3 only": (own, ENDPOINT, ("-tls1_3",)),
        "no certificate": (None, ENDPOINT, ()),
        "foreign certificate": (clients.foreign, ENDPOINT, ()),
        "expired certificate": (clients.expired, ENDPOINT, ()),
        "revoked certificate": (clients.revoked, ENDPOINT, ()),
        "unlisted suites": (own, ENDPOINT, ("-tls1_2", "-cipher", UNLISTED)),
    }
    pair, name, arguments = faults[case]
    return s_client(clients.pki, port, pair, *arguments, name=name)


def weakened(case: str, clients: Clients) -> TlsRules | None:
    """The rules without the one that refuses `case`; None where no setting can take it away."""
    old: dict[str, Any] = {"lowest": ssl.TLSVersion.TLSv1, "security_level": 0}
    foreign = (str(clients.foreign_authority.ca_file), str(clients.foreign_authority.crl_file))
    changes: dict[str, dict[str, Any]] = {
        "no SNI": {"server_name": False},
        "wrong SNI": {"server_name": False},
        "SNI of a subdomain": {"server_name": False},
        "TLS 1.0": old,
        "TLS 1.1": old,
        "TLS 1.3 only": {"highest": ssl.TLSVersion.TLSv1_3},
        "no certificate": {"certificate": False},
        "foreign certificate": {"trusted": foreign},
        "revoked certificate": {"revocation": False},
        "unlisted suites": {"suites": (*SUITES.values(), *UNLISTED.split(":"))},
    }
    return msgspec.structs.replace(TlsRules(), **changes[case]) if case in changes else None


@pytest.fixture(scope="module")
def standin(clients: Clients) -> Iterator[Running]:
    with running(clients.pki) as started:
        yield started


@pytest.mark.parametrize("case", REFUSALS)
def test_s_client_with_one_fault_gets_the_alert_for_it_and_without_it_gets_through(
    case: str, clients: Clients, standin: Running
) -> None:
    alert, refusal = REFUSALS[case]
    assert passed(attempt("none", clients, standin.standin.port))
    refused = attempt(case, clients, standin.standin.port)
    assert not passed(refused)
    assert alert_of(refused) == alert, refused
    event = standin.refused(refusal)
    assert event.alert == alert
    assert passed(attempt("none", clients, standin.standin.port))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")  # which is why the rule exists
@pytest.mark.parametrize("case", [case for case in REFUSALS if case != "expired certificate"])
def test_without_its_rule_the_same_fault_is_let_through(case: str, clients: Clients) -> None:
    with running(clients.pki, tls=weakened(case, clients)) as weak:
        assert alert_of(attempt(case, clients, weak.standin.port)) is None
        weak.happened(Happening.HANDSHAKE_DONE)


@pytest.mark.parametrize("suite", SUITES.values())
def test_each_listed_suite_is_negotiated(suite: str, clients: Clients, standin: Running) -> None:
    output = s_client(clients.pki, standin.standin.port, clients.pki.gateway, "-tls1_2", "-cipher", suite)
    assert passed(output)
    assert re.search(rf"Cipher is {suite}$", output, re.MULTILINE), output


def test_a_certificate_with_an_rsa_key_is_as_good(clients: Clients, standin: Running) -> None:
    assert passed(s_client(clients.pki, standin.standin.port, clients.with_rsa))


def resumptions(clients: Clients, rules: TlsRules) -> list[str]:
    """`-reconnect` shakes hands six times; how each was made."""
    with running(clients.pki, tls=rules) as started:
        output = s_client(clients.pki, started.standin.port, clients.pki.gateway, "-tls1_2", "-reconnect")
    return re.findall(r"^(New|Reused), ", output, re.MULTILINE)


def test_no_session_is_ever_resumed(clients: Clients) -> None:
    assert resumptions(clients, TlsRules()) == ["New"] * 6


def test_a_context_for_all_connections_would_resume_by_session_id_though_there_are_no_tickets(clients: Clients) -> None:
    assert "Reused" in resumptions(clients, msgspec.structs.replace(TlsRules(), fresh_context=False))


@pytest.mark.parametrize("tickets", [False, True])
def test_a_session_ticket_is_never_issued_but_by_a_weakened_stand_in(clients: Clients, tickets: bool) -> None:
    with running(clients.pki, tls=msgspec.structs.replace(TlsRules(), tickets=tickets)) as started:
        output = s_client(clients.pki, started.standin.port, clients.pki.gateway, "-tls1_2")
    assert passed(output)
    assert ("TLS session ticket:" in output) is tickets


@pytest.mark.parametrize(("offer", "alert"), [(None, 120), ("h2", 120), ("x-amzn-mqtt-ca", None)])
def test_the_port_that_stands_for_443_needs_its_alpn(
    clients: Clients, standin: Running, offer: str | None, alert: int | None
) -> None:
    arguments = ("-alpn", offer) if offer else ()
    output = s_client(clients.pki, standin.standin.alpn_port, clients.pki.gateway, *arguments)
    assert passed(output) is (alert is None)
    assert alert_of(output) == alert
    assert ("ALPN protocol: x-amzn-mqtt-ca" in output) is (alert is None)
    if alert:
        assert standin.refused(Refusal.NO_ALPN).alert == alert


def test_a_certificate_without_a_policy_is_let_in_no_further_than_tls(clients: Clients, standin: Running) -> None:
    s_client(clients.pki, standin.standin.port, clients.unknown)
    assert standin.refused(Refusal.UNKNOWN_CERTIFICATE).detail == clients.unknown.fingerprint


def test_what_the_client_offered_is_on_record(clients: Clients, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    names = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"
    with running(clients.pki, events_file=file) as started:
        s_client(clients.pki, started.standin.port, clients.pki.gateway, "-tls1_2", "-cipher", names, "-alpn", "h2")
        (hello,) = started.standin.hellos
    assert hello.server_name == ENDPOINT.encode()
    assert hello.versions == (0x0303,)
    assert hello.suite_names == ("ECDHE-ECDSA-AES128-GCM-SHA256", "0xcca9")
    assert hello.alpn == (b"h2",)
    assert SESSION_TICKET in hello.extensions
    lines = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert [line["kind"] for line in lines][:2] == ["client_hello", "handshake_done"]
    assert lines[1]["detail"] == "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\0", b"\x16\3\1\0\4\2\0\0\0", bytes(64)])
def test_what_is_no_tls_is_told_so(clients: Clients, standin: Running, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", standin.standin.port), timeout=TIMEOUT) as sock:
        sock.sendall(noise)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x32"
        assert sock.recv(100) == b""
    assert standin.refused(Refusal.MALFORMED_HELLO).alert == 50


def test_a_client_that_says_nothing_is_shown_out(clients: Clients) -> None:
    with running(clients.pki, setup_timeout=0.2) as started:
        with socket.create_connection(("127.0.0.1", started.standin.port), timeout=TIMEOUT) as sock:
            assert sock.recv(1) == b""
        started.refused(Refusal.SETUP_TIMEOUT)


@pytest.mark.parametrize("port", [8883, 443])
@pytest.mark.parametrize(("profile", "suites"), [("recommended", RECOMMENDED_SUITES), ("aws-compatible", AWS_SUITES)])
def test_our_own_client_offers_the_intended_suites_the_endpoint_and_no_ticket(
    clients: Clients,
    profile: Literal["recommended", "aws-compatible"],
    suites: tuple[str, ...],
    port: Literal[8883, 443],
) -> None:
    with running(clients.pki) as started:
        settings = TlsSettings(
            endpoint=ENDPOINT,
            port=port,
            connect_address="127.0.0.1:1",
            ca_file=str(clients.pki.ca_file),
            certificate_file=str(clients.pki.gateway.certificate),
            private_key_file=str(clients.pki.gateway.key),
            cipher_profile=profile,
        )
        listening = started.standin.port if port == 8883 else started.standin.alpn_port
        sock = socket.create_connection(("127.0.0.1", listening), timeout=TIMEOUT)
        with build_context(settings).wrap_socket(sock):
            started.happened(Happening.HANDSHAKE_DONE)
        (hello,) = started.standin.hellos
    assert hello.suite_names == suites
    assert set(hello.suite_names) <= set(SUITES.values())
    assert hello.server_name == ENDPOINT.encode()
    assert hello.versions == (0x0303,)
    assert SESSION_TICKET not in hello.extensions
    assert hello.alpn == ((b"x-amzn-mqtt-ca",) if port == 443 else ())
