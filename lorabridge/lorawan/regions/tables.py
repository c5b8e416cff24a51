"""What several regions have in common: data rates, payload limits, RX1 tables (RP002-1.0.4)."""

from __future__ import annotations

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate

KHZ = 1000
MHZ = 1_000_000


def lora(bandwidth_khz: int, *spreading_factors: int) -> tuple[DataRate, ...]:
    """LoRa data rates of one bandwidth."""
    return tuple(LoraDataRate(sf, bandwidth_khz * KHZ) for sf in spreading_factors)


DR0_TO_5 = lora(125, 12, 11, 10, 9, 8, 7)
DR6 = lora(250, 7)
DR7: tuple[DataRate, ...] = (FskDataRate(50_000),)
COMMON_DATA_RATES = DR0_TO_5 + DR6 + DR7

COMMON_PAYLOADS = (59, 59, 59, 123, 250, 250, 250, 250)


def rx1_table(uplinks: int, offsets: int, lowest: int = 0) -> tuple[tuple[int, ...], ...]:
    """RX1 data rate by uplink data rate and RX1DROffset where each offset is one data rate less."""
    return tuple(tuple(max(lowest, up - offset) for offset in range(offsets)) for up in range(uplinks))


COMMON_RX1 = rx1_table(8, 6)
