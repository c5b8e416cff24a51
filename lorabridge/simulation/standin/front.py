"""What all connections of one stand-in share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorabridge.simulation.standin.broker_side import BrokerSide
from lorabridge.simulation.standin.events import Journal, Refusal
from lorabridge.simulation.standin.policy import Policy
from lorabridge.simulation.standin.quotas import Limits
from lorabridge.simulation.standin.screen import Observer
from lorabridge.simulation.standin.services.lending import Lending
from lorabridge.simulation.standin.tls_front import Door, TlsRules

if TYPE_CHECKING:
    from lorabridge.simulation.standin.connection import ClientSide


@dataclass(frozen=True, kw_only=True)
class Front:
    """What all connections of one stand-in share."""

    names: dict[Door, str]
    """What has to be asked for as SNI at each door."""
    rules: TlsRules
    admit: Callable[[bytes], Policy | Refusal]
    """The policy of a certificate (DER), or why it is refused."""
    lending: Lending
    answer: Callable[[ClientSide, str, bytes], None]
    """Has a service answer a request: its topic and its payload."""
    limits: Limits
    setup_timeout: float
    new_context: Callable[[Door], ssl.SSLContext]
    dial: Callable[[Callable[[], BrokerSide]], Awaitable[tuple[asyncio.Transport, BrokerSide]]]
    observer: Observer | None
    journal: Journal
    clock: Callable[[], float]
    by_client_id: dict[str, ClientSide]
