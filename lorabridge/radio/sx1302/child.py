"""The process that holds the vendor library: `python -m lorabridge.radio.sx1302.child FD`.

One thread does everything, so that a call which never returns stops the heartbeat too. What the library
prints goes to this process's stdout, which the parent reads.
"""

from __future__ import annotations

import ctypes
import select
import signal
import socket
import sys
import time
from typing import Final

import msgspec

from lorabridge.radio.sx1302.library import FETCH_LIMIT, Library, LibraryError, LibraryRefusedError
from lorabridge.radio.sx1302.plan import Plan
from lorabridge.radio.sx1302.scan import Scanner
from lorabridge.radio.sx1302.schedule import TOO_LATE, Schedule, lead
from lorabridge.radio.sx1302.wire import (
    FRAME_LIMIT,
    HEADER_SIZE,
    TO_CHILD,
    Beat,
    Counter,
    Failed,
    Heard,
    Order,
    Refused,
    Sent,
    Setup,
    Started,
    Stop,
    pack,
)

POLL: Final = 0.005
"""Seconds between two fetches."""
BEAT_INTERVAL: Final = 0.5
TEMPERATURE_INTERVAL: Final = 10.0
FETCH_ERRORS: Final = 5
"""Fetches that may fail in a row before the concentrator counts as lost."""
COUNTER_TOLERANCE_US: Final = 200_000
"""By how much the counter may go wrong against our clock from one beat to the next."""
COUNTER_FAULTS: Final = 2
"""Beats in a row with a wrong counter after which the concentrator counts as lost."""
SEND_FAILED: Final = "SEND_FAILED"
LBT_BUSY: Final = "CHANNEL_BUSY"
BUSY: Final = "COLLISION_PACKET"
_HAND_OVER_LEAST_US: Final = 3_000
_PR_SET_PDEATHSIG: Final = 1
_IOLBF: Final = 1


class _ParentGoneError(Exception):
    """Nobody listens any more."""


