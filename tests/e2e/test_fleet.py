"""A living fleet and a bridge that is killed again and again: nobody stays out, nothing is lost, nothing is used twice.

Devices, gateways and attackers live in simulated time in this process; the bridge is a process that is killed every
five simulated minutes. In full, as before a release: LORABRIDGE_FLEET=500x3600 (devices x simulated seconds).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.types import AES128Key
from lorabridge.simulation.cast import NET_ID
from lorabridge.simulation.clock import SimulatedClock
from lorabridge.simulation.fleet import Fleet, FleetSettings
from lorabridge.simulation.fleet_cast import FLEET_ADDRESS_RANGE
from tests.e2e.harness import Installation, installed, open_site, wait_until
from tests.e2e.traffic import tell

DEVICES, SECONDS = (int(number) for number in os.environ.get("LORABRIDGE_FLEET", "60x1200").split("x"))
SPEED = 10.0
KILL_EVERY = 300.0
EVERY = 30.0
ATTACKED = 0.01
REGION = "US915"
SEARCHED = 20
"""Devices whose session keys are searched for at the end; each key costs a pass over everything, in every form."""
_ANSWERING = f'[downlinks]\ngather = "10ms"\n[join]\ndev_addr_range = "{FLEET_ADDRESS_RANGE}"\n[mac]\nsub_band = 2\n'


@contextmanager
def living(fleet: Fleet, clock: SimulatedClock, port: int) -> Iterator[threading.Thread]:
    """The fleet on a loop of its own, until its time is up."""
    failed: list[BaseException] = []

    def live() -> None:
        try:
            asyncio.run(fleet.run("127.0.0.1", port, clock.now() + round(SECONDS * 1e9)))
        except BaseException as error:  # noqa: BLE001  # told where the test waits
            failed.append(error)

    thread = threading.Thread(target=live, name="fleet", daemon=True)
    thread.start()
    yield thread
    thread.join(120)
    assert not thread.is_alive(), "the fleet did not come to its end"
    assert not failed, failed


def every_key(keys: SessionKeys) -> set[AES128Key]:
    """Each once: under 1.0 the network keys are one."""
    found = {keys.f_nwk_s_int_key, keys.s_nwk_s_int_key, keys.nwk_s_enc_key, keys.app_s_key}
    return {key for key in found if key is not None}


def judged(installation: Installation) -> Iterator[dict[str, Any]]:
    """Every line of the log about a frame that was judged and committed, of all runs."""
    for line in installation.whole_log().splitlines():
        if '"frame judged"' in line:
            yield json.loads(line)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_fleet_lives_on_however_often_the_bridge_is_killed() -> None:
    clock = SimulatedClock(SPEED)
    settings = FleetSettings(devices=DEVICES, region=REGION, every_s=EVERY, gateways=2, attacked=ATTACKED, seed=3)
    fleet = Fleet(settings, clock)
    kills = 0
    with (
        open_site() as site,
        installed(site, fleet.device_file, net_id=str(NET_ID), region=REGION, more=_ANSWERING) as installation,
    ):
        bridge = installation.start()
        with living(fleet, clock, installation.udp_port) as thread:
            while thread.is_alive():
                thread.join(KILL_EVERY / SPEED)
                if thread.is_alive():
                    bridge.kill()
                    kills += 1
                    bridge = installation.start()
        installation.wait_drained()
        wait_until(lambda: installation.counters()["outbox_records"] == 0, "everything is acknowledged")
        sample = fleet.session_keys[:SEARCHED]
        installation.note_secrets(key.reveal() for keys in sample for key in every_key(keys))
        _tell(fleet, kills)
        _hold(fleet, installation)


def _hold(fleet: Fleet, installation: Installation) -> None:
    """The promises, from three sides: what the devices know, what the log says, what arrived."""
    arrived = {record["id"]: record for record in installation.site.payloads("uplink")}
    lines = list(judged(installation))
    accepted = Counter(line["uplink"] for line in lines if line["verdict"] == "accepted")
    assert {uplink for uplink, times in accepted.items() if times > 1} == set(), "accepted twice"
    assert set(accepted) - set(arrived) == set(), "accepted and lost"
    # A frame stands in the log once it is committed, and a kill may come in between: what arrived is the larger set.
    plain = Counter(base64.b64decode(one["payload"]) for one in arrived.values() if one.get("payload"))
    sent = {one.payload for one in fleet.books.uplinks}
    assert set(plain) - sent == set(), "arrived and never sent"
    assert {payload for payload, times in plain.items() if times > 1} == set(), "one frame as two uplinks"
    assert fleet.books.repeated_counters == [], "a downlink counter was used twice"
    assert fleet.flaws == {}
    assert fleet.stuck == []
    assert fleet.books.events["joins"] >= DEVICES * 8 // 10
    assert fleet.books.events["acknowledged"] > 0
    assert sum(fleet.books.attacks.values()) > 0
    verdicts = Counter(line["verdict"] for line in lines)
    assert verdicts["accepted"] > 0
    assert verdicts["malformed"] == 0


def _tell(fleet: Fleet, kills: int) -> None:
    """Figures for whoever looks at the run (`pytest -s`); margins to RX1 are in simulated time."""
    books = fleet.books
    tell(
        devices=DEVICES,
        seconds=SECONDS,
        kills=kills,
        uplinks=len(books.uplinks),
        reached_a_bridge=sum(one.reached_bridge for one in books.uplinks),
        downlinks_heard=len(books.downlinks),
        events=dict(books.events),
        attacks=dict(books.attacks),
        margin_p50_ms=books.margin_ms(50),
        margin_p99_ms=books.margin_ms(99),
    )
