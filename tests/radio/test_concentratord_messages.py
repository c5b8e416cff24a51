"""Concentratord's messages: those of a real one, those of protobuf's own runtime, and those that are none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given
from hypothesis import strategies as st

from lorabridge.lorawan.air import CrcStatus, FskDataRate, LoraDataRate, Transmission, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.concentratord.faults import EventFault, MalformedEvent
from lorabridge.radio.concentratord.mapping import REMEMBERED, Contexts, item_of, reception, status
from lorabridge.radio.concentratord.messages import (
    GatewayStats,
    TxAckStatus,
    UplinkFrame,
    Wording,
    build_downlink,
    build_gateway_id_request,
    parse_event,
    parse_gateway_id,
    parse_tx_ack,
)
from lorabridge.radio.concentratord.protobuf import Field, Kind, build_message, parse_message
from tests.radio.gateway_api import EUI_TEXT, made, read, stats, uplink
from tests.radio.strategies import DECIBELS, FREQUENCIES, LORA_RATES, U32
from tests.vector_files import vector_id, vectors

EUI = EUI64.parse(EUI_TEXT)
SCALARS = {
    1: Field("u", Kind.UINT32),
    2: Field("i", Kind.INT32),
    3: Field("l", Kind.INT64),
    4: Field("b", Kind.BOOL),
    5: Field("f", Kind.FLOAT),
    6: Field("d", Kind.DOUBLE),
    7: Field("y", Kind.BYTES),
    8: Field("s", Kind.STRING),
    9: Field("list", Kind.INT32, is_list=True),
}
TABLE = SCALARS | {10: Field("inside", SCALARS)}
I32, I64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "u": U32,
    "i": I32,
    "l": I64,
    "b": st.booleans(),
    "f": st.floats(width=32, allow_nan=False),
    "d": st.floats(allow_nan=False),
    "y": st.binary(max_size=200),
    "s": st.text(st.characters(codec="utf-8"), max_size=60),
    "list": st.lists(I32, min_size=1, max_size=4),
}
MESSAGES = st.fixed_dictionaries({}, optional=VALUES | {"inside": st.fixed_dictionaries({}, optional=VALUES)})
BASE = Transmission(
    phy_payload=b"\x60answer",
    gateway_eui=EUI,
    timing=TxTiming.AT_TMST,
    frequency_hz=868_100_000,
    data_rate=LoraDataRate(7, 125_000),
    power_dbm=14,
    tmst=2_000_000,
)


def transmission(**change: Any) -> Transmission:
    fields = {name: getattr(BASE, name) for name in BASE.__struct_fields__}
    return Transmission(**(fields | change))


def fault_of(*frames: bytes) -> EventFault:
    with pytest.raises(MalformedEvent) as caught:
        heard_of(*frames)
    return caught.value.fault


def heard_of(*frames: bytes) -> Any:
    _, event = parse_event(list(frames))
    if isinstance(event, UplinkFrame):
        return reception(event, Contexts().note(event.rx_info.context, 0), source="roof", received_at=1)
    return None if event is None else status(event, source="roof", received_at=1)


def event_of(**fields: Any) -> bytes:
    data: bytes = made("Event", **fields).SerializeToString()
    return data


@pytest.mark.parametrize("vector", vectors("concentratord"), ids=vector_id)
def test_a_recorded_message_means_what_it_meant(vector: dict[str, Any]) -> None:
    given_, expected = vector["input"], vector["expect"]
    if "frames" in given_:
        heard = heard_of(*(bytes.fromhex(frame) for frame in given_["frames"]))
        for name, value in expected.items():
            of = heard.antennas[0] if name in {"rssi_dbm", "snr_db", "channel", "antenna", "fine_time_ns"} else heard
            assert _plain(getattr(of, name)) == value, name
    else:
        answer = bytes.fromhex(given_["answer"])
        if "gateway_id" in expected:
            wording = Wording[given_["wording"]]
            assert f"{parse_gateway_id(wording, answer):016x}" == expected["gateway_id"]
            assert [frame.hex() for frame in build_gateway_id_request(wording)] == given_["command"]
        else:
            ack = parse_tx_ack(answer)
            assert {"id": ack.downlink_id, "statuses": [item.status.name for item in ack.items]} == expected


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (LoraDataRate, FskDataRate)):
        return [getattr(value, name) for name in value.__struct_fields__]
    return value.name if isinstance(value, CrcStatus) else str(value) if isinstance(value, EUI64) else value


@given(MESSAGES)
def test_what_protobuf_writes_is_read_and_what_we_write_protobuf_reads(values: dict[str, Any]) -> None:
    theirs = made("Scalars", **values)
    assert _without_zeros(parse_message(theirs.SerializeToString(), TABLE)) == _without_zeros(values)
    assert read("Scalars", build_message(values, TABLE)) == theirs


def _without_zeros(values: Mapping[str, Any]) -> dict[str, Any]:
    """A field of the value zero is not on the wire; -0.0 is."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name == "inside":
            kept[name] = _without_zeros(value)
        elif value or (isinstance(value, float) and math.copysign(1, value) < 0):
            kept[name] = repr(value)
    return kept


