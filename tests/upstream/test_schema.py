from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lorabridge.lorawan import events
from lorabridge.lorawan.air import Antenna, CrcStatus, FskDataRate, GatewayStatus, GnssHealth, LoraDataRate, Reception
from lorabridge.lorawan.commands import CommandReason, CommandState
from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.types import EUI64, DevAddr, FCnt32, MacVersion
from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.upstream import schema
from lorabridge.upstream.batches import Packer, Unit
from lorabridge.upstream.topics import Topics, TopicSettings
from tests.upstream.harness import Stored

ON_DISK = Path(__file__).parents[2] / "docs" / "schema"
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
VALIDATORS = {kind: Draft202012Validator(msgspec.json.decode(schema.json_schema(kind))) for kind in EventKind}

# A clock may be anywhere, and a gateway may claim anything.
times = st.integers(-(2**40), 2**80)
hostile_text = st.text(st.characters(exclude_categories=()), max_size=20)
euis = st.integers(0, 2**64 - 1).map(EUI64)
small = st.none() | st.integers(-(2**31), 2**32)
reals = st.none() | st.floats()
counters32 = st.integers(0, 2**32 - 1).map(FCnt32)
devices = st.builds(
    events.DeviceRef,
    name=st.text(st.characters(codec="utf-8")),
    dev_eui=euis,
    tags=st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.just("x")), max_size=2).map(tuple),
)
antennas = st.builds(
    Antenna,
    antenna=small,
    channel=small,
    rssi_dbm=reals,
    signal_rssi_dbm=reals,
    snr_db=reals,
    frequency_offset_hz=small,
    fine_time_ns=small,
    encrypted_fine_time=st.none() | st.binary(max_size=16),
)
receptions = st.builds(
    Reception,
    phy_payload=st.binary(max_size=255),
    received_at=times,
    gateway_eui=euis,
    source=st.just("roof"),
    crc=st.sampled_from(CrcStatus),
    frequency_hz=st.integers(0, 2**32),
    data_rate=st.builds(LoraDataRate, st.integers(5, 12), st.just(125_000)) | st.builds(FskDataRate, st.just(50_000)),
    code_rate=st.none() | hostile_text,
    tmst=small,
    gateway_time_ns=st.none() | times,
    gps_time_ms=small,
    rf_chain=small,
    modem=small,
    antennas=st.lists(antennas, max_size=2).map(tuple),
)
uplinks = st.builds(
    events.Uplink,
    id=st.text("0123456789abcdef", min_size=32, max_size=32),
    device=devices,
    dev_addr=st.integers(0, 2**32 - 1).map(DevAddr),
    mac_version=st.sampled_from(MacVersion),
    fcnt32=counters32,
    f_port=st.none() | st.integers(0, 255),
    f_opts=st.binary(max_size=15),
    payload=st.binary(max_size=242),
    reception=receptions,
)
copies = st.builds(
    events.UplinkCopy,
    uplink_id=st.just("0" * 32),
    device=devices,
    fcnt32=counters32,
    verdict=st.sampled_from([Verdict.DUPLICATE, Verdict.RETRANSMISSION]),
    reception=receptions,
)
security = st.builds(
    events.SecurityEvent,
    verdict=st.sampled_from(Verdict),
    reason=st.none() | st.sampled_from(Reason),
    device=st.none() | devices,
    dev_addr=st.none() | st.integers(0, 2**32 - 1).map(DevAddr),
    fcnt32=st.none() | counters32,
    count=st.integers(1, 10**9),
    first_at=times,
    last_at=times,
    detail=hostile_text,
    reception=st.none() | receptions,
)
gnss_healths = st.builds(
    GnssHealth,
    time_quality=st.sampled_from(["gps", "utc", "stale", "none"]),
    accuracy_ns=st.none() | st.integers(0, 2**32),
    satellites=st.none() | st.integers(0, 99),
    leap_seconds=st.none() | st.integers(0, 99),
    pulse_locked=st.booleans(),
)
statuses = st.builds(
    GatewayStatus,
    gnss=st.none() | gnss_healths,
    gateway_eui=euis,
    source=st.just("roof"),
    received_at=times,
    time=st.none() | hostile_text,
    latitude=reals,
    longitude=reals,
    platform=st.none() | hostile_text,
    mail=st.none() | hostile_text,
    description=st.none() | hostile_text,
)
stats = st.builds(
    events.GatewayStats,
    at=times,
    interval_s=st.floats(0, 1e6),
    verdicts=st.lists(st.tuples(st.sampled_from(Verdict), st.integers(0, 9)), max_size=3).map(tuple),
    counters=st.lists(st.tuples(st.just("udp_received"), st.integers(0, 9)), max_size=1).map(tuple),
    gateways=st.lists(statuses, max_size=2).map(tuple),
)
births = st.builds(
    events.Status,
    at=times,
    state=st.sampled_from(["online", "offline"]),
    version=st.just("0.1.0"),
    config_fingerprint=st.just("abcd"),
    detail=hostile_text,
)
joins = st.builds(
    events.Join,
    device=devices,
    kind=st.sampled_from(["join_request", "rejoin_0", "rejoin_1", "rejoin_2"]),
    dev_addr=st.none() | st.integers(0, 2**32 - 1).map(DevAddr),
    join_eui=euis,
    dev_nonce=st.integers(0, 0xFFFF),
    join_nonce=st.none() | st.integers(0, 0xFFFFFF),
    mac_version=st.sampled_from(MacVersion),
    reception=receptions,
)
results = st.builds(
    events.DownlinkResult,
    command_id=st.just("") | hostile_text,
    correlation_id=st.none() | hostile_text,
    device=st.none() | devices,
    target=hostile_text,
    state=st.sampled_from(CommandState),
    reason=st.none() | st.sampled_from(CommandReason),
    detail=hostile_text,
    at=times,
    attempt=st.integers(0, 99),
    fcnt_down=st.none() | counters32,
    next_fcnt_down=st.none() | counters32,
    gateway_eui=st.none() | euis,
    frequency_hz=st.none() | st.integers(0, 2**32),
    data_rate=st.none() | st.builds(LoraDataRate, st.integers(5, 12), st.just(125_000)),
)
macs = st.builds(
    events.MacReport,
    device=devices,
    at=times,
    fcnt32=counters32,
    commands=st.just((("dev_status_ans", (("battery", 255), ("radio_status", -3))), ("link_check_req", ()))),
    unknown_cid=st.none() | st.integers(0, 255),
    truncated=st.booleans(),
)
radios = st.builds(
    events.RadioEvent,
    at=times,
    source=st.just("roof"),
    gateway_eui=st.none() | euis,
    state=st.sampled_from(events.RadioState),
    reason=hostile_text,
    down_s=st.none() | st.floats(0, 1e9),
    failures=st.integers(0, 10**6),
)
outbox_events = st.builds(
    events.OutboxEvent,
    at=times,
    change=st.sampled_from(events.OutboxChange),
    since=st.none() | times,
    dropped=st.just((("uplink", 3), ("parked", 1))) | st.just(()),
    record=st.none() | st.integers(1, 2**40),
    kind=st.none() | st.sampled_from(EventKind),
    dev_eui=st.none() | euis,
    size=st.none() | st.integers(0, 2**20),
    reason=hostile_text,
)
OF_KIND: dict[EventKind, st.SearchStrategy[Any]] = {
    EventKind.UPLINK: uplinks,
    EventKind.UPLINK_COPY: copies,
    EventKind.SECURITY: security,
    EventKind.GATEWAY_STATS: stats,
    EventKind.STATUS: births,
    EventKind.JOIN: joins,
    EventKind.DOWNLINK_RESULT: results,
    EventKind.MAC: macs,
    EventKind.RADIO: radios,
    EventKind.OUTBOX: outbox_events,
}


