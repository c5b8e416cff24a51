"""ChMaskCntl and ChMask: requests for a set of channels, and what a device makes of them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.regions.channel_mask import apply_masks, mask_requests

NAMES = sorted(REGIONS)
US915 = REGIONS["US915"]
EVERY = frozenset(range(72))
SUB_BAND_2 = frozenset({*range(8, 16), 65})


@st.composite
def channel_sets(draw: st.DrawFn) -> tuple[Region, frozenset[int], frozenset[int], frozenset[int]]:
    """A region, the channels a device has, those that are on, and those that shall be."""
    region = REGIONS[draw(st.sampled_from(NAMES))]
    some = st.frozensets(st.integers(0, region.max_channels - 1), min_size=1)
    if region.fixed:
        # Whole banks and blocks too: sets drawn one by one hardly ever have them.
        blocks = [frozenset(range(first, min(first + 8, region.max_channels))) for first in range(0, 96, 8)]
        blocks = [block for block in blocks if block]
        some |= st.lists(st.sampled_from(blocks) | some, min_size=1, max_size=6).map(lambda s: frozenset().union(*s))
        known = frozenset(range(region.max_channels))
    else:
        known = frozenset(range(region.channel_count)) | draw(some)
    wanted = draw(some) & known
    return region, known, draw(some) & known, wanted or known


@given(channel_sets(), st.booleans())
def test_a_device_that_applies_the_requests_has_the_wanted_channels(
    drawn: tuple[Region, frozenset[int], frozenset[int], frozenset[int]], has_banks: bool
) -> None:
    region, known, current, wanted = drawn
    requests = mask_requests(region, wanted, has_banks=has_banks)
    assert apply_masks(region, current, requests, known) == wanted
    assert all(0 <= cntl <= 7 and 0 <= mask <= 0xFFFF for cntl, mask in requests)
    assert len(requests) <= -(-region.max_channels // 16)
    assert has_banks or all(cntl != 5 for cntl, _ in requests) or region.max_channels == 96


@given(channel_sets())
def test_no_single_request_would_do_where_two_are_made(
    drawn: tuple[Region, frozenset[int], frozenset[int], frozenset[int]],
) -> None:
    region, known, _, wanted = drawn
    if len(mask_requests(region, wanted)) == 1 or region.max_channels == 96:
        return
    # Whatever was on before: from nothing and from everything.
    for cntl, mask in product((5, 6, 7), range(256)):
        outcomes = {apply_masks(region, current, [(cntl, mask)], known) for current in (frozenset({0}), known)}
        assert outcomes != {wanted}


@pytest.mark.parametrize(
    ("enabled", "has_banks", "requests"),
    [
        (SUB_BAND_2, True, ((5, 0b10),)),
        (SUB_BAND_2, False, ((7, 0b10), (0, 0xFF00))),
        (EVERY, True, ((6, 0xFF),)),
        (EVERY - {64}, True, ((6, 0xFE),)),
        (frozenset({70}), True, ((7, 0b0100_0000),)),
        (frozenset({1, 2}), True, ((7, 0), (0, 0b110))),
        (frozenset(range(8)), True, ((7, 0), (0, 0xFF))),
        (EVERY - {0, 20, 40, 60}, True, ((0, 0xFFFE), (1, 0xFFEF), (2, 0xFEFF), (3, 0xEFFF), (4, 0xFF))),
        (frozenset({*range(16), *range(24, 32), *range(40, 48), *range(64, 68)}), True, ((5, 0b10_1011), (4, 0b1111))),
    ],
)
def test_the_fewest_requests_are_made(
    enabled: frozenset[int], has_banks: bool, requests: tuple[tuple[int, int], ...]
) -> None:
    assert mask_requests(US915, enabled, has_banks=has_banks) == requests


def test_regions_with_sixteen_channels_need_one_request() -> None:
    assert mask_requests(REGIONS["EU868"], frozenset({0, 1, 2, 7})) == ((0, 0b1000_0111),)


def test_a_plan_of_96_channels_has_blocks_and_all() -> None:
    cn470 = REGIONS["CN470"]
    assert mask_requests(cn470, frozenset(range(96))) == ((6, 0),)
    assert mask_requests(cn470, frozenset(range(95))) == ((6, 0), (5, 0x7FFF))
    assert len(mask_requests(cn470, frozenset({0}))) == 6


@pytest.mark.parametrize(
    ("region", "masks", "known"),
    [
        ("EU868", [(0, 0)], 3),  # no channel left
        ("EU868", [(0, 0b1000)], 3),  # one it does not have
        ("EU868", [(1, 1)], 16),
        ("EU868", [(4, 1)], 16),
        ("EU868", [(5, 1)], 16),
        ("EU868", [(7, 1)], 16),
        ("US915", [(7, 0)], 72),
        ("US915", [(5, 0)], 72),
        ("CN470", [(7, 1)], 96),
        ("ISM2400", [(0, 0b1000)], 3),
    ],
)
def test_a_device_refuses_what_it_cannot_do(region: str, masks: list[tuple[int, int]], known: int) -> None:
    assert apply_masks(REGIONS[region], frozenset({0}), masks, frozenset(range(known))) is None


def test_all_channels_are_all_that_the_device_has() -> None:
    known = frozenset({0, 1, 2, 5})
    assert apply_masks(REGIONS["EU868"], frozenset({0}), [(6, 0)], known) == known


def test_reserved_bits_of_wide_masks_are_passed_over() -> None:
    assert apply_masks(US915, EVERY, [(7, 0xFF01)], EVERY) == frozenset({64})
    assert apply_masks(US915, frozenset({0}), [(4, 0xFF01)], EVERY) == frozenset({0, 64})


@pytest.mark.parametrize("enabled", [frozenset[int](), frozenset({-1}), frozenset({72})])
def test_impossible_channels_are_refused(enabled: frozenset[int]) -> None:
    with pytest.raises(ValueError, match="US915 has the channels 0 to 71"):
        mask_requests(US915, enabled)
