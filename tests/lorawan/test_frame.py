"""The grammar: every frame there and back, every malformed one by its reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorabridge.lorawan.frame import (
    DataFrame,
    Frame,
    JoinAccept,
    JoinRequest,
    Proprietary,
    RejoinRequest,
    build,
    build_join_accept_body,
    parse,
    parse_join_accept_body,
)
from lorabridge.lorawan.grammar import GRAMMAR, MalformedFrame, MType
from lorabridge.lorawan.types import EUI64, DevAddr, DevNonce, Direction, FCnt16, NetID
from lorabridge.lorawan.verdict import Reason
from tests.vector_files import vector_id, vectors

MIC = b"\x01\x02\x03\x04"
mics = st.binary(min_size=4, max_size=4)
euis = st.integers(0, (1 << 64) - 1).map(EUI64)
rfu = st.integers(0, 7).map(lambda bits: bits << 2)


@st.composite
def data_frames(draw: st.DrawFn) -> DataFrame:
    m_type = draw(st.sampled_from([m_type for m_type in MType if m_type.name.endswith(("_UP", "_DOWN"))]))
    f_opts = draw(st.binary(max_size=15))
    f_port = draw(st.none() | st.integers(1 if f_opts else 0, 255))
    room = 0 if f_port is None else 255 - 13 - len(f_opts)
    made = DataFrame.make(
        m_type=m_type,
        dev_addr=DevAddr(draw(st.integers(0, 0xFFFF_FFFF))),
        fcnt16=FCnt16(draw(st.integers(0, 0xFFFF))),
        flags=draw(st.integers(0, 15)) << 4,
        f_opts=f_opts,
        f_port=f_port,
        frm_payload=draw(st.binary(max_size=room)),
        mic=draw(mics),
    )
    mhdr = made.mhdr | draw(rfu)
    return msgspec.structs.replace(made, mhdr=mhdr, message=bytes([mhdr]) + made.message[1:])


@st.composite
def rejoin_requests(draw: st.DrawFn) -> RejoinRequest:
    rejoin_type = draw(st.sampled_from([0, 1, 2]))
    by_net_id = rejoin_type != 1
    return RejoinRequest(
        mhdr=0xC0 | draw(rfu),
        rejoin_type=rejoin_type,
        net_id=NetID(draw(st.integers(0, 0xFF_FFFF))) if by_net_id else None,
        join_eui=None if by_net_id else draw(euis),
        dev_eui=draw(euis),
        rj_count=draw(st.integers(0, 0xFFFF)),
        mic=draw(mics),
    )


join_requests = st.builds(JoinRequest, rfu, euis, euis, st.integers(0, 0xFFFF).map(DevNonce), mics)
encrypted = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)
join_accepts = st.builds(
    JoinAccept,
    rfu.map(lambda bits: 0x20 | bits),
    encrypted,
)
proprietaries = st.builds(Proprietary, rfu.map(lambda bits: 0xE0 | bits), st.binary(min_size=4, max_size=254))
frames = data_frames() | rejoin_requests() | join_requests | join_accepts | proprietaries


@st.composite
def likely_bytes(draw: st.DrawFn) -> bytes:
    """Bytes with a good chance of being a frame: a random MHDR with Major 0, and lengths that mean something."""
    mhdr = draw(st.integers(0, 63)) << 2
    size = draw(st.sampled_from([16, 17, 19, 23, 24, 33]) | st.integers(0, 270))
    body = draw(st.binary(min_size=max(size - 1, 0), max_size=max(size - 1, 0)))
    if mhdr >> 5 == MType.REJOIN_REQUEST and body:
        body = bytes([draw(st.integers(0, 3))]) + body[1:]
    return bytes([mhdr]) + body


def parsed_or_refused(phy_payload: bytes) -> Frame | MalformedFrame:
    try:
        return parse(phy_payload)
    except MalformedFrame as error:
        return error


@given(frames)
def test_what_is_built_parses_to_the_same_frame(frame: Frame) -> None:
    assert parse(build(frame)) == frame


@given(st.binary(max_size=300) | likely_bytes())
@example(bytes.fromhex("5cf17dbe490002000195437876f1e25908"))
def test_any_bytes_are_a_frame_that_builds_to_them_or_malformed_by_a_listed_reason(phy_payload: bytes) -> None:
    found = parsed_or_refused(phy_payload)
    if isinstance(found, MalformedFrame):
        assert isinstance(found.reason, Reason)
        assert str(found)
    else:
        assert build(found) == phy_payload


@given(likely_bytes(), st.sampled_from([None, *Direction]), st.booleans())
def test_what_is_known_of_a_frame_can_only_refuse_it(
    phy_payload: bytes, direction: Direction | None, rejoin_exists: bool
) -> None:
    try:
        narrowed = parse(phy_payload, direction=direction, rejoin_exists=rejoin_exists)
    except MalformedFrame as error:
        if error.reason in (Reason.WRONG_DIRECTION, Reason.RFU_MTYPE):
            return
        with pytest.raises(MalformedFrame):
            parse(phy_payload)
    else:
        assert narrowed == parse(phy_payload)


COMPILED = {name: declared.compile() for name, declared in GRAMMAR.items()}
FIXED_SIZE = {
    "join-request": 23,
    "join-accept": 17,
    "join-accept, decrypted": 12,
    "rejoin-request 0 and 2": 19,
    "rejoin-request 1": 24,
    "proprietary": 6,
}


def values(parsed: dict[str, Any]) -> dict[str, Any]:
    """The fields, without the stream that construct leaves among them."""
    return {name: value for name, value in parsed.items() if not name.startswith("_")}


@pytest.mark.parametrize("name", GRAMMAR)
@given(data=st.data())
def test_the_compiled_grammar_reads_what_the_declaration_says(name: str, data: st.DataObject) -> None:
    declared, compiled = GRAMMAR[name], COMPILED[name]
    if name in FIXED_SIZE:
        message = data.draw(st.binary(min_size=FIXED_SIZE[name], max_size=FIXED_SIZE[name]))
    else:
        f_opts_len = data.draw(st.integers(0, 15))
        rest = 0 if name == "data without FPort" else data.draw(st.integers(1, 230))
        size = 8 + f_opts_len + rest
        message = data.draw(st.binary(min_size=size, max_size=size))
        message = message[:5] + bytes([message[5] & 0xF0 | f_opts_len]) + message[6:]
    assert values(compiled.parse(message)) == values(declared.parse(message))
    assert declared.build(declared.parse(message)) == message


def phy(hexed: str) -> bytes:
    return bytes.fromhex(hexed)


MALFORMED = {
    Reason.TOO_SHORT: [b"", b"\x40", bytes(4), phy("40") + bytes(10)],
    Reason.TOO_LONG: [phy("40") + bytes(255), phy("e0") + bytes(255), bytes(1000)],
    Reason.BAD_MAJOR: [phy("41") + bytes(12), phy("42") + bytes(12), phy("03") + bytes(22), phy("e1") + bytes(4)],
    Reason.BAD_JOIN_REQUEST_LENGTH: [bytes(5), bytes(22), bytes(24)],
    Reason.BAD_JOIN_ACCEPT_LENGTH: [phy("20") + bytes(size) for size in (15, 17, 31, 33)],
    Reason.BAD_REJOIN_TYPE: [phy("c003") + bytes(17), phy("c0ff") + bytes(22)],
    Reason.BAD_REJOIN_LENGTH: [phy("c000") + bytes(16), phy("c001") + bytes(17), phy("c002") + bytes(22)],
    Reason.FOPTS_OVERFLOW: [phy("4000000000010000") + bytes(4), phy("40000000000f0000") + bytes(18)],
    Reason.FPORT0_WITH_FOPTS: [phy("4000000000010000") + b"\x02\x00" + MIC, phy("400000000001000002000a") + MIC],
}


@pytest.mark.parametrize("reason", MALFORMED)
def test_every_malformed_form_is_told_by_its_reason(reason: Reason) -> None:
    for phy_payload in MALFORMED[reason]:
        with pytest.raises(MalformedFrame) as caught:
            parse(phy_payload)
        assert caught.value.reason is reason


def test_the_reason_rfu_mtype_is_that_of_a_version_without_rejoin() -> None:
    with pytest.raises(MalformedFrame) as caught:
        parse(phy("c0020302010807060504030201db003c8642ae"), rejoin_exists=False)
    assert caught.value.reason is Reason.RFU_MTYPE


@pytest.mark.parametrize("m_type", MType)
def test_the_reason_wrong_direction_is_that_of_a_type_that_does_not_travel_so(m_type: MType) -> None:
    sizes = {MType.JOIN_REQUEST: 23, MType.JOIN_ACCEPT: 17, MType.REJOIN_REQUEST: 19}
    phy_payload = bytes([m_type << 5]) + bytes(sizes.get(m_type, 12) - 1)
    for direction in Direction:
        if m_type.direction in (direction, None):
            assert parse(phy_payload, direction=direction) == parse(phy_payload)
        else:
            with pytest.raises(MalformedFrame) as caught:
                parse(phy_payload, direction=direction)
            assert caught.value.reason is Reason.WRONG_DIRECTION


def test_every_reason_has_its_test() -> None:
    assert {*MALFORMED, Reason.RFU_MTYPE, Reason.WRONG_DIRECTION} == set(Reason)


@pytest.mark.parametrize("vector", vectors("malformed"), ids=vector_id)
def test_malformed_vectors(vector: dict[str, Any]) -> None:
    given_, expect = vector["input"], vector["expect"]
    direction = Direction[given_["direction"].upper()]
    rejoin_exists = given_["lorawan_version"].startswith("1.1")
    if expect.get("stage") == "parse":
        with pytest.raises(MalformedFrame) as caught:
            parse(phy(given_["phy_payload"]), direction=direction, rejoin_exists=rejoin_exists)
        assert caught.value.reason.value == expect["reason"]
    else:
        frame = parse(phy(given_["phy_payload"]), direction=direction, rejoin_exists=rejoin_exists)
        assert build(frame).hex() == given_["phy_payload"]


@pytest.mark.parametrize(
    "vector",
    [*vectors("uplink_1_0"), *vectors("uplink_1_1"), *vectors("downlink_1_0"), *vectors("downlink_1_1")],
    ids=vector_id,
)
def test_data_frame_vectors(vector: dict[str, Any]) -> None:
    frame, expect = parse(phy(vector["input"]["phy_payload"])), vector["expect"]
    assert isinstance(frame, DataFrame)
    assert frame.m_type.name.lower() == expect["mtype"]
    assert str(frame.dev_addr) == expect["dev_addr"]
    flags = msgspec.structs.asdict(frame.flags)
    assert {name: flags[name] for name in expect["fctrl"]} == expect["fctrl"]
    assert not any(flag for name, flag in flags.items() if name not in expect["fctrl"])
    assert frame.fcnt16 == expect["fcnt"]
    assert (frame.f_opts.hex(), frame.f_port) == (expect["f_opts"], expect["f_port"])
    assert (frame.frm_payload.hex(), frame.mic.hex()) == (expect["frm_payload_encrypted"], expect["mic"])
    assert frame.confirmed is expect["mtype"].startswith("confirmed")
    assert build(frame).hex() == vector["input"]["phy_payload"]


@pytest.mark.parametrize("vector", vectors("join_request"), ids=vector_id)
def test_join_request_vectors(vector: dict[str, Any]) -> None:
    frame, expect = parse(phy(vector["input"]["phy_payload"])), vector["expect"]
    assert isinstance(frame, JoinRequest)
    assert (str(frame.join_eui), str(frame.dev_eui)) == (expect["join_eui"], expect["dev_eui"])
    assert (frame.dev_nonce, frame.mic.hex()) == (expect["dev_nonce"], expect["mic"])


@pytest.mark.parametrize("vector", [v for n in (0, 1, 2) for v in vectors(f"rejoin_{n}")], ids=vector_id)
def test_rejoin_request_vectors(vector: dict[str, Any]) -> None:
    frame, expect = parse(phy(vector["input"]["phy_payload"])), vector["expect"]
    assert isinstance(frame, RejoinRequest)
    assert frame.rejoin_type == expect["rejoin_type"]
    assert (None if frame.net_id is None else str(frame.net_id)) == expect.get("net_id")
    assert (None if frame.join_eui is None else str(frame.join_eui)) == expect.get("join_eui")
    assert (str(frame.dev_eui), frame.rj_count) == (expect["dev_eui"], expect["rj_count"])


@pytest.mark.parametrize("vector", vectors("proprietary"), ids=vector_id)
def test_proprietary_vectors(vector: dict[str, Any]) -> None:
    phy_payload = phy(vector["input"]["phy_payload"])
    assert parse(phy_payload) == Proprietary(0xE0, phy_payload[1:])


@pytest.mark.parametrize("vector", [*vectors("join_accept_1_0"), *vectors("join_accept_1_1")], ids=vector_id)
def test_opened_join_accept_vectors(vector: dict[str, Any]) -> None:
    expect = vector["expect"]
    opened = phy(expect["decrypted_phy"])
    body = parse_join_accept_body(opened[0], opened[1:])
    assert (str(body.join_nonce), str(body.net_id)) == (expect["join_nonce"], expect["net_id"])
    assert (str(body.dev_addr), body.rx_delay) == (expect["dev_addr"], expect["rx_delay"])
    dl_settings = {
        "opt_neg": body.opt_neg,
        "rx1_dr_offset": body.rx1_dr_offset,
        "rx2_data_rate": body.rx2_data_rate,
    }
    assert dl_settings == expect["dl_settings"]
    assert body.cf_list.hex() == (expect["cf_list"] or {"raw": ""})["raw"]
    assert body.message + body.mic == opened
    assert opened[:1] + build_join_accept_body(body) == opened


@pytest.mark.parametrize("size", [0, 15, 17, 31, 33])
def test_an_opened_join_accept_of_another_length_is_malformed(size: int) -> None:
    with pytest.raises(MalformedFrame) as caught:
        parse_join_accept_body(0x20, bytes(size))
    assert caught.value.reason is Reason.BAD_JOIN_ACCEPT_LENGTH


def made(**fields: Any) -> DataFrame:
    base: dict[str, Any] = {"m_type": MType.UNCONFIRMED_DATA_UP, "dev_addr": DevAddr(1), "fcnt16": FCnt16(1)}
    return DataFrame.make(**(base | fields))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"f_opts": bytes(16), "f_port": 1}, Reason.FOPTS_OVERFLOW),
        ({"frm_payload": b"x"}, Reason.TOO_SHORT),
        ({"f_opts": b"\x02", "f_port": 0}, Reason.FPORT0_WITH_FOPTS),
        ({"f_port": 1, "frm_payload": bytes(243)}, Reason.TOO_LONG),
        ({"m_type": MType.PROPRIETARY}, Reason.RFU_MTYPE),
        ({"m_type": MType.JOIN_ACCEPT}, Reason.BAD_JOIN_ACCEPT_LENGTH),
    ],
)
def test_no_illegal_frame_can_be_made(fields: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(MalformedFrame) as caught:
        made(**fields)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "frame",
    [
        JoinAccept(0x20, bytes(15)),
        Proprietary(0xE0, bytes(3)),
        Proprietary(0xE1, bytes(9)),
        RejoinRequest(0xC0, 3, NetID(1), None, EUI64(2), 3, MIC),
        msgspec.structs.replace(made(f_port=1), mic=b"\0" * 300),
        msgspec.structs.replace(made(), f_opts=b"\x02"),
        msgspec.structs.replace(made(), frm_payload=b"lost"),
    ],
)
def test_no_frame_is_built_that_would_not_parse_to_itself(frame: Frame) -> None:
    with pytest.raises(MalformedFrame):
        build(frame)
