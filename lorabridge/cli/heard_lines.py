"""A frame that was heard, as a line: a row of a table for people, an object for machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from lorabridge.lorawan.air import Antenna, CrcStatus, DataRate, FskDataRate, Reception
from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.grammar import MalformedFrame
from lorabridge.lorawan.inspection import Known, inspect

_TOLD: Final = (
    *("m_type", "dev_addr", "fcnt16", "f_port", "join_eui", "dev_eui", "dev_nonce"),
    *("rejoin_type", "net_id", "rj_count"),
)
"""What `inspect` says of a frame and a line repeats; payloads and MICs are for `lorabridge decode`."""
_SHORT: Final = MappingProxyType(
    {
        "unconfirmed_data_up": "up",
        "confirmed_data_up": "up conf",
        "unconfirmed_data_down": "down",
        "confirmed_data_down": "down conf",
        "join_request": "join",
        "join_accept": "join-acc",
        "rejoin_request": "rejoin",
        "proprietary": "propriet",
    }
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VERDICT_ROOM: Final = 36
"""Characters for a verdict and a device's name behind the columns."""
_NONE: Final = "-"


def facts(heard: Reception, decision: Decision | None = None) -> dict[str, Any]:
    """Everything a line says of a frame, as plain JSON values; the names are a contract: docs/radio-listen.md."""
    antenna = _best(heard.antennas)
    told: dict[str, Any] = {
        "time": _utc(heard.received_at),
        "received_at": heard.received_at,
        "source": heard.source,
        "gateway_eui": str(heard.gateway_eui),
        "frequency": heard.frequency_hz,
        "data_rate": _data_rate(heard.data_rate),
        "code_rate": heard.code_rate,
        "rssi_dbm": antenna.signal_rssi_dbm if antenna.rssi_dbm is None else antenna.rssi_dbm,
        "snr_db": antenna.snr_db,
        "crc": heard.crc.name.lower(),
        "size": len(heard.phy_payload),
        "phy_payload": heard.phy_payload.hex(),
    }
    try:
        seen = inspect(heard.phy_payload, Known())
        told |= {name: seen[name] for name in _TOLD if name in seen}
    except MalformedFrame as error:
        told |= {"m_type": None, "malformed": error.reason.value}
    if decision is not None:
        device = None if decision.device is None else decision.device.name
        told |= {"verdict": decision.verdict.value, "verdict_detail": decision.detail, "device": device}
        told |= {} if decision.fcnt32 is None else {"fcnt32": int(decision.fcnt32)}
    return told


class _Column(NamedTuple):
    title: str
    width: int
    """At least; to the right when negative."""
    cell: Callable[[Mapping[str, Any]], str]

    def of(self, text: str) -> str:
        return f"{text:<{self.width}}" if self.width > 0 else f"{text:>{-self.width}}"


def _or_dash(name: str, form: str = "") -> Callable[[Mapping[str, Any]], str]:
    return lambda told: _NONE if told.get(name) is None else format(told[name], form)


def _type_and_device(told: Mapping[str, Any]) -> str:
    """Address, counter and port of a data frame; the DevEUI of a join."""
    device = told.get("dev_eui") or _NONE
    if "fcnt16" in told:
        device = f"{told['dev_addr']} {told['fcnt16']:>5} {_or_dash('f_port')(told):>3}"
    return f"{_SHORT[told['m_type']]:<9} {device}"


_LONG_TIME = _Column("UTC", 12, lambda told: told["time"][11:23])
_SHORT_TIME = _Column("UTC", 8, lambda told: told["time"][11:19])
_LONG_GATEWAY = _Column("gateway", 16, lambda told: told["gateway_eui"])
_SHORT_GATEWAY = _Column("gw", 5, lambda told: told["gateway_eui"][-5:])
_COLUMNS = (
    _Column("MHz", -8, lambda told: f"{told['frequency'] / 1e6:.4f}"),
    _Column("rate", 8, lambda told: _short_rate(told["data_rate"])),
    _Column("RSSI", -4, _or_dash("rssi_dbm", ".0f")),
    _Column("SNR", -5, _or_dash("snr_db", ".1f")),
    _Column("CRC", 3, lambda told: _NONE if told["crc"] == CrcStatus.NONE.name.lower() else told["crc"]),
    _Column("len", -3, _or_dash("size")),
    _Column("type      DevAddr  FCnt Port", 28, lambda told: told.get("malformed") or _type_and_device(told)),
)
_LAYOUTS = (
    (_LONG_TIME, _LONG_GATEWAY, *_COLUMNS),
    (_LONG_TIME, _SHORT_GATEWAY, *_COLUMNS),
    (_SHORT_TIME, _SHORT_GATEWAY, *_COLUMNS),
)
"""The widest first."""


class Table:
    """Rows that fit into a terminal of so many columns; `judged`: a verdict stands behind each, or below it."""

    def __init__(self, columns: int, *, judged: bool) -> None:
        room = columns - (_VERDICT_ROOM if judged else 0)
        self._layout = next((layout for layout in _LAYOUTS if _width(layout) <= room), _LAYOUTS[-1])
        self._below = judged and _width(self._layout) > room
        self._judged = judged

    @property
    def head(self) -> str:
        """The titles."""
        titles = " ".join(column.of(column.title) for column in self._layout)
        return f"{titles} verdict" if self._judged and not self._below else titles.rstrip()

    def row(self, told: Mapping[str, Any]) -> str:
        """One frame, by what `facts` says of it; two lines where the verdict does not fit behind."""
        cells = " ".join(column.of(column.cell(told)) for column in self._layout)
        if not self._judged:
            return cells.rstrip()
        said = f"{told['verdict']} {told['device'] or ''}".rstrip()
        return f"{cells.rstrip()}\n         {said}" if self._below else f"{cells} {said}"


def _width(layout: tuple[_Column, ...]) -> int:
    return sum(abs(column.width) + 1 for column in layout) - 1


def _best(antennas: tuple[Antenna, ...]) -> Antenna:
    """The antenna that heard it best; one that says nothing when there is none."""
    return max(antennas, key=lambda one: -1e9 if one.rssi_dbm is None else one.rssi_dbm, default=Antenna())


def _data_rate(rate: DataRate) -> str | int:
    """`SF7BW125`, or bit/s of FSK, as `lorabridge decode` takes it."""
    if isinstance(rate, FskDataRate):
        return rate.bit_rate
    return f"SF{rate.spreading_factor}BW{rate.bandwidth_hz / 1000:g}"


def _short_rate(rate: str | int) -> str:
    """`SF12/125` or `FSK/50k`."""
    return rate.replace("BW", "/") if isinstance(rate, str) else f"FSK/{rate / 1000:g}k"


def _utc(ns: int) -> str:
    """RFC 3339 with milliseconds."""
    return (_EPOCH + timedelta(microseconds=ns // 1000)).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
