"""Datagram in, message out of the broker: the real bridge as a process, durability on, TLS on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.load import Load, Result, Subscriber
from tests.bench.report import Report, Row
from tests.bench.system import Process, Site
from tests.mosquitto import MOSQUITTO

DEVICES = 500
NAIVE = "naive bridge"
THIS_DISK = "this disk"
SLOW_DISK = "+8 ms a write-through"
TARGETS_MS = {(THIS_DISK, 100): 5.0, (SLOW_DISK, 200): 40.0}
FLAT_OUT_TARGET = 5000.0


class Duel:
    """The bridge and the naive one, both running; only one of them has work at a time."""

    def __init__(self, made: Site[Fleet], ours: Process, theirs: Process) -> None:
        self.site = made
        self.subscriber = Subscriber(made.broker.plain_port)
        self.processes = {"": ours, NAIVE: theirs}
        self.loads = {name: Load(made.fleet, process, self.subscriber) for name, process in self.processes.items()}
        for load in self.loads.values():
            load.offer(100, 0.5)

    def watch(self, subscriber: Subscriber) -> None:
        """Look at what comes out of the broker with another subscriber."""
        self.subscriber = subscriber
        for load in self.loads.values():
            load.subscriber = subscriber

    def close(self) -> None:
        """Let go of the sockets."""
        self.subscriber.close()
        for load in self.loads.values():
            load.close()


@contextmanager
def duel(made: Site[Fleet], slow_fsync: Path | None) -> Iterator[Duel]:
    """Both bridges on the same disk."""
    name = "slow" if slow_fsync else "plain"
    with ExitStack() as stack:
        ours = partial(system.start_bridge, made, f"bridge-{name}", made.broker.port, slow_fsync=slow_fsync)
        theirs = partial(system.start_naive_bridge, made, f"naive-{name}", slow_fsync=slow_fsync)
        both = Duel(made, *(stack.enter_context(system.running(start)) for start in (ours, theirs)))
        stack.callback(both.close)
        yield both


def measure(report: Report, *, quick: bool) -> None:
    """The rows of this section."""
    if MOSQUITTO is None:
        report.skip("end to end", "mosquitto is missing: apt-get install mosquitto")
        return
    with system.site(Fleet(DEVICES)) as made:
        slow = system.build_slow_fsync(made.folder)
        with duel(made, None) as both:
            _rates(report, both, THIS_DISK, quick=quick)
            direct = _flat_out(report, both, THIS_DISK, quick=quick)
            _drain(report, both, quick=quick)
            if not quick:
                _steady(report, both)
        if not quick:
            _through_stand_in(report, made, direct)
        if slow is None:
            report.skip(SLOW_DISK, "cc is missing: apt-get install gcc libc6-dev")
        else:
            with duel(made, slow) as both:
                _rates(report, both, SLOW_DISK, quick=quick)
                _flat_out(report, both, SLOW_DISK, quick=quick)


def _rates(report: Report, both: Duel, disk: str, *, quick: bool) -> None:
    """Latency at the rates that gateways see; an SX1302 cannot hear more than about 300 short frames a second."""
    naive_follows = True
    for rate in (100, 200) if quick else (10, 100, 200, 300):
        seconds = (1.5 if quick else 5.0) if rate > 10 else 10.0
        ours, note = _offer(both, "", rate, seconds)
        theirs = None
        if naive_follows:
            theirs, naive_note = _offer(both, NAIVE, rate, seconds)
            naive_follows = theirs.delivered == theirs.sent
            note += f"; {NAIVE}: {naive_note}"
        for label, part in (("p50", 0.50), ("p99", 0.99)):
            value = ours.ms(part)
            if value is None:
                report.skip(f"{rate} frames/s, {disk}, {label}", note)
                continue
            report.add(
                Row(
                    section="end to end",
                    name=f"{rate} frames/s, {disk}, {label}",
                    value=value,
                    unit="ms",
                    reference=NAIVE,
                    reference_value=None if theirs is None else theirs.ms(part),
                    target=TARGETS_MS.get((disk, rate)) if part == 0.99 else None,
                    note=note if part == 0.99 else "",
                )
            )
    if not naive_follows:
        both.loads[NAIVE].settle(quiet=1.0, most=30.0)


def _offer(both: Duel, name: str, rate: float, seconds: float) -> tuple[Result, str]:
    """What came of so many frames a second, and what it cost."""
    process = both.processes[name]
    cpu, begun = process.cpu_seconds(), time.perf_counter()
    result = both.loads[name].offer(rate, seconds)
    share = (process.cpu_seconds() - cpu) / (time.perf_counter() - begun)
    return result, f"{_delivery(result)}, {share:.0%} of a core, {process.resident_mib():.0f} MiB"


def _delivery(result: Result) -> str:
    return f"{result.delivered} of {result.sent} delivered" + (f", {result.twice} twice" if result.twice else "")


def _flat_out(report: Report, both: Duel, disk: str, *, quick: bool) -> Result:
    """As fast as frames are delivered, 2 000 on their way at any time."""
    results, notes = {}, {}
    for name, load in both.loads.items():
        process = both.processes[name]
        cpu = process.cpu_seconds()
        results[name] = load.flood(2.0 if quick else 8.0, outstanding=2000 if not name else 200)
        share = (process.cpu_seconds() - cpu) / results[name].seconds
        notes[name] = f"{_delivery(results[name])}; {share:.0%} of a core, {process.resident_mib():.0f} MiB"
    report.add(
        Row(
            section="end to end",
            name=f"flat out, {disk}",
            value=results[""].rate,
            unit="frames/s",
            reference=NAIVE,
            reference_value=results[NAIVE].rate,
            target=FLAT_OUT_TARGET if disk == THIS_DISK else None,
            note=f"{notes['']}; {NAIVE}: {notes[NAIVE]}",
        )
    )
    return results[""]


def _steady(report: Report, both: Duel) -> None:
    """Five thousand frames a second by the clock, whether or not anybody can follow."""
    ours = both.loads[""].offer(FLAT_OUT_TARGET, 6.0)
    theirs = both.loads[NAIVE].offer(FLAT_OUT_TARGET, 2.0, grace=2.0)
    value = ours.ms(0.99)
    if value is None:
        report.skip("5 000 frames/s by the clock", _delivery(ours))
        return
    report.add(
        Row(
            section="end to end",
            name=f"5 000 frames/s by the clock, {THIS_DISK}, p99",
            value=value,
            unit="ms",
            reference=NAIVE,
            reference_value=theirs.ms(0.99),
            note=f"{_delivery(ours)}, {ours.rate:,.0f}/s; {NAIVE}: {_delivery(theirs)} after 4 s",
        )
    )


def _through_stand_in(report: Report, made: Site[Fleet], direct: Result) -> None:
    """The same with the stand-in for the endpoint before the broker: what simulation and tests can carry."""
    with system.stand_in(made) as port, system.running(partial(system.start_bridge, made, "stand-in", port)) as bridge:
        subscriber = Subscriber(made.broker.plain_port)
        load = Load(made.fleet, bridge, subscriber)
        load.offer(100, 0.5)
        result = load.flood(5.0)
        load.close()
        subscriber.close()
    report.add(
        Row(
            section="end to end",
            name="flat out, through the stand-in",
            value=result.rate,
            unit="frames/s",
            reference="directly to the broker",
            reference_value=direct.rate,
            note=_delivery(result),
        )
    )


def _drain(report: Report, both: Duel, *, quick: bool) -> None:
    """The broker is gone, frames come in, the broker comes back."""
    rates, notes = {}, {}
    for name, load in both.loads.items():
        frames, datagrams = load.datagrams(3_000 if name or quick else 20_000)
        both.site.broker.kill()
        both.subscriber.close()
        load.send(datagrams, rate=500.0 if name else 2000.0)
        with both.processes[name].paused():  # the subscriber is there before the first message
            both.site.broker.start()
            both.watch(Subscriber(both.site.broker.plain_port))
        result = load.collect(frames, patience=5.0)
        rates[name] = result.rate
        notes[name] = _delivery(result)
    report.add(
        Row(
            section="end to end",
            name="outbox drained after an outage",
            value=rates[""],
            unit="records/s",
            reference=NAIVE,
            reference_value=rates[NAIVE],
            note=f"{notes['']}; {NAIVE}, from memory: {notes[NAIVE]}",
        )
    )
