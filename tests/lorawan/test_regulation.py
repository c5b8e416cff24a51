"""What a gateway may send: no hour holds more than its share, and nothing is sent where nothing may be."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import Airtime, DataRate, FskDataRate, LoraDataRate
from lorabridge.lorawan.airtime import time_on_air_us
from lorabridge.lorawan.commands import CommandReason
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.regulation import HOUR_NS, AirtimeLedger
from lorabridge.lorawan.types import EUI64

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
GATEWAY, OTHER = EUI64(1), EUI64(2)
EU868, US915 = REGIONS["EU868"], REGIONS["US915"]
RX2_HZ, RX1_HZ, RX1_TOO_HZ = 869_525_000, 868_100_000, 868_500_000
SF7, SF12 = LoraDataRate(7, 125_000), LoraDataRate(12, 125_000)
SLOW_US = 2_000_000
REGION_NAMES = sorted(REGIONS)


def fill(ledger: AirtimeLedger, frequency_hz: int, at: int = NOW, gateway: EUI64 = GATEWAY) -> list[Airtime]:
    """Send as much as may be sent at one time, two seconds each."""
    taken = []
    while ledger.refusal(EU868, gateway, frequency_hz, SF12, SLOW_US, at) is None:
        taken.append(ledger.take(EU868, gateway, frequency_hz, SLOW_US, at))
    return taken


def busiest_hour_us(taken: list[Airtime]) -> int:
    """The most airtime that any sliding hour holds, looking at each that begins or ends with a transmission."""
    spans = [(one.at, one.at + one.duration_us * 1000) for one in taken]
    starts = [edge for begin, end in spans for edge in (begin, end - HOUR_NS)]
    return max(
        (
            sum(max(0, min(end, start + HOUR_NS) - max(begin, start)) for begin, end in spans) // 1000
            for start in starts
        ),
        default=0,
    )


@pytest.mark.parametrize(
    ("frequency_hz", "sent"),
    [(RX2_HZ, 180), (RX1_HZ, 18), (863_300_000, 1), (869_850_000, 18)],
)
def test_a_sub_band_holds_its_share_of_an_hour(frequency_hz: int, sent: int) -> None:
    ledger = AirtimeLedger((), NOW)
    assert len(fill(ledger, frequency_hz)) == sent
    assert ledger.refusal(EU868, GATEWAY, frequency_hz, SF12, SLOW_US, NOW) is CommandReason.DUTY_CYCLE


def test_channels_of_one_sub_band_share_and_others_do_not() -> None:
    ledger = AirtimeLedger((), NOW)
    fill(ledger, RX1_HZ)
    assert ledger.refusal(EU868, GATEWAY, RX1_TOO_HZ, SF12, SLOW_US, NOW) is CommandReason.DUTY_CYCLE
    assert ledger.refusal(EU868, GATEWAY, RX2_HZ, SF12, SLOW_US, NOW) is None
    assert ledger.refusal(EU868, GATEWAY, 867_900_000, SF12, SLOW_US, NOW) is None


def test_every_gateway_has_a_share_of_its_own() -> None:
    ledger = AirtimeLedger((), NOW)
    fill(ledger, RX1_HZ)
    assert ledger.refusal(EU868, OTHER, RX1_HZ, SF12, SLOW_US, NOW) is None


def test_what_was_sent_counts_for_an_hour_and_no_longer() -> None:
    ledger = AirtimeLedger((), NOW)
    fill(ledger, RX1_HZ)
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, NOW + HOUR_NS) is CommandReason.DUTY_CYCLE
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, NOW + HOUR_NS + 60 * SECOND) is None


def test_what_was_given_back_can_be_sent() -> None:
    ledger = AirtimeLedger((), NOW)
    taken = fill(ledger, RX1_HZ)
    ledger.give_back(taken[0])
    assert len(fill(ledger, RX1_HZ)) == 1


def test_what_was_never_taken_is_not_given_back() -> None:
    ledger = AirtimeLedger((), NOW)
    fill(ledger, RX1_HZ)
    for airtime in (
        Airtime(OTHER, 868_000_000, NOW, SLOW_US),
        Airtime(GATEWAY, 868_000_000, NOW - 600 * SECOND, SLOW_US),
        Airtime(GATEWAY, 868_000_000, NOW, 40_000_000),
    ):
        ledger.give_back(airtime)
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, NOW) is CommandReason.DUTY_CYCLE


@pytest.mark.parametrize("frequency_hz", [868_000_000, 868_650_000, 862_000_000, 923_300_000, 0])
def test_nothing_is_sent_outside_of_the_sub_bands(frequency_hz: int) -> None:
    ledger = AirtimeLedger((), NOW)
    assert ledger.refusal(EU868, GATEWAY, frequency_hz, SF7, 50_000, NOW) is CommandReason.FREQUENCY


def test_what_is_not_allowed_cannot_be_entered() -> None:
    with pytest.raises(ValueError, match="no sub-band at 923300000 Hz"):
        AirtimeLedger((), NOW).take(EU868, GATEWAY, 923_300_000, 50_000, NOW)


def test_a_carrier_must_fit_its_sub_band_as_a_whole() -> None:
    ledger = AirtimeLedger((), NOW)
    wide: DataRate = LoraDataRate(7, 500_000)
    assert ledger.refusal(EU868, GATEWAY, RX2_HZ, wide, 50_000, NOW) is CommandReason.FREQUENCY
    assert ledger.refusal(EU868, GATEWAY, 868_800_000, FskDataRate(50_000), 50_000, NOW) is None
    assert ledger.refusal(EU868, GATEWAY, 868_720_000, FskDataRate(50_000), 50_000, NOW) is CommandReason.FREQUENCY


def test_a_transmission_longer_than_the_dwell_time_is_refused_where_one_is_set() -> None:
    ledger = AirtimeLedger((), NOW)
    region = REGIONS["AS923-1"]
    for duration_us, reason in ((400_000, None), (400_001, CommandReason.DWELL_TIME)):
        assert ledger.refusal(region, GATEWAY, 923_200_000, SF7, duration_us, NOW, dwell=True) is reason
        assert ledger.refusal(region, GATEWAY, 923_200_000, SF7, duration_us, NOW) is None


def test_where_the_law_sets_no_share_nothing_is_counted() -> None:
    ledger = AirtimeLedger((), NOW)
    wide = LoraDataRate(12, 500_000)
    for _ in range(4000):
        assert ledger.refusal(US915, GATEWAY, 923_300_000, wide, 1_000_000, NOW) is None
        ledger.give_back(ledger.take(US915, GATEWAY, 923_300_000, 1_000_000, NOW))
    assert ledger.entries == 0


def test_a_restart_forgets_nothing_of_the_hour() -> None:
    taken = fill(AirtimeLedger((), NOW), RX1_HZ)
    ledger = AirtimeLedger(taken, NOW + 1800 * SECOND)
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, NOW + 1800 * SECOND) is CommandReason.DUTY_CYCLE
    assert AirtimeLedger(taken, NOW + 2 * HOUR_NS).entries == 0


def test_what_seems_to_be_still_to_come_counts_as_sent_now() -> None:
    ahead = [msgspec.structs.replace(one, at=one.at + 24 * HOUR_NS) for one in fill(AirtimeLedger((), NOW), RX1_HZ)]
    ledger = AirtimeLedger(ahead, NOW)
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, NOW + 1800 * SECOND) is CommandReason.DUTY_CYCLE
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, NOW + HOUR_NS + 60 * SECOND) is None


def test_a_clock_that_is_set_back_neither_frees_nor_blocks_for_good() -> None:
    ledger = AirtimeLedger((), NOW)
    fill(ledger, RX1_HZ)
    back = NOW - 24 * HOUR_NS
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, back) is CommandReason.DUTY_CYCLE
    assert ledger.refusal(EU868, GATEWAY, RX1_HZ, SF12, SLOW_US, back + HOUR_NS + 60 * SECOND) is None


def test_memory_does_not_grow_with_what_is_sent() -> None:
    ledger = AirtimeLedger((), NOW)
    for step in range(20_000):
        at = NOW + step * SECOND
        if ledger.refusal(EU868, GATEWAY, RX2_HZ, SF7, 50_000, at) is None:
            ledger.take(EU868, GATEWAY, RX2_HZ, 50_000, at)
    assert ledger.entries < 400


class Ask(msgspec.Struct, frozen=True):
    region: str
    gateway: EUI64
    frequency_hz: int
    data_rate: DataRate
    size: int
    later_s: int
    delay_s: int
    is_given_back: bool


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    region = REGIONS[draw(st.sampled_from(["EU868", "EU868", "EU868", *REGION_NAMES]))]
    band = draw(st.sampled_from(region.sub_bands))
    data_rates = [rate for rate in region.downlink_data_rates if rate is not None]
    return Ask(
        region=region.name,
        gateway=draw(st.sampled_from([GATEWAY, OTHER])),
        frequency_hz=draw(
            st.sampled_from([region.rx2_frequency_hz, *region.join_channels_hz[:3]])
            | st.integers(band.first_hz - 100_000, band.last_hz + 100_000)
        ),
        data_rate=draw(st.sampled_from(data_rates)),
        size=draw(st.sampled_from([12, 64, 255])),
        later_s=draw(st.sampled_from([0, 0, 0, 1, 5, 60, 900, 3590])),
        delay_s=draw(st.sampled_from([0, 1, 2, 16])),
        is_given_back=draw(st.integers(0, 9)) == 0,
    )


@given(st.lists(asks(), max_size=60), st.integers(1, 40))
def test_no_hour_ever_holds_more_than_the_duty_cycle_allows(sequence: list[Ask], times: int) -> None:
    check_every_hour(sequence, times)


@given(
    st.lists(
        st.builds(
            Ask,
            region=st.just("EU868"),
            gateway=st.just(GATEWAY),
            frequency_hz=st.sampled_from([RX1_HZ, RX1_TOO_HZ]),
            data_rate=st.sampled_from([SF7, SF12]),
            size=st.just(255),
            later_s=st.sampled_from([0, 600, 1800, 3580, 3590, 3600, 3610]),
            delay_s=st.sampled_from([0, 16]),
            is_given_back=st.just(False),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_a_sub_band_in_full_use_keeps_its_share_from_hour_to_hour(sequence: list[Ask]) -> None:
    check_every_hour(sequence, 100)


def check_every_hour(sequence: list[Ask], times: int) -> None:
    """Make every request `times` times over, and look at every hour of what was sent."""
    ledger, now = AirtimeLedger((), NOW), NOW
    sent: dict[tuple[str, EUI64, int], list[Airtime]] = {}
    for ask in sequence:
        region, now = REGIONS[ask.region], now + ask.later_s * SECOND
        duration_us = time_on_air_us(ask.data_rate, ask.size, crc=False)
        for _ in range(times):
            found = request(ledger, region, ask, duration_us, now)
            if found is not None:
                # What was entered as sent at once is on the air when the receive window opens.
                real = msgspec.structs.replace(found, at=now + ask.delay_s * SECOND)
                sent.setdefault((ask.region, ask.gateway, found.band_hz), []).append(real)
    for (name, _, band_hz), taken in sent.items():
        (band,) = (band for band in REGIONS[name].sub_bands if band.first_hz == band_hz)
        assert busiest_hour_us(taken) <= band.duty_cycle * 3_600_000_000


def request(ledger: AirtimeLedger, region: Region, ask: Ask, duration_us: int, now: int) -> Airtime | None:
    """Ask, and send when it is allowed; some of it does not happen in the end."""
    reason = ledger.refusal(region, ask.gateway, ask.frequency_hz, ask.data_rate, duration_us, now)
    if reason is not None:
        return None
    width = ask.data_rate.bandwidth_hz if isinstance(ask.data_rate, LoraDataRate) else 2 * ask.data_rate.bit_rate
    assert any(
        band.first_hz <= ask.frequency_hz - width // 2 and ask.frequency_hz + width // 2 <= band.last_hz
        for band in region.sub_bands
    )
    taken = ledger.take(region, ask.gateway, ask.frequency_hz, duration_us, now)
    if ask.is_given_back:
        ledger.give_back(taken)
        return None
    return taken
