"""A Basics Station by hand, and the endpoint that it speaks to, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from lorabridge.lorawan.air import Transmission
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.basics_station.source import BasicsStation
from tests.radio.sending import transmission

EUI = EUI64(0x0016C001FF10A235)
ID6 = "16:c001:ff10:a235"
XTIME = (1 << 62) + (0x5A << 48) + 0x1_2345_6789
"""Beyond what a float can hold."""
TMST = XTIME & 0xFFFF_FFFF
UPINFO = {"rctx": 3, "xtime": XTIME, "gpstime": 1_300_000_000_123_456, "fts": -1, "rssi": -87, "snr": 7.25}
HEARD = {"DR": 5, "Freq": 868_100_000, "RefTime": 0.0, "upinfo": UPINFO}
UPDF = {
    "msgtype": "updf",
    "MHdr": 0x40,
    "DevAddr": -0x0BCCDDEF,
    "FCtrl": 0xC0,
    "FCnt": 3,
    "FOpts": "",
    "FPort": 8,
    "FRMPayload": "02010203",
    "MIC": -0x778899AB,
} | HEARD
FRAME_ON_AIR = (
    bytes([0x40])
    + (-0x0BCCDDEF & 0xFFFF_FFFF).to_bytes(4, "little")
    + bytes.fromhex("c0030008")
    + bytes.fromhex("02010203")
    + (-0x778899AB & 0xFFFF_FFFF).to_bytes(4, "little")
)
VERSION = {"msgtype": "version", "station": "2.0.6(linux/testsim)", "protocol": 2, "features": ""}
LIMIT = 10.0


@asynccontextmanager
async def endpoint(clocks: Any = {}, **settings: Any) -> AsyncIterator[BasicsStation]:  # noqa: B006  # only read
    fields: dict[str, Any] = {"region": "EU868", "port": 0} | settings
    source = BasicsStation(BasicsStationSettings(**fields), **clocks)
    await source.start()
    try:
        async with asyncio.timeout(LIMIT):
            yield source
    finally:
        await source.stop()


@asynccontextmanager
async def station(source: BasicsStation, path: str = f"/router/{ID6}", **how: Any) -> AsyncIterator[ClientConnection]:
    scheme = "wss" if "ssl" in how else "ws"
    async with connect(f"{scheme}://127.0.0.1:{source.address[1]}{path}", compression=None, **how) as opened:
        yield opened


async def configured(opened: ClientConnection) -> dict[str, Any]:
    await opened.send(json.dumps(VERSION))
    answer: dict[str, Any] = json.loads(await opened.recv())
    return answer


def order(**change: Any) -> Transmission:
    return transmission(EUI, TMST, **change)


def updf_of(phy_payload: bytes, **change: Any) -> str:
    """A data frame as a station takes it apart."""

    def signed(octets: bytes) -> int:
        return int.from_bytes(octets, "little", signed=True)

    end_of_options = 8 + (phy_payload[5] & 0x0F)
    rest = phy_payload[end_of_options:-4]
    fields = {
        "msgtype": "updf",
        "MHdr": phy_payload[0],
        "DevAddr": signed(phy_payload[1:5]),
        "FCtrl": phy_payload[5],
        "FCnt": int.from_bytes(phy_payload[6:8], "little"),
        "FOpts": phy_payload[8:end_of_options].hex(),
        "FPort": rest[0] if rest else -1,
        "FRMPayload": rest[1:].hex(),
        "MIC": signed(phy_payload[-4:]),
    }
    return json.dumps(fields | HEARD | change)
