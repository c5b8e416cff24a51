"""A device behind a pseudo-terminal: a script of what it does with what it hears, in a thread of its own."""

from __future__ import annotations

import os
import select
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Script = Callable[[bytes], bytes | None]
"""What was heard since the last answer; what to send (may be empty), or None to be unplugged."""

UNIQUE_ID = bytes.fromhex("0035002b5453500f20343737")
VERSION = b"V01.00.00"


class PtyDevice:
    """`path` is the port; `heard` all that was written to it."""

    def __init__(self, script: Script) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self.heard = b""
        self._script = script
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def send(self, data: bytes) -> None:
        """What does not fit while nobody reads is lost, as in a device."""
        with suppress(BlockingIOError):
            os.write(self._master, data)

    def close(self) -> None:
        """Unplug it. May be called twice."""
        if self._stop >= 0:
            os.close(self._stop)
            self._stop = -1
            self._thread.join()
            os.close(self._wake)

    def _serve(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._master, self._wake], [], [])
                if self._wake in ready:
                    return
                data = os.read(self._master, 4096)
                self.heard += data
                answer = self._script(data)
                if answer is None:
                    return
                self.send(answer)
        finally:
            os.close(self._slave)
            os.close(self._master)


@contextmanager
def attached(script: Script) -> Iterator[PtyDevice]:
    device = PtyDevice(script)
    try:
        yield device
    finally:
        device.close()


def answer(request: bytes, payload: bytes) -> bytes:
    """The frame that acknowledges a request: written from the table in the vendor's header, not with our code."""
    return bytes([request[0], len(payload) >> 8, len(payload) & 0xFF, request[3] + 0x40]) + payload


def concentrator(request: bytes) -> bytes:
    """A controller in order: 25.31 °C, up for 1 000 000 ms."""
    payloads = {
        b"\x00\x00\x00": UNIQUE_ID + VERSION,
        b"\x00\x00\x01": bytes.fromhex("000f424009e3"),
        b"\x00\x01\x03\x00": b"\x00",
    }
    return answer(request, payloads[request[1:]])


def silent(request: bytes) -> bytes:
    return b""