@given(MESSAGES, MESSAGES)
def test_pieces_of_a_message_are_put_together_as_protobuf_does(first: dict[str, Any], second: dict[str, Any]) -> None:
    data = build_message(first, TABLE) + build_message(second, TABLE)
    whole = read("Scalars", data)
    ours = made("Scalars", **parse_message(data, TABLE))
    assert ours == whole


@given(st.binary(max_size=60))
def test_bytes_that_protobuf_refuses_are_refused_and_the_rest_means_the_same(data: bytes) -> None:
    try:
        theirs = read("Scalars", data)
    except DecodeError:
        with pytest.raises(MalformedEvent):
            parse_message(data, TABLE)
        return
    try:
        ours = parse_message(data, TABLE)
    except MalformedEvent:
        return  # we are stricter: a group, a packed list, a known field of another wire type
    assume("inside" not in ours)
    theirs.DiscardUnknownFields()
    assert _without_zeros(ours) == _without_zeros(
        {field.name: list(value) if field.name == "list" else value for field, value in theirs.ListFields()}
    )


@given(
    phy_payload=st.binary(max_size=255),
    count_us=U32,
    frequency=FREQUENCIES,
    rate=LORA_RATES,
    rssi=st.integers(-200, 50),
    snr=DECIBELS.map(lambda value: round(value * 4) / 4),
    crc=st.integers(0, 2),
)
def test_an_uplink_is_heard_as_it_was_said(
    phy_payload: bytes, count_us: int, frequency: int, rate: LoraDataRate, rssi: int, snr: float, crc: int
) -> None:
    frame = uplink(phy_payload, count_us, rssi=rssi, snr=snr, crc_status=crc, board=2, antenna=3, channel=7, rf_chain=1)
    lora = {"bandwidth": rate.bandwidth_hz, "spreading_factor": rate.spreading_factor, "code_rate": 3}
    frame["tx_info"] = {"frequency": frequency, "modulation": {"lora": lora}}
    heard = heard_of(event_of(uplink_frame=frame))
    (antenna,) = heard.antennas
    assert (heard.phy_payload, heard.tmst, heard.frequency_hz) == (phy_payload, count_us, frequency)
    assert (heard.data_rate, heard.code_rate, heard.gateway_eui) == (rate, "4/7", EUI)
    assert (antenna.rssi_dbm, antenna.snr_db, antenna.antenna, antenna.channel) == (rssi, snr, 3, 7)
    assert (heard.crc, heard.rf_chain, heard.board) == ([CrcStatus.NONE, CrcStatus.BAD, CrcStatus.OK][crc], 1, 2)


