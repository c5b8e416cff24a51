"""What may be changed from afar, and what is reported."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from lorabridge.daemon.remote import Remote, shadow_state
from lorabridge.upstream.shadow import MAX_DOCUMENT, SETTINGS


@pytest.fixture
def level() -> Iterator[None]:
    logger = logging.getLogger("lorabridge")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("level")
def test_every_setting_that_the_shadow_may_change_is_changed() -> None:
    paused: list[bool] = []
    remote = Remote(60.0, paused.append)
    remote.apply({"log_level": "error", "stats_interval_s": 10, "paused": True})
    assert remote.settings() == {"log_level": "error", "stats_interval_s": 10, "paused": True}
    assert remote.settings().keys() == SETTINGS.keys()
    assert remote.stats_interval == 10.0
    remote.apply({"paused": False})
    assert paused == [True, False]
    assert logging.getLogger("lorabridge").level == logging.ERROR


def test_the_state_is_small_whatever_is_lost() -> None:
    answer = {
        "version": "0.1",
        "link": "online",
        "paused": False,
        "store": "ok",
        "devices": 10_000,
        "commands": "on",
        "radios_down": {f"udp {number:016x}": "radio_silent" for number in range(1000)},
        "verdicts": {"accepted": 2**40},
        "counters": {"outbox_records": 5, "something": 1},
        "gateways": {"x": "y"},
    }
    state = shadow_state(answer, "abcd")
    assert len(json.dumps(state)) < MAX_DOCUMENT / 2
    assert state["config_fingerprint"] == "abcd"
    assert state["counters"] == {"outbox_records": 5, "accepted": 2**40}
    assert "gateways" not in state
