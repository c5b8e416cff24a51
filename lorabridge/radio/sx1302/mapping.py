"""Between the library's numbers and the values of the radio seam."""

from __future__ import annotations

from typing import Final

from lorabridge.lorawan.air import (
    Antenna,
    ChannelNoise,
    CrcStatus,
    FskDataRate,
    LoraDataRate,
    Reception,
    Transmission,
)
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.outcomes import UNSENDABLE
from lorabridge.radio.sx1302 import abi
from lorabridge.radio.sx1302.plan import Lbt, Plan
from lorabridge.radio.sx1302.wire import Order, Packet, Scanned

TX_FREQ: Final = "TX_FREQ"
TX_POWER: Final = "TX_POWER"
GPS_UNLOCKED: Final = "GPS_UNLOCKED"
LBT_TOLERANCE_HZ: Final = 10_000
"""How far a frequency may lie from that of its LBT channel, as in the library."""

_BANDWIDTHS_HZ = {code: hertz for hertz, code in abi.BANDWIDTHS.items()}
_CODE_RATES = {code: text for text, code in abi.CODE_RATES.items()}
_CRC = {abi.CRC_OK: CrcStatus.OK, abi.CRC_BAD: CrcStatus.BAD}
_LORA_PREAMBLE = 8
_FSK_PREAMBLE = 5


class NotSendableError(Exception):
    """Why a transmission cannot be: the text is for TxResult.error."""


def reception_of(
    packet: Packet, *, gateway_eui: EUI64, source: str, received_at: int, gps_ns: int | None
) -> Reception | None:
    """A frame of the library as the daemon knows frames; None for a modulation that there is not."""
    lora = packet.modulation == abi.MOD_LORA
    rate: LoraDataRate | FskDataRate
    if lora and packet.bandwidth in _BANDWIDTHS_HZ and 5 <= packet.data_rate <= 12:
        rate = LoraDataRate(packet.data_rate, _BANDWIDTHS_HZ[packet.bandwidth])
    elif packet.modulation == abi.MOD_FSK and 0 < packet.data_rate <= 1_000_000:
        rate = FskDataRate(packet.data_rate)
    else:
        return None
    antenna = Antenna(
        antenna=0,
        channel=packet.if_chain,
        rssi_dbm=packet.rssi_dbm,
        signal_rssi_dbm=packet.signal_rssi_dbm if lora else None,
        snr_db=packet.snr_db if lora else None,
        frequency_offset_hz=packet.frequency_offset_hz if lora else None,
        fine_time_ns=packet.fine_time_ns,
    )
    return Reception(
        phy_payload=packet.payload,
        received_at=received_at,
        gateway_eui=gateway_eui,
        source=source,
        crc=_CRC.get(packet.status, CrcStatus.NONE),
        frequency_hz=packet.frequency_hz,
        data_rate=rate,
        code_rate=_CODE_RATES.get(packet.code_rate) if lora else None,
        tmst=packet.count_us,
        gps_time_ms=None if gps_ns is None else gps_ns // 1_000_000,
        rf_chain=packet.rf_chain,
        modem=packet.modem,
        antennas=(antenna,),
    )


def noise_of(scanned: Scanned) -> ChannelNoise | None:
    """The histogram of a scan in two numbers; None for one without a measurement."""
    levels, total = sorted(scanned.levels), sum(count for _, count in scanned.levels)
    if total <= 0:
        return None
    found, seen = dict[int, int](), 0
    for dbm, count in levels:
        seen += count
        for percent in (50, 95):
            if seen * 100 >= total * percent:
                found.setdefault(percent, dbm)
    return ChannelNoise(scanned.frequency_hz, found[50], found[95])


def order_of(transmission: Transmission, plan: Plan, number: int, count_us: int | None) -> tuple[Order, int]:
    """The order for the library, and the power in dBm that it will have. Raises NotSendableError.

    `count_us` is its moment by the concentrator's counter, None for at once.
    """
    if not 0 <= transmission.rf_chain < abi.RF_CHAINS:
        raise NotSendableError(UNSENDABLE)
    radio = plan.radios[transmission.rf_chain]
    if not (radio.enable and radio.tx_enable) or not 0 < len(transmission.phy_payload) <= abi.MAX_PAYLOAD:
        raise NotSendableError(UNSENDABLE)
    if not radio.tx_freq_min <= transmission.frequency_hz <= radio.tx_freq_max:
        raise NotSendableError(TX_FREQ)
    if plan.sx1261_conf.lbt.enable and not _has_lbt_channel(plan.sx1261_conf.lbt, transmission):
        raise NotSendableError(TX_FREQ)
    asked = transmission.power_dbm - plan.antenna_gain
    steps = [gain.rf_power for gain in radio.tx_gain_lut if gain.rf_power <= asked]
    if not steps:
        raise NotSendableError(TX_POWER)
    modulation, bandwidth, rate, code_rate, deviation, preamble = _modulation(transmission)
    order = Order(
        number=number,
        payload=transmission.phy_payload,
        frequency_hz=transmission.frequency_hz,
        count_us=count_us,
        rf_chain=transmission.rf_chain,
        power_dbm=max(steps),
        modulation=modulation,
        bandwidth=bandwidth,
        data_rate=rate,
        code_rate=code_rate,
        invert=transmission.invert_polarity,
        deviation_khz=deviation,
        preamble=preamble,
        crc=transmission.crc,
    )
    return order, max(steps) + plan.antenna_gain


def _has_lbt_channel(lbt: Lbt, transmission: Transmission) -> bool:
    """Whether the library can listen before it; to FSK, which has no bandwidth, it never can."""
    rate = transmission.data_rate
    return isinstance(rate, LoraDataRate) and any(
        abs(channel.freq_hz - transmission.frequency_hz) <= LBT_TOLERANCE_HZ and channel.bandwidth == rate.bandwidth_hz
        for channel in lbt.channels
    )


def _modulation(transmission: Transmission) -> tuple[int, int, int, int, int, int]:
    """(modulation, bandwidth, rate, code rate, deviation in kHz, preamble). Raises NotSendableError."""
    rate, preamble = transmission.data_rate, transmission.preamble_symbols
    if preamble is not None and not 0 <= preamble <= 0xFFFF:
        raise NotSendableError(UNSENDABLE)
    if isinstance(rate, FskDataRate):
        deviation = (transmission.frequency_deviation_hz or 0) // 1000
        if not 1 <= deviation <= 200 or not 500 <= rate.bit_rate <= 250_000:
            raise NotSendableError(UNSENDABLE)
        return abi.MOD_FSK, 0, rate.bit_rate, 0, deviation, _FSK_PREAMBLE if preamble is None else preamble
    bandwidth, code_rate = abi.BANDWIDTHS.get(rate.bandwidth_hz), abi.CODE_RATES.get(transmission.code_rate)
    if bandwidth is None or code_rate is None or not 5 <= rate.spreading_factor <= 12:
        raise NotSendableError(UNSENDABLE)
    return (
        abi.MOD_LORA,
        bandwidth,
        rate.spreading_factor,
        code_rate,
        0,
        _LORA_PREAMBLE if preamble is None else preamble,
    )
