"""Power, disks and processes fail: nothing acknowledged is lost, nothing is half there, nothing begins anew unasked.

`LORABRIDGE_KILLS=200 pytest tests/store/test_faults.py` kills more often.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabridge.errors import TransientError
from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.commands import QueuedCommand
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import FCnt32
from lorabridge.store.database import Batch, Store, StoredRecord, StoreFull
from lorabridge.store.values import StoreReadOnly
from tests.store.join_help import DEV_EUI, JOIN_ID, joined_session
from tests.store.store_help import advance, new_session, records, settings, with_store
from tests.store.writer_process import JOINED, command

KILLS = int(os.environ.get("LORABRIDGE_KILLS", "20"))
ROOT = Path(__file__).parents[2]


def program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(Path(__file__).parent / name), *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_and_kill(folder: Path, after_s: float) -> int:
    """Let the writer commit for a while, kill it without notice, and return the last batch it had acknowledged."""
    command = program("writer_process.py", str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, env=environment(), cwd=ROOT) as writer:
        assert writer.stdout is not None
        select.select([writer.stdout], [], [], 30)
        time.sleep(after_s)  # the random moment itself, not synchronisation
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().split(b"\n")
    assert len(lines) > 1, "the writer never committed"
    return int(lines[-2])


async def look(store: Store) -> tuple[Session, list[StoredRecord], bool, bool]:
    session = store.sessions()[new_session(1).session_id]
    last = session.fcnt_up or FCnt32(0)
    heard = store.heard(session.session_id, last, b"mic.")
    too_far = store.heard(session.session_id, FCnt32(last + 1), b"mic.")
    return session, await store.pending(0, 10**9), heard, too_far


async def look_at_joins(
    store: Store,
) -> tuple[list[JoinedSession], list[QueuedCommand], JoinHistory | None, list[bool]]:
    last = store.sessions()[new_session(1).session_id].fcnt_up or 0
    used = [store.nonce_used(JOIN_ID, nonce) for nonce in (last, last + 1)]
    assert len(store.sessions()) == 2
    return list(store.joined().values()), store.queue(), store.join_history(JOIN_ID), used


def test_a_process_killed_at_any_moment_loses_nothing_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    seed = int(os.environ.get("LORABRIDGE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(KILLS):
        acknowledged = run_and_kill(tmp_path, chance.uniform(0, 0.15))
        session, pending, heard, too_far = with_store(settings(tmp_path), look)
        assert session.fcnt_up is not None
        assert acknowledged <= session.fcnt_up <= acknowledged + 1, f"seed {seed}"
        assert session.generation == session.fcnt_up
        assert heard
        assert not too_far
        assert with_store(settings(tmp_path), look_at_joins) == (
            [joined_session(JOINED + session.fcnt_up)],
            [command(session.fcnt_up)],
            JoinHistory(join_id=JOIN_ID, dev_eui=DEV_EUI, join_nonce=session.fcnt_up),
            [True, False],
        ), f"seed {seed}"
        found = Counter(int(record.payload.split(b":")[0]) for record in pending)
        for number in range(session.fcnt_up + 1):
            whole = number % 7 + 1
            allowed = {0, whole} if number % 3 == 0 else {whole}  # every third one was acknowledged
            assert found.pop(number, 0) in allowed, f"batch {number} is half there, seed {seed}"
        assert not found


def test_a_first_start_killed_at_any_moment_is_begun_again(tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(max(KILLS // 4, 1)):
        folder = tmp_path / str(number)
        command = program("writer_process.py", str(folder))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment(), cwd=ROOT) as writer:
            deadline = time.monotonic() + 30
            while not folder.exists() and time.monotonic() < deadline:
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.02))  # the random moment itself
            writer.send_signal(signal.SIGKILL)
        with_store(settings(folder), lambda _: asyncio.sleep(0))


def test_a_disk_that_refuses_to_grow_costs_a_retry_and_nothing_else(tmp_path: Path) -> None:
    command = program("full_disk_process.py", str(tmp_path), str(1 << 20))
    done = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout)
    assert report["error"] in ("StoreUnavailable", "StoreFull")
    assert report["unmoved"]
    assert report["committed"] > 10
    assert report["pending"] == list(range(report["committed"] + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of one megabyte, where this test may make one."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a file system; the refused growth above covers the same code")
    return folder


def test_a_full_disk_is_told_apart_and_drains_again(small_disk: Path) -> None:
    async def use(store: Store) -> None:
        session, committed = new_session(1), 0
        with contextlib.suppress(StoreFull):
            while committed < 1000:
                change = advance(session, committed)
                await store.commit(Batch(changes=(change,), records=records(b"%d" % committed + b"x" * 9000)))
                session, committed = change.session, committed + 1
        pending = await store.pending(0, 10**6)
        assert 5 < len(pending) == committed < 1000
        assert store.sessions()[session.session_id] == session
        store.done(record.id for record in pending)
        assert await store.pending(0, 10**6) == [], "the link drains the outbox even while the disk is full"
        (small_disk / "ballast").unlink()
        await store.commit(Batch(changes=(advance(session, committed),)))
        assert store.counters["outbox_records"] == 0

    try:
        (small_disk / "ballast").write_bytes(b"b" * 300_000)
        with_store(settings(small_disk), use)
    finally:
        subprocess.run(["umount", str(small_disk)], check=True)


def test_a_store_opened_on_a_full_disk_says_so_however_little_room_is_left(small_disk: Path) -> None:
    folder = small_disk / "store"
    try:
        for pages in range(14):
            folder.mkdir(mode=0o700)
            (small_disk / "ballast").write_bytes(b"b" * ((1 << 20) - 4096 * pages))
            with pytest.raises(TransientError):
                with_store(settings(folder), lambda _: asyncio.sleep(0))
            (small_disk / "ballast").unlink()
            with_store(settings(folder), lambda _: asyncio.sleep(0))
            shutil.rmtree(folder)
    finally:
        subprocess.run(["umount", str(small_disk)], check=True)


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of its own, where this test may make one: the kernel can be told to treat it as a disk that failed."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir(mode=0o700)
    with image.open("wb") as file:
        file.truncate(16 << 20)
    for words in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        if shutil.which(words[0]) is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a file system with a journal of its own")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount_again(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True, capture_output=True)


def test_a_disk_that_the_kernel_made_read_only_is_told_and_loses_nothing(failing_disk: Path) -> None:
    async def use(store: Store) -> None:
        change = advance(new_session(1), 0)
        await store.commit(Batch(changes=(change,), records=records(b"before")))
        mount_again(failing_disk, "abort")  # what the kernel does after an error in the journal
        for _ in range(2):
            with pytest.raises(StoreReadOnly, match="read-only"):
                await store.commit(Batch(changes=(advance(change.session, 1),), records=records(b"x" * 100_000)))
        assert store.sessions()[change.session.session_id] == change.session
        assert [record.payload for record in await store.pending(0, 9)] == [b"before"]

    folder = failing_disk / "store"
    folder.mkdir(mode=0o700)
    with_store(settings(folder), use)
    image = failing_disk.parent / "image"
    subprocess.run(["umount", str(failing_disk)], check=True)
    subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
    subprocess.run(["mount", "-o", "loop", str(image), str(failing_disk)], check=True)

    async def look(store: Store) -> list[bytes]:
        await store.commit(Batch(records=records(b"after")))
        return [record.payload for record in await store.pending(0, 9)]

    assert with_store(settings(folder), look) == [b"before", b"after"]


def test_a_start_on_a_read_only_disk_is_tried_again_by_the_service_manager(failing_disk: Path) -> None:
    folder = failing_disk / "store"
    folder.mkdir(mode=0o700)
    with_store(settings(folder), lambda _: asyncio.sleep(0))
    mount_again(failing_disk, "ro")
    try:
        with pytest.raises(StoreReadOnly):
            with_store(settings(folder), lambda _: asyncio.sleep(0))
    finally:
        mount_again(failing_disk, "rw")
    with_store(settings(folder), lambda _: asyncio.sleep(0))


def test_files_that_may_not_be_written_for_a_while_cost_retries_and_nothing_else(failing_disk: Path) -> None:
    folder = failing_disk / "store"
    folder.mkdir(mode=0o700)

    def forbid(how: str) -> None:
        subprocess.run(["chattr", how, *map(str, folder.glob("lorabridge.db*"))], check=True)

    async def use(store: Store) -> None:
        await store.commit(Batch(records=records(b"before")))
        forbid("+i")
        try:
            with pytest.raises(TransientError):
                await store.commit(Batch(records=records(b"never" * 20_000)))
        finally:
            forbid("-i")
        await store.commit(Batch(records=records(b"after")))
        assert [record.payload for record in await store.pending(0, 9)] == [b"before", b"after"]

    with_store(settings(folder), use)


def test_a_disk_that_is_nearly_full_takes_no_new_record_and_still_lets_go_of_delivered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(store: Store) -> None:
        stored = await store.commit(Batch(records=records(b"first", b"second")))
        with monkeypatch.context() as nearly_full:
            nearly_full.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 10_000, 9, 9, 9, 9, 9, 0, 255)))
            with pytest.raises(StoreFull, match="needed to delete"):
                await store.commit(Batch(records=records(b"third")))
            store.done(record.id for record in stored)
            assert await store.pending(0, 10) == []
            assert store.counters["outbox_records"] == 0
            assert store.counters["store_failures"] == 1
        await store.commit(Batch(records=records(b"third")))

    with_store(settings(tmp_path), use)


def test_a_disk_that_the_outbox_has_filled_is_emptied_by_delivering(tmp_path: Path) -> None:
    async def fill_and_empty(store: Store) -> None:
        waiting: list[int] = []
        with contextlib.suppress(StoreFull):
            while len(waiting) < 2000:
                waiting += [record.id for record in await store.commit(Batch(records=records(b"x" * 20_000)))]
        assert 100 < len(waiting) < 2000
        while waiting:
            delivered, waiting = waiting[:50], waiting[50:]
            store.done(delivered)
            await store.pending(0, 1)
        assert store.counters["outbox_records"] == 0
        await store.commit(Batch(records=records(b"again")))

    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a file system")
    try:
        with_store(settings(tmp_path / "state"), fill_and_empty)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
