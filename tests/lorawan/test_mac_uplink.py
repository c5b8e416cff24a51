"""What an uplink says to the MAC layer, through the engine: what is taken over, owed and reported."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.crypto import MicContext
from lorabridge.lorawan.decision import Answering, Decision, Network, OwedData
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.events import MacReport, Uplink
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import AddedChannel, MacState
from lorabridge.lorawan.session import History
from lorabridge.lorawan.types import FCnt32
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import DEV_ADDR, Bridge, device, device_1_1, uplink

V1_0, V1_1 = device(region="EU868"), device_1_1()
CHECK, TIME = b"\x02", b"\x0d"


def bridge_of(who: Device, **policy: Any) -> Bridge:
    return Bridge(who, network=Network(answering=Answering(policy=MacPolicy(**policy))))


def hear(bridge: Bridge, phy_payload: bytes, after_s: float = 0.0, **how: Any) -> Decision:
    return bridge.hear(phy_payload, after_s, **({"tmst": round(after_s * 1e6)} | how))


def owed(decision: Decision) -> OwedData:
    assert isinstance(decision.owed, OwedData)
    return decision.owed


@pytest.mark.parametrize("who", [V1_0, V1_1], ids=["1.0", "1.1"])
def test_what_a_device_asks_is_owed_to_it_whether_in_f_opts_or_under_port_0(who: Device) -> None:
    bridge = bridge_of(who)
    in_f_opts = owed(hear(bridge, uplink(who, 1, f_opts=CHECK + TIME)))
    assert [one.name for one in in_f_opts.commands] == ["LinkCheckReq", "DeviceTimeReq"]
    assert in_f_opts.must_answer
    under_port_0 = owed(hear(bridge, uplink(who, 2, CHECK, f_port=0), 10))
    assert [one.name for one in under_port_0.commands] == ["LinkCheckReq"]
    assert not owed(hear(bridge, uplink(who, 3), 20)).must_answer


def test_an_uplink_that_asks_for_an_answer_must_be_answered() -> None:
    bridge = bridge_of(V1_0)
    assert owed(hear(bridge, uplink(V1_0, 1, m_type=MType.CONFIRMED_DATA_UP))).confirmed
    asks = owed(hear(bridge, uplink(V1_0, 2, flags=0xC0), 10))
    assert (asks.adr, asks.adr_ack_req, asks.must_answer) == (True, True, True)


def test_a_confirmed_uplink_that_is_repeated_is_owed_its_acknowledgement_again() -> None:
    bridge = bridge_of(V1_0)
    frame = uplink(V1_0, 1, flags=0x80, m_type=MType.CONFIRMED_DATA_UP)
    hear(bridge, frame)
    again = hear(bridge, frame, 10)
    assert (again.verdict, owed(again).fcnt32, owed(again).adr) == (Verdict.RETRANSMISSION, 1, True)
    unconfirmed = uplink(V1_0, 2)
    hear(bridge, unconfirmed, 20)
    assert hear(bridge, unconfirmed, 30).owed is None


def test_an_unknown_command_stops_the_list_and_is_reported() -> None:
    bridge = bridge_of(V1_0)
    decision = hear(bridge, uplink(V1_0, 1, f_opts=CHECK + b"\x77" + TIME))
    up, report = decision.events
    assert isinstance(up, Uplink)
    assert isinstance(report, MacReport)
    assert (report.unknown_cid, report.truncated, report.commands) == (0x77, False, (("LinkCheckReq", ()),))
    assert [one.name for one in owed(decision).commands] == ["LinkCheckReq"]
    cut_off = hear(bridge, uplink(V1_0, 2, f_opts=b"\x06\x01"), 10).events[1]
    assert isinstance(cut_off, MacReport)
    assert cut_off.truncated


def test_what_a_device_answers_moves_its_session() -> None:
    bridge = bridge_of(V1_0, rx1_delay=5)
    first = hear(bridge, uplink(V1_0, 1))
    assert first.session is not None
    asked = msgspec.structs.replace(first.session.mac, asked=b"\x08\x05")
    bridge.table.advance([msgspec.structs.replace(first.session, mac=asked)])
    answered = hear(bridge, uplink(V1_0, 2, f_opts=b"\x08"), 10)
    assert answered.session is not None
    assert answered.session.mac.rx1_delay == 5
    assert owed(answered).must_answer  # or the device would repeat its answer for ever


@pytest.mark.parametrize(
    ("network", "how"),
    [
        (Network(), {}),
        (Network(answering=Answering(mute_sources=frozenset({"test"}))), {}),
        (Network(answering=Answering()), {"tmst": None}),
    ],
    ids=["a bridge that listens", "a source that cannot send", "a gateway without a clock"],
)
def test_nothing_is_owed_by_who_cannot_answer(network: Network, how: dict[str, Any]) -> None:
    bridge = Bridge(V1_0, network=network)
    decision = hear(bridge, uplink(V1_0, 1, f_opts=CHECK, m_type=MType.CONFIRMED_DATA_UP), **how)
    assert (decision.verdict, decision.owed) == (Verdict.ACCEPTED, None)


def test_a_device_without_a_region_is_heard_and_not_answered() -> None:
    bridge = bridge_of(device())
    decision = hear(bridge, uplink(device(), 1, m_type=MType.CONFIRMED_DATA_UP))
    assert (decision.verdict, decision.owed) == (Verdict.ACCEPTED, None)


def test_channels_that_a_device_was_given_number_the_mic_of_1_1() -> None:
    bridge = bridge_of(V1_1)
    first = hear(bridge, uplink(V1_1, 1))
    assert first.session is not None
    mac = MacState(channels=(AddedChannel(9, 867_100_000, 0, 5),))
    bridge.table.advance([msgspec.structs.replace(first.session, mac=mac)])
    frame = uplink(V1_1, 2, context=MicContext(tx_dr=5, tx_ch=9))
    assert hear(bridge, frame, 10, frequency_hz=867_100_000).verdict is Verdict.ACCEPTED
    wrong = uplink(V1_1, 3, context=MicContext(tx_dr=5, tx_ch=3))
    assert hear(bridge, wrong, 20, frequency_hz=867_100_000).verdict is Verdict.BAD_MIC


def test_a_device_may_acknowledge_the_confirmed_downlink_before_the_last() -> None:
    bridge = bridge_of(V1_1)
    first = hear(bridge, uplink(V1_1, 1))
    assert first.session is not None
    bridge.table.advance([msgspec.structs.replace(first.session, conf_fcnt_down=8, conf_fcnt_before=7)])
    for n, conf_fcnt in enumerate((7, 8, 9), 2):
        frame = uplink(V1_1, n, flags=0x20, context=MicContext(conf_fcnt=conf_fcnt, tx_dr=5, tx_ch=0))
        expected = Verdict.BAD_MIC if conf_fcnt == 9 else Verdict.ACCEPTED
        assert hear(bridge, frame, 10 * n).verdict is expected


def test_channels_of_the_device_file_are_known_from_the_start() -> None:
    who = device(region="EU868", channels_hz=(867_100_000, 867_300_000))
    bridge = bridge_of(who)
    (entry,) = bridge.table.at(DEV_ADDR)
    mac = bridge.table.session(entry).mac
    assert [(one.index, one.frequency_hz) for one in mac.channels] == [(3, 867_100_000), (4, 867_300_000)]


def test_a_history_that_keeps_nothing_knows_of_no_join() -> None:
    assert History().join_history(b"") is None
    assert not History().nonce_used(b"", 1)
    assert not History().heard(b"", FCnt32(1), b"")
