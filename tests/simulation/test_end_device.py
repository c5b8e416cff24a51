"""End-devices in software against hand-made downlinks: what they hear, refuse and obey."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.crypto import (
    PreparedKey,
    SessionCrypto,
    derive_js_enc_key,
    derive_js_int_key,
    encrypt_join_accept,
    join_accept_mic,
    join_accept_mic_1_1,
)
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import (
    DataFrame,
    JoinAccept,
    JoinAcceptBody,
    JoinRequest,
    RejoinRequest,
    build,
    build_join_accept_body,
    parse,
    parse_join_accept_body,
)
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.mac_commands import build as command
from lorabridge.lorawan.mac_commands import parse as parse_commands
from lorabridge.lorawan.regions import REGIONS, Region
from lorabridge.lorawan.regions.cf_list import build_frequencies, build_masks
from lorabridge.lorawan.types import DevAddr, DeviceClass, Direction, FCnt16, FCnt32, JoinNonce, MacVersion, NetID
from lorabridge.simulation.activation import NoRootKeyError
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.device_session import DeviceSession, Downlink, Flaw
from lorabridge.simulation.devices import NotActivatedError
from lorabridge.simulation.end_device import EndDevice, Heard, Joined
from lorabridge.simulation.listening import Radiation, Slot
from tests.simulation.test_devices import abp, otaa

NOW = 1_772_438_400_000_000_000
SECOND = 1_000_000_000
EU868, US915, AS923 = REGIONS["EU868"], REGIONS["US915"], REGIONS["AS923-1"]
ADDRESS = DevAddr(0x02_00_00_07)
NET_ID = NetID(0x000001)
DOWN = Direction.DOWN


def end_device(device: Device, region: Region = EU868) -> EndDevice:
    return EndDevice(device, region, Place(100, 0), rng=Random(3))


def join_accept(
    device: EndDevice,
    emission: Emission,
    *,
    join_nonce: int = 1,
    settings: int = 0,
    cf_list: bytes = b"",
    delay: int = 0,
) -> bytes:
    """The join-accept that a network sends, made from the primitives alone."""
    frame, keys = parse(emission.phy_payload), device.device
    unsigned = JoinAcceptBody(
        join_nonce=JoinNonce(join_nonce),
        net_id=NET_ID,
        dev_addr=ADDRESS,
        dl_settings=settings,
        rx_delay=delay,
        cf_list=cf_list,
        mic=bytes(4),
        message=b"",
    )
    body = parse_join_accept_body(0x20, build_join_accept_body(unsigned))
    root = keys.nwk_key or keys.app_key
    assert root is not None
    assert keys.join_eui is not None
    key = PreparedKey(root)
    if settings & 0x80:
        js_int_key = PreparedKey(derive_js_int_key(root, keys.dev_eui))
        if isinstance(frame, RejoinRequest):
            mic = join_accept_mic_1_1(js_int_key, body, frame.rejoin_type, keys.join_eui, frame.rj_count)
            key = PreparedKey(derive_js_enc_key(root, keys.dev_eui))
        else:
            assert isinstance(frame, JoinRequest)
            mic = join_accept_mic_1_1(js_int_key, body, 0xFF, keys.join_eui, frame.dev_nonce)
    else:
        mic = join_accept_mic(key, body)
    plain = build_join_accept_body(msgspec.structs.replace(body, mic=mic))
    return build(JoinAccept(0x20, encrypt_join_accept(key, plain)))


def downlink(
    session: DeviceSession,
    fcnt: int,
    *,
    f_port: int | None = None,
    payload: bytes = b"",
    f_opts: bytes = b"",
    ack_of: int | None = None,
    confirmed: bool = False,
) -> bytes:
    """A data downlink with a valid MIC, as the session's network makes it."""
    crypto, fcnt32, addr = SessionCrypto(session.keys), FCnt32(fcnt), session.dev_addr
    if f_opts and session.is_1_1:
        f_opts = crypto.f_opts_1_1(f_opts, DOWN, addr, fcnt32, a_fcnt_down=bool(f_port))
    frame = DataFrame.make(
        m_type=MType.CONFIRMED_DATA_DOWN if confirmed else MType.UNCONFIRMED_DATA_DOWN,
        dev_addr=addr,
        fcnt16=FCnt16(fcnt & 0xFFFF),
        flags=0 if ack_of is None else 0x20,
        f_opts=f_opts,
        f_port=f_port,
        frm_payload=crypto.frm_payload(payload, f_port, DOWN, addr, fcnt32) or b"",
    )
    if session.is_1_1:
        mic = crypto.mic_down_1_1(frame.message, addr, fcnt32, (ack_of or 0) & 0xFFFF)
    else:
        mic = crypto.mic_1_0(frame.message, DOWN, addr, fcnt32)
    return build(frame.with_mic(mic))


