"""LoRa in the 2.4 GHz band, the same everywhere (Semtech, LoRa 2.4 GHz regional parameters 1.0)."""

from __future__ import annotations

from lorabridge.lorawan.regions.tables import COMMON_RX1, KHZ, MHZ, lora
from lorabridge.lorawan.regions.types import Channels, Region, SubBand

_DATA_RATES = lora(812, 12, 11, 10, 9, 8, 7, 6, 5)

ISM2400 = Region(
    name="ISM2400",
    section="LoRa 2.4 GHz regional parameters 1.0",
    data_rates=_DATA_RATES,
    downlink_data_rates=_DATA_RATES,
    payloads=(59, 123, 248, 248, 248, 248, 248, 248),
    channels=(
        Channels(2403 * MHZ, 22 * MHZ, 2, 0, 812 * KHZ, max_data_rate=7),
        Channels(2479 * MHZ, 200 * KHZ, 1, 2, 812 * KHZ, max_data_rate=7),
    ),
    max_channels=16,
    usual_channel_data_rates=(0, 7),
    join_data_rates=(0, 1, 2, 3, 4, 5, 6, 7),
    rx1_data_rates=COMMON_RX1,
    rx2_frequency_hz=2423 * MHZ,
    rx2_data_rate=0,
    max_eirp_dbm=10,
    tx_powers=8,
    adr_data_rates=(0, 7),
    has_tx_param_setup=True,
    code_rate="4/8LI",
    sub_bands=(SubBand(2_400 * MHZ, 2_483_500 * KHZ, 1.0, 10),),
)
