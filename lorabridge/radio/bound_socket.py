"""A socket where the operator wants it: what can go wrong is told in the same words for UDP and for TCP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.radio.holders import opening_error

S = TypeVar("S", bound=socket.socket)


def bound(
    make: Callable[[socket.AddressFamily], S], bind: str, port: int, *, finish: Callable[[S], None], owner: str
) -> S:
    """What `make` makes, bound, not blocking, finished; on `::` it hears IPv4 too. `owner` is named in what is told.

    Raises ConfigError without the right to the port, TransientError when address or port cannot be had now
    (PortTakenError: another process has it).
    """
    place = f"{bind} port {port}"
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        opened = make(family)
    except OSError as error:
        raise TransientError(f"{place}: {error.strerror or error}") from None
    try:
        opened.setblocking(False)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind((bind, port))
        finish(opened)
    except PermissionError as error:
        opened.close()
        hint = "use a port of 1024 or above"
        raise ConfigError([Problem(where=owner, what=f"{place}: {error.strerror}", hint=hint)]) from None
    except OSError as error:
        opened.close()
        raise opening_error(place, error, opened.type, port) from None
    return opened