def in_window(device: EndDevice, phy_payload: bytes, number: int = 1, **changes: Any) -> Radiation:
    """A transmission that meets a window of the last uplink."""
    window = next(window for window in device.windows if window.number == number)
    data_rate = device.region.downlink_data_rates[window.data_rate]
    assert data_rate is not None
    radiation = Radiation(
        phy_payload=phy_payload, starts_at=window.opens_at, frequency_hz=window.frequency_hz, data_rate=data_rate
    )
    return msgspec.structs.replace(radiation, **changes)


def joined(version: MacVersion, region: Region = EU868, **how: object) -> EndDevice:
    device = end_device(otaa(version), region)
    settings = 0x80 if version.is_1_1 else 0
    accept = join_accept(device, device.join(NOW), settings=settings, **how)  # type: ignore[arg-type]
    heard = device.hear(in_window(device, accept))
    assert heard is not None
    assert isinstance(heard.what, Joined)
    return device


def session_of(device: EndDevice) -> DeviceSession:
    assert device.session is not None
    return device.session


def told(device: EndDevice, fcnt: int, *commands: bytes, region_port: int | None = None) -> tuple[str, ...]:
    """The device hears commands in RX1 of a new uplink; the names of what its next uplink answers."""
    device.send(NOW, f_port=1, payload=b"x")
    phy = downlink(session_of(device), fcnt, f_opts=b"".join(commands), f_port=region_port)
    assert device.hear(in_window(device, phy)) is not None
    return tuple(answer.name for answer in answers(device))


def answers(device: EndDevice):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """The MAC commands of the next uplink."""
    session = session_of(device)
    frame = parse(device.send(NOW, f_port=1, payload=b"y").phy_payload)
    assert isinstance(frame, DataFrame)
    f_opts = frame.f_opts
    if session.is_1_1:
        counter = FCnt32(session.fcnt_up - 1)
        f_opts = session.crypto.f_opts_1_1(f_opts, Direction.UP, session.dev_addr, counter, a_fcnt_down=False)
    return parse_commands(f_opts, Direction.UP, device.device.mac_version).commands


@pytest.mark.parametrize("version", [MacVersion.V1_0_3, MacVersion.V1_0_4, MacVersion.V1_1_0])
@pytest.mark.parametrize("window", [1, 2])
def test_a_join_accept_is_taken_in_either_window(version: MacVersion, window: int) -> None:
    device = end_device(otaa(version))
    emission = device.join(NOW)
    assert [one.opens_at - NOW for one in device.windows] == [5 * SECOND, 6 * SECOND]
    accept = join_accept(device, emission, settings=0x80 if version.is_1_1 else 0)
    heard = device.hear(in_window(device, accept, window))
    assert heard is not None
    assert heard.slot is Slot(window)
    assert session_of(device).dev_addr == ADDRESS
    assert session_of(device).is_1_1 is version.is_1_1


def test_a_device_of_1_1_speaks_1_0_to_a_network_without_opt_neg() -> None:
    device = end_device(otaa(MacVersion.V1_1_0))
    assert device.hear(in_window(device, join_accept(device, device.join(NOW)))) is not None
    assert not session_of(device).is_1_1


def test_a_join_nonce_that_does_not_grow_is_refused() -> None:
    device = joined(MacVersion.V1_0_4)
    again = join_accept(device, device.join(NOW), join_nonce=1)
    device.hear(in_window(device, again))
    assert device.flaws[Flaw.JOIN_NONCE] == 1


