"""A packet forwarder's end of a socket, for commands that listen."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lorabridge.radio.gwmp import build_push_ack

PATIENCE = 20.0
GATEWAY = "aa555a0000000001"


def free_port() -> int:
    """A UDP port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def forwarder(port: int) -> Iterator[socket.socket]:
    """A socket that sends to this port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.connect(("127.0.0.1", port))
        end.settimeout(0.1)
        yield end


def push_data(payload: dict[str, Any]) -> bytes:
    """A PUSH_DATA of GATEWAY."""
    return bytes.fromhex(f"02616200{GATEWAY}") + json.dumps(payload).encode()


def rxpk(phy_payload: bytes, **fields: Any) -> bytes:
    """A PUSH_DATA with one frame in it; `fields` say what is different."""
    heard = {"freq": 868.1, "stat": 1, "modu": "LORA", "datr": "SF7BW125", "codr": "4/5", "rssi": -60, "lsnr": 7.5}
    return push_data({"rxpk": [heard | {"data": base64.b64encode(phy_payload).decode()} | fields]})


def push(end: socket.socket, datagram: bytes, answer: bytes = build_push_ack(b"ab")) -> None:
    """Until it is answered: the process needs a moment to listen."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            end.send(datagram)
            assert end.recv(100) == answer
            return
    pytest.fail("nobody listens")
