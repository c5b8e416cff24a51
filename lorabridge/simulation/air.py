"""What the air and a gateway do to a frame: who hears it, how loud, when, and what the forwarder writes of it.

The figures follow recorded traffic: RSSI flattens at the noise floor near -117 dBm, SNR saturates above
10 dB, demodulation ends at -7.5 dB for SF7 and 2.5 dB lower for each further spreading factor.
"""

from __future__ import annotations

import base64
import enum
import math
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from lorabridge.lorawan.air import CrcStatus, DataRate, LoraDataRate
from lorabridge.lorawan.gps_time import gps_ns_of
from lorabridge.lorawan.types import EUI64
from lorabridge.simulation.plans import Plan, UplinkChannel

_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000
_TMST_MASK = 0xFFFF_FFFF

_PATH_LOSS_AT_1_KM_DB = 120.0
_PATH_LOSS_DB_PER_DECADE = 31.0
_SHADOWING_DB = 2.5
_NOISE_DENSITY_DBM = -168.0
"""Thermal noise in 1 Hz and a noise figure of 6 dB."""
_SNR_SATURATES_DB = 11.5
_FSK_BANDWIDTH_HZ = 125_000
_FSK_SNR_LIMIT_DB = 8.0
_GHOST_ABOVE_DBM = -45.0
_GHOST_WEAKER_DB = 38.0


class Place(msgspec.Struct, frozen=True):
    """A point on the map, in metres."""

    x_m: float
    y_m: float

    def distance_m(self, other: Place) -> float:
        """At least one metre."""
        return max(math.hypot(self.x_m - other.x_m, self.y_m - other.y_m), 1.0)


class Emission(msgspec.Struct, frozen=True, kw_only=True):
    """A frame as it left an antenna."""

    phy_payload: bytes
    ends_at: int
    """End of the frame, nanoseconds since the Unix epoch."""
    frequency_hz: int
    data_rate: DataRate
    place: Place
    power_dbm: float = 14.0
    offset_hz: int = 0
    """How far the sender's crystal is off."""
    crc: CrcStatus = CrcStatus.OK
    """What a radio finds: BAD is noise or a damaged frame, always at the edge of being heard."""


class Hearing(msgspec.Struct, frozen=True, kw_only=True):
    """One report of one gateway."""

    received_at: int
    """When the report came in, nanoseconds since the Unix epoch."""
    gateway_eui: EUI64
    rxpk: dict[str, Any]
    """As the UDP protocol writes it; numbers with a fixed count of decimals are `msgspec.Raw`."""


class Forwarder(enum.Enum):
    """What kind of forwarder writes the report."""

    SX1301 = "no GPS, the fields of protocol version 1.4"
    SX1303 = "GPS time and fine timestamps"
    TWO_ANTENNAS = "`rsig`: one entry an antenna"


