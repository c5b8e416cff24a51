from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from lorabridge.lorawan.commands import CommandReason, CommandState, DownlinkCommand, Priority
from lorabridge.lorawan.types import EUI64, DeviceClass
from lorabridge.upstream.commands import MAX_COMMAND, BadCommand, command_schema, parse_command
from lorabridge.upstream.topics import MAX_TARGET

TARGET = "70b3d57ed0000001"
NOW = 1_700_000_000_000_000_000
SMALLEST = {"id": "c-1", "f_port": 10, "payload": "AQID"}
VALIDATOR = Draft202012Validator(msgspec.json.decode(command_schema()))


def parsed(command: dict[str, Any], target: str = TARGET) -> DownlinkCommand:
    return parse_command(target, json.dumps(command).encode(), NOW)


def refused(payload: bytes | dict[str, Any], target: str = TARGET) -> BadCommand:
    with pytest.raises(BadCommand) as caught:
        parse_command(target, payload if isinstance(payload, bytes) else json.dumps(payload).encode(), NOW)
    assert caught.value.message == str(caught.value)
    assert caught.value.message.isprintable()
    assert caught.value.__cause__ is None
    return caught.value


def test_the_published_schema_is_the_one_the_code_makes() -> None:
    on_disk = Path(__file__).parents[2] / "docs" / "schema" / "command.json"
    assert on_disk.read_bytes() == command_schema(), "run: make docs"
    Draft202012Validator.check_schema(msgspec.json.decode(command_schema()))


def test_the_smallest_command_is_unconfirmed_of_normal_priority_and_waits_for_ever() -> None:
    assert parsed(SMALLEST) == DownlinkCommand(
        id="c-1", target=EUI64(0x70B3D57ED0000001), f_port=10, payload=b"\1\2\3", received_at=NOW
    )


def test_every_field_arrives() -> None:
    command = parsed(
        {
            "schema": "lorabridge/command/1",
            "id": "open valve #7",
            "f_port": 223,
            "sealed_payload": base64.b64encode(bytes(242)).decode(),
            "fcnt_down": 0xFFFF_FFFF,
            "confirmed": True,
            "class": "C",
            "priority": "high",
            "expires_at": "2026-01-02T03:04:05.678901+01:00",
            "correlation_id": "räume/1",
        },
        "street lamps",
    )
    expires_at = int(datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC).timestamp()) * 1_000_000_000 + 678_901_000
    assert command == DownlinkCommand(
        id="open valve #7",
        target="street lamps",
        f_port=223,
        payload=bytes(242),
        fcnt_down=command.fcnt_down,
        confirmed=True,
        device_class=DeviceClass.C,
        priority=Priority.HIGH,
        expires_at=expires_at,
        correlation_id="räume/1",
        received_at=NOW,
    )
    assert command.fcnt_down == 0xFFFF_FFFF
    assert command.is_sealed


def test_seconds_count_from_the_arrival() -> None:
    assert parsed(SMALLEST | {"expires_in_s": 90}).expires_at == NOW + 90_000_000_000


@pytest.mark.parametrize(
    ("written", "expires_at"),
    [
        ("0001-01-01T00:00:00+23:59", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("9999-12-31T23:59:59-23:59", 2**63 - 1),
    ],
)
def test_an_expiry_stays_within_what_can_be_stored(written: str, expires_at: int) -> None:
    assert parsed(SMALLEST | {"expires_at": written}).expires_at == expires_at


def test_a_payload_may_be_empty() -> None:
    assert parsed(SMALLEST | {"payload": ""}).payload == b""


@pytest.mark.parametrize("target", [TARGET, TARGET.upper(), "a", "Straße 7", "x" * MAX_TARGET, "70b3d57ed000000g"])
def test_16_hex_digits_are_a_device_and_anything_else_printable_a_group(target: str) -> None:
    got = parsed(SMALLEST, target).target
    assert got == (EUI64.parse(TARGET) if target.lower() == TARGET else target)
    assert isinstance(got, EUI64) is (target.lower() == TARGET)


@pytest.mark.parametrize("target", ["", "x" * (MAX_TARGET + 1), "a\nb", "\u202e"])
def test_a_target_that_can_be_nothing_is_refused(target: str) -> None:
    bad = refused(SMALLEST, target)
    assert "neither a DevEUI nor a group" in bad.message
    assert bad.command_id == "c-1"


def test_a_group_has_no_windows_that_a_command_could_wait_for() -> None:
    assert parsed(SMALLEST | {"class": "A"}).device_class is DeviceClass.A
    assert parsed(SMALLEST | {"class": "C"}, "lamps").device_class is DeviceClass.C
    assert "group" in refused(SMALLEST | {"class": "A"}, "lamps").message


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"f_port": 0}, ">= 1"),
    ({"f_port": 224}, "<= 223"),
    ({"f_port": "10"}, "f_port"),
    ({"f_port": True}, "f_port"),
    ({"f_port": 10.5}, "f_port"),
    ({"f_port": 10**400}, "f_port"),
    ({"payload": "AQI"}, "base64"),
    ({"payload": "A Q="}, "base64"),
    ({"payload": "-_8="}, "base64"),
    ({"payload": 7}, "payload"),
    ({"payload": None}, "payload"),
    ({"payload": base64.b64encode(bytes(243)).decode()}, "242"),
    ({"sealed_payload": "AQID", "fcnt_down": 1}, "exactly one"),
    ({"fcnt_down": 1}, "go together"),
    ({"confirmed": 1}, "confirmed"),
    ({"class": "B"}, "class"),
    ({"class": None}, "class"),
    ({"device_class": "A"}, "device_class"),
    ({"priority": "urgent"}, "priority"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"expires_at": "2026-01-02T03:04:05"}, "expires_at"),
    ({"expires_at": 1_700_000_000}, "expires_at"),
    ({"expires_in_s": 0}, "expires_in_s"),
    ({"expires_in_s": 10**9}, "expires_in_s"),
    ({"expires_in_s": 1, "expires_at": "2026-01-02T03:04:05Z"}, "use one"),
    ({"schema": "lorabridge/command/2"}, "schema"),
    ({"conffirmed": True}, "conffirmed"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=str)
