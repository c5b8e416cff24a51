"""The lines of a script and their answers; the whole contract is tested through the program in tests/cli."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan import crypto
from lorabridge.lorawan.air import FskDataRate, LoraDataRate
from lorabridge.lorawan.answer import Judge, Past, answer_line, answer_text
from lorabridge.lorawan.crypto import MicContext, PreparedKey, SessionCrypto
from lorabridge.lorawan.device import Activation, CounterPolicy, Device
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.question import BadQuestion, Fault, read_bytes, read_object, read_question
from lorabridge.lorawan.types import EUI64, DevAddr, Direction, FCnt16, FCnt32, MacVersion
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import (
    APP_S_KEY,
    KEYS_1_0,
    KEYS_1_1,
    NWK_S_KEY,
    START,
    Bridge,
    device,
    device_1_1,
    heard,
    key,
    uplink,
)
from tests.lorawan.joining import NETWORK

ABP = device()


def ask(phy_payload: bytes, judge: Judge | None = None, **fields: Any) -> dict[str, Any]:
    return answer_line(json.dumps({"phy_payload": phy_payload.hex(), **fields}).encode(), judge)


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fault", "question_id"),
    [
        (b"", Fault.BAD_JSON, None),
        (b"\xff", Fault.BAD_JSON, None),
        (b"{" * 100_000, Fault.BAD_JSON, None),
        (b'{"a":' * 100_000, Fault.BAD_JSON, None),
        (b"1" * 5000, Fault.BAD_JSON, None),
        (b'{"id": 1, "x": Infinity}', Fault.BAD_JSON, 1),
        (b'{"id": 1, "x": -1e400}', Fault.BAD_JSON, 1),
        (b'{"id": 1, "x": 1, "x": 1}', Fault.BAD_JSON, 1),
        (b'{"id": 1, "id": 1}', Fault.BAD_JSON, None),
        (b"[1e999]", Fault.BAD_JSON, None),
        (b"[]", Fault.BAD_INPUT, None),
    ],
)
def test_what_is_no_object_is_refused_with_what_could_be_read(
    line: bytes, fault: Fault, question_id: int | None
) -> None:
    with pytest.raises(BadQuestion) as caught:
        read_object(line)
    assert (caught.value.fault, caught.value.question_id) == (fault, question_id)


def test_an_object_may_hold_finite_numbers_of_every_kind() -> None:
    assert read_object(b'\xef\xbb\xbf {"x": [1.5e3, -0.0, 10], "y": {}} \r\n') == {"x": [1500.0, 0.0, 10], "y": {}}


@given(st.binary(max_size=60))
def test_bytes_are_the_same_in_every_writing(data: bytes) -> None:
    import base64  # noqa: PLC0415  # the reference, for this test only

    assert read_bytes(data.hex()) == read_bytes(data.hex(" ").upper()) == data
    padded = base64.b64encode(data).decode()
    for text in (padded, padded.rstrip("="), base64.urlsafe_b64encode(data).decode()):
        if not all(character in "0123456789abcdefABCDEF" for character in text):
            assert read_bytes(text) == data


@pytest.mark.parametrize("text", ["a", "====", "AAAAA", "QQ===", "a=b", "\u00e9\u00e9\u00e9\u00e9", "z!"])
def test_what_is_neither_hex_nor_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hex"):
        read_bytes(text)


def test_how_a_frame_was_heard_is_read_in_every_unit() -> None:
    base: dict[str, Any] = {"phy_payload": "", "gateway_eui": "0016c001f153a14c"}
    first = read_question(base | {"received_at": START, "frequency": 868_100_000, "data_rate": "SF7BW125"})
    second = read_question(
        base | {"received_at": "2023-11-14T22:13:20Z", "frequency": 868.1, "data_rate": "SF7BW125.0"}
    )
    assert first == second
    assert (first.received_at, first.frequency_hz) == (START, 868_100_000)
    assert first.data_rate == LoraDataRate(7, 125_000)
    third = read_question(base | {"received_at": "1970-01-01T01:00:00.000001+01:00", "data_rate": 50000})
    assert (third.received_at, third.data_rate) == (1000, FskDataRate(50_000))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"phy_payload": None}, Fault.BAD_INPUT),
        ({"phy_payload": 1}, Fault.BAD_INPUT),
        ({"phy_payload": "z!"}, Fault.BAD_INPUT),
        ({"direction": "UP"}, Fault.BAD_INPUT),
        ({"fcnt32": True}, Fault.BAD_INPUT),
        ({"f_opts_encrypted": 0}, Fault.BAD_INPUT),
        ({"join_req_type": 4}, Fault.BAD_INPUT),
        ({"keys": []}, Fault.BAD_INPUT),
        ({"keys": {"app_key": 1}}, Fault.BAD_KEY),
        ({"keys": {"app_key": "00" * 15}}, Fault.BAD_KEY),
        ({"received_at": "2023-11-14"}, Fault.BAD_INPUT),
        ({"received_at": "1969-01-01T00:00:00Z"}, Fault.BAD_INPUT),
        ({"frequency": -1}, Fault.BAD_INPUT),
        ({"data_rate": "SF7"}, Fault.BAD_INPUT),
    ],
)
def test_a_bad_field_is_refused(fields: dict[str, Any], fault: Fault) -> None:
    with pytest.raises(BadQuestion) as caught:
        read_question({"phy_payload": "40"} | fields)
    assert caught.value.fault is fault


def test_what_is_asked_is_what_is_known() -> None:
    question = read_question(
        {
            "phy_payload": "40",
            "mac_version": "1.0",
            "direction": "down",
            "keys": {"nwk_s_key": "01" * 16},
            "fcnt32": 1,
            "last_fcnt32": 2,
            "conf_fcnt": 0x1_0003,
            "tx_dr": 4,
            "tx_ch": 5,
            "f_opts_encrypted": False,
            "join_eui": "0000000000000006",
            "dev_eui": "00-00-00-00-00-00-00-07",
            "dev_nonce": 8,
            "join_req_type": 1,
        }
    )
    known = question.known
    assert (known.fcnt32, known.last_fcnt32, known.conf_fcnt, known.tx_dr, known.tx_ch) == (1, 2, 3, 4, 5)
    assert (known.join_eui, known.dev_eui, known.dev_nonce, known.join_req_type) == (6, 7, 8, 1)
    assert (known.direction, known.f_opts_encrypted, known.speaks_1_1) == (Direction.DOWN, False, False)


# ---- answering -------------------------------------------------------------------------------------------------------


def test_a_line_too_long_to_be_read_is_answered() -> None:
    assert answer_line(None, None)["error"]["reason"] == "bad_json"


def test_faults_of_the_line_and_of_the_frame_are_told_apart() -> None:
    assert answer_line(b'{"id": 1}', None)["error"]["reason"] == "bad_input"
    assert answer_line(b'{"id": 1, "x": NaN}', None)["id"] == 1
    assert answer_text("z!", None)["error"]["reason"] == "bad_input"
    assert answer_text("40", None)["error"]["reason"] == "too_short"
    assert answer_text(uplink(ABP, 1).hex(), None)["ok"] is True


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_the_id_is_echoed(question_id: Any) -> None:
    for line in ({"phy_payload": "e0000000000000"}, {"phy_payload": "40"}, {}):
        assert answer_line(json.dumps({"id": question_id, **line}).encode(), None)["id"] == question_id


# ---- judging ---------------------------------------------------------------------------------------------------------


def test_lines_are_judged_in_their_order() -> None:
    judge = Judge([ABP])
    frames = [(1, "accepted"), (2, "accepted"), (2, "retransmission"), (1, "replay"), (3, "accepted")]
    for fcnt32, verdict in frames:
        answer = ask(uplink(ABP, fcnt32), judge)
        assert (answer["verdict"], answer["device"], answer["fcnt32"]) == (verdict, "meter", fcnt32)
        assert (answer["mic_valid"], answer["frm_payload_decrypted"]) == (True, b"hello".hex())


def test_a_copy_is_told_by_gateway_and_time() -> None:
    judge, phy_payload = Judge([ABP]), uplink(ABP, 1)
    at = [
        ("2026-01-01T00:00:00Z", "01" * 8, "accepted"),
        ("2026-01-01T00:00:00.2Z", "02" * 8, "duplicate"),
        ("2026-01-01T00:00:09Z", "01" * 8, "retransmission"),
        ("2026-01-01T00:20:00Z", "01" * 8, "replay"),
    ]
    for received_at, gateway_eui, verdict in at:
        assert ask(phy_payload, judge, received_at=received_at, gateway_eui=gateway_eui)["verdict"] == verdict


def test_a_count_that_starts_anew_is_confirmed_over_the_lines() -> None:
    sender = device(counter_policy=CounterPolicy.CONFIRM)
    judge = Judge([sender])
    sent = [(900, b"a"), (0, b"b"), (0, b"b"), (1, b"b"), (2, b"b"), (900, b"a")]
    verdicts = [ask(uplink(sender, fcnt32, payload), judge)["verdict"] for fcnt32, payload in sent]
    assert verdicts == ["accepted", "counter_reset", "counter_reset", "counter_reset", "accepted", "replay"]


def test_a_frame_of_nobody_names_no_device() -> None:
    judge = Judge([ABP])
    forged = ask(uplink(ABP, 1)[:-1] + b"?", judge)
    assert (forged["verdict"], forged["device"], forged["mic_valid"]) == ("bad_mic", None, False)
    assert forged["frm_payload_decrypted"] is None
    for dev_addr, verdict in ((0x260B_1235, "unknown_device"), (0x0100_0000, "foreign")):
        stranger = ask(uplink(device(dev_addr=DevAddr(dev_addr)), 1), judge)
        assert (stranger["verdict"], stranger["device"], stranger["mic_valid"]) == (verdict, None, None)


def test_the_keys_of_the_line_come_before_those_of_the_device() -> None:
    phy_payload, judge = uplink(ABP, 1), Judge([ABP])
    own = ask(phy_payload, judge, keys={"nwk_s_key": "00" * 16})
    assert (own["mic_valid"], own["verdict"], own["device"]) == (False, "accepted", "meter")
    assert own["frm_payload_decrypted"] is None
    forged = ask(phy_payload[:-1] + b"?", judge, keys={"app_s_key": APP_S_KEY.reveal().hex()})
    assert (forged["mic_valid"], forged["verdict"]) == (None, "bad_mic")
    right = ask(phy_payload, judge, keys={"nwk_s_key": NWK_S_KEY.reveal().hex()})
    assert right["mic_valid"] is True


def test_what_the_engine_proved_of_1_1_is_valid_whatever_the_line_left_out() -> None:
    sender = device_1_1(region=None)
    phy_payload = uplink(sender, 1, f_opts=b"\x02", context=MicContext(0, 5, 1))
    heard: dict[str, Any] = {"frequency": 868.3, "data_rate": "SF7BW125"}
    answer = ask(phy_payload, Judge([sender], "EU868"), **heard)
    assert (answer["verdict"], answer["mic_valid"], answer["f_opts_decrypted"]) == ("accepted", True, "02")
    assert "mic_detail" not in answer
    unproved = ask(phy_payload, Judge([sender]), **heard)
    assert (unproved["verdict"], unproved["mic_valid"]) == ("bad_mic", None)
    assert "tx_dr, tx_ch" in unproved["mic_detail"]


def test_a_downlink_of_a_device_is_read_with_its_keys() -> None:
    frame = DataFrame.make(
        m_type=MType.UNCONFIRMED_DATA_DOWN, dev_addr=DevAddr(0x260B_1234), fcnt16=FCnt16(4), f_port=1
    )
    mic = SessionCrypto(KEYS_1_0).mic_1_0(frame.message, Direction.DOWN, frame.dev_addr, FCnt32(4))
    neighbour = device(name="other", dev_eui=EUI64(9), session_keys=KEYS_1_1)
    answer = ask(build(frame.with_mic(mic)), Judge([neighbour, ABP]))
    assert (answer["verdict"], answer["device"], answer["mic_valid"]) == ("wrong_direction", "meter", True)


def joiner(**fields: Any) -> Device:
    return device(activation=Activation.OTAA, dev_addr=None, session_keys=None, join_eui=EUI64(0), **fields)


def test_a_join_request_is_judged_by_the_root_key() -> None:
    message = b"\x00" + bytes(8) + ABP.dev_eui.to_wire() + b"\x01\x00"
    phy_payload = message + crypto.join_mic(PreparedKey(key(40)), message)
    judge = Judge([joiner(app_key=key(40))])
    answer = ask(phy_payload, judge)
    assert (answer["verdict"], answer["device"], answer["mic_valid"]) == ("join_request", "meter", True)
    assert ask(phy_payload[:-1] + b"?", judge)["verdict"] == "bad_mic"


def test_a_nonce_that_was_used_in_an_earlier_line_is_a_replay() -> None:
    for version in (MacVersion.V1_0_3, MacVersion.V1_0_4):
        judge = Judge([joiner(mac_version=version, app_key=key(40))])
        requests = []
        for nonce in (b"\x01\x00", b"\x02\x00"):
            message = b"\x00" + bytes(8) + ABP.dev_eui.to_wire() + nonce
            requests.append(message + crypto.join_mic(PreparedKey(key(40)), message))
        verdicts = [ask(request, judge)["verdict"] for request in (*requests, requests[0])]
        assert verdicts == ["join_request", "join_request", "join_replay"]


def test_what_was_committed_before_counts_and_nobody_is_answered() -> None:
    before = Bridge(ABP)
    before.hear(uplink(ABP, 70_000))
    past = Past(sessions=before.sessions, history=before.history)
    judge = Judge([ABP], network=NETWORK, past=past)
    decision = judge.hear(heard(uplink(ABP, 70_001), 1.0, tmst=1))
    assert (decision.verdict, decision.fcnt32, decision.owed) == (Verdict.ACCEPTED, 70_001, None)
    assert judge.hear(heard(uplink(ABP, 69_999), 2.0)).verdict is Verdict.REPLAY
    (session,) = past.sessions.values()
    assert session.fcnt_up == 70_000


@pytest.mark.parametrize(
    ("phy_payload", "fields", "verdict"),
    [
        ("40", {}, "malformed"),
        ("60341204260000010001020304", {"direction": "up"}, "wrong_direction"),
        ("c0000102030405060708090a0b0c0d01020304", {"mac_version": "1.0.3"}, "malformed"),
    ],
)
def test_a_malformed_frame_has_its_verdict_too(phy_payload: str, fields: dict[str, Any], verdict: str) -> None:
    judge = Judge([ABP])
    answer = ask(bytes.fromhex(phy_payload), judge, **fields)
    assert (answer["ok"], answer["verdict"]) == (False, verdict)
    assert "verdict" not in ask(bytes.fromhex(phy_payload), None, **fields)
    assert "verdict" not in answer_line(b"{}", judge)
