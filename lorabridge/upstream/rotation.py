"""New certificates while the link is up: a second connection proves the new pair before the old one is let go.

The endpoint lets a client id connect once: it ends the old connection when it accepts the new one, and
not before. So nothing is lost when the new pair is refused, and there is never a moment without a
connection that may be the last good one.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Protocol

from lorabridge.upstream.connection import Connection, Delivery, Owner
from lorabridge.upstream.credentials import Choice, Credentials
from lorabridge.upstream.faults import LinkDown


class Host(Protocol):
    """The link, as far as a rotation needs it; every call comes from the loop."""

    def may_try(self) -> bool:
        """Whether there is a proved connection, no stop under way, and a CONNECT more within the quota."""

    def dial(self, choice: Choice, owner: Owner) -> Connection:
        """Begin a connection with this pair."""

    def accepted(self, connection: Connection) -> None:
        """CONNACK came on the new connection."""

    def judged(self, refusal: LinkDown | None) -> None:
        """A new pair proved itself (None), or is not used any more for this reason."""

    def broke(self, bug: BaseException) -> None:
        """What nobody foresaw."""


class Rotation:
    """Chooses the pair for each connection, and tries what is new in the files; it owns what it tries until CONNACK."""

    def __init__(self, credentials: Credentials, host: Host, look_interval: float) -> None:
        """`look_interval`: seconds between two looks at the files."""
        self._credentials = credentials
        self._host = host
        self._look_interval = look_interval
        self._look: asyncio.TimerHandle | None = None
        self._choice: Choice | None = None
        self._trial: Connection | None = None
        self._tried: Choice | None = None
        self._is_witnessed = False

    @property
    def is_rolled_back(self) -> bool:
        """Whether the files hold a pair that was refused, and the one before it is in use."""
        return self._credentials.is_rolled_back

    @property
    def valid_until(self) -> datetime | None:
        """When the certificate in use expires, UTC; None until one proved itself."""
        return self._credentials.valid_until

    @property
    def is_trying(self) -> bool:
        """Whether a second connection is under way: the endpoint may end the first one any moment."""
        return self._trial is not None

    def choose(self) -> Choice:
        """The pair for the link's next connection."""
        self._is_witnessed = False
        self._choice = self._credentials.choose(time.monotonic())
        return self._choice

    def puback(self) -> None:
        """A PUBACK on the link's connection: its pair may do all that we need."""
        if self._is_witnessed:
            return
        self._is_witnessed = True
        if self._choice is not None and self._credentials.proved(self._choice):
            self._host.judged(None)
        if self._look is None:
            self._look_later()

    def ended(self, down: LinkDown) -> None:
        """The link's connection is over; before its first PUBACK that may be the pair's fault."""
        choice, self._choice = self._choice, None
        if choice is not None and not self._is_witnessed:
            self._judge(choice, down)
        self._is_witnessed = False

    def stop(self) -> None:
        """Look no more, give up what is tried."""
        if self._look is not None:
            self._look.cancel()
        if self._trial is not None:
            self._trial.drop(LinkDown(None))

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(self._look_interval, self._look_at_files)

    def _look_at_files(self) -> None:
        self._look_later()
        now = time.monotonic()
        if self._trial is None and self._is_witnessed and self._host.may_try() and self._credentials.is_new(now):
            self._tried = self._credentials.choose(now)
            self._trial = self._host.dial(self._tried, self)
            self._trial.down.add_done_callback(self._trial_ended)

    def _trial_ended(self, over: asyncio.Future[LinkDown]) -> None:
        trial, self._trial = self._trial, None
        if trial is None:  # it was accepted, and is the link's
            return
        bug = over.exception()
        if bug is not None:
            self._host.broke(bug)
        elif self._tried is not None:
            self._judge(self._tried, over.result())

    def _judge(self, choice: Choice, down: LinkDown) -> None:
        if down.fault is not None and self._credentials.failed(choice, down.fault, time.monotonic()):
            self._host.judged(down)

    # What the connection that is tried tells (connection.Owner).

    def connected(self) -> None:
        """CONNACK: the endpoint ends the old connection, and this one is the link's."""
        trial, self._trial = self._trial, None
        if trial is not None:
            self._choice, self._is_witnessed = self._tried, False
            self._host.accepted(trial)

    def acknowledged(self, key: int) -> None:
        """Nothing is published before the CONNACK."""

    def subscribed(self, refusal: str) -> None:
        """Nothing is subscribed to before the CONNACK."""

    def received(self, delivery: Delivery) -> None:
        """Nothing comes before the CONNACK."""

    def settled(self) -> None:
        """Nothing waits for room."""
