"""The certificates of the stand-in's tests, and a stand-in with one thing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin import thing_policy
from tests.simulation.standin_help import GATEWAY, Paho, Running, new_pki, paho, running


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return new_pki(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def standin(pki: Pki) -> Iterator[Running]:
    with running(pki, policies={pki.gateway.fingerprint: thing_policy(GATEWAY)}) as started:
        yield started


@pytest.fixture
def gateway(pki: Pki, standin: Running) -> Iterator[Paho]:
    with paho(pki, standin.standin.port) as client:
        yield client.ready()
