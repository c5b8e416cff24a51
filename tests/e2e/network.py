"""A network of a test's own: loopback only, where the kernel loses packets."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.components import component

_CLONE_NEWNET = 0x4000_0000
_MTU = 1500
"""Of a network with more to lose than one packet in 64 KiB."""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def own_network() -> Iterator[None]:
    """Every socket, thread and process made inside lives in a network namespace that has nothing but loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"may not make a network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            _run(component("ip", hint="apt-get install iproute2"), "link", "set", "lo", "up", "mtu", str(_MTU))
            try:
                lose(1, 0.5)
                lose_nothing()
            except subprocess.CalledProcessError as error:
                pytest.skip(f"the kernel loses no packets on command here: {error.stderr}")
            yield
        finally:
            if libc.setns(before, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot go back to the network of the machine")
    finally:
        os.close(before)


def lose(port: int, share: float) -> None:
    """From now on the kernel throws away this share of the packets to and from a TCP port, each by chance."""
    iptables = component("iptables", hint="apt-get install iptables")
    for side in ("--dport", "--sport"):
        by_chance = ("-m", "statistic", "--mode", "random", "--probability", str(share))
        _run(iptables, "-A", "INPUT", "-p", "tcp", side, str(port), *by_chance, "-j", "DROP")


def lose_nothing() -> None:
    """No packet is thrown away any more."""
    _run(component("iptables", hint="apt-get install iptables"), "-F", "INPUT")
