"""The plans whose channels cannot be added to: US915, AU915, CN470 (RP002-1.0.4 §2.5, §2.8, §2.9)."""

from __future__ import annotations

from lorabridge.lorawan.air import DataRate
from lorabridge.lorawan.regions.tables import COMMON_PAYLOADS, DR0_TO_5, DR7, KHZ, lora
from lorabridge.lorawan.regions.types import Channels, Region, SubBand

_WIDE_DOWNLINKS: tuple[DataRate | None, ...] = (*(None,) * 8, *lora(500, 12, 11, 10, 9, 8, 7))
_WIDE_PAYLOADS = (61, 137, 250, 250, 250, 250)
_WIDE_RX1_CHANNELS = (Channels(923_300 * KHZ, 600 * KHZ, 8, 0, 500 * KHZ, 8, 13),)

US915 = Region(
    name="US915",
    section="2.5",
    data_rates=(*lora(125, 10, 9, 8, 7), *lora(500, 8)),
    downlink_data_rates=_WIDE_DOWNLINKS,
    payloads=(19, 61, 133, 250, 250, 0, 0, 0, *_WIDE_PAYLOADS),
    channels=(
        Channels(902_300 * KHZ, 200 * KHZ, 64, 0, max_data_rate=3),
        Channels(903_000 * KHZ, 1600 * KHZ, 8, 64, 500 * KHZ, 4, 4),
    ),
    max_channels=72,
    cf_list_type=1,
    join_data_rates=(0, 4),
    rx1_channels=_WIDE_RX1_CHANNELS,
    rx1_data_rates=((10, 9, 8, 8), (11, 10, 9, 8), (12, 11, 10, 9), (13, 12, 11, 10), (13, 13, 12, 11)),
    rx2_frequency_hz=923_300 * KHZ,
    rx2_data_rate=8,
    max_eirp_dbm=30,
    tx_powers=15,
    adr_data_rates=(0, 3),
    default_uplink_dwell=True,
    # 47 CFR 15.247: only 500 kHz counts as digital modulation, and only the downlink channels are that wide.
    sub_bands=(SubBand(923_000 * KHZ, 928_000 * KHZ, 1.0, 26),),
)

AU915 = Region(
    name="AU915",
    section="2.8",
    data_rates=(*DR0_TO_5, *lora(500, 8)),
    downlink_data_rates=_WIDE_DOWNLINKS,
    payloads=(59, 59, 59, 123, 250, 250, 250, 0, *_WIDE_PAYLOADS),
    dwell_payloads=(0, 0, 19, 61, 133, 250, 250, 0, *_WIDE_PAYLOADS),
    channels=(
        Channels(915_200 * KHZ, 200 * KHZ, 64, 0),
        Channels(915_900 * KHZ, 1600 * KHZ, 8, 64, 500 * KHZ, 6, 6),
    ),
    max_channels=72,
    cf_list_type=1,
    join_data_rates=(2, 6),
    rx1_channels=_WIDE_RX1_CHANNELS,
    rx1_data_rates=(
        (8, 8, 8, 8, 8, 8),
        (9, 8, 8, 8, 8, 8),
        (10, 9, 8, 8, 8, 8),
        (11, 10, 9, 8, 8, 8),
        (12, 11, 10, 9, 8, 8),
        (13, 12, 11, 10, 9, 8),
        (13, 13, 12, 11, 10, 9),
    ),
    rx2_frequency_hz=923_300 * KHZ,
    rx2_data_rate=8,
    max_eirp_dbm=30,
    tx_powers=15,
    has_tx_param_setup=True,
    default_uplink_dwell=True,
    sub_bands=(SubBand(915_000 * KHZ, 928_000 * KHZ, 1.0, 30),),
)

CN470 = Region(
    name="CN470",
    # The plan of 96 channels, as devices before RP002-1.0.1 have it; data rates 6 and 7 came later.
    section="2.9",
    data_rates=(*DR0_TO_5, *lora(500, 7), *DR7),
    downlink_data_rates=(*DR0_TO_5, *lora(500, 7), *DR7),
    payloads=COMMON_PAYLOADS,
    channels=(Channels(470_300 * KHZ, 200 * KHZ, 96, 0),),
    max_channels=96,
    cf_list_type=1,
    rx1_channels=(Channels(500_300 * KHZ, 200 * KHZ, 48, 0),),
    rx1_data_rates=(
        (0, 0, 0, 0, 0, 0),
        (1, 0, 0, 0, 0, 0),
        (2, 1, 0, 0, 0, 0),
        (3, 2, 1, 0, 0, 0),
        (4, 3, 2, 1, 0, 0),
        (5, 4, 3, 2, 1, 0),
        (6, 5, 4, 3, 2, 1),
        (7, 6, 5, 4, 3, 2),
    ),
    rx2_frequency_hz=505_300 * KHZ,
    rx2_data_rate=0,
    max_eirp_dbm=19.15,
    tx_powers=8,
    sub_bands=(SubBand(470_000 * KHZ, 510_000 * KHZ, 1.0, 19),),
)
