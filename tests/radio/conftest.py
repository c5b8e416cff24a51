"""The stand-in library, compiled once, and a concentrator that uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.settings import Duration
from tests.radio.sx1302_bench import compiled
from tests.radio.sx1302_plan import PLAN


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def settings(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sx1302Settings:
    monkeypatch.setenv("SX1302_STANDIN", str(tmp_path))
    path = tmp_path / "global_conf.json"
    path.write_text("/* a plan */" + json.dumps({"SX130x_conf": PLAN}) + "// its end\n")
    return Sx1302Settings(library=library, configuration=path, silence=Duration(1.5), start_timeout=Duration(3))