def test_a_join_accept_for_another_request_or_late_is_not_taken() -> None:
    device = end_device(otaa(MacVersion.V1_1_0))
    old = join_accept(device, device.join(NOW), settings=0x80)
    emission = device.join(NOW + 20 * SECOND)
    assert device.hear(in_window(device, old)) is None
    accept = join_accept(device, emission, settings=0x80)
    late = in_window(device, accept, starts_at=NOW + 25 * SECOND + 21_000)
    assert device.hear(late) is None
    assert not device.is_activated


def test_settings_and_channels_of_a_join_accept_are_obeyed() -> None:
    extra = (867_100_000, 867_300_000, 867_500_000, 867_700_000, 867_900_000)
    device = joined(MacVersion.V1_0_4, cf_list=build_frequencies(extra), delay=3)
    frequencies = {device.send(NOW, f_port=1).frequency_hz for _ in range(100)}
    assert frequencies == {868_100_000, 868_300_000, 868_500_000, *extra}
    assert device.windows[0].opens_at == NOW + 3 * SECOND


def test_a_cf_list_of_masks_says_which_channels_are_on() -> None:
    device = joined(MacVersion.V1_0_4, US915, cf_list=build_masks(frozenset({8, 9, 65})))
    device.mac.data_rate = 3
    assert {device.send(NOW, f_port=1).frequency_hz for _ in range(40)} == {903_900_000, 904_100_000}


@pytest.mark.parametrize(
    "changes",
    [
        {"starts_at": NOW + SECOND + 21_000},
        {"starts_at": NOW + SECOND - 21_000},
        {"frequency_hz": 869_525_000},
        {"data_rate": EU868.downlink_data_rates[0]},
        {"inverted": False},
    ],
    ids=["late", "early", "elsewhere", "slower", "as an uplink"],
)
def test_what_misses_the_windows_of_class_a_is_not_heard(changes: dict[str, Any]) -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    device.send(NOW, f_port=1)
    phy = downlink(session_of(device), 0)
    assert device.hear(msgspec.structs.replace(in_window(device, phy), **changes)) is None
    assert device.hear(in_window(device, phy, 1)) is not None


@pytest.mark.parametrize("version", [MacVersion.V1_0_3, MacVersion.V1_1_0])
def test_an_acknowledged_frame_is_over_and_the_second_window_stays_shut(version: MacVersion) -> None:
    device = end_device(abp(version))
    device.send(NOW, f_port=1, confirmed=True)
    assert session_of(device).confirmed_up == 0
    phy = downlink(session_of(device), 0, ack_of=0, f_port=2, payload=b"on")
    second = in_window(device, downlink(session_of(device), 1), 2)
    heard = device.hear(in_window(device, phy))
    assert heard is not None
    assert isinstance(heard.what, Downlink)
    assert (heard.what.payload, heard.what.ack, heard.what.a_fcnt_down) == (b"on", True, version.is_1_1)
    assert not device.waits_for_ack
    assert device.hear(second) is None


def test_the_counter_of_an_acknowledgement_is_bound_by_the_mic_of_1_1() -> None:
    device = end_device(abp(MacVersion.V1_1_0))
    device.send(NOW, f_port=1)
    device.send(NOW, f_port=1, confirmed=True)
    wrong = downlink(session_of(device), 0, ack_of=0)
    assert heard_as(device, wrong) is Flaw.BAD_MIC
    assert device.waits_for_ack


def heard_as(device: EndDevice, phy_payload: bytes) -> object:
    heard = device.hear(in_window(device, phy_payload))
    assert isinstance(heard, Heard)
    return heard.what


def test_a_counter_is_accepted_once_and_never_backwards() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    session = session_of(device)
    for fcnt, expected in ((5, Downlink), (5, Flaw.REPEATED_COUNTER), (3, Flaw.OVERTAKEN_COUNTER), (6, Downlink)):
        device.send(NOW, f_port=1)
        found = heard_as(device, downlink(session, fcnt))
        assert found is expected or isinstance(found, Downlink) is (expected is Downlink)
    assert device.flaws == {Flaw.REPEATED_COUNTER: 1, Flaw.OVERTAKEN_COUNTER: 1}


