"""The codec of the UDP protocol: vectors, recorded datagrams, both ways, and what hostile bytes cost."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import (
    Antenna,
    CrcStatus,
    FskDataRate,
    GatewayStatus,
    LoraDataRate,
    Reception,
    Transmission,
    TxResult,
    TxTiming,
)
from lorabridge.lorawan.types import EUI64
from lorabridge.radio import gwmp
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.rxpk import build_push_payload, parse_push_payload
from lorabridge.radio.txpk import (
    build_tx_ack_payload,
    build_txpk_payload,
    parse_tx_ack_payload,
    parse_txpk_payload,
)
from lorabridge.radio.wire_values import build_frequency, parse_base64
from tests.radio.strategies import EUIS, FREQUENCIES, RECEPTIONS, STATUSES, TOKENS, TX_RESULTS, transmissions
from tests.vector_files import SHARED, vector_id, vectors

EUI = EUI64(0xAA555A0000000001)
RXPK = {
    "tmst": 3512348611,
    "chan": 2,
    "rfch": 0,
    "freq": 868.3,
    "mid": 5,
    "stat": 1,
    "modu": "LORA",
    "datr": "SF7BW125",
    "codr": "4/6",
    "rssi": -35,
    "lsnr": 5.1,
    "size": 4,
    "data": "AQIDBA==",
}
Told = tuple[list[Reception | GatewayStatus], list[DatagramFault]]


def read(payload: bytes) -> Told:
    return parse_push_payload(payload, gateway_eui=EUI, source="udp", received_at=7)


def read_rxpk(*, without: str = "", **changes: Any) -> Told:
    rxpk = {key: value for key, value in {**RXPK, **changes}.items() if key != without}
    return read(json.dumps({"rxpk": [rxpk]}).encode())


def reception(**changes: Any) -> Reception:
    heard, faults = read_rxpk(**changes)
    assert faults == []
    (only,) = heard
    assert isinstance(only, Reception)
    return only


def fault_of(payload: bytes) -> DatagramFault:
    with pytest.raises(MalformedDatagram) as raised:
        read(payload)
    return raised.value.fault


# --- vectors -----------------------------------------------------------------------------------------------------

_ERRORS = {
    "too_short": DatagramFault.TOO_SHORT,
    "bad_version": DatagramFault.BAD_VERSION,
    "unknown_type": DatagramFault.UNKNOWN_TYPE,
    "bad_json": DatagramFault.BAD_JSON,
}


@pytest.mark.parametrize("vector", vectors("udp_gwmp"), ids=vector_id)
def test_every_datagram_vector_is_read_as_expected(vector: dict[str, Any]) -> None:
    data, expect = bytes.fromhex(vector["input"]["datagram"]), vector["expect"]
    if "error" not in expect:
        check_datagram(data, expect)
        return
    try:
        datagram = gwmp.parse_datagram(data)
        _, faults = read(datagram.payload)
    except MalformedDatagram as error:
        faults = [error.fault]
    # An array is JSON, that it is no object counts as a wrong value.
    assert faults == [DatagramFault.BAD_VALUE if data.endswith(b"[]") else _ERRORS[expect["error"]]]


def check_datagram(data: bytes, expect: dict[str, Any]) -> None:
    datagram = gwmp.parse_datagram(data)
    assert datagram.version == expect["version"]
    assert datagram.token.hex() == expect["token"]
    assert datagram.type.name == expect["type"]
    assert (None if datagram.gateway_eui is None else str(datagram.gateway_eui)) == expect["gateway_eui"]
    payload = datagram.payload.strip(b"\0")
    assert (json.loads(payload) if payload else None) == expect["json"]
    if payload == datagram.payload:
        assert gwmp.build_datagram(datagram) == data
    if datagram.type is gwmp.PacketType.PUSH_DATA:
        heard, faults = read(datagram.payload)
        said = expect["json"]
        assert faults == []
        assert len(heard) == len(said.get("rxpk", [])) + ("stat" in said)
    elif datagram.type is gwmp.PacketType.TX_ACK:
        word = (expect["json"] or {}).get("txpk_ack", {}).get("error")
        assert parse_tx_ack_payload(datagram.payload).error == (None if word == "NONE" else word)
    elif datagram.type is gwmp.PacketType.PULL_RESP and "txpk" in expect["json"]:
        said = expect["json"]["txpk"]
        transmission = parse_txpk_payload(datagram.payload, gateway_eui=EUI)
        assert len(transmission.phy_payload) == said["size"]
        assert transmission.frequency_hz == round(said["freq"] * 1e6)
        assert transmission.frequency_deviation_hz == said.get("fdev")
        assert transmission.invert_polarity == said.get("ipol", False)


_RXPK_ERRORS = {
    "missing_field": DatagramFault.MISSING_FIELD,
    "bad_type": DatagramFault.BAD_VALUE,
    "bad_base64": DatagramFault.BAD_BASE64,
    "bad_datr": DatagramFault.BAD_DATA_RATE,
    "size_mismatch": DatagramFault.SIZE_MISMATCH,
}


@pytest.mark.parametrize("vector", vectors("rxpk"), ids=vector_id)
def test_every_rxpk_vector_is_read_as_expected(vector: dict[str, Any]) -> None:
    heard, faults = read(json.dumps({"rxpk": [vector["input"]["rxpk"]]}).encode())
    expect = vector["expect"]
    if expect.get("error") == "crc_fail":
        assert isinstance(heard[0], Reception)
        assert heard[0].crc is CrcStatus.BAD
    elif "error" in expect or not expect["size_matches"]:
        assert (heard, faults) == ([], [_RXPK_ERRORS[expect.get("error", "size_mismatch")]])
    else:
        assert faults == []
        (only,) = heard
        assert isinstance(only, Reception)
        check_rxpk(only, expect)


def check_rxpk(heard: Reception, expect: dict[str, Any]) -> None:
    assert heard.phy_payload.hex() == expect["phy_payload"]
    assert heard.frequency_hz == expect["freq_hz"]
    assert heard.antennas[0].rssi_dbm == expect["rssi"]
    assert heard.antennas[0].snr_db == expect["snr"]
    assert heard.tmst == expect["tmst"]
    assert heard.code_rate == expect.get("code_rate")
    if expect["modulation"] == "LORA":
        assert heard.data_rate == LoraDataRate(expect["sf"], expect["bw_hz"])
    else:
        assert heard.data_rate == FskDataRate(expect["bit_rate"])


@pytest.mark.skipif(not (SHARED / "recorded_udp.jsonl").exists(), reason="recordings of no stated licence stay outside")
def test_every_recorded_datagram_is_read_as_expected() -> None:
    recorded = vectors("recorded_udp")
    assert len(recorded) > 500
    for vector in recorded:
        check_datagram(bytes.fromhex(vector["input"]["datagram"]), vector["expect"])


@pytest.mark.skipif(
    not (SHARED / "recorded_rxpk.jsonl").exists(), reason="recordings of no stated licence stay outside"
)
def test_every_recorded_rxpk_is_read_but_the_one_whose_size_is_wrong() -> None:
    faults: list[DatagramFault] = []
    read_well = 0
    for vector in vectors("recorded_rxpk"):
        if "rxpk" in vector:
            heard, wrong = read(json.dumps({"rxpk": [vector["rxpk"]]}).encode())
            faults += wrong
            for item in heard:
                assert isinstance(item, Reception)
                assert item.phy_payload == parse_base64(vector["rxpk"]["data"])
                assert item.crc.value == vector["rxpk"]["stat"]
                read_well += 1
    assert faults == [DatagramFault.SIZE_MISMATCH]
    assert read_well > 1600


# --- both ways ---------------------------------------------------------------------------------------------------


@given(st.lists(RECEPTIONS, max_size=5), st.none() | STATUSES, EUIS)
def test_what_is_built_as_push_data_is_read_as_it_was(
    frames: list[Reception], status: GatewayStatus | None, eui: EUI64
) -> None:
    heard: list[Reception | GatewayStatus] = [*frames] if status is None else [*frames, status]
    told: list[Reception | GatewayStatus] = []
    for item in heard:
        datagram = gwmp.parse_datagram(gwmp.build_push_data(b"ab", eui, [item]))
        again, faults = parse_push_payload(
            datagram.payload, gateway_eui=item.gateway_eui, source="udp", received_at=item.received_at
        )
        assert faults == []
        told += again
    assert told == heard
    together, faults = read(build_push_payload(heard))
    assert (len(together), faults) == (len(heard), [])


@given(transmissions(), TOKENS, st.sampled_from([1, 2]))
def test_what_is_built_as_pull_resp_is_read_as_it_was(transmission: Transmission, token: bytes, version: int) -> None:
    data = gwmp.build_pull_resp(token, transmission, version=version)
    assert len(data) <= 1000, "the buffer of the reference forwarder"
    datagram = gwmp.parse_datagram(data)
    assert (datagram.version, datagram.token) == (version, token)
    assert parse_txpk_payload(datagram.payload, gateway_eui=transmission.gateway_eui) == transmission


@given(TX_RESULTS, EUIS, TOKENS)
def test_what_is_built_as_tx_ack_is_read_as_it_was(result: TxResult, eui: EUI64, token: bytes) -> None:
    datagram = gwmp.parse_datagram(gwmp.build_tx_ack(token, eui, result))
    assert (datagram.gateway_eui, datagram.token) == (eui, token)
    assert parse_tx_ack_payload(datagram.payload) == result


@given(TOKENS, EUIS, st.sampled_from([1, 2]))
def test_requests_and_acknowledgements_are_built_and_read(token: bytes, eui: EUI64, version: int) -> None:
    kind = gwmp.PacketType
    for data, expected, whose in (
        (gwmp.build_push_ack(token, version=version), kind.PUSH_ACK, None),
        (gwmp.build_pull_ack(token, version=version), kind.PULL_ACK, None),
        (gwmp.build_pull_data(token, eui, version=version), kind.PULL_DATA, eui),
    ):
        datagram = gwmp.parse_datagram(data)
        assert (datagram.version, datagram.token, datagram.type) == (version, token, expected)
        assert datagram.gateway_eui == whose
        assert gwmp.build_datagram(datagram) == data


def test_bytes_appended_to_an_acknowledgement_mean_nothing() -> None:
    assert gwmp.parse_datagram(gwmp.build_push_ack(b"ab") + b"junk").payload == b""


@given(FREQUENCIES)
def test_a_frequency_survives_readers_that_round_and_readers_that_truncate(frequency_hz: int) -> None:
    mhz = json.loads(json.dumps(build_frequency(frequency_hz)))
    assert int(mhz * 1e6) == round(mhz * 1e6) == frequency_hz


@pytest.mark.parametrize(
    "datagram",
    [
        gwmp.Datagram(version=3, token=b"ab", type=gwmp.PacketType.PUSH_ACK),
        gwmp.Datagram(token=b"abc", type=gwmp.PacketType.PUSH_ACK),
        gwmp.Datagram(token=b"ab", type=gwmp.PacketType.PUSH_DATA),
        gwmp.Datagram(token=b"ab", type=gwmp.PacketType.PULL_RESP, gateway_eui=EUI),
    ],
)
def test_a_datagram_that_the_protocol_does_not_have_is_not_built(datagram: gwmp.Datagram) -> None:
    with pytest.raises(ValueError, match="there is no such"):
        gwmp.build_datagram(datagram)


def test_no_more_frames_are_built_into_a_datagram_than_a_forwarder_takes() -> None:
    frames: list[Reception | GatewayStatus] = [reception()] * 256
    assert len(read(build_push_payload(frames[:255]))[0]) == 255
    with pytest.raises(ValueError, match="255"):
        build_push_payload(frames)


# --- fields ------------------------------------------------------------------------------------------------------


def test_all_fields_of_one_antenna_are_read() -> None:
    heard = reception(
        time="2026-11-23T19:22:37.553446Z",
        tmms=1479496975553,
        ftime=123456789,
        rssis=-36,
        foff=-1234,
        brd=1,
        aesk=2,
        ant=3,
        jver=1,
    )
    assert heard == Reception(
        phy_payload=b"\1\2\3\4",
        received_at=7,
        gateway_eui=EUI,
        source="udp",
        crc=CrcStatus.OK,
        frequency_hz=868_300_000,
        data_rate=LoraDataRate(7, 125_000),
        code_rate="4/6",
        tmst=3512348611,
        gateway_time_ns=1_795_461_757_553_446_000,
        gps_time_ms=1479496975553,
        rf_chain=0,
        modem=5,
        board=1,
        aes_key_index=2,
        antennas=(
            Antenna(
                antenna=3,
                channel=2,
                rssi_dbm=-35,
                signal_rssi_dbm=-36,
                snr_db=5.1,
                frequency_offset_hz=-1234,
                fine_time_ns=123456789,
            ),
        ),
    )


def test_a_v2_gateway_tells_of_each_antenna() -> None:
    rsig = [
        {"ant": 0, "chan": 7, "rssic": -105, "lsnr": 9.2, "etime": "KdMHA8GiRB6GEoydZeKbBg==", "foff": -3},
        {"ant": 1, "chan": 23, "rssic": -110, "rssis": -114, "rssisd": 2, "lsnr": 5.0, "ftime": 999_999_999},
    ]
    assert reception(rsig=rsig, brd=0, aesk=0).antennas == (
        Antenna(
            antenna=0,
            channel=7,
            rssi_dbm=-105,
            snr_db=9.2,
            frequency_offset_hz=-3,
            encrypted_fine_time=base64.b64decode("KdMHA8GiRB6GEoydZeKbBg=="),
        ),
        Antenna(
            antenna=1,
            channel=23,
            rssi_dbm=-110,
            signal_rssi_dbm=-114,
            signal_rssi_deviation_db=2,
            snr_db=5.0,
            fine_time_ns=999_999_999,
        ),
    )


def test_frames_with_a_bad_crc_and_without_one_are_told_as_such() -> None:
    assert reception(stat=1).crc is CrcStatus.OK
    assert reception(stat=-1).crc is CrcStatus.BAD
    assert reception(stat=0).crc is CrcStatus.NONE
    assert reception(without="stat").crc is CrcStatus.NONE


def test_fsk_has_a_bit_rate_and_no_code_rate() -> None:
    heard = reception(modu="FSK", datr=50000, codr="OFF")
    assert heard.data_rate == FskDataRate(50000)
    assert heard.code_rate is None


@pytest.mark.parametrize(
    "text",
    ["+/8BAg==", "-_8BAg==", "-/8BAg==", "+/8BAg", "-_8BAg", "+/8BAg="],
    ids=["std", "url", "mixed", "bare", "bare-url", "half"],
)
def test_base64_is_read_in_every_spelling_that_forwarders_use(text: str) -> None:
    assert reception(data=text).phy_payload == b"\xfb\xff\x01\x02"


@pytest.mark.parametrize("text", ["AQID*A==", "AQIDB", "AQ=DBA==", "====", "AQIDBA===A", "AQID\u00e9A==", "AQI DBA="])
def test_what_is_no_base64_costs_the_frame(text: str) -> None:
    assert read_rxpk(data=text, without="size") == ([], [DatagramFault.BAD_BASE64])


SECOND = 1_000_000_000
NOON_UTC = 1_795_521_600  # 2026-11-24T12:00:00Z


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-11-24T12:00:00.000001Z", NOON_UTC * SECOND + 1000),
        ("2026-11-24T12:00:00Z", NOON_UTC * SECOND),
        ("2026-11-24T14:00:00+02:00", NOON_UTC * SECOND),
        ("2026-11-24T06:30:00.5-05:30", NOON_UTC * SECOND + SECOND // 2),
        ("2026-11-24T12:00:00", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59Z", None),
        ("1969-12-31T23:59:59Z", None),
    ],
)
def test_the_time_of_the_gateway_is_read_with_any_offset_or_taken_as_not_said(
    text: str, nanoseconds: int | None
) -> None:
    assert reception(time=text).gateway_time_ns == nanoseconds


def test_gps_time_corrects_a_text_that_is_one_second_late_and_keeps_its_microseconds() -> None:
    tmms = (NOON_UTC + 18) * 1000 - 315_964_800_000 + 250
    right = NOON_UTC * SECOND + 250_125_000
    assert reception(time="2026-11-24T12:00:00.250125Z", tmms=tmms).gateway_time_ns == right
    assert reception(time="2026-11-24T11:59:59.250125Z", tmms=tmms).gateway_time_ns == NOON_UTC * SECOND + 250_000_000
    assert reception(tmms=tmms).gateway_time_ns == NOON_UTC * SECOND + 250_000_000


def test_all_fields_of_a_status_report_are_read() -> None:
    stat = {
        "time": "2026-11-23 19:19:01 GMT",
        "lati": 46.24,
        "long": 3.2523,
        "alti": 145,
        "rxnb": 4,
        "rxok": 3,
        "rxfw": 2,
        "ackr": 99.5,
        "dwnb": 1,
        "txnb": 0,
        "temp": 23.4,
        "pfrm": "IMST + Rpi",
        "mail": "a@b.c",
        "desc": "roof",
    }
    heard, faults = read(json.dumps({"stat": stat}).encode())
    assert faults == []
    assert heard == [
        GatewayStatus(
            gateway_eui=EUI,
            source="udp",
            received_at=7,
            time="2026-11-23 19:19:01 GMT",
            latitude=46.24,
            longitude=3.2523,
            altitude_m=145,
            rx_received=4,
            rx_ok=3,
            rx_forwarded=2,
            upstream_acked_percent=99.5,
            tx_received=1,
            tx_emitted=0,
            temperature_c=23.4,
            platform="IMST + Rpi",
            mail="a@b.c",
            description="roof",
        )
    ]


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        (b"", TxResult()),
        (b"\0", TxResult()),
        (b"\0\0 \n\0", TxResult()),
        (b"{}", TxResult()),
        (b'{"txpk_ack":{"error":"NONE"}}', TxResult()),
        (b'{"txpk_ack":{"error":""}}\0', TxResult()),
        (b'{"txpk_ack":{"error":"TOO_LATE"}}', TxResult(error="TOO_LATE")),
        (b'{"txpk_ack":{"warn":"TX_POWER","value":12}}', TxResult(warning="TX_POWER", power_dbm=12)),
        (b'{"txpk_ack":{"warn":"TX_POWER","value":1e300}}', TxResult(warning="TX_POWER")),
    ],
)
def test_tx_ack_is_read_in_every_form_that_forwarders_send(payload: bytes, result: TxResult) -> None:
    assert parse_tx_ack_payload(payload) == result


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"nonsense", DatagramFault.BAD_JSON),
        (b"[1]", DatagramFault.BAD_VALUE),
        (b'{"txpk_ack":{"error":"a\\nb"}}', DatagramFault.BAD_VALUE),
        (b'{"txpk_ack":{"error":"' + b"A" * 33 + b'"}}', DatagramFault.BAD_VALUE),
        (b'{"txpk_ack":{"error":"\xff"}}', DatagramFault.BAD_JSON),
    ],
)
def test_a_tx_ack_that_cannot_be_read_is_no_answer(payload: bytes, fault: DatagramFault) -> None:
    with pytest.raises(MalformedDatagram) as raised:
        parse_tx_ack_payload(payload)
    assert raised.value.fault is fault


SENDABLE: dict[str, Any] = {
    "phy_payload": b"\x60",
    "gateway_eui": EUI,
    "timing": TxTiming.IMMEDIATELY,
    "frequency_hz": 868_100_000,
    "data_rate": LoraDataRate(7, 125_000),
    "power_dbm": 14,
}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"timing": TxTiming.AT_TMST}, "needs that time"),
        ({"timing": TxTiming.AT_GPS_TIME}, "needs that time"),
        ({"data_rate": FskDataRate(50_000)}, "deviation"),
        ({"data_rate": LoraDataRate(7, 812_500)}, "no name"),
    ],
)
def test_a_transmission_the_forwarder_would_drop_in_silence_is_not_built(changes: dict[str, Any], why: str) -> None:
    assert build_txpk_payload(Transmission(**SENDABLE))
    with pytest.raises(ValueError, match=why):
        build_txpk_payload(Transmission(**{**SENDABLE, **changes}))


def test_the_words_of_a_txpk_are_those_of_the_protocol() -> None:
    said = json.loads(build_txpk_payload(Transmission(**SENDABLE)))["txpk"]
    assert said == {
        "imme": True,
        "freq": 868.1,
        "rfch": 0,
        "powe": 14,
        "modu": "LORA",
        "datr": "SF7BW125",
        "codr": "4/5",
        "ipol": True,
        "ncrc": True,
        "size": 1,
        "data": "YA==",
    }
    fsk = {"data_rate": FskDataRate(50_000), "frequency_deviation_hz": 25_000}
    said = json.loads(build_txpk_payload(Transmission(**{**SENDABLE, **fsk})))["txpk"]
    assert (said["modu"], said["datr"], said["fdev"], "codr" in said) == ("FSK", 50_000, 25_000, False)


TXPK = {"imme": True, "freq": 868.1, "rfch": 0, "modu": "LORA", "datr": "SF7BW125", "codr": "4/5", "data": "YA=="}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"imme": False}, DatagramFault.MISSING_FIELD),
        ({"data": None}, DatagramFault.MISSING_FIELD),
        ({"size": 2}, DatagramFault.SIZE_MISMATCH),
        ({"codr": "5/4"}, DatagramFault.BAD_DATA_RATE),
        ({"freq": "868.1"}, DatagramFault.BAD_VALUE),
    ],
)
def test_a_txpk_that_cannot_be_sent_is_refused_with_its_reason(changes: dict[str, Any], fault: DatagramFault) -> None:
    with pytest.raises(MalformedDatagram) as raised:
        parse_txpk_payload(json.dumps({"txpk": {**TXPK, **changes}}).encode(), gateway_eui=EUI)
    assert raised.value.fault is fault


def test_code_rates_are_read_in_every_spelling_of_the_reference() -> None:
    for said, meant in (("2/3", "4/6"), ("1/2", "4/8"), ("2/4", "4/8"), ("4/7", "4/7")):
        payload = json.dumps({"txpk": {**TXPK, "codr": said}}).encode()
        assert parse_txpk_payload(payload, gateway_eui=EUI).code_rate == meant


# --- hostile -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"freq": "868.1"}, DatagramFault.BAD_VALUE),
        ({"freq": 0}, DatagramFault.BAD_FREQUENCY),
        ({"freq": -868.1}, DatagramFault.BAD_FREQUENCY),
        ({"freq": 1e308}, DatagramFault.BAD_FREQUENCY),
        ({"freq": 868_100_000}, DatagramFault.BAD_FREQUENCY),
        ({"freq": None}, DatagramFault.MISSING_FIELD),
        ({"data": None}, DatagramFault.MISSING_FIELD),
        ({"data": 5}, DatagramFault.BAD_VALUE),
        ({"datr": None}, DatagramFault.MISSING_FIELD),
        ({"datr": "SF13BW125"}, DatagramFault.BAD_DATA_RATE),
        ({"datr": "SF7BW125\n"}, DatagramFault.BAD_DATA_RATE),
        ({"datr": 0}, DatagramFault.BAD_DATA_RATE),
        ({"datr": 10**30}, DatagramFault.BAD_DATA_RATE),
        ({"datr": True}, DatagramFault.BAD_VALUE),
        ({"datr": 50000}, DatagramFault.BAD_DATA_RATE),
        ({"modu": "FSK"}, DatagramFault.BAD_DATA_RATE),
        ({"modu": "LR-FHSS", "datr": "M0CW137"}, DatagramFault.BAD_DATA_RATE),
        ({"stat": 2}, DatagramFault.BAD_VALUE),
        ({"stat": "1"}, DatagramFault.BAD_VALUE),
        ({"tmst": -1}, DatagramFault.BAD_VALUE),
        ({"tmst": 2**32}, DatagramFault.BAD_VALUE),
        ({"tmst": 1.5}, DatagramFault.BAD_VALUE),
        ({"tmms": 10**18}, DatagramFault.BAD_VALUE),
        ({"rssi": 1e300}, DatagramFault.BAD_VALUE),
        ({"ftime": 10**9}, DatagramFault.BAD_VALUE),
        ({"size": 3}, DatagramFault.SIZE_MISMATCH),
        ({"rsig": [{"etime": "*"}]}, DatagramFault.BAD_BASE64),
        ({"rsig": [{}] * 33}, DatagramFault.BAD_VALUE),
        ({"rsig": {}}, DatagramFault.BAD_VALUE),
    ],
)
def test_a_field_that_is_wrong_costs_its_frame_and_names_the_fault(
    changes: dict[str, Any], fault: DatagramFault
) -> None:
    assert read_rxpk(**changes) == ([], [fault])


def test_one_bad_entry_loses_no_other() -> None:
    good = json.dumps(RXPK)
    payload = '{"rxpk":[%s,5,%s,{"freq":"x"},null,%s],"stat":{"rxnb":"many"}}' % (good, good, good)  # noqa: UP031  # JSON has braces
    heard, faults = read(payload.encode())
    assert [type(item) for item in heard] == [Reception] * 3
    assert faults == [DatagramFault.BAD_VALUE] * 4


def test_a_bad_frame_loses_no_status_report() -> None:
    heard, faults = read(b'{"stat":{"rxnb":5},"rxpk":[{"data":"\xff"}]}')
    assert [type(item) for item in heard] == [GatewayStatus]
    assert faults == [DatagramFault.BAD_JSON]


def test_json_padded_with_nul_is_read() -> None:
    heard, faults = read(json.dumps({"rxpk": [RXPK]}).encode() + b"\0\0")
    assert (len(heard), faults) == (1, [])


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"", DatagramFault.BAD_JSON),
        (b"{", DatagramFault.BAD_JSON),
        (b'{"rxpk":[NaN]}', DatagramFault.BAD_JSON),
        (b'{"rxpk":' + b"[" * 30_000 + b"]" * 30_000 + b"}", DatagramFault.BAD_JSON),
        (b'{"x":' + b'{"x":' * 10_000, DatagramFault.BAD_JSON),
        (b"[]", DatagramFault.BAD_VALUE),
        (b'"rxpk"', DatagramFault.BAD_VALUE),
        (b'{"rxpk":{}}', DatagramFault.BAD_VALUE),
        (b'{"rxpk":[' + b"0," * 255 + b"0]}", DatagramFault.TOO_MANY_ENTRIES),
        (b'{"rxpk":[' + b"0," * (10**6 - 1) + b"0]}", DatagramFault.TOO_MANY_ENTRIES),
    ],
    ids=["empty", "open", "nan", "deep-array", "deep-object", "array", "string", "object", "256", "million"],
)
def test_a_payload_that_is_no_push_data_is_refused_with_its_reason(payload: bytes, fault: DatagramFault) -> None:
    assert fault_of(payload) is fault


@pytest.mark.parametrize("entry", [b'{"freq":NaN}', b'{"freq":Infinity}'])
def test_nan_and_infinity_are_no_json(entry: bytes) -> None:
    assert fault_of(b'{"rxpk":[' + entry + b"]}") is DatagramFault.BAD_JSON


@pytest.mark.parametrize("entry", [b'{"modu":"\xff\xfe"}', b'{"time":"\xed\xa0\x80"}'])
def test_invalid_utf8_costs_its_entry(entry: bytes) -> None:
    assert read(b'{"rxpk":[' + entry + b"]}") == ([], [DatagramFault.BAD_JSON])


@pytest.mark.parametrize("entry", [b'{"data":"\\ud800"}', b'{"data":"\\udc00\\ud800"}', b'{"x":"\\ud800\\u0041"}'])
def test_lone_surrogates_are_no_json(entry: bytes) -> None:
    assert fault_of(b'{"rxpk":[' + entry + b"]}") is DatagramFault.BAD_JSON


def test_a_datagram_longer_than_udp_carries_is_refused_before_anything_is_read() -> None:
    with pytest.raises(MalformedDatagram) as raised:
        gwmp.parse_datagram(b"\2ab\0" + b"x" * 65_504)
    assert raised.value.fault is DatagramFault.TOO_LONG


def test_a_type_beyond_the_six_is_refused() -> None:
    with pytest.raises(MalformedDatagram) as raised:
        gwmp.parse_datagram(b"\2ab\6")
    assert raised.value.fault is DatagramFault.UNKNOWN_TYPE


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*RXPK, "time", "tmms", "ftime", "rsig", "brd", "aesk", "ant", "foff", "rssis", "rxnb", "desc"]
)
ENTRIES = st.dictionaries(FIELDS, JSON_VALUES, max_size=6).map(lambda changes: {**RXPK, **changes}) | JSON_VALUES
PUSHES = st.fixed_dictionaries({}, optional={"rxpk": st.lists(ENTRIES, max_size=3) | JSON_VALUES, "stat": ENTRIES})
PAYLOADS = st.binary(max_size=200) | PUSHES.map(lambda push: json.dumps(push).encode())


@given(
    st.binary(max_size=64)
    | st.builds(
        lambda head, tail: bytes(head) + tail,
        st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 255), st.integers(0, 255), st.integers(0, 7)),
        PAYLOADS,
    )
)
def test_any_bytes_are_a_datagram_or_a_named_fault(data: bytes) -> None:
    try:
        datagram = gwmp.parse_datagram(data)
    except MalformedDatagram:
        return
    else:
        again = gwmp.build_datagram(datagram)
        assert again == data[: len(again)]


@given(PAYLOADS)
def test_any_payload_is_receptions_or_named_faults_and_can_be_recorded(payload: bytes) -> None:
    try:
        heard, faults = read(payload)
    except MalformedDatagram:
        return
    assert all(fault in DatagramFault for fault in faults)
    again, faults = read(build_push_payload(heard))
    assert (again, faults) == (heard, [])


@given(
    PAYLOADS
    | st.dictionaries(st.sampled_from(sorted(TXPK)), JSON_VALUES, max_size=3).map(
        lambda changes: json.dumps({"txpk": {**TXPK, **changes}, "txpk_ack": changes}).encode()
    )
)
def test_any_payload_is_a_transmission_an_answer_or_a_named_fault(payload: bytes) -> None:
    for parse in (lambda: parse_txpk_payload(payload, gateway_eui=EUI), lambda: parse_tx_ack_payload(payload)):
        with contextlib.suppress(MalformedDatagram):
            parse()


@given(st.text())
def test_any_text_is_base64_or_a_named_fault(text: str) -> None:
    with contextlib.suppress(MalformedDatagram):
        assert isinstance(parse_base64(text), bytes)


@given(TX_RESULTS)
def test_success_is_said_without_json_as_the_reference_does(result: TxResult) -> None:
    assert (build_tx_ack_payload(result) == b"") == (result == TxResult())
