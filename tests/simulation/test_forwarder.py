"""The virtual packet forwarder against the real server side of the protocol, and its timing against the reference's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest

from lorabridge.lorawan.air import LoraDataRate, Reception, Transmission, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.semtech_udp import SemtechUdp, SemtechUdpSettings
from lorabridge.settings import Duration
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.clock import SimulatedClock
from lorabridge.simulation.forwarder import VirtualForwarder
from lorabridge.simulation.jit_queue import COLLISION, QUEUE_SIZE, TOO_EARLY, TOO_LATE, JitQueue, Slot
from lorabridge.simulation.listening import Radiation

EUI = EUI64(0x02_00_00_00_00_00_00_42)
SF7 = LoraDataRate(7, 125_000)
SPEED = 50.0
MS = 1_000
WRAP = 1 << 32
TIMEOUT = 10


def on_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """A test that runs on a loop of its own."""

    def run() -> None:
        asyncio.run(test())

    run.__name__, run.__module__ = test.__name__, test.__module__
    return run


class Air:
    """Collects what is radiated."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Radiation] = asyncio.Queue()


@asynccontextmanager
async def linked(air: Air, **how: object) -> AsyncIterator[tuple[SemtechUdp, VirtualForwarder, SimulatedClock]]:
    """A forwarder that the server can send to."""
    server = SemtechUdp(SemtechUdpSettings(port=0, tx_ack_timeout=Duration(2)))
    await server.start()
    clock = SimulatedClock(SPEED)
    forwarder = VirtualForwarder(
        EUI,
        Place(0, 0),
        clock,
        rng=Random(1),
        on_air=air.heard.put_nowait,
        **how,  # type: ignore[arg-type]
    )
    try:
        await forwarder.start(*server.address)
        if not how.get("loss"):
            await asyncio.wait_for(forwarder.connected(), TIMEOUT)
        yield server, forwarder, clock
    finally:
        await forwarder.stop()
        await server.stop()


def order(tmst: int | None, **changes: object) -> Transmission:
    transmission = Transmission(
        phy_payload=b"\x60" + bytes(11),
        gateway_eui=EUI,
        timing=TxTiming.IMMEDIATELY if tmst is None else TxTiming.AT_TMST,
        frequency_hz=868_100_000,
        data_rate=SF7,
        power_dbm=14,
        tmst=None if tmst is None else tmst % WRAP,
        preamble_symbols=8,
    )
    return msgspec.structs.replace(transmission, **changes)


def emission(clock: SimulatedClock) -> Emission:
    return Emission(
        phy_payload=b"\x40" + bytes(11),
        ends_at=clock.now() // 1000 * 1000,
        frequency_hz=868_100_000,
        data_rate=SF7,
        place=Place(300, 0),
    )


@on_loop
async def test_a_frame_is_pushed_with_the_counter_of_its_end_and_acknowledged() -> None:
    async with linked(Air()) as (server, forwarder, clock):
        frame = emission(clock)
        push = forwarder.hear(frame)
        (heard,) = await asyncio.wait_for(server.receive(), TIMEOUT)
        assert isinstance(heard, Reception)
        assert (heard.phy_payload, heard.frequency_hz, heard.data_rate) == (
            frame.phy_payload,
            frame.frequency_hz,
            frame.data_rate,
        )
        assert heard.tmst == push.tmst == forwarder.tmst(frame.ends_at)
        assert (await server.transmit(order(forwarder.tmst(clock.now()) + 5_000_000))).error is None
        assert push.acknowledged


@on_loop
async def test_an_order_is_answered_and_radiated_when_the_counter_says_so() -> None:
    air = Air()
    async with linked(air) as (server, forwarder, clock):
        ends_at = clock.now() // 1000 * 1000
        result = await server.transmit(order(forwarder.tmst(ends_at) + 2_000_000))
        assert result.error is None
        radiation = await asyncio.wait_for(air.heard.get(), TIMEOUT)
        assert radiation.starts_at == ends_at + 2_000_000_000
        assert clock.now() >= radiation.starts_at
        assert radiation.inverted
        (done,) = forwarder.orders
        assert done.margin_ns is not None
        assert 0 < done.margin_ns <= 2_000_000_000


@on_loop
async def test_the_counter_wraps_between_order_and_transmission() -> None:
    air = Air()
    zero_at = SimulatedClock(SPEED).now() - (WRAP - 500_000) * 1000
    async with linked(air, tmst_zero_at=zero_at) as (server, forwarder, clock):
        now = clock.now() // 1000 * 1000
        tmst = forwarder.tmst(now + 3_000_000_000)
        assert tmst < 10_000_000
        assert (await server.transmit(order(tmst))).error is None
        assert (await asyncio.wait_for(air.heard.get(), TIMEOUT)).starts_at == now + 3_000_000_000


