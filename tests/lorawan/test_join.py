"""Joins: who is let in, under which nonce, and with which session."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.crypto import derive_js_int_key
from lorabridge.lorawan.decision import Decision, OwedJoin
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.events import Join, SecurityEvent, Uplink
from lorabridge.lorawan.frame import JoinRequest
from lorabridge.lorawan.join import JOIN_NONCE_MAX, Grant, build_join_accept, derive_keys, join_id
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DevNonce, JoinNonce, MacVersion, NetID
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import OTHER_GATEWAY, START, Bridge, device, heard, key, uplink
from tests.lorawan.joining import (
    APP_KEY,
    NET_ID,
    NETWORK,
    NWK_KEY,
    activated,
    join_request,
    joiner,
    joiner_1_1,
    open_accept,
    rejoin_request,
)
from tests.vector_files import vector_id, vectors

V1_0_3 = joiner(mac_version=MacVersion.V1_0_3)
V1_0_4 = joiner()
V1_1 = joiner_1_1()
EVERY_VERSION = [joiner(mac_version=version) for version in MacVersion if not version.is_1_1] + [V1_1]


def bridge_of(*devices: Device, **network: Any) -> Bridge:
    return Bridge(*devices, network=msgspec.structs.replace(NETWORK, **network))


def ask(bridge: Bridge, phy_payload: bytes, after_s: float = 0.0, **how: Any) -> Decision:
    return bridge.hear(phy_payload, after_s, **({"tmst": 1000} | how))


def join(bridge: Bridge, who: Device, nonce: int, after_s: float = 0.0) -> Device:
    """A whole join: asked, answered, taken over."""
    decision = ask(bridge, join_request(who, nonce), after_s)
    assert decision.verdict is Verdict.JOIN_REQUEST, decision.detail
    assert isinstance(decision.owed, OwedJoin)
    return activated(who, open_accept(who, decision.owed.phy_payload, nonce), nonce)


# ---- the answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("join_accept_1_0"), ids=vector_id)
def test_a_join_accept_of_1_0_is_the_one_that_others_build(vector: dict[str, Any]) -> None:
    given_, expected = vector["input"], vector["expect"]
    who = joiner(app_key=AES128Key.parse(given_["app_key"]))
    settings = expected["dl_settings"]
    grant = Grant(
        net_id=NetID.parse(expected["net_id"]),
        dev_addr=DevAddr.parse(expected["dev_addr"]),
        join_nonce=JoinNonce.parse(expected["join_nonce"]),
        rx1_delay=expected["rx_delay"],
        rx1_dr_offset=settings["rx1_dr_offset"],
        rx2_data_rate=settings["rx2_data_rate"],
        cf_list=bytes.fromhex(expected["decrypted_phy"])[13:-4],
    )
    request = JoinRequest(0, EUI64(0), who.dev_eui, DevNonce(0), bytes(4))
    if expected["mic_valid"] and not settings.get("opt_neg"):
        assert build_join_accept(who, request, grant).hex() == given_["phy_payload"]


@pytest.mark.parametrize("vector", vectors("session_keys_1_0"), ids=vector_id)
def test_session_keys_of_1_0_follow_from_what_was_granted(vector: dict[str, Any]) -> None:
    given_, expected = vector["input"], vector["expect"]
    grant = Grant(
        net_id=NetID.parse(given_["net_id"]),
        dev_addr=DevAddr(0),
        join_nonce=JoinNonce.parse(given_["join_nonce"]),
        rx1_delay=1,
        rx1_dr_offset=0,
        rx2_data_rate=0,
    )
    keys = derive_keys(joiner(app_key=AES128Key.parse(given_["app_key"])), grant, given_["dev_nonce"])
    assert keys.f_nwk_s_int_key.reveal().hex() == expected["nwk_s_key"]
    assert keys.app_s_key is not None
    assert keys.app_s_key.reveal().hex() == expected["app_s_key"]


def test_nothing_is_granted_to_a_device_without_root_keys() -> None:
    grant = Grant(
        net_id=NET_ID, dev_addr=DevAddr(1), join_nonce=JoinNonce(1), rx1_delay=1, rx1_dr_offset=0, rx2_data_rate=0
    )
    request = JoinRequest(0, EUI64(0), EUI64(0), DevNonce(0), bytes(4))
    for missing in (device(), joiner(join_eui=None)):
        with pytest.raises(ValueError, match="has no root key"):
            build_join_accept(missing, request, grant)
        with pytest.raises(ValueError, match="has no root key"):
            derive_keys(missing, grant, 1)


@pytest.mark.parametrize("who", EVERY_VERSION, ids=lambda one: str(one.mac_version.value))
def test_a_device_that_joined_is_heard_in_its_new_session(who: Device) -> None:
    bridge = bridge_of(who)
    decision = ask(bridge, join_request(who, 7))
    (event,) = decision.events
    assert isinstance(event, Join)
    assert (event.kind, event.dev_nonce, event.join_nonce, event.answered) == ("join_request", 7, 1, True)
    assert isinstance(decision.owed, OwedJoin)
    body = open_accept(who, decision.owed.phy_payload, 7)
    assert (body.net_id, body.dev_addr) == (NET_ID, event.dev_addr)
    first = ask(bridge, uplink(activated(who, body, 7), 0), 10)
    assert first.verdict is Verdict.ACCEPTED
    assert isinstance(first.events[0], Uplink)
    assert (first.events[0].payload, first.events[0].device) == (b"hello", who.ref)


def test_a_join_accept_says_the_channels_of_the_region() -> None:
    bridge = bridge_of(V1_0_4)
    policy = msgspec.structs.replace(
        NETWORK.answering.policy,  # type: ignore[union-attr]
        channels_hz=(867_100_000, 867_300_000),
        rx1_delay=5,
        rx1_dr_offset=2,
        rx2_data_rate=3,
    )
    network = msgspec.structs.replace(
        NETWORK,
        answering=msgspec.structs.replace(NETWORK.answering, policy=policy),  # type: ignore[type-var]
    )
    bridge.engine.own(network)
    decision = ask(bridge, join_request(V1_0_4, 1))
    assert isinstance(decision.owed, OwedJoin)
    assert decision.join is not None
    assert decision.join.session is not None
    body = open_accept(V1_0_4, decision.owed.phy_payload, 1)
    assert (body.rx_delay, body.rx1_dr_offset, body.rx2_data_rate) == (5, 2, 3)
    assert body.cf_list.hex() == "184f84e85684" + "00" * 10
    assert [(one.index, one.frequency_hz) for one in decision.join.session.mac.channels] == [
        (3, 867_100_000),
        (4, 867_300_000),
    ]
    assert decision.join.session.mac.rx1_delay == 5


def test_a_join_accept_of_a_fixed_plan_says_the_sub_band() -> None:
    who = joiner(region="US915")
    bridge = bridge_of(who)
    enabled = frozenset(range(8, 16)) | {65}
    policy = msgspec.structs.replace(NETWORK.answering.policy, enabled=enabled)  # type: ignore[union-attr]
    answering = msgspec.structs.replace(NETWORK.answering, policy=policy)  # type: ignore[type-var]
    bridge.engine.own(msgspec.structs.replace(NETWORK, answering=answering))
    decision = ask(bridge, join_request(who, 1))
    assert isinstance(decision.owed, OwedJoin)
    assert decision.join is not None
    assert decision.join.session is not None
    body = open_accept(who, decision.owed.phy_payload, 1)
    assert body.cf_list.hex() == "00ff00000000" + "0000" + "0200" + "0000000000" + "01"
    assert decision.join.session.mac.enabled == enabled


# ---- the nonce -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", EVERY_VERSION, ids=lambda one: str(one.mac_version.value))
def test_a_join_request_that_was_recorded_is_proved_to_be_one(who: Device) -> None:
    bridge = bridge_of(who)
    recorded = join_request(who, 7)
    ask(bridge, recorded)
    for n in range(8, 30):
        join(bridge, who, n, 60 * n)
    again = ask(bridge, recorded, 4000)
    assert again.verdict is Verdict.JOIN_REPLAY
    assert (again.join, again.owed, again.session, again.ended) == (None, None, None, ())
    (event,) = again.events
    assert isinstance(event, SecurityEvent)
    assert event.device == who.ref


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40))
def test_a_drawn_nonce_is_taken_once_and_a_counted_one_must_grow(nonces: list[int]) -> None:
    drawing, counting = bridge_of(V1_0_3), bridge_of(V1_0_4)
    seen: set[int] = set()
    for n, nonce in enumerate(nonces):
        at = 60.0 * n
        drawn = ask(drawing, join_request(V1_0_3, nonce), at).verdict
        counted = ask(counting, join_request(V1_0_4, nonce), at).verdict
        assert drawn is (Verdict.JOIN_REPLAY if nonce in seen else Verdict.JOIN_REQUEST)
        assert counted is (Verdict.JOIN_REPLAY if seen and nonce <= max(seen) else Verdict.JOIN_REQUEST)
        seen.add(nonce)


def test_the_same_request_by_another_gateway_is_a_duplicate_and_later_a_replay() -> None:
    bridge = bridge_of(V1_0_4)
    phy_payload = join_request(V1_0_4, 7)
    first = ask(bridge, phy_payload)
    copy = ask(bridge, phy_payload, 0.2, gateway=OTHER_GATEWAY)
    assert copy.verdict is Verdict.DUPLICATE
    assert (copy.join_id, copy.events, copy.join) == (first.join_id, (), None)
    assert ask(bridge, phy_payload, 5, gateway=OTHER_GATEWAY).verdict is Verdict.JOIN_REPLAY


def test_two_requests_in_one_batch_know_of_each_other() -> None:
    bridge = bridge_of(V1_0_3, joiner(name="other", dev_eui=EUI64(2), mac_version=MacVersion.V1_0_3))
    other = bridge.table.device(EUI64(2))
    assert other is not None
    frames = [join_request(V1_0_3, 1), join_request(V1_0_3, 2), join_request(V1_0_3, 1), join_request(other, 1)]
    decisions = bridge.hear_all(*(heard(one, 60 * n, tmst=1) for n, one in enumerate(frames)))
    assert [one.verdict for one in decisions] == [
        Verdict.JOIN_REQUEST,
        Verdict.JOIN_REQUEST,
        Verdict.JOIN_REPLAY,
        Verdict.JOIN_REQUEST,
    ]
    given_ = [one.join.joined.dev_addr for one in decisions if one.join is not None and one.join.joined is not None]
    assert len(set(given_)) == 3


def test_new_root_keys_begin_a_new_history() -> None:
    assert join_id(V1_0_4) == join_id(V1_0_4)
    others = {join_id(one) for one in (V1_0_4, joiner(app_key=key(9)), joiner(join_eui=EUI64(1)), V1_1)}
    assert len(others) == 4
    assert all(len(one) == 8 and APP_KEY.reveal()[:8] != one for one in others)


# ---- refusals --------------------------------------------------------------------------------------------------------


def refused(decision: Decision) -> str:
    assert decision.verdict is Verdict.JOIN_REFUSED
    assert decision.owed is None
    return decision.detail


def test_another_join_eui_is_refused_and_its_nonce_stays_free() -> None:
    bridge = bridge_of(V1_0_4)
    decision = ask(bridge, join_request(V1_0_4, 7, join_eui=EUI64(1)))
    assert refused(decision) == "JoinEUI 0000000000000001 is not the one of the device file"
    assert decision.join is None
    assert ask(bridge, join_request(V1_0_4, 7), 60).verdict is Verdict.JOIN_REQUEST


def test_a_full_address_range_refuses_and_says_so() -> None:
    bridge = bridge_of(V1_0_4, joiner(name="second", dev_eui=EUI64(2)), device(name="abp", dev_eui=EUI64(3)))
    assert NETWORK.answering is not None
    # One address, which the ABP device has.
    one = msgspec.structs.replace(NETWORK.answering, address_range=(0x260B_1234, 32))
    bridge.engine.own(msgspec.structs.replace(NETWORK, answering=one))
    assert refused(ask(bridge, join_request(V1_0_4, 1))) == "no free address is left in the range of joining devices"
    assert ask(bridge, join_request(V1_0_4, 1), 60).verdict is Verdict.JOIN_REPLAY


def test_a_used_up_join_nonce_refuses_and_says_so() -> None:
    bridge = bridge_of(V1_0_4)
    join(bridge, V1_0_4, 1)
    identity = join_id(V1_0_4)
    history = bridge.history.joins[identity]
    bridge.history.joins[identity] = msgspec.structs.replace(history, join_nonce=JOIN_NONCE_MAX)
    assert refused(ask(bridge, join_request(V1_0_4, 2), 60)).startswith("JoinNonce is used up")


@pytest.mark.parametrize(
    ("network", "how"),
    [({"answering": None}, {}), ({}, {"tmst": None})],
    ids=["a bridge that listens", "a gateway that cannot be timed"],
)
def test_who_cannot_answer_still_remembers_the_nonce(network: dict[str, Any], how: dict[str, Any]) -> None:
    bridge = bridge_of(V1_0_3, **network)
    decision = ask(bridge, join_request(V1_0_3, 7), **how)
    assert (decision.verdict, decision.owed) == (Verdict.JOIN_REQUEST, None)
    (event,) = decision.events
    assert isinstance(event, Join)
    assert (event.answered, event.dev_addr, event.join_nonce) == (False, None, None)
    assert ask(bridge, join_request(V1_0_3, 7), 60, **how).verdict is Verdict.JOIN_REPLAY


def test_a_source_that_cannot_send_is_not_asked_to() -> None:
    assert NETWORK.answering is not None
    mute = msgspec.structs.replace(NETWORK.answering, mute_sources=frozenset({"test"}))
    assert ask(bridge_of(V1_0_4, answering=mute), join_request(V1_0_4, 1)).owed is None


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_the_old_session_is_good_until_the_new_one_is_used() -> None:
    bridge = bridge_of(V1_0_4)
    old = join(bridge, V1_0_4, 1)
    assert ask(bridge, uplink(old, 0), 10).ended == ()
    new = join(bridge, V1_0_4, 2, 60)
    assert ask(bridge, uplink(old, 1), 70).verdict is Verdict.ACCEPTED
    used = ask(bridge, uplink(new, 0), 80)
    assert used.verdict is Verdict.ACCEPTED
    assert len(used.ended) == 1
    assert ask(bridge, uplink(old, 2), 90).verdict is Verdict.UNKNOWN_DEVICE
    assert [entry.dev_addr for entry in bridge.table.entries(V1_0_4.dev_eui)] == [new.dev_addr]
    current = bridge.table.current(V1_0_4.dev_eui)
    assert current is not None
    assert current.dev_addr == new.dev_addr


def test_a_frame_of_the_old_session_behind_the_first_of_the_new_one_is_refused_in_the_same_batch() -> None:
    bridge = bridge_of(V1_0_4)
    old = join(bridge, V1_0_4, 1)
    ask(bridge, uplink(old, 0), 10)
    new = join(bridge, V1_0_4, 2, 60)
    frames = [uplink(old, 1), uplink(new, 0), uplink(old, 2)]
    decisions = bridge.hear_all(*(heard(frame, 100 + n, tmst=1) for n, frame in enumerate(frames)))
    assert [one.verdict for one in decisions] == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.UNKNOWN_DEVICE]


def test_a_session_never_used_makes_room_for_the_next() -> None:
    bridge = bridge_of(V1_0_4)
    used = join(bridge, V1_0_4, 1)
    ask(bridge, uplink(used, 0), 10)
    for nonce in range(2, 10):
        join(bridge, V1_0_4, nonce, 60 * nonce)
    assert len(bridge.table.entries(V1_0_4.dev_eui)) == 2


def test_the_newer_session_is_the_newer_one_although_the_clock_was_set_back() -> None:
    bridge = bridge_of(V1_0_4)
    old = join(bridge, V1_0_4, 1, 5000)
    ask(bridge, uplink(old, 0), 5010)
    new = join(bridge, V1_0_4, 2, -5000)
    assert ask(bridge, uplink(new, 0), -4990).verdict is Verdict.ACCEPTED
    assert [entry.dev_addr for entry in bridge.table.entries(V1_0_4.dev_eui)] == [new.dev_addr]


def test_addresses_differ_while_both_are_in_use() -> None:
    devices = [joiner(name=f"n{n}", dev_eui=EUI64(n)) for n in range(1, 60)]
    bridge = bridge_of(*devices)
    assert NETWORK.answering is not None
    narrow = msgspec.structs.replace(NETWORK.answering, address_range=(0x2601_1000, 26))
    bridge.engine.own(msgspec.structs.replace(NETWORK, answering=narrow))
    given_ = {join(bridge, one, 1).dev_addr for one in devices}
    assert len(given_) == len(devices)
    assert all(address is not None and address >> 6 == 0x2601_1000 >> 6 for address in given_)


# ---- rejoins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rejoin_type", [0, 2])
def test_rejoins_0_and_2_are_signed_in_the_session_and_make_a_new_one(rejoin_type: int) -> None:
    bridge = bridge_of(V1_1)
    old = join(bridge, V1_1, 1)
    ask(bridge, uplink(old, 0), 10)
    assert old.session_keys is not None
    request = rejoin_request(V1_1, rejoin_type, 0, old.session_keys.s_nwk_s_int_key)
    decision = ask(bridge, request, 60)
    assert decision.verdict is Verdict.JOIN_REQUEST
    assert isinstance(decision.owed, OwedJoin)
    (event,) = decision.events
    assert isinstance(event, Join)
    assert event.kind == f"rejoin_{rejoin_type}"
    body = open_accept(V1_1, decision.owed.phy_payload, 0, rejoin_type)
    assert ask(bridge, request, 4000).verdict is Verdict.JOIN_REPLAY
    new = activated(V1_1, body, 0)
    assert ask(bridge, uplink(new, 0), 4010).verdict is Verdict.ACCEPTED
    # The old session is gone, and what it signed with it.
    assert ask(bridge, rejoin_request(V1_1, rejoin_type, 9, old.session_keys.s_nwk_s_int_key), 4020).verdict is (
        Verdict.BAD_MIC
    )


def test_rejoin_2_keeps_the_settings_of_the_radio_and_rejoin_0_begins_anew() -> None:
    for rejoin_type, delay in ((0, 1), (2, 7)):
        bridge = bridge_of(V1_1)
        old = join(bridge, V1_1, 1)
        ask(bridge, uplink(old, 0), 10)
        (entry,) = bridge.table.entries(V1_1.dev_eui)
        session = bridge.table.session(entry)
        mac = msgspec.structs.replace(session.mac, rx1_delay=7, asked=b"\x06")
        bridge.table.advance([msgspec.structs.replace(session, mac=mac)])
        assert old.session_keys is not None
        request = rejoin_request(V1_1, rejoin_type, 0, old.session_keys.s_nwk_s_int_key)
        decision = ask(bridge, request, 60)
        assert decision.join is not None
        assert decision.join.session is not None
        assert isinstance(decision.owed, OwedJoin)
        assert decision.join.session.mac.rx1_delay == delay
        assert decision.join.session.mac.asked == b""
        assert decision.owed.mac.rx1_delay == 7
        assert open_accept(V1_1, decision.owed.phy_payload, 0, rejoin_type).rx_delay == delay


def test_rejoin_1_is_signed_by_the_root_key_and_counts_for_ever() -> None:
    bridge = bridge_of(V1_1)
    signer = derive_js_int_key(NWK_KEY, V1_1.dev_eui)
    first = ask(bridge, rejoin_request(V1_1, 1, 5, signer))
    assert first.verdict is Verdict.JOIN_REQUEST
    assert isinstance(first.owed, OwedJoin)
    open_accept(V1_1, first.owed.phy_payload, 5, 1)
    assert ask(bridge, rejoin_request(V1_1, 1, 5, signer), 60).verdict is Verdict.JOIN_REPLAY
    assert ask(bridge, rejoin_request(V1_1, 1, 6, signer), 120).verdict is Verdict.JOIN_REQUEST


def test_a_device_of_1_0_cannot_rejoin() -> None:
    bridge = bridge_of(V1_0_4)
    for rejoin_type in (0, 1, 2):
        request = rejoin_request(V1_0_4, rejoin_type, 0, APP_KEY)
        assert ask(bridge, request).verdict is Verdict.UNKNOWN_DEVICE


def test_a_device_whose_app_key_is_elsewhere_joins_and_stays_sealed() -> None:
    who = joiner_1_1(app_key=None)
    bridge = bridge_of(who)
    decision = ask(bridge, join_request(who, 1))
    (event,) = decision.events
    assert isinstance(event, Join)
    assert event.sealed
    assert isinstance(decision.owed, OwedJoin)
    body = open_accept(who, decision.owed.phy_payload, 1)
    whole = msgspec.structs.replace(who, app_key=APP_KEY)
    first = ask(bridge, uplink(activated(whole, body, 1), 0), 10)
    assert first.verdict is Verdict.ACCEPTED
    assert isinstance(first.events[0], Uplink)
    assert first.events[0].sealed


def test_devices_that_are_gone_or_became_abp_leave_their_joined_sessions_unheard() -> None:
    bridge = bridge_of(V1_0_4)
    joined = join(bridge, V1_0_4, 1)
    bridge.table.load([])
    assert ask(bridge, uplink(joined, 0), 10).verdict is Verdict.UNKNOWN_DEVICE
    bridge.table.load([device()])
    assert ask(bridge, uplink(joined, 0), 20).verdict is Verdict.UNKNOWN_DEVICE
    bridge.table.load([V1_0_3])  # another version in the file: the session stays what it was joined as
    assert ask(bridge, uplink(joined, 0), 30).verdict is Verdict.ACCEPTED
    assert START > 0
