"""`lorabridge doctor` beside a bridge that runs: it is not disturbed, unless somebody wants it to be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorabridge.upstream.doctor.steps import MQTT
from tests.e2e.harness import Installation, Site, installed, wait_until


def _outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["outcome"] for step in document["steps"]}


def _connects(site: Site) -> int:
    return site.endpoint.standin.counters["connected"]


def _is_online(installation: Installation) -> bool:
    return bool(installation.status()["link"] == "online") and installation.counters()["link_acknowledged"] > 0


@pytest.mark.slow
def test_a_running_bridge_keeps_its_connection_and_with_take_over_it_comes_back(site: Site) -> None:
    with installed(site, "") as installation:
        before = _connects(site)
        bridge = installation.start()
        config = ("--config", str(installation.configuration))
        wait_until(lambda: _is_online(installation), "online and acknowledged")
        asked = installation.cli("doctor", "--json", *config)
        assert asked.returncode == 0, asked.stdout + asked.stderr
        outcomes = _outcomes(json.loads(asked.stdout))
        assert {outcomes[step.value] for step in MQTT} == {"ok", "skipped"}, (
            "without downlinks nothing is subscribed to"
        )
        assert _connects(site) == before + 1, "the bridge's own"
        taken = installation.cli("doctor", "--json", "--take-over", *config)
        assert taken.returncode == 0, taken.stdout + taken.stderr
        assert _outcomes(json.loads(taken.stdout))["publish"] == "ok"
        assert _outcomes(json.loads(taken.stdout))["alone"] == "skipped", "the bridge comes back, as it should"
        wait_until(lambda: _connects(site) >= before + 3 and _is_online(installation), "the bridge is back")
        bridge.stop()
        alone = installation.cli("doctor", "--json", *config)
        assert alone.returncode == 0, alone.stdout + alone.stderr
        assert _outcomes(json.loads(alone.stdout))["publish"] == "ok"