@pytest.mark.parametrize("kind", EventKind)
def test_the_published_schema_is_the_one_the_code_makes(kind: EventKind) -> None:
    assert (ON_DISK / f"{kind.value}.json").read_bytes() == schema.json_schema(kind), "run: make docs"
    Draft202012Validator.check_schema(msgspec.json.decode(schema.json_schema(kind)))


@pytest.mark.parametrize("kind", OF_KIND)
@given(data=st.data())
@settings(max_examples=60)
def test_every_event_becomes_json_that_its_published_schema_accepts(kind: EventKind, data: st.DataObject) -> None:
    record = schema.encode(data.draw(OF_KIND[kind]), "gw-1")
    message = msgspec.json.decode(record.payload)
    VALIDATORS[kind].validate(message)
    assert record.kind is kind
    assert message["schema"] == f"lorabridge/{kind.value}/1"
    assert message["gateway_id"] == "gw-1"
    assert re.fullmatch("[0-9a-f]{32}", message["id"])
    assert set(message) <= set(msgspec.json.decode(schema.json_schema(kind))["properties"])


@given(data=st.data())
@settings(max_examples=60)
def test_a_batch_is_what_its_published_schema_accepts_and_its_records_are_as_they_were(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(OF_KIND)), min_size=2, max_size=5))
    records = [schema.encode(data.draw(OF_KIND[kind]), "gw-1") for kind in kinds]
    stored = [Stored(number, one.kind, one.dev_eui, one.payload) for number, one in enumerate(records, 1)]
    message = msgspec.json.decode(Packer(Topics(TopicSettings(), "gw-1"), "gw-1").payload(Unit(tuple(stored))))
    VALIDATORS[EventKind.BATCH].validate(message)
    assert message["records"] == [msgspec.json.decode(one.payload) for one in records]
    assert set(EventKind) - set(OF_KIND) == {EventKind.BATCH}


