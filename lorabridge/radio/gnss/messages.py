"""What sentences and messages say: GGA, RMC and UBX-NAV-TIMEGPS. All others are passed over.

ZDA is not read: it has the date and time of RMC without the flag that says whether they are right.
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from lorabridge.lorawan.gps_time import GPS_EPOCH_NS
from lorabridge.radio.gnss.framing import Sentence, UbxMessage

SECOND_NS: Final = 1_000_000_000
NAV_TIMEGPS: Final = 0x0120
EARLIEST_S: Final = 1_704_067_200
"""2024-01-01. A receiver that says an earlier time has its clock wrong: 1024 weeks back is the usual fault."""
LATEST_S: Final = 4_102_444_800
"""2100-01-01: the end of two-digit years."""

_WEEK_S: Final = 604_800
_TIMEGPS: Final = struct.Struct("<IihbBI")
_LATITUDE: Final = re.compile(r"(\d\d)(\d\d(?:\.\d{1,9})?)", re.ASCII)
_LONGITUDE: Final = re.compile(r"(\d{3})(\d\d(?:\.\d{1,9})?)", re.ASCII)
_TIME: Final = re.compile(r"(\d\d)(\d\d)(\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_DATE: Final = re.compile(r"(\d\d)(\d\d)(\d\d)", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,7}(?:\.\d{1,9})?", re.ASCII)


class Position(msgspec.Struct, frozen=True):
    """Where the antenna is, WGS 84."""

    latitude: float
    """Degrees, north positive."""
    longitude: float
    """Degrees, east positive."""
    altitude_m: float | None
    """Metres above the geoid; None where the receiver does not know."""
    satellites: int
    """In use."""


class Place(NamedTuple):
    """What GGA says: None, that there is no fix."""

    position: Position | None


class UtcTime(NamedTuple):
    """What RMC says."""

    utc_ns: int | None
    """Nanoseconds since the Unix epoch; None: the receiver does not know, or it cannot be right.

    23:59:60 is the same number as the 00:00:00 after it.
    """
    leap_second: bool = False
    """Whether this is 23:59:60."""


class GpsTime(NamedTuple):
    """What UBX-NAV-TIMEGPS says (u-blox 7 protocol specification)."""

    gps_ns: int | None
    """Nanoseconds since 1980-01-06, without leap seconds; None: the receiver does not know, or it cannot be right."""
    leap_seconds: int | None
    """GPS time minus UTC in seconds; None as long as the receiver has not heard it from a satellite."""
    accuracy_ns: int
    """The receiver's own estimate."""


def interpret(message: Sentence | UbxMessage) -> Place | UtcTime | GpsTime | None:
    """What a message says, None when it is another or its form is wrong. Never raises."""
    try:
        if isinstance(message, UbxMessage):
            return _time_gps(message.payload) if message.kind == NAV_TIMEGPS else None
        address = message.fields[0]
        if len(address) != 5 or address.startswith("P"):
            return None
        if address.endswith("GGA"):
            return Place(_position(message.fields))
        return _recommended(message.fields) if address.endswith("RMC") else None
    except (ValueError, IndexError):
        return None


def _time_gps(payload: bytes) -> GpsTime | None:
    if len(payload) != _TIMEGPS.size:
        return None
    tow_ms, fraction_ns, week, leap_seconds, valid, accuracy_ns = _TIMEGPS.unpack(payload)
    gps_ns = (week * _WEEK_S * 1000 + tow_ms) * 1_000_000 + fraction_ns
    known = valid & 0b011 == 0b011 and tow_ms < _WEEK_S * 1000 and abs(fraction_ns) <= 500_000
    plausible = EARLIEST_S <= (gps_ns + GPS_EPOCH_NS) // SECOND_NS < LATEST_S
    return GpsTime(gps_ns if known and plausible else None, leap_seconds if valid & 0b100 else None, accuracy_ns)


def _position(fields: tuple[str, ...]) -> Position | None:
    """Fields of GGA: time, latitude, N/S, longitude, E/W, quality, satellites, HDOP, altitude, M and more."""
    if fields[6] == "0":
        return None
    latitude = _degrees(_LATITUDE, fields[2], fields[3], "NS", 90)
    longitude = _degrees(_LONGITUDE, fields[4], fields[5], "EW", 180)
    altitude = float(fields[9]) if _NUMBER.fullmatch(fields[9]) and fields[10] == "M" else None
    satellites = int(fields[7]) if re.fullmatch(r"\d\d?", fields[7], re.ASCII) else 0
    return Position(latitude, longitude, altitude, satellites)


def _degrees(form: re.Pattern[str], value: str, side: str, sides: str, limit: int) -> float:
    """Degrees and minutes as a signed number. Raises ValueError."""
    parts = form.fullmatch(value)
    if parts is None or len(side) != 1 or side not in sides or float(parts[2]) >= 60:
        raise ValueError(value)
    degrees = int(parts[1]) + float(parts[2]) / 60
    if degrees > limit:
        raise ValueError(value)
    return -degrees if side == sides[1] else degrees


def _recommended(fields: tuple[str, ...]) -> UtcTime:
    """Fields of RMC: time, status, latitude, N/S, longitude, E/W, speed, course, date and more."""
    if fields[2] != "A":
        return UtcTime(None)
    clock, date = _TIME.fullmatch(fields[1]), _DATE.fullmatch(fields[9])
    if clock is None or date is None:
        raise ValueError(fields[1])
    hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3])
    leap_second = (hour, minute, second) == (23, 59, 60)
    moment = datetime(2000 + int(date[3]), int(date[2]), int(date[1]), hour, minute, second - leap_second, tzinfo=UTC)
    seconds = int(moment.timestamp()) + leap_second
    if not EARLIEST_S <= seconds < LATEST_S:
        return UtcTime(None)
    return UtcTime(seconds * SECOND_NS + int((clock[4] or "0").ljust(9, "0")), leap_second)
