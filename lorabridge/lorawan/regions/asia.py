"""CN779, KR920 and IN865 (RP002-1.0.4 §2.6, §2.11, §2.12)."""

from __future__ import annotations

from lorabridge.lorawan.regions.tables import COMMON_DATA_RATES, COMMON_PAYLOADS, COMMON_RX1, DR0_TO_5, DR7, KHZ
from lorabridge.lorawan.regions.types import Channels, Region, SubBand

CN779 = Region(
    name="CN779",
    section="2.6",
    data_rates=COMMON_DATA_RATES,
    downlink_data_rates=COMMON_DATA_RATES,
    payloads=COMMON_PAYLOADS,
    channels=(Channels(779_500 * KHZ, 200 * KHZ, 3, 0),),
    max_channels=16,
    usual_channels_hz=(780_500 * KHZ, 780_700 * KHZ, 780_900 * KHZ),
    rx1_data_rates=COMMON_RX1,
    rx2_frequency_hz=786_000 * KHZ,
    rx2_data_rate=0,
    max_eirp_dbm=12.15,
    tx_powers=6,
    sub_bands=(SubBand(779_000 * KHZ, 787_000 * KHZ, 0.01, 12),),
)

KR920 = Region(
    name="KR920",
    section="2.11",
    data_rates=DR0_TO_5,
    downlink_data_rates=DR0_TO_5,
    payloads=COMMON_PAYLOADS[:6],
    channels=(Channels(922_100 * KHZ, 200 * KHZ, 3, 0),),
    max_channels=16,
    usual_channels_hz=(922_700 * KHZ, 922_900 * KHZ, 923_100 * KHZ, 923_300 * KHZ),
    rx1_data_rates=COMMON_RX1[:6],
    rx2_frequency_hz=921_900 * KHZ,
    rx2_data_rate=0,
    max_eirp_dbm=14,
    tx_powers=8,
    # Channels of 200 kHz centred on 920.9 to 923.3 MHz; a gateway may send with 23 dBm.
    sub_bands=(SubBand(920_800 * KHZ, 923_400 * KHZ, 1.0, 23),),
)

IN865 = Region(
    name="IN865",
    section="2.12",
    data_rates=(*DR0_TO_5, None, *DR7),
    downlink_data_rates=(*DR0_TO_5, None, *DR7),
    payloads=(*COMMON_PAYLOADS[:6], 0, 250),
    channels=(
        Channels(865_062_500, 340 * KHZ, 2, 0),
        Channels(865_985 * KHZ, 200 * KHZ, 1, 2),
    ),
    max_channels=16,
    rx1_data_rates=(
        # Offsets 6 and 7 mean one and two data rates more, past the reserved one.
        (0, 0, 0, 0, 0, 0, 1, 2),
        (1, 0, 0, 0, 0, 0, 2, 3),
        (2, 1, 0, 0, 0, 0, 3, 4),
        (3, 2, 1, 0, 0, 0, 4, 5),
        (4, 3, 2, 1, 0, 0, 5, 5),
        (5, 4, 3, 2, 1, 0, 5, 7),
        (0, 0, 0, 0, 0, 0, 0, 0),
        (7, 5, 5, 4, 3, 2, 7, 7),
    ),
    rx2_frequency_hz=866_550 * KHZ,
    rx2_data_rate=2,
    max_eirp_dbm=30,
    tx_powers=11,
    sub_bands=(SubBand(865_000 * KHZ, 867_000 * KHZ, 1.0, 30),),
)
