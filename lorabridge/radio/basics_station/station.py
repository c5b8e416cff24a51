"""One station that is connected: what it may be asked, and what it still owes an answer for."""

from __future__ import annotations

import asyncio
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from lorabridge.lorawan.air import TxResult
from lorabridge.radio.basics_station.messages import SentMessage
from lorabridge.radio.basics_station.orders import Order
from lorabridge.radio.basics_station.uplinks import Uplinks

NOT_CONNECTED: Final = "NOT_CONNECTED"
"""TxResult.error: no station of this EUI is connected."""
NOT_SENT: Final = "NO_DNTXED"
"""TxResult.error: the station did not report the frame as sent; it never says why."""
UNREPORTED: Final = "NO_REPORT"
"""TxResult.warning: the station has the order (`dnsched`), and says of such ones nothing at all."""


class Station:
    """One station at work."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.uplinks = Uplinks()
        self.is_configured = False
        """Whether it has its `router_config`: before that it drops every order."""
        self.waiting = 0
        """Its frames that wait for the pipeline."""
        self._pending: dict[int, asyncio.Future[TxResult]] = {}

    @property
    def owes(self) -> int:
        """How many downlinks wait for their `dntxed`."""
        return len(self._pending)

    async def send(self, order: Order, diid: int) -> TxResult:
        """Give an order, and wait until the station says that the frame is on the air, or does not say so in time."""
        answer: asyncio.Future[TxResult] = asyncio.get_running_loop().create_future()
        self._pending[diid] = answer
        try:
            async with asyncio.timeout(order.patience):
                await self.connection.send(order.text)
                return TxResult(warning=UNREPORTED) if order.patience is None else await answer
        except ConnectionClosed:
            return TxResult(error=NOT_CONNECTED)
        except TimeoutError:
            return TxResult(error=NOT_SENT)
        finally:
            self._pending.pop(diid, None)

    def conclude(self, message: SentMessage) -> bool:
        """A downlink is on the air; False when nobody waits for it."""
        diid = message.seqno if message.diid is None else message.diid
        answer = None if diid is None else self._pending.get(diid)
        if answer is None or answer.done():
            return False
        answer.set_result(TxResult())
        return True

    def gone(self) -> None:
        """The connection has ended: nothing will be answered any more."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_result(TxResult(error=NOT_CONNECTED))