class _Channel:
    """The socket to the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def send(self, message: msgspec.Struct) -> None:
        """Raises _ParentGoneError."""
        try:
            self._connection.sendall(pack(message))
        except OSError:
            raise _ParentGoneError from None

    def take(self, wait: float) -> list[Setup | Order | Stop]:
        """Every whole message that is there after at most `wait` seconds. Raises _ParentGoneError."""
        if select.select([self._connection], [], [], wait)[0]:
            try:
                data = self._connection.recv(65_536)
            except OSError:
                data = b""
            if not data:
                raise _ParentGoneError
            self._buffer += data
        taken: list[Setup | Order | Stop] = []
        while len(self._buffer) >= HEADER_SIZE:
            end = HEADER_SIZE + int.from_bytes(self._buffer[:HEADER_SIZE], "big")
            if end > FRAME_LIMIT:
                raise _ParentGoneError
            if len(self._buffer) < end:
                break
            taken.append(TO_CHILD.decode(self._buffer[HEADER_SIZE:end]))
            del self._buffer[:end]
        return taken


class _Worker:
    """A started concentrator."""

    def __init__(self, channel: _Channel, library: Library, plan: Plan) -> None:
        self._channel = channel
        self._library = library
        senders = [number for number, radio in enumerate(plan.radios) if radio.enable and radio.tx_enable]
        self._scanner = Scanner(library, plan.sx1261_conf.spectral_scan, senders)
        self._schedule = Schedule()
        self._errors_in_a_row = 0
        self._fetch_errors = 0
        self._is_behind = False
        self._next_beat = 0.0
        self._counter: Counter | None = None
        self._counter_faults = 0
        self._next_temperature = 0.0

    def run(self) -> None:
        """Until told to stop. Raises LibraryError, _ParentGoneError."""
        while True:
            for message in self._channel.take(0.0 if self._is_behind else POLL):
                if isinstance(message, Order):
                    self._accept(message)
                elif isinstance(message, Stop):
                    self._library.stop()
                    return
            if self._schedule.is_waiting:
                for order in self._schedule.due(self._library.counter()):
                    self._hand_over(order)
            self._fetch()
            self._scan()
            self._beat()

    def _fetch(self) -> None:
        try:
            packets = self._library.receive()
        except LibraryError as error:
            self._fetch_errors += 1
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= FETCH_ERRORS:
                raise LibraryError(f"{error}, {FETCH_ERRORS} times in a row") from None
            return
        self._errors_in_a_row = 0
        self._is_behind = len(packets) == FETCH_LIMIT
        if packets:
            self._channel.send(Heard(packets))

    def _scan(self) -> None:
        scanned = self._scanner.step(time.monotonic(), is_quiet=not self._schedule.is_waiting)
        if scanned is not None:
            self._channel.send(scanned)

    def _accept(self, order: Order) -> None:
        try:
            error = self._schedule.add(order, self._library.counter(), self._library.airtime_us(order))
        except LibraryError:
            error = SEND_FAILED
        if error is not None:
            self._channel.send(Sent(order.number, error))

    def _hand_over(self, order: Order) -> None:
        error: str | None = None
        self._scanner.interrupt(time.monotonic())
        try:
            timed = order.count_us is not None
            ahead = 0 if order.count_us is None else lead(order.count_us, self._library.counter())
            if self._library.is_sending(order.rf_chain):
                if ahead > _HAND_OVER_LEAST_US:
                    self._schedule.postpone(order)
                    return
                error = BUSY
            elif timed and ahead < _HAND_OVER_LEAST_US:
                error = TOO_LATE
            elif not self._library.send(order):
                error = LBT_BUSY
        except LibraryError:
            error = SEND_FAILED
        if error is not None:
            self._schedule.forget(order)
        self._channel.send(Sent(order.number, error))

    def _beat(self) -> None:
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + BEAT_INTERVAL
        self._check_counter()
        temperature = None
        if now >= self._next_temperature:
            self._next_temperature = now + TEMPERATURE_INTERVAL
            try:
                temperature = self._library.temperature()
            except LibraryError:
                temperature = None
        totals = self._fetch_errors, self._library.malformed, self._scanner.failed
        self._channel.send(Beat(*totals, temperature, self._counter))

    def _check_counter(self) -> None:
        """A board that was unplugged shows only so: the library then fetches nothing, without an error."""
        pulse, count, now = self._library.pulse(), self._library.counter(), time.monotonic_ns()
        self._schedule.settle(count)
        before, self._counter = self._counter, Counter(pulse, count, now)
        if before is None:
            return
        wrong = abs(lead(count, before.count_us) - (now - before.at_ns) / 1000) > COUNTER_TOLERANCE_US
        self._counter_faults = self._counter_faults + 1 if wrong else 0
        if self._counter_faults >= COUNTER_FAULTS:
            raise LibraryError("the counter stands still or jumps: unplugged, without power, or reset")


def serve(connection: socket.socket) -> None:
    """Take the setup, start the concentrator and work until told to stop."""
    channel = _Channel(connection)
    messages: list[Setup | Order | Stop] = []
    while not messages:
        messages = channel.take(1.0)
    setup = messages[0]
    if not isinstance(setup, Setup):
        return
    try:
        library = Library(setup.library)
        library.configure(setup.plan)
        channel.send(Started(library.start().to_bytes(8, "big")))
        _Worker(channel, library, setup.plan).run()
    except LibraryRefusedError as refusal:
        what, hint = refusal.args
        channel.send(Refused(what[:1000], hint[:1000]))
    except LibraryError as error:
        channel.send(Failed(str(error)[:1000]))


def main() -> None:
    """End with the parent, whatever the library is doing; write its words line by line."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)  # sent to the whole service; the parent says when to stop
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _IOLBF, ctypes.c_size_t(0))
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            serve(connection)
        except _ParentGoneError:
            return


if __name__ == "__main__":
    main()
