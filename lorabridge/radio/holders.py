"""Which other processes have a device or a port: what an operator has to know when it cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Final, NamedTuple

from lorabridge.errors import TransientError

_TABLES: Final = {
    socket.SOCK_DGRAM: ("udp", "udp6"),
    socket.SOCK_STREAM: ("tcp", "tcp6"),
}
"""The tables of /proc/net that have the sockets of a kind (proc_net(5))."""
_LOCAL, _REMOTE, _INODE = 1, 2, 9
"""Their columns."""
_NO_PEER: Final = ":0000"


class PortTakenError(TransientError):
    """Another process has the port."""


class Holder(NamedTuple):
    """A process that has something open."""

    pid: int
    name: str
    """As the kernel keeps it, at most 15 characters."""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def holders(device: str) -> list[Holder]:
    """Other processes that have this file open, as far as this account may see: all of them only as root."""
    return [one for one in _with_open({os.path.realpath(device)}) if one.pid != os.getpid()]


def port_holders(kind: socket.SocketKind, port: int) -> list[Holder]:
    """Processes that have a socket without a peer bound to this port, on whatever address, as far as is to be seen."""
    inodes = {inode for table in _TABLES[kind] for inode in _bound(Path("/proc/net", table), port)}
    return _with_open({f"socket:[{inode}]" for inode in inodes}) if inodes else []


def taken(error: OSError, kind: socket.SocketKind, port: int) -> str:
    """Why a port cannot be had, and by whom it is taken, if that can be seen."""
    if error.errno != errno.EADDRINUSE:
        return error.strerror or str(error)
    by = ", ".join(map(str, port_holders(kind, port))) or "a program that this account may not see"
    return f"{os.strerror(errno.EADDRINUSE)} by {by}"


def opening_error(place: str, error: OSError, kind: socket.SocketKind, port: int) -> TransientError:
    """What the failed opening of a port means; `place` begins the message."""
    found = PortTakenError if error.errno == errno.EADDRINUSE else TransientError
    return found(f"{place}: {taken(error, kind, port)}")


def _bound(table: Path, port: int) -> list[str]:
    """The inodes of the sockets of a table that are bound to this port."""
    try:
        rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    except (OSError, ValueError):  # out of sight of a service, or without IPv6
        return []
    here = f":{port:04X}"
    return [row[_INODE] for row in rows if row[_LOCAL].endswith(here) and row[_REMOTE].endswith(_NO_PEER)]


def _with_open(targets: set[str]) -> list[Holder]:
    """Processes with one of these open."""
    processes = (folder for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return sorted(Holder(int(folder.name), _name(folder)) for folder in processes if _has_open(folder, targets))


def _has_open(folder: Path, targets: set[str]) -> bool:
    """Whether the process of this folder of /proc has one of these open."""
    try:
        return any(_leads_to(entry, targets) for entry in (folder / "fd").iterdir())
    except OSError:  # another account's, or it has ended
        return False


def _leads_to(entry: Path, targets: set[str]) -> bool:
    try:
        return str(entry.readlink()) in targets
    except OSError:  # closed in the meantime
        return False


def _name(folder: Path) -> str:
    try:
        return (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process that has ended"
