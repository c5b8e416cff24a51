"""One fault under load: the daemon between a steady flow of frames and an endpoint that is out of reach now and then.

What is measured is asserted when the run ends, and appended as a line of JSON to the file that LORABRIDGE_FAULTS_REPORT
names; `python tests/e2e/fault_table.py` makes docs/fault-suite.md of it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tests.e2e.fault_table import Row
from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import Bridge, Installation, Site, installed, wait_until
from tests.e2e.relay import Relay, relaying
from tests.e2e.traffic import Account, Frame, device_file, frames, tell
from tests.simulation.standin_help import CREDENTIALS

IS_FULL = os.environ.get("LORABRIDGE_FAULTS") == "full"
RIVAL = "MQTT 5"
"""How the front tells who else connects: the bridge speaks 3.1.1 in these runs."""
EVENTS = 1_000_000
"""As many the front has to keep for the account of a run."""
REPORT = os.environ.get("LORABRIDGE_FAULTS_REPORT", "")
DEVICES = 5
RATE = 40.0
"""Frames a second, all the time."""
PATIENCE = 60.0
"""Seconds within which everything has to recover."""
CONNECT_INTERVAL = 1.0
"""AWS IoT takes one CONNECT a second of a client id."""
JITTER = 0.5
"""Seconds by which a machine that is busy may make a pause look shorter: a thread begins to dial late."""
MEMORY_MIB = 12.0
"""How much more may be resident in the last third of a run than in the first: SQLite's cache fills."""
DESCRIPTORS = 3
"""As many more: a look-up, a reader of the database, a second connection come and go."""
_SAMPLE_S = 0.2


def let_pass(seconds: float) -> None:
    """The fault lasts; nothing is waited for."""
    threading.Event().wait(seconds)