def test_times_are_taken_from_gps_and_not_from_the_operating_system() -> None:
    moment, gps = {"seconds": 1_700_000_000, "nanos": 5_000_000}, {"seconds": 1_384_035_218, "nanos": 123_456_789}
    heard = heard_of(event_of(uplink_frame=uplink(b"x", gw_time=moment)))
    assert (heard.gateway_time_ns, heard.gps_time_ms, heard.antennas[0].fine_time_ns) == (None, None, None)
    fine = {"seconds": 1_384_035_218, "nanos": 123_456_700}
    frame = uplink(b"x", gw_time=moment, time_since_gps_epoch=gps, fine_time_since_gps_epoch=fine)
    heard = heard_of(event_of(uplink_frame=frame))
    assert (heard.gateway_time_ns, heard.gps_time_ms) == (1_700_000_000_005_000_000, 1_384_035_218_123)
    assert heard.antennas[0].fine_time_ns == 123_456_700


def test_statistics_are_a_status_report() -> None:
    metadata = [
        {"key": "concentrator_temp", "value": "41.5"},
        {"key": "model", "value": "rak_5146"},
        {"key": "concentratord_version", "value": "x" * 1025},
    ]
    told = heard_of(event_of(gateway_stats=stats(metadata=metadata, location={"latitude": 52.5, "altitude": 34.0})))
    assert (told.gateway_eui, told.time, told.rx_received) == (EUI, "2023-11-14 22:13:20 GMT", 9)
    assert (told.latitude, told.longitude, told.altitude_m) == (52.5, 0.0, 34.0)
    assert (told.temperature_c, told.platform, told.description) == (41.5, "rak_5146", None)
    bare = heard_of(event_of(gateway_stats={"gateway_id": EUI_TEXT, "metadata": [{"key": "concentrator_temp"}]}))
    assert (bare.time, bare.latitude, bare.temperature_c, bare.rx_received) == (None, None, None, 0)
    hot = [{"key": "concentrator_temp", "value": "1e9"}]
    assert heard_of(event_of(gateway_stats=stats(metadata=hot))).temperature_c is None


def _uplink_with(tx_info: dict[str, Any] | None = None, **change: Any) -> bytes:
    frame = uplink(b"x", **change)
    if tx_info is not None:
        frame["tx_info"] = tx_info
    return event_of(uplink_frame=frame)


def _modulated(**modulation: Any) -> bytes:
    return _uplink_with({"frequency": 868_100_000, "modulation": modulation})


