"""Channel plans: the whole of every region, and the refusal of what two radios cannot hear."""

from __future__ import annotations

import msgspec
import pytest

from lorabridge.lorawan.regions import REGIONS, Channels
from lorabridge.radio.channel_plan import KHZ, all_plans, make_plan, sub_bands


def test_every_region_but_that_of_2400_mhz_has_plans() -> None:
    assert {plan.region.name for plan in all_plans()} == REGIONS.keys() - {"ISM2400"}
    assert len({plan.name for plan in all_plans()}) == len(all_plans()) == 10 + 8 + 8 + 12


def test_the_sub_bands_cover_the_narrow_channels_once() -> None:
    for name in ("US915", "AU915", "CN470"):
        region = REGIONS[name]
        plans = [make_plan(region, number) for number in sub_bands(region)]
        heard = [plan.hz(channel) for plan in plans for channel in plan.multi_sf]
        assert tuple(heard) == region.channels[0].all_hz


@pytest.mark.parametrize(
    ("name", "sub_band", "told"),
    [
        ("US915", 0, "1 to 8"),
        ("US915", 9, "1 to 8"),
        ("US915", -1, "1 to 8"),
        ("CN470", 13, "1 to 12"),
        ("EU868", 1, "no sub-bands"),
        ("ISM2400", 0, "does not fit 2 radios"),
    ],
)
def test_a_plan_that_does_not_exist_is_refused(name: str, sub_band: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_plan(REGIONS[name], sub_band)


@pytest.mark.parametrize(
    ("first_khz", "step_khz", "count", "told"),
    [
        (868_100, 200, 11, "does not fit"),
        (868_100, 1_000, 3, "does not fit"),
        (869_700, 200, 1, "not calibrated for 870.100 MHz"),
        (600_000, 200, 3, "not calibrated"),
    ],
)
def test_channels_that_the_chips_cannot_take_are_refused(first_khz: int, step_khz: int, count: int, told: str) -> None:
    run = Channels(first_khz * KHZ, step_khz * KHZ, count, 0)
    region = msgspec.structs.replace(REGIONS["RU864"], channels=(run,))
    with pytest.raises(ValueError, match=told):
        make_plan(region)


def test_a_wide_channel_at_the_edge_of_a_radio_is_refused() -> None:
    region = msgspec.structs.replace(REGIONS["EU868"], channels=(), usual_channels_hz=(867_000 * KHZ,))
    with pytest.raises(ValueError, match=r"868\.300 MHz is outside"):
        make_plan(region)
