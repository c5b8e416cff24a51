"""A UDP socket for much traffic on Linux: a receive buffer of a stated size, and what the kernel dropped."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Final

from lorabridge.radio.bound_socket import bound

_LOGGER = logging.getLogger(__name__)

_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; Python does not name it
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("9I")  # linux/sock_diag.h; the last is SK_MEMINFO_DROPS


def open_udp(bind: str, port: int, *, receive_buffer: int, owner: str) -> socket.socket:
    """A bound socket that does not block; on `::` it hears IPv4 too. `owner` is named in what is told.

    Raises ConfigError without the right to the port, TransientError when address or port cannot be had now.
    """
    return bound(
        lambda family: socket.socket(family, socket.SOCK_DGRAM),
        bind,
        port,
        finish=lambda opened: _set_buffer(opened, receive_buffer, owner),
        owner=owner,
    )


def kernel_drops(opened: socket.socket | None) -> int:
    """Datagrams that the kernel dropped at this socket: no room, or a wrong checksum.

    SO_MEMINFO costs one system call a question and nothing a datagram, where SO_RXQ_OVFL wants `recvmsg` for each
    (0.2 us more) and tells only with the next one; /proc/net/udp takes 60 us and may be out of sight of a service.
    """
    if opened is None:
        return 0
    try:
        answer = opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:  # before Linux 4.12
        return 0
    return int(_MEMINFO.unpack(answer)[8]) if len(answer) == _MEMINFO.size else 0


def _set_buffer(opened: socket.socket, size: int, owner: str) -> None:
    """Ask for the receive buffer, with force if we may; say so when it stays smaller."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    granted = opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux doubles it for its own needs
    if granted < size:
        _LOGGER.warning(
            "the receive buffer is smaller than asked for: raise net.core.rmem_max",
            extra={"fields": {"source": owner, "asked": int(size), "granted": granted}},
        )
