from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lorabridge.errors import ConfigError
from lorabridge.upstream import tls
from lorabridge.upstream.tls import TlsSettings, build_context
from tests.pki import DAY, Authority, pem_of_key, write_private

ENDPOINT = "abc123-ats.iot.eu-west-1.amazonaws.com"
EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-ECDSA-AES128-SHA256": 0xC023,
    "ECDHE-RSA-AES128-SHA256": 0xC027,
    "ECDHE-ECDSA-AES256-SHA384": 0xC024,
    "ECDHE-RSA-AES256-SHA384": 0xC028,
    "ECDHE-ECDSA-AES128-SHA": 0xC009,
    "ECDHE-RSA-AES128-SHA": 0xC013,
    "ECDHE-ECDSA-AES256-SHA": 0xC00A,
    "ECDHE-RSA-AES256-SHA": 0xC014,
    "AES128-GCM-SHA256": 0x009C,
    "AES256-GCM-SHA384": 0x009D,
    "AES128-SHA256": 0x003C,
    "AES256-SHA256": 0x003D,
    "AES128-SHA": 0x002F,
    "AES256-SHA": 0x0035,
}
"""IANA's numbers (TLS Cipher Suites registry), which our code never sees."""
SERVER_NAME, ALPN, SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS = 0, 16, 35, 41, 42, 43


@pytest.fixture
def settings(tmp_path: Path) -> TlsSettings:
    authority = Authority(tmp_path)
    pair = authority.client("gw-1")
    return TlsSettings(
        endpoint=ENDPOINT,
        ca_file=str(authority.file),
        certificate_file=str(pair.certificate),
        private_key_file=str(pair.key),
    )


class Hello(msgspec.Struct):
    """A ClientHello, taken apart by hand (RFC 5246 §7.4.1.2)."""

    suites: list[int]
    compressions: bytes
    extensions: dict[int, bytes]

    @property
    def server_name(self) -> str:
        return self.extensions[SERVER_NAME][5:].decode()

    @property
    def protocols(self) -> bytes:
        return self.extensions.get(ALPN, b"")[3:]


def parse_client_hello(record: bytes) -> Hello:
    assert record[0] == 22, "a handshake record"
    assert record[5] == 1, "a ClientHello"
    at = 5 + 4 + 2 + 32  # record and handshake headers, version, random
    at += 1 + record[at]  # session id
    (size,) = struct.unpack_from(">H", record, at)
    suites = [code for (code,) in struct.iter_unpack(">H", record[at + 2 : at + 2 + size])]
    at += 2 + size
    compressions = record[at + 1 : at + 1 + record[at]]
    at += 1 + record[at] + 2
    extensions = {}
    while at < len(record):
        kind, size = struct.unpack_from(">HH", record, at)
        extensions[kind] = record[at + 4 : at + 4 + size]
        at += 4 + size
    return Hello(suites, compressions, extensions)


