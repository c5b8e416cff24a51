"""Between Concentratord's messages and the values of the radio seam."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from lorabridge.lorawan.air import (
    Antenna,
    CrcStatus,
    DataRate,
    FskDataRate,
    GatewayStatus,
    LoraDataRate,
    Reception,
    Transmission,
    TxTiming,
)
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.concentratord.faults import EventFault, MalformedEvent
from lorabridge.radio.concentratord.messages import GatewayStats, Modulation, Time, UplinkFrame

REMEMBERED: Final = 1024
"""Contexts of another form than the concentrator's counter that can still be answered."""
LONGEST_DELAY: Final = 16
"""Seconds from an uplink to the last window that can follow it."""
TEXT_LIMIT: Final = 1024
"""Characters of a piece of metadata; a longer one is passed over."""
_TMST = 0xFFFF_FFFF
_US = 1_000_000
_CRC = MappingProxyType({0: CrcStatus.NONE, 1: CrcStatus.BAD, 2: CrcStatus.OK})
_CODE_RATES = MappingProxyType({1: "4/5", 2: "4/6", 3: "4/7", 4: "4/8"})
_CODE_RATE_NUMBERS = MappingProxyType({text: number for number, text in _CODE_RATES.items()})
_BANDWIDTHS_HZ = frozenset({125_000, 250_000, 500_000, 203_125, 406_250, 812_500, 1_625_000})
"""Those of SX130x, then those of SX1280."""
_MAX_BIT_RATE = 1_000_000
_TEMPERATURES_C = (-273.15, 1000.0)


