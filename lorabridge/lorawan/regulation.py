"""What the law allows a gateway to send: sub-band, length of one transmission, share of an hour."""

from __future__ import annotations

from collections.abc import Iterable

from lorabridge.lorawan.air import Airtime, DataRate, LoraDataRate
from lorabridge.lorawan.commands import CommandReason
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.types import EUI64

DWELL_TIME_US = 400_000
"""The longest transmission where a dwell time is set (RP002-1.0.4 §2.10.7)."""
HOUR_NS = 3600 * 1_000_000_000
"""A duty cycle is a share of any hour (EN 300 220-1 V3.1.1 §5.4)."""
MAX_AHEAD_NS = 128 * 1_000_000_000
"""No transmission is planned further ahead than a beacon period; one that is has a clock that was set back."""
_SLOT_NS = 10 * 1_000_000_000
_DELAY_NS = 20 * 1_000_000_000
"""A transmission may be entered when it is ordered; RX2 opens up to 16 seconds after the uplink."""
_US_PER_HOUR = 3_600_000_000


class AirtimeLedger:
    """What every gateway sent in the last hour, by sub-band and slots of ten seconds: bounded however much is sent."""

    def __init__(self, used: Iterable[Airtime], now: int) -> None:
        self._slots: dict[tuple[EUI64, int], dict[int, int]] = {}
        for airtime in used:
            if airtime.at + airtime.duration_us * 1000 > now - HOUR_NS - _DELAY_NS:
                self._enter(airtime, min(airtime.at, now))

    def refusal(
        self,
        region: Region,
        gateway_eui: EUI64,
        frequency_hz: int,
        data_rate: DataRate,
        duration_us: int,
        now: int,
        *,
        dwell: bool = False,
    ) -> CommandReason | None:
        """Why a gateway must not send this at `now` (nanoseconds since the Unix epoch), None when it may.

        `dwell`: downlinks to the device are bound by the dwell time (TXParamSetupReq).
        """
        # FSK takes twice its bit rate: the deviation is half of it (RP002-1.0.4 §4.2; Carson's rule).
        bandwidth = data_rate.bandwidth_hz if isinstance(data_rate, LoraDataRate) else 2 * data_rate.bit_rate
        band = region.sub_band(frequency_hz, bandwidth)
        if band is None:
            return CommandReason.FREQUENCY
        if dwell and duration_us > DWELL_TIME_US:
            return CommandReason.DWELL_TIME
        if band.duty_cycle < 1:
            used = self._used((gateway_eui, band.first_hz), now)
            if used + duration_us > round(band.duty_cycle * _US_PER_HOUR):
                return CommandReason.DUTY_CYCLE
        return None

    def take(self, region: Region, gateway_eui: EUI64, frequency_hz: int, duration_us: int, at: int) -> Airtime:
        """Enter a transmission that begins at `at`. Raises ValueError where no sub-band is: `refusal` comes first."""
        band = region.sub_band(frequency_hz)
        if band is None:
            raise ValueError(f"{region.name} has no sub-band at {frequency_hz} Hz")
        airtime = Airtime(gateway_eui, band.first_hz, at, duration_us)
        if band.duty_cycle < 1:
            self._enter(airtime, at)
        return airtime

    def give_back(self, airtime: Airtime) -> None:
        """Strike out a transmission that was entered by `take` and did not happen."""
        slots = self._slots.get((airtime.gateway_eui, airtime.band_hz), {})
        slot = _slot(airtime, airtime.at)
        if slots.get(slot, 0) >= airtime.duration_us:
            slots[slot] -= airtime.duration_us

    @property
    def entries(self) -> int:
        """How many slots are kept."""
        return sum(map(len, self._slots.values()))

    def _enter(self, airtime: Airtime, at: int) -> None:
        slots = self._slots.setdefault((airtime.gateway_eui, airtime.band_hz), {})
        slot = _slot(airtime, at)
        slots[slot] = slots.get(slot, 0) + airtime.duration_us

    def _used(self, key: tuple[EUI64, int], now: int) -> int:
        """Microseconds of every transmission that an hour around one at `now` can hold."""
        slots = self._slots.get(key, {})
        here, latest = now // _SLOT_NS, (now + MAX_AHEAD_NS) // _SLOT_NS
        oldest = (now - HOUR_NS - _DELAY_NS) // _SLOT_NS
        # Transmissions are not asked for in the order of their times, so what is a little too old stays.
        forgotten = (now - HOUR_NS - _DELAY_NS - MAX_AHEAD_NS) // _SLOT_NS
        used = 0
        for slot, duration_us in list(slots.items()):
            if slot > latest:
                # The clock was set back: what seems to be still to come was sent before it.
                slots[here] = slots.get(here, 0) + slots.pop(slot)
                used += duration_us
            elif slot < forgotten:
                del slots[slot]
            elif slot >= oldest:
                used += duration_us
        return used


def _slot(airtime: Airtime, at: int) -> int:
    """The slot in which a transmission ends."""
    return (at + airtime.duration_us * 1000) // _SLOT_NS
