"""Words of `TxResult.error` that more than one kind of source says, and the limit behind one of them."""

from __future__ import annotations

from typing import Final

PENDING_LIMIT: Final = 256
"""Transmissions that may wait for the gateway's answer at a time."""
BUSY: Final = "TOO_MANY_PENDING"
"""Too many transmissions wait for the gateway's answer."""
UNSENDABLE: Final = "UNSENDABLE"
"""The protocol has no words for the transmission."""
NOT_RUNNING: Final = "NOT_RUNNING"
"""What would send does not run at the moment."""
NO_ANSWER: Final = "NO_TX_ACK"
"""Nobody said what became of the transmission."""
