"""Servers of tests, ended so that nothing of them is left to the garbage collector of a later test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


async def end(server: asyncio.Server) -> None:
    """Close a server and whatever it accepted; `Server.abort_clients` does that from Python 3.13 on."""
    loop = asyncio.get_running_loop()
    server.close()
    for _ in range(3):  # what was accepted a moment ago becomes a transport in the next turns
        await asyncio.sleep(0)
        for transport in list(getattr(loop, "_transports").values()):  # noqa: B009  # private, and not in typeshed
            if getattr(transport, "_server", None) is server:
                transport.abort()
    await asyncio.sleep(0)


@asynccontextmanager
async def ending(server: asyncio.Server) -> AsyncIterator[int]:
    """The port of a server that listens, ended afterwards."""
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        await end(server)
