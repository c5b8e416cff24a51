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
"""The same for what is sent at once: a station tries for a second."""
_NOBODY: Final = dashed(EUI64(1))
"""A station reports only downlinks that have a DevEUI; it makes nothing else of it."""


class Order(msgspec.Struct, frozen=True):
    """A message for a station."""

    text: str
    patience: float
    """Seconds until `dntxed` has to be there."""


def order(
    transmission: Transmission, uplinks: Uplinks, rates: list[DataRate | None], diid: int, *, monotonic: float
) -> Order:
    """The words for a transmission, at `monotonic` seconds. Raises ValueError when the protocol has none."""
    numbers = [number for number, rate in enumerate(rates) if rate == transmission.data_rate]
    if not numbers:
        raise ValueError("a data rate that the station was not told of")
    frame = {"diid": diid, "pdu": transmission.phy_payload.hex(), "priority": 0}
    where = (numbers[0], transmission.frequency_hz)
    if transmission.timing is TxTiming.IMMEDIATELY:
        # Class C without RX1: at once.
        return _dnmsg(frame, AT_ONCE_LIMIT, dC=2, RxDelay=1, RX2DR=where[0], RX2Freq=where[1])
    after = None if transmission.tmst is None else uplinks.find(transmission.tmst)
    if transmission.timing is not TxTiming.AT_TMST or after is None:
        raise ValueError("a time that belongs to no uplink of the station")
    heard, delay = after
    return _window(frame, heard, delay, where, monotonic)


def _window(frame: dict[str, Any], heard: Heard, delay: int, where: tuple[int, int], monotonic: float) -> Order:
    """Class A: so many whole seconds after an uplink."""
    patience = heard.heard_at + delay + SENT_LIMIT - monotonic
    uplink = {"dC": 0, "xtime": heard.xtime, "rctx": heard.rctx}
    if delay < LONGEST_DELAY:
        return _dnmsg(frame | uplink, patience, RxDelay=delay, RX1DR=where[0], RX1Freq=where[1])
    return _dnmsg(frame | uplink, patience, RxDelay=delay - 1, RX2DR=where[0], RX2Freq=where[1])


def _dnmsg(frame: dict[str, Any], patience: float, **fields: int) -> Order:
    return Order(text=build({"msgtype": "dnmsg", "DevEui": _NOBODY} | frame | fields), patience=max(0.0, patience))
