"""The broker's end of one client's connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from lorabridge.simulation.standin.broker_screen import BrokerScreen
from lorabridge.simulation.standin.mqtt_wire import MalformedPacket
from lorabridge.simulation.standin.screen import ClientScreen

if TYPE_CHECKING:
    from lorabridge.simulation.standin.connection import ClientSide


class BrokerSide(asyncio.Protocol):
    """Screens what the broker says, and tells the client's end when it is over."""

    def __init__(self, client: ClientSide, screen: ClientScreen) -> None:
        self._client = client
        self._client_screen = screen
        self._screen = BrokerScreen(screen)
        self._fault = ""
        self._transport: asyncio.Transport | None = None
        self._reads_held_by: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to write."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Packets from the broker."""
        was_connected = self._screen.is_connected
        try:
            passed = self._screen.screen(data, asyncio.get_running_loop().time())
        except MalformedPacket as error:
            self._fault = f"the broker does not speak MQTT: {error}"
            self.abort()
            return
        if self._screen.is_connected and not was_connected:
            self._client.broker_connected()
        self.write(b"".join(passed.to_broker))
        self._client.from_broker(self._client_screen, passed)

    def connection_lost(self, exc: Exception | None) -> None:
        """The broker is gone."""
        self._transport = None
        self._client.broker_closed(self._fault or str(exc or ""))

    def pause_writing(self) -> None:
        """The broker reads slowly: so do we read from the client."""
        self._client.hold_reads("broker", hold=True)

    def resume_writing(self) -> None:
        """The broker has caught up."""
        self._client.hold_reads("broker", hold=False)

    def write(self, packets: bytes) -> None:
        """Send."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packets)

    def close(self) -> None:
        """Close when everything is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def hold_reads(self, reason: str, *, hold: bool) -> None:
        """Stop reading from the broker while any reason holds."""
        (self._reads_held_by.add if hold else self._reads_held_by.discard)(reason)
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if self._reads_held_by else self._transport.resume_reading)()
