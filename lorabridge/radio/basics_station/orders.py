"""What a station is told to send, and until when it has to have said that it did.

Each window is ordered by itself: which one it is the bridge decides, so that its books are right.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lorabridge.lorawan.air import DataRate, Transmission, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.basics_station.messages import build, dashed
from lorabridge.radio.basics_station.uplinks import LONGEST_DELAY, Heard, Uplinks

SENT_LIMIT: Final = 0.5
"""Seconds after its moment until a silent station counts as having refused."""
AT_ONCE_LIMIT: Final = 2.0
"""The same for what is sent at once (a station tries for a second) or by GPS time (which our clock may miss)."""
LONGEST_AHEAD: Final = 600.0
"""Seconds: a station takes nothing for a later moment."""
_US: Final = 1_000_000
_NOBODY: Final = dashed(EUI64(1))
"""A station reports only downlinks that have a DevEUI; it makes nothing else of it."""


class Order(msgspec.Struct, frozen=True):
    """A message for a station."""

    text: str
    patience: float | None
    """Seconds until `dntxed` has to be there; None for a message that no station answers."""


def order(
    transmission: Transmission,
    uplinks: Uplinks,
    rates: list[DataRate | None],
    diid: int,
    *,
    monotonic: float,
    gps_ns: int,
) -> Order:
    """The words for a transmission, at `monotonic` seconds and `gps_ns` of GPS time.

    Raises ValueError when the protocol has none, or no station would take them.
    """
    numbers = [number for number, rate in enumerate(rates) if rate == transmission.data_rate]
    if not numbers:
        raise ValueError("a data rate that the station was not told of")
    frame = {"diid": diid, "pdu": transmission.phy_payload.hex(), "priority": 0}
    where = (numbers[0], transmission.frequency_hz)
    if transmission.timing is TxTiming.IMMEDIATELY:
        # Class C without RX1: at once.
        return _dnmsg(frame, AT_ONCE_LIMIT, dC=2, RxDelay=1, RX2DR=where[0], RX2Freq=where[1])
    if transmission.timing is TxTiming.AT_GPS_TIME:
        if transmission.gps_time_ms is None:
            raise ValueError("no time")
        ahead = _ahead(transmission.gps_time_ms / 1000 - gps_ns / 1e9)
        # A ping slot of class B is a frame at a moment, and unlike those of `dnsched` it is reported.
        gps_us = transmission.gps_time_ms * 1000
        return _dnmsg(frame, ahead + AT_ONCE_LIMIT, dC=1, gpstime=gps_us, DR=where[0], Freq=where[1])
    if transmission.tmst is None:
        raise ValueError("no time")
    after = uplinks.find(transmission.tmst)
    if after is None:
        return _dnsched(frame, uplinks.at(transmission.tmst, monotonic), where, monotonic)
    heard, delay = after
    return _window(frame, heard, delay, where, monotonic)


def _window(frame: dict[str, Any], heard: Heard, delay: int, where: tuple[int, int], monotonic: float) -> Order:
    """Class A: so many whole seconds after an uplink."""
    patience = heard.heard_at + delay + SENT_LIMIT - monotonic
    uplink = {"dC": 0, "xtime": heard.xtime, "rctx": heard.rctx}
    if delay < LONGEST_DELAY:
        return _dnmsg(frame | uplink, patience, RxDelay=delay, RX1DR=where[0], RX1Freq=where[1])
    return _dnmsg(frame | uplink, patience, RxDelay=delay - 1, RX2DR=where[0], RX2Freq=where[1])


def _dnsched(frame: dict[str, Any], moment: Heard, where: tuple[int, int], monotonic: float) -> Order:
    """At a moment of the station's clock that no window belongs to."""
    _ahead(moment.heard_at - monotonic)
    entry = frame | {"xtime": moment.xtime, "rctx": moment.rctx, "DR": where[0], "Freq": where[1]}
    return Order(text=build({"msgtype": "dnsched", "schedule": [entry]}), patience=None)


def _dnmsg(frame: dict[str, Any], patience: float, **fields: int) -> Order:
    return Order(text=build({"msgtype": "dnmsg", "DevEui": _NOBODY} | frame | fields), patience=max(0.0, patience))


def _ahead(seconds: float) -> float:
    """How far ahead a moment is. Raises ValueError when a station would not take it, for it says nothing then."""
    if not 0 < seconds <= LONGEST_AHEAD:
        raise ValueError("a time that is over or too far away")
    return seconds
