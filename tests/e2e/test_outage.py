"""The endpoint is gone for a long time, or comes and goes: nothing is lost, nothing is reordered, memory stays.

LORABRIDGE_OUTAGE_FRAMES sets how many frames come while the endpoint is away, LORABRIDGE_OUTAGE_RATE how many a second
(0: as fast as the bridge takes them). Ten minutes at 50 frames a second are 30000 and 50.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence

import pytest

from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import Installation, Site, installed, wait_until
from tests.e2e.traffic import Account, Frame, Identity, device_file, frames, tell

FRAMES = int(os.environ.get("LORABRIDGE_OUTAGE_FRAMES", "5000"))
RATE = float(os.environ.get("LORABRIDGE_OUTAGE_RATE", "0"))
DEVICES = 5
CHUNK = 500
"""Frames between two looks at whether the bridge keeps up."""
MEMORY_MIB = 24
"""How much more the bridge may hold when the outage is over than when it began: a queue of bounded length."""
BROKER_DEATHS = 10
LOG = 'level = "info"'


def offer(installation: Installation, sent: Sequence[Frame], *, rate: float) -> None:
    """Send frames, at a rate or as fast as they are judged; returns when this run of the bridge has committed them."""
    judged = installation.judged()
    begun = time.monotonic()
    with Forwarder(installation.udp_port) as forwarder:
        for number, frame in enumerate(sent):
            if rate:
                forwarder.pause(begun + number / rate - time.monotonic())
            elif number % CHUNK == CHUNK - 1:
                installation.wait_judged(judged + number - CHUNK)
            forwarder.push([frame.rxpk(number)])
        forwarder.settle()
    installation.wait_judged(judged + len(sent))


def assert_in_order(account: Account, sent: Sequence[Frame]) -> None:
    """First arrivals of each device have ascending counters; with one connection, all have the order of the sending."""
    by_device: dict[str, list[int]] = defaultdict(list)
    for dev_eui, fcnt32 in account.order:
        by_device[dev_eui].append(fcnt32)
    assert {dev_eui: counters for dev_eui, counters in by_device.items() if counters != sorted(counters)} == {}
    wanted: list[Identity] = [frame.identity for frame in sent]
    assert account.order == wanted


@pytest.mark.slow
@pytest.mark.timeout(300 + (FRAMES / RATE if RATE else FRAMES / 100))
def test_outage_loses_nothing_and_keeps_the_order(site: Site) -> None:
    sent = list(frames(DEVICES, FRAMES, seed=7))
    before, first, second = sent[:100], sent[100 : FRAMES // 2], sent[FRAMES // 2 :]
    account = Account(site.published)
    with installed(site, device_file(DEVICES), log=LOG) as installation:
        bridge = installation.start()
        # What is committed a moment before the link is up waits for what is committed a moment after: fresh goes first.
        wait_until(lambda: installation.status()["link"] == "online", "the link is up")
        offer(installation, before, rate=RATE)
        installation.wait_drained()
        memory = [bridge.resident_mib()]

        site.refuse(on=True)
        begun = time.monotonic()
        offer(installation, first, rate=RATE)
        assert installation.counters()["outbox_records_uplink"] == len(first)
        memory.append(bridge.resident_mib())
        bridge.kill()
        bridge = installation.start()
        assert installation.counters()["outbox_records_uplink"] == len(first)
        offer(installation, second, rate=RATE)
        memory.append(bridge.resident_mib())
        status = installation.cli("status", "--config", str(installation.configuration))
        assert status.returncode == 1, "the link is down, and the exit status says so"
        assert len(account) == len(before)
        outage = time.monotonic() - begun

        begun = time.monotonic()
        site.refuse(on=False)
        installation.wait_drained(60 + FRAMES / 200)
        drained = time.monotonic() - begun
        memory.append(bridge.resident_mib())
        account.assert_complete(sent)
        assert_in_order(account, sent)
        assert not account.again, "nobody was waiting for a PUBACK"
        wait_until(lambda: installation.counters()["outbox_bytes"] < 100_000, "the outbox is empty")
        counters = installation.counters()
        assert counters["radio_udp_inbox_dropped"] == counters["radio_udp_kernel_dropped"] == 0
        assert counters["outbox_dropped_uplink"] == counters["outbox_parked"] == 0
        bridge.stop()
        assert max(memory[1:]) - memory[0] < MEMORY_MIB, memory
    tell(
        frames=FRAMES,
        outage_s=round(outage),
        drained_s=round(drained, 1),
        drained_per_s=round((FRAMES - 100) / drained),
        mib_before_and_in_and_after=[round(mib, 1) for mib in memory],
    )


@pytest.mark.slow
def test_broker_that_dies_again_and_again_under_load_costs_nothing(site: Site) -> None:
    sent = list(frames(DEVICES, BROKER_DEATHS * 400, seed=8))
    account = Account(site.published)
    with installed(site, device_file(DEVICES), log=LOG) as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            for death in range(BROKER_DEATHS):
                send_while_the_broker_dies(site, forwarder, sent[death * 400 : (death + 1) * 400], after=40 * death)
                account.wait_for_more()
        installation.wait_judged(len(sent))
        installation.wait_drained()
        account.assert_complete(sent)
        counters = installation.counters()
        bridge.stop()
        assert counters["outbox_parked"] == 0, "no record is guilty of a broker's death"
        assert counters["outbox_dropped_uplink"] == 0
    tell(broker_deaths=BROKER_DEATHS, resent=counters["drain_resent"], arrived_again=sum(account.again.values()))


@pytest.mark.slow
def test_endpoint_that_accepts_and_never_answers_costs_nothing(site: Site) -> None:
    sent = list(frames(DEVICES, 900, seed=9))
    account = Account(site.published)
    with installed(site, device_file(DEVICES), log=LOG, aws_iot='puback_timeout = "1s"') as installation:
        bridge = installation.start()
        offer(installation, sent[:300], rate=0)
        installation.wait_drained()
        site.stall(on=True)
        offer(installation, sent[300:600], rate=0)
        wait_until(lambda: installation.status()["link"] != "online", "the silence is noticed")
        offer(installation, sent[600:], rate=0)
        assert installation.counters()["outbox_records_uplink"] == 600
        site.stall(on=False)
        installation.wait_drained()
        account.assert_complete(sent)
        assert installation.counters()["outbox_parked"] == 0
        bridge.stop()


def send_while_the_broker_dies(site: Site, forwarder: Forwarder, part: Sequence[Frame], *, after: int) -> None:
    """Frames without pause; after some of them the broker is killed and started again."""
    for number, frame in enumerate(part):
        forwarder.push([frame.rxpk(number)])
        if number == after:
            site.broker.kill()
            site.broker.start()
