"""AWS IoT Device Advisor's cases, one by one: the link at the stand-in, or at an endpoint that misbehaves."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lorabridge.settings import Duration
from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin import Happening, StandIn, StandInSettings, gateway_policy
from lorabridge.simulation.standin.hello import SUITES
from lorabridge.simulation.standin.services.jobs import JobStatus
from lorabridge.upstream import tls
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.inbound import Subscription
from lorabridge.upstream.jobs import SUCCEEDED, Jobs
from lorabridge.upstream.shadow import LEAST_INTERVAL, Setting, Shadow
from tests.pki import DAY, Authority
from tests.simulation.standin_help import new_pki
from tests.simulation.test_standin_bridge import linked, ticking
from tests.upstream.device_advisor import CASES, Outcome, case, table, tested
from tests.upstream.harness import ENDPOINT, GATEWAY, CommandInbox, Upstream, link_settings, running
from tests.upstream.scripted_endpoint import ScriptedEndpoint, handshaking, server_context, serving

COMMAND = f"lorabridge/{GATEWAY}/cmd/70b3d57ed0000001"
FILTER = f"lorabridge/{GATEWAY}/cmd/+"
BASE, CAP = 0.02, 0.1
ATTEMPTS = 5
"""RECONNECTION_ATTEMPTS is 5 by default."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return new_pki(tmp_path_factory.mktemp("standin"))


@asynccontextmanager
async def at_the_standin(
    authority: Authority, pki: Pki, inbox: CommandInbox | None = None, **settings: Any
) -> AsyncIterator[tuple[StandIn, Upstream]]:
    """The link, online."""
    files = {
        "ca_file": str(pki.ca_file),
        "certificate_file": str(pki.gateway.certificate),
        "private_key_file": str(pki.gateway.key),
    }
    rights = StandInSettings(policies={pki.gateway.fingerprint: gateway_policy(GATEWAY)})
    async with (
        asyncio.timeout(60),
        StandIn(rights, pki=pki) as standin,
        running(link_settings(authority, standin.port, **files, **settings), commands=inbox) as upstream,
    ):
        await upstream.reported(lambda report: report.state is LinkState.ONLINE)
        yield standin, upstream


@asynccontextmanager
async def at(
    authority: Authority, endpoint: ScriptedEndpoint, *, rng: random.Random | None = None, **settings: Any
) -> AsyncIterator[Upstream]:
    """The link at a scripted endpoint, which proves itself by nothing less than a long life."""
    inbox = settings.pop("inbox", None)
    proved_after = settings.pop("proved_after", 3600.0)
    context = server_context(authority, authority.server(ENDPOINT))
    async with (
        asyncio.timeout(60),
        serving(endpoint, context),
        running(
            link_settings(authority, endpoint.port, **settings), commands=inbox, rng=rng, proved_after=proved_after
        ) as upstream,
    ):
        yield upstream


# TLS.


@case("TLS_Connect")
def test_the_handshake_is_completed(authority: Authority, pki: Pki) -> None:
    async def connect() -> None:
        async with at_the_standin(authority, pki) as (standin, _):
            assert standin.counters[Happening.HANDSHAKE_DONE.value] == 1
            assert standin.counters["tls"] == 0

    asyncio.run(connect())


@case("TLS_Receive_Maximum_Size_Fragments")
def test_fragments_of_maximum_size_are_received(authority: Authority, pki: Pki) -> None:
    async def receive() -> None:
        inbox = CommandInbox()
        async with at_the_standin(authority, pki, inbox) as (standin, upstream):
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            await standin.publish(COMMAND, bytes(100_000))
            await standin.publish(COMMAND, b"after")
            (inbound,) = await inbox.take(1)
            assert inbound.payload == b"after"
            assert upstream.link.counters["commands_oversize"] == 1
            assert upstream.link.counters["drops"] == 0

    asyncio.run(receive())


@case("TLS_Cipher_Suites")
@pytest.mark.parametrize("profile", ["recommended", "aws-compatible"])
def test_recommended_suites_are_offered_and_no_unlisted_ones(authority: Authority, pki: Pki, profile: str) -> None:
    async def offer() -> None:
        async with at_the_standin(authority, pki, cipher_profile=profile) as (standin, _):
            offered = standin.hellos[0].suite_names
            assert offered[:4] == tls.RECOMMENDED_SUITES
            assert set(offered) <= set(SUITES.values())

    asyncio.run(offer())


