"""What the doctor reads off the wire, from peers that may say anything."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.doctor import network, witnesses
from lorabridge.upstream.doctor.transcript import Transcript, offered_suites, read_transcript
from lorabridge.upstream.doctor.witnesses import describe_certificate, parse_date
from tests.pki import Authority

NAME = "test-ats.iot.eu-west-1.amazonaws.com"


def shake(authority: Authority, version: ssl.TLSVersion) -> tuple[bytes, bytes, bytes]:
    """A handshake in memory: what the client said first, all that the server said, and the server's certificate."""
    pair = authority.server(NAME, file=version.name)
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    client.load_verify_locations(authority.file)
    client.minimum_version = client.maximum_version = version
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello, said = b"", b""
    outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(incoming, outgoing, server_hostname=NAME)
    right = server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (left, right):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        sent, answer = outgoing.read(), down.read()
        hello = hello or sent
        said += answer
        up.write(sent)
        incoming.write(answer)
    return hello, said, ssl.PEM_cert_to_DER_cert(pair.certificate.read_text(encoding="ascii"))


def test_a_handshake_of_1_2_is_read_with_its_certificate(authority: Authority) -> None:
    hello, said, certificate = shake(authority, ssl.TLSVersion.TLSv1_2)
    assert read_transcript(said) == Transcript(version="TLS 1.2", certificates=(certificate,))
    assert 0xC02B in offered_suites(hello)
    assert 0x00FF not in offered_suites(hello)


def test_of_a_handshake_of_1_3_only_the_version_is_in_clear(authority: Authority) -> None:
    _, said, _ = shake(authority, ssl.TLSVersion.TLSv1_3)
    assert read_transcript(said) == Transcript(version="TLS 1.3")


@given(data=st.data())
def test_a_handshake_that_ends_anywhere_is_read_as_far_as_it_goes(data: st.DataObject, authority: Authority) -> None:
    hello, said, certificate = shake_once(authority)
    cut = data.draw(st.integers(0, len(said)))
    found = read_transcript(said[:cut])
    assert found.version in {"", "TLS 1.2"}
    assert found.certificates in {(), (certificate,)}
    assert set(offered_suites(hello[: data.draw(st.integers(0, len(hello)))])) <= set(offered_suites(hello))


_SHAKEN: list[tuple[bytes, bytes, bytes]] = []


def shake_once(authority: Authority) -> tuple[bytes, bytes, bytes]:
    if not _SHAKEN:
        _SHAKEN.append(shake(authority, ssl.TLSVersion.TLSv1_2))
    return _SHAKEN[0]


@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda rest: b"\x16\x03\x03\0\x60" + rest)))
def test_whatever_a_peer_says_is_read_without_an_error(data: bytes) -> None:
    found = read_transcript(data)
    assert len(found.certificates) <= 10
    offered_suites(data)
    describe_certificate(data)
    parse_date(data)


def test_an_alert_in_clear_is_read_and_an_encrypted_one_is_not() -> None:
    assert read_transcript(bytes([21, 3, 3, 0, 2, 2, 112])).alert == 112
    assert read_transcript(bytes([21, 3, 3, 0, 26, *range(26)])).alert is None


def test_an_unknown_version_is_shown_as_a_number() -> None:
    hello = b"\x02\x00\x00\x02\x7f\x1c"
    assert read_transcript(b"\x16\x03\x03\x00" + bytes([len(hello)]) + hello).version == "version 0x7f1c"


def test_a_certificate_is_described_by_names_signer_and_dates(authority: Authority) -> None:
    pair = authority.server("a.example", "b.example", "c.example", "d.example", file="many")
    said = describe_certificate(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text(encoding="ascii")))
    assert said.startswith("for a.example, b.example, c.example and 1 more, signed by CN=Test Root, valid 20")
    client = authority.client("gw-1", file="nameless")
    assert describe_certificate(ssl.PEM_cert_to_DER_cert(client.certificate.read_text(encoding="ascii"))).startswith(
        "for CN=gw-1, signed by"
    )


@pytest.mark.parametrize(
    ("head", "date"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\ndate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n",
            datetime(2026, 11, 24, 12, tzinfo=UTC),
        ),
        (b"HTTP/1.0 200 OK\r\nDATE:Tue, 24 Nov 2026 12:00:00 -0000\r\n\r\n", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        (b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nLast-Date: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n", None),
        (b"SSH-2.0-x\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n", None),
        (b"", None),
    ],
)
def test_only_the_date_of_an_http_answer_counts(head: bytes, date: datetime | None) -> None:
    assert parse_date(head) == date


def test_the_kernel_is_asked_whether_the_clock_is_synchronised() -> None:
    assert witnesses.kernel_is_synchronised() in {True, False, None}


def test_the_resolvers_of_this_machine_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RESOLV_CONF", tmp_path / "resolv.conf")
    assert network.resolvers() == ""
    network.RESOLV_CONF.write_text("# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n")
    assert network.resolvers() == "127.0.0.53, fe80::1%eth0"
