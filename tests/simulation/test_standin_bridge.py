"""The bridge's own uses of the services, at the stand-in: its shadow, its jobs, and its provisioning by claim.

The policies are those of docs/cloudformation/lorabridge.yaml: what they grant is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from lorabridge.cli.main import main
from lorabridge.simulation.pki import Pair, Pki, new_ec_key
from lorabridge.simulation.standin import Happening, Policy, Refusal, StandIn, StandInSettings, Template
from lorabridge.simulation.standin.services.jobs import JobStatus
from lorabridge.upstream.jobs import SUCCEEDED, Job, Jobs
from lorabridge.upstream.shadow import LEAST_INTERVAL, Setting, Shadow
from tests.pki import Authority
from tests.simulation.standin_help import ENDPOINT, GATEWAY
from tests.simulation.standin_help import running as standing_in
from tests.upstream.harness import Upstream, link_settings
from tests.upstream.harness import running as linking
from tests.upstream.test_cloudformation import ARN, _statements, _text

TEMPLATE = "lorabridge"
SHADOW = f"$aws/things/{GATEWAY}/shadow/name/lorabridge"


def template_policy(name: str) -> Policy:
    """A policy of the CloudFormation template, as the stand-in reads policies."""
    granted: dict[str, list[str]] = {}
    for statement in _statements(name, websocket=False):
        resources = statement["Resource"]
        for resource in resources if isinstance(resources, list) else [resources]:
            kind, _, pattern = _text(resource).removeprefix(ARN).partition("/")
            assert kind in ("client", "topic", "topicfilter")
            granted.setdefault(statement["Action"], []).append(pattern)
    (client_id,) = granted["iot:Connect"]
    return Policy(
        client_id=client_id,
        publish=tuple(granted["iot:Publish"]),
        retain=tuple(granted.get("iot:RetainPublish", ())),
        subscribe=tuple(granted["iot:Subscribe"]),
        receive=tuple(granted["iot:Receive"]),
        last_will=True,
    )


@pytest.fixture(scope="module")
def claim(pki: Pki) -> Pair:
    return pki.devices.client("claim", new_ec_key(), "claim")


def configuration(folder: Path, pki: Pki, port: int) -> Path:
    """As an operator's, before there is a certificate."""
    (folder / "etc").mkdir()
    path = folder / "lorabridge.toml"
    path.write_text(f"""
[gateway]
id = "{GATEWAY}"
[aws_iot]
endpoint = "{ENDPOINT}"
connect_address = "127.0.0.1:{port}"
thing_name = "{GATEWAY}"
ca_file = "{pki.ca_file}"
certificate_file = "{folder}/etc/own.pem"
private_key_file = "{folder}/etc/own.key"
[[radio]]
type = "semtech_udp"
bind = "127.0.0.1"
""")
    return path


def arguments(config: Path, claim: Pair) -> list[str]:
    files = ["--claim-certificate", str(claim.certificate), "--claim-key", str(claim.key)]
    return ["provision", "--config", str(config), "--template", TEMPLATE, *files]


def test_provisioning_by_claim_gives_a_certificate_that_works(
    pki: Pki, claim: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = {claim.fingerprint: template_policy("ClaimPolicy")}
    with standing_in(pki, policies=policies, templates={TEMPLATE: Template()}) as started:
        config = configuration(tmp_path, pki, started.standin.port)
        assert main(arguments(config, claim)) == 0
        certificate = x509.load_pem_x509_certificate((tmp_path / "etc" / "own.pem").read_bytes())
        assert "proved" in capsys.readouterr().out
        assert started.happened(Happening.CONNECTED).detail == f"{GATEWAY} MQTT 3.1.1"
        assert [topic for topic, _ in started.published][-1] == f"lorabridge/{GATEWAY}/status"
        assert certificate.issuer != certificate.subject


def test_a_template_that_is_not_there_is_told(
    pki: Pki, claim: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with standing_in(pki, policies={claim.fingerprint: template_policy("ClaimPolicy")}) as started:
        assert main(arguments(configuration(tmp_path, pki, started.standin.port), claim)) == 1
        assert "ResourceNotFound" in capsys.readouterr().out


@asynccontextmanager
async def linked(pki: Pki, folder: Path) -> AsyncIterator[tuple[StandIn, Upstream]]:
    """The bridge's link, about to be online at a stand-in that lets it use its thing's shadows and jobs."""
    files = {
        "ca_file": str(pki.ca_file),
        "certificate_file": str(pki.gateway.certificate),
        "private_key_file": str(pki.gateway.key),
    }
    rights = StandInSettings(policies={pki.gateway.fingerprint: template_policy("GatewayPolicy")})
    async with (
        asyncio.timeout(60),
        StandIn(rights, pki=pki) as standin,
        linking(link_settings(Authority(folder), standin.port, **files)) as upstream,
    ):
        yield standin, upstream
        assert standin.counters[Refusal.PUBLISH.value] == standin.counters[Refusal.SUBSCRIBE.value] == 0


async def ticking(tick: Callable[[], None], until: Callable[[], bool]) -> None:
    """The bridge's ticks, without its second between them."""
    while not until():
        tick()
        await asyncio.sleep(0.01)


def test_the_bridges_shadow_is_reported_and_what_the_cloud_desires_is_applied(pki: Pki, tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"log_level": "info", "stats_interval_s": 60, "paused": False}

    async def live() -> None:
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
            await standin.publish(f"{SHADOW}/update", b'{"state":{"desired":{"settings":{"paused":true}}}}')
            await ticking(lambda: shadow.tick(LEAST_INTERVAL), lambda: reported()["settings"]["paused"] is True)
            assert settings["paused"] is True

    asyncio.run(live())


def test_the_bridge_carries_out_a_job_it_knows_and_rejects_another(pki: Pki, tmp_path: Path) -> None:
    async def live() -> None:
        async with linked(pki, tmp_path) as (standin, upstream):

            def run(job: Job) -> None:
                jobs.finish(job, SUCCEEDED, {"devices": "7"})

            jobs = Jobs(GATEWAY, say=upstream.link.say, run=run)
            upstream.link.add_services(jobs.topics)
            standin.create_job(GATEWAY, "known", {"operation": "reload-devices"})
            await ticking(jobs.tick, lambda: standin.jobs.execution(GATEWAY, "known").status is JobStatus.SUCCEEDED)
            assert standin.jobs.execution(GATEWAY, "known").details == {"devices": "7"}
            standin.create_job(GATEWAY, "unknown", {"operation": "format-disk"})
            await ticking(jobs.tick, lambda: standin.jobs.execution(GATEWAY, "unknown").status is JobStatus.REJECTED)
            assert "format-disk" in standin.jobs.execution(GATEWAY, "unknown").details["reason"]

    asyncio.run(live())
