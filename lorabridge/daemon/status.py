"""`lorabridge status`: the running bridge answers one JSON object to whoever may open its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.errors import ConfigError, Problem

_ALWAYS = {"healthy", "stuck", "verdicts", "counters", "gateways"}
"""What every answer has."""


def ask(path: Path, timeout: float) -> dict[str, Any]:
    """What the running bridge answers. Raises OSError when nobody does, ValueError when it is another program."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(timeout)
        asking.connect(str(path))
        with asking.makefile("rb") as answer:
            found = json.loads(answer.read())
    if not isinstance(found, dict) or not found.keys() >= _ALWAYS:
        raise ValueError("this is another program's socket")
    return found


class StatusServer:
    """A Unix socket, mode 0660, that answers every connection with `answer()` and hangs up."""

    def __init__(self, path: Path, answer: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises ConfigError when the place is not ours to use."""
        try:
            if stat.S_ISSOCK(self._path.stat().st_mode):
                self._path.unlink()  # left by a run that was killed; the lock of the store keeps a second one out
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
            os.chmod(self._path, 0o660)  # noqa: PTH101  # a socket that only this process knows yet
        except OSError as error:
            raise self._unusable(error) from None

    async def stop(self) -> None:
        """Stop listening and take the socket away."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(msgspec.json.encode(self._answer()) + b"\n")
            await writer.drain()
        writer.close()

    def _unusable(self, error: OSError) -> ConfigError:
        hint = "set report.status_socket to a path in a directory that the service may write"
        return ConfigError([Problem(where=str(self._path), what=error.strerror or str(error), hint=hint)])
