"""Radio sources at work: restarted when they fail, and never at another's cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from lorabridge.backoff import Backoff
from lorabridge.daemon.health import Health
from lorabridge.daemon.radios import INBOX_BATCHES, STABLE_AFTER, Heard, Radios
from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import GatewayStatus, Transmission, TxResult
from lorabridge.lorawan.events import RadioState
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import SourceEnded
from tests.daemon.config_help import captured_log, lines_of


class Scripted:
    """A source that plays a list: a status report, an error to raise, or nothing more to come (waits)."""

    can_transmit = True
    reachable: frozenset[EUI64] | None = None

    def __init__(self, name: str, script: list[Any]) -> None:
        self.name = name
        self.script = script
        self.counters = {"heard": 0}
        self.starts = 0
        self.running = False
        self.buffered: list[Heard] = []

    async def start(self) -> None:
        self.starts += 1
        if self.script and isinstance(self.script[0], (ConfigError, OSError)):
            error = self.script.pop(0)
            raise error if isinstance(error, ConfigError) else TransientError(str(error))
        self.running = True

    async def receive(self) -> list[Heard]:
        if not self.running and self.buffered:
            heard, self.buffered = self.buffered, []
            return heard
        if not self.running:
            raise SourceEnded
        if not self.script:
            await asyncio.Event().wait()
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        self.counters["heard"] += 1
        return [step]

    async def transmit(self, transmission: Transmission) -> TxResult:
        raise NotImplementedError

    async def stop(self) -> None:
        self.running = False


def _report(number: int) -> GatewayStatus:
    return GatewayStatus(gateway_eui=EUI64(number), source="test", received_at=number)


def _radios(*sources: Scripted) -> Radios:
    backoff = {source.name: Backoff(0.0, 0.0, random.Random(1)) for source in sources}
    return Radios(sources, Health(lambda: 0.0), backoff)


async def _collect(radios: Radios, enough: Callable[[list[Heard]], bool]) -> list[Heard]:
    heard: list[Heard] = []
    while not enough(heard):
        heard += await radios.receive()
    return heard


def test_a_source_that_fails_is_started_again_and_goes_on() -> None:
    async def scenario() -> None:
        source = Scripted("a", [_report(1), TransientError("port gone"), OSError("still gone"), _report(2)])
        radios = _radios(source)
        await radios.start()
        heard = await _collect(radios, lambda heard: len(heard) == 2)
        assert [one.received_at for one in heard] == [1, 2]
        assert (source.starts, radios.counters["a_failures"]) == (3, 2)
        told = [(event.source, event.state, event.reason, event.failures) for event in radios.look()]
        assert told == [("a", RadioState.DEAD, "port gone", 0), ("a", RadioState.RECOVERED, "", 1)]
        await radios.stop()

    asyncio.run(scenario())


class Waits(Backoff):
    """Which wait since the last reset each one was, without waiting."""

    def __init__(self) -> None:
        super().__init__(1.0, 64.0, random.Random(1))
        self.since_reset = 0
        self.history: list[int] = []

    def next(self) -> float:
        self.since_reset += 1
        self.history.append(self.since_reset)
        super().next()
        return 0.0

    def reset(self) -> None:
        self.since_reset = 0
        super().reset()


def test_only_a_source_that_worked_for_a_while_is_started_again_at_once() -> None:
    now = [0.0]

    class Dies(Scripted):
        async def receive(self) -> list[Heard]:
            now[0] += self.lasts.pop(0) if self.lasts else 0.0
            return await super().receive()

        lasts: list[float] = [1, 1, 1, STABLE_AFTER, 1]  # noqa: RUF012  # one source

    async def scenario() -> list[int]:
        source, waits = Dies("a", [TransientError("again")] * 5 + [_report(1)]), Waits()
        radios = Radios([source], Health(lambda: 0.0), {"a": waits}, monotonic=lambda: now[0])
        await radios.start()
        await _collect(radios, bool)
        await radios.stop()
        return waits.history

    assert asyncio.run(scenario()) == [1, 2, 3, 1, 2]


def test_a_source_that_fails_at_the_start_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        radios = _radios(Scripted("bad", [OSError("no"), OSError("no")]), Scripted("good", [_report(7)]))
        await radios.start()
        assert await _collect(radios, bool) == [_report(7)]
        await radios.stop()

    asyncio.run(scenario())


def test_a_bug_in_a_source_is_told_and_silences_neither_it_nor_the_others() -> None:
    async def scenario() -> None:
        buggy = Scripted("buggy", [_report(1), ZeroDivisionError("not expected"), _report(2)])
        radios = _radios(buggy, Scripted("good", [_report(7)]))
        await radios.start()
        heard = await _collect(radios, lambda heard: len(heard) == 3)
        assert {one.received_at for one in heard} == {1, 2, 7}
        assert (buggy.starts, radios.counters["buggy_failures"]) == (2, 1)
        await radios.stop()

    with captured_log() as stream:
        asyncio.run(scenario())
    [line] = lines_of(stream, "a bug stopped a radio source, it will be restarted")
    assert (line["level"], line["source"], line["error"]) == ("error", "buggy", "ZeroDivisionError: not expected")


def test_a_source_that_cannot_be_opened_again_is_tried_for_ever_and_is_no_end_of_the_bridge() -> None:
    async def scenario() -> None:
        gone = ConfigError([Problem(where="radio[1].bind", what="no such address")])
        source = Scripted("a", [_report(1), TransientError("interface gone"), gone, gone, _report(2)])
        radios = _radios(source)
        await radios.start()
        heard = await _collect(radios, lambda heard: len(heard) == 2)
        assert [one.received_at for one in heard] == [1, 2]
        assert (source.starts, radios.counters["a_failures"]) == (4, 3)
        await radios.stop()

    asyncio.run(scenario())


def test_what_only_the_operator_can_mend_is_told_at_the_start() -> None:
    error = ConfigError([Problem(where="radio[1].port", what="taken")])
    with pytest.raises(ConfigError, match="taken"):
        asyncio.run(_radios(Scripted("a", [error])).start())


def test_when_every_source_has_ended_the_pipeline_hears_of_it_after_the_last_frame() -> None:
    async def scenario() -> None:
        radios = _radios(Scripted("a", [_report(1), SourceEnded()]), Scripted("b", [_report(2), SourceEnded()]))
        await radios.start()
        heard = await _collect(radios, lambda heard: len(heard) == 2)
        assert {one.received_at for one in heard} == {1, 2}
        with pytest.raises(SourceEnded):
            await radios.receive()
        await radios.stop()

    asyncio.run(scenario())


def test_a_stop_loses_nothing_that_was_heard() -> None:
    async def scenario() -> None:
        source = Scripted("a", [_report(number) for number in range(INBOX_BATCHES + 5)])
        radios = _radios(source)
        await radios.start()
        for _ in range(3 * INBOX_BATCHES):
            await asyncio.sleep(0)
        assert source.counters["heard"] == INBOX_BATCHES + 1, "the inbox is full, and one batch waits for room"
        source.buffered = [_report(99)]
        await radios.stop()
        heard = [*await radios.receive(), *await radios.receive()]
        assert [one.received_at for one in heard] == [*range(INBOX_BATCHES + 1), 99]
        with pytest.raises(SourceEnded):
            await radios.receive()

    asyncio.run(scenario())


def test_the_end_is_not_told_while_a_source_that_lets_go_slowly_still_has_frames() -> None:
    class Slow(Scripted):
        async def stop(self) -> None:
            for _ in range(5):  # whoever waits in `receive` gets every chance to end too early
                await asyncio.sleep(0)
            await super().stop()

    async def scenario() -> None:
        sources = [Slow("one", []), Slow("two", [])]
        radios = _radios(*sources)
        await radios.start()
        waiting = asyncio.create_task(_collect(radios, lambda heard: len(heard) == 2))
        await asyncio.sleep(0)
        for number, source in enumerate(sources):
            source.buffered = [_report(number)]
        await radios.stop()
        assert await waiting == [_report(0), _report(1)]
        with pytest.raises(SourceEnded):
            await radios.receive()

    asyncio.run(scenario())


def test_a_source_that_fails_while_it_is_stopped_keeps_nobody_from_stopping() -> None:
    class Stubborn(Scripted):
        async def receive(self) -> list[Heard]:
            if not self.running:
                raise ZeroDivisionError("not expected")
            return await super().receive()

        async def stop(self) -> None:
            await super().stop()
            raise ZeroDivisionError("not expected either")

    async def scenario() -> None:
        good = Scripted("good", [])
        radios = _radios(Stubborn("stubborn", []), good)
        await radios.start()
        good.buffered = [_report(3)]
        await radios.stop()
        assert await radios.receive() == [_report(3)]
        assert not good.running

    with captured_log() as stream:
        asyncio.run(scenario())
    assert [line["event"] for line in lines_of(stream) if line["level"] == "warning"] == [
        "radio source did not stop cleanly",
        "radio source did not give all it had",
    ]


def test_counters_carry_the_name_of_their_source() -> None:
    assert _radios(Scripted("a", []), Scripted("b", [])).counters == {"a_heard": 0, "b_heard": 0}
