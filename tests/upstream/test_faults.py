"""Each way in which an endpoint can fail us has its own name, and all of them are tried again."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.events import EventKind
from lorabridge.settings import Duration
from lorabridge.upstream import faults, tls
from lorabridge.upstream.faults import LinkFault, LinkState, fault_of_error
from tests.mosquitto import free_port
from tests.pki import DAY, Authority
from tests.servers import ending
from tests.upstream.harness import ENDPOINT, GATEWAY, Upstream, link_settings, running
from tests.upstream.scripted_endpoint import ScriptedEndpoint, handshaking, server_context, serving


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "Another Root")


async def named_twice(settings: Any, fault: LinkFault, **more: Any) -> Upstream:
    """Wait until the link has met the fault, waited, and met it again."""
    async with running(settings, **more) as upstream:
        while upstream.link.counters[f"fault_{fault}"] < 2:
            await upstream.reported(lambda report: report.fault is not None)
            seen = {report.fault for report in upstream.reports if report.fault}
            assert seen == {fault}, [report.detail for report in upstream.reports]
            upstream.reports.clear()
        return upstream


ContextOf = Callable[[Authority, Authority], ssl.SSLContext]


def trusted(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    return server_context(authority, authority.server(ENDPOINT))


def from_another_ca(authority: Authority, stranger: Authority) -> ssl.SSLContext:
    return server_context(authority, stranger.server(ENDPOINT))


def for_another_name(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    return server_context(authority, authority.server("other.example", file="other"))


def expired(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    return server_context(authority, authority.server(ENDPOINT, file="old", valid=(-3 * DAY, -2 * DAY)))


def not_yet_valid(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    return server_context(authority, authority.server(ENDPOINT, file="new", valid=(2 * DAY, 3 * DAY)))


def that_trusts_another_ca(authority: Authority, stranger: Authority) -> ssl.SSLContext:
    return server_context(stranger, authority.server(ENDPOINT))


def of_tls_1_3_only(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    context = server_context(authority, authority.server(ENDPOINT))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def without_our_suites(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    context = server_context(authority, authority.server(ENDPOINT))
    context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    return context


def that_knows_no_such_name(authority: Authority, _stranger: Authority) -> ssl.SSLContext:
    context = server_context(authority, authority.server(ENDPOINT))
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return context


@pytest.mark.parametrize(
    ("context_of", "fault"),
    [
        (from_another_ca, LinkFault.SERVER_UNKNOWN_CA),
        (for_another_name, LinkFault.SERVER_WRONG_NAME),
        (expired, LinkFault.SERVER_EXPIRED),
        (not_yet_valid, LinkFault.SERVER_NOT_YET_VALID),
        (that_trusts_another_ca, LinkFault.CLIENT_CERTIFICATE_REFUSED),
        (of_tls_1_3_only, LinkFault.TLS_VERSION),
        (without_our_suites, LinkFault.TLS_REFUSED),
        (that_knows_no_such_name, LinkFault.SNI_REFUSED),
    ],
)
def test_a_failed_handshake_is_named_and_tried_again(
    authority: Authority, stranger: Authority, context_of: ContextOf, fault: LinkFault
) -> None:
    with handshaking(context_of(authority, stranger)) as port:
        asyncio.run(_fail(link_settings(authority, port), fault))


def test_the_same_endpoint_is_accepted_when_nothing_is_wrong_with_it(authority: Authority, stranger: Authority) -> None:
    async def succeed() -> None:
        async with (
            serving(ScriptedEndpoint(), trusted(authority, stranger)) as endpoint,
            running(link_settings(authority, endpoint.port)) as upstream,
        ):
            upstream.commit(3)
            await upstream.outbox.until_empty()
            assert upstream.link.report.fault is None

    asyncio.run(succeed())


def test_our_own_certificate_that_has_expired_is_told_apart_from_one_that_is_unknown(authority: Authority) -> None:
    old = authority.client(GATEWAY, "expired-client", (-30 * DAY, -DAY))
    files = {"certificate_file": str(old.certificate), "private_key_file": str(old.key)}
    with handshaking(server_context(authority, authority.server(ENDPOINT))) as port:
        asyncio.run(_fail(link_settings(authority, port, **files), LinkFault.CLIENT_CERTIFICATE_EXPIRED))


def test_at_tls_1_3_a_certificate_is_refused_after_our_connect_and_the_alert_may_be_lost(
    authority: Authority, stranger: Authority
) -> None:
    async def fail(port: int) -> None:
        async with running(link_settings(authority, port, tls_max="1.3")) as upstream:
            report = await upstream.reported(lambda report: report.fault is not None)
            assert report.fault in {LinkFault.CLIENT_CERTIFICATE_REFUSED, LinkFault.CLOSED_BEFORE_CONNACK}
            assert report.fault is not None
            assert "certificate" in report.fault.hint or "registered" in report.fault.hint

    with handshaking(that_trusts_another_ca(authority, stranger)) as port:
        asyncio.run(fail(port))


@pytest.mark.parametrize(
    ("connack", "fault"),
    [
        (b"", LinkFault.CLOSED_BEFORE_CONNACK),
        (None, LinkFault.NO_CONNACK),
        (b"\x20\x02\x00\x01", LinkFault.PROTOCOL_REFUSED),
        (b"\x20\x02\x00\x02", LinkFault.CLIENT_ID_REFUSED),
        (b"\x20\x02\x00\x03", LinkFault.SERVER_UNAVAILABLE),
        (b"\x20\x02\x00\x04", LinkFault.CONNECT_NOT_AUTHORIZED),
        (b"\x20\x02\x00\x05", LinkFault.CONNECT_NOT_AUTHORIZED),
    ],
)
def test_a_refused_connect_is_named_and_tried_again(
    authority: Authority, stranger: Authority, connack: bytes | None, fault: LinkFault
) -> None:
    async def fail() -> None:
        async with serving(ScriptedEndpoint(connack=connack), trusted(authority, stranger)) as endpoint:
            settings = link_settings(authority, endpoint.port, connect_timeout=Duration(0.3))
            await named_twice(settings, fault)
            assert len(endpoint.connects) >= 2

    asyncio.run(fail())


def test_a_port_where_nobody_listens_is_unreachable(authority: Authority) -> None:
    asyncio.run(_fail(link_settings(authority, free_port()), LinkFault.UNREACHABLE))


async def _fail(settings: Any, fault: LinkFault) -> None:
    await named_twice(settings, fault)


def test_a_name_without_an_address_is_told_from_an_address_without_an_answer(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", no_such_name)
    asyncio.run(_fail(link_settings(authority, 1), LinkFault.NAME_NOT_RESOLVED))


def test_a_server_that_does_not_speak_tls_is_named(authority: Authority) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    asyncio.run(_against(greet, authority, LinkFault.NOT_TLS))


def test_a_server_that_hangs_up_in_the_handshake_is_named(authority: Authority) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    asyncio.run(_against(hang_up, authority, LinkFault.TLS_CLOSED))


async def _against(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    authority: Authority,
    fault: LinkFault,
) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with ending(server) as port:
        await named_twice(link_settings(authority, port), fault)


def test_a_server_that_never_finishes_the_handshake_is_left_in_time(authority: Authority) -> None:
    async def fail() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            settings = link_settings(authority, mute.getsockname()[1], connect_timeout=Duration(0.2))
            async with running(settings) as upstream:
                report = await upstream.reported(lambda report: report.fault is not None)
                assert report.fault in {LinkFault.UNREACHABLE, LinkFault.TLS_CLOSED}

    asyncio.run(fail())


def test_a_missing_file_of_ours_is_named_with_its_path(authority: Authority, tmp_path: Path) -> None:
    async def fail() -> None:
        settings = link_settings(authority, free_port(), private_key_file=str(tmp_path / "gone.pem"))
        async with running(settings) as upstream:
            report = await upstream.reported(lambda report: report.fault is LinkFault.LOCAL_FILES)
            assert "gone.pem" in report.detail

    asyncio.run(fail())


def test_with_a_clock_that_is_not_set_nothing_is_dialled_until_it_is(authority: Authority, stranger: Authority) -> None:
    async def wait() -> None:
        time_now = [1000.0]
        async with (
            serving(ScriptedEndpoint(), trusted(authority, stranger)) as endpoint,
            running(link_settings(authority, endpoint.port), clock=lambda: time_now[0]) as upstream,
        ):
            report = await upstream.reported(lambda report: report.fault is not None)
            assert report.fault is LinkFault.CLOCK_NOT_SET
            assert "1970-01-01" in report.detail
            assert upstream.link.counters["connections"] == 0
            time_now[0] = (tls.RELEASED + DAY).timestamp()
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            assert upstream.link.counters["fault_clock_not_set"] == 1

    asyncio.run(wait())


@pytest.mark.parametrize(("unset", "fault"), [(True, LinkFault.CLOCK_NOT_SET), (False, LinkFault.SERVER_NOT_YET_VALID)])
def test_a_certificate_not_yet_valid_is_blamed_on_the_clock_only_when_that_cannot_be_right(
    unset: bool, fault: LinkFault
) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 9, "certificate is not yet valid"
    down = fault_of_error(error, lambda: unset)
    assert down is not None
    assert down.fault is fault


def test_several_problems_of_our_files_are_one_line() -> None:
    problems = [Problem(where="/a.pem", what="is gone"), Problem(where="/b.pem", what="is no PEM")]
    down = fault_of_error(ConfigError(problems), lambda: False)
    assert down is not None
    assert (down.fault, down.detail) == (LinkFault.LOCAL_FILES, "/a.pem: is gone; /b.pem: is no PEM")


def test_an_error_that_is_our_own_bug_is_no_fault_of_the_link() -> None:
    assert fault_of_error(KeyError("x"), lambda: False) is None


def test_an_endpoint_that_accepts_and_never_acknowledges_is_left_and_nothing_is_lost(
    authority: Authority, stranger: Authority
) -> None:
    async def starve() -> None:
        endpoint = ScriptedEndpoint(on_publish=lambda _topic: "silence")
        settings_of = {"puback_timeout": Duration(0.1)}
        async with (
            serving(endpoint, trusted(authority, stranger)),
            running(link_settings(authority, endpoint.port, **settings_of)) as upstream,
        ):
            upstream.commit(150)
            while upstream.link.counters["fault_puback_timeout"] < 12:
                upstream.reports.clear()
                await upstream.reported(lambda report: report.state is LinkState.CONNECTING)
            assert len(upstream.outbox.rows) == 150
            assert upstream.outbox.parked == {}, "an endpoint that is ill convicts nobody"
            assert all(len(on_one_connection) <= 101 for on_one_connection in endpoint.published), "window and birth"
            endpoint.on_publish = lambda _topic: "ack"
            await upstream.outbox.until_empty()
            assert sorted(upstream.outbox.finished) == list(range(1, 151))

    asyncio.run(starve())


def test_a_publish_that_the_endpoint_answers_by_hanging_up_is_parked_and_the_rest_flows_on(
    authority: Authority, stranger: Authority
) -> None:
    async def poison() -> None:
        endpoint = ScriptedEndpoint(on_publish=lambda topic: "close" if topic.endswith("/security") else "ack")
        async with (
            serving(endpoint, trusted(authority, stranger)),
            running(link_settings(authority, endpoint.port)) as upstream,
        ):
            upstream.commit(2)
            (poisonous,) = upstream.commit(1, EventKind.SECURITY)
            upstream.commit(200)
            await upstream.outbox.until(lambda: bool(upstream.outbox.parked) and len(upstream.outbox.rows) == 1)
            assert [record_id for record_id, _ in upstream.parked] == [poisonous.id]
            assert sorted(upstream.outbox.finished) == [1, 2, *range(4, 204)]
            tries = [sent for sent in endpoint.published if str(poisonous.id) in sent]
            assert len(tries) == 6, "not one more drop than it takes to suspect it, and one to convict it"
            assert tries[-1][-1] == str(poisonous.id), "with nothing behind it"
            assert upstream.link.counters["fault_connection_lost"] == 6

    asyncio.run(poison())


def test_a_policy_that_forbids_everything_parks_nothing(authority: Authority, stranger: Authority) -> None:
    async def forbid() -> None:
        endpoint = ScriptedEndpoint(on_publish=lambda _topic: "close")
        async with (
            serving(endpoint, trusted(authority, stranger)),
            running(link_settings(authority, endpoint.port)) as upstream,
        ):
            upstream.commit(50)
            while upstream.link.counters["fault_connection_lost"] < 15:
                upstream.reports.clear()
                await upstream.reported(lambda report: report.state is LinkState.CONNECTING)
            assert upstream.outbox.parked == {}
            endpoint.on_publish = lambda _topic: "ack"
            await upstream.outbox.until_empty()
            assert sorted(upstream.outbox.finished) == list(range(1, 51))

    asyncio.run(forbid())


def test_every_fault_says_what_it_means_and_what_to_do_and_the_page_is_up_to_date() -> None:
    assert all(fault.doc.endswith(".") and len(fault.hint) > 20 for fault in LinkFault)
    page = Path(__file__).parents[2] / "docs" / "link-faults.md"
    assert page.read_text(encoding="utf-8") == faults.faults_markdown(), "run: make docs"


def test_the_hint_is_at_hand_where_the_fault_is() -> None:
    assert "iot:Connect" in LinkFault.CLOSED_BEFORE_CONNACK.hint
