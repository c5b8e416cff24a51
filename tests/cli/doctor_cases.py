"""Set-ups that are broken in one way each, and what `lorabridge doctor` has to say of them."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from lorabridge.simulation.pki import Authority, Pair, new_ec_key
from lorabridge.simulation.standin import gateway_policy
from lorabridge.upstream.doctor import network
from lorabridge.upstream.doctor.steps import Step
from lorabridge.upstream.faults import LinkFault
from tests.cli.doctor_gateway import (
    DAY,
    IMPATIENT,
    LINGERS_LITTLE,
    PATIENT,
    Gateway,
    answering_tls,
    black_hole,
    https,
    server_context,
    speaking,
)
from tests.daemon.config_help import ENDPOINT, GATEWAY
from tests.mosquitto import free_port
from tests.pki import pem_of_key, write_private
from tests.simulation.standin_help import CREDENTIALS, lending, paho, running
from tests.upstream.scripted_endpoint import handshaking


@dataclass(frozen=True)
class Case:
    """One way to be broken."""

    name: str
    """A sentence's worth, for the table of the documentation."""
    breaks: Callable[[Gateway], None]
    step: Step
    fault: LinkFault | None
    says: str
    fix: str


def _unreadable_configuration(gateway: Gateway) -> None:
    gateway.installed.path.unlink()
    gateway.installed.path.mkdir()


def _ip_address(gateway: Gateway) -> None:
    gateway.set(endpoint="52.1.2.3")


def _no_disk(gateway: Gateway) -> None:
    gateway.server()
    shutil.rmtree(gateway.installed.folder / "state")
    (gateway.installed.folder / "state").touch()


def _no_address(gateway: Gateway) -> None:
    def no_such_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    _patch(gateway, socket, "getaddrinfo", no_such_name)


def _dead_resolver(gateway: Gateway) -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> None:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    gateway.stack.callback(over.set)
    _patch(gateway, socket, "getaddrinfo", hang)
    gateway.surround(patience=IMPATIENT)


def _no_route(gateway: Gateway) -> None:
    def unreachable(_: object) -> str:
        raise OSError(101, "Network is unreachable")

    gateway.dial(free_port())
    _patch(gateway, network, "source_for", unreachable)


def _patch(gateway: Gateway, place: Any, name: str, value: object) -> None:
    """What this machine's network would have to be broken for."""
    gateway.stack.callback(setattr, place, name, getattr(place, name))
    setattr(place, name, value)


def _port_closed(gateway: Gateway) -> None:
    gateway.dial(free_port())


def _port_swallowed(gateway: Gateway) -> None:
    gateway.dial(gateway.stack.enter_context(black_hole()))
    gateway.surround(patience=IMPATIENT)


def _port_8883_closed(gateway: Gateway) -> None:
    gateway.surround(other=("127.0.0.1", gateway.server()))
    gateway.dial(free_port())


