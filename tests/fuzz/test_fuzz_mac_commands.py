"""Any bytes at all are a command list as far as it goes. `make fuzz` runs this for longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.mac_answers import hear
from lorabridge.lorawan.mac_commands import build, has_command, parse
from lorabridge.lorawan.mac_layer import answers
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.types import Direction, MacVersion

cids = st.integers(0, 0x21).map(lambda cid: bytes([cid]))
lists = st.binary(max_size=60) | st.lists(cids | st.binary(max_size=6), max_size=12).map(b"".join)
directions, versions = st.sampled_from(Direction), st.sampled_from(MacVersion)
regions = st.sampled_from([None, *REGIONS.values()])


@given(lists, directions, versions)
def test_any_bytes_are_commands_up_to_where_reading_stops(
    data: bytes, direction: Direction, version: MacVersion
) -> None:
    found = parse(data, direction, version)
    read = b"".join(command.wire for command in found.commands)
    assert data.startswith(read)
    assert (len(read) == len(data)) is (found.unknown_cid is None and not found.truncated)
    for command in found.commands:
        assert has_command(command.cid, direction, version)
        again = build(command.name, direction, **dict(command.fields))
        assert parse(again, direction, version).commands[0].fields == command.fields
        assert again == build(command.cid, direction, **dict(command.fields))
    if found.unknown_cid is not None:
        assert data[len(read)] == found.unknown_cid
        assert not has_command(found.unknown_cid, direction, version)


@given(lists, lists, versions, regions)
def test_whatever_a_device_answers_and_was_asked_the_state_stays_one(
    said: bytes, asked: bytes, version: MacVersion, region: Region | None
) -> None:
    policy = MacPolicy(status_every=5)
    parsed = parse(said, Direction.UP, version)
    heard = hear(MacState(asked=asked), parsed, mac_version=version, region=region, policy=policy)
    assert not heard.state.asked
    again = hear(heard.state, parsed, mac_version=version, region=region, policy=policy)
    assert (again.state, again.owed) == (heard.state, heard.owed) or "ResetInd" in {c.name for c in parsed.commands}
    wire = answers(heard.owed, demodulation_margin_db=-3, gateways=300, gps_time_ns=1 << 62, mac_version=version)
    assert len(wire) <= 15
    answered = parse(wire, Direction.DOWN, version)
    assert answered.unknown_cid is None
    assert not answered.truncated