@case("TLS_Large_Server_Cert")
def test_a_larger_server_certificate_is_taken(authority: Authority) -> None:
    usual = authority.server(ENDPOINT, file="usual").certificate.stat().st_size
    names = [f"{number:02}-{'x' * 50}.example" for number in range(20)]
    large = authority.server(ENDPOINT, *names, file="large")
    assert large.certificate.stat().st_size > 2 * usual

    async def connect() -> None:
        async with (
            serving(ScriptedEndpoint(), server_context(authority, large)) as endpoint,
            running(link_settings(authority, endpoint.port)) as upstream,
        ):
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)

    asyncio.run(connect())


def _refused(authority: Authority, context: ssl.SSLContext, fault: LinkFault) -> None:
    """The link closes in the handshake, and names the fault."""

    async def fail(port: int) -> None:
        async with running(link_settings(authority, port)) as upstream:
            await upstream.reported(lambda report: report.fault is fault)
            assert upstream.link.counters["published"] == 0

    with handshaking(context) as port:
        asyncio.run(fail(port))


@case("TLS_Unsecure_Server_Cert")
def test_a_server_certificate_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Somebody Else")
    context = server_context(authority, stranger.server(ENDPOINT))
    _refused(authority, context, LinkFault.SERVER_UNKNOWN_CA)


@case("TLS_Incorrect_Subject_Name")
def test_a_server_certificate_for_another_name_is_refused(authority: Authority) -> None:
    context = server_context(authority, authority.server(f"x{ENDPOINT}", file="other-name"))
    _refused(authority, context, LinkFault.SERVER_WRONG_NAME)


@case("TLS_Expired_Server_Cert")
def test_an_expired_server_certificate_is_refused(authority: Authority) -> None:
    expired: tuple[timedelta, timedelta] = (-3 * DAY, -2 * DAY)
    context = server_context(authority, authority.server(ENDPOINT, file="expired", valid=expired))
    _refused(authority, context, LinkFault.SERVER_EXPIRED)


# CONNECT, DISCONNECT and RECONNECT.


@case("MQTT_Connect")
@pytest.mark.parametrize(("version", "connack"), [("3.1.1", b"\x20\2\0\0"), ("5", b"\x20\3\0\0\0")])
def test_connect_is_sent(authority: Authority, version: str, connack: bytes) -> None:
    async def connect() -> None:
        endpoint = ScriptedEndpoint(connack=connack)
        async with at(authority, endpoint, mqtt_version=version) as upstream:
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
        assert len(endpoint.connects) == 1

    asyncio.run(connect())


@case("MQTT_Client_Puback_QoS1")
@pytest.mark.parametrize("topic", [COMMAND, "any/other"])
def test_a_message_with_qos_1_is_acknowledged(authority: Authority, topic: str) -> None:
    async def receive() -> None:
        endpoint, inbox = ScriptedEndpoint(), CommandInbox()
        async with at(authority, endpoint, inbox=inbox) as upstream:
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            endpoint.send(topic.encode(), b"{}", 7)
            if topic == COMMAND:
                (inbound,) = await inbox.take(1)
                inbound.ack()
            await endpoint.until(lambda: endpoint.pubacks == [7])

    asyncio.run(receive())


class Draws(random.Random):
    """Real jitter, written down: the ceiling and the wait of each draw."""

    def __init__(self) -> None:
        super().__init__(7)
        self.drawn: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        wait = super().uniform(a, b)
        self.drawn.append((b, wait))
        return wait


def is_jitter_with_backoff(drawn: list[tuple[float, float]], connects: list[float]) -> None:
    """Ceilings double up to the cap, waits differ and stay below, and no connection comes before its wait is over."""
    waits = [wait for _, wait in drawn]
    assert [ceiling for ceiling, _ in drawn] == pytest.approx([min(CAP, BASE * 2**n) for n in range(len(drawn))])
    assert all(wait <= ceiling for ceiling, wait in drawn)
    assert len(set(waits)) == len(waits)
    gaps = [later - sooner for sooner, later in pairwise(connects)]
    assert all(gap >= wait - 0.002 for gap, wait in zip(gaps, waits, strict=False)), "the clock of the loop is coarse"