def test_the_two_counters_of_1_1_go_on_apart() -> None:
    device = end_device(abp(MacVersion.V1_1_0))
    session = session_of(device)
    for phy in (downlink(session, 0, f_port=1, payload=b"a"), downlink(session, 0), downlink(session, 1)):
        device.send(NOW, f_port=1)
        assert isinstance(heard_as(device, phy), Downlink)


def test_the_low_half_of_a_downlink_counter_rolls_over() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    for fcnt in (0xFFFF, 0x1_0000, 0x1_0001):
        device.send(NOW, f_port=1)
        assert isinstance(heard_as(device, downlink(session_of(device), fcnt)), Downlink)


def test_a_confirmed_downlink_is_acknowledged_by_the_next_frame() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    device.send(NOW, f_port=1)
    heard_as(device, downlink(session_of(device), 0, confirmed=True))
    frames = [parse(device.send(NOW, f_port=1).phy_payload) for _ in range(2)]
    assert [isinstance(frame, DataFrame) and frame.flags.ack for frame in frames] == [True, False]


def test_another_devices_downlink_and_noise_are_passed_over() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    other = end_device(abp(MacVersion.V1_0_4, "other"))
    device.send(NOW, f_port=1)
    assert device.hear(in_window(device, downlink(session_of(other), 0))) is None
    assert device.hear(in_window(device, b"\x60abc")) is None
    assert device.hear(in_window(device, b"\x20" + bytes(16))) is None
    assert not device.flaws


def test_a_downlink_longer_than_its_data_rate_allows_is_a_fault_of_the_network() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    device.send(NOW, f_port=1)
    phy = downlink(session_of(device), 0, f_port=1, payload=bytes(60))
    heard = device.hear(in_window(device, phy, 2))
    assert heard is not None
    assert heard.what is Flaw.TOO_LONG


def test_class_c_listens_on_rx2_at_any_time_once_the_network_has_heard_it() -> None:
    device = end_device(msgspec.structs.replace(abp(MacVersion.V1_0_4), device_class=DeviceClass.C))
    device.send(NOW, f_port=1)
    at_any_time = in_window(device, downlink(session_of(device), 0), 2, starts_at=NOW + 900 * SECOND)
    heard = device.hear(at_any_time)
    assert heard is not None
    assert heard.slot is Slot.RXC
    deaf = end_device(msgspec.structs.replace(abp(MacVersion.V1_0_4), device_class=DeviceClass.C))
    assert deaf.hear(at_any_time) is None


def test_a_block_of_link_adr_requests_is_taken_as_one_and_answered_as_often() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    request = command("LinkADRReq", DOWN, data_rate=3, tx_power=2, ch_mask=0x0003, ch_mask_cntl=0, nb_trans=2)
    assert told(device, 0, request, request) == ("LinkADRAns", "LinkADRAns")
    assert (device.mac.data_rate, device.mac.tx_power, device.mac.nb_trans) == (3, 2, 2)
    assert device.mac.channels.enabled == {0, 1}


@pytest.mark.parametrize(
    ("changes", "acks"),
    [
        ({"ch_mask": 0x0100}, (0, 0, 1)),
        ({"data_rate": 9}, (1, 0, 1)),
        ({"tx_power": 12}, (1, 1, 0)),
        ({"data_rate": 15, "tx_power": 15, "nb_trans": 0}, (1, 1, 1)),
    ],
)
def test_a_link_adr_request_is_obeyed_whole_or_not_at_all(changes: dict[str, int], acks: tuple[int, ...]) -> None:
    device = end_device(abp(MacVersion.V1_0_4, channels_hz=()))
    fields = {"data_rate": 3, "tx_power": 2, "ch_mask": 3, "ch_mask_cntl": 0, "nb_trans": 1} | changes
    device.send(NOW, f_port=1)
    heard_as(device, downlink(session_of(device), 0, f_opts=command("LinkADRReq", DOWN, **fields)))
    (answer,) = answers(device)
    assert tuple(value for _, value in answer.fields) == acks
    assert (device.mac.data_rate, device.mac.nb_trans) == (5, 1)


