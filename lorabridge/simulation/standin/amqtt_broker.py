"""amqtt (MQTT 3.1.1) as the broker behind the front: in this process, and on no port at all."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lorabridge.errors import ConfigError, Problem

if TYPE_CHECKING:
    from amqtt.broker import Broker

_log = logging.getLogger(__name__)
_NOISY = ("amqtt", "transitions")
_LISTENER = "default"
_P = TypeVar("_P", bound=asyncio.Protocol)


class AmqttBroker:
    """One broker; the front reaches it by a socket pair for each client."""

    def __init__(self) -> None:
        self._broker: Broker | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._levels: dict[str, int] = {}

    async def start(self) -> None:
        """Raises ConfigError when amqtt is not installed."""
        try:
            from amqtt.broker import Broker  # noqa: PLC0415  # an extra, and slow to import
        except ImportError:
            hint = 'pip install "lorabridge[simulation]", or name another broker'
            raise ConfigError([Problem(where="the stand-in", what="amqtt is not installed", hint=hint)]) from None
        for name in _NOISY:  # they tell of every packet and every state
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.ERROR)
        self._broker = Broker(
            {
                "listeners": {_LISTENER: {"type": "external", "bind": "in-process"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await self._broker.start()

    async def dial(self, protocol: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
        """Connect `protocol` to the broker. Raises OSError when it does not run."""
        if self._broker is None:
            raise ConnectionRefusedError("the broker does not run")
        ours, theirs = socket.socketpair()
        session = asyncio.create_task(self._serve(self._broker, theirs), name="amqtt-session")
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)
        return await asyncio.get_running_loop().create_connection(protocol, sock=ours)

    async def _serve(self, broker: Broker, sock: socket.socket) -> None:
        from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter  # noqa: PLC0415  # as in start

        class Writer(StreamWriterAdapter):  # type: ignore[misc]  # amqtt has no types
            def get_peer_info(self) -> tuple[str, int]:
                return "front", 0  # the end of a socket pair has no address, and amqtt wants one

        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            await broker.external_connected(StreamReaderAdapter(reader), Writer(writer), _LISTENER)
        except Exception:  # noqa: BLE001  # a fault of amqtt costs one client its connection
            _log.exception("amqtt failed in a session")
        finally:
            writer.close()

    async def stop(self) -> None:
        """End all sessions, then the broker."""
        if self._broker is None:
            return
        broker, self._broker = self._broker, None
        for session in list(self._sessions):
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await broker.shutdown()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
