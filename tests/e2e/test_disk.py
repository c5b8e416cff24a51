"""The disk is full, or somebody holds the database: frames wait, none that was taken is lost, it goes on by itself."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import Bridge, Installation, Site, installed, wait_until
from tests.e2e.traffic import Account, Frame, device_file, frames

DEVICES = 4
LOG = 'level = "info"'
MIB = 1 << 20
STOP_LIMIT = 5.0
"""Seconds that systemd/lorabridge.service gives."""

Trouble = Callable[[Installation, Bridge], Callable[[], None]]
"""Makes commits impossible, at once or before long; gives what mends it."""


def offer_until_it_cannot(installation: Installation, forwarder: Forwarder, sent: list[Frame]) -> int:
    """Send frames until a commit fails, and some that wait behind it; how many were sent."""
    for number, frame in enumerate(sent):
        forwarder.push([frame.rxpk(number)])
        if number % 100 == 99:
            forwarder.settle()
            if installation.counters()["store_failures"]:
                return number + 1
    wait_until(lambda: installation.counters()["store_failures"] > 0, "a commit fails")
    return len(sent)


def assert_frames_wait_and_none_is_lost(site: Site, installation: Installation, trouble: Trouble) -> None:
    """The endpoint is away, so that the outbox grows; commits fail; they are mended, and all is delivered."""
    sent = list(frames(DEVICES, 6_000, seed=6))
    account = Account(site.published)
    bridge = installation.start()
    site.refuse(on=True)
    with Forwarder(installation.udp_port) as forwarder:
        for number, frame in enumerate(sent[:20]):
            forwarder.push([frame.rxpk(number)])
        installation.wait_judged(20)
        mend = trouble(installation, bridge)
        try:
            pushed = 20 + offer_until_it_cannot(installation, forwarder, sent[20:])
            wait_until(lambda: "the store cannot, trying again" in bridge.log(), "the log says so")
            status = installation.status()
            assert status["store"] in ("full", "unavailable")
            assert status["store_detail"]
            assert status["store_hint"].endswith("it goes on by itself")
            assert not status["healthy"]
            committed = installation.counters()["outbox_records_uplink"]
            failures = installation.counters()["store_failures"]
            wait_until(lambda: installation.counters()["store_failures"] > failures, "it tries again")
            assert 20 <= committed < pushed
            assert installation.counters()["outbox_records_uplink"] == committed, "judged is not taken"
            assert installation.status()["stuck"] == [], "nothing that a restart would mend"
        finally:
            mend()
        installation.wait_judged(pushed)
        assert installation.status()["store"] == "ok"
    site.refuse(on=False)
    installation.wait_drained()
    account.assert_complete(sent[:pushed])
    bridge.stop()
    assert installation.cli("store", "check", str(installation.database)).returncode == 0


def limit_files(_installation: Installation, bridge: Bridge) -> Callable[[], None]:
    """No file of the process may grow beyond a megabyte."""
    pid = bridge.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    limit(MIB)
    return lambda: limit(hard)


def fill_disk(installation: Installation, _bridge: Bridge) -> Callable[[], None]:
    """A file of somebody else takes nearly all the room that is left."""
    ballast = installation.state.parent / "ballast"
    ballast.write_bytes(b"b" * (5 * MIB))
    return ballast.unlink


def hold_database(installation: Installation, _bridge: Bridge) -> Callable[[], None]:
    """Somebody with a shell began a transaction and went for lunch."""
    connection = sqlite3.connect(installation.database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection.close


@pytest.mark.parametrize("trouble", [limit_files, hold_database], ids=["no room for files", "database held"])
def test_frames_wait_while_nothing_can_be_committed(site: Site, trouble: Trouble) -> None:
    with installed(site, device_file(DEVICES), log=LOG) as installation:
        assert_frames_wait_and_none_is_lost(site, installation, trouble)


def test_stop_is_quick_even_when_nothing_can_be_committed(site: Site) -> None:
    sent = list(frames(DEVICES, 40, seed=10))
    account = Account(site.published)
    with installed(site, device_file(DEVICES), log=LOG) as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            forwarder.push([frame.rxpk(0) for frame in sent[:20]])
            installation.wait_judged(20)
            release = hold_database(installation, bridge)
            forwarder.push([frame.rxpk(1) for frame in sent[20:]])
            wait_until(lambda: "the store cannot, trying again" in bridge.log(), "the log says so")
            assert bridge.stop() < STOP_LIMIT
            assert "could not be committed before the stop" in bridge.log()
            release()
            bridge = installation.start()
            forwarder.push([frame.rxpk(2) for frame in sent])
            installation.wait_judged(40)
        installation.wait_drained()
        account.assert_complete(sent)
        assert installation.status()["verdicts"]["accepted"] == 20, "not taken, so not used up"
        bridge.stop()


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """A file system of a few megabytes, where this test may make one."""
    with mounted(site, 6) as disk:
        yield disk


@contextmanager
def mounted(site: Site, n_mib: int) -> Iterator[Path]:
    """A file system of its own, unmounted afterwards; the test is skipped where it may not make one."""
    folder = site.folder / "disk"
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_mib}m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a file system; files that may not grow cover the same code")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def failing_disk(site: Site) -> Iterator[Path]:
    """An ext4 of its own, where this test may make one."""
    image, folder = site.folder / "image", site.folder / "card"
    folder.mkdir(mode=0o700)
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    for words in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        if shutil.which(words[0]) is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a file system with a journal of its own; tests/store cover the same errors")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_card_that_fails_is_told_and_after_its_repair_all_goes_on(site: Site, failing_disk: Path) -> None:
    """The kernel aborts the journal, as it does when a card gives errors, and takes no write any more."""
    sent = list(frames(DEVICES, 40, seed=11))
    account = Account(site.published)
    site.refuse(on=True)
    with installed(site, device_file(DEVICES), log=LOG, state=failing_disk / "state") as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            forwarder.push([frame.rxpk(0) for frame in sent[:20]])
            installation.wait_judged(20)
            subprocess.run(["mount", "-o", "remount,abort", str(failing_disk)], check=True)
            forwarder.push([frame.rxpk(1) for frame in sent[20:]])
            wait_until(lambda: installation.status()["store"] == "read_only", "the status says so")
            assert "the file system is read-only" in bridge.log()
            assert installation.status()["stuck"] == []
            assert bridge.stop() < STOP_LIMIT
            subprocess.run(["umount", str(failing_disk)], check=True)
            image = str(failing_disk.with_name("image"))
            subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
            subprocess.run(["mount", "-o", "loop", image, str(failing_disk)], check=True)
            bridge = installation.start()
            site.refuse(on=False)
            forwarder.push([frame.rxpk(2) for frame in sent])
            installation.wait_judged(40)
        installation.wait_drained()
        account.assert_complete(sent)
        assert installation.status()["verdicts"]["accepted"] == 20, "what was committed before is not taken again"
        bridge.stop()


def test_frames_wait_while_the_disk_is_full(site: Site, small_disk: Path) -> None:
    with installed(site, device_file(DEVICES), log=LOG, state=small_disk / "state") as installation:
        assert_frames_wait_and_none_is_lost(site, installation, fill_disk)
