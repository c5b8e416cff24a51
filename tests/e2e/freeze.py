"""Stopping single threads of a child process, as a disk that never answers stops them: inside a system call."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_DETACH = 0x4206, 0x4207, 17
_WALL = 0x4000_0000


def _ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")


@contextmanager
def all_but_the_main_thread(pid: int) -> Iterator[int]:
    """Hold every thread of a child but its first one; gives how many that are."""
    threads = sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid)
    held: list[int] = []
    try:
        for thread in threads:
            try:
                _ptrace(_PTRACE_SEIZE, thread)
            except PermissionError:
                pytest.skip("may not trace a child here (a sandbox without ptrace)")
            _ptrace(_PTRACE_INTERRUPT, thread)
            os.waitpid(thread, _WALL)
            held.append(thread)
        yield len(held)
    finally:
        for thread in held:
            _ptrace(_PTRACE_DETACH, thread)
