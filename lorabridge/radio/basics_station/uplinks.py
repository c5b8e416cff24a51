"""From a station's clock to ours and back: what was heard, and which answer belongs to what was heard."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from lorabridge.lorawan.air import Antenna, CrcStatus, DataRate, LoraDataRate, Reception
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.basics_station.messages import FrameMessage
from lorabridge.radio.faults import DatagramFault, MalformedDatagram

REMEMBERED = 1024
"""Uplinks of a station that can still be answered."""
LONGEST_DELAY = 16
"""Seconds from an uplink to the last window that can follow it."""
_TMST = 0xFFFF_FFFF
_HALF_TURN = 1 << 31
_US = 1_000_000


class Heard(msgspec.Struct, frozen=True, gc=False):
    """A moment by the station's clock, of an uplink unless it is said otherwise."""

    xtime: int
    rctx: int
    heard_at: float
    """The same in monotonic seconds of ours, less what an uplink took to us."""


class Uplinks:
    """The uplinks of one station that can still be answered, by the low half of their `xtime`."""

    def __init__(self) -> None:
        self._by_tmst: OrderedDict[int, Heard] = OrderedDict()

    def note(self, heard: Heard) -> int:
        """Remember an uplink; its counter as `tmst` has it."""
        tmst = heard.xtime & _TMST
        self._by_tmst.pop(tmst, None)
        self._by_tmst[tmst] = heard
        if len(self._by_tmst) > REMEMBERED:
            self._by_tmst.popitem(last=False)
        return tmst

    def find(self, tmst: int) -> tuple[Heard, int] | None:
        """The uplink that a window opens after, and the whole seconds in between."""
        for delay in range(1, LONGEST_DELAY + 1):
            heard = self._by_tmst.get((tmst - delay * _US) & _TMST)
            if heard is not None:
                return heard, delay
        return None

    def at(self, tmst: int, monotonic: float) -> Heard:
        """The moment nearest to `monotonic` that has this counter. Raises ValueError before the first uplink.

        The two clocks drift apart by some 50 us a second: enough to tell the turns of a counter of 71 minutes.
        """
        latest = next(reversed(self._by_tmst.values()), None)
        if latest is None:
            raise ValueError("a time of a clock that is not known")
        passed = round((monotonic - latest.heard_at) * _US)
        ahead = (tmst - latest.xtime - passed + _HALF_TURN) % (2 * _HALF_TURN) - _HALF_TURN
        return Heard(latest.xtime + passed + ahead, latest.rctx, monotonic + ahead / _US)


def reception(
    message: FrameMessage, tmst: int, rates: list[DataRate | None], *, gateway_eui: EUI64, source: str, received_at: int
) -> Reception:
    """A frame as it was heard; a station reports only those with a good CRC. Raises MalformedDatagram."""
    data_rate = rates[message.data_rate]
    if data_rate is None:
        raise MalformedDatagram(DatagramFault.BAD_DATA_RATE)
    info = message.upinfo
    is_lora = isinstance(data_rate, LoraDataRate)
    antenna = Antenna(antenna=info.rctx, rssi_dbm=info.rssi, snr_db=info.snr if is_lora else None)
    return Reception(
        phy_payload=message.phy_payload(),
        received_at=received_at,
        gateway_eui=gateway_eui,
        source=source,
        crc=CrcStatus.OK,
        frequency_hz=message.frequency_hz,
        data_rate=data_rate,
        tmst=tmst,
        gps_time_ms=info.gpstime // 1000 if info.gpstime else None,
        antennas=(antenna,),
    )
