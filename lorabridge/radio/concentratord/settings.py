"""The settings of a radio that ChirpStack Concentratord drives."""

from __future__ import annotations

import os
import re
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.radio.source_settings import SourceName
from lorabridge.settings import Duration

IPC_PATH_LIMIT: Final = 107
"""Bytes: what Linux has room for in the address of a UNIX socket."""
INSTALL_HINT: Final = (
    "install the extra: systemd/install.sh --with concentratord, or pip install 'lorabridge[concentratord]'"
)
_IPC = "ipc://"
_ADDRESS = re.compile(r"ipc:///\S+|tcp://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")


class ConcentratordSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[radio]]` of type `concentratord`: a concentrator that ChirpStack Concentratord drives."""

    name: SourceName = "concentratord"
    event_url: Annotated[
        str,
        Meta(
            description="where Concentratord publishes (its `event_bind`): ipc:///path or tcp://host:port; the service "
            "does not see the default's /tmp, docs/concentratord.md says what to set",
        ),
    ] = "ipc:///tmp/concentratord_event"
    command_url: Annotated[str, Meta(description="where Concentratord takes commands (its `command_bind`)")] = (
        "ipc:///tmp/concentratord_command"
    )
    answer_timeout: Annotated[Duration, Meta(description="how long Concentratord may take to answer a command")] = (
        Duration(2)
    )
    silence: Annotated[
        Duration,
        Meta(
            description="after this long without any event the source is started anew; more than Concentratord's "
            "`stats_interval`, which is 30s"
        ),
    ] = Duration(100)

    def __post_init__(self) -> None:
        for name in ("event_url", "command_url"):
            found = _ADDRESS.fullmatch(getattr(self, name))
            if found is None or (found[1] and not 0 < int(found[1]) <= 0xFFFF):
                raise ValueError(f"{name}: expected ipc:///path or tcp://host:port, with a port of 1 to 65535")
            path = ipc_path(getattr(self, name))
            if path is not None and len(os.fsencode(path)) > IPC_PATH_LIMIT:
                raise ValueError(f"{name}: the path of a socket has at most {IPC_PATH_LIMIT} bytes")
        if self.event_url == self.command_url:
            raise ValueError("event_url and command_url are two sockets")
        if not 0.1 <= self.answer_timeout <= 60 or not 1 <= self.silence <= 86_400:
            raise ValueError("answer_timeout: 100ms to 1min; silence: 1s to 1d")


def ipc_path(url: str) -> Path | None:
    """The file of an `ipc://` address, None for another."""
    return Path(url.removeprefix(_IPC)) if url.startswith(_IPC) else None


def missing_extra(where: str) -> list[Problem]:
    """That the package for ZeroMQ is not installed, if it is not."""
    if find_spec("zmq") is not None:
        return []
    return [Problem(where=where, what="type concentratord needs the Python package pyzmq", hint=INSTALL_HINT)]


def socket_problem(url: str, where: str) -> Problem | None:
    """What keeps us from the socket of an `ipc://` address, as far as its file shows it."""
    path = ipc_path(url)
    if path is None:
        return None
    page = "docs/concentratord.md"
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except OSError as error:
        what = f"{path}: {error.strerror}"
        hint = f"start Concentratord; the service sees no /tmp but its own, and needs Concentratord's group: {page}"
    else:
        if is_socket and os.access(path, os.W_OK):
            return None
        what = f"{path}: no permission to speak to it" if is_socket else f"{path} is no socket"
        hint = f"give Concentratord a UMask, and us its group: {page}" if is_socket else "give Concentratord's address"
    return Problem(where=where, what=what, hint=hint, warning=True)