def hello_of(settings: TlsSettings, server_hostname: str | None = None) -> Hello:
    """What really goes over a loopback socket to 127.0.0.1 before anything is answered."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up_after_hello() -> None:
            connection, _ = listener.accept()
            with connection:
                data = connection.recv(5, socket.MSG_WAITALL)
                heard.append(data + connection.recv(struct.unpack(">H", data[3:5])[0], socket.MSG_WAITALL))

        server = threading.Thread(target=hang_up_after_hello)
        server.start()
        with socket.create_connection(listener.getsockname(), timeout=10) as plain, pytest.raises(OSError):  # noqa: PT011  # EOF or reset, as the kernel likes
            build_context(settings).wrap_socket(plain, server_hostname=server_hostname)
        server.join()
    return parse_client_hello(heard[0])


@pytest.mark.parametrize(
    ("profile", "names"), [("recommended", tls.RECOMMENDED_SUITES), ("aws-compatible", tuple(SUITES))]
)
def test_the_hello_on_the_wire_offers_exactly_the_intended_suites(
    settings: TlsSettings, profile: str, names: tuple[str, ...]
) -> None:
    hello = hello_of(msgspec.structs.replace(settings, cipher_profile=profile))
    assert hello.suites == [*(SUITES[name] for name in names), EMPTY_RENEGOTIATION_INFO_SCSV]


def test_the_hello_at_tls_1_2_has_the_name_and_neither_tickets_nor_newer_versions(settings: TlsSettings) -> None:
    hello = hello_of(settings)
    assert hello.server_name == ENDPOINT
    assert not hello.extensions.keys() & {SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, ALPN}
    assert hello.compressions == b"\x00"


@pytest.mark.parametrize("dialled", ["127.0.0.1", "localhost", None])
def test_the_name_is_the_endpoint_whatever_is_dialled(settings: TlsSettings, dialled: str | None) -> None:
    assert hello_of(settings, server_hostname=dialled).server_name == ENDPOINT


def test_alpn_is_offered_on_443_and_there_only(settings: TlsSettings) -> None:
    assert hello_of(msgspec.structs.replace(settings, port=443)).protocols == b"x-amzn-mqtt-ca"


def test_tls_1_3_is_offered_only_when_asked_for_and_1_2_stays_on_the_list(settings: TlsSettings) -> None:
    hello = hello_of(msgspec.structs.replace(settings, tls_max="1.3"))
    assert hello.extensions[SUPPORTED_VERSIONS] == b"\x04\x03\x04\x03\x03"
    assert set(hello.suites) == {
        *(SUITES[name] for name in tls.RECOMMENDED_SUITES),
        *(0x1301, 0x1302, 0x1303),
        EMPTY_RENEGOTIATION_INFO_SCSV,
    }
    assert hello.server_name == ENDPOINT
    assert not hello.extensions.keys() & {SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA}


def test_the_context_refuses_whom_it_must(settings: TlsSettings) -> None:
    context = build_context(settings)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.verify_flags & ssl.VerifyFlags.VERIFY_X509_STRICT
    for option in (ssl.OP_NO_TICKET, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
        assert context.options & option
    assert context.keylog_filename is None


def test_good_settings_have_no_problem(settings: TlsSettings) -> None:
    assert tls.check(settings) == []
    assert tls.check(msgspec.structs.replace(settings, connect_address="[::1]:8883")) == []
    assert msgspec.structs.replace(settings, connect_address="[::1]:8884").address == ("::1", 8884)
    assert settings.address == (ENDPOINT, 8883)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("52.1.2.3", "IP address"),
        ("::1", "IP address"),
        ("127.1", "IP address"),
        ("0x7f000001", "IP address"),
        ("", "no host name"),
        ("abc.", "no host name"),
        ("mqtts://abc.example", "no host name"),
        ("bücher.example", "no host name"),
        ("-a.example", "no host name"),
        ("a" * 64, "no host name"),
        (".".join(["abcdefg"] * 32), "no host name"),
    ],
)
def test_an_endpoint_that_cannot_be_an_exact_sni_is_refused(settings: TlsSettings, endpoint: str, says: str) -> None:
    (problem,) = tls.check(msgspec.structs.replace(settings, endpoint=endpoint))
    assert problem.where == "aws_iot.endpoint"
    assert says in problem.what
    assert not problem.warning


def test_the_legacy_endpoint_is_worth_a_warning(settings: TlsSettings) -> None:
    (problem,) = tls.check(msgspec.structs.replace(settings, endpoint="abc.iot.eu-west-1.amazonaws.com"))
    assert problem.warning
    assert "iot:Data-ATS" in problem.hint


@pytest.mark.parametrize("address", ["127.0.0.1", "host:", ":8883", "host:0", "host:65536", "host:\u0661", "a b:1"])
def test_an_address_to_dial_that_is_not_host_and_port_is_refused(settings: TlsSettings, address: str) -> None:
    (problem,) = tls.check(msgspec.structs.replace(settings, connect_address=address))
    assert problem.where == "aws_iot.connect_address"


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a.pem", "b.pem", "c.pem")]
    settings = TlsSettings(endpoint=ENDPOINT, ca_file=names[0], certificate_file=names[1], private_key_file=names[2])
    problems = tls.check(settings)
    assert [problem.where for problem in problems] == names
    assert all("No such file" in problem.what for problem in problems)
    with pytest.raises(ConfigError) as raised:
        build_context(settings)
    assert [problem.where for problem in raised.value.problems] == names


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_private_key_that_others_can_read_is_refused(settings: TlsSettings, mode: int) -> None:
    Path(settings.private_key_file).chmod(mode)
    (problem,) = tls.check(settings)
    assert problem.where == settings.private_key_file
    assert problem.hint == f"chmod 600 {settings.private_key_file}"


@pytest.mark.parametrize(("group", "others_read"), [(0, False), (4, True)])
def test_a_credential_opened_to_one_user_by_access_list_is_private(
    settings: TlsSettings, group: int, others_read: bool
) -> None:
    none = 0xFFFF_FFFF
    entries = [(0x01, 6, none), (0x02, 4, 12345), (0x04, group, none), (0x10, 4, none), (0x20, 0, none)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(settings.private_key_file, "system.posix_acl_access", acl)
    assert Path(settings.private_key_file).stat().st_mode & 0o070, "it looks readable by the group"
    assert bool(tls.check(settings)) is others_read


def test_a_key_of_another_certificate_is_refused(settings: TlsSettings) -> None:
    write_private(Path(settings.private_key_file), pem_of_key(ec.generate_private_key(ec.SECP256R1())))
    (problem,) = tls.check(settings)
    assert problem.what == "does not match the certificate"
    with pytest.raises(ConfigError, match="does not match the certificate"):
        build_context(settings)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(settings: TlsSettings) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(Path(settings.private_key_file), pem_of_key(key, b"secret"))
    (problem,) = tls.check(settings)
    assert problem.what == "is encrypted"
    with pytest.raises(ConfigError, match="is encrypted"):
        build_context(settings)


TPM_KEY = "-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n"


def test_a_key_of_a_tpm_that_is_not_here_is_no_fault_of_the_file_and_a_connection_says_what_it_needs(
    settings: TlsSettings,
) -> None:
    write_private(Path(settings.private_key_file), TPM_KEY.encode())
    (problem,) = tls.check(settings)
    assert problem.warning
    assert problem.what == "is the key of a TPM that cannot be used from here"
    with pytest.raises(ConfigError, match="key of a TPM that cannot be used") as refused:
        build_context(settings)
    assert not any(problem.warning for problem in refused.value.problems)


def test_beside_a_key_of_a_tpm_a_missing_certificate_is_told_once(settings: TlsSettings) -> None:
    write_private(Path(settings.private_key_file), TPM_KEY.encode())
    Path(settings.certificate_file).unlink()
    (problem,) = tls.check(settings)
    assert problem.where == settings.certificate_file


def test_files_that_hold_something_else_are_refused_without_showing_it(settings: TlsSettings) -> None:
    for path in (settings.ca_file, settings.certificate_file, settings.private_key_file):
        Path(path).write_bytes(b"my secret shopping list")
    problems = tls.check(settings)
    assert [problem.what for problem in problems] == [
        "holds no certificate in PEM form",
        "holds no certificate in PEM form",
        "holds no private key in PEM form",
    ]
    with pytest.raises(ConfigError) as raised:
        build_context(settings)
    assert "shopping" not in str(raised.value) + "".join(map(str, problems))


@pytest.mark.parametrize(
    ("after_now", "says", "warning"),
    [
        (timedelta(days=366), "expired on", False),
        (timedelta(days=340), "expires on", True),
        (timedelta(days=-2), "is not valid before", False),
    ],
)
def test_dates_of_the_certificate_are_told(
    settings: TlsSettings, after_now: timedelta, says: str, warning: bool
) -> None:
    (problem,) = tls.check(settings, now=datetime.now(UTC) + after_now)
    assert problem.where == settings.certificate_file
    assert says in problem.what
    assert problem.warning is warning


@pytest.mark.parametrize("now", [datetime(1970, 1, 1, tzinfo=UTC), tls.RELEASED - DAY])
def test_a_clock_that_was_never_set_is_not_taken_for_a_wrong_certificate(settings: TlsSettings, now: datetime) -> None:
    (problem,) = tls.check(settings, now=now)
    assert problem.where == "system clock"
    assert problem.warning, "the daemon starts and waits"


def test_our_own_certificate_is_witness_against_a_clock_years_behind(tmp_path: Path) -> None:
    made = tls.RELEASED + timedelta(days=2000)
    assert tls.clock_is_unset(made - timedelta(days=366), made)
    assert not tls.clock_is_unset(made - timedelta(days=364), made)
    assert not tls.clock_is_unset(tls.RELEASED, None)
    assert tls.clock_is_unset(tls.RELEASED - DAY, None)
