"""EU868, EU433 and RU864 (RP002-1.0.4 §2.4, §2.7, §2.13)."""

from __future__ import annotations

from lorabridge.lorawan.regions.tables import COMMON_DATA_RATES, COMMON_PAYLOADS, COMMON_RX1, KHZ
from lorabridge.lorawan.regions.types import Channels, Region, SubBand

EU868 = Region(
    name="EU868",
    section="2.4",
    data_rates=COMMON_DATA_RATES,
    downlink_data_rates=COMMON_DATA_RATES,
    payloads=COMMON_PAYLOADS,
    channels=(Channels(868_100 * KHZ, 200 * KHZ, 3, 0),),
    max_channels=16,
    usual_channels_hz=(867_100 * KHZ, 867_300 * KHZ, 867_500 * KHZ, 867_700 * KHZ, 867_900 * KHZ),
    rx1_data_rates=COMMON_RX1,
    rx2_frequency_hz=869_525 * KHZ,
    rx2_data_rate=0,
    max_eirp_dbm=16,
    tx_powers=8,
    # EN 300 220-2 V3.1.1 annex B, bands K to R; EIRP is ERP + 2 dB.
    sub_bands=(
        SubBand(863_000 * KHZ, 865_000 * KHZ, 0.001, 16),
        SubBand(865_000 * KHZ, 868_000 * KHZ, 0.01, 16),
        SubBand(868_000 * KHZ, 868_600 * KHZ, 0.01, 16),
        SubBand(868_700 * KHZ, 869_200 * KHZ, 0.001, 16),
        SubBand(869_400 * KHZ, 869_650 * KHZ, 0.1, 29),
        SubBand(869_700 * KHZ, 870_000 * KHZ, 0.01, 16),
    ),
)

EU433 = Region(
    name="EU433",
    section="2.7",
    data_rates=COMMON_DATA_RATES,
    downlink_data_rates=COMMON_DATA_RATES,
    payloads=COMMON_PAYLOADS,
    channels=(Channels(433_175 * KHZ, 200 * KHZ, 3, 0),),
    max_channels=16,
    rx1_data_rates=COMMON_RX1,
    rx2_frequency_hz=434_665 * KHZ,
    rx2_data_rate=0,
    max_eirp_dbm=12.15,
    tx_powers=6,
    sub_bands=(SubBand(433_050 * KHZ, 434_790 * KHZ, 0.1, 12),),
)

RU864 = Region(
    name="RU864",
    section="2.13",
    data_rates=COMMON_DATA_RATES,
    downlink_data_rates=COMMON_DATA_RATES,
    payloads=COMMON_PAYLOADS,
    channels=(Channels(868_900 * KHZ, 200 * KHZ, 2, 0),),
    max_channels=16,
    rx1_data_rates=COMMON_RX1,
    rx2_frequency_hz=869_100 * KHZ,
    rx2_data_rate=0,
    max_eirp_dbm=16,
    tx_powers=8,
    sub_bands=(SubBand(864_000 * KHZ, 870_000 * KHZ, 0.01, 16),),
)