@given(event=uplinks)
@settings(max_examples=60)
def test_plaintext_and_ciphertext_have_different_names_and_never_come_together(event: events.Uplink) -> None:
    message = msgspec.json.decode(schema.encode(event, "gw-1").payload)
    name, other = ("sealed_payload", "payload") if event.sealed else ("payload", "sealed_payload")
    assert base64.b64decode(message[name], validate=True) == event.payload
    assert other not in message
    assert message["sealed"] is event.sealed
    message[other] = message[name]
    assert not VALIDATORS[EventKind.UPLINK].is_valid(message)


@given(event=uplinks)
@settings(max_examples=60)
def test_what_the_frame_said_comes_back_out_of_the_json(event: events.Uplink) -> None:
    message = msgspec.json.decode(schema.encode(event, "gw-1").payload)
    assert EUI64.parse(message["device"]["dev_eui"]) == event.device.dev_eui
    assert DevAddr.parse(message["dev_addr"]) == event.dev_addr
    assert message["fcnt32"] == event.fcnt32
    assert message["f_port"] == event.f_port
    assert base64.b64decode(message["f_opts"]) == event.f_opts
    assert len(message["rx"][0]["antennas"]) == len(event.reception.antennas)
    for when in (message["received_at"], message["rx"][0]["received_at"]):
        assert RFC_3339.fullmatch(when)


def test_nanoseconds_are_cut_to_microseconds_without_rounding_up_into_the_future() -> None:
    birth = events.Status(at=1_700_000_000_123_456_999, state="online", version="1", config_fingerprint="", detail="")
    message = msgspec.json.decode(schema.encode(birth, "gw-1").payload)
    assert message["at"] == "2023-11-14T22:13:20.123456Z"


@given(first=security, second=security)
@settings(max_examples=40)
def test_the_id_of_a_record_is_the_same_for_the_same_content_only(
    first: events.SecurityEvent, second: events.SecurityEvent
) -> None:
    one, again, other = (schema.encode(event, "gw-1").payload for event in (first, first, second))
    assert one == again
    ids = [msgspec.json.decode(payload)["id"] for payload in (one, other)]
    assert (ids[0] == ids[1]) is (one == other)
    assert msgspec.json.decode(schema.encode(first, "gw-2").payload)["id"] != ids[0]


def test_a_security_event_names_a_device_only_when_the_mic_proved_it() -> None:
    event = events.SecurityEvent(
        verdict=Verdict.BAD_MIC,
        reason=None,
        device=None,
        dev_addr=DevAddr(0x26011AB5),
        fcnt32=None,
        count=7,
        first_at=0,
        last_at=1,
        detail="",
        reception=None,
    )
    record = schema.encode(event, "gw-1")
    message = msgspec.json.decode(record.payload)
    assert record.dev_eui is None
    assert message["device"] is None
    assert message["dev_addr"] == "26011ab5"
