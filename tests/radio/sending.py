"""What the tests of every source that sends have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lorabridge.lorawan.air import LoraDataRate, Transmission, TxTiming
from lorabridge.lorawan.types import EUI64


def played(scenario: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario()

    asyncio.run(run())


def transmission(gateway: EUI64, heard_at: int, /, **change: Any) -> Transmission:
    """One for `gateway`, to send a second after `heard_at`, microseconds of the concentrator."""
    base: dict[str, Any] = {
        "phy_payload": b"\x60answer",
        "gateway_eui": gateway,
        "timing": TxTiming.AT_TMST,
        "frequency_hz": 868_100_000,
        "data_rate": LoraDataRate(7, 125_000),
        "power_dbm": 14,
        "tmst": (heard_at + 1_000_000) & 0xFFFF_FFFF,
    }
    return Transmission(**(base | change))
