"""Hypothesis strategies for the values of the radio seam that the UDP protocol can carry."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

from lorabridge.lorawan.air import (
    Antenna,
    CrcStatus,
    DataRate,
    FskDataRate,
    GatewayStatus,
    LoraDataRate,
    Reception,
    Transmission,
    TxResult,
    TxTiming,
)
from lorabridge.lorawan.types import EUI64

T = TypeVar("T")

U32 = st.integers(0, 0xFFFF_FFFF)
I32 = st.integers(-(2**31), 2**31 - 1)
EUIS = st.integers(0, 2**64 - 1).map(EUI64)
DECIBELS = st.floats(-1000, 1000, allow_nan=False)
FREQUENCIES = st.integers(100_000_000, 3_000_000_000)
LORA_RATES: st.SearchStrategy[DataRate] = st.builds(
    LoraDataRate, st.integers(5, 12), st.sampled_from([125_000, 250_000, 500_000])
)
FSK_RATES: st.SearchStrategy[DataRate] = st.builds(FskDataRate, st.integers(1, 1_000_000))
GPS_MS = st.integers(0, 4 * 10**12)
FRACTIONS = st.integers(0, 999_999_999)
TOKENS = st.binary(min_size=2, max_size=2)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


ANTENNAS = st.builds(
    Antenna,
    antenna=maybe(I32),
    channel=maybe(I32),
    rssi_dbm=maybe(DECIBELS),
    signal_rssi_dbm=maybe(DECIBELS),
    signal_rssi_deviation_db=maybe(DECIBELS),
    snr_db=maybe(DECIBELS),
    frequency_offset_hz=maybe(I32),
    fine_time_ns=maybe(FRACTIONS),
    encrypted_fine_time=maybe(st.binary(max_size=20)),
)

GPS_TO_UNIX_MS = 315_964_800_000 - 18_000


@st.composite
def gateway_times(draw: st.DrawFn) -> dict[str, int | None]:
    """Times as a gateway with a good GPS gives them: whole microseconds, the two clocks of one mind."""
    kind = draw(st.sampled_from(["none", "utc", "gps", "both"]))
    gps_ms = draw(GPS_MS)
    below = draw(st.integers(0, 999)) if kind == "both" else 0
    unix_ns = (gps_ms + GPS_TO_UNIX_MS) * 1_000_000 + below * 1000
    return {
        "gateway_time_ns": None if kind == "none" else unix_ns,
        "gps_time_ms": gps_ms if kind in ("gps", "both") else None,
    }


RECEPTIONS = st.builds(
    lambda times, **fields: Reception(**fields, **times),
    gateway_times(),
    phy_payload=st.binary(max_size=255),
    received_at=st.integers(0, 2**62),
    gateway_eui=EUIS,
    source=st.just("udp"),
    crc=st.sampled_from(CrcStatus),
    frequency_hz=FREQUENCIES,
    data_rate=LORA_RATES | FSK_RATES,
    code_rate=maybe(st.sampled_from(["4/5", "4/6", "4/7", "4/8"])),
    tmst=maybe(U32),
    rf_chain=maybe(I32),
    modem=maybe(I32),
    board=maybe(I32),
    aes_key_index=maybe(I32),
    antennas=st.lists(ANTENNAS, max_size=4).map(tuple),
)

COUNTS = maybe(st.integers(0, 2**53))
NUMBERS = maybe(st.floats(-1e9, 1e9, allow_nan=False))

STATUSES = st.builds(
    GatewayStatus,
    gateway_eui=EUIS,
    source=st.just("udp"),
    received_at=st.integers(0, 2**62),
    time=maybe(TEXTS),
    latitude=NUMBERS,
    longitude=NUMBERS,
    altitude_m=NUMBERS,
    rx_received=COUNTS,
    rx_ok=COUNTS,
    rx_forwarded=COUNTS,
    upstream_acked_percent=NUMBERS,
    tx_received=COUNTS,
    tx_emitted=COUNTS,
    temperature_c=NUMBERS,
    platform=maybe(TEXTS),
    mail=maybe(TEXTS),
    description=maybe(TEXTS),
)


@st.composite
def transmissions(draw: st.DrawFn) -> Transmission:
    timing = draw(st.sampled_from(TxTiming))
    fsk = draw(st.booleans())
    return Transmission(
        phy_payload=draw(st.binary(max_size=255)),
        gateway_eui=draw(EUIS),
        timing=timing,
        frequency_hz=draw(FREQUENCIES),
        data_rate=draw(FSK_RATES if fsk else LORA_RATES),
        power_dbm=draw(st.integers(-10, 30)),
        tmst=draw(U32) if timing is TxTiming.AT_TMST else None,
        gps_time_ms=draw(GPS_MS) if timing is TxTiming.AT_GPS_TIME else None,
        code_rate="4/5" if fsk else draw(st.sampled_from(["4/5", "4/6", "4/7", "4/8"])),
        rf_chain=draw(st.integers(0, 1)),
        antenna=draw(maybe(st.integers(0, 3))),
        board=draw(maybe(st.integers(0, 3))),
        invert_polarity=draw(st.booleans()),
        crc=draw(st.booleans()),
        preamble_symbols=draw(maybe(st.integers(0, 0xFFFF))),
        frequency_deviation_hz=draw(st.integers(0, 250_000)) if fsk else None,
    )


WORDS = st.from_regex(r"\A[A-Z][A-Z_]{0,20}\Z").filter(lambda word: word != "NONE")
TX_RESULTS = st.builds(TxResult, error=maybe(WORDS)) | st.builds(
    TxResult, warning=WORDS, power_dbm=maybe(st.integers(-100, 100))
)
