"""A packet forwarder and a subscriber in one loop: datagrams out by an absolute schedule, messages in.

A frame's latency runs from the moment its datagram was sent to the moment its message came out of the
broker; frame and message are matched by address and counter, after the run.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field

import msgspec

from tests.bench.fleet import Fleet, push_data
from tests.bench.system import Process
from tests.bench.timing import percentile

_CONNECT = bytes.fromhex("1010 0004 4d515454 04 02 0000 0004 6c6f6164")
_SUBSCRIBE = bytes.fromhex("8206 0001 0001 23 00")
_PUBLISH = 0x30


class Seen(msgspec.Struct):
    """Of a message, what names its frame."""

    dev_addr: str = ""
    fcnt32: int = -1


@dataclass
class Result:
    """What came of one offer."""

    sent: int
    delivered: int
    twice: int
    seconds: float
    """From the first datagram to the last message."""
    latencies: list[float] = field(default_factory=list)
    """Seconds."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.delivered / self.seconds if self.seconds else 0.0

    def ms(self, part: float) -> float | None:
        """A percentile in milliseconds; None when not every frame was delivered."""
        return percentile(self.latencies, part) * 1e3 if self.delivered == self.sent else None


class Subscriber:
    """Every uplink of one bridge that the broker delivers, on its plain port, with QoS 0 (cheapest)."""

    def __init__(self, port: int, patience: float = 10) -> None:
        deadline = time.perf_counter() + patience
        while True:
            try:
                self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except ConnectionRefusedError:
                if time.perf_counter() > deadline:
                    raise
                time.sleep(0.002)
        self.sock.sendall(_CONNECT + _SUBSCRIBE)
        self.wanted = b""
        """What the topics of the uplinks begin with."""
        self._buffer = b""
        self.messages: list[tuple[float, bytes]] = []
        answer = b""
        while len(answer) < 9:
            answer += self.sock.recv(9 - len(answer))
        self.sock.setblocking(False)

    def receive(self) -> int:
        """Take what is there; returns how many uplinks that was."""
        try:
            data = self._buffer + self.sock.recv(1 << 18)
        except BlockingIOError:
            return 0
        now, at, size, before = time.perf_counter(), 0, len(data), len(self.messages)
        while at + 2 <= size:
            length, shift, body = 0, 0, at + 1
            while body < size:
                digit = data[body]
                length |= (digit & 0x7F) << shift
                shift += 7
                body += 1
                if digit < 0x80:
                    break
            else:
                break
            if body + length > size:
                break
            if data[at] & 0xF0 == _PUBLISH:
                topic_ends = body + 2 + int.from_bytes(data[body : body + 2], "big")
                if data[body + 2 : topic_ends].startswith(self.wanted):
                    self.messages.append((now, data[topic_ends : body + length]))
            at = body + length
        self._buffer = data[at:]
        return len(self.messages) - before

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