def test_answers_to_window_settings_are_repeated_until_a_downlink_comes() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    setup = command("RXParamSetupReq", DOWN, rx1_dr_offset=1, rx2_data_rate=3, frequency_hz=869_525_000)
    timing = command("RXTimingSetupReq", DOWN, delay=4)
    assert told(device, 0, setup, timing) == ("RXParamSetupAns", "RXTimingSetupAns")
    assert device.windows[0].opens_at == NOW + 4 * SECOND
    assert [window.data_rate for window in device.windows] == [4, 3]
    assert [answer.name for answer in answers(device)] == ["RXParamSetupAns", "RXTimingSetupAns"]
    heard_as(device, downlink(session_of(device), 1))
    assert answers(device) == ()


def test_channels_are_added_moved_and_taken_away_by_command() -> None:
    device = end_device(abp(MacVersion.V1_0_4, channels_hz=()))
    added = command("NewChannelReq", DOWN, ch_index=3, frequency_hz=867_100_000, max_dr=5, min_dr=0)
    moved = command("DlChannelReq", DOWN, ch_index=3, frequency_hz=867_900_000)
    assert told(device, 0, added, moved) == ("NewChannelAns", "DlChannelAns")
    device.mac.channels.enabled = frozenset({3})
    assert device.send(NOW, f_port=1).frequency_hz == 867_100_000
    assert device.windows[0].frequency_hz == 867_900_000
    default = command("NewChannelReq", DOWN, ch_index=0, frequency_hz=867_100_000, max_dr=5, min_dr=0)
    away = command("NewChannelReq", DOWN, ch_index=3, frequency_hz=0, max_dr=5, min_dr=0)
    device.mac.channels.enable_defaults()
    told(device, 1, default, away)
    assert device.mac.channels.enabled == {0, 1, 2}
    assert not device.mac.channels.exists(3)


def test_fixed_plans_do_not_know_new_channels_and_eu868_no_tx_params() -> None:
    device = joined(MacVersion.V1_0_4, US915)
    device.mac.data_rate = 3
    added = command("NewChannelReq", DOWN, ch_index=3, frequency_hz=903_900_000, max_dr=3, min_dr=0)
    moved = command("DlChannelReq", DOWN, ch_index=3, frequency_hz=923_900_000)
    assert told(device, 0, added, moved) == ()
    params = command("TxParamSetupReq", DOWN, downlink_dwell_time=1, uplink_dwell_time=1, max_eirp_index=5)
    assert told(end_device(abp(MacVersion.V1_0_4)), 0, params) == ()
    in_asia = joined(MacVersion.V1_0_4, AS923)
    assert told(in_asia, 0, params) == ("TxParamSetupAns",)
    assert (in_asia.mac.uplink_dwell, in_asia.mac.downlink_dwell, in_asia.mac.max_eirp_index) == (True, True, 5)


def test_duty_cycle_status_time_and_link_check() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    duty, status = command("DutyCycleReq", DOWN, max_duty_cycle=4), command("DevStatusReq", DOWN)
    assert told(device, 0, duty, status) == ("DutyCycleAns", "DevStatusAns")
    assert device.quiet_until > NOW
    device.mac.ask("LinkCheckReq")
    device.mac.ask("DeviceTimeReq")
    assert [answer.name for answer in answers(device)] == ["LinkCheckReq", "DeviceTimeReq"]
    told(device, 1, command("LinkCheckAns", DOWN, margin=20, gw_cnt=1))
    told(device, 2, command("DeviceTimeAns", DOWN, seconds=7, fractional=0))
    assert [name for name, _ in device.mac.answers] == ["LinkCheckAns", "DeviceTimeAns"]


def test_an_unknown_command_ends_the_list() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    assert told(device, 0, command("DevStatusReq", DOWN), b"\x7f", command("DevStatusReq", DOWN)) == ("DevStatusAns",)
    assert device.mac.unknown_cids == [0x7F]


