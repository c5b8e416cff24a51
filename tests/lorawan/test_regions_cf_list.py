"""CFList: what a join-accept says of channels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.regions.cf_list import (
    CFList,
    build_frequencies,
    build_frequency,
    build_masks,
    parse,
    parse_frequency,
)
from tests.vector_files import vector_id, vectors

BELOW_2400 = st.integers(1, (1 << 24) - 1).map(lambda units: units * 100).filter(lambda hz: hz < 1_200_000_000)
AT_2400 = st.integers(2_400_000_000 // 200, (1 << 24) - 1).map(lambda units: units * 200)
FREQUENCIES = BELOW_2400 | AT_2400


@pytest.mark.parametrize("vector", vectors("cflist"), ids=vector_id)
def test_lists_of_others_are_read_and_built_alike(vector: dict[str, Any]) -> None:
    raw, expected = bytes.fromhex(vector["input"]["cf_list"]), vector["expect"]
    found = parse(raw)
    assert found.cf_list_type == expected["type"]
    if expected["type"] == 0:
        assert found.frequencies_hz == tuple(expected["frequencies_hz"])
        assert build_frequencies(found.frequencies_hz) == raw
    else:
        masks = expected["ch_masks"]
        assert found.channels == {16 * i + bit for i, mask in enumerate(masks) for bit in range(16) if mask >> bit & 1}
        assert build_masks(found.channels) == raw


@given(st.lists(FREQUENCIES, max_size=5).map(tuple))
def test_frequencies_come_back(frequencies_hz: tuple[int, ...]) -> None:
    assert parse(build_frequencies(frequencies_hz)) == CFList(0, frequencies_hz=frequencies_hz)


@given(st.frozensets(st.integers(0, 95)))
def test_channels_come_back(channels: frozenset[int]) -> None:
    assert parse(build_masks(channels)) == CFList(1, channels=channels)


def test_a_channel_that_is_left_out_keeps_the_place_of_the_next() -> None:
    frequencies = (867_100_000, 0, 867_500_000)
    assert parse(build_frequencies(frequencies)).frequencies_hz == frequencies


@pytest.mark.parametrize("region", REGIONS.values(), ids=lambda region: region.name)
def test_the_usual_channels_of_every_region_can_be_said(region: Any) -> None:
    usual = region.usual_channels_hz[:5]
    assert parse(build_frequencies(usual)).frequencies_hz == usual


def test_at_2400_mhz_a_unit_is_200_hz() -> None:
    assert build_frequency(2_403_000_000) == (12_015_000).to_bytes(3, "little")
    assert parse_frequency(build_frequency(2_403_000_000)) == 2_403_000_000
    assert build_frequency(868_100_000) == (8_681_000).to_bytes(3, "little")


@pytest.mark.parametrize("frequency_hz", [868_100_050, -100, 1_700_000_000, 2_403_000_100, 3_400_000_000])
def test_a_frequency_that_does_not_fit_is_refused(frequency_hz: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        build_frequencies((frequency_hz,))


def test_more_than_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="room for 5"):
        build_frequencies((867_100_000,) * 6)
    for channel in (-1, 96):
        with pytest.raises(ValueError, match="0 to 95"):
            build_masks(frozenset({channel}))


@given(st.binary(max_size=20))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    if len(data) == 16 and data[15] <= 1:
        assert parse(data).cf_list_type == data[15]
    else:
        with pytest.raises(ValueError, match="CFList"):
            parse(data)


@given(st.binary(min_size=16, max_size=16))
def test_a_list_of_frequencies_is_the_same_when_built_again(data: bytes) -> None:
    raw = data[:15] + b"\0"
    found = parse(raw).frequencies_hz
    # What lies between 1.2 and 1.68 GHz can be read as 2.4 GHz and more, and is written back so.
    assert build_frequencies(found) == raw


@pytest.mark.parametrize("size", [0, 2, 4])
def test_a_frequency_has_three_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        parse_frequency(bytes(size))
