"""The network's side of the MAC layer: what is noted, heard, answered and asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.adr import HISTORY, to_margin
from lorabridge.lorawan.mac_answers import REFUSED_KEPT, Heard
from lorabridge.lorawan.mac_commands import Parsed, build, parse, wire_size
from lorabridge.lorawan.mac_layer import DEFAULT_MAC_POLICY, Asked, MacPolicy, answers, ask, hear, note_uplink
from lorabridge.lorawan.mac_state import DEFAULT_MAC_STATE, AddedChannel, MacState, RejoinParameters
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.regions.channel_mask import mask_requests
from lorabridge.lorawan.types import Direction, MacVersion

UP, DOWN = Direction.UP, Direction.DOWN
V1_0_1, V1_0_2, V1_0_3, V1_0_4 = MacVersion.V1_0_1, MacVersion.V1_0_2, MacVersion.V1_0_3, MacVersion.V1_0_4
V1_1 = MacVersion.V1_1_0
EU868, US915, AU915, AS923 = (REGIONS[name] for name in ("EU868", "US915", "AU915", "AS923-1"))
SECOND_BAND = frozenset({*range(8, 16), 65})
NARROW_BAND = frozenset(range(8, 16))
"""Two requests: all of 125 kHz off, and these on."""
ADDED_HZ = (867_100_000, 867_300_000, 867_500_000)
AT_0_DB = bytes([to_margin(0.0)] * HISTORY)


def asked(
    state: MacState = DEFAULT_MAC_STATE,
    policy: MacPolicy = DEFAULT_MAC_POLICY,
    *,
    version: MacVersion = V1_0_4,
    region: Region | None = EU868,
    adr: bool = True,
    room: int = 222,
) -> Asked:
    return ask(state, policy, mac_version=version, region=region, device_adr=True, uplink_adr=adr, room=room)


def names(found: Asked, version: MacVersion = V1_1) -> list[str]:
    return [command.name for command in parse(found.wire, DOWN, version).commands]


def heard(
    state: MacState,
    *said: bytes,
    version: MacVersion = V1_1,
    region: Region | None = EU868,
    policy: MacPolicy = DEFAULT_MAC_POLICY,
) -> Heard:
    return hear(state, parse(b"".join(said), UP, version), mac_version=version, region=region, policy=policy)


def request(name: str, **fields: int) -> bytes:
    return build(name, DOWN, **fields)


def link_adr(data_rate: int, tx_power: int, *masks: tuple[int, int], nb_trans: int = 1) -> bytes:
    return b"".join(
        request(
            "LinkADRReq",
            data_rate=data_rate,
            tx_power=tx_power,
            ch_mask_cntl=cntl,
            ch_mask=mask,
            nb_trans=nb_trans,
        )
        for cntl, mask in masks
    )


def noted(state: MacState, policy: MacPolicy = DEFAULT_MAC_POLICY, **settings: Any) -> MacState:
    uplink: dict[str, Any] = {"fcnt32": 8, "last_fcnt32": 7, "data_rate": 0, "adr": True, "snr_db": 0.0}
    return note_uplink(state, policy=policy, **(uplink | settings))


# What is noted of an uplink


@pytest.mark.parametrize("unmanaged", [{"adr": False}, {"snr_db": None}, {"data_rate": None}])
def test_an_uplink_without_adr_changes_nothing(unmanaged: dict[str, Any]) -> None:
    state = MacState(data_rate=3)
    assert noted(state, **unmanaged) is state
    assert noted(state, MacPolicy(adr=False)) is state


def test_uplinks_count_down_to_the_next_status() -> None:
    state = noted(MacState(status_due_in=2), adr=False)
    assert state == MacState(status_due_in=1)
    assert noted(state, adr=False) == DEFAULT_MAC_STATE


def test_the_last_twenty_snrs_are_kept() -> None:
    state = MacState(data_rate=0)
    for number in range(30):
        state = noted(state, fcnt32=number, last_fcnt32=number - 1 if number else None, snr_db=number / 4)
    assert state.margins == bytes(range(128 + 10, 128 + 30))
    assert state.missed == 0


def test_lost_uplinks_are_counted_and_forgotten_one_by_one() -> None:
    state = noted(MacState(data_rate=0), fcnt32=10, last_fcnt32=6)
    assert state.missed == 3
    state = noted(state, fcnt32=5000, last_fcnt32=10)
    assert state.missed == HISTORY
    state = noted(MacState(data_rate=0, margins=AT_0_DB, missed=3))
    assert (state.missed, len(state.margins)) == (2, HISTORY)
    assert noted(state, fcnt32=1, last_fcnt32=900).missed == 1


def test_a_device_that_changes_its_data_rate_by_itself_starts_anew() -> None:
    state = noted(MacState(data_rate=5, tx_power=4, margins=AT_0_DB, missed=2), data_rate=4)
    assert state == MacState(data_rate=4, tx_power=None, margins=AT_0_DB[:1])


# What a device answers


TAKEN = [
    (request("RXTimingSetupReq", delay=5), b"\x08", {"rx1_delay": 5}),
    (request("RXTimingSetupReq", delay=0), b"\x08", {"rx1_delay": 1}),
    (
        request("RXParamSetupReq", rx1_dr_offset=2, rx2_data_rate=3, frequency_hz=869_525_000),
        b"\x05\x07",
        {"rx1_dr_offset": 2, "rx2_data_rate": 3, "rx2_frequency_hz": 869_525_000},
    ),
    (request("DutyCycleReq", max_duty_cycle=7), b"\x04", {"max_duty_cycle": 7}),
    (
        request("TxParamSetupReq", downlink_dwell_time=0, uplink_dwell_time=1, max_eirp_index=5),
        b"\x09",
        {"downlink_dwell": False, "uplink_dwell": True, "max_eirp_index": 5},
    ),
    (
        request("DlChannelReq", ch_index=1, frequency_hz=868_500_000),
        b"\x0a\x03",
        {"downlink_hz": ((1, 868_500_000),)},
    ),
    (
        request("NewChannelReq", ch_index=3, frequency_hz=867_100_000, min_dr=0, max_dr=5),
        b"\x07\x03",
        {"channels": (AddedChannel(3, 867_100_000, 0, 5),)},
    ),
    (
        request("ADRParamSetupReq", limit_exp=7, delay_exp=4),
        b"\x0c",
        {"adr_ack_limit_exponent": 7, "adr_ack_delay_exponent": 4},
    ),
    (request("RejoinParamSetupReq", max_time_n=2, max_count_n=3), b"\x0f\x01", {"rejoin": RejoinParameters(2, 3)}),
    (link_adr(5, 3, (0, 7), nb_trans=2), b"\x03\x07", {"data_rate": 5, "tx_power": 3, "nb_trans": 2}),
    (link_adr(5, 3, (0, 3)), b"\x03\x07", {"data_rate": 5, "tx_power": 3, "enabled": frozenset({0, 1})}),
    (link_adr(15, 15, (0, 7), nb_trans=0), b"\x03\x07", {}),
    (request("BeaconFreqReq", frequency_hz=869_525_000), b"\x13\x01", {}),
]


@pytest.mark.parametrize(("wire", "answer", "settings"), TAKEN)
def test_what_a_device_agrees_to_is_taken_over(wire: bytes, answer: bytes, settings: dict[str, Any]) -> None:
    found = heard(MacState(asked=wire), answer)
    assert (found.state, found.owed, found.report) == (MacState(**settings), (), False)
    assert heard(found.state, answer).state == found.state
    assert heard(MacState(asked=wire)).state == DEFAULT_MAC_STATE


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        *[(wire, answer[:1] + b"\x00") for wire, answer, _ in TAKEN if len(answer) > 1 and answer[0] != 0x0F],
        (link_adr(5, 3, (7, 2), (0, 0xFF00)), b"\x03\x07\x03\x06"),
        (link_adr(5, 3, (0, 7)), b"\x03\x05"),
    ],
)
def test_a_refusal_is_remembered_and_reported(wire: bytes, answer: bytes) -> None:
    found = heard(MacState(asked=wire), answer)
    assert (found.state, found.report) == (MacState(refused=frozenset({wire})), True)


def test_refusals_are_bounded_and_end_the_asking() -> None:
    full = frozenset(bytes([number]) for number in range(REFUSED_KEPT))
    state = heard(MacState(refused=full, asked=request("RXTimingSetupReq", delay=5)), b"\x08").state
    assert state.rx1_delay == 5
    refused = heard(MacState(refused=full, asked=request("BeaconFreqReq", frequency_hz=0)), b"\x13\x00")
    assert refused.state.refused == full
    assert asked(state, MacPolicy(rx1_delay=7)).wire == b""


def test_each_of_several_requests_of_one_name_has_its_own_answer() -> None:
    wires = [
        request("NewChannelReq", ch_index=3 + n, frequency_hz=hz, min_dr=0, max_dr=5) for n, hz in enumerate(ADDED_HZ)
    ]
    found = heard(MacState(asked=b"".join(wires)), b"\x07\x03\x07\x02")
    assert found.state == MacState(channels=(AddedChannel(3, ADDED_HZ[0], 0, 5),), refused=frozenset({wires[1]}))


def test_a_channel_made_anew_or_removed_takes_its_settings_with_it() -> None:
    old = AddedChannel(4, ADDED_HZ[0], 0, 5)
    state = MacState(channels=(old,), enabled=frozenset({0}), downlink_hz=((0, 1), (3, 2), (4, 3)))
    made = request("NewChannelReq", ch_index=3, frequency_hz=ADDED_HZ[1], min_dr=1, max_dr=4)
    found = heard(msgspec.structs.replace(state, asked=made), b"\x07\x03").state
    assert found.channels == (AddedChannel(3, ADDED_HZ[1], 1, 4), old)
    assert (found.enabled, found.downlink_hz) == (frozenset({0, 3}), ((0, 1), (4, 3)))
    removed = request("NewChannelReq", ch_index=3, frequency_hz=0, min_dr=0, max_dr=0)
    found = heard(msgspec.structs.replace(found, asked=removed), b"\x07\x03").state
    assert (found.channels, found.enabled) == ((old,), frozenset({0}))


def test_the_count_of_a_rejoin_setting_holds_without_its_time() -> None:
    wire = request("RejoinParamSetupReq", max_time_n=2, max_count_n=3)
    found = heard(MacState(asked=wire), b"\x0f\x00")
    assert (found.state, found.report) == (MacState(rejoin=RejoinParameters(2, 3)), True)


def test_a_status_that_was_asked_for_is_reported_and_due_again_later() -> None:
    policy = MacPolicy(status_every=50)
    found = heard(MacState(asked=b"\x06"), b"\x06\xff\x01", policy=policy)
    assert (found.state, found.report) == (MacState(status_due_in=50), True)
    assert heard(MacState(), b"\x06\xff\x01", policy=policy) == Heard(MacState(), (), False)


def test_a_block_of_masks_is_taken_together() -> None:
    wire = link_adr(2, 1, (7, 2), (0, 0xFF00))
    found = heard(MacState(asked=wire, margins=AT_0_DB, missed=1), b"\x03\x07\x03\x07", region=US915)
    assert found.state == MacState(enabled=SECOND_BAND, data_rate=2, tx_power=1)
    assert heard(MacState(asked=wire), b"\x03\x07", region=None).state == MacState(data_rate=2, tx_power=1)


def test_a_mask_that_no_device_can_agree_to_changes_no_channel() -> None:
    found = heard(MacState(asked=link_adr(2, 1, (0, 0xFF00))), b"\x03\x07")
    assert found.state == MacState(data_rate=2, tx_power=1)


def test_the_history_survives_a_request_that_changes_only_channels() -> None:
    state = MacState(data_rate=2, tx_power=1, margins=AT_0_DB, missed=1)
    wire = link_adr(2, 1, (7, 2), (0, 0xFF00))
    found = heard(msgspec.structs.replace(state, asked=wire), b"\x03\x07\x03\x07", region=US915)
    assert found.state == msgspec.structs.replace(state, enabled=SECOND_BAND)


def test_an_unanswered_request_is_asked_again() -> None:
    policy = MacPolicy(rx1_delay=5)
    first = asked(policy=policy)
    assert asked(first.state, policy).wire == b""
    again = asked(heard(first.state).state, policy)
    assert again == first


def test_an_answer_that_is_repeated_until_a_downlink_is_heard_is_no_news() -> None:
    for answer in (b"\x05\x07", b"\x08", b"\x0a\x03"):
        assert heard(MacState(rx1_delay=5), answer) == Heard(MacState(rx1_delay=5), (), False, repeats=True)
    assert not heard(MacState(), b"\x07\x03").repeats


@pytest.mark.parametrize("said", [b"\x80\x01", b"\x05"])
def test_what_cannot_be_read_is_reported(said: bytes) -> None:
    assert heard(MacState(), said) == Heard(MacState(), (), True)


def test_a_reset_brings_the_first_settings_back() -> None:
    state = MacState(rx1_delay=5, asked=b"\x06", refused=frozenset({b"\x06"}))
    assert heard(state, b"\x01\x01").state == DEFAULT_MAC_STATE
    factory = MacState(channels=(AddedChannel(3, ADDED_HZ[0], 0, 5),))
    parsed = parse(b"\x01\x01", UP, V1_1)
    found = hear(state, parsed, mac_version=V1_1, region=EU868, policy=DEFAULT_MAC_POLICY, initial=factory)
    assert (found.state, [one.name for one in found.owed]) == (factory, ["ResetInd"])


def test_a_device_tells_its_class() -> None:
    assert heard(MacState(), b"\x20\x02").state.is_class_c is True
    assert heard(MacState(), b"\x20\x00").state.is_class_c is False


# What a device is answered


def answered(said: bytes, version: MacVersion = V1_1, **settings: Any) -> str:
    given: dict[str, Any] = {"demodulation_margin_db": 12, "gateways": 3, "gps_time_ns": 1_500_000_000}
    owed = heard(MacState(), said, version=version).owed
    return answers(owed, mac_version=version, **(given | settings)).hex()


@pytest.mark.parametrize(
    ("said", "settings", "answer"),
    [
        (b"\x02", {}, "020c03"),
        (b"\x02", {"demodulation_margin_db": -7, "gateways": 0}, "020001"),
        (b"\x02", {"demodulation_margin_db": 999, "gateways": 999}, "02feff"),
        (b"\x0d", {}, "0d0100000080"),
        (b"\x0d", {"gps_time_ns": (1 << 32) * 1_000_000_000 + 999_999_999}, "0d00000000ff"),
        (b"\x0d", {"gps_time_ns": None}, ""),
        (b"\x0d\x02\x0d", {}, "0d0100000080020c03"),
        (b"\x01\x01", {}, "0101"),
        (b"\x0b\x01", {}, "0b01"),
        (b"\x0b\x05", {}, "0b01"),
        (b"\x20\x02", {}, "2002"),
        (b"\x10\x03", {}, "10"),
        (b"\x06\xff\x00\x12", {}, ""),
        (b"\x0d\x02\x0b\x01", {"room": 8}, "0d01000000800b01"),
    ],
)
def test_what_a_device_wants_to_know_is_answered_in_its_order(
    said: bytes, settings: dict[str, Any], answer: str
) -> None:
    assert answered(said, **settings) == answer


def test_nothing_is_answered_that_the_version_has_not_got() -> None:
    owed = heard(MacState(), b"\x02\x0d").owed
    wire = answers(owed, demodulation_margin_db=0, gateways=1, gps_time_ns=0, mac_version=V1_0_2)
    assert wire.hex() == "020001"


# What a device is asked


EVERYTHING = MacPolicy(
    rx1_delay=5,
    rx1_dr_offset=99,
    rx2_data_rate=3,
    channels_hz=ADDED_HZ[:1],
    max_duty_cycle=7,
    uplink_dwell=False,
    status_every=9,
    rejoin=RejoinParameters(1, 2),
    adr_ack_delay_exponent=3,
)
ALWAYS = ["RXParamSetupReq", "RXTimingSetupReq"]


@pytest.mark.parametrize("region", REGIONS.values(), ids=lambda region: region.name)
def test_a_device_that_is_set_as_wanted_is_asked_nothing(region: Region) -> None:
    assert asked(region=region) == Asked(b"", DEFAULT_MAC_STATE)
    assert asked(region=region, version=V1_1) == Asked(b"", DEFAULT_MAC_STATE)


@pytest.mark.parametrize(
    ("version", "region", "requests"),
    [
        (V1_0_1, EU868, [*ALWAYS, "DutyCycleReq", "NewChannelReq", "DevStatusReq"]),
        (V1_0_1, AS923, [*ALWAYS, "DutyCycleReq", "NewChannelReq", "DevStatusReq"]),
        (V1_0_2, AS923, [*ALWAYS, "TxParamSetupReq", "DutyCycleReq", "NewChannelReq", "DevStatusReq"]),
        (V1_0_4, AU915, [*ALWAYS, "TxParamSetupReq", "DutyCycleReq", "DevStatusReq"]),
        (V1_0_4, None, ["RXTimingSetupReq", "DutyCycleReq", "DevStatusReq"]),
        (
            V1_1,
            EU868,
            [*ALWAYS, "DutyCycleReq", "NewChannelReq", "ADRParamSetupReq", "RejoinParamSetupReq", "DevStatusReq"],
        ),
    ],
)
def test_a_device_is_asked_what_its_version_and_region_have(
    version: MacVersion, region: Region | None, requests: list[str]
) -> None:
    found = asked(policy=EVERYTHING, version=version, region=region)
    assert names(found) == requests
    assert found.state == MacState(asked=found.wire)


@pytest.mark.parametrize("region", [None, *REGIONS.values()])
@pytest.mark.parametrize("version", MacVersion)
def test_a_device_that_agrees_to_everything_ends_as_wanted(version: MacVersion, region: Region | None) -> None:
    policy = msgspec.structs.replace(EVERYTHING, enabled=frozenset(range(8)) if region and region.fixed else None)
    state = MacState()
    for _ in range(12):
        found = asked(state, policy, version=version, region=region, room=15)
        agreement = b"".join(agreed(command.cid) for command in parse(found.wire, DOWN, version).commands)
        assert len(agreement) <= 15
        state = heard(found.state, agreement, version=version, region=region, policy=policy).state
    assert not asked(state, policy, version=version, region=region, room=15).wire
    assert not state.refused
    assert state.rx1_delay == 5
    if region is not None and region.fixed:
        assert state.enabled == frozenset(range(8))


def agreed(cid: int) -> bytes:
    """The answer of a device that agrees; its battery is no status bit."""
    return bytes([cid]) + bytes([0xFF] * (wire_size(cid, UP) - 1))


@given(st.integers(-3, 60), st.sampled_from(MacVersion), st.sampled_from([None, *REGIONS.values()]))
def test_requests_fit_into_the_room_there_is(room: int, version: MacVersion, region: Region | None) -> None:
    state = MacState(data_rate=1, margins=AT_0_DB)
    policy = msgspec.structs.replace(EVERYTHING, channels_hz=(), enabled=SECOND_BAND)
    found = asked(state, policy, version=version, region=region, room=room)
    parsed = parse(found.wire, DOWN, version)
    assert len(found.wire) <= max(room, 0)
    assert parsed == Parsed(parsed.commands)
    masks = [command for command in parsed.commands if command.name == "LinkADRReq"]
    block = min(3, len(mask_requests(region, SECOND_BAND))) if region is not None and region.fixed else 1
    assert len(masks) in (0, block)


def test_what_was_refused_is_not_asked_again_but_something_else_is() -> None:
    first = asked(policy=MacPolicy(rx1_dr_offset=1, rx1_delay=5))
    state = heard(first.state, b"\x05\x00\x08").state
    assert names(asked(state, MacPolicy(rx1_dr_offset=1, rx1_delay=5))) == []
    assert names(asked(state, MacPolicy(rx1_dr_offset=2, rx1_delay=5))) == ["RXParamSetupReq"]


def test_channels_go_to_the_lowest_free_indices_and_are_not_masked_before_they_are_known() -> None:
    state = MacState(channels=(AddedChannel(4, ADDED_HZ[1], 0, 5),), data_rate=0, margins=AT_0_DB)
    policy = MacPolicy(channels_hz=(868_100_000, *ADDED_HZ))
    found = asked(state, policy)
    wanted = [(3, ADDED_HZ[0]), (5, ADDED_HZ[2])]
    commands = parse(found.wire, DOWN, V1_0_4).commands
    assert [(one["ch_index"], one["frequency_hz"]) for one in commands] == wanted
    (block,) = parse(asked(heard(found.state, b"\x07\x03\x07\x03").state, policy).wire, DOWN, V1_0_4).commands
    assert block["ch_mask"] == 0b111111


def test_rx1_moves_away_from_the_uplinks_and_back_again() -> None:
    state = MacState(channels=(AddedChannel(3, ADDED_HZ[0], 0, 5), AddedChannel(5, ADDED_HZ[1], 0, 5)))
    policy = MacPolicy(rx1_frequency_hz=869_525_000)
    indices = []
    for _ in range(2):
        found = asked(state, policy, room=15)
        commands = parse(found.wire, DOWN, V1_0_4).commands
        assert {(one.name, one["frequency_hz"]) for one in commands} == {("DlChannelReq", 869_525_000)}
        indices += [one["ch_index"] for one in commands]
        state = heard(found.state, b"\x0a\x03" * len(commands)).state
    assert indices == [0, 1, 2, 3, 5]
    assert dict(state.downlink_hz) == dict.fromkeys(indices, 869_525_000)
    assert asked(state, policy).wire == b""
    back = asked(state)
    assert [one["frequency_hz"] for one in parse(back.wire, DOWN, V1_0_4).commands] == [
        *EU868.join_channels_hz,
        *ADDED_HZ[:2],
    ]
    assert asked(heard(back.state, b"\x0a\x03" * 5).state).wire == b""
    assert asked(policy=policy, version=V1_0_1).wire == b""
    assert asked(policy=policy, region=US915).wire == b""


def test_refused_channels_do_not_hold_adr_up() -> None:
    state, policy = MacState(data_rate=0, margins=AT_0_DB), MacPolicy(channels_hz=ADDED_HZ[:1])
    state = heard(asked(state, policy).state, b"\x07\x00").state
    assert names(asked(state, policy)) == ["LinkADRReq"]


def test_adr_is_for_devices_that_ask_for_it_where_it_is_on() -> None:
    state = MacState(data_rate=0, margins=AT_0_DB)
    assert asked(state).wire == link_adr(3, 0, (0, 7))
    assert asked(state, adr=False).wire == b""
    assert asked(state, MacPolicy(adr=False)).wire == b""
    off = ask(state, MacPolicy(), mac_version=V1_0_4, region=EU868, device_adr=False, uplink_adr=True, room=15)
    assert off.wire == b""


def test_a_device_that_refuses_a_part_of_adr_may_do_the_rest() -> None:
    state = MacState(data_rate=0, margins=bytes([to_margin(12.0)] * HISTORY))
    tried = []
    for _ in range(4):
        found = asked(state)
        tried.append(found.wire)
        state = heard(found.state, b"\x03\x01").state
    keep = 15
    assert tried == [link_adr(5, 2, (0, 7)), link_adr(5, keep, (0, 7)), link_adr(0, 2, (0, 7)), b""]


@pytest.mark.parametrize(
    ("version", "state", "data_rate", "tx_power"),
    [
        (V1_0_4, MacState(), 15, 15),
        (V1_0_3, MacState(), 0, 0),
        (V1_0_3, MacState(data_rate=2, tx_power=4), 2, 4),
    ],
)
def test_the_channels_of_the_gateway_are_asked_for_without_adr(
    version: MacVersion, state: MacState, data_rate: int, tx_power: int
) -> None:
    policy = MacPolicy(enabled=NARROW_BAND)
    found = asked(state, policy, version=version, region=US915, adr=False)
    assert found.wire == link_adr(data_rate, tx_power, (7, 0), (0, 0xFF00))
    agreed_to = heard(found.state, b"\x03\x07\x03\x07", region=US915).state
    assert agreed_to.enabled == NARROW_BAND
    assert asked(agreed_to, policy, version=version, region=US915, adr=False).wire == b""


def test_channels_that_no_device_has_are_not_asked_for() -> None:
    assert asked(policy=MacPolicy(enabled=frozenset({99})), region=US915).wire == b""


def test_a_block_that_does_not_fit_is_not_split() -> None:
    policy = MacPolicy(enabled=NARROW_BAND, status_every=1)
    assert names(asked(policy=policy, region=US915, room=9)) == ["DevStatusReq"]
    assert names(asked(policy=policy, region=US915, room=10)) == ["LinkADRReq", "LinkADRReq"]


def test_the_eirp_asked_with_a_dwell_time_is_what_the_region_allows() -> None:
    (command,) = parse(asked(policy=MacPolicy(uplink_dwell=False), region=AS923).wire, DOWN, V1_0_4).commands
    assert (command["uplink_dwell_time"], command["max_eirp_index"]) == (0, 5)


@given(
    st.sampled_from([region for region in REGIONS.values() if region.fixed]),
    st.frozensets(st.integers(0, 71), min_size=1),
    st.none() | st.frozensets(st.integers(0, 71), min_size=1),
    st.booleans(),
)
def test_any_channels_are_reached_through_f_opts(
    region: Region, wanted: frozenset[int], enabled: frozenset[int] | None, knows_short_forms: bool
) -> None:
    policy, state = MacPolicy(enabled=wanted), MacState(enabled=enabled)
    # ChMaskCntl 5 is a short form of US915 and AU915, and a block of CN470 like any other.
    old = not knows_short_forms and region is not REGIONS["CN470"]
    for _ in range(8):
        found = asked(state, policy, region=region, room=15)
        requests = parse(found.wire, DOWN, V1_0_4).commands
        refuses = old and any(one["ch_mask_cntl"] == 5 for one in requests)
        state = heard(found.state, (b"\x03\x06" if refuses else b"\x03\x07") * len(requests), region=region).state
    assert state.enabled == wanted
    assert asked(state, policy, region=region, room=15).wire == b""


def test_adr_repeats_one_mask_where_the_channels_are_right() -> None:
    for name, enabled, cntl, mask in (("US915", SECOND_BAND, 0, 0xFF00), ("CN470", frozenset({33, 80}), 2, 2)):
        state = MacState(data_rate=0, margins=AT_0_DB, enabled=enabled)
        found = asked(state, MacPolicy(enabled=enabled), region=REGIONS[name])
        (command,) = parse(found.wire, DOWN, V1_0_4).commands
        assert (command["ch_mask_cntl"], command["ch_mask"]) == (cntl, mask)
        assert heard(found.state, b"\x03\x07", region=REGIONS[name]).state.enabled == enabled
