from __future__ import annotations

import pytest

from lorabridge.lorawan.gps_time import gps_ns_of, utc_ns_of

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("utc", "leap_seconds", "gps"),
    [
        (315_964_800, 0, 0),  # 1980-01-06T00:00:00Z, the beginning
        (1_483_228_799, 17, 1_167_264_016),  # 2016-12-31T23:59:59Z
        (1_483_228_800, 18, 1_167_264_018),  # 2017-01-01T00:00:00Z, a second inserted in between
        (1_136_073_600, 14, 820_108_814),  # 2006-01-01T00:00:00Z, the next after seven years
    ],
)
def test_known_moments_have_their_gps_time(utc: int, leap_seconds: int, gps: int) -> None:
    assert gps_ns_of(utc * SECOND, leap_seconds) == gps * SECOND
    assert utc_ns_of(gps * SECOND, leap_seconds) == utc * SECOND


def test_today_is_eighteen_seconds_ahead() -> None:
    assert gps_ns_of(1_700_000_000 * SECOND) == (1_700_000_000 - 315_964_800 + 18) * SECOND
