"""The four groups of AS923 (RP002-1.0.4 §2.10): one plan, moved by an offset."""

from __future__ import annotations

from lorabridge.lorawan.regions.tables import COMMON_DATA_RATES, KHZ
from lorabridge.lorawan.regions.types import Channels, Region, SubBand

_RX1 = tuple(
    # Offsets 6 and 7 mean one and two data rates more.
    (*(max(0, uplink - offset) for offset in range(6)), min(7, uplink + 1), min(7, uplink + 2))
    for uplink in range(8)
)


def _group(number: int, offset_khz: int, first_mhz: int, last_mhz: int) -> Region:
    """One group: its frequencies differ from those of group 1 by the offset, and lie between two limits."""
    return Region(
        name=f"AS923-{number}",
        section="2.10",
        data_rates=COMMON_DATA_RATES,
        downlink_data_rates=COMMON_DATA_RATES,
        payloads=(59, 59, 123, 123, 250, 250, 250, 250),
        dwell_payloads=(0, 0, 19, 61, 133, 250, 250, 250),
        channels=(Channels((923_200 + offset_khz) * KHZ, 200 * KHZ, 2, 0),),
        max_channels=16,
        usual_channels_hz=tuple((923_600 + offset_khz + 200 * place) * KHZ for place in range(6)),
        # Slower ones would not fit the dwell time.
        join_data_rates=(2, 3, 4, 5),
        rx1_data_rates=_RX1,
        rx2_frequency_hz=(923_200 + offset_khz) * KHZ,
        rx2_data_rate=2,
        max_eirp_dbm=16,
        tx_powers=8,
        has_tx_param_setup=True,
        default_uplink_dwell=True,
        sub_bands=(SubBand(first_mhz * 1000 * KHZ, last_mhz * 1000 * KHZ, 0.01, 16),),
    )


AS923 = (_group(1, 0, 915, 928), _group(2, -1_800, 920, 923), _group(3, -6_600, 915, 921), _group(4, -5_900, 917, 920))