class Unanswered(ScriptedEndpoint):
    """Every sixth CONNECT gets its CONNACK, and the first record after it the end of the connection."""

    def _connect(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        answered = (len(self.connects) + 1) % (ATTEMPTS + 1) == 0
        self.connack = b"\x20\2\0\0" if answered else None
        return super()._connect(writer, body)


@pytest.mark.slow
@case("MQTT_Connect_Jitter_Backoff_Retries")
@case("MQTT_Connect_Exponential_Backoff_Retries")
def test_without_connack_the_link_tries_again_with_jitter_and_backoff(authority: Authority) -> None:
    async def retry() -> None:
        rng, endpoint = Draws(), Unanswered(on_publish=lambda _topic: "close")
        async with at(authority, endpoint, rng=rng, connect_timeout=Duration(0.8), proved_after=0.0) as upstream:
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            first, connects = list(rng.drawn), list(endpoint.connects)
            assert len(connects) == ATTEMPTS + 1
            is_jitter_with_backoff(first, connects)
            upstream.commit(1)  # the endpoint hangs up on it
            await endpoint.until(lambda: len(endpoint.connects) == 2 * (ATTEMPTS + 1))
            second = rng.drawn[len(first) :]
            is_jitter_with_backoff(second, endpoint.connects[len(connects) - 1 :])

    asyncio.run(retry())


def _reconnects(authority: Authority, endpoint: ScriptedEndpoint, *, with_records: bool) -> None:
    async def retry() -> None:
        rng = Draws()
        async with at(authority, endpoint, rng=rng) as upstream:
            if with_records:
                upstream.commit(1)
            await endpoint.until(lambda: len(endpoint.connects) > ATTEMPTS)
            is_jitter_with_backoff(rng.drawn, endpoint.connects)

    asyncio.run(retry())


@case("MQTT_Reconnect_Backoff_Retries_On_Server_Disconnect")
def test_after_a_disconnection_by_the_server_the_link_comes_back_with_jitter_and_backoff(authority: Authority) -> None:
    _reconnects(authority, ScriptedEndpoint(on_publish=lambda _topic: "close"), with_records=True)


class Unstable(ScriptedEndpoint):
    """CONNACK, and the end of the connection."""

    def _connect(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        super()._connect(writer, body)
        return False


@case("MQTT_Reconnect_Backoff_Retries_On_Unstable_Connection")
def test_on_an_unstable_connection_the_link_comes_back_with_jitter_and_backoff(authority: Authority) -> None:
    _reconnects(authority, Unstable(), with_records=False)


# Publish.


@case("MQTT_Publish")
def test_a_record_is_published_with_qos_1_and_never_0(authority: Authority, pki: Pki) -> None:
    async def publish() -> None:
        async with at_the_standin(authority, pki) as (standin, upstream):
            upstream.commit(1)
            await upstream.outbox.until_empty()
            assert standin.delivered == 2, "the birth and the record"
            assert upstream.link.counters["acknowledged"] == upstream.link.counters["published"]

    asyncio.run(publish())


@case("MQTT_Publish_Retry_No_Puback")
def test_a_publish_without_puback_comes_again_on_a_new_connection(authority: Authority) -> None:
    async def retry() -> None:
        endpoint = ScriptedEndpoint(on_publish=lambda _topic: "silence")
        async with at(authority, endpoint, puback_timeout=Duration(1)) as upstream:
            upstream.commit(1)
            await upstream.reported(lambda report: report.fault is LinkFault.PUBACK_TIMEOUT)
            endpoint.on_publish = lambda _topic: "ack"
            await upstream.outbox.until_empty()
        assert [payloads.count("1") for payloads in endpoint.published] == [1] * len(endpoint.published)
        assert len(endpoint.published) >= 2

    asyncio.run(retry())


# Subscribe.


@case("MQTT_Subscribe")
def test_the_link_subscribes(authority: Authority, pki: Pki) -> None:
    async def subscribe() -> None:
        inbox = CommandInbox()
        async with at_the_standin(authority, pki, inbox) as (standin, upstream):
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            await standin.publish(COMMAND, b"{}")
            assert [inbound.topic for inbound in await inbox.take(1)] == [COMMAND]

    asyncio.run(subscribe())


@case("MQTT_Subscribe_Retry_No_Suback")
def test_a_subscribe_without_suback_comes_again_on_a_new_connection(authority: Authority) -> None:
    async def retry() -> None:
        endpoint = ScriptedEndpoint()
        endpoint.suback = None
        async with at(authority, endpoint, inbox=CommandInbox(), puback_timeout=Duration(1)) as upstream:
            await upstream.reported(lambda report: report.fault is LinkFault.SUBSCRIBE_REFUSED)
            assert endpoint.subscribed == [FILTER]
            endpoint.suback = b"\x01"
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            assert len(endpoint.connects) == len(endpoint.subscribed) >= 2

    asyncio.run(retry())


# Keep-alive.


@case("MQTT_No_Ack_PingResp")
def test_without_pingresp_the_link_disconnects(authority: Authority) -> None:
    async def fall_silent() -> None:
        endpoint = ScriptedEndpoint(on_publish=lambda _topic: "silence")
        endpoint.answers_pings = False
        async with at(authority, endpoint, keep_alive=Duration(1), puback_timeout=Duration(30)) as upstream:
            await upstream.reported(lambda report: report.fault is LinkFault.KEEP_ALIVE_TIMEOUT)
            await endpoint.until(lambda: len(endpoint.connects) >= 2)

    asyncio.run(fall_silent())


# Persistent session.


class Flags(ScriptedEndpoint):
    """Writes the flags of each CONNECT down."""

    def __init__(self) -> None:
        super().__init__()
        self.flags: list[int] = []

    def _connect(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        self.flags.append(body[7])
        return super()._connect(writer, body)


@case("Persistent_Session_Happy_Case")
@case("Persistent_Session_Session_Expiry")
def test_every_session_is_clean_and_every_connection_subscribes_anew(authority: Authority) -> None:
    async def come_back() -> None:
        endpoint = Flags()
        endpoint.on_publish = lambda _topic: "close" if len(endpoint.connects) == 1 else "ack"
        async with at(authority, endpoint, inbox=CommandInbox()) as upstream:
            upstream.commit(1)
            await upstream.outbox.until_empty()
            assert endpoint.subscribed == [FILTER] * 2
        assert [flags & 0x02 for flags in endpoint.flags] == [0x02] * 2, "clean session"

    asyncio.run(come_back())


# Shadow and jobs.


@case("Shadow_Publish_Reported_State")
@case("Shadow_Update_Reported_State")
def test_state_is_reported_after_the_connection_and_after_what_is_desired(pki: Pki, tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"log_level": "info", "stats_interval_s": 60, "paused": False}
    setup = b'{"state":{"desired":{"settings":{"paused":true}}},"clientToken":"DeviceAdvisorShadowTestCaseSetup"}'

    async def synchronise() -> None:
        async with linked(pki, tmp_path) as (standin, upstream):
            shadow = Shadow(
                GATEWAY,
                say=upstream.link.say,
                state=lambda: {"link": "online", "counters": {}},
                settings=lambda: settings,
                apply=settings.update,
            )
            upstream.link.add_services(shadow.topics)

            def reported() -> dict[str, Any]:
                return dict(standin.shadows.state(GATEWAY, "lorabridge").get("reported", {}))

            await ticking(lambda: shadow.tick(0.0), lambda: reported().get("link") == "online")
            await standin.publish(f"$aws/things/{GATEWAY}/shadow/name/lorabridge/update", setup)
            await ticking(lambda: shadow.tick(LEAST_INTERVAL), lambda: reported()["settings"]["paused"] is True)

    asyncio.run(synchronise())


@case("Job_Execution")
@pytest.mark.parametrize(
    ("operation", "status"), [("reload-devices", JobStatus.SUCCEEDED), ("reboot", JobStatus.REJECTED)]
)
def test_a_job_comes_to_its_end(pki: Pki, tmp_path: Path, operation: str, status: JobStatus) -> None:
    async def execute() -> None:
        async with linked(pki, tmp_path) as (standin, upstream):
            jobs = Jobs(GATEWAY, say=upstream.link.say, run=lambda job: jobs.finish(job, SUCCEEDED, {}))
            upstream.link.add_services(jobs.topics)
            standin.create_job(GATEWAY, "job-1", {"operation": operation})
            await ticking(jobs.tick, lambda: standin.jobs.execution(GATEWAY, "job-1").status is status)

    asyncio.run(execute())


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if one.outcome is Outcome.NOT_HERE])
def test_a_case_that_cannot_be_run_here(name: str) -> None:
    pytest.skip(CASES[name].why)


def test_every_other_case_has_a_test() -> None:
    here = {name for name, one in CASES.items() if one.outcome is not Outcome.NOT_HERE}
    assert set(tested) == here


def test_the_documentation_shows_every_case() -> None:
    page = Path(__file__).parents[2] / "docs" / "device-advisor.md"
    assert table() in page.read_text(encoding="utf-8")
