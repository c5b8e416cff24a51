"""Concentratord as a radio source: its events are heard, its commands send."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lorabridge.errors import ConfigError, TransientError
from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import RadioSilentError
from lorabridge.radio.concentratord.faults import EventFault, MalformedEvent
from lorabridge.radio.concentratord.mapping import Contexts, item_of, reception, status
from lorabridge.radio.concentratord.messages import (
    TxAckStatus,
    UplinkFrame,
    Wording,
    build_downlink,
    build_gateway_id_request,
    parse_event,
    parse_gateway_id,
    parse_tx_ack,
)
from lorabridge.radio.concentratord.settings import ConcentratordSettings, missing_extra, socket_problem
from lorabridge.radio.inbox import INBOX_LIMIT, Inbox
from lorabridge.radio.outcomes import BUSY, NO_ANSWER, NOT_RUNNING, UNSENDABLE

if TYPE_CHECKING:
    from lorabridge.radio.concentratord.link import Link

DRAIN_LIMIT: Final = 64
"""Events after which other work of the loop has its turn: a socket that always has more never waits."""
PENDING_LIMIT: Final = 64

_COUNTERS = (
    "events",
    "frames",
    "statuses",
    "ignored",
    "inbox_dropped",
    "starts",
    "gateway_changed",
    "transmitted",
    "tx_refused",
    "tx_unanswered",
    *(f"fault_{fault.value}" for fault in EventFault),
)


class Concentratord:
    """A radio source: one Concentratord."""

    def __init__(
        self,
        settings: ConcentratordSettings,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives ns since the Unix epoch, `monotonic` seconds."""
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._link: Link | None = None
        self._listening: asyncio.Task[None] | None = None
        self._eui = EUI64(0)
        self._wording = Wording.ENVELOPE
        self._contexts = Contexts()
        self._inbox: Inbox[Reception | GatewayStatus] = Inbox(INBOX_LIMIT)
        self._ids = itertools.count(1)
        self._pending = 0
        self._counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))

    @property
    def name(self) -> str:
        """The name of this source in the configuration."""
        return self._settings.name

    @property
    def can_transmit(self) -> bool:
        """Concentratord sends."""
        return True

    @property
    def reachable(self) -> None:
        """A Concentratord that says nothing is a failure of the source."""
        return None

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals by name."""
        return dict(self._counters)

    async def start(self) -> None:
        """Subscribe, and ask for the gateway. Raises ConfigError without pyzmq, TransientError without an answer."""
        await self.stop()
        missing = missing_extra(self.name)
        if missing:
            raise ConfigError(missing)
        from lorabridge.radio.concentratord.link import Link  # noqa: PLC0415  # pyzmq is an extra

        link = Link(self._settings.event_url, self._settings.command_url)
        try:
            self._wording, self._eui = await self._identify(link)
        except BaseException:
            link.close()
            raise
        self._counters["starts"] += 1
        self._link = link
        self._inbox.open()
        self._listening = asyncio.create_task(self._listen(link), name=f"{self.name} events")

    async def receive(self) -> list[Reception | GatewayStatus]:
        """All that waits. After `stop` what was heard before, then SourceEnded."""
        return await self._inbox.receive()

    async def transmit(self, transmission: Transmission) -> TxResult:
        """Hand a frame over; Concentratord answers when it has taken or refused it, before its moment."""
        link = self._link
        if link is None or self._inbox.failure is not None:
            return TxResult(error=NOT_RUNNING)
        if self._pending >= PENDING_LIMIT:
            return TxResult(error=BUSY)
        try:
            item = item_of(transmission, self._contexts)
        except ValueError:
            self._counters["tx_refused"] += 1
            return TxResult(error=UNSENDABLE)
        self._pending += 1
        try:
            error = await self._order(link, transmission.gateway_eui, item)
        finally:
            self._pending -= 1
        outcome = "transmitted" if error is None else "tx_unanswered" if error == NO_ANSWER else "tx_refused"
        self._counters[outcome] += 1
        return TxResult(error=error)

    async def stop(self) -> None:
        """Let go of Concentratord; what was heard stays for `receive`."""
        link, self._link = self._link, None
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if link is not None:
            link.close()
        self._inbox.close()

    async def _identify(self, link: Link) -> tuple[Wording, EUI64]:
        """How Concentratord words its messages, and its gateway. Raises TransientError.

        The newer wording is tried first: the older Concentratord answers it with nothing, while the newer one cannot
        answer two frames at all and ends.
        """
        limit, wording = self._settings.answer_timeout, Wording.ENVELOPE
        try:
            (answer,) = await link.ask(build_gateway_id_request(wording), limit)
            if not answer:
                wording = Wording.TOPIC
                (answer,) = await link.ask(build_gateway_id_request(wording), limit)
            return wording, EUI64(parse_gateway_id(wording, answer))
        except TimeoutError:
            raise TransientError(self._why_silent()) from None
        except (ValueError, MalformedEvent):
            raise TransientError(f"what answers at {self._settings.command_url} is no Concentratord") from None

    def _why_silent(self) -> str:
        """A sentence about a Concentratord that does not answer."""
        url = self._settings.command_url
        found = socket_problem(url, self.name)
        return f"Concentratord does not answer at {url}" + ("" if found is None else f": {found.what} ({found.hint})")

    async def _listen(self, link: Link) -> None:
        """Every event, until there are none for too long."""
        try:
            while True:
                for _ in range(DRAIN_LIMIT):
                    async with asyncio.timeout(self._settings.silence):
                        frames = await link.event()
                    self._counters["events"] += 1
                    try:
                        self._take(frames)
                    except MalformedEvent as error:
                        self._counters[f"fault_{error.fault.value}"] += 1
                await asyncio.sleep(0)
        except TimeoutError:
            self._inbox.fail(RadioSilentError(f"Concentratord said nothing for {self._settings.silence}"))
        except Exception as error:  # noqa: BLE001  # a bug here must reach `receive` too, never end in silence
            self._inbox.fail(error)

    def _take(self, frames: list[bytes]) -> None:
        """One event. Raises MalformedEvent."""
        wording, event = parse_event(frames)
        if event is None:
            self._counters["ignored"] += 1
            return
        self._wording = wording
        now = self._clock()
        told: Reception | GatewayStatus
        if isinstance(event, UplinkFrame):
            tmst = self._contexts.note(event.rx_info.context, int(self._monotonic() * 1e6))
            told = reception(event, tmst, source=self.name, received_at=now)
        else:
            told = status(event, source=self.name, received_at=now)
        if told.gateway_eui != self._eui:
            self._counters["gateway_changed"] += 1
            self._eui = told.gateway_eui
        kind = "frames" if isinstance(told, Reception) else "statuses"
        self._counters[kind if self._inbox.put(told) else "inbox_dropped"] += 1

    async def _order(self, link: Link, eui: EUI64, item: Mapping[str, Any]) -> str | None:
        """Order one DownlinkFrameItem: None when it was taken, else the word for why not."""
        number = next(self._ids) & 0xFFFF_FFFF
        try:
            if self._wording is Wording.TOPIC:  # it may have been upgraded since its last event, and two frames end it
                self._wording, self._eui = await self._identify(link)
            if eui != self._eui:
                return NOT_RUNNING
            order = build_downlink(self._wording, downlink_id=number, gateway_id=str(eui), item=item)
            (payload,) = await link.ask(order, self._settings.answer_timeout)
            return _outcome(payload, number)
        except TransientError:
            return NOT_RUNNING
        except (TimeoutError, ValueError):
            return NO_ANSWER
        except MalformedEvent as error:
            self._counters[f"fault_{error.fault.value}"] += 1
            return NO_ANSWER


def _outcome(payload: bytes, number: int) -> str | None:
    """What the answer to the order of that number says, as `_order` does. Raises MalformedEvent."""
    if not payload:
        return TxAckStatus.INTERNAL_ERROR.name  # what it could not make anything of; its log says why
    ack = parse_tx_ack(payload)
    if ack.downlink_id != number or len(ack.items) != 1:
        return NO_ANSWER
    said = ack.items[0].status
    return None if said is TxAckStatus.OK else said.name
