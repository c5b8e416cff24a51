"""Where commands of the cloud come in: read once, then an order, or a rejection with the reason."""

from __future__ import annotations

from collections.abc import Callable

from lorabridge.daemon.downlinks import Downlinks, Order
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand
from lorabridge.upstream.commands import BadCommand, parse_command
from lorabridge.upstream.inbound import Inbound


class CommandDesk:
    """The link's sink of commands (`inbound.CommandSink`). `clock`: nanoseconds since the Unix epoch."""

    def __init__(self, downlinks: Downlinks, clock: Callable[[], int]) -> None:
        self._downlinks = downlinks
        self._clock = clock

    def received(self, inbound: Inbound) -> None:
        """A message has come; its PUBACK goes out when what follows from it is durable."""
        now = self._clock()
        try:
            order = Order(parse_command(inbound.target, inbound.payload, now), inbound.ack)
        except BadCommand as error:
            named = DownlinkCommand(
                id=error.command_id or "",
                target=inbound.target,
                f_port=0,
                payload=b"",
                correlation_id=error.correlation_id,
                received_at=now,
            )
            order = Order(named, inbound.ack, CommandReason.BAD_COMMAND, error.message)
        self._downlinks.order(order)
