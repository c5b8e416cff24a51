"""Any bytes at all on a topic of commands are a command or a BadCommand. `make fuzz` runs this for longer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.commands import BadCommand, command_schema, parse_command

VALIDATOR = Draft202012Validator(msgspec.json.decode(command_schema()))
SECRET = "c2VjcmV0IHNlY3JldCE="  # base64 of what nobody may repeat
NOW = 1_700_000_000_000_000_000

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
right: dict[str, st.SearchStrategy[Any]] = {
    "schema": st.just("lorabridge/command/1"),
    "id": st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
    "f_port": st.integers(1, 223),
    "payload": st.just(SECRET),
    "sealed_payload": st.just(SECRET),
    "fcnt_down": st.integers(0, 0xFFFF_FFFF),
    "confirmed": st.booleans(),
    "priority": st.sampled_from(["low", "normal", "high"]),
    "expires_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
    "expires_in_s": st.integers(1, 31_622_400),
    "correlation_id": st.text(max_size=128),
}
commands = st.fixed_dictionaries(
    {"id": right["id"], "f_port": right["f_port"]},
    optional={name: values for name, values in right.items() if name not in {"id", "f_port"}},
)
mixed = st.fixed_dictionaries({}, optional={name: values | anything for name, values in right.items()})
payloads = (
    commands.map(lambda command: json.dumps(command).encode())
    | mixed.map(lambda command: json.dumps(command).encode())
    | anything.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=200)
    | st.text(alphabet='{}[]":,0123456789eE+-.\\untruefalsid _port', max_size=120).map(str.encode)
)
targets = st.just("70b3d57ed0000001") | st.text(st.characters(exclude_categories=()), max_size=80)


def check_refusal(bad: BadCommand) -> None:
    """What every refusal promises."""
    assert bad.message.isprintable()
    assert 0 < len(bad.message) <= 160
    assert SECRET not in bad.message
    assert bad.command_id is None or (0 < len(bad.command_id) <= 64 and bad.command_id.isprintable())
    assert bad.correlation_id is None or (len(bad.correlation_id) <= 128 and bad.correlation_id.isprintable())


@given(target=targets, payload=payloads)
def test_every_message_is_a_command_or_a_bad_one(target: str, payload: bytes) -> None:
    try:
        command = parse_command(target, payload, NOW)
    except BadCommand as bad:
        check_refusal(bad)
        return
    VALIDATOR.validate(json.loads(payload))
    assert 0 < len(command.id) <= 64
    assert 1 <= command.f_port <= 223
    assert len(command.payload) <= 242
    assert command.expires_at is None or 0 <= command.expires_at < 2**63
    assert isinstance(command.target, EUI64) or 0 < len(command.target) <= 64


@given(command=commands, extra=st.sampled_from(sorted(right)))
def test_a_field_that_comes_twice_is_never_taken(command: dict[str, Any], extra: str) -> None:
    if extra not in command:
        return
    again = json.dumps({extra: command[extra]})
    with pytest.raises(BadCommand):
        parse_command("a", (json.dumps(command)[:-1] + "," + again[1:]).encode(), NOW)
