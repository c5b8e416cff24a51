"""One test at least for every verdict by its name, and for every way a counter can be judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorabridge.lorawan import crypto as crypto_module
from lorabridge.lorawan.air import CrcStatus, FskDataRate, LoraDataRate
from lorabridge.lorawan.crypto import MicContext, PreparedKey, SessionCrypto, derive_js_int_key, join_mic
from lorabridge.lorawan.decision import Decision, Network
from lorabridge.lorawan.device import Activation, CounterPolicy, Device, SessionKeys
from lorabridge.lorawan.engine import MAX_MIC_ATTEMPTS, MAX_SESSIONS_PER_DEV_ADDR
from lorabridge.lorawan.events import SecurityEvent, Uplink, UplinkCopy
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.session import MAX_COPIES, MAX_FCNT_GAP, MAX_RETRANSMISSIONS
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, FCnt32, MacVersion, NetID
from lorabridge.lorawan.verdict import Reason, Verdict
from tests.lorawan.builders import (
    DEV_ADDR,
    GATEWAY,
    KEYS_1_0,
    KEYS_1_1,
    OTHER_GATEWAY,
    START,
    Bridge,
    device,
    device_1_1,
    heard,
    key,
    uplink,
)

ABP = device()
CONFIRM = device(counter_policy=CounterPolicy.CONFIRM)
OFF = device(counter_policy=CounterPolicy.OFF)
ACK, ADR, ADR_ACK_REQ, CLASS_B = 0x20, 0x80, 0x40, 0x10


def only_uplink(decision: Decision) -> Uplink:
    """The one event of an accepted frame."""
    (event,) = decision.events
    assert isinstance(event, Uplink)
    return event


def is_inert(decision: Decision) -> bool:
    """Whether a decision changes, proves and tells nothing."""
    return (decision.session, decision.heard, decision.device, decision.events, decision.fcnt32) == (
        None,
        None,
        None,
        (),
        None,
    )


# ---- what is decided without a key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("crc", [CrcStatus.BAD, CrcStatus.NONE])
def test_radio_crc_is_asked_before_anything_is_read(crc: CrcStatus) -> None:
    for phy_payload in (uplink(ABP, 1), b"", bytes(300)):
        decision = Bridge(ABP).hear(phy_payload, crc=crc)
        assert decision.verdict is Verdict.RADIO_CRC
        assert is_inert(decision)


def test_malformed_carries_its_reason_and_nothing_else() -> None:
    decision = Bridge(ABP).hear(bytes(4))
    assert (decision.verdict, decision.reason) == (Verdict.MALFORMED, Reason.TOO_SHORT)
    assert decision.detail
    assert is_inert(decision)


@pytest.mark.parametrize("m_type", [MType.JOIN_ACCEPT, MType.UNCONFIRMED_DATA_DOWN, MType.CONFIRMED_DATA_DOWN])
def test_wrong_direction_is_a_downlink_on_the_air(m_type: MType) -> None:
    phy_payload = bytes([m_type << 5]) + DEV_ADDR.to_wire() + bytes(12)
    decision = Bridge(ABP).hear(phy_payload)
    assert decision.verdict is Verdict.WRONG_DIRECTION
    assert is_inert(decision)


def test_proprietary_proves_nothing() -> None:
    decision = Bridge(ABP).hear(b"\xe0anything")
    assert decision.verdict is Verdict.PROPRIETARY
    assert is_inert(decision)


NETWORK = Network(net_ids=(NetID(0x000013),), dev_addr_prefixes=((0x4800_0000, 12), (0x4900_0001, 32)))


@pytest.mark.parametrize(
    ("dev_addr", "verdict"),
    [
        (0x2600_0000, Verdict.UNKNOWN_DEVICE),
        (0x27FF_FFFF, Verdict.UNKNOWN_DEVICE),
        (0x25FF_FFFF, Verdict.FOREIGN),
        (0x2800_0000, Verdict.FOREIGN),
        (0x480F_FFFF, Verdict.UNKNOWN_DEVICE),
        (0x4810_0000, Verdict.FOREIGN),
        (0x4900_0001, Verdict.UNKNOWN_DEVICE),
        (0x4900_0000, Verdict.FOREIGN),
        (0xFFFF_FFFF, Verdict.FOREIGN),
    ],
)
def test_unknown_device_is_of_our_network_and_foreign_of_another(dev_addr: int, verdict: Verdict) -> None:
    decision = Bridge(ABP, network=NETWORK).hear(uplink(device(dev_addr=DevAddr(dev_addr)), 1))
    assert decision.verdict is verdict
    assert decision.dev_addr == dev_addr
    assert is_inert(decision)


def test_what_is_ours_can_change_while_we_listen() -> None:
    bridge, stranger = Bridge(ABP), uplink(device(dev_addr=DevAddr(0x2600_0000)), 1)
    assert bridge.hear(stranger).verdict is Verdict.FOREIGN
    bridge.engine.own(NETWORK)
    assert bridge.hear(stranger).verdict is Verdict.UNKNOWN_DEVICE


# ---- the MIC ---------------------------------------------------------------------------------------------------------


def test_bad_mic_is_an_address_of_ours_and_no_key_of_ours() -> None:
    decision = Bridge(ABP).hear(uplink(device(session_keys=KEYS_1_1), 1))
    assert decision.verdict is Verdict.BAD_MIC
    assert decision.dev_addr == DEV_ADDR
    assert is_inert(decision)


def test_several_devices_on_one_address_are_told_apart_by_the_mic() -> None:
    keys = [
        SessionKeys(f_nwk_s_int_key=key(n), s_nwk_s_int_key=key(n), nwk_s_enc_key=key(n), app_s_key=key(n + 100))
        for n in range(20, 20 + MAX_SESSIONS_PER_DEV_ADDR)
    ]
    senders = [device(name=f"d{n}", dev_eui=EUI64(n), session_keys=k) for n, k in enumerate(keys, 1)]
    bridge = Bridge(*senders)
    for n, sender in enumerate(senders):
        decision = bridge.hear(uplink(sender, 1000 + n, b"from %d" % n), after_s=10 * n)
        assert decision.verdict is Verdict.ACCEPTED
        assert decision.device == sender.ref
        assert only_uplink(decision).payload == b"from %d" % n
    assert sorted(session.fcnt_up or 0 for session in bridge.sessions.values()) == list(range(1000, 1000 + len(keys)))


class CountedCmac:
    """Counts the CMACs that are computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        compute = PreparedKey.cmac

        def counted(prepared: PreparedKey, message: bytes) -> bytes:
            self.count += 1
            return compute(prepared, message)

        monkeypatch.setattr(crypto_module.PreparedKey, "cmac", counted)


