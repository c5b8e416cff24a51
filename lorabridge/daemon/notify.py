"""Telling the service manager how we are: sd_notify(3), without a library for five lines of datagram."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence

_STATUS_LENGTH = 200


class Notifier:
    """Sends states to the socket in NOTIFY_SOCKET; without one every call does nothing.

    Nothing is raised: a service manager that does not listen must not stop the bridge.
    """

    def __init__(self, address: str | None, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._address = address
        self._monotonic_ns = monotonic_ns

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """The notifier for the service manager that started us, if one did."""
        return cls(environ.get("NOTIFY_SOCKET") or None)

    def ready(self, status: str = "") -> None:
        """Started, or done with a reload."""
        self._send("READY=1", status)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The time stamp is what Type=notify-reload asks for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """The end has begun."""
        self._send("STOPPING=1", status)

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send("", status)

    def watchdog(self) -> None:
        """We live: the next sign is due within the watchdog's interval."""
        self._send("WATCHDOG=1")

    def _send(self, state: str, status: str = "") -> None:
        if self._address is None or not self._address.startswith(("/", "@")):
            return  # vsock and the rest are for containers and virtual machines
        line = " ".join(status.split())[:_STATUS_LENGTH]  # a line break would begin another assignment
        message = "\n".join(part for part in (state, f"STATUS={line}" if line else "") if part)
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.setblocking(False)
            notify.sendto(message.encode(errors="replace"), address)


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which the service manager wants a sign of life from `pid`, or None when it wants none."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdigit() and int(microseconds) else None


class Watchdog:
    """Gives the sign of life only while the work itself goes on.

    A timer alone would only prove that the timer runs: `stuck` names what makes no progress, and while
    it names anything the sign is withheld, so that the service manager restarts us.
    """

    def __init__(self, notifier: Notifier, interval: float, stuck: Callable[[], Sequence[str]]) -> None:
        self._notifier = notifier
        self._interval = interval
        self._stuck = stuck
        self._log = logging.getLogger(__name__)

    def beat(self) -> bool:
        """One look: gives the sign and returns True, or withholds it, says why, and returns False."""
        stuck = self._stuck()
        if stuck:
            self._log.error("no sign of life for the watchdog", extra={"stuck": tuple(stuck)})
            self._notifier.status(f"stuck: {', '.join(stuck)}")
            return False
        self._notifier.watchdog()
        return True

    async def run(self) -> None:
        """Look three times an interval, until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(self._interval / 3)
