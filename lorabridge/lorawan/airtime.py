"""How long a frame is on the air (Semtech AN1200.13; SX1261/2 datasheet §6.1.4; SX1280 datasheet §7.4.4)."""

from __future__ import annotations

from lorabridge.lorawan.air import DataRate, LoraDataRate

_CODE_RATES = {"4/5": 5, "4/6": 6, "4/7": 7, "4/8": 8}
_LONG_INTERLEAVED = {"4/5LI": 5, "4/6LI": 6, "4/8LI": 8}
"""Of 2.4 GHz only. There is no 4/7LI: what is called so is 4/8LI."""
_FSK_OVERHEAD = 5 + 3 + 1 + 2
"""Preamble, sync word, length and CRC (RP002-1.0.4 §4.2); none of them can be left out."""
_BANDWIDTH_2400 = 200_000
_US_PER_S = 1_000_000


def time_on_air_us(
    data_rate: DataRate,
    phy_size: int,
    *,
    code_rate: str = "4/5",
    preamble_symbols: int = 8,
    crc: bool = True,
    implicit_header: bool = False,
) -> int:
    """Microseconds that a PHYPayload of `phy_size` bytes takes, rounded up. The keywords are LoRa's; FSK has none.

    Raises ValueError for a code rate that does not exist.
    """
    if not isinstance(data_rate, LoraDataRate):
        return -(-(phy_size + _FSK_OVERHEAD) * 8 * _US_PER_S // data_rate.bit_rate)
    sf = data_rate.spreading_factor
    # Two symbols of sync word and 2.25 of start delimiter follow the preamble, 2 more below SF7.
    quarters = 4 * (preamble_symbols + 8) + (25 if sf < 7 else 17)
    per_block = 4 * (sf - 2 if _is_low_data_rate(data_rate) else sf)
    header = 0 if implicit_header else 20
    check = 16 if crc else 0
    if code_rate in _LONG_INTERLEAVED:
        bits = _long_interleaved_bits(sf, 8 * phy_size, check)
        quarters += 4 * -(-bits * _LONG_INTERLEAVED[code_rate] // per_block)
    elif code_rate in _CODE_RATES:
        bits = 8 * phy_size + check - 4 * sf + (0 if sf < 7 else 8) + header
        quarters += 4 * -(-max(0, bits) // per_block) * _CODE_RATES[code_rate]
    else:
        raise ValueError(f"LoRa has no code rate {code_rate}")
    return -(-quarters * (1 << sf) * _US_PER_S // (4 * data_rate.bandwidth_hz))


def _is_low_data_rate(data_rate: LoraDataRate) -> bool:
    """Whether low data rate optimisation is on: symbols longer than 16 ms; at 2.4 GHz by spreading factor alone."""
    if _is_2400(data_rate):
        return data_rate.spreading_factor > 10
    return (1 << data_rate.spreading_factor) * 1000 > 16 * data_rate.bandwidth_hz


def _is_2400(data_rate: LoraDataRate) -> bool:
    """Whether the bandwidth is one of 203, 406, 812 and 1625 kHz."""
    return data_rate.bandwidth_hz > _BANDWIDTH_2400 and data_rate.bandwidth_hz % 125_000 != 0


def _long_interleaved_bits(sf: int, payload: int, check: int) -> int:
    """Bits that do not fit beside the header, which has its own symbols."""
    space = (sf - (5 if sf < 7 else 7)) // 2 * 8
    return max(0, payload + check - min(space, payload))
