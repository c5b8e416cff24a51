"""A source with the stand-in library beneath it, and what the tests of it do alike."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lorabridge.lorawan.air import LoraDataRate, Reception, Transmission, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302

EUI = EUI64(0xFEDCBA9876543210)
CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(
    CC is None and os.environ.get("CI") != "true", reason="no C compiler to make the stand-in library with"
)

TRANSMISSION = Transmission(
    phy_payload=bytes(range(1, 21)),
    gateway_eui=EUI,
    timing=TxTiming.IMMEDIATELY,
    frequency_hz=868_100_000,
    data_rate=LoraDataRate(9, 125_000),
    power_dbm=16,
)


def compiled(folder: Path, *options: str) -> Path:
    path = folder / f"standin{len(options)}.so"
    source = Path(__file__).with_name("sx1302_standin.c")
    assert CC is not None
    subprocess.run([CC, "-Wall", "-Werror", "-shared", "-fPIC", *options, source, "-o", path], check=True)
    return path


def on(settings: Sx1302Settings, act: Callable[[Sx1302], Coroutine[Any, Any, None]]) -> Sx1302:
    """Do something with a started source, then stop it."""
    source = Sx1302(settings)

    async def run() -> None:
        await source.start()
        try:
            await act(source)
        finally:
            await source.stop()

    asyncio.run(run())
    return source


async def frames(source: Sx1302, count: int) -> list[Reception]:
    found: list[Reception] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += [one for one in await source.receive() if isinstance(one, Reception)]
    return found


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # it watches another process
        await asyncio.sleep(0.02)