class _Thread:
    """Work of its own beside the test, whose exception is raised by `stop`."""

    def __init__(self, name: str) -> None:
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)
        self._thread.start()

    def work(self) -> None:
        """Until `_stopped` is set."""
        raise NotImplementedError

    def _guarded(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001  # for the thread that waits to raise
            self._error = error

    def end(self) -> None:
        """Stop, whatever happened."""
        self._stopped.set()
        self._thread.join(PATIENCE)

    def stop(self) -> None:
        """Stop. Raises what went wrong."""
        self.end()
        assert not self._thread.is_alive(), f"{self._thread.name} does not stop"
        if self._error is not None:
            raise self._error


class Load(_Thread):
    """Frames at a steady rate, each pushed once."""

    def __init__(self, udp_port: int, rate: float) -> None:
        self.sent: list[Frame] = []
        self._port = udp_port
        self._rate = rate
        super().__init__("load")

    def work(self) -> None:
        begun = time.monotonic()
        with Forwarder(self._port) as forwarder:
            for number, frame in enumerate(frames(DEVICES, 10_000_000, seed=11)):
                forwarder.pause(begun + number / self._rate - time.monotonic())
                if self._stopped.is_set():
                    break
                self.sent.append(frame)
                forwarder.push([frame.rxpk(number)])
            forwarder.settle()


class Watch(_Thread):
    """What the process holds, sampled."""

    def __init__(self, bridge: Bridge) -> None:
        self.samples: list[tuple[float, int]] = []
        """Resident MiB and open file descriptors."""
        self._bridge = bridge
        super().__init__("watch")

    def work(self) -> None:
        descriptors = Path(f"/proc/{self._bridge.process.pid}/fd")
        while not self._stopped.wait(_SAMPLE_S):
            with suppress(FileNotFoundError, StopIteration, ProcessLookupError):  # it has ended
                self.samples.append((self._bridge.resident_mib(), len(list(descriptors.iterdir()))))

    def thirds(self) -> tuple[Sequence[tuple[float, int]], Sequence[tuple[float, int]]]:
        """The first and the last third of the samples."""
        third = max(1, len(self.samples) // 3)
        return self.samples[:third], self.samples[-third:]


class FaultRun:
    """What a fault needs to be struck and healed, and the account of the run."""

    def __init__(self, site: Site, installation: Installation, relay: Relay, bridge: Bridge, rate: float) -> None:
        self.site = site
        self.installation = installation
        self.relay = relay
        self.bridge = bridge
        self.begun = time.monotonic()
        self.recoveries: list[float] = []
        self._account = Account(site.published)
        self._complete = 0
        self.load = Load(installation.udp_port, rate)
        self.watch = Watch(bridge)

    def wait_flowing(self, *, anew: bool, since: tuple[int, int] | None = None) -> None:
        """Until an uplink arrives that had not; with `anew` on a connection that was not there."""
        connected, arrived = since or self.seen()
        if anew:
            what = "a new connection"
            wait_until(lambda: self.site.endpoint.standin.counters["connected"] > connected, what, PATIENCE)
            arrived = len(self.site.published)
        published = self.site.published
        wait_until(lambda: any("/uplink/" in topic for topic, _ in published[arrived:]), "an uplink arrives", PATIENCE)

    def wait_caught_up(self) -> None:
        """Until all that was sent up to now has arrived."""
        waited_for = len(self.load.sent)

        def arrived() -> bool:
            while self._complete < waited_for and self.load.sent[self._complete].identity in self._account:
                self._complete += 1
            return self._complete >= waited_for

        wait_until(arrived, "all that was sent has arrived", PATIENCE)

    def seen(self) -> tuple[int, int]:
        """Connections so far, publishes so far."""
        return self.site.endpoint.standin.counters["connected"], len(self.site.published)

    def strike(
        self,
        rounds: int,
        fault: Callable[[], Callable[[], None] | None],
        *,
        lasting: float = 0.0,
        pause: float = 0.5,
        anew: bool = True,
        rivals: int = 0,
    ) -> None:
        """Strike again and again: `fault` gives what heals it after so many seconds, or heals by itself.

        `anew`: it costs the connection, so that recovery needs a new one. `rivals`: connections that are none of ours.
        """
        for _ in range(rounds):
            connected, arrived = self.seen()
            before = connected + rivals, arrived
            heal = fault()
            let_pass(lasting)
            if heal is not None:
                heal()
            healed = time.monotonic()
            self.wait_flowing(anew=anew, since=before if heal is None else None)
            self.wait_caught_up()
            self.recoveries.append(time.monotonic() - healed)
            let_pass(pause)

    def finish(self, name: str, rounds: int) -> Row:
        """The end of the load; everything arrives; what was measured is within its bounds."""
        seconds = time.monotonic() - self.begun
        self.watch.stop()
        self.load.stop()
        sent = self.load.sent
        self.installation.wait_judged(len(sent), PATIENCE)
        self.installation.wait_drained(PATIENCE + len(sent) / 100)
        drained = time.monotonic() - self.begun - seconds
        self._account.assert_complete(sent)
        self._assert_taken(len(sent))
        self.bridge.stop()
        begins = self._begins()
        assert_paced(begins, "CONNECTs that the front saw")
        assert_paced(self.relay.accepted, "connections that were tried")
        (mib_first, fds_first), (mib_last, fds_last) = (
            (statistics.fmean(mib for mib, _ in third), max(fds for _, fds in third)) for third in self.watch.thirds()
        )
        assert mib_last - mib_first < MEMORY_MIB, self.watch.samples
        assert fds_last <= fds_first + DESCRIPTORS, self.watch.samples
        return Row(
            fault=name,
            is_full=IS_FULL,
            rounds=rounds,
            seconds=seconds,
            frames=len(sent),
            again=sum(self._account.again.values()),
            connects=len(begins),
            closest_s=min((later - at for at, later in itertools.pairwise(begins)), default=None),
            recovery_median_s=statistics.median(self.recoveries),
            recovery_worst_s=max(self.recoveries),
            drained_s=drained,
            mib=(mib_first, mib_last),
            descriptors=(fds_first, fds_last),
        )

    def tell_why(self) -> None:
        """What helps to understand a run that failed."""
        missing = [frame.identity for frame in self.load.sent if frame.identity not in self._account]
        tell(sent=len(self.load.sent), missing=(len(missing), missing[:5]), status=self.installation.status())
        tell(log=self.bridge.log()[-3000:])

    def _assert_taken(self, sent: int) -> None:
        """Every frame was accepted, and no record was given up in any way."""
        counters = self.installation.counters()
        given_up = ("outbox_dropped_uplink", "outbox_parked", "radio_udp_inbox_dropped", "radio_udp_kernel_dropped")
        assert {name: counters[name] for name in given_up} == dict.fromkeys(given_up, 0)
        assert self.installation.status()["verdicts"]["accepted"] == sent

    def _begins(self) -> list[float]:
        """When each ClientHello of the bridge's came to the front, by its own record."""
        events = self.site.endpoint.standin.events
        strangers = {event.connection for event in events if event.detail.endswith(RIVAL)}
        hellos = [(event, event.hello.server_name) for event in events if event.hello is not None]
        mqtt = [event for event, name in hellos if name != CREDENTIALS.encode()]  # others ask for credentials
        return [hello.at for hello in mqtt if hello.connection not in strangers]


def assert_paced(begins: Sequence[float], what: str) -> None:
    """No more than one a second, over any stretch."""
    for first, at in enumerate(begins):
        for number, later in enumerate(begins[first + 1 :], 1):
            least = number * CONNECT_INTERVAL - JITTER
            assert later - at >= least, f"{number + 1} {what} within {later - at:.2f} s: {begins}"
            if number > _WINDOW:
                break


_WINDOW = 20


@contextmanager
def fault_run(
    site: Site,
    name: str,
    rounds: int,
    *,
    aws_iot: str = "",
    rate: float = RATE,
    command: Sequence[str] | None = None,
    state: Path | None = None,
    is_online: bool = True,
) -> Iterator[FaultRun]:
    """A run of the daemon behind a relay, with frames coming all the time; at the end all is accounted for."""
    with relaying(site.port) as relay:
        site.port = relay.port
        with installed(site, device_file(DEVICES), log='level = "info"', aws_iot=aws_iot, state=state) as installation:
            bridge = installation.start() if command is None else installation.start(command=command)
            run = FaultRun(site, installation, relay, bridge, rate)
            try:
                if is_online:
                    run.wait_flowing(anew=False)
                yield run
                row = run.finish(name, rounds)
            except AssertionError:
                run.tell_why()
                raise
            finally:
                run.watch.end()
                run.load.end()
    if REPORT:
        with Path(REPORT).open("ab") as report:
            report.write(msgspec.json.encode(row) + b"\n")
    tell(**msgspec.structs.asdict(row))