def test_a_wrong_field_is_named_and_the_command_too(change: dict[str, Any], says: str) -> None:
    bad = refused(SMALLEST | {"correlation_id": "mine"} | change)
    assert says in bad.message
    assert (bad.command_id, bad.correlation_id) == ("c-1", "mine")


@pytest.mark.parametrize("command_id", ["", "x" * 65, "a\n", "a\0", "ü", 7, None])
def test_an_id_that_is_none_is_not_given_back(command_id: Any) -> None:
    bad = refused(SMALLEST | {"id": command_id, "correlation_id": "mine"})
    assert (bad.command_id, bad.correlation_id) == (None, "mine")


@pytest.mark.parametrize("correlation_id", ["x" * 129, "a\nb", 7, ["x"]])
def test_a_correlation_id_that_is_none_is_not_given_back(correlation_id: Any) -> None:
    bad = refused(SMALLEST | {"correlation_id": correlation_id})
    assert (bad.command_id, bad.correlation_id) == ("c-1", None)


@pytest.mark.parametrize("missing", ["id", "f_port", "payload"])
def test_what_is_missing_is_named(missing: str) -> None:
    assert missing in refused({name: value for name, value in SMALLEST.items() if name != missing}).message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"id":"\xff","f_port":1,"payload":""}',
        b'{"id":"\\ud800","f_port":1,"payload":""}',
        b'{"id":"a","f_port":NaN,"payload":""}',
        b'{"id":"a","f_port":1,"payload":""} {}',
        b"[" * MAX_COMMAND,
        b'{"id":' * (MAX_COMMAND // 6),
        json.dumps(SMALLEST | {"correlation_id": "x" * MAX_COMMAND}).encode(),
        '{"id":"a","f_port":1,"payload":""}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_of_ours_names_nobody(payload: bytes) -> None:
    bad = refused(payload)
    assert (bad.command_id, bad.correlation_id) == (None, None)


def test_the_largest_message_is_still_read() -> None:
    assert parse_command(TARGET, json.dumps(SMALLEST).encode().ljust(MAX_COMMAND), NOW).id == "c-1"


@pytest.mark.parametrize("twice", [b'"id":"b"', b'"f_port":11', b'"\\u0069d":"b"', b'"payload":"AQID"'])
def test_a_field_that_stands_in_it_twice_is_refused(twice: bytes) -> None:
    whole = json.dumps(SMALLEST).encode()
    assert "twice" in refused(whole[:-1] + b"," + twice + b"}").message


def test_no_message_repeats_the_payload() -> None:
    secret = base64.b64encode(b"do not tell anybody").decode()
    for change in ({"payload": secret + "!"}, {"payload": [secret]}, {"payload": secret, "f_port": 0}):
        assert secret not in refused(SMALLEST | change).message
    assert secret not in refused(f'{{"payload":"{secret}"'.encode()).message
    assert len(refused(SMALLEST | {"x" * 2000: 1}).message) <= 160


@pytest.mark.parametrize("change", [change for change, says in WRONG if says not in {"242", "base64"}], ids=str)
def test_the_published_schema_refuses_what_the_parser_refuses_as_far_as_a_schema_can(change: dict[str, Any]) -> None:
    is_only_an_annotation = isinstance(change.get("expires_at"), str) and "expires_in_s" not in change
    assert VALIDATOR.is_valid(SMALLEST)
    assert VALIDATOR.is_valid(SMALLEST | change) is is_only_an_annotation


def test_every_state_and_reason_says_what_it_means() -> None:
    for member in (*CommandState, *CommandReason):
        assert member.doc.endswith(".")
        assert str(member) == member.value
