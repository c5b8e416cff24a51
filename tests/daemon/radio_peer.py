"""A packet forwarder by hand: datagrams as the protocol has them, and every order that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import msgspec

from lorabridge.lorawan.air import Antenna, Reception, Transmission, TxResult
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.rxpk_lines import build_line
from lorabridge.radio.txpk import build_tx_ack_payload, parse_txpk_payload
from tests.lorawan.builders import GATEWAY, heard

PUSH_DATA, PULL_DATA, PULL_RESP, TX_ACK = 0, 2, 3, 5
LIMIT = 10.0


class Forwarder(asyncio.DatagramProtocol):
    """One gateway. `answer(transmission)` is what it says to an order; None: nothing."""

    def __init__(self, eui: EUI64 = GATEWAY) -> None:
        self.eui = eui
        self.orders: asyncio.Queue[Transmission] = asyncio.Queue()
        self.answer: Callable[[Transmission], TxResult | None] = lambda _: TxResult()
        self._transport: asyncio.DatagramTransport | None = None
        self._acknowledged = asyncio.Event()
        self._token = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002  # asyncio's signature
        if data[3] != PULL_RESP:
            self._acknowledged.set()
            return
        order = parse_txpk_payload(data[4:], gateway_eui=self.eui)
        self.orders.put_nowait(order)
        said = self.answer(order)
        if said is not None:
            self._send(data[1:3], TX_ACK, build_tx_ack_payload(said))

    async def pull(self) -> None:
        """Open the way back, and wait until it is open."""
        await self._exchange(PULL_DATA, b"")

    async def push(self, reception: Reception) -> None:
        """Report a frame, and wait for the acknowledgement."""
        line = msgspec.json.decode(build_line(reception))
        await self._exchange(PUSH_DATA, msgspec.json.encode({"rxpk": [line["rxpk"]]}))

    async def hear(self, phy_payload: bytes, tmst: int = 1_000_000, snr: float = 5.0) -> None:
        """Report a frame as this gateway hears it."""
        reception = heard(phy_payload, gateway=self.eui, tmst=tmst)
        await self.push(msgspec.structs.replace(reception, antennas=(Antenna(snr_db=snr, rssi_dbm=-80.0),)))

    async def ordered(self) -> Transmission:
        """The next order."""
        return await asyncio.wait_for(self.orders.get(), LIMIT)

    async def _exchange(self, kind: int, body: bytes) -> None:
        self._token += 1
        self._acknowledged.clear()
        self._send(self._token.to_bytes(2, "big"), kind, body)
        await asyncio.wait_for(self._acknowledged.wait(), LIMIT)

    def _send(self, token: bytes, kind: int, body: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(b"\x02" + token + bytes([kind]) + self.eui.to_wire()[::-1] + body)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


@asynccontextmanager
async def forwarder(port: int, eui: EUI64 = GATEWAY) -> AsyncIterator[Forwarder]:
    """A gateway that the bridge at `port` can reach."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(lambda: Forwarder(eui), remote_addr=("127.0.0.1", port))
    try:
        await protocol.pull()
        yield protocol
    finally:
        protocol.close()
