"""A virtual packet forwarder: it speaks the Semtech UDP protocol (version 2) over real sockets, in simulated time.

What it hears it pushes; what it is ordered to send it checks as the reference forwarder does, answers with
TX_ACK, and radiates when its counter says so. As the reference, it has one socket for each direction and
sends nothing twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from lorabridge.lorawan.air import Antenna, CrcStatus, LoraDataRate, Reception, Transmission, TxResult, TxTiming
from lorabridge.lorawan.airtime import time_on_air_us
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.faults import MalformedDatagram
from lorabridge.radio.gwmp import PacketType, build_pull_data, build_push_data, build_tx_ack, parse_datagram
from lorabridge.radio.txpk import parse_txpk_payload
from lorabridge.simulation.air import Emission, Place, noise_dbm
from lorabridge.simulation.clock import SimulatedClock
from lorabridge.simulation.jit_queue import JitQueue, Slot
from lorabridge.simulation.listening import Radiation

_MICROSECOND = 1_000
_TMST_MASK = 0xFFFF_FFFF
KEEPALIVE_S = 5.0
"""Seconds of the wall clock between two PULL_DATA: the reference's default."""
_DEVICE_DBM_AT_1_KM = -106.0
_FADING_DB = 6.0
_BEST_SNR_DB = 11.5
PREAMBLE_SYMBOLS = 8
FREQUENCY = "TX_FREQ"
GPS_UNLOCKED = "GPS_UNLOCKED"


