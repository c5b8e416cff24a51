"""`[join]`, `[mac]`, `[downlinks]`: what they make of a policy, and what the region forbids."""

from __future__ import annotations

from typing import Any

import pytest

from lorabridge.daemon.answering import JoinSettings, MacSettings, answering_of, policy_of
from lorabridge.daemon.assembly import network_of
from lorabridge.daemon.config import parse
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import RejoinParameters
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import NetID
from tests.daemon.config_help import SMALLEST, places_of, problems_of
from tests.lorawan.joining import joiner

EU868, US915 = REGIONS["EU868"], REGIONS["US915"]


def test_left_out_everything_is_the_regions_default() -> None:
    assert policy_of(MacSettings(), None) == MacPolicy()
    assert policy_of(MacSettings(), US915) == MacPolicy()
    assert policy_of(MacSettings(), EU868).channels_hz == EU868.usual_channels_hz


def test_what_is_written_becomes_the_policy() -> None:
    settings = MacSettings(
        channels=(867.1,),
        rx1_frequency=869.525,
        rx2_frequency=869.525,
        rejoin_max_time=3,
        rejoin_max_count=4,
        adr=False,
        status_every=9,
    )
    policy = policy_of(settings, EU868)
    assert policy.channels_hz == (867_100_000,)
    assert (policy.rx1_frequency_hz, policy.rx2_frequency_hz) == (869_525_000, 869_525_000)
    assert (policy.rejoin, policy.adr, policy.status_every) == (RejoinParameters(3, 4), False, 9)


@pytest.mark.parametrize(
    ("region", "sub_band", "enabled"),
    [
        ("US915", 2, frozenset(range(8, 16)) | {65}),
        ("AU915", 8, frozenset(range(56, 64)) | {71}),
        ("CN470", 12, frozenset(range(88, 96))),
        ("US915", 0, None),
    ],
)
def test_a_sub_band_is_eight_channels_and_the_wide_one_among_them(
    region: str, sub_band: int, enabled: frozenset[int] | None
) -> None:
    assert policy_of(MacSettings(sub_band=sub_band), REGIONS[region]).enabled == enabled


@pytest.mark.parametrize(
    ("region", "line", "where"),
    [
        ("EU868", "rx1_dr_offset = 6", "mac.rx1_dr_offset"),
        ("EU868", "rx2_data_rate = 14", "mac.rx2_data_rate"),
        ("EU868", "rx2_frequency = 915.0", "mac.rx2_frequency"),
        ("EU868", "rx1_frequency = 915.0", "mac.rx1_frequency"),
        ("US915", "rx1_frequency = 923.3", "mac.rx1_frequency"),
        ("US915", "channels = [903.1]", "mac.channels"),
        ("EU868", f"channels = {[867.1] * 14}", "mac.channels"),
        ("US915", "sub_band = 9", "mac.sub_band"),
        ("EU868", "sub_band = 1", "mac.sub_band"),
        ("EU868", "max_eirp_index = 16", "mac"),
        ("EU868", "rejoin_max_time = 3", "mac"),
        ("EU868", "rx1_delay = 16", "mac.rx1_delay"),
    ],
)
def test_what_the_region_or_the_air_cannot_have_is_refused_by_its_name(region: str, line: str, where: str) -> None:
    text = SMALLEST + f'[network]\nregion = "{region}"\n[mac]\n{line}\n'
    assert where in places_of(text)
    unknown_region = SMALLEST + f"[mac]\n{line}\n"
    if where.count(".") and not line.startswith("rx1_delay"):
        assert problems_of(unknown_region) == []  # nobody can tell


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('dev_addr_range = "26011000"', "join.dev_addr_range"),
        ('net_id = "000014"\ndev_addr_range = "26011000/20"', "join.dev_addr_range"),
    ],
)
def test_an_address_range_must_have_its_form_and_belong_to_its_network(lines: str, where: str) -> None:
    assert places_of(SMALLEST + f"[join]\n{lines}\n") == [where]
    assert places_of(SMALLEST + '[join]\nnet_id = "000013"\ndev_addr_range = "26011000/20"\n') == []


@pytest.mark.parametrize("region", ['[network]\nregion = "EU868"', ""])
@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("rx1_frequency = 869.52555", "mac.rx1_frequency"),
        ("rx2_frequency = 869.52555", "mac.rx2_frequency"),
        ("channels = [867.1, 867.30005]", "mac.channels"),
    ],
)
def test_a_frequency_that_no_command_can_say_is_refused(region: str, line: str, where: str) -> None:
    assert places_of(f"{SMALLEST}{region}\n[mac]\n{line}\n") == [where]


def test_gathering_copies_for_ever_is_refused() -> None:
    assert places_of(SMALLEST + '[downlinks]\ngather = "11s"\n') == ["downlinks"]


@pytest.mark.parametrize(
    ("join", "how", "net_id", "address_range"),
    [
        (JoinSettings(), {}, 0, (0, 7)),
        (JoinSettings(), {"net_ids": (NetID(0x13), NetID(0x14))}, 0x13, (0x2600_0000, 7)),
        (JoinSettings(net_id=NetID(0x14)), {"net_ids": (NetID(0x13),)}, 0x14, (0x2800_0000, 7)),
        (JoinSettings(), {"dev_addr_range": (0x2601_1000, 20)}, 0, (0x2601_1000, 20)),
    ],
)
def test_addresses_come_from_the_range_or_the_network_that_was_named(
    join: JoinSettings, how: dict[str, Any], net_id: int, address_range: tuple[int, int]
) -> None:
    base: dict[str, Any] = {"net_ids": (), "dev_addr_range": None, "mute_sources": frozenset()}
    answering = answering_of(join, MacPolicy(), **(base | how))
    assert (answering.net_id, answering.address_range) == (net_id, address_range)


def test_addresses_given_to_joining_devices_are_ours_on_the_air() -> None:
    config = parse((SMALLEST + '[network]\nregion = "EU868"\n').encode(), "file")
    assert network_of(config, [joiner()]).dev_addr_prefixes == ((0, 7),)
    assert network_of(config, []).dev_addr_prefixes == ()