def _portal(gateway: Gateway) -> None:
    gateway.answering(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\n\r\n")


def _mute(gateway: Gateway) -> None:
    mute = gateway.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    gateway.dial(mute.getsockname()[1])
    gateway.surround(patience=msgspec.structs.replace(IMPATIENT, connect=30.0))


def _hangs_up(gateway: Gateway) -> None:
    gateway.answering(b"")


def _old_tls(gateway: Gateway) -> None:
    def change(context: ssl.SSLContext) -> None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with _deprecated():
        gateway.server(change=change)


@contextmanager
def _deprecated() -> Iterator[None]:
    import warnings  # noqa: PLC0415  # for this one set-up

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _new_tls(gateway: Gateway) -> None:
    def change(context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3

    gateway.server(change=change)


def _no_suite(gateway: Gateway) -> None:
    gateway.server(change=lambda context: context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305"))


def _older_suites(gateway: Gateway) -> None:
    gateway.server(change=lambda context: context.set_ciphers("ECDHE-ECDSA-AES128-SHA256"))


def _unknown_name(gateway: Gateway) -> None:
    gateway.standin()
    gateway.set(endpoint="other-ats.iot.eu-west-1.amazonaws.com")


def _no_alpn(gateway: Gateway) -> None:
    gateway.set(port=443)
    gateway.server(change=lambda context: context.set_alpn_protocols(["h2", "http/1.1"]))


def _alpn_refused(gateway: Gateway) -> None:
    gateway.set(port=443)
    gateway.answering(bytes([21, 3, 3, 0, 2, 2, 120]))


def _foreign_server(gateway: Gateway) -> None:
    folder = gateway.installed.folder / "elsewhere"
    folder.mkdir()
    stranger = Authority(folder, "Corporate Proxy", datetime.now(UTC))
    gateway.server(stranger.server(ENDPOINT, new_ec_key(), "intercepted"))


def _wrong_server_name(gateway: Gateway) -> None:
    gateway.server(gateway.installed.pki.endpoints.server("www.example.org", new_ec_key(), "other"))


def _at(gateway: Gateway, moment: timedelta) -> Pair:
    """A certificate of the endpoint that begins so much from now, and is valid for a day."""
    endpoints = gateway.installed.pki.endpoints
    endpoints._now = datetime.now(UTC) + moment
    return endpoints.server(ENDPOINT, new_ec_key(), "at-another-time")


def _old_server(gateway: Gateway) -> None:
    gateway.server(_at(gateway, -3 * DAY))


def _early_server(gateway: Gateway) -> None:
    gateway.server(_at(gateway, 3 * DAY))


def _clock_a_day_behind(gateway: Gateway) -> None:
    gateway.standin()
    _time_is(gateway, datetime.now(UTC) + DAY)


def _clock_a_day_ahead(gateway: Gateway) -> None:
    gateway.standin()
    _time_is(gateway, datetime.now(UTC) - DAY)


def _clock_behind_the_server(gateway: Gateway) -> None:
    pair = _at(gateway, 3 * DAY)
    gateway.server(pair)
    _time_is(gateway, datetime.now(UTC) + 3 * DAY, pair)


def _time_is(gateway: Gateway, date: datetime, pair: Pair | None = None) -> None:
    port = gateway.stack.enter_context(https(gateway.installed, date, pair))
    gateway.surround(other=("127.0.0.1", port))


def _clock_of_1970(gateway: Gateway) -> None:
    gateway.server()
    gateway.surround(now=lambda: datetime(1970, 1, 1, 0, 3, tzinfo=UTC))


def _no_roots(gateway: Gateway) -> None:
    gateway.server()
    gateway.set(ca_file=str(gateway.installed.folder / "none.pem"))


def _no_certificate(gateway: Gateway) -> None:
    gateway.server()
    gateway.installed.pki.gateway.certificate.write_text("to follow", encoding="utf-8")


def _expired(gateway: Gateway) -> None:
    gateway.standin()
    gateway.use(gateway.installed.pki.devices.client(GATEWAY, new_ec_key(), "old", datetime.now(UTC) - 3 * DAY))


def _not_yet_valid(gateway: Gateway) -> None:
    gateway.standin()
    devices = gateway.installed.pki.devices
    devices._now = datetime.now(UTC) + 3 * DAY
    gateway.use(devices.client(GATEWAY, new_ec_key(), "new"))


def _of_an_unknown_ca(gateway: Gateway) -> None:
    folder = gateway.installed.folder / "elsewhere"
    folder.mkdir()
    gateway.standin()
    gateway.use(Authority(folder, "Another Account", datetime.now(UTC)).client(GATEWAY, new_ec_key(), "stranger"))


def _revoked(gateway: Gateway) -> None:
    pki = gateway.installed.pki
    pki.devices.revoke(pki.gateway)
    gateway.standin()


def _inactive(gateway: Gateway) -> None:
    gateway.standin(policies={})
    gateway.surround(patience=PATIENT)


def _key_of_another(gateway: Gateway) -> None:
    gateway.server()
    gateway.key.unlink()
    write_private(gateway.key, pem_of_key(ec.generate_private_key(ec.SECP256R1())))


def _encrypted_key(gateway: Gateway) -> None:
    gateway.server()
    gateway.key.unlink()
    write_private(gateway.key, pem_of_key(ec.generate_private_key(ec.SECP256R1()), b"secret"))


def _open_key(gateway: Gateway) -> None:
    gateway.server()
    gateway.key.chmod(0o644)


def _unreadable_key(gateway: Gateway) -> None:
    gateway.server()
    if os.geteuid() == 0:  # root may read anything: a folder cannot be read by anybody
        gateway.key.unlink()
        gateway.key.mkdir()
    else:
        gateway.key.chmod(0)


def _another_client_id(gateway: Gateway) -> None:
    gateway.standin()
    gateway.set(thing_name="roof-2")


def _no_last_will(gateway: Gateway) -> None:
    gateway.standin(msgspec.structs.replace(gateway_policy(GATEWAY), last_will=False))


def _no_publish(gateway: Gateway) -> None:
    speaking(gateway, b"\x20\x02\x00\x00", lambda _: b"")


def _no_publish_5(gateway: Gateway) -> None:
    def refuse(publish: bytes) -> bytes:
        at = publish.index(f"lorabridge/{GATEWAY}/status".encode()) + len(f"lorabridge/{GATEWAY}/status")
        return b"\x40\x03" + publish[at : at + 2] + b"\x87"

    gateway.set(mqtt_version="5")
    speaking(gateway, b"\x20\x03\x00\x00\x00", refuse)


def _no_subscribe(gateway: Gateway) -> None:
    gateway.standin(msgspec.structs.replace(gateway_policy(GATEWAY), subscribe=()))


def _twin(gateway: Gateway) -> None:
    """Another gateway with our name, which our CONNECT throws out, and which comes back after our first PUBACK."""
    standin = gateway.standin()
    pki = gateway.installed.pki
    gateway.surround(patience=msgspec.structs.replace(LINGERS_LITTLE, alone=60.0))

    def come_back() -> None:
        standin.until(lambda: standin.standin.delivered > 0)
        with paho(pki, standin.standin.port, client_id=GATEWAY) as twin:
            twin.ready()

    thread = threading.Thread(target=come_back)
    thread.start()
    gateway.stack.callback(thread.join)


def _lender_without_address(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.borrow(0, connect_address="")
    real = socket.getaddrinfo

    def only_numbers(host: str, *more: Any, **how: Any) -> Any:
        if host == CREDENTIALS:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *more, **how)

    _patch(gateway, socket, "getaddrinfo", only_numbers)


def _lender_swallowed(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.borrow(gateway.stack.enter_context(black_hole()))
    gateway.surround(patience=msgspec.structs.replace(PATIENT, linger=0.05, connect=2.0))


def _websocket_port_closed(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.dial(free_port())


def _lender_of_another_name(gateway: Gateway) -> None:
    found = gateway.websocket()
    gateway.borrow(found.standin.credentials_port, credentials_endpoint="other.credentials.iot.eu-west-1.amazonaws.com")


def _lender_in_the_endpoint_s_place(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.borrow(gateway.stack.enter_context(handshaking(server_context(gateway.installed))))


def _lender_that_knows_no_certificate_of_ours(gateway: Gateway) -> None:
    folder = gateway.installed.folder / "elsewhere"
    folder.mkdir()
    gateway.websocket()
    gateway.use(Authority(folder, "Another Account", datetime.now(UTC)).client(GATEWAY, new_ec_key(), "stranger"))


def _unknown_role_alias(gateway: Gateway) -> None:
    found = gateway.websocket()
    gateway.borrow(found.standin.credentials_port, role_alias="lora-bridge")


def _no_assume_role(gateway: Gateway) -> None:
    pki = gateway.installed.pki
    found = gateway.stack.enter_context(
        running(pki, **lending(pki) | {"policies": {pki.gateway.fingerprint: gateway_policy(GATEWAY)}})
    )
    gateway.set(transport="websocket", connect_address=f"127.0.0.1:{found.standin.websocket_port}")
    gateway.borrow(found.standin.credentials_port)


def _another_thing(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.set(thing_name="roof-2")


def _inactive_at_the_lender(gateway: Gateway) -> None:
    gateway.websocket()
    devices = gateway.installed.pki.devices
    gateway.use(devices.client(GATEWAY, new_ec_key(), "not-registered"))


def _ended_credentials(gateway: Gateway) -> None:
    gateway.websocket(lasts=-30.0)


def _lender_with_no_credentials(gateway: Gateway) -> None:
    gateway.websocket()
    pair = gateway.installed.pki.server_credentials
    gateway.borrow(answering_tls(gateway, pair, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"))


def _clock_six_minutes_ahead(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.surround(now=lambda: datetime.now(UTC) + timedelta(minutes=6))


def _lender_of_another_account(gateway: Gateway) -> None:
    pki = gateway.installed.pki
    gateway.websocket()
    other = gateway.stack.enter_context(running(pki, **lending(pki, gateway_policy(GATEWAY))))
    gateway.borrow(other.standin.credentials_port)


def _web_server(gateway: Gateway) -> None:
    gateway.websocket()
    pair = gateway.installed.pki.server_ecdsa
    gateway.dial(answering_tls(gateway, pair, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"))


def _role_of_another_client_id(gateway: Gateway) -> None:
    gateway.websocket(rights=gateway_policy("roof-2"))


CASES = (
    Case(
        "the configuration cannot be read",
        _unreadable_configuration,
        Step.CONFIGURATION,
        None,
        "lorabridge.toml Is a directory",
        "--config",
    ),
    Case(
        "`endpoint` is an IP address",
        _ip_address,
        Step.CONFIGURATION,
        None,
        "aws_iot.endpoint an IP address cannot be proved",
        "write the host name here and the address in connect_address",
    ),
    Case("the database has no folder to be in", _no_disk, Step.DISK, None, "is no folder", "give a path in a folder"),
    Case(
        "the clock stands at 1970",
        _clock_of_1970,
        Step.CLOCK,
        LinkFault.CLOCK_NOT_SET,
        "1970-01-01 00:03:00 UTC",
        "time synchronisation",
    ),
    Case(
        "the file of the root CAs is missing",
        _no_roots,
        Step.ROOTS,
        None,
        "none.pem cannot be read: No such file",
        "this file holds the Amazon root CAs",
    ),
    Case(
        "the file of our certificate holds none",
        _no_certificate,
        Step.CERTIFICATE,
        None,
        "holds no certificate in PEM form",
        "it begins with -----BEGIN CERTIFICATE-----",
    ),
    Case(
        "the key belongs to another certificate",
        _key_of_another,
        Step.KEY,
        None,
        "does not match the certificate",
        "it belongs to another certificate than",
    ),
    Case("the key is encrypted", _encrypted_key, Step.KEY, None, "is encrypted", "openssl pkey"),
    Case("others can read the key", _open_key, Step.KEY, None, "can be read by others", "chmod 600"),
    Case(
        "the service cannot read the key",
        _unreadable_key,
        Step.KEY,
        None,
        "cannot be read",
        "the service's user must be able to read it",
    ),
    Case("our certificate has expired", _expired, Step.EXPIRY, None, "expired on", "make a new certificate"),
    Case(
        "our certificate is not valid yet",
        _not_yet_valid,
        Step.EXPIRY,
        None,
        "is not valid before",
        "is the clock slow?",
    ),
    Case(
        "the name has no address (misspelt, or DNS is broken)",
        _no_address,
        Step.DNS,
        LinkFault.NAME_NOT_RESOLVED,
        "Name or service not known",
        "the spelling of `endpoint`",
    ),
    Case(
        "the resolver does not answer",
        _dead_resolver,
        Step.DNS,
        LinkFault.NAME_NOT_RESOLVED,
        "the resolver has not answered",
        "Check the DNS servers",
    ),
    Case(
        "no route leads there",
        _no_route,
        Step.ROUTE,
        LinkFault.UNREACHABLE,
        "Network is unreachable",
        "is there a default route?",
    ),
    Case(
        "the port is closed",
        _port_closed,
        Step.TCP,
        LinkFault.UNREACHABLE,
        "Connection refused",
        "whether a firewall lets the port out",
    ),
    Case(
        "a firewall swallows the port",
        _port_swallowed,
        Step.TCP,
        LinkFault.UNREACHABLE,
        "as if a firewall swallowed it",
        "whether a firewall lets the port out",
    ),
    Case(
        "8883 is closed and 443 is open",
        _port_8883_closed,
        Step.TCP,
        LinkFault.UNREACHABLE,
        "Connection refused",
        "Port 443 answers: set `port = 443`",
    ),
    Case(
        "WebSocket: port 443 is closed",
        _websocket_port_closed,
        Step.TCP,
        LinkFault.UNREACHABLE,
        "Connection refused",
        "whether a firewall lets the port out",
    ),
    Case(
        "a captive portal or proxy answers in HTTP",
        _portal,
        Step.TLS,
        LinkFault.NOT_TLS,
        "it says 'HTTP/1.1 302 Found'",
        "captive portal",
    ),
    Case(
        "the port accepts and says nothing",
        _mute,
        Step.TLS,
        LinkFault.TLS_CLOSED,
        "the handshake timed out",
        "A middlebox may be cutting",
    ),
    Case(
        "the connection is cut in the handshake",
        _hangs_up,
        Step.TLS,
        LinkFault.TLS_CLOSED,
        "during the TLS handshake",
        "A middlebox may be cutting",
    ),
    Case(
        "the endpoint does not know the name asked for",
        _unknown_name,
        Step.SNI,
        LinkFault.SNI_REFUSED,
        "does not know the name",
        "aws iot describe-endpoint",
    ),
    Case(
        "on 443 nobody takes the ALPN",
        _no_alpn,
        Step.ALPN,
        LinkFault.ALPN_REFUSED,
        "nothing was chosen of it",
        "use `port = 8883`",
    ),
    Case(
        "on 443 the ALPN is refused",
        _alpn_refused,
        Step.ALPN,
        LinkFault.ALPN_REFUSED,
        "no application protocol",
        "use `port = 8883`",
    ),
    Case(
        "the server speaks TLS 1.3 only",
        _new_tls,
        Step.VERSION,
        LinkFault.TLS_VERSION,
        "it speaks TLS 1.3 only",
        'Set `tls_max = "1.3"`',
    ),
    Case(
        "the server speaks TLS 1.1 only",
        _old_tls,
        Step.VERSION,
        LinkFault.TLS_VERSION,
        "it speaks TLS 1.1",
        "AWS IoT speaks 1.2 and 1.3",
    ),
    Case(
        "no cipher suite in common",
        _no_suite,
        Step.SUITES,
        LinkFault.TLS_REFUSED,
        "no common suite",
        "nor all 18 of AWS IoT",
    ),
    Case(
        "only older cipher suites in common",
        _older_suites,
        Step.SUITES,
        LinkFault.TLS_REFUSED,
        "no common suite",
        'Set `cipher_profile = "aws-compatible"`',
    ),
    Case(
        "the server's certificate comes from a foreign CA",
        _foreign_server,
        Step.CHAIN,
        LinkFault.SERVER_UNKNOWN_CA,
        "signed by CN=Corporate Proxy",
        "somebody is intercepting the connection",
    ),
    Case(
        "the server's certificate is for another name",
        _wrong_server_name,
        Step.SERVER_NAME,
        LinkFault.SERVER_WRONG_NAME,
        "it is for www.example.org",
        "Check `endpoint` and `connect_address`",
    ),
    Case(
        "the server's certificate has expired",
        _old_server,
        Step.SERVER_DATES,
        LinkFault.SERVER_EXPIRED,
        "has expired by our clock",
        "the other end must act",
    ),
    Case(
        "the server's certificate is not valid yet",
        _early_server,
        Step.SERVER_DATES,
        LinkFault.SERVER_NOT_YET_VALID,
        "not valid yet by our clock",
        "The clock of this machine is probably slow",
    ),
    Case(
        "the clock is a day behind",
        _clock_a_day_behind,
        Step.CLOCK_SKEW,
        None,
        "behind the endpoint's",
        "synchronise the clock",
    ),
    Case(
        "the clock is a day ahead",
        _clock_a_day_ahead,
        Step.CLOCK_SKEW,
        None,
        "ahead of the endpoint's",
        "synchronise the clock",
    ),
    Case(
        "the clock is so far behind that the server's certificate looks too new",
        _clock_behind_the_server,
        Step.CLOCK_SKEW,
        None,
        "behind the endpoint's",
        "synchronise the clock",
    ),
    Case(
        "WebSocket: the clock is six minutes ahead, and signatures are too new",
        _clock_six_minutes_ahead,
        Step.CLOCK_SKEW,
        None,
        "ahead of the endpoint's",
        "synchronise the clock",
    ),
    Case(
        "our certificate comes from a CA that the endpoint does not know",
        _of_an_unknown_ca,
        Step.CLIENT_CERTIFICATE,
        LinkFault.CLIENT_CERTIFICATE_REFUSED,
        "does not accept our certificate",
        "in this account and region",
    ),
    Case(
        "our certificate is revoked",
        _revoked,
        Step.CLIENT_CERTIFICATE,
        LinkFault.CLIENT_CERTIFICATE_REFUSED,
        "revoked",
        "not revoked",
    ),
    Case(
        "our certificate is inactive, or not registered",
        _inactive,
        Step.CLIENT_CERTIFICATE,
        LinkFault.CLIENT_CERTIFICATE_REFUSED,
        "it hung up after the handshake",
        "ACTIVE",
    ),
    Case(
        "WebSocket: the credentials endpoint has no address",
        _lender_without_address,
        Step.ROLE_DNS,
        LinkFault.NAME_NOT_RESOLVED,
        "credentials.iot.eu-west-1.amazonaws.com: Name or service not known",
        "iot:CredentialProvider",
    ),
    Case(
        "WebSocket: a firewall swallows the credentials endpoint's port",
        _lender_swallowed,
        Step.ROLE_TCP,
        LinkFault.UNREACHABLE,
        "No TCP connection to the credentials endpoint",
        "whether a firewall lets the port out",
    ),
    Case(
        "WebSocket: `credentials_endpoint` is not the name of one",
        _lender_of_another_name,
        Step.ROLE_TLS,
        LinkFault.SNI_REFUSED,
        "The credentials endpoint does not know the name",
        "Copy `credentials_endpoint`",
    ),
    Case(
        "WebSocket: the endpoint answers in the place of the credentials endpoint",
        _lender_in_the_endpoint_s_place,
        Step.ROLE_TLS,
        LinkFault.SERVER_WRONG_NAME,
        "The credentials endpoint's certificate is for another name",
        "Copy `credentials_endpoint`",
    ),
    Case(
        "WebSocket: our certificate comes from a CA that the credentials endpoint does not know",
        _lender_that_knows_no_certificate_of_ours,
        Step.ROLE_CERTIFICATE,
        LinkFault.CLIENT_CERTIFICATE_REFUSED,
        "The credentials endpoint does not accept our certificate",
        "in this account and region",
    ),
    Case(
        "WebSocket: nobody knows the role alias",
        _unknown_role_alias,
        Step.ROLE_CREDENTIALS,
        LinkFault.CREDENTIALS_REFUSED,
        "HTTP 404",
        "Check `role_alias`",
    ),
    Case(
        "WebSocket: the policy does not allow iot:AssumeRoleWithCertificate",
        _no_assume_role,
        Step.ROLE_CREDENTIALS,
        LinkFault.CREDENTIALS_REFUSED,
        "HTTP 403",
        "must allow iot:AssumeRoleWithCertificate",
    ),
    Case(
        "WebSocket: the thing is not attached to our certificate",
        _another_thing,
        Step.ROLE_CREDENTIALS,
        LinkFault.CREDENTIALS_REFUSED,
        "HTTP 403",
        "the thing must be attached to the certificate",
    ),
    Case(
        "WebSocket: our certificate is not registered with the credentials endpoint",
        _inactive_at_the_lender,
        Step.ROLE_CREDENTIALS,
        LinkFault.CREDENTIALS_REFUSED,
        "HTTP 403",
        "must allow iot:AssumeRoleWithCertificate",
    ),
    Case(
        "WebSocket: credentials are lent that have ended",
        _ended_credentials,
        Step.ROLE_CREDENTIALS,
        LinkFault.CREDENTIALS_REFUSED,
        "they ended at",
        "Synchronise the clock",
    ),
    Case(
        "WebSocket: something else answers in the credentials endpoint's place",
        _lender_with_no_credentials,
        Step.ROLE_CREDENTIALS,
        LinkFault.CREDENTIALS_REFUSED,
        "no credentials: JSON is malformed",
        "the role must trust credentials.iot.amazonaws.com",
    ),
    Case(
        "WebSocket: credentials of another account",
        _lender_of_another_account,
        Step.WEBSOCKET,
        LinkFault.WEBSOCKET_REFUSED,
        "HTTP 403",
        "must be of one account and region",
    ),
    Case(
        "WebSocket: a web server answers in the endpoint's place",
        _web_server,
        Step.WEBSOCKET,
        LinkFault.WEBSOCKET_REFUSED,
        "HTTP 200",
        "a web server answers in the endpoint's place",
    ),
    Case(
        "the policy does not allow our client id",
        _another_client_id,
        Step.CONNECT,
        LinkFault.CLOSED_BEFORE_CONNACK,
        "client id 'roof-2'",
        "iot:Connect for client/<thing_name>",
    ),
    Case(
        "WebSocket: the policy of the role does not allow our client id",
        _role_of_another_client_id,
        Step.CONNECT,
        LinkFault.CLOSED_BEFORE_CONNACK,
        "client id 'roof-1'",
        "iot:Connect for client/<thing_name>",
    ),
    Case(
        "the policy does not allow the last will",
        _no_last_will,
        Step.CONNECT,
        LinkFault.CLOSED_BEFORE_CONNACK,
        "client id 'roof-1'",
        "Without a last will the endpoint lets us in",
    ),
    Case(
        "the policy does not allow the publish (hung up on)",
        _no_publish,
        Step.PUBLISH,
        LinkFault.PUBLISH_REFUSED,
        "topic lorabridge/roof-1/status",
        "must allow iot:Publish",
    ),
    Case(
        "the policy does not allow the publish (MQTT 5)",
        _no_publish_5,
        Step.PUBLISH,
        LinkFault.PUBLISH_REFUSED,
        "PUBACK: Not authorized",
        "must allow iot:Publish",
    ),
    Case(
        "another gateway has our client id",
        _twin,
        Step.ALONE,
        LinkFault.TAKEN_OVER,
        "Another client connected with our client id",
        "give each its own",
    ),
    Case(
        "the policy does not allow the subscription",
        _no_subscribe,
        Step.SUBSCRIBE,
        LinkFault.SUBSCRIBE_REFUSED,
        "topic filter lorabridge/roof-1/cmd/+",
        "iot:Subscribe and iot:Receive",
    ),
)
"""At least one for each step that can fail, in the order of the steps."""


def cases_markdown() -> str:
    """The table of `docs/doctor.md`."""
    head = ["| broken set-up | step that is named | fault |", "|---|---|---|"]
    rows = [f"| {case.name} | {case.step.title} | {f'`{case.fault}`' if case.fault else ''} |" for case in CASES]
    return "\n".join([*head, *rows])
