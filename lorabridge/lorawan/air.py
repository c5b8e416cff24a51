"""The values that both sides of the radio seam share: what was heard, what is to be sent, how sending went."""

from __future__ import annotations

import enum

import msgspec

from lorabridge.lorawan.types import EUI64


class CrcStatus(enum.Enum):
    """What the radio said about the PHY CRC; the values are `stat` of the UDP protocol."""

    OK = 1
    BAD = -1
    NONE = 0


class LoraDataRate(msgspec.Struct, frozen=True, gc=False):
    """LoRa modulation: spreading factor 5 to 12 and bandwidth in Hz."""

    spreading_factor: int
    bandwidth_hz: int


class FskDataRate(msgspec.Struct, frozen=True, gc=False):
    """FSK modulation: bit rate in bit/s."""

    bit_rate: int


DataRate = LoraDataRate | FskDataRate


class Antenna(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one antenna of a gateway heard a frame. dBm and dB; None where the gateway does not say."""

    antenna: int | None = None
    channel: int | None = None
    rssi_dbm: float | None = None
    signal_rssi_dbm: float | None = None
    signal_rssi_deviation_db: float | None = None
    """`rssisd` of v2 gateways: standard deviation of the signal RSSI during the preamble."""
    snr_db: float | None = None
    frequency_offset_hz: int | None = None
    fine_time_ns: int | None = None
    """Nanoseconds since the last PPS, 0 to 999 999 999."""
    encrypted_fine_time: bytes | None = None
    """`etime` of v2 gateways: opaque without the gateway's key."""


class Reception(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One frame as one gateway heard it: hostile bytes, and metadata that only the gateway vouches for."""

    phy_payload: bytes
    received_at: int
    """Nanoseconds since the Unix epoch, by the clock of the source (a recording's own time when it is played)."""
    gateway_eui: EUI64
    source: str
    """Name of the radio source in the configuration."""
    crc: CrcStatus
    frequency_hz: int
    data_rate: DataRate
    code_rate: str | None = None
    tmst: int | None = None
    """Concentrator counter in microseconds at the end of the frame, 32 bits, wraps."""
    gateway_time_ns: int | None = None
    """UTC by the gateway's own GPS, nanoseconds since the Unix epoch."""
    gps_time_ms: int | None = None
    """`tmms`: milliseconds since 1980-01-06, without leap seconds."""
    rf_chain: int | None = None
    modem: int | None = None
    board: int | None = None
    """`brd`: concentrator board of a gateway that has several."""
    aes_key_index: int | None = None
    """`aesk`: which key encrypts the fine time of v2 gateways."""
    antennas: tuple[Antenna, ...] = ()
    """At least one entry for a LoRa gateway; more for gateways with several antennas."""


class TxTiming(enum.Enum):
    """When a transmission starts."""

    IMMEDIATELY = "immediately"
    AT_TMST = "at_tmst"
    AT_GPS_TIME = "at_gps_time"


class Transmission(msgspec.Struct, frozen=True, kw_only=True):
    """One frame for one gateway to send."""

    phy_payload: bytes
    gateway_eui: EUI64
    timing: TxTiming
    frequency_hz: int
    data_rate: DataRate
    power_dbm: int
    tmst: int | None = None
    gps_time_ms: int | None = None
    code_rate: str = "4/5"
    rf_chain: int = 0
    antenna: int | None = None
    board: int | None = None
    invert_polarity: bool = True
    """LoRaWAN downlinks are inverted so that devices do not hear each other."""
    crc: bool = False
    preamble_symbols: int | None = None
    frequency_deviation_hz: int | None = None


class TxResult(msgspec.Struct, frozen=True):
    """What the gateway said of a transmission: `error` is None for success, else the protocol's own word."""

    error: str | None = None
    warning: str | None = None
    power_dbm: int | None = None
    """Power really used, when it differs from what was asked."""


class Airtime(msgspec.Struct, frozen=True, gc=False):
    """One transmission of a gateway in one sub-band."""

    gateway_eui: EUI64
    band_hz: int
    """The lower edge of the sub-band."""
    at: int
    """Nanoseconds since the Unix epoch."""
    duration_us: int


class ChannelNoise(msgspec.Struct, frozen=True, gc=False):
    """What a gateway measured on one channel while it did not transmit. dBm, in steps of 4 dB."""

    frequency_hz: int
    median_dbm: int
    loud_dbm: int
    """Only 5 % of the measurements were louder."""


class GnssHealth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How good the gateway's own time and place are."""

    time_quality: str
    """`gps`, `utc` (leap seconds by table), `stale` (not lately) or `none` (not yet)."""
    accuracy_ns: int | None = None
    """The receiver's own estimate."""
    satellites: int | None = None
    leap_seconds: int | None = None
    """GPS time minus UTC; None as long as the receiver does not say."""
    missed_seconds: int = 0
    """Seconds without a statement between two, since the beginning."""
    pulse_locked: bool
    """Whether the pulses (PPS) that the concentrator counts and the receiver's seconds agree."""


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One status report of a gateway (`stat`); None where it does not say."""

    gateway_eui: EUI64
    source: str
    received_at: int
    time: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    rx_received: int | None = None
    rx_ok: int | None = None
    rx_forwarded: int | None = None
    upstream_acked_percent: float | None = None
    tx_received: int | None = None
    tx_emitted: int | None = None
    temperature_c: float | None = None
    platform: str | None = None
    mail: str | None = None
    description: str | None = None
    gnss: GnssHealth | None = None
    noise: tuple[ChannelNoise, ...] = ()
    """The last measurement of each channel that is scanned, by frequency."""
