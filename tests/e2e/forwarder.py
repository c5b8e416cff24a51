"""A packet forwarder for tests: sends PUSH_DATA over a real socket and holds the bridge to its PUSH_ACKs."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import Self

WINDOW = 48
"""Datagrams without PUSH_ACK at a time: the kernel's default buffer holds more, so that none is lost on the way."""
_PATIENCE = 30.0
"""Seconds for an answer: a machine that runs other tests may let a process wait."""


class Forwarder:
    """One gateway, or several behind one socket. Written from the protocol's description, without our codecs."""

    def __init__(self, port: int, *, gateway_eui: str = "0211223344556677") -> None:
        self._eui = bytes.fromhex(gateway_eui)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._token = 0
        self._unanswered: dict[bytes, int] = {}
        self.sent = 0
        self.answered: set[int] = set()
        """Which PUSH_DATA, counted from 0, have their PUSH_ACK."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def push(self, rxpks: Sequence[bytes], *, gateway_eui: str | None = None, stat: bytes = b"") -> None:
        """One PUSH_DATA with JSON objects; waits while too many are unanswered."""
        parts = [b'"rxpk":[%b]' % b",".join(rxpks)] if rxpks else []
        parts += [b'"stat":%b' % stat] if stat else []
        eui = self._eui if gateway_eui is None else bytes.fromhex(gateway_eui)
        self.replay(b"\x02%b\x00%b{%b}" % (self._next_token(), eui, b",".join(parts)))

    def replay(self, datagram: bytes) -> None:
        """A PUSH_DATA as it is; its token must be none of those that wait for an answer."""
        while not self.has_room:
            self.listen(_PATIENCE, needed=True)
        self._unanswered[datagram[1:3]] = self.sent
        self._socket.send(datagram)
        self.sent += 1
        self.listen(0)

    @property
    def has_room(self) -> bool:
        """Whether a PUSH_DATA would leave at once."""
        return len(self._unanswered) < WINDOW

    def listen(self, seconds: float, *, needed: bool = False) -> None:
        """Take in what comes within a time, or is there already."""
        readable, _, _ = select.select([self._socket], [], [], seconds)
        if not readable:
            assert not needed, f"no PUSH_ACK for {len(self._unanswered)} datagrams in {seconds} s"
            return
        try:
            while True:
                self._note(self._socket.recv(2048))
        except BlockingIOError:
            return

    def pause(self, seconds: float) -> None:
        """Send nothing for a time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.listen(left)

    def settle(self) -> None:
        """Wait until every datagram has its PUSH_ACK."""
        while self._unanswered:
            self.listen(_PATIENCE, needed=True)

    def pull(self, *, gateway_eui: str | None = None) -> None:
        """PULL_DATA, and wait for its PULL_ACK."""
        self.settle()
        token = self._next_token()
        eui = self._eui if gateway_eui is None else bytes.fromhex(gateway_eui)
        self._socket.send(b"\x02%b\x02%b" % (token, eui))
        select.select([self._socket], [], [], _PATIENCE)
        assert self._socket.recv(2048) == b"\x02%b\x04" % token

    def _next_token(self) -> bytes:
        self._token = (self._token + 1) & 0xFFFF
        return self._token.to_bytes(2, "big")

    def _note(self, answer: bytes) -> None:
        assert len(answer) == 4, answer
        assert (answer[0], answer[3]) == (2, 1), f"no PUSH_ACK of version 2: {answer.hex()}"
        assert answer[1:3] in self._unanswered, f"PUSH_ACK for nothing that was sent: {answer.hex()}"
        self.answered.add(self._unanswered.pop(answer[1:3]))