class Push(msgspec.Struct):
    """One frame that was pushed, and whether its PUSH_ACK came."""

    phy_payload: bytes
    tmst: int
    acknowledged: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One PULL_RESP as it was dealt with."""

    transmission: Transmission
    arrived_at: int
    """Simulated nanoseconds."""
    starts_at: int | None
    """When it is radiated; None: refused."""
    error: str | None

    @property
    def margin_ns(self) -> int | None:
        """How long before its start it came, in simulated time; None for what was refused or is sent at once."""
        timed = self.transmission.timing is TxTiming.AT_TMST
        return self.starts_at - self.arrived_at if self.starts_at is not None and timed else None


class VirtualForwarder:
    """One gateway at a place."""

    def __init__(  # noqa: PLR0913  # the parts of a gateway, by name
        self,
        eui: EUI64,
        place: Place,
        clock: SimulatedClock,
        *,
        rng: Random,
        on_air: Callable[[Radiation], None],
        tx_band_hz: tuple[int, int] = (0, 3_000_000_000),
        tmst_zero_at: int | None = None,
        loss: float = 0.0,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """`on_air` is told of every transmission when it begins; `loss`: share of datagrams lost, either way.

        `tmst_zero_at`: when the counter of the concentrator was zero; None: now.
        """
        self.eui = eui
        self.place = place
        self.orders: list[Order] = []
        self.counters: Counter[str] = Counter()
        """Datagrams by type, and `lost`, `malformed`."""
        self._clock = clock
        self._rng = rng
        self._on_air = on_air
        self._tx_band_hz = tx_band_hz
        zero_at = clock.now() if tmst_zero_at is None else tmst_zero_at
        self._zero_at = zero_at - zero_at % _MICROSECOND
        self._loss = loss
        self._keepalive_s = keepalive_s
        self._refusals: deque[str] = deque()
        self._queue = JitQueue()
        self._pushes: dict[bytes, Push] = {}
        self._token = rng.randrange(0x1_0000)
        self._up: asyncio.DatagramTransport | None = None
        self._down: asyncio.DatagramTransport | None = None
        self._pull_acked = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()

    async def start(self, host: str, port: int) -> None:
        """Open both sockets, and keep the way back open."""
        loop = asyncio.get_running_loop()
        self._up, _ = await loop.create_datagram_endpoint(lambda: _Socket(self._received), remote_addr=(host, port))
        self._down, _ = await loop.create_datagram_endpoint(lambda: _Socket(self._received), remote_addr=(host, port))
        self._keep_alive()

    async def stop(self) -> None:
        """Close both sockets; what was queued is not sent."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for transport in (self._up, self._down):
            if transport is not None:
                transport.close()
        self._up = self._down = None

    async def connected(self) -> None:
        """Wait until a PULL_DATA was acknowledged: from then on the server can send."""
        await self._pull_acked.wait()

    def refuse_next(self, error: str) -> None:
        """The next transmission gets this error in its TX_ACK; errors queue up."""
        self._refusals.append(error)

    def tmst(self, at: int) -> int:
        """The counter of the concentrator at a simulated time: 32 bits, wraps."""
        return self._unwrapped(at) & _TMST_MASK

    def hear(self, emission: Emission) -> Push:
        """Push a frame that is now over."""
        token = self._next_token()
        push = Push(emission.phy_payload, self.tmst(emission.ends_at))
        self._pushes[token] = push
        self._send(self._up, build_push_data(token, self.eui, [self._reception(emission, push.tmst)]))
        return push

    def _reception(self, emission: Emission, tmst: int) -> Reception:
        kilometres = emission.place.distance_m(self.place) / 1000
        rssi_dbm = round(_DEVICE_DBM_AT_1_KM - 10 * kilometres + self._rng.uniform(0, _FADING_DB))
        is_lora = isinstance(emission.data_rate, LoraDataRate)
        snr_db = round(min(_BEST_SNR_DB, rssi_dbm - noise_dbm(emission.data_rate)), 1)
        return Reception(
            phy_payload=emission.phy_payload,
            received_at=0,
            gateway_eui=self.eui,
            source="",
            crc=CrcStatus.OK,
            frequency_hz=emission.frequency_hz,
            data_rate=emission.data_rate,
            code_rate="4/5" if is_lora else None,
            tmst=tmst,
            rf_chain=0,
            antennas=(Antenna(channel=0, rssi_dbm=rssi_dbm, snr_db=snr_db if is_lora else None),),
        )

    def _keep_alive(self) -> None:
        self._send(self._down, build_pull_data(self._next_token(), self.eui))
        self._later(self._keepalive_s, self._keep_alive)

    def _received(self, data: bytes) -> None:
        """One datagram of the server."""
        if self._rng.random() < self._loss:
            self.counters["lost"] += 1
            return
        try:
            datagram = parse_datagram(data)
            self.counters[datagram.type.name.lower()] += 1
            if datagram.type is PacketType.PULL_RESP:
                self._obey(datagram.token, parse_txpk_payload(datagram.payload, gateway_eui=self.eui))
        except MalformedDatagram:
            self.counters["malformed"] += 1  # as the reference: no TX_ACK
            return
        if datagram.type is PacketType.PUSH_ACK:
            if (push := self._pushes.pop(datagram.token, None)) is not None:
                push.acknowledged = True
        elif datagram.type is PacketType.PULL_ACK:
            self._pull_acked.set()

    def _obey(self, token: bytes, transmission: Transmission) -> None:
        """Check an order, answer it, and send when it is time."""
        now = self._clock.now()
        placed = self._judge(transmission, self._unwrapped(now))
        error = placed if isinstance(placed, str) else None
        starts_at = None if isinstance(placed, str) else self._zero_at + placed.starts_us * _MICROSECOND
        order = Order(transmission=transmission, arrived_at=now, starts_at=starts_at, error=error)
        self.orders.append(order)
        self._send(self._down, build_tx_ack(token, self.eui, TxResult(error=error)))
        if starts_at is not None:
            radiation = Radiation(
                phy_payload=transmission.phy_payload,
                starts_at=starts_at,
                frequency_hz=transmission.frequency_hz,
                data_rate=transmission.data_rate,
                inverted=transmission.invert_polarity or not isinstance(transmission.data_rate, LoraDataRate),
                ordered_at=now if transmission.timing is TxTiming.AT_TMST else None,
            )
            self._later(self._clock.real_seconds_until(starts_at), self._on_air, radiation)

    def _judge(self, transmission: Transmission, now_us: int) -> Slot | str:
        """The place in the queue, or the protocol's word for why there is none."""
        if self._refusals:
            return self._refusals.popleft()
        if transmission.timing is TxTiming.AT_GPS_TIME:
            return GPS_UNLOCKED
        lowest, highest = self._tx_band_hz
        if not lowest <= transmission.frequency_hz <= highest:
            return FREQUENCY
        airtime_us = time_on_air_us(
            transmission.data_rate,
            len(transmission.phy_payload),
            code_rate=transmission.code_rate,
            preamble_symbols=transmission.preamble_symbols or PREAMBLE_SYMBOLS,
            crc=transmission.crc,
        )
        if transmission.timing is TxTiming.IMMEDIATELY or transmission.tmst is None:
            return self._queue.at_once(now_us, airtime_us)
        return self._queue.at_tmst(now_us, transmission.tmst, airtime_us)

    def _unwrapped(self, at: int) -> int:
        return (at - self._zero_at) // _MICROSECOND

    def _next_token(self) -> bytes:
        self._token = (self._token + 1) & 0xFFFF
        return self._token.to_bytes(2, "big")

    def _send(self, transport: asyncio.DatagramTransport | None, datagram: bytes) -> None:
        if self._rng.random() < self._loss:
            self.counters["lost"] += 1
        elif transport is not None:
            transport.sendto(datagram)

    def _later(self, seconds: float, step: Callable[..., None], *args: Any) -> None:
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers.discard(timer)
            step(*args)

        timer = loop.call_later(seconds, run)
        self._timers.add(timer)


class _Socket(asyncio.DatagramProtocol):
    """One connected socket. A server that is not there is no fault of ours: frames go on into the void."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002  # asyncio's contract
        """Hand it on."""
        self._received(data)
