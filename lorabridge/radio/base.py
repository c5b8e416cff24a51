"""What every source of radio frames offers, and all that the rest of the house knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lorabridge.errors import TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult
from lorabridge.lorawan.types import EUI64


class SourceEnded(Exception):  # noqa: N818  # an end is no error
    """The source has nothing more, ever: a recording was played to its end."""


class RadioSilentError(TransientError):
    """The radio does not fail: it says nothing any more."""


class RadioSource(Protocol):
    """One way to hear and speak. A source owns its socket, port or file from `start` to `stop`.

    `start` and `receive` raise TransientError when the radio fails: the daemon stops the source, waits
    with back-off and starts it again. Nothing else may leave them but SourceEnded and CancelledError.
    """

    @property
    def name(self) -> str:
        """The name of this source in the configuration."""

    @property
    def can_transmit(self) -> bool:
        """Whether there is anything behind it that could send."""

    @property
    def reachable(self) -> frozenset[EUI64] | None:
        """The gateways behind it that give signs of life now; None where the source itself fails when they end."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Named totals since the process began, for statistics; a name never disappears."""

    async def start(self) -> None:
        """Open the radio. Raises ConfigError for what only the operator can mend, TransientError for the rest."""

    async def receive(self) -> list[Reception | GatewayStatus]:
        """Wait until something was heard, then return all that is waiting, oldest first; bounded.

        After `stop` it returns what was heard before, and then raises SourceEnded: a frame that was
        acknowledged to the gateway is judged.
        """

    async def transmit(self, transmission: Transmission) -> TxResult:
        """Hand a frame to the gateway and return its answer."""

    async def stop(self) -> None:
        """Let go of everything. May be called at any time, twice too."""
