"""Adaptive data rate: what it does, and that it never leaves the region's table."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.adr import HISTORY, Adaptation, adapt, required_snr_db, to_margin
from lorabridge.lorawan.air import FskDataRate, LoraDataRate
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import REGIONS, Region

EU868 = REGIONS["EU868"]


def heard_at(snr_db: float, **settings: int | None) -> MacState:
    """A device whose last uplinks all had this SNR."""
    fields: dict[str, Any] = {"data_rate": 0, "tx_power": 0, **settings}
    return MacState(margins=bytes([to_margin(snr_db)] * HISTORY), **fields)


@pytest.mark.parametrize(
    ("snr_db", "settings", "wish"),
    [
        (-10.0, {}, None),
        (-7.25, {}, None),
        (-7.0, {}, Adaptation(1, 0, 1)),
        (0.0, {}, Adaptation(3, 0, 1)),
        (5.0, {}, Adaptation(5, 0, 1)),
        (9.0, {}, Adaptation(5, 1, 1)),
        (31.0, {}, Adaptation(5, 7, 1)),
        (31.0, {"data_rate": 5, "tx_power": 7}, None),
        (3.0, {"data_rate": 5, "tx_power": 3}, None),
        (-4.5, {"data_rate": 5, "tx_power": 3}, Adaptation(5, 1, 1)),
        (-20.0, {"data_rate": 5, "tx_power": 3}, Adaptation(5, 0, 1)),
        (-20.0, {"data_rate": 5, "tx_power": None}, None),
        (-7.25, {"missed": 2}, None),
        (-7.25, {"missed": 5}, Adaptation(0, 0, 2)),
        (-7.25, {"missed": 20, "nb_trans": 2}, Adaptation(0, 0, 3)),
        (-7.25, {"nb_trans": 3}, Adaptation(0, 0, 2)),
        (-7.25, {"nb_trans": 15}, Adaptation(0, 0, 2)),
        (31.0, {"data_rate": None}, None),
        (31.0, {"data_rate": 6}, None),
    ],
)
def test_the_best_snr_decides(snr_db: float, settings: dict[str, int | None], wish: Adaptation | None) -> None:
    assert adapt(heard_at(snr_db, **settings), EU868, MacPolicy()) == wish


def test_too_little_history_decides_nothing() -> None:
    assert adapt(MacState(data_rate=0, margins=bytes([200] * (HISTORY - 1))), EU868, MacPolicy()) is None


def test_a_data_rate_that_is_not_lora_is_left_alone() -> None:
    assert adapt(heard_at(30, data_rate=0), fsk_only(), MacPolicy()) is None


def fsk_only() -> Region:
    return msgspec.structs.replace(EU868, data_rates=(FskDataRate(50_000),), adr_data_rates=(0, 0))


def test_the_installation_margin_is_kept() -> None:
    assert adapt(heard_at(0.0), EU868, MacPolicy(adr_margin_db=20.0)) is None
    assert adapt(heard_at(0.0), EU868, MacPolicy(adr_margin_db=0.0)) == Adaptation(5, 1, 1)


def test_what_demodulation_needs() -> None:
    assert required_snr_db(LoraDataRate(12, 125_000)) == -20.0
    assert required_snr_db(LoraDataRate(99, 125_000)) == 0.0
    assert required_snr_db(FskDataRate(50_000)) == 0.0


@pytest.mark.parametrize(
    ("snr_db", "margin"),
    [
        (-99.0, 0),
        (-32.0, 0),
        (0.0, 128),
        (1.25, 133),
        (31.75, 255),
        (99.0, 255),
        (math.inf, 255),
        (-math.inf, 0),
        (math.nan, 0),
    ],
)
def test_an_snr_is_one_byte(snr_db: float, margin: int) -> None:
    assert to_margin(snr_db) == margin


@given(
    st.sampled_from(list(REGIONS.values())),
    st.builds(
        MacState,
        data_rate=st.none() | st.integers(0, 15),
        tx_power=st.none() | st.integers(0, 15),
        nb_trans=st.integers(0, 15),
        margins=st.binary(min_size=HISTORY, max_size=HISTORY) | st.binary(max_size=HISTORY),
        missed=st.integers(0, HISTORY),
    ),
    st.floats(-100, 100),
)
def test_adr_never_leaves_the_table_of_any_region(region: Region, state: MacState, margin_db: float) -> None:
    wish = adapt(state, region, MacPolicy(adr_margin_db=margin_db))
    if wish is None:
        return
    lowest, highest = region.adr_data_rates
    assert lowest <= wish.data_rate <= highest
    assert isinstance(region.data_rates[wish.data_rate], LoraDataRate)
    assert wish.data_rate >= (state.data_rate or 0)
    region.eirp_dbm(wish.tx_power)
    assert 1 <= wish.nb_trans <= 3