@on_loop
async def test_wrong_times_and_frequencies_are_refused_with_the_protocols_words() -> None:
    air = Air()
    async with linked(air, tx_band_hz=(863_000_000, 870_000_000)) as (server, forwarder, clock):
        now = forwarder.tmst(clock.now())
        assert (await server.transmit(order(now - 1_000_000))).error == TOO_EARLY
        assert (await server.transmit(order(now + 900_000_000))).error == TOO_EARLY
        assert (await server.transmit(order(now + 9_000_000, frequency_hz=915_000_000))).error == "TX_FREQ"
        gps = order(None, timing=TxTiming.AT_GPS_TIME, gps_time_ms=1)
        assert (await server.transmit(gps)).error == "GPS_UNLOCKED"
        forwarder.refuse_next("TX_POWER")
        assert (await server.transmit(order(now + 9_000_000))).error == "TX_POWER"
        assert (await server.transmit(order(now + 60_000_000))).error is None
        assert (await server.transmit(order(now + 60_010_000))).error == COLLISION
        assert [order.error for order in forwarder.orders].count(None) == 1
        assert forwarder.orders[0].margin_ns is None


@on_loop
async def test_an_immediate_order_goes_out_at_once() -> None:
    air = Air()
    async with linked(air) as (server, _, clock):
        before = clock.now()
        assert (await server.transmit(order(None))).error is None
        radiation = await asyncio.wait_for(air.heard.get(), TIMEOUT)
        assert radiation.starts_at > before
        assert radiation.ordered_at is None


@on_loop
async def test_datagrams_are_lost_as_the_seed_says_and_garbage_has_no_answer() -> None:
    async with linked(Air(), loss=1.0) as (server, forwarder, clock):
        push = forwarder.hear(emission(clock))
        assert not push.acknowledged
        assert server.counters["datagrams"] == 0
        assert forwarder.counters["lost"] == 2
    forwarder._loss = 0.0  # a datagram by hand
    forwarder._received(b"\x02xx\x03{}")
    forwarder._received(b"")
    assert forwarder.counters["malformed"] == 2
    assert forwarder.orders == []


@pytest.mark.parametrize(
    ("ahead_us", "expected"),
    [
        (0, TOO_LATE),
        (42_500, TOO_LATE),
        (42_501, None),
        (512_000_000, None),
        (512_000_001, TOO_EARLY),
        (-1, TOO_EARLY),
    ],
)
@pytest.mark.parametrize("now_us", [0, WRAP - 1, 5 * WRAP + 17])
def test_the_limits_of_the_reference_hold_to_the_microsecond(ahead_us: int, expected: str | None, now_us: int) -> None:
    placed = JitQueue().at_tmst(now_us, (now_us + ahead_us) % WRAP, 50 * MS)
    if expected is None:
        assert placed == Slot(now_us + ahead_us, now_us + ahead_us + 50 * MS)
    else:
        assert placed == expected


def test_transmissions_do_not_overlap_and_the_queue_ends() -> None:
    queue = JitQueue()
    assert isinstance(queue.at_tmst(0, 1_000 * MS, 50 * MS), Slot)
    assert queue.at_tmst(0, 950 * MS, 50 * MS) == COLLISION
    assert queue.at_tmst(0, 1_052 * MS, 50 * MS) == COLLISION
    assert isinstance(queue.at_tmst(0, 1_053 * MS, 50 * MS), Slot)
    for n in range(2, QUEUE_SIZE):
        assert isinstance(queue.at_tmst(0, n * 2_000 * MS, 50 * MS), Slot)
    assert queue.at_tmst(0, 300_000 * MS, 50 * MS) == COLLISION
    assert queue.at_once(0, 50 * MS) == COLLISION
    assert isinstance(queue.at_tmst(2_000 * MS, 300_000 * MS, 50 * MS), Slot)


def test_an_immediate_transmission_waits_for_the_one_before_it() -> None:
    queue = JitQueue()
    first, second = queue.at_once(0, 100 * MS), queue.at_once(0, 100 * MS)
    assert first == Slot(2_500, 102_500)
    assert second == Slot(105_000, 205_000)


def test_simulated_time_runs_as_fast_as_it_was_told() -> None:
    real = iter((0, 1_000_000_000, 1_000_000_000, 5_000_000_000))
    clock = SimulatedClock(10, started_at=7, monotonic=lambda: next(real))
    assert clock.now() == 7 + 10_000_000_000
    assert clock.real_seconds_until(7 + 30_000_000_000) == 2.0
    assert clock.real_seconds_until(0) == 0.0
    with pytest.raises(ValueError, match="time cannot run"):
        SimulatedClock(0)