class Gateway:
    """A gateway at a place, with its own counter, clock and backhaul."""

    def __init__(
        self,
        eui: EUI64,
        plan: Plan,
        place: Place,
        forwarder: Forwarder,
        *,
        rng: Random,
        tmst_zero_at: int,
        backhaul_ms: tuple[int, int],
    ) -> None:
        """`tmst_zero_at`: when the concentrator counter was zero, ns; `backhaul_ms`: least and most delay."""
        self.eui = eui
        self.plan = plan
        self.place = place
        self.forwarder = forwarder
        self._rng = rng
        self._tmst_zero_at = tmst_zero_at
        self._backhaul_ms = backhaul_ms

    def hear(self, emission: Emission) -> tuple[Hearing, ...]:
        """What it reports of an emission: nothing, a frame, or the frame and its ghost on the next channel."""
        channel = self.plan.heard_on(emission.frequency_hz, emission.data_rate)
        if channel is None:
            return ()
        signal_dbm = self._signal_dbm(emission)
        found = self._report(emission, channel, signal_dbm)
        if found is None:
            return ()
        if signal_dbm > _GHOST_ABOVE_DBM and (ghost_on := self._next_channel(channel)) is not None:
            ghost = self._report(emission, ghost_on, signal_dbm - _GHOST_WEAKER_DB)
            if ghost is not None:
                return found, msgspec.structs.replace(ghost, received_at=found.received_at + _MILLISECOND)
        return (found,)

    def _next_channel(self, channel: UplinkChannel) -> UplinkChannel | None:
        for other in self.plan.channels:
            if other.frequency_hz == channel.frequency_hz + 200_000 and other.data_rates == channel.data_rates:
                return other
        return None

    def _signal_dbm(self, emission: Emission) -> float:
        """Log-distance path loss with shadowing; noise is drawn around the edge of demodulation instead."""
        if emission.crc is not CrcStatus.OK:
            edge = noise_dbm(emission.data_rate) + snr_limit_db(emission.data_rate)
            return edge + self._rng.uniform(-1.0, 3.0)
        kilometres = emission.place.distance_m(self.place) / 1000
        loss_db = _PATH_LOSS_AT_1_KM_DB + _PATH_LOSS_DB_PER_DECADE * math.log10(kilometres)
        return emission.power_dbm - loss_db + self._rng.gauss(0.0, _SHADOWING_DB)

    def _report(self, emission: Emission, channel: UplinkChannel, signal_dbm: float) -> Hearing | None:
        snr_db = signal_dbm - noise_dbm(emission.data_rate)
        if emission.crc is CrcStatus.OK and snr_db < snr_limit_db(emission.data_rate):
            return None
        least, most = self._backhaul_ms
        rxpk: dict[str, Any] = {}
        if self.forwarder is not Forwarder.SX1301:
            rxpk["jver"] = 1 if self.forwarder is Forwarder.SX1303 else 2
        rxpk["tmst"] = (emission.ends_at - self._tmst_zero_at) // 1000 & _TMST_MASK
        rxpk |= self._gps_time(emission)
        rxpk |= self._radio(emission, channel, signal_dbm, snr_db)
        rxpk["size"] = len(emission.phy_payload)
        rxpk["data"] = base64.b64encode(emission.phy_payload).decode("ascii")
        return Hearing(
            received_at=emission.ends_at + self._rng.randrange(least * 1000, most * 1000) * 1000,
            gateway_eui=self.eui,
            rxpk=rxpk,
        )

    def _gps_time(self, emission: Emission) -> dict[str, Any]:
        if self.forwarder is Forwarder.SX1301:
            return {}
        seconds, nanoseconds = divmod(emission.ends_at, _SECOND)
        utc = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        times: dict[str, Any] = {
            "time": f"{utc}.{nanoseconds // 1000:06d}Z",
            "tmms": gps_ns_of(emission.ends_at) // _MILLISECOND,
        }
        if self.forwarder is Forwarder.SX1303 and emission.crc is CrcStatus.OK:
            times["ftime"] = nanoseconds + self._rng.randrange(1000)
        return times

    def _radio(self, emission: Emission, channel: UplinkChannel, signal_dbm: float, snr_db: float) -> dict[str, Any]:
        """Channel, modulation and levels, in the order the forwarders print them."""
        lora = isinstance(emission.data_rate, LoraDataRate)
        radio: dict[str, Any] = {}
        if self.forwarder is not Forwarder.TWO_ANTENNAS:
            radio["chan"] = channel.if_chain
        radio["rfch"] = channel.rf_chain
        radio["freq"] = msgspec.Raw(f"{channel.frequency_hz / 1e6:.6f}".encode())
        if self.forwarder is Forwarder.SX1303:
            radio["mid"] = self._rng.randrange(16) if channel.if_chain < 8 else channel.if_chain + 8
        radio["stat"] = emission.crc.value
        radio["modu"] = "LORA" if lora else "FSK"
        if isinstance(emission.data_rate, LoraDataRate):
            radio["datr"] = f"SF{emission.data_rate.spreading_factor}BW{emission.data_rate.bandwidth_hz // 1000}"
            radio["codr"] = "4/5"
        else:
            radio["datr"] = emission.data_rate.bit_rate
        if self.forwarder is Forwarder.TWO_ANTENNAS:
            radio["rsig"] = [
                {"ant": antenna, "chan": channel.if_chain}
                | self._levels(emission, signal_dbm + self._rng.gauss(0.0, 2.0), snr_db + self._rng.gauss(0.0, 1.0))
                for antenna in (0, 1)
            ]
            return radio
        return radio | self._levels(emission, signal_dbm, snr_db)

    def _levels(self, emission: Emission, signal_dbm: float, snr_db: float) -> dict[str, Any]:
        rssi = "rssic" if self.forwarder is Forwarder.TWO_ANTENNAS else "rssi"
        channel_dbm = round(_sum_dbm(signal_dbm, noise_dbm(emission.data_rate)))
        if not isinstance(emission.data_rate, LoraDataRate):
            return {rssi: channel_dbm}
        shown_db = min(snr_db, _SNR_SATURATES_DB + self._rng.gauss(0.0, 1.0))
        lsnr = {"lsnr": msgspec.Raw(f"{round(shown_db * 4) / 4:.1f}".encode())}
        if self.forwarder is Forwarder.SX1301:
            return {**lsnr, rssi: channel_dbm}
        return {
            "rssis": round(signal_dbm),
            **lsnr,
            "foff": emission.offset_hz + self._rng.randrange(-60, 61),
            rssi: channel_dbm,
        }


def noise_dbm(data_rate: DataRate) -> float:
    """The noise floor in the bandwidth of a data rate."""
    bandwidth_hz = data_rate.bandwidth_hz if isinstance(data_rate, LoraDataRate) else _FSK_BANDWIDTH_HZ
    return _NOISE_DENSITY_DBM + 10 * math.log10(bandwidth_hz)


def snr_limit_db(data_rate: DataRate) -> float:
    """The SNR below which nothing is demodulated."""
    if isinstance(data_rate, LoraDataRate):
        return -7.5 - 2.5 * (data_rate.spreading_factor - 7)
    return _FSK_SNR_LIMIT_DB


def _sum_dbm(one: float, other: float) -> float:
    return 10 * math.log10(10 ** (one / 10) + 10 ** (other / 10))
