"""What a receiver says, written from the formats' descriptions and not with our code."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

UNIX_OF_GPS = 315_964_800


def nmea(body: str) -> bytes:
    checksum = 0
    for character in body:
        checksum ^= ord(character)
    return f"${body}*{checksum:02X}\r\n".encode()


def ubx(kind: int, identifier: int, payload: bytes) -> bytes:
    body = bytes([kind, identifier]) + struct.pack("<H", len(payload)) + payload
    first, second = sum(body), sum((len(body) - at) * byte for at, byte in enumerate(body))
    return b"\xb5\x62" + body + bytes([first % 256, second % 256])


def time_gps(gps_s: int, leap: int, *, valid: int = 7, fraction_ns: int = 0, accuracy_ns: int = 20) -> bytes:
    week, second = divmod(gps_s, 604_800)
    return ubx(1, 0x20, struct.pack("<IihbBI", second * 1000, fraction_ns, week, leap, valid, accuracy_ns))


def rmc(gps_s: int, leap: int, *, leap_second: bool = False, status: str = "A") -> bytes:
    moment = datetime.fromtimestamp(gps_s + UNIX_OF_GPS - leap, UTC)
    clock, date = f"{moment:%H%M%S}", f"{moment:%d%m%y}"
    if leap_second:
        before = moment - timedelta(seconds=1)
        clock, date = f"{before:%H%M}60", f"{before:%d%m%y}"
    return nmea(f"GPRMC,{clock}.00,{status},4651.82012,N,00725.92000,W,0.0,0.0,{date},,,A")


def gga(quality: int = 1) -> bytes:
    return nmea(f"GNGGA,120000.00,4651.82012,N,00725.92000,W,{quality},08,0.9,548.0,M,47.0,M,,")
