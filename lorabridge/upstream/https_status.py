"""Our status while records leave by HTTPS: no last will goes with it, so it is said when it is true, after records.

The last will of the MQTT connection that was lost is published when the endpoint gives that connection up, one and a
half times the keep-alive after its last sign of life (MQTT 3.1.1, 3.1.2.10). It would overwrite an earlier status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lorabridge.upstream.connection import Message
from lorabridge.upstream.faults import LinkDown, LinkState
from lorabridge.upstream.https_publish import HttpsPublisher
from lorabridge.upstream.link import LinkReport, Listener

BY_HTTPS = "by HTTPS: commands do not arrive"
"""Detail of the status that says `online`."""


class HttpsStatus:
    """Stands between the drain and the publisher: what comes of HTTPS goes to the drain first. `note` all of MQTT."""

    def __init__(
        self,
        https: HttpsPublisher,
        status: Callable[[str, str], Message],
        on_refused: Callable[[LinkDown], None],
        will_within: float,
    ) -> None:
        """`status(state, detail)` is made when it leaves; `will_within` seconds after MQTT was lost its will is out."""
        self._https = https
        self._status = status
        self._on_refused = on_refused
        self._will_within = will_within
        self._listener: Listener | None = None
        self._lost_at: float | None = time.monotonic()  # the process before this one may have left a will
        self._timer: asyncio.TimerHandle | None = None
        self._is_owed = False
        self._is_proved = False
        self._is_said = False
        """Whether somebody may have been told: it was taken, or is under way."""
        self._is_under_way = False

    def note(self, report: LinkReport) -> None:
        """A report of the MQTT link."""
        if report.state is LinkState.ONLINE:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = time.monotonic()

    def turn(self, is_active: bool) -> None:  # a switch
        """Records leave by HTTPS from now on, or by MQTT, which says its own status."""
        self._is_owed, self._is_proved, self._is_said = is_active, False, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if is_active:
            self._timer = asyncio.get_running_loop().call_later(self._wait(), self._say_if_due)

    def farewell(self) -> Message | None:
        """What is left to say at a stop; None when nobody was told that we are there."""
        is_said = self._is_said
        self.turn(False)
        return self._status("offline", "stopped") if is_said else None

    def _wait(self) -> float:
        """Seconds until no last will can come any more."""
        lost_for = 0.0 if self._lost_at is None else time.monotonic() - self._lost_at
        return max(0.0, self._will_within - lost_for)

    def _say_if_due(self) -> None:
        """Once HTTPS took a record, or nothing is there to be sent before it; and when there is room left."""
        if not self._is_owed or self._is_under_way or self._wait() > 0:
            return
        if not (self._is_proved or self._https.is_idle):
            return
        message = self._status("online", BY_HTTPS)
        if self._https.has_room(len(message.payload)):
            self._is_owed, self._is_said, self._is_under_way = False, True, True
            self._https.say(message, self._answered)

    def _answered(self, down: LinkDown | None) -> None:
        """200, a refusal, which is told and not asked for again, or a failure of the way: then it is still owed."""
        self._is_under_way = False
        if down is None:
            return
        was_of_this_turn, self._is_said = self._is_said, False
        if down.culprit is not None:
            self._on_refused(down)
        elif was_of_this_turn:
            self._is_owed = True

    # What the publisher tells (link.Listener), and the way out that it is (fallback.Way).

    def attach(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on."""
        self._listener = listener
        self._https.attach(self)

    def acknowledged(self, key: int) -> None:
        """A record was taken."""
        self._is_proved = True
        if self._listener is not None:
            self._listener.acknowledged(key)

    def disconnected(self, unacknowledged: list[int], culprit: int | None) -> None:
        """A round failed: what was taken before proves nothing of the next."""
        self._is_proved = False
        if self._listener is not None:
            self._listener.disconnected(unacknowledged, culprit)

    def ready(self) -> None:
        """There may be room: records take it first."""
        if self._listener is not None:
            self._listener.ready()
        self._say_if_due()

    def has_room(self, size: int, *, patient: bool = False) -> bool:
        """As the publisher says."""
        return self._https.has_room(size, patient=patient)

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """As the publisher does."""
        self._https.publish(topic, payload, key)

    def flush(self) -> None:
        """As the publisher does."""
        self._https.flush()
