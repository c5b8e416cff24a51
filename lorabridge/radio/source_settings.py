"""What several kinds of `[[radio]]` have in common: how a source is named, where it listens and to whom."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from msgspec import Meta

from lorabridge.lorawan.types import EUI64

SourceName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9_]{1,32}$(?!\n)",  # `$` alone takes a line break behind it
        description="name of this source in logs, counters and records: at most 32 of a to z, 0 to 9 and _",
    ),
]
AllowedGateways = Annotated[
    tuple[EUI64, ...], Meta(description="gateways to listen to, by EUI; with none, every gateway is heard")
]


def check_bind(bind: str) -> None:
    """Whether a source can listen there. Raises ValueError with a sentence for the operator."""
    try:
        ipaddress.ip_address(bind)
    except ValueError:
        raise ValueError(f"bind: {bind!r} is no IP address such as 127.0.0.1, 0.0.0.0 or ::") from None


def is_local(bind: str) -> bool:
    """Whether only programs of this machine reach an address."""
    return ipaddress.ip_address(bind).is_loopback
