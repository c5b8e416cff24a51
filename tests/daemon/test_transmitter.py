"""Transmissions: one window after the other, each in its time, and what was on the air is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from lorabridge.daemon.transmitter import NO_ANSWER_IN_TIME, Outcome, Transmitter
from lorabridge.daemon.work import Job
from lorabridge.lorawan.air import LoraDataRate, Transmission, TxResult, TxTiming
from lorabridge.lorawan.planner import Attempt, Plan
from lorabridge.lorawan.windows import Window
from tests.daemon.config_help import captured_log, lines_of
from tests.lorawan.builders import GATEWAY, OTHER_GATEWAY

SF7 = LoraDataRate(7, 125_000)
Say = Callable[[str, Transmission], Awaitable[TxResult]]


def attempt(number: int, delay_s: float, source: str = "udp") -> Attempt:
    window = Window(
        number=number, delay_us=round(delay_s * 1e6), frequency_hz=868_100_000, data_rate=SF7, max_mac_payload=51
    )
    gateway = GATEWAY if source == "udp" else OTHER_GATEWAY
    order = Transmission(
        phy_payload=bytes([number]),
        gateway_eui=gateway,
        timing=TxTiming.AT_TMST,
        tmst=number,
        frequency_hz=868_100_000,
        data_rate=SF7,
        power_dbm=14,
    )
    return Attempt(transmission=order, window=window, source=source, airtime=None)


RX1, RX2 = attempt(1, 1), attempt(2, 2)


def outcome_of(say: Say, *attempts: Attempt, heard_ago: float | None = 0.0, every: bool = False) -> Outcome:
    """Run one job; `heard_ago` seconds since the uplink, None: at once."""

    async def scenario() -> Outcome:
        told = asyncio.Event()
        transmitter = Transmitter(say, told.set)
        now = time.monotonic()
        plan = Plan(session=None, downlink=None, attempts=attempts, all_attempts=every)
        job = Job(plan=plan, name="meter", queued=None, heard_at=None if heard_ago is None else now - heard_ago)
        transmitter.start(job)
        assert transmitter.under_way == 1
        await asyncio.wait_for(told.wait(), 5)
        await transmitter.settle(1)
        (outcome,) = transmitter.take_outcomes()
        assert (transmitter.take_outcomes(), transmitter.under_way) == ([], 0)
        return outcome

    return asyncio.run(scenario())


def saying(*errors: str | None) -> tuple[list[bytes], Say]:
    """A radio that answers in this order, and what it was given."""
    given: list[bytes] = []
    answers = iter(errors)

    async def say(_source: str, transmission: Transmission) -> TxResult:
        given.append(transmission.phy_payload)
        return TxResult(error=next(answers))

    return given, say


def test_the_first_window_that_the_radio_takes_is_the_last_one_tried() -> None:
    given, say = saying(None)
    outcome = outcome_of(say, RX1, RX2)
    assert (given, outcome.attempt, outcome.result.error, outcome.used) == ([b"\x01"], RX1, None, (RX1,))


def test_an_error_leads_to_the_second_window() -> None:
    given, say = saying("COLLISION_PACKET", None)
    outcome = outcome_of(say, RX1, RX2)
    assert (given, outcome.attempt, outcome.used) == ([b"\x01", b"\x02"], RX2, (RX2,))


def test_two_errors_are_the_radios_last_word() -> None:
    outcome = outcome_of(saying("TX_FREQ", "TOO_LATE")[1], RX1, RX2)
    assert (outcome.attempt, outcome.result.error, outcome.used) == (RX2, "TOO_LATE", ())


def test_a_window_that_is_over_is_not_tried() -> None:
    given, say = saying(None)
    assert outcome_of(say, RX1, RX2, heard_ago=1.5).attempt == RX2
    assert given == [b"\x02"]
    outcome = outcome_of(say, RX1, RX2, heard_ago=2.5)
    assert (outcome.attempt, outcome.used) == (None, ())


def test_a_gateway_that_does_not_answer_costs_no_second_window() -> None:
    async def say(_source: str, transmission: Transmission) -> TxResult:
        if transmission.tmst == 1:
            await asyncio.Event().wait()
        return TxResult()

    outcome = outcome_of(say, attempt(1, 0.1), attempt(2, 0.3))
    assert outcome.attempt is not None
    assert outcome.attempt.window.number == 2
    assert [one.window.number for one in outcome.used] == [1, 2]  # nobody knows whether the first one was sent


def test_a_bug_in_a_transmission_is_told_and_loses_no_command() -> None:
    async def say(_source: str, _transmission: Transmission) -> TxResult:
        raise ZeroDivisionError

    with captured_log() as stream:
        outcome = outcome_of(say, RX1, RX2)
        assert [line["level"] for line in lines_of(stream, "a bug ended a transmission")] == ["error"]
    assert (outcome.attempt, outcome.used) == (None, (RX1, RX2))  # nobody knows what was on the air


def test_of_many_gateways_one_that_sends_is_enough() -> None:
    async def say(source: str, _transmission: Transmission) -> TxResult:
        return TxResult(error="NO_PULL_DATA" if source == "udp" else None)

    there, away = attempt(2, 0, "other"), attempt(2, 0)
    outcome = outcome_of(say, away, there, heard_ago=None, every=True)
    assert (outcome.attempt, outcome.result.error, outcome.used) == (there, None, (there,))
    assert NO_ANSWER_IN_TIME == "NO_TX_ACK"