class Contexts:
    """What Concentratord wants back with an answer, by the counter of the uplink.

    The context of a concentrator is its counter, 4 bytes. One of another form is kept under a counter of ours.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def note(self, context: bytes, now_us: int) -> int | None:
        """The counter that stands for a context at our own time `now_us`; None when there is nothing to answer to."""
        if not context:
            return None
        if len(context) == 4:
            return int.from_bytes(context, "big")
        tmst = now_us & _TMST
        self._kept.pop(tmst, None)
        self._kept[tmst] = context
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        return tmst

    def find(self, tmst: int) -> tuple[bytes, int]:
        """(context, whole seconds from it to `tmst`)."""
        for delay in range(1, LONGEST_DELAY + 1):
            context = self._kept.get((tmst - delay * _US) & _TMST)
            if context is not None:
                return context, delay
        return ((tmst - _US) & _TMST).to_bytes(4, "big"), 1


def reception(frame: UplinkFrame, tmst: int | None, *, source: str, received_at: int) -> Reception:
    """A frame as it was heard. Raises MalformedEvent."""
    told, info = frame.tx_info, frame.rx_info
    modulation = told.modulation
    data_rate = _data_rate(modulation)
    gps, fine = info.time_since_gps_epoch, info.fine_time_since_gps_epoch
    antenna = Antenna(
        antenna=info.antenna,
        channel=info.channel,
        rssi_dbm=info.rssi,
        snr_db=info.snr if modulation.lora is not None else None,
        fine_time_ns=None if fine is None else fine.nanos,
    )
    return Reception(
        phy_payload=frame.phy_payload,
        received_at=received_at,
        gateway_eui=EUI64.parse(info.gateway_id),
        source=source,
        crc=_CRC[info.crc_status],
        frequency_hz=told.frequency,
        data_rate=data_rate,
        code_rate=None if modulation.lora is None else _CODE_RATES.get(modulation.lora.code_rate),
        tmst=tmst,
        # Without GPS time `gw_time` is that of the operating system (`time_fallback_enabled`).
        gateway_time_ns=None if gps is None or info.gw_time is None else info.gw_time.ns,
        gps_time_ms=None if gps is None else gps.ns // 1_000_000,
        rf_chain=info.rf_chain,
        board=info.board,
        antennas=(antenna,),
    )


def status(stats: GatewayStats, *, source: str, received_at: int) -> GatewayStatus:
    """A status report."""
    metadata = {entry.key: entry.value for entry in stats.metadata if len(entry.value) <= TEXT_LIMIT}
    where, version = stats.location, metadata.get("concentratord_version")
    return GatewayStatus(
        gateway_eui=EUI64.parse(stats.gateway_id),
        source=source,
        received_at=received_at,
        time=None if stats.time is None else _text_of(stats.time),
        latitude=None if where is None else where.latitude,
        longitude=None if where is None else where.longitude,
        altitude_m=None if where is None else where.altitude,
        rx_received=stats.rx_packets_received,
        rx_ok=stats.rx_packets_received_ok,
        tx_received=stats.tx_packets_received,
        tx_emitted=stats.tx_packets_emitted,
        temperature_c=_temperature(metadata.get("concentrator_temp")),
        platform=metadata.get("model"),
        description=None if version is None else f"ChirpStack Concentratord {version}",
    )


def item_of(transmission: Transmission, contexts: Contexts) -> dict[str, Any]:
    """DownlinkFrameItem, by field names. Raises ValueError when the API has no words for the transmission."""
    if not 0 < len(transmission.phy_payload) <= 255 or not -128 <= transmission.power_dbm <= 127:
        raise ValueError("a payload or a power that no concentrator has")
    tx_info: dict[str, Any] = {
        "frequency": transmission.frequency_hz,
        "power": transmission.power_dbm,
        "modulation": _modulation(transmission),
        "board": transmission.board or 0,
        "antenna": transmission.antenna or 0,
    }
    if transmission.timing is TxTiming.IMMEDIATELY:
        tx_info["timing"] = {"immediately": {}}
    elif transmission.timing is TxTiming.AT_GPS_TIME and transmission.gps_time_ms is not None:
        seconds, ms = divmod(transmission.gps_time_ms, 1000)
        moment = {"seconds": seconds, "nanos": ms * 1_000_000}
        tx_info["timing"] = {"gps_epoch": {"time_since_gps_epoch": moment}}
    elif transmission.timing is TxTiming.AT_TMST and transmission.tmst is not None:
        context, delay = contexts.find(transmission.tmst)
        tx_info |= {"timing": {"delay": {"delay": {"seconds": delay}}}, "context": context}
    else:
        raise ValueError(f"a transmission {transmission.timing.value} needs that time")
    return {"phy_payload": transmission.phy_payload, "tx_info": tx_info}


def _data_rate(modulation: Modulation) -> DataRate:
    """The one that is there. Raises MalformedEvent."""
    lora, fsk = modulation.lora, modulation.fsk
    if lora is not None and fsk is None and modulation.lr_fhss is None:
        if 5 <= lora.spreading_factor <= 12 and lora.bandwidth in _BANDWIDTHS_HZ:
            return LoraDataRate(lora.spreading_factor, lora.bandwidth)
    elif fsk is not None and lora is None and modulation.lr_fhss is None and 0 < fsk.datarate <= _MAX_BIT_RATE:
        return FskDataRate(fsk.datarate)
    raise MalformedEvent(EventFault.BAD_DATA_RATE)


def _modulation(transmission: Transmission) -> dict[str, Any]:
    """`Modulation`. Raises ValueError."""
    rate = transmission.data_rate
    if isinstance(rate, FskDataRate):
        deviation = transmission.frequency_deviation_hz
        if deviation is None or not 0 < rate.bit_rate <= _MAX_BIT_RATE:
            raise ValueError("an FSK transmission needs its frequency deviation")
        return {"fsk": {"frequency_deviation": deviation, "datarate": rate.bit_rate}}
    code_rate = _CODE_RATE_NUMBERS.get(transmission.code_rate)
    if code_rate is None or not 5 <= rate.spreading_factor <= 12 or rate.bandwidth_hz not in _BANDWIDTHS_HZ:
        raise ValueError("a modulation that no concentrator has")
    return {
        "lora": {
            "bandwidth": rate.bandwidth_hz,
            "spreading_factor": rate.spreading_factor,
            "code_rate": code_rate,
            "polarization_inversion": transmission.invert_polarity,
            "preamble": transmission.preamble_symbols or 0,
            "no_crc": not transmission.crc,
        }
    }


def _text_of(time: Time) -> str:
    """As packet forwarders write it."""
    return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")


def _temperature(text: str | None) -> float | None:
    """A temperature in degrees Celsius that can be one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    low, high = _TEMPERATURES_C
    return value if low <= value <= high else None