@pytest.mark.parametrize("last", [None, 0, 5, 0x1_0005, 0x3_0005, 0xFFFF_FFFF])
def test_the_mic_attempts_for_one_frame_are_bounded(last: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [SessionKeys(f_nwk_s_int_key=key(n), s_nwk_s_int_key=key(n), nwk_s_enc_key=key(n)) for n in range(20, 36)]
    bridge = Bridge(*(device(dev_eui=EUI64(n), session_keys=k) for n, k in enumerate(keys)))
    if last is not None:
        for entry in bridge.table.at(DEV_ADDR):
            session = bridge.table.session(entry)
            bridge.table.advance([msgspec.structs.replace(session, generation=0, fcnt_up=FCnt32(last))])
    counted = CountedCmac(monkeypatch)
    forged = uplink(ABP, 5)
    counted.count = 0
    assert bridge.engine.judge_all([heard(forged)])[0].verdict is Verdict.BAD_MIC
    assert 0 < counted.count <= MAX_MIC_ATTEMPTS == 64


def test_the_second_half_of_a_mic_of_1_1_is_tried_only_after_the_first_was_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bridge = Bridge(device_1_1())
    phy_payload = uplink(device_1_1(), 5, context=MicContext(0, 5, 15))
    counted = CountedCmac(monkeypatch)
    forged = phy_payload[:-1] + bytes([phy_payload[-1] ^ 1])
    assert bridge.engine.judge_all([heard(forged, frequency_hz=867_100_000)])[0].verdict is Verdict.BAD_MIC
    assert counted.count <= 4
    counted.count = 0
    assert bridge.hear(phy_payload, frequency_hz=867_100_000).verdict is Verdict.ACCEPTED
    assert counted.count <= 1 + 13


@settings(max_examples=200)
@given(
    st.sampled_from([ABP, CONFIRM, OFF, device_1_1()]),
    st.integers(0, 40),
    st.integers(0, 2**20),
    st.integers(-2, 2),
)
def test_a_flipped_bit_never_moves_a_session_nor_makes_an_event(
    sender: Device, fcnt32: int, position: int, step: int
) -> None:
    bridge = Bridge(sender)
    assert bridge.hear(uplink(sender, fcnt32 + 2)).verdict is Verdict.ACCEPTED
    flipped = bytearray(uplink(sender, fcnt32 + 2 + step, b"next"))
    position %= 8 * len(flipped)
    flipped[position // 8] ^= 1 << position % 8
    decision = bridge.hear(bytes(flipped), after_s=60)
    assert is_inert(decision)
    assert decision.verdict not in {Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.RETRANSMISSION}


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_noise_moves_nothing(noise: list[bytes]) -> None:
    bridge = Bridge(ABP, device_1_1(dev_eui=EUI64(2)), network=Network(dev_addr_prefixes=((0, 0),)))
    aimed = [bytes([0x40]) + DEV_ADDR.to_wire() + data for data in noise]
    assert all(is_inert(decision) for decision in bridge.hear_all(*(heard(data) for data in noise + aimed)))
    assert bridge.sessions == {}


# ---- accepted --------------------------------------------------------------------------------------------------------


def test_accepted_says_everything_of_the_frame() -> None:
    phy_payload = uplink(ABP, 70_000, b"21.5", 42, b"\x02", ADR | ADR_ACK_REQ | ACK | CLASS_B, MType.CONFIRMED_DATA_UP)
    bridge = Bridge(device(tags=(("room", "2"),)))
    decision = bridge.hear(phy_payload, tmst=123)
    event = only_uplink(decision)
    assert decision.verdict is Verdict.ACCEPTED
    assert (decision.fcnt32, event.fcnt32, event.f_port, event.payload) == (70_000, 70_000, 42, b"21.5")
    assert (event.f_opts, event.sealed, event.counter_reset) == (b"\x02", False, False)
    assert all([event.confirmed, event.adr, event.adr_ack_req, event.ack, event.class_b])
    assert (event.dev_addr, event.mac_version, event.device.tags) == (DEV_ADDR, MacVersion.V1_0_4, (("room", "2"),))
    assert event.reception is decision.reception
    assert len(event.id) == 32
    session = decision.session
    assert session is not None
    assert (session.fcnt_up, session.generation, session.last_gateway, session.last_tmst) == (70_000, 0, GATEWAY, 123)
    quiet = only_uplink(bridge.hear(uplink(ABP, 70_001), after_s=9))
    assert not any([quiet.confirmed, quiet.adr, quiet.adr_ack_req, quiet.ack, quiet.class_b])


def test_a_device_without_app_s_key_is_accepted_sealed() -> None:
    sender = device(session_keys=msgspec.structs.replace(KEYS_1_0, app_s_key=None))
    phy_payload = uplink(ABP, 1, b"secret")
    event = only_uplink(Bridge(sender).hear(phy_payload))
    assert event.sealed
    assert event.payload == phy_payload[9:-4] != b"secret"


def test_the_frame_id_names_a_reception_and_the_uplink_id_a_frame() -> None:
    phy_payload = uplink(ABP, 1)
    receptions = [heard(phy_payload), heard(phy_payload, 0.1), heard(phy_payload, 0, OTHER_GATEWAY)]
    decisions = Bridge(ABP).hear_all(*receptions)
    assert len({decision.frame_id for decision in decisions}) == 3
    assert all(len(decision.frame_id) == 12 for decision in decisions)
    uplink_id = only_uplink(decisions[0]).id
    assert [event.uplink_id for d in decisions[1:] for event in d.events if isinstance(event, UplinkCopy)] == [
        uplink_id
    ] * 2
    assert only_uplink(Bridge(ABP).hear(phy_payload, 99)).id == uplink_id


@pytest.mark.parametrize("first", [0, 1, 0xFFFF, 0x1_0000, 0x3_FFFF])
def test_a_device_is_taken_up_at_whatever_counter_it_is_first_heard(first: int) -> None:
    assert Bridge(ABP).hear(uplink(ABP, first)).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("last", [0xFFFF, 0x1_FFFF, 0x3_FFFE])
def test_the_low_half_rolls_over(last: int) -> None:
    bridge = Bridge(ABP)
    assert [bridge.hear(uplink(ABP, last + n), 10 * n).fcnt32 for n in range(4)] == list(range(last, last + 4))


def at_counter(bridge: Bridge, last: int) -> None:
    """Put the one session of a bridge where it would take years to get."""
    (entry,) = bridge.table.at(DEV_ADDR)
    session = msgspec.structs.replace(bridge.table.session(entry), generation=0, fcnt_up=FCnt32(last))
    bridge.sessions[session.session_id] = session
    bridge.table.advance([session])


def test_the_counter_ends_at_the_top_of_its_32_bits() -> None:
    bridge = Bridge(ABP)
    at_counter(bridge, 0xFFFF_FFFE)
    assert bridge.hear(uplink(ABP, 0xFFFF_FFFF)).verdict is Verdict.ACCEPTED
    assert bridge.hear(uplink(ABP, 0), 60).verdict is Verdict.COUNTER_RESET


@pytest.mark.parametrize(
    ("step", "verdict"), [(MAX_FCNT_GAP, Verdict.ACCEPTED), (MAX_FCNT_GAP + 1, Verdict.COUNTER_GAP)]
)
def test_counter_gap_is_a_step_beyond_what_the_version_allows(step: int, verdict: Verdict) -> None:
    sender = device(mac_version=MacVersion.V1_0_3)
    bridge = Bridge(sender)
    bridge.hear(uplink(sender, 100))
    decision = bridge.hear(uplink(sender, 100 + step), 60)
    assert decision.verdict is verdict
    if verdict is Verdict.COUNTER_GAP:
        (event,) = decision.events
        assert isinstance(event, SecurityEvent)
        assert (event.verdict, event.device, event.fcnt32) == (verdict, sender.ref, 100 + step)
        assert decision.session is None


def test_from_1_0_4_on_any_step_within_reach_is_accepted() -> None:
    bridge = Bridge(ABP)
    bridge.hear(uplink(ABP, 100))
    assert bridge.hear(uplink(ABP, 100 + 0xFFFF), 60).verdict is Verdict.ACCEPTED
    assert bridge.hear(uplink(ABP, 100 + 3 * 0x1_0000), 120).verdict is Verdict.BAD_MIC


# ---- the same frame again --------------------------------------------------------------------------------------------


def is_copy(decision: Decision) -> bool:
    return len(decision.events) == 1 and isinstance(decision.events[0], UplinkCopy)


@pytest.mark.parametrize(
    ("gateway", "after_s", "tmst", "verdict"),
    [
        (OTHER_GATEWAY, 0.0, None, Verdict.DUPLICATE),
        (OTHER_GATEWAY, 1.5, None, Verdict.DUPLICATE),
        (OTHER_GATEWAY, -1.5, None, Verdict.DUPLICATE),
        (OTHER_GATEWAY, 1.6, None, Verdict.RETRANSMISSION),
        (OTHER_GATEWAY, 600.0, None, Verdict.RETRANSMISSION),
        (OTHER_GATEWAY, 600.1, None, Verdict.REPLAY),
        (GATEWAY, 0.0, None, Verdict.DUPLICATE),
        (GATEWAY, 0.9, None, Verdict.DUPLICATE),
        (GATEWAY, 0.91, None, Verdict.RETRANSMISSION),
        (GATEWAY, 1.4, None, Verdict.RETRANSMISSION),
        (GATEWAY, 600.1, None, Verdict.REPLAY),
        (GATEWAY, 5.0, 0xFFFF_FFF0, Verdict.DUPLICATE),
        (GATEWAY, 5.0, 0x10, Verdict.DUPLICATE),
        (GATEWAY, 5.0, 899_983, Verdict.DUPLICATE),
        (GATEWAY, 0.0, 899_993, Verdict.RETRANSMISSION),
        (GATEWAY, 0.0, 0xFFFF_FFFF - 899_900, Verdict.DUPLICATE),
        (GATEWAY, 0.0, 0x8000_0000, Verdict.RETRANSMISSION),
    ],
)
def test_duplicate_retransmission_and_replay_are_told_by_place_and_time(
    gateway: EUI64, after_s: float, tmst: int | None, verdict: Verdict
) -> None:
    bridge, phy_payload = Bridge(ABP), uplink(ABP, 8)
    bridge.hear(phy_payload, tmst=0xFFFF_FFF8)
    decision = bridge.hear(phy_payload, after_s, gateway, tmst=tmst)
    assert decision.verdict is verdict
    assert is_copy(decision) is (verdict is not Verdict.REPLAY)
    if verdict is Verdict.REPLAY:
        assert decision.session is None
        assert isinstance(decision.events[0], SecurityEvent)


def test_a_late_copy_of_the_frame_before_the_last_is_a_duplicate_inside_the_window_and_a_replay_after() -> None:
    bridge, first = Bridge(ABP), uplink(ABP, 1)
    bridge.hear(first)
    bridge.hear(uplink(ABP, 2), 0.5)
    late = bridge.hear(first, 1.5, OTHER_GATEWAY)
    assert late.verdict is Verdict.DUPLICATE
    assert late.session is None
    assert is_copy(late)
    assert bridge.hear(first, 1.6, OTHER_GATEWAY).verdict is Verdict.REPLAY


def test_the_window_is_the_operators() -> None:
    bridge, phy_payload = Bridge(ABP, network=Network(duplicate_window_ns=50_000_000)), uplink(ABP, 1)
    bridge.hear(phy_payload)
    assert bridge.hear(phy_payload, 0.05, OTHER_GATEWAY).verdict is Verdict.DUPLICATE
    assert bridge.hear(phy_payload, 0.06, OTHER_GATEWAY).verdict is Verdict.RETRANSMISSION


def test_a_device_repeats_a_frame_fifteen_times_and_the_next_is_a_replay() -> None:
    bridge, phy_payload = Bridge(ABP), uplink(ABP, 1)
    verdicts = [bridge.hear(phy_payload, 3 * n).verdict for n in range(MAX_RETRANSMISSIONS + 2)]
    assert verdicts == [Verdict.ACCEPTED, *[Verdict.RETRANSMISSION] * MAX_RETRANSMISSIONS, Verdict.REPLAY]
    assert bridge.hear(uplink(ABP, 2), 100).verdict is Verdict.ACCEPTED
    assert bridge.hear(uplink(ABP, 2), 103).verdict is Verdict.RETRANSMISSION


def test_the_copies_that_are_reported_of_one_frame_are_bounded() -> None:
    bridge, phy_payload = Bridge(ABP), uplink(ABP, 1)
    bridge.hear(phy_payload)
    copies = [bridge.hear(phy_payload, 0.001, EUI64(n)) for n in range(1, 3 * MAX_COPIES)]
    assert all(decision.verdict is Verdict.DUPLICATE for decision in copies)
    assert sum(len(decision.events) for decision in copies) == MAX_COPIES
    assert not any(decision.events for decision in copies[MAX_COPIES:])


def test_replay_is_an_old_frame_whose_mic_we_remember() -> None:
    bridge = Bridge(ABP)
    frames = [uplink(ABP, n) for n in range(100, 103)]
    for n, phy_payload in enumerate(frames):
        bridge.hear(phy_payload, 10 * n)
    for phy_payload in frames[:2]:
        decision = bridge.hear(phy_payload, 60)
        assert decision.verdict is Verdict.REPLAY
        assert decision.session is None
        assert isinstance(decision.events[0], SecurityEvent)


@pytest.mark.parametrize("sender", [ABP, CONFIRM])
@pytest.mark.parametrize("old", [40, 99, 0x1_0000 - 1])
def test_replay_is_an_old_frame_that_we_never_heard(sender: Device, old: int) -> None:
    bridge = Bridge(sender)
    bridge.hear(uplink(sender, 0x1_0010))
    decision = bridge.hear(uplink(sender, old), 60)
    assert (decision.verdict, decision.fcnt32, decision.session) == (Verdict.REPLAY, old, None)


@pytest.mark.parametrize("sender", [ABP, CONFIRM, OFF])
def test_the_first_frames_of_a_count_are_remembered_for_ever(sender: Device) -> None:
    bridge = Bridge(sender)
    early = [uplink(sender, n) for n in (0, 3, 31)]
    for n, phy_payload in enumerate(early):
        bridge.hear(phy_payload, 10 * n)
    for n in range(40, 80):
        bridge.hear(uplink(sender, n), 10 * n)
    for phy_payload in early:
        assert bridge.hear(phy_payload, 5000).verdict is Verdict.REPLAY


# ---- counter resets --------------------------------------------------------------------------------------------------


def again(sender: Device, fcnt32: int) -> bytes:
    """A frame of the count after a reset: the same counter, another payload."""
    return uplink(sender, fcnt32, b"again")


def test_counter_reset_is_refused_by_strict_and_told() -> None:
    bridge = Bridge(ABP)
    bridge.hear(uplink(ABP, 0))
    bridge.hear(uplink(ABP, 500), 10)
    (session_id,) = bridge.sessions
    for n in range(3):
        decision = bridge.hear(again(ABP, n), 60 + n)
        assert decision.verdict is Verdict.COUNTER_RESET
        assert isinstance(decision.events[0], SecurityEvent)
        assert "strict" in decision.detail
        assert decision.heard is None
        assert decision.session is not None
        assert decision.session.fcnt_up == 500
    same = bridge.hear(again(ABP, 2), 90)
    assert (same.verdict, bridge.sessions[session_id].fcnt_up) == (Verdict.COUNTER_RESET, 500)
    assert bridge.hear(uplink(ABP, 501), 100).verdict is Verdict.ACCEPTED


def test_a_reset_is_proven_by_another_mic_under_a_counter_that_we_remember() -> None:
    bridge = Bridge(ABP)
    for n in range(100, 105):
        bridge.hear(uplink(ABP, n), n)
    assert bridge.hear(again(ABP, 102), 300).verdict is Verdict.COUNTER_RESET
    assert bridge.hear(again(ABP, 104), 301).verdict is Verdict.COUNTER_RESET
    assert bridge.hear(again(ABP, 99), 302).verdict is Verdict.REPLAY


def confirming(bridge: Bridge, *counters: int, start_s: float = 1000) -> list[Verdict]:
    return [bridge.hear(again(CONFIRM, n), start_s + 10 * i).verdict for i, n in enumerate(counters)]


HELD, TAKEN = Verdict.COUNTER_RESET, Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("counters", "verdicts"),
    [
        ((0, 1, 2, 3), (HELD, HELD, TAKEN, TAKEN)),
        ((5, 6, 7), (HELD, HELD, TAKEN)),
        ((0, 2, 3, 4), (HELD, HELD, HELD, TAKEN)),
        ((0, 1, 3, 4, 5), (HELD, HELD, HELD, HELD, TAKEN)),
        ((0, 1, 0), (HELD, HELD, Verdict.REPLAY)),
        ((0, 1, 1, 2), (HELD, HELD, HELD, TAKEN)),
        ((30, 31, 32), (HELD, HELD, TAKEN)),
        ((31, 40, 41, 42), (HELD, HELD, HELD, TAKEN)),
        ((32, 33, 34), (Verdict.REPLAY,) * 3),
        ((5, 3, 4, 5), (HELD, HELD, HELD, Verdict.REPLAY)),
    ],
)
def test_confirm_takes_a_reset_after_three_consecutive_new_frames(
    counters: tuple[int, ...], verdicts: tuple[Verdict, ...]
) -> None:
    bridge = Bridge(CONFIRM)
    bridge.hear(uplink(CONFIRM, 5000))
    assert tuple(confirming(bridge, *counters)) == verdicts


def test_the_first_frame_of_a_confirmed_count_says_so_and_the_next_does_not() -> None:
    bridge = Bridge(CONFIRM)
    bridge.hear(uplink(CONFIRM, 5000))
    confirming(bridge, 0, 1)
    first, second = bridge.hear(again(CONFIRM, 2), 1100), bridge.hear(again(CONFIRM, 3), 1110)
    assert only_uplink(first).counter_reset
    assert not only_uplink(second).counter_reset
    assert first.session is not None
    assert (first.session.resets, first.session.reset, first.session.fcnt_up) == (1, None, 2)


def test_one_confirming_frame_can_be_enough() -> None:
    sender = device(counter_policy=CounterPolicy.CONFIRM, confirm_frames=1)
    bridge = Bridge(sender)
    bridge.hear(uplink(sender, 5000))
    assert bridge.hear(again(sender, 0), 60).verdict is Verdict.ACCEPTED


def test_a_frame_gets_another_id_in_another_count() -> None:
    bridge = Bridge(OFF)
    before = only_uplink(bridge.hear(uplink(OFF, 7))).id
    bridge.hear(uplink(OFF, 500), 10)
    bridge.hear(again(OFF, 0), 20)
    assert only_uplink(bridge.hear(uplink(OFF, 7), 30)).id != before


def test_confirm_is_not_moved_by_replayed_frames_of_the_old_count() -> None:
    bridge = Bridge(CONFIRM)
    old = [uplink(CONFIRM, n) for n in range(60)]
    for n, phy_payload in enumerate(old):
        bridge.hear(phy_payload, 10 * n)
    verdicts = {bridge.hear(phy_payload, 10_000 + n).verdict for n, phy_payload in enumerate(old)}
    assert verdicts == {Verdict.REPLAY}
    (session,) = bridge.sessions.values()
    assert (session.fcnt_up, session.resets, session.reset) == (59, 0, None)


def test_confirm_is_not_moved_by_replaying_a_held_frame() -> None:
    bridge = Bridge(CONFIRM)
    bridge.hear(uplink(CONFIRM, 5000))
    assert confirming(bridge, 0, 0, 0, 0) == [HELD] * 4
    assert confirming(bridge, 1, 1, 0, 1, start_s=2000) == [HELD, HELD, Verdict.REPLAY, HELD]
    (session,) = bridge.sessions.values()
    assert (session.fcnt_up, session.resets) == (5000, 0)


def test_frames_of_the_count_before_are_replays_in_the_count_after() -> None:
    bridge = Bridge(CONFIRM)
    old = [uplink(CONFIRM, n) for n in (0, 1, 2, 3, 50, 5000)]
    for n, phy_payload in enumerate(old):
        bridge.hear(phy_payload, 10 * n)
    assert confirming(bridge, 0, 1, 2) == [HELD, HELD, TAKEN]
    assert [bridge.hear(phy_payload, 3000).verdict for phy_payload in old] == [Verdict.REPLAY] * 6
    assert confirming(bridge, 0, 1, start_s=4000) == [Verdict.REPLAY] * 2
    assert confirming(bridge, 3, 4, start_s=5000) == [TAKEN] * 2


def test_off_takes_a_reset_at_once() -> None:
    bridge = Bridge(OFF)
    bridge.hear(uplink(OFF, 5000))
    decision = bridge.hear(uplink(OFF, 40), 60)
    assert decision.verdict is Verdict.ACCEPTED
    assert only_uplink(decision).counter_reset
    assert decision.session is not None
    assert (decision.session.fcnt_up, decision.session.resets) == (40, 1)


def test_what_is_remembered_of_the_count_before_does_not_stand_in_for_the_count_after() -> None:
    bridge = Bridge(OFF)
    for n in range(12):
        bridge.hear(uplink(OFF, n), 10 * n)
    for n in range(12):
        assert bridge.hear(again(OFF, n), 1000 + 10 * n).verdict is Verdict.ACCEPTED
        assert bridge.hear(again(OFF, n), 1000 + 10 * n, OTHER_GATEWAY).verdict is Verdict.DUPLICATE


def test_the_first_frames_of_the_count_after_are_remembered_in_place_of_those_before() -> None:
    bridge = Bridge(OFF)
    for n in range(40):
        bridge.hear(uplink(OFF, n), 10 * n)
    after = [again(OFF, n) for n in range(60)]
    for n, phy_payload in enumerate(after):
        bridge.hear(phy_payload, 1000 + 10 * n)
    for phy_payload in after[:32]:
        assert bridge.hear(phy_payload, 5000).verdict is Verdict.REPLAY


def test_a_refused_count_is_followed_beyond_the_low_counters() -> None:
    bridge = Bridge(ABP)
    bridge.hear(uplink(ABP, 5000))
    sent = [(31, HELD), (40, HELD), (40, HELD), (300, HELD), (200, Verdict.REPLAY), (4000, HELD)]
    for seconds, (fcnt32, verdict) in enumerate(sent, 100):
        assert bridge.hear(again(ABP, fcnt32), seconds).verdict is verdict
    assert bridge.hear(again(ABP, 5001), 300).verdict is Verdict.ACCEPTED


def test_copies_carry_the_id_of_their_uplink_in_every_count() -> None:
    bridge = Bridge(OFF)
    for seconds, phy_payload in enumerate((uplink(OFF, 500), again(OFF, 0), again(OFF, 1), uplink(OFF, 0))):
        event = only_uplink(bridge.hear(phy_payload, 10 * seconds))
        (copy,) = bridge.hear(phy_payload, 10 * seconds + 0.1, OTHER_GATEWAY).events
        assert isinstance(copy, UplinkCopy)
        assert copy.uplink_id == event.id


def test_a_held_frame_is_remembered_within_its_batch() -> None:
    bridge = Bridge(CONFIRM)
    bridge.hear(uplink(CONFIRM, 5000))
    batch = [heard(again(CONFIRM, n), 60 + seconds) for seconds, n in enumerate((0, 1, 0, 1))]
    assert [decision.verdict for decision in bridge.hear_all(*batch)] == [HELD, HELD, Verdict.REPLAY, HELD]


def test_only_confirm_keeps_a_history() -> None:
    for sender in (ABP, OFF):
        bridge = Bridge(sender)
        bridge.hear(uplink(sender, 1))
        assert bridge.history.frames == set()
    bridge = Bridge(CONFIRM)
    bridge.hear(uplink(CONFIRM, 1))
    assert len(bridge.history.frames) == 1


# ---- LoRaWAN 1.1 -----------------------------------------------------------------------------------------------------


V1_1 = device_1_1()


@pytest.mark.parametrize(
    ("sender", "tx_ch", "frequency_hz"),
    [
        (V1_1, 0, 868_100_000),
        (V1_1, 2, 868_500_000),
        (V1_1, 3, 867_100_000),
        (V1_1, 15, 867_100_000),
        (device_1_1(channels_hz=(867_100_000, 867_300_000)), 4, 867_300_000),
        (device_1_1(channels_hz=(867_100_000,)), 9, 867_900_000),
    ],
)
def test_the_mic_of_1_1_binds_the_channel(sender: Device, tx_ch: int, frequency_hz: int) -> None:
    phy_payload = uplink(sender, 1, context=MicContext(0, 5, tx_ch))
    assert Bridge(sender).hear(phy_payload, frequency_hz=frequency_hz).verdict is Verdict.ACCEPTED
    moved = Bridge(sender).hear(phy_payload, frequency_hz=868_300_000)
    assert moved.verdict is Verdict.BAD_MIC
    assert is_inert(moved)


def test_the_mic_of_1_1_binds_the_data_rate() -> None:
    phy_payload = uplink(V1_1, 1, context=MicContext(0, 0, 0))
    assert Bridge(V1_1).hear(phy_payload, data_rate=LoraDataRate(12, 125_000)).verdict is Verdict.ACCEPTED
    for other in (LoraDataRate(7, 125_000), LoraDataRate(6, 125_000), FskDataRate(1)):
        assert Bridge(V1_1).hear(phy_payload, data_rate=other).verdict is Verdict.BAD_MIC


def test_without_a_region_no_mic_of_1_1_can_be_verified_and_the_bridges_region_will_do() -> None:
    sender = device_1_1(region=None)
    assert Bridge(sender).hear(uplink(sender, 1)).verdict is Verdict.BAD_MIC
    assert Bridge(sender, region="EU868").hear(uplink(sender, 1)).verdict is Verdict.ACCEPTED


def test_a_fixed_plan_knows_all_its_channels() -> None:
    sender = device_1_1(region="US915")
    phy_payload = uplink(sender, 1, context=MicContext(0, 3, 8))
    assert Bridge(sender).hear(phy_payload, frequency_hz=903_900_000).verdict is Verdict.ACCEPTED
    assert Bridge(sender).hear(phy_payload, frequency_hz=903_950_000).verdict is Verdict.BAD_MIC


@pytest.mark.parametrize(
    ("flags", "conf_fcnt", "verdict"),
    [(ACK, 777, Verdict.ACCEPTED), (ACK, 0, Verdict.BAD_MIC), (0, 0, Verdict.ACCEPTED), (0, 777, Verdict.BAD_MIC)],
)
def test_the_acknowledged_counter_enters_the_mic_of_a_frame_that_acknowledges(
    flags: int, conf_fcnt: int, verdict: Verdict
) -> None:
    bridge = Bridge(V1_1)
    (entry,) = bridge.table.at(DEV_ADDR)
    bridge.table.advance([msgspec.structs.replace(bridge.table.session(entry), conf_fcnt_down=777)])
    phy_payload = uplink(V1_1, 1, flags=flags, context=MicContext(conf_fcnt, 5, 0))
    (decision,) = bridge.engine.judge_all([heard(phy_payload)])
    assert decision.verdict is verdict
    if decision.session is not None:
        assert decision.session.conf_fcnt_down == 777


def test_what_belongs_to_downlinks_survives_an_uplink_and_a_reset() -> None:
    bridge = Bridge(OFF)
    at_counter(bridge, 900)
    (session,) = bridge.sessions.values()
    session = msgspec.structs.replace(session, fcnt_down=FCnt32(5), a_fcnt_down=FCnt32(6), conf_fcnt_down=7)
    bridge.sessions[session.session_id] = session
    bridge.table.advance([session])
    for n, fcnt32 in enumerate((901, 0)):
        moved = bridge.hear(uplink(OFF, fcnt32), 10 * n).session
        assert moved is not None
        assert (moved.fcnt_down, moved.a_fcnt_down, moved.conf_fcnt_down) == (5, 6, 7)


def on_channel(sender: Device, fcnt32: int, tx_ch: int, payload: bytes) -> bytes:
    return uplink(sender, fcnt32, payload, context=MicContext(0, 5, tx_ch))


def test_a_repetition_of_1_1_on_another_channel_is_known_in_spite_of_its_other_mic() -> None:
    bridge = Bridge(V1_1)
    first = only_uplink(bridge.hear(on_channel(V1_1, 7, 0, b"x"), frequency_hz=868_100_000))
    again_on_1 = bridge.hear(on_channel(V1_1, 7, 1, b"x"), 3, frequency_hz=868_300_000)
    assert again_on_1.verdict is Verdict.RETRANSMISSION
    (copy,) = again_on_1.events
    assert isinstance(copy, UplinkCopy)
    assert copy.uplink_id == first.id
    bridge.hear(on_channel(V1_1, 8, 0, b"y"), 20, frequency_hz=868_100_000)
    late = bridge.hear(on_channel(V1_1, 7, 2, b"x"), 40, frequency_hz=868_500_000)
    assert late.verdict is Verdict.REPLAY


def test_an_unheard_repetition_of_1_1_out_of_the_count_before_is_a_replay_in_the_count_after() -> None:
    sender = device_1_1(counter_policy=CounterPolicy.CONFIRM)
    bridge = Bridge(sender)
    for n in range(60):
        bridge.hear(on_channel(sender, n, 0, b"before"), 10 * n)
    for n in range(3):
        bridge.hear(on_channel(sender, n, 0, b"after"), 1000 + 10 * n)
    (session,) = bridge.sessions.values()
    assert (session.fcnt_up, session.resets) == (2, 1)
    repetitions = [on_channel(sender, n, 1, b"before") for n in (0, 1, 2, 3, 40, 59)]
    verdicts = [bridge.hear(phy, 3000, frequency_hz=868_300_000).verdict for phy in repetitions]
    assert verdicts == [Verdict.REPLAY] * len(repetitions)


def test_f_opts_of_1_1_arrive_in_the_clear() -> None:
    event = only_uplink(Bridge(V1_1).hear(uplink(V1_1, 1, f_opts=b"\x02\x0b\x01")))
    assert (event.f_opts, event.payload) == (b"\x02\x0b\x01", b"hello")


# ---- joins -----------------------------------------------------------------------------------------------------------


APP_KEY, NWK_KEY = key(40), key(41)
OTAA: dict[str, Any] = {
    "activation": Activation.OTAA,
    "dev_addr": None,
    "session_keys": None,
    "join_eui": EUI64(0x70B3_D57E_D000_0000),
}


OTAA_DEVICE = device(**OTAA, app_key=APP_KEY)


def join_request(root: AES128Key, dev_eui: EUI64 = ABP.dev_eui) -> bytes:
    message = b"\x00" + EUI64(0x70B3_D57E_D000_0000).to_wire() + dev_eui.to_wire() + b"\x34\x12"
    return message + join_mic(PreparedKey(root), message)


def rejoin_request(rejoin_type: int, signer: AES128Key) -> bytes:
    network = bytes(8) if rejoin_type == 1 else bytes(3)
    message = bytes([0xC0, rejoin_type]) + network + ABP.dev_eui.to_wire() + bytes(2)
    return message + join_mic(PreparedKey(signer), message)


@pytest.mark.parametrize(
    ("joiner", "phy_payload", "verdict"),
    [
        (device(**OTAA, app_key=APP_KEY), join_request(APP_KEY), Verdict.JOIN_REQUEST),
        (device(**OTAA, app_key=APP_KEY), join_request(NWK_KEY), Verdict.BAD_MIC),
        (device_1_1(**OTAA, app_key=APP_KEY, nwk_key=NWK_KEY), join_request(NWK_KEY), Verdict.JOIN_REQUEST),
        (device_1_1(**OTAA, app_key=APP_KEY, nwk_key=NWK_KEY), join_request(APP_KEY), Verdict.BAD_MIC),
        (device(**OTAA, app_key=APP_KEY), join_request(APP_KEY, EUI64(1)), Verdict.UNKNOWN_DEVICE),
        (ABP, join_request(APP_KEY), Verdict.UNKNOWN_DEVICE),
        (
            device_1_1(**OTAA, nwk_key=NWK_KEY),
            rejoin_request(1, derive_js_int_key(NWK_KEY, ABP.dev_eui)),
            Verdict.JOIN_REQUEST,
        ),
        (device_1_1(**OTAA, nwk_key=NWK_KEY), rejoin_request(1, NWK_KEY), Verdict.BAD_MIC),
        (device_1_1(**OTAA, nwk_key=NWK_KEY), rejoin_request(0, NWK_KEY), Verdict.UNKNOWN_DEVICE),
        (device(**OTAA, app_key=APP_KEY), rejoin_request(1, APP_KEY), Verdict.UNKNOWN_DEVICE),
    ],
)
def test_join_request_is_one_that_a_root_key_of_ours_signed(
    joiner: Device, phy_payload: bytes, verdict: Verdict
) -> None:
    decision = Bridge(joiner).hear(phy_payload)
    assert decision.verdict is verdict
    assert decision.device == (joiner.ref if verdict is Verdict.JOIN_REQUEST else None)
    assert decision.session is None
    assert bool(decision.events) is (verdict is Verdict.JOIN_REQUEST)


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_one_batch_moves_a_session_one_generation_however_many_frames_it_holds() -> None:
    bridge = Bridge(CONFIRM)
    first = [heard(uplink(CONFIRM, n), n) for n in range(5)]
    assert {decision.session.generation for decision in bridge.hear_all(*first) if decision.session} == {0}
    second = [heard(uplink(CONFIRM, n), 100 + n) for n in range(5, 9)]
    assert {decision.session.generation for decision in bridge.hear_all(*second) if decision.session} == {1}


def without_generation(decision: Decision) -> Decision:
    if decision.session is None:
        return decision
    return msgspec.structs.replace(decision, session=msgspec.structs.replace(decision.session, generation=0))


@settings(max_examples=150)
@given(
    st.sampled_from([ABP, CONFIRM, OFF, V1_1]),
    st.lists(
        st.tuples(st.integers(0, 12), st.booleans(), st.sampled_from([GATEWAY, OTHER_GATEWAY]), st.integers(0, 3)),
        max_size=25,
    ),
    st.lists(st.integers(1, 6), min_size=1),
)
def test_a_batch_is_judged_as_its_frames_would_be_one_by_one(
    sender: Device, sent: list[tuple[int, bool, EUI64, int]], sizes: list[int]
) -> None:
    receptions, at = [], 0.0
    for fcnt32, other, gateway, seconds in sent:
        at += seconds
        receptions.append(heard(uplink(sender, fcnt32, b"other" if other else b"one"), at, gateway))
    one_by_one, in_batches = Bridge(sender), Bridge(sender)
    expected = [one_by_one.hear_all(reception)[0] for reception in receptions]
    found: list[Decision] = []
    rest, turn = receptions, 0
    while rest:
        size = sizes[turn % len(sizes)]
        found += in_batches.hear_all(*rest[:size])
        rest, turn = rest[size:], turn + 1
    assert [without_generation(decision) for decision in found] == [without_generation(d) for d in expected]
    assert in_batches.history.frames == one_by_one.history.frames


def last_of(*frames: bytes, sender: Device = ABP, network: Network | None = None, **how: Any) -> Decision:
    """The decision for the last of some frames that come a minute apart."""
    bridge = Bridge(sender, network=network)
    return [bridge.hear(phy_payload, 60 * n, **how) for n, phy_payload in enumerate(frames)][-1]


SHORTEST: dict[Verdict, Callable[[], Decision]] = {
    Verdict.ACCEPTED: lambda: last_of(uplink(ABP, 1)),
    Verdict.DUPLICATE: lambda: Bridge(ABP).hear_all(heard(uplink(ABP, 1)), heard(uplink(ABP, 1)))[1],
    Verdict.RETRANSMISSION: lambda: last_of(uplink(ABP, 1), uplink(ABP, 1)),
    Verdict.REPLAY: lambda: last_of(uplink(ABP, 1), uplink(ABP, 2), uplink(ABP, 1)),
    Verdict.COUNTER_RESET: lambda: last_of(uplink(ABP, 99), uplink(ABP, 0)),
    Verdict.COUNTER_GAP: lambda: last_of(
        uplink(ABP, 0), uplink(ABP, 20_000), sender=device(mac_version=MacVersion.V1_0_2)
    ),
    Verdict.BAD_MIC: lambda: last_of(uplink(ABP, 1)[:-1] + b"?"),
    Verdict.UNKNOWN_DEVICE: lambda: last_of(uplink(device(dev_addr=DevAddr(0x2600_0000)), 1), network=NETWORK),
    Verdict.FOREIGN: lambda: last_of(uplink(device(dev_addr=DevAddr(0x0100_0000)), 1), network=NETWORK),
    Verdict.JOIN_REQUEST: lambda: last_of(join_request(APP_KEY), sender=OTAA_DEVICE),
    Verdict.JOIN_REPLAY: lambda: last_of(join_request(APP_KEY), join_request(APP_KEY), sender=OTAA_DEVICE),
    Verdict.JOIN_REFUSED: lambda: last_of(
        join_request(APP_KEY), sender=msgspec.structs.replace(OTAA_DEVICE, join_eui=EUI64(1))
    ),
    Verdict.MALFORMED: lambda: last_of(b""),
    Verdict.WRONG_DIRECTION: lambda: last_of(b"\x60" + bytes(11)),
    Verdict.PROPRIETARY: lambda: last_of(b"\xe0" + bytes(4)),
    Verdict.RADIO_CRC: lambda: last_of(uplink(ABP, 1), crc=CrcStatus.BAD),
}


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_reached_by_name(verdict: Verdict) -> None:
    assert SHORTEST[verdict]().verdict is verdict


def test_a_clock_before_1970_or_far_ahead_breaks_nothing() -> None:
    bridge = Bridge(ABP)
    for n, at in enumerate((-1, 0, START, (1 << 63) - 1)):
        reception = msgspec.structs.replace(heard(uplink(ABP, n)), received_at=at)
        assert bridge.hear_all(reception)[0].verdict is Verdict.ACCEPTED
    assert len(SessionCrypto(KEYS_1_0).network_key_check(b"x")) == 16
