"""The files of the database: who holds them, whether they are all there, and how a damaged one is set aside.

Beside `lorabridge.db` lie `.lock` (held while a process has the store open), `.created` (a database was
made here: if it is gone, that is a loss and no first start) and SQLite's own `-wal` and `-shm`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Self

from lorabridge.errors import ConfigError, Problem
from lorabridge.store.values import StoreDamaged, StoreFull, StoreReadOnly

_PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700
_NOTE = (
    "A lorabridge database was made beside this file. It holds the frame counters: if it is missing,\n"
    "lorabridge does not begin with an empty one by itself, because old frames could then be played back.\n"
)


def damaged(path: Path, what: str) -> StoreDamaged:
    """The error for a database that does not hold together or is gone, with what an operator can do."""
    hint = (
        f"restore it from a backup, or run `lorabridge store set-aside {path}` to begin with an empty one: every frame "
        "counter then restarts from the first frame heard, so frames recorded earlier could be played back once, and "
        "records that were not sent yet stay in the file set aside"
    )
    return StoreDamaged([Problem(where=str(path), what=what, hint=hint)])


class Lock:
    """The right to open the database: one process at a time. The kernel lets go of it when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self:
        """Lock the database at `path`. Raises ConfigError that names the holder; StoreFull."""
        lock_path = _beside(path, ".lock")
        try:
            descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
        except OSError as error:
            raise refused(lock_path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            problem = Problem(
                where=str(path),
                what=f"another process has this database open (process {holder})",
                hint=f"stop it first, or give each its own store.path; `ps -p {holder}` tells what it is",
            )
            raise ConfigError([problem]) from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise refused(lock_path, error) from None
        return cls(descriptor)

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(path: Path) -> int | None:
    """The process that has the database at `path` open, by what its lock file says and /proc knows; None for none.

    The lock itself is not tried: for a moment that would keep out a bridge that is just starting.
    """
    try:
        process = int(_beside(path, ".lock").read_text(encoding="ascii"))
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except (OSError, ValueError):  # never opened, not ours to read, or the process is gone
        return None
    return process if b"lorabridge" in command else None


def prepare_folder(path: Path) -> None:
    """Make the folder of `path` when it is missing; refuse one that others can write to. Raises ConfigError."""
    folder = path.parent
    try:
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise refused(folder, error) from None
    if mode & 0o022:
        what = f"others can replace files in this folder (mode {stat.S_IMODE(mode):o})"
        raise ConfigError([Problem(where=str(folder), what=what, hint=f"chmod go-w {folder}")])


def prepare_file(path: Path) -> bool:
    """Make an empty private file for a first start, or look at the one that is there. True: it is to be filled.

    Raises StoreDamaged when a database was here and is gone, ConfigError when it cannot be used.
    """
    marker, wal = _beside(path, ".created"), _beside(path, "-wal")
    if path.exists():
        _check_file(path)
        empty = path.stat().st_size == 0
        if not (empty and (marker.exists() or wal.exists())):
            return empty
        raise damaged(path, "the database is empty")
    if marker.exists() or wal.exists():
        raise damaged(path, "the database is missing, although one was made here")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE))
        sync_folder(path.parent)
    except OSError as error:
        raise refused(path, error) from None
    return True


def was_created(path: Path) -> bool:
    """Whether a database was made at `path` before."""
    return _beside(path, ".created").exists()


def mark_created(path: Path) -> None:
    """Remember, through power cuts, that a database was made at `path`. Raises ConfigError, StoreFull."""
    marker = _beside(path, ".created")
    if marker.exists():
        return
    try:
        descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            os.write(descriptor, _NOTE.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise refused(marker, error) from None


def set_aside(path: Path, now: float | None = None) -> list[Path]:
    """Rename the database with its log, so that the next start begins with an empty one. Returns the new names.

    Raises ConfigError while a process has it open, and when there is nothing to set aside.
    """
    marker = _beside(path, ".created")
    lock = Lock.take(path)
    try:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        aside = _free_name(path, f".set-aside-{stamp}")
        renamed = []
        for suffix in ("-wal", "-shm", ""):
            old = _beside(path, suffix)
            if old.exists():
                renamed.append(old.rename(_beside(aside, suffix)))
        if not renamed and not marker.exists():
            raise ConfigError([Problem(where=str(path), what="there is no database here", hint="look at store.path")])
        marker.unlink(missing_ok=True)
        sync_folder(path.parent)
        return renamed
    finally:
        lock.release()


def _free_name(path: Path, suffix: str) -> Path:
    """A name that no file has."""
    name, number = _beside(path, suffix), 1
    while name.exists() or _beside(name, "-wal").exists():
        number += 1
        name = _beside(path, f"{suffix}-{number}")
    return name


def _check_file(path: Path) -> None:
    """A regular file that we can write and nobody else can read. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(descriptor)
        os.close(descriptor)
    except OSError as error:
        raise refused(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError([Problem(where=str(path), what="is no ordinary file", hint="look at store.path")])
    if found.st_mode & 0o077:
        what = f"others can read or write the database (mode {stat.S_IMODE(found.st_mode):o})"
        raise ConfigError([Problem(where=str(path), what=what, hint=f"chmod 600 {path}")])


def refused(path: Path, error: OSError) -> Exception:
    """An operating system error: a disk that is full or read-only may pass, the rest is the operator's."""
    said = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: {said}")
    if error.errno == errno.EROFS:
        return StoreReadOnly(f"{path}: {said}")
    hint = "look at the owner and mode of the file and its folders, and at store.path"
    return ConfigError([Problem(where=str(path), what=said, hint=hint)])


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