LORA = {"bandwidth": 125_000, "spreading_factor": 7}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x0a\x05abc", EventFault.BAD_PROTOBUF),  # a length beyond the end
        (b"\x0a", EventFault.BAD_PROTOBUF),
        (b"\x0b\x0c", EventFault.BAD_PROTOBUF),  # a group
        (b"\x00\x00", EventFault.BAD_PROTOBUF),  # field number 0
        (b"\x80" * 10 + b"\x01", EventFault.BAD_PROTOBUF),  # a varint of eleven bytes
        (b"\x08\x01", EventFault.BAD_PROTOBUF),  # uplink_frame as a number
        (b"\x0a\x05\x2a\x03\x0a\x01\xff", EventFault.BAD_PROTOBUF),  # a gateway id that is no UTF-8
        (b"\x0a\x00", EventFault.MISSING_FIELD),
        (event_of(uplink_frame={"phy_payload": b"x", "rx_info": {"gateway_id": EUI_TEXT}}), EventFault.MISSING_FIELD),
        (event_of(gateway_stats={"rx_packets_received": 1}), EventFault.MISSING_FIELD),
        (event_of(uplink_frame=uplink(b"x" * 256)), EventFault.BAD_VALUE),
        (_uplink_with(gateway_id="0016c001ff10a23"), EventFault.BAD_VALUE),
        (_uplink_with(gateway_id="0016c001ff10a23g"), EventFault.BAD_VALUE),
        (_uplink_with(crc_status=3), EventFault.BAD_VALUE),
        (_uplink_with(crc_status=-1), EventFault.BAD_VALUE),
        (_uplink_with(rssi=-(2**31)), EventFault.BAD_VALUE),
        (_uplink_with(snr=math.nan), EventFault.BAD_VALUE),
        (_uplink_with(snr=math.inf), EventFault.BAD_VALUE),
        (_uplink_with(context=b"x" * 65), EventFault.BAD_VALUE),
        (_uplink_with(board=256), EventFault.BAD_VALUE),
        (_uplink_with(gw_time={"seconds": -1}), EventFault.BAD_VALUE),
        (_uplink_with(gw_time={"nanos": 10**9}), EventFault.BAD_VALUE),
        (_uplink_with({"frequency": 99_999_999, "modulation": {"lora": LORA}}), EventFault.BAD_VALUE),
        (event_of(uplink_frame=uplink(b"x"), gateway_stats=stats()), EventFault.BAD_VALUE),
        (event_of(gateway_stats=stats(location={"latitude": 90.5})), EventFault.BAD_VALUE),
        (event_of(gateway_stats=stats(location={"longitude": math.nan})), EventFault.BAD_VALUE),
        (event_of(gateway_stats=stats(time={"seconds": 2**62})), EventFault.BAD_VALUE),
        (_modulated(), EventFault.BAD_DATA_RATE),
        (_modulated(lora=LORA | {"spreading_factor": 4}), EventFault.BAD_DATA_RATE),
        (_modulated(lora=LORA | {"bandwidth": 125}), EventFault.BAD_DATA_RATE),
        (_modulated(lora=LORA, fsk={"datarate": 50_000}), EventFault.BAD_DATA_RATE),
        (_modulated(lr_fhss={"grid_steps": 8}), EventFault.BAD_DATA_RATE),
        (_modulated(fsk={"datarate": 0}), EventFault.BAD_DATA_RATE),
    ],
)
def test_what_means_nothing_is_refused_by_name(data: bytes, fault: EventFault) -> None:
    assert fault_of(data) is fault


def test_frames_of_another_number_or_topic_are_no_events() -> None:
    assert fault_of() is EventFault.BAD_FRAMES
    assert fault_of(b"up", b"", b"") is EventFault.BAD_FRAMES
    assert heard_of(b"mesh", b"x") is None
    assert heard_of(event_of(mesh={"gateway_id": EUI_TEXT})) is None
    assert heard_of(b"") is None


def test_both_wordings_say_the_same() -> None:
    frame, told = uplink(b"x"), stats()
    new = [event_of(uplink_frame=frame)], [event_of(gateway_stats=told)]
    old = (
        [b"up", made("UplinkFrame", **frame).SerializeToString()],
        [b"stats", made("GatewayStats", **told).SerializeToString()],
    )
    for (one, two), kind in zip(zip(new, old, strict=True), (UplinkFrame, GatewayStats), strict=True):
        assert parse_event(one)[0] is Wording.ENVELOPE
        assert parse_event(two)[0] is Wording.TOPIC
        assert isinstance(parse_event(one)[1], kind)
        assert parse_event(one)[1] == parse_event(two)[1]


@pytest.mark.parametrize("wording", Wording)
def test_a_downlink_is_read_by_protobuf_as_it_was_meant(wording: Wording) -> None:
    contexts = Contexts()
    item = item_of(transmission(antenna=1, board=2, preamble_symbols=10), contexts)
    frames = build_downlink(wording, downlink_id=77, gateway_id=EUI_TEXT, item=item)
    if wording is Wording.TOPIC:
        assert frames[0] == b"down"
        order = read("DownlinkFrame", frames[1])
    else:
        order = read("Command", frames[0]).send_downlink_frame
    lora = {
        "bandwidth": 125_000,
        "spreading_factor": 7,
        "code_rate": 1,
        "polarization_inversion": True,
        "preamble": 10,
        "no_crc": True,
    }
    tx_info = {
        "frequency": 868_100_000,
        "power": 14,
        "modulation": {"lora": lora},
        "board": 2,
        "antenna": 1,
        "timing": {"delay": {"delay": {"seconds": 1}}},
        "context": (1_000_000).to_bytes(4, "big"),
    }
    wanted = {"downlink_id": 77, "gateway_id": EUI_TEXT, "items": [{"phy_payload": b"\x60answer", "tx_info": tx_info}]}
    assert order == made("DownlinkFrame", **wanted)