@pytest.mark.parametrize("port", [None, 0])
def test_a_joined_device_of_1_1_says_rekey_until_it_is_confirmed(port: int | None) -> None:
    device = joined(MacVersion.V1_1_0)
    assert [answer.name for answer in answers(device)] == ["RekeyInd"]
    assert [answer.name for answer in answers(device)] == ["RekeyInd"]
    confirmation = command("RekeyConf", DOWN, minor=1)
    session = session_of(device)
    if port is None:
        phy = downlink(session, 0, f_opts=confirmation)
    else:
        phy = downlink(session, 0, f_port=0, payload=confirmation)
    heard_as(device, phy)
    assert answers(device) == ()


def test_abp_of_1_1_says_reset_and_class_c_of_1_1_its_mode() -> None:
    device = end_device(msgspec.structs.replace(abp(MacVersion.V1_1_0), device_class=DeviceClass.C))
    assert [answer.name for answer in answers(device)] == ["ResetInd", "DeviceModeInd"]


@pytest.mark.parametrize("rejoin_type", [0, 1, 2])
def test_a_rejoin_brings_a_new_session_and_type_2_keeps_the_radio_settings(rejoin_type: int) -> None:
    device = joined(MacVersion.V1_1_0, delay=2)
    device.mac.data_rate = 3
    before = session_of(device)
    emission = device.rejoin(NOW, rejoin_type)
    assert device.windows[0].opens_at == NOW + 5 * SECOND
    accept = join_accept(device, emission, join_nonce=2, settings=0x80, delay=1)
    assert isinstance(heard_as(device, accept), Joined)
    assert session_of(device) is not before
    assert (device.mac.data_rate, device.mac.rx1_delay) == ((3, 2) if rejoin_type == 2 else (5, 1))


def test_the_network_can_order_a_rejoin_and_its_period() -> None:
    device = joined(MacVersion.V1_1_0)
    forced = command("ForceRejoinReq", DOWN, period=0, max_retries=0, rejoin_type=2, data_rate=5)
    every = command("RejoinParamSetupReq", DOWN, max_time_n=0, max_count_n=0)
    limits = command("ADRParamSetupReq", DOWN, limit_exp=2, delay_exp=1)
    told(device, 0, forced, every, limits)
    ordered = device.due_rejoin
    assert ordered == 2
    device.rejoin(NOW, ordered)
    assert device.due_rejoin is None
    assert (device.mac.adr_ack_limit, device.mac.adr_ack_delay) == (4, 2)
    for _ in range(16):
        device.send(NOW, f_port=1)
    assert device.due_rejoin == 0


def test_a_silent_network_is_asked_and_then_reached_for_with_more_power_and_slower() -> None:
    device = end_device(abp(MacVersion.V1_0_4, channels_hz=()))
    device.mac.adr_ack_limit, device.mac.adr_ack_delay, device.mac.tx_power = 4, 2, 3
    device.mac.channels.enabled = frozenset({0})
    asked = []
    for _ in range(6):
        frame = parse(device.send(NOW, f_port=1).phy_payload)
        assert isinstance(frame, DataFrame)
        asked.append(frame.flags.adr_ack_req)
    assert asked == [False] * 4 + [True] * 2
    device.send(NOW, f_port=1)
    assert (device.mac.tx_power, device.mac.data_rate) == (0, 5)
    for _ in range(2 * 6):
        device.send(NOW, f_port=1)
    assert device.mac.data_rate == 0
    assert device.mac.channels.enabled == {0, 1, 2}


def test_a_device_without_keys_says_so() -> None:
    device = end_device(abp(MacVersion.V1_0_4))
    with pytest.raises(NoRootKeyError):
        device.join(NOW)
    with pytest.raises(NoRootKeyError):
        device.leave()
    with pytest.raises(NotActivatedError):
        device.repeat(NOW)
    fresh = end_device(otaa(MacVersion.V1_1_0))
    with pytest.raises(NotActivatedError):
        fresh.send(NOW)
    with pytest.raises(NoRootKeyError):
        fresh.rejoin(NOW, 0)
    member = joined(MacVersion.V1_0_4)
    member.leave()
    assert not member.is_activated
