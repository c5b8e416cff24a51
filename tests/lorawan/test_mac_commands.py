"""MAC commands against other people's bytes, and what stops a list."""

from __future__ import annotations

from typing import Any

import pytest

from lorabridge.lorawan.mac_commands import Command, build, can_say_hz, has_command, parse, wire_size
from lorabridge.lorawan.types import Direction, MacVersion
from tests.vector_files import vector_id, vectors

UP, DOWN = Direction.UP, Direction.DOWN
CLASSES = {"A": 0, "C": 2}


def as_numbers(fields: dict[str, Any]) -> dict[str, int]:
    return {name: CLASSES[value] if isinstance(value, str) else int(value) for name, value in fields.items()}


@pytest.mark.parametrize("vector", vectors("mac_commands"), ids=vector_id)
def test_mac_command_vectors(vector: dict[str, Any]) -> None:
    direction, data = Direction[vector["input"]["direction"].upper()], bytes.fromhex(vector["input"]["bytes"])
    found = parse(data, direction, MacVersion.V1_1_0)
    wanted = [(one["cid"], one["name"], as_numbers(one["fields"])) for one in vector["expect"]["commands"]]
    assert [(one.cid, one.name, dict(one.fields)) for one in found.commands] == wanted
    error = vector["expect"].get("error", {})
    offset = sum(len(one.wire) for one in found.commands)
    assert found.unknown_cid == (error["cid"] if error.get("code") == "unknown_cid" else None)
    assert found.truncated is (error.get("code") == "truncated")
    assert offset == error.get("offset", len(data))
    if error:
        assert data[offset] == error["cid"]
    assert b"".join(build(cid, direction, **fields) for cid, _, fields in wanted) == data[:offset]


@pytest.mark.parametrize(
    ("cid", "direction", "first"),
    [
        (0x01, UP, "1.1.0"),
        (0x03, DOWN, "1.0.0"),
        (0x09, DOWN, "1.0.2"),
        (0x0A, UP, "1.0.2"),
        (0x0B, UP, "1.1.0"),
        (0x0C, DOWN, "1.1.0"),
        (0x0D, UP, "1.0.3"),
        (0x0E, DOWN, "1.1.0"),
        (0x0F, UP, "1.1.0"),
        (0x20, UP, "1.1.0"),
    ],
)
def test_a_command_exists_from_its_version_on(cid: int, direction: Direction, first: str) -> None:
    for version in MacVersion:
        assert has_command(cid, direction, version) is (version.value >= first)
    assert not has_command(0x80, direction, MacVersion.V1_1_0)


def test_a_command_of_a_later_version_stops_the_list() -> None:
    found = parse(b"\x02\x0d\x02", UP, MacVersion.V1_0_2)
    assert ([one.name for one in found.commands], found.unknown_cid) == (["LinkCheckReq"], 0x0D)
    assert len(parse(b"\x02\x0d\x02", UP, MacVersion.V1_0_3).commands) == 3


def test_a_field_is_had_by_its_name() -> None:
    (status,) = parse(b"\x06\xff\xe0", UP, MacVersion.V1_0_0).commands
    assert (status["battery"], status["margin"]) == (255, -32)
    with pytest.raises(KeyError):
        status["power"]


def test_reserved_bits_are_kept_but_mean_nothing() -> None:
    (answer,) = parse(b"\x03\xff", UP, MacVersion.V1_0_0).commands
    fields = (("channel_mask_ack", 1), ("data_rate_ack", 1), ("power_ack", 1))
    assert answer == Command(3, "LinkADRAns", fields, b"\x03\xff")


def test_frequencies_of_2_4_ghz_count_in_200_hz() -> None:
    wire = build("BeaconFreqReq", DOWN, frequency_hz=2_425_000_000)
    assert int.from_bytes(wire[1:], "little") == 12_125_000
    assert parse(wire, DOWN, MacVersion.V1_0_4).commands[0]["frequency_hz"] == 2_425_000_000
    assert [can_say_hz(hz) for hz in (2_425_000_000, 2_425_000_100, 868_100_100, 868_100_050)] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("LinkADRReqq", {}),
        (0x80, {}),
        ("DutyCycleReq", {}),
        ("DutyCycleReq", {"max_duty_cycle": 3, "delay": 1}),
        ("DutyCycleReq", {"max_duty_cycle": 16}),
        ("DutyCycleReq", {"max_duty_cycle": -1}),
        ("BeaconFreqReq", {"frequency_hz": 868_100_050}),
        ("BeaconFreqReq", {"frequency_hz": 2_400_000_100}),
        ("BeaconFreqReq", {"frequency_hz": 1_677_721_600}),
        ("BeaconFreqReq", {"frequency_hz": 1_300_000_000}),
        ("BeaconFreqReq", {"frequency_hz": 4_000_000_000}),
    ],
)
def test_what_a_command_cannot_say_is_refused(command: str | int, fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"command|fields|cannot be"):
        build(command, DOWN, **fields)


@pytest.mark.parametrize("margin", [-33, 32, 63])
def test_a_signed_field_has_its_bounds(margin: int) -> None:
    with pytest.raises(ValueError, match="margin cannot be"):
        build("DevStatusAns", UP, battery=0, margin=margin)


def test_the_size_of_a_command_includes_its_cid() -> None:
    assert (wire_size(0x03, DOWN), wire_size(0x03, UP), wire_size(0x0E, UP)) == (5, 2, 0)
