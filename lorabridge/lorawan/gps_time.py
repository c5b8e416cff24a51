"""GPS time: it begins at 1980-01-06 00:00:00 UTC and knows no leap seconds, so it is ahead of UTC by a whole number."""

from __future__ import annotations

from typing import Final

GPS_EPOCH_NS: Final = 315_964_800_000_000_000
"""1980-01-06 in Unix time."""
LEAP_SECONDS: Final = 18
"""GPS time minus UTC since 2017-01-01 (IERS Bulletin C 52), as long as no receiver says otherwise.

The one place to change when another is announced. Old releases are then one second wrong where they have no receiver.
"""
_SECOND_NS: Final = 1_000_000_000


def gps_ns_of(utc_ns: int, leap_seconds: int = LEAP_SECONDS) -> int:
    """GPS time in nanoseconds of a moment in nanoseconds since the Unix epoch."""
    return utc_ns - GPS_EPOCH_NS + leap_seconds * _SECOND_NS


def utc_ns_of(gps_ns: int, leap_seconds: int = LEAP_SECONDS) -> int:
    """Nanoseconds since the Unix epoch of a moment in nanoseconds of GPS time."""
    return gps_ns + GPS_EPOCH_NS - leap_seconds * _SECOND_NS