class Load:
    """Frames of a fleet for one bridge."""

    def __init__(self, fleet: Fleet, process: Process, subscriber: Subscriber) -> None:
        self._fleet = fleet
        self._topic = process.topic
        self.subscriber = subscriber
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.connect(("127.0.0.1", process.udp_port))
        self._udp.setblocking(False)
        self._tokens = 0

    def close(self) -> None:
        """Let go of the socket."""
        self._udp.close()

    def datagrams(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """The next frames, and the datagrams that carry them."""
        frames = self._fleet.frames(count)
        self._tokens += count
        first = self._tokens - count
        return frames, [push_data(phy, first + i & 0xFFFF, (first + i) * 2500) for i, phy in enumerate(frames)]

    def offer(self, rate: float, seconds: float, grace: float = 8) -> Result:
        """So many frames a second; then wait for what is missing, at most `grace` seconds."""
        return self.play(*self.datagrams(int(rate * seconds)), rate=rate, grace=grace)

    def play(self, frames: list[bytes], datagrams: list[bytes], *, rate: float, grace: float) -> Result:
        """Send the datagrams by an absolute schedule."""
        self._begin()
        count, sent, sent_at, seen = len(datagrams), 0, [0.0] * len(datagrams), 0
        begun = time.perf_counter() + 0.02
        deadline = begun + count / rate + grace
        while seen < count and (now := time.perf_counter()) < deadline:
            due = min(count, int((now - begun) * rate) + 1) if now >= begun else 0
            while sent < due:
                sent_at[sent] = time.perf_counter()
                self._send(datagrams[sent])
                sent += 1
            seen += self._wait(begun + sent / rate - now if sent < count else 0.05)
        return self._result(frames, sent_at)

    def send(self, datagrams: list[bytes], *, rate: float) -> None:
        """Send the datagrams by an absolute schedule, nobody listening; returns when all are acknowledged."""
        begun, acknowledged = time.perf_counter(), 0
        for number, datagram in enumerate(datagrams):
            while (early := begun + number / rate - time.perf_counter()) > 0 or acknowledged < number - 1000:
                acknowledged += self._acknowledgements(max(early, 0.001))
            self._send(datagram)
        while acknowledged < len(datagrams) and (came := self._acknowledgements(2.0)):
            acknowledged += came

    def collect(self, frames: list[bytes], *, patience: float) -> Result:
        """What comes of frames sent before, until nothing came for `patience` seconds; timed from the first message."""
        self._begin()
        seen, progress, first = 0, time.perf_counter(), 0.0
        while seen < len(frames) and (now := time.perf_counter()) < progress + patience:
            came = self._wait(0.05)
            if came and not first:
                first = now
            seen += came
            progress = now if came else progress
        return self._result(frames, [first] * len(frames))

    def flood(self, seconds: float, outstanding: int = 2000, most: int = 12_000) -> Result:
        """As fast as they are delivered: never more than `outstanding` frames on their way."""
        frames, datagrams = self.datagrams(int(most * seconds))
        self._begin()
        sent, seen, sent_at = 0, 0, [0.0] * len(datagrams)
        begun = progress = time.perf_counter()
        while (now := time.perf_counter()) < progress + 3 and (now < begun + seconds or seen < sent):
            if now < begun + seconds:
                for _ in range(min(32, outstanding - (sent - seen), len(datagrams) - sent)):
                    sent_at[sent] = time.perf_counter()
                    self._send(datagrams[sent])
                    sent += 1
            came = self._wait(0.0 if sent - seen < outstanding and now < begun + seconds else 0.005)
            seen += came
            progress = now if came else progress
        return self._result(frames[:sent], sent_at[:sent])

    def settle(self, quiet: float, most: float) -> None:
        """Wait until nothing came for `quiet` seconds, at most `most`: a backlog goes before the next case."""
        self._begin()
        begun = progress = time.perf_counter()
        while (now := time.perf_counter()) < min(progress + quiet, begun + most):
            progress = now if self._wait(0.05) else progress

    def _begin(self) -> None:
        """Look at this bridge's uplinks from now on."""
        self.subscriber.wanted = self._topic
        self.subscriber.messages.clear()

    def _send(self, datagram: bytes) -> None:
        while True:
            try:
                self._udp.send(datagram)
            except BlockingIOError:
                select.select([], [self._udp], [], 0.1)
            else:
                return

    def _wait(self, timeout: float) -> int:
        """Until a message comes or the time is over; acknowledgements of datagrams are read and forgotten."""
        readable, _, _ = select.select([self._udp, self.subscriber.sock], [], [], max(timeout, 0.0))
        if self._udp in readable:
            self._acknowledgements(0.0)
        return self.subscriber.receive() if self.subscriber.sock in readable else 0

    def _acknowledgements(self, timeout: float) -> int:
        """Wait for acknowledgements of datagrams; how many came."""
        if not select.select([self._udp], [], [], timeout)[0]:
            return 0
        came = 0
        try:
            for _ in range(64):
                self._udp.recv(64)
                came += 1
        except BlockingIOError:
            pass
        return came

    def _result(self, frames: list[bytes], sent_at: list[float]) -> Result:
        """Match messages to frames."""
        when = {
            (phy[1:5][::-1].hex(), int.from_bytes(phy[6:8], "little")): at
            for phy, at in zip(frames, sent_at, strict=True)
        }
        decode = msgspec.json.Decoder(Seen).decode
        latencies: dict[tuple[str, int], float] = {}
        twice, last = 0, min(sent_at, default=0.0)
        for came_at, payload in self.subscriber.messages:
            found = decode(payload)
            key = (found.dev_addr, found.fcnt32 & 0xFFFF)
            if key not in when:
                continue
            twice += key in latencies
            latencies.setdefault(key, came_at - when[key])
            last = max(last, came_at)
        return Result(len(frames), len(latencies), twice, last - min(sent_at, default=last), list(latencies.values()))
