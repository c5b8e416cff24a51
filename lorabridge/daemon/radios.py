"""Every radio source at work: a task each, restarted with back-off when it fails, all heard through one inbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from lorabridge.backoff import Backoff
from lorabridge.daemon.health import Check, Health
from lorabridge.daemon.log import Facts
from lorabridge.daemon.radio_watch import RadioWatch
from lorabridge.errors import ConfigError, TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult
from lorabridge.lorawan.events import RadioEvent
from lorabridge.radio.base import RadioSource, SourceEnded

Heard = Reception | GatewayStatus

INBOX_BATCHES = 16
"""Batches that wait for the pipeline; when it is full the sources hold back, and count what they drop."""
NO_SOURCE = "NO_SOURCE"
SOURCE_FAILED = "SOURCE_FAILED"
"""TxResult.error: the gateway's radio source is not configured any more, or failed."""
STABLE_AFTER = 30.0
"""Seconds that a source must have worked for its next failure to count as the first."""
STOP_LIMIT = 2.0
"""Seconds a source may take to let go."""

_FACTS = Facts(logging.getLogger(__name__))


class Radios:
    """The sources of one bridge."""

    def __init__(
        self,
        sources: Sequence[RadioSource],
        health: Health,
        backoff: Mapping[str, Backoff],
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives ns since the Unix epoch, `monotonic` seconds."""
        self._sources = sources
        self._health = health
        self._backoff = backoff
        self.watch = RadioWatch(clock, monotonic)
        """What is lost, and what is told of it."""
        self._monotonic = monotonic
        self._inbox: asyncio.Queue[list[Heard]] = asyncio.Queue(INBOX_BATCHES)
        self._tasks: list[asyncio.Task[None]] = []
        self._totals: Counter[str] = Counter()
        self._held_back: list[Heard] = []
        """What a source had in its hands when it was stopped."""
        self._all_told = asyncio.Event()
        """Not set while `stop` collects what the sources still have: until then nobody knows that it is the end."""
        self._all_told.set()

    @property
    def counters(self) -> dict[str, int]:
        """Totals of every source, by `source_counter`."""
        own = {f"{source.name}_{name}": value for source in self._sources for name, value in source.counters.items()}
        return {**own, **self._totals}

    @property
    def mute(self) -> frozenset[str]:
        """The sources that cannot send."""
        return frozenset(source.name for source in self._sources if not source.can_transmit)

    def look(self) -> list[RadioEvent]:
        """Which sources and gateways were lost or came back since the last time; to be asked once a second."""
        for source in self._sources:
            self.watch.look(source.name, source.reachable)
        return self.watch.take()

    async def transmit(self, source_name: str, transmission: Transmission) -> TxResult:
        """Hand a frame over to the source through which its gateway was heard; whatever fails is an answer too."""
        source = next((one for one in self._sources if one.name == source_name), None)
        if source is None:
            return TxResult(error=NO_SOURCE)
        try:
            return await source.transmit(transmission)
        except Exception as error:  # noqa: BLE001  # as in `_listen`: a bug in one source must not end the bridge
            self._failed(source, error)
            return TxResult(error=SOURCE_FAILED)

    async def start(self) -> dict[str, TransientError]:
        """Open every source once, so that what only the operator can mend is told at once, then listen.

        Returns why sources failed, by their names: they are tried again. Raises ConfigError.
        """
        failures: dict[str, TransientError] = {}
        for source in self._sources:
            failed = await self._open(source)
            if failed is not None:
                failures[source.name] = failed
            self._tasks.append(asyncio.create_task(self._listen(source, opened=not failed), name=source.name))
        return failures

    async def receive(self) -> list[Heard]:
        """Wait until something was heard, then return all that waits. Raises SourceEnded when no source has more."""
        heard = list(await self._next())
        while not self._inbox.empty():
            heard += self._inbox.get_nowait()
        return heard

    async def stop(self) -> None:
        """Close every source. `receive` then gives what was heard before, for it was acknowledged on the air side."""
        self._all_told.clear()
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for source in self._sources:
                await self._close(source)
                self._held_back += await _rest(source)
        finally:
            self._all_told.set()

    async def _next(self) -> list[Heard]:
        """The next batch, or SourceEnded once all tasks are done and the inbox is empty."""
        getter = asyncio.ensure_future(self._inbox.get())
        try:
            while not getter.done():
                running = [task for task in self._tasks if not task.done()]
                if not running and self._inbox.empty():
                    await self._all_told.wait()
                    return self._take_held_back()
                if not running:
                    break
                await asyncio.wait([getter, *running], return_when=asyncio.FIRST_COMPLETED)
            return await getter
        finally:
            if not getter.done():
                getter.cancel()

    def _take_held_back(self) -> list[Heard]:
        """The last of all. Raises SourceEnded when that was taken too."""
        heard, self._held_back = self._held_back, []
        if not heard:
            raise SourceEnded
        return heard

    async def _listen(self, source: RadioSource, *, opened: bool) -> None:
        """One source for as long as it has something to say; whatever fails in it, it is started again."""
        check = self._health.add(f"radio {source.name}", limit=60.0)
        backoff = self._backoff[source.name]
        try:
            while True:
                began = self._monotonic()
                try:
                    if opened or not await self._open(source):
                        opened = False
                        await self._hear(source, check)
                except SourceEnded:
                    raise
                except Exception as error:  # noqa: BLE001  # a bug in one source must not silence the others, or us
                    self._failed(source, error)
                    self.watch.failed(source.name, error)
                    await self._close(source)
                if self._monotonic() - began >= STABLE_AFTER:
                    backoff.reset()
                await asyncio.sleep(backoff.next())
        except SourceEnded:
            _FACTS.info("radio source ended", source=source.name)
        finally:
            self._health.remove(f"radio {source.name}")

    async def _hear(self, source: RadioSource, check: Check) -> None:
        """Everything an open source says, until it fails or ends."""
        while True:
            heard = await source.receive()
            with check.working():
                await self._put(heard)

    async def _put(self, heard: list[Heard]) -> None:
        """Into the inbox, waiting for room; a stop in the meantime must not lose it."""
        try:
            await self._inbox.put(heard)
        except asyncio.CancelledError:
            self._held_back += heard
            raise

    async def _open(self, source: RadioSource) -> TransientError | None:
        """Start a source; the reason when it fails for now."""
        try:
            await source.start()
        except TransientError as error:
            self._failed(source, error)
            self.watch.failed(source.name, error)
            return error
        self.watch.started(source.name)
        _FACTS.info("radio source started", source=source.name)
        return None

    def _failed(self, source: RadioSource, error: Exception) -> None:
        self._totals[f"{source.name}_failures"] += 1
        if isinstance(error, (TransientError, ConfigError)):
            _FACTS.warning("radio source failed, it will be restarted", source=source.name, reason=str(error))
        else:
            _FACTS.error("a bug stopped a radio source, it will be restarted", exc=error, source=source.name)

    async def _close(self, source: RadioSource) -> None:
        try:
            await asyncio.wait_for(source.stop(), STOP_LIMIT)
        except Exception as error:  # noqa: BLE001  # as above: the others are still to be stopped
            _FACTS.warning("radio source did not stop cleanly", source=source.name, reason=repr(error))


async def _rest(source: RadioSource) -> list[Heard]:
    """What a stopped source still has."""
    heard: list[Heard] = []
    try:
        while True:
            heard += await source.receive()
    except SourceEnded:
        return heard
    except Exception as error:  # noqa: BLE001  # as above
        _FACTS.warning("radio source did not give all it had", source=source.name, reason=repr(error))
        return heard
