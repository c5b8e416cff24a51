r"""The first format of recordings: one JSON object a line, one frame or status report each.

    {"received_at": 1795461757553446000, "gateway_eui": "aa555a0000000001", "rxpk": {…}}
    {"received_at": 1795461760000000000, "gateway_eui": "aa555a0000000001", "stat": {…}}

`received_at` is ns since the Unix epoch; `rxpk` and `stat` are in the words of the UDP protocol. Lines of other
people's recordings are read too: `ts` (seconds, as number or text) in place of `received_at`, either or the EUI
missing, other fields beside them.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from io import BufferedReader
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from lorabridge.lorawan.air import GatewayStatus, Reception
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.rxpk import Rxpk, Stat, build_rxpk, build_stat, parse_rxpk, parse_stat
from lorabridge.radio.wire_values import decode_json

MAX_LINE = 65_536
"""Bytes of one line, its end included."""
_END_OF_TIME = 2**63


class Passed(NamedTuple):
    """A piece of a recording that nothing was heard from."""

    where: str
    """`line 7` or `packet 7`."""
    reason: str
    damaged: bool
    """False for what is well but none of ours."""


Read = Reception | GatewayStatus | Passed


class _Line(msgspec.Struct, omit_defaults=True):
    received_at: int | None = None
    ts: Annotated[str, Meta(max_length=40)] | float | int | None = None
    gateway_eui: str | None = None
    rxpk: Rxpk | None = None
    stat: Stat | None = None


_LINE = msgspec.json.Decoder(_Line)


def read_lines(file: BufferedReader, *, source: str, gateway_eui: EUI64) -> Iterator[Read]:
    """All that a file of such lines tells, in order; `gateway_eui` is the gateway of lines that name none."""
    latest = 0
    for number, line in enumerate(_lines(file), 1):
        if line is None:
            yield Passed(f"line {number}", DatagramFault.TOO_LONG.value, damaged=True)
            continue
        try:
            heard = parse_line(line, source=source, gateway_eui=gateway_eui, default_time=latest)
        except MalformedDatagram as error:
            yield Passed(f"line {number}", error.fault.value, damaged=True)
            continue
        if heard is None:
            yield Passed(f"line {number}", "neither a frame nor a status report", damaged=False)
            continue
        latest = heard.received_at
        yield heard


def build_line(heard: Reception | GatewayStatus) -> bytes:
    """One line, its end included. Raises ValueError for a data rate that the protocol has no name for."""
    line = _Line(received_at=heard.received_at, gateway_eui=str(heard.gateway_eui))
    if isinstance(heard, Reception):
        line.rxpk = build_rxpk(heard)
    else:
        line.stat = build_stat(heard)
    return msgspec.json.encode(line) + b"\n"


def parse_line(line: bytes, *, source: str, gateway_eui: EUI64, default_time: int) -> Reception | GatewayStatus | None:
    """What one line tells; None when it is about neither a frame nor a status report (a recorded downlink, say).

    `gateway_eui` and `default_time` (ns) stand in for what the line does not say, after the gateway's own time.
    Raises MalformedDatagram.
    """
    said = decode_json(_LINE, line)
    received_at = _received_at(said)
    if said.gateway_eui is not None:
        try:
            gateway_eui = EUI64.parse(said.gateway_eui)
        except ValueError:
            raise MalformedDatagram(DatagramFault.BAD_VALUE) from None
    time = default_time if received_at is None else received_at
    if said.rxpk is not None:
        heard = parse_rxpk(said.rxpk, gateway_eui=gateway_eui, source=source, received_at=time)
        if received_at is None and heard.gateway_time_ns is not None:
            heard = msgspec.structs.replace(heard, received_at=heard.gateway_time_ns)
        return heard
    if said.stat is not None:
        return parse_stat(said.stat, gateway_eui=gateway_eui, source=source, received_at=time)
    return None


def _lines(file: BufferedReader) -> Iterator[bytes | None]:
    """Line by line; None for one that is too long, which is never held whole."""
    while line := file.readline(MAX_LINE):
        if len(line) < MAX_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)
        yield None


def _received_at(said: _Line) -> int | None:
    """Nanoseconds since the Unix epoch; None when the line does not say."""
    if said.received_at is not None:
        nanoseconds = said.received_at
    elif said.ts is not None:
        try:
            seconds = decimal.Decimal(str(said.ts))  # text has more digits than a float keeps
            nanoseconds = int(seconds * 10**9) if 0 <= seconds < _END_OF_TIME else -1
        except decimal.InvalidOperation:  # no number, or NaN
            raise MalformedDatagram(DatagramFault.BAD_VALUE) from None
    else:
        return None
    if not 0 <= nanoseconds < _END_OF_TIME:
        raise MalformedDatagram(DatagramFault.BAD_VALUE)
    return nanoseconds
