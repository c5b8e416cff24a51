"""kill -9 at random moments under load: nothing accepted is lost, nothing is accepted twice.

What this proves, and how. A killed bridge leaves two kinds of frames, if promise 2 holds: those that were committed,
counter and record, and those that were acknowledged to the forwarder or still on their way and never committed.
The forwarder of this test has a memory: after each restart it sends again, in their order, everything from the
first frame that has not arrived at the broker, and a few older ones. Then

- a frame that was committed is refused by its counter, and must arrive out of the outbox. If its counter had been
  committed without its record, it would be refused for ever and be missing in the end: **lost**.
- a frame that was not committed is accepted now. If its record had been committed without its counter, it would be
  accepted a second time, and a second record would arrive: **accepted twice**. The `id` is the same for both, so
  records are compared byte for byte: they hold the gateway's counter `tmst`, another one at every sending.
  The same record arriving again, byte for byte, is the "at least once" of MQTT and is counted, not refused.

So the whole claim is: every frame of the run arrives, with exactly one record each, decrypted to what its device said.
In the end the bridge is started once more and hears every frame of the run again: none is accepted.

LORABRIDGE_KILLS sets the number of kills, LORABRIDGE_SEED the seed of the moments.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from random import Random

import pytest

from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import Installation, Site, installed
from tests.e2e.traffic import Account, Frame, Identity, device_file, frames, tell

KILLS = int(os.environ.get("LORABRIDGE_KILLS", "25"))
SEED = int(os.environ.get("LORABRIDGE_SEED", secrets.randbelow(1 << 32)))
DEVICES = 10
OLDER = 20
"""Frames that have arrived already and are sent again after each kill."""
IN_START_UP = 0.1
"""Share of the kills that hit before the bridge is ready."""


class Run:
    """One forwarder's life across many kills."""

    def __init__(self, installation: Installation, rng: Random) -> None:
        self.installation = installation
        self.account = Account(installation.site.published)
        self.rng = rng
        self.history: list[Frame] = []
        self.sendings = 0
        self.first_sending: dict[Identity, int] = {}
        self.before_ready = 0
        """Kills that hit while the bridge started."""
        self.missing_at_kill: list[tuple[int, list[Identity]]] = []
        """For each kill under load, how many sendings there had been, and which frames had not arrived."""
        self._fresh = frames(DEVICES, 10_000_000, 1)
        self._arrived = 0
        """All frames of the history before this one have arrived."""

    def first_missing(self) -> int:
        """The place of the first frame that has not arrived."""
        while self._arrived < len(self.history) and self.history[self._arrived].identity in self.account:
            self._arrived += 1
        return self._arrived

    def burst(self, again: Iterator[Frame]) -> list[bytes]:
        """A few frames, as they come together in one datagram: first those to be sent again, then new ones."""
        chosen: list[bytes] = []
        for _ in range(self.rng.randint(1, 6)):
            frame = next(again, None)
            if frame is None:
                frame = next(self._fresh)
                self.history.append(frame)
                self.first_sending[frame.identity] = self.sendings + 1
            self.sendings += 1
            chosen.append(frame.rxpk(self.sendings))
        return chosen

    def load_until(self, forwarder: Forwarder, deadline: float) -> None:
        """Send without pause but for a random one now and then, until the deadline."""
        start = max(0, self.first_missing() - OLDER)
        again = iter(self.history[start : len(self.history)])
        while (left := deadline - time.monotonic()) > 0:
            for _ in range(self.rng.choice((1, 2, 50))):
                if time.monotonic() >= deadline:
                    return  # in the middle of a burst, when the bridge has its hands full
                forwarder.push(self.burst(again))
            forwarder.pause(min(left, self.rng.uniform(0, 0.03)))

    def resend(self, forwarder: Forwarder, start: int) -> int:
        """The history from `start` on, once more; returns how many frames that is."""
        for frame in self.history[start:]:
            self.sendings += 1
            forwarder.push([frame.rxpk(self.sendings)])
        forwarder.settle()
        return len(self.history) - start

    def kill_once(self) -> None:
        """Start, load, kill at a random moment."""
        bridge = self.installation.launch()
        if self.rng.random() < IN_START_UP:
            self.before_ready += not bridge.hears(b"READY=1", self.rng.uniform(0.05, 0.5))
            bridge.kill()
            return
        bridge.wait_ready()
        with Forwarder(self.installation.udp_port) as forwarder:
            self.load_until(forwarder, time.monotonic() + self.rng.uniform(0, 0.4))
            bridge.kill()
        missing = [frame.identity for frame in self.history[self.first_missing() :]]
        self.missing_at_kill.append((self.sendings, missing))

    def kinds_of_kills(self) -> tuple[int, int]:
        """How many kills left frames that were not committed, and how many left frames that waited in the outbox."""
        accepted_by = self.account.accepted_by
        uncommitted = sum(any(accepted_by[one] > at for one in missing) for at, missing in self.missing_at_kill)
        waiting = sum(any(accepted_by[one] <= at for one in missing) for at, missing in self.missing_at_kill)
        return uncommitted, waiting


@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * KILLS)
def test_kill_at_any_moment_loses_nothing_and_accepts_nothing_twice(site: Site) -> None:
    with installed(site, device_file(DEVICES), log='level = "info"') as installation:
        run = Run(installation, Random(SEED))
        tell(seed=SEED)
        begun = time.monotonic()
        for _ in range(KILLS):
            run.kill_once()
        seconds = time.monotonic() - begun
        hear_all_that_is_missing(run)
        hear_everything_again(run)
        uncommitted, waiting = run.kinds_of_kills()
        tell(
            kills=KILLS,
            before_ready=run.before_ready,
            with_frames_not_committed=uncommitted,
            with_frames_in_the_outbox=waiting,
            seconds_per_kill=round(seconds / KILLS, 2),
            frames=len(run.history),
            sendings=run.sendings,
            records_that_arrived_again=sum(run.account.again.values()),
        )
        assert KILLS < 20 or uncommitted or waiting, "no kill hit anything between the socket and the PUBACK"


def hear_all_that_is_missing(run: Run) -> None:
    """The last start: what was never committed is sent again, what was is delivered out of the outbox."""
    bridge = run.installation.start()
    with Forwarder(run.installation.udp_port) as forwarder:
        run.installation.wait_judged(run.resend(forwarder, run.first_missing()), 300)
    run.installation.wait_drained(300)
    bridge.stop()
    run.account.assert_complete(run.history)
    checked = run.installation.cli("store", "check", str(run.installation.database))
    assert checked.returncode == 0, checked.stdout


def hear_everything_again(run: Run) -> None:
    """Every frame of the run once more: refused, each of them."""
    bridge = run.installation.start()
    with Forwarder(run.installation.udp_port) as forwarder:
        run.installation.wait_judged(run.resend(forwarder, 0), 300)
    verdicts = run.installation.status()["verdicts"]
    assert "accepted" not in verdicts, verdicts
    run.installation.wait_drained()
    bridge.stop()
    run.account.assert_complete(run.history)
