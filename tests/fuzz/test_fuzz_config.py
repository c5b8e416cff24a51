"""Any bytes and any table are a configuration or a list of problems. `make fuzz` runs this for longer."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.daemon.config import RADIO_TYPES, Config, parse
from lorabridge.errors import ConfigError
from lorabridge.settings import Duration
from tests.daemon.config_help import SMALLEST

KEYS = [
    *("gateway", "id", "devices", "network", "region", "net_ids", "dev_addr_ranges", "duplicate_window"),
    *("store", "path", "durability", "outbox_max_bytes", "outbox_max_records"),
    *("aws_iot", "endpoint", "thing_name", "port", "connect_address", "keep_alive", "in_flight", "topics", "uplink"),
    *("report", "stats_interval", "log", "level", "burst"),
    *("radio", "type", "name", "bind", "networks", "gateways", "inbox", "pace", "gateway_eui"),
]
words = st.sampled_from(
    [
        *RADIO_TYPES,
        *("EU868", "26011000/20", "000013", "10min", "4MiB", "127.0.0.1:8883", "a.b-ats.iot.c", "::1", "10x", "/x"),
        *("{gateway_id}/{dev_eui}", "{gateway_id!r}", "{0.a[b]}", "{", "a/" * 9, "power-loss", "0016c001f153a14c"),
    ]
)
scalars = (
    st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 443, 8883, 1 << 63, 1 << 64, 10**400, -(10**400)])
    | st.floats()
    | words
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.datetimes()
    | st.datetimes(timezones=st.just(dt.timezone(dt.timedelta(hours=-7))))
    | st.dates()
    | st.times()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=6)
    ),
    max_leaves=20,
)
tables = st.dictionaries(st.sampled_from(KEYS), values, max_size=8)


def _toml(value: Any) -> str:
    """A value as TOML writes it, inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_quoted(key)} = {_toml(item)}' for key, item in value.items())}}}"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _takes_or_says_why(text: bytes) -> Config | list[str]:
    try:
        return parse(text, "file")
    except ConfigError as error:
        problems = error.problems
    assert any(not problem.warning for problem in problems)
    assert all(problem.where.startswith("file") and problem.what for problem in problems)
    return [problem.what for problem in problems]


@given(st.binary(max_size=400) | st.binary(max_size=40).map(lambda tail: SMALLEST.encode() + tail))
def test_any_bytes_are_a_configuration_or_problems(text: bytes) -> None:
    _takes_or_says_why(text)


@given(tables)
def test_any_table_is_a_configuration_or_problems(table: dict[str, Any]) -> None:
    found = _takes_or_says_why("\n".join(f"{key} = {_toml(value)}" for key, value in table.items()).encode())
    assert isinstance(found, Config) or not any("is no TOML" in what for what in found), "the writer above is right"


@given(st.sampled_from(["network", "store", "report", "log", "aws_iot.topics"]), st.sampled_from(KEYS), values)
def test_a_configuration_in_order_with_one_strange_value_is_taken_or_refused(table: str, key: str, value: Any) -> None:
    found = _takes_or_says_why(f"{SMALLEST}[{table}]\n{key} = {_toml(value)}\n".encode())
    assert isinstance(found, list) or isinstance(found.network.duplicate_window, Duration)


@given(st.sampled_from(sorted(RADIO_TYPES)), st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_a_radio_with_strange_values_is_taken_or_refused(kind: str, table: dict[str, Any]) -> None:
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if key != "type"]
    found = _takes_or_says_why((f'{SMALLEST}[[radio]]\ntype = "{kind}"\n' + "\n".join(lines)).encode())
    assert isinstance(found, list) or len(found.radios) == 2