def test_every_timing_and_modulation_has_its_words() -> None:
    contexts = Contexts()
    at_once = item_of(transmission(timing=TxTiming.IMMEDIATELY, tmst=None), contexts)["tx_info"]
    assert (at_once["timing"], "context" in at_once) == ({"immediately": {}}, False)
    by_gps = item_of(transmission(timing=TxTiming.AT_GPS_TIME, gps_time_ms=1_384_035_218_128), contexts)["tx_info"]
    moment = {"seconds": 1_384_035_218, "nanos": 128_000_000}
    assert by_gps["timing"] == {"gps_epoch": {"time_since_gps_epoch": moment}}
    fsk = item_of(transmission(data_rate=FskDataRate(50_000), frequency_deviation_hz=25_000), contexts)["tx_info"]
    assert fsk["modulation"] == {"fsk": {"frequency_deviation": 25_000, "datarate": 50_000}}
    assert item_of(transmission(tmst=300_000), contexts)["tx_info"]["context"] == (2**32 - 700_000).to_bytes(4, "big")


@pytest.mark.parametrize(
    "change",
    [
        {"phy_payload": b""},
        {"phy_payload": b"x" * 256},
        {"power_dbm": 128},
        {"tmst": None},
        {"timing": TxTiming.AT_GPS_TIME},
        {"data_rate": FskDataRate(50_000)},
        {"data_rate": LoraDataRate(4, 125_000)},
        {"data_rate": LoraDataRate(7, 62_500)},
        {"code_rate": "4/9"},
    ],
)
def test_a_transmission_that_the_api_has_no_words_for_is_not_sent(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a |an "):
        item_of(transmission(**change), Contexts())


@given(U32, st.integers(1, 15))
def test_a_counter_comes_back_with_its_window(count_us: int, delay: int) -> None:
    contexts = Contexts()
    assert contexts.note(count_us.to_bytes(4, "big"), 5) == count_us
    context, seconds = contexts.find((count_us + delay * 1_000_000) & 0xFFFF_FFFF)
    assert (int.from_bytes(context, "big") + seconds * 1_000_000) & 0xFFFF_FFFF == (
        count_us + delay * 1_000_000
    ) & 0xFFFF_FFFF


def test_a_context_of_another_form_comes_back_as_it_was_and_memory_is_bounded() -> None:
    contexts = Contexts()
    assert contexts.note(b"", 5) is None
    tmst = contexts.note(b"relay one", 2**32 + 5)
    assert tmst == 5
    assert contexts.find(5_000_005) == (b"relay one", 5)
    for number in range(REMEMBERED):
        contexts.note(b"another relay", 7 + number)
    assert len(contexts._kept) == REMEMBERED
    assert contexts.find(5_000_005)[0] != b"relay one"


def test_every_status_has_the_word_of_the_api() -> None:
    assert (TxAckStatus(1).name, TxAckStatus(2).name, TxAckStatus(11).name) == ("OK", "TOO_LATE", "DUTY_CYCLE_OVERFLOW")
    with pytest.raises(MalformedEvent):
        parse_tx_ack(made("DownlinkTxAck", items=[{"status": 12}]).SerializeToString())


def test_an_id_is_sixteen_digits_or_eight_bytes() -> None:
    assert parse_gateway_id(Wording.TOPIC, bytes.fromhex(EUI_TEXT)) == int(EUI)
    for wording, answer in ((Wording.TOPIC, b"7 bytes"), (Wording.ENVELOPE, b""), (Wording.ENVELOPE, b"\x0a\x01a")):
        with pytest.raises(MalformedEvent):
            parse_gateway_id(wording, answer)
