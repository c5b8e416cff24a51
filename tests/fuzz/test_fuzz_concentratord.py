"""Any frames from a ZeroMQ socket are an event or are refused by name. `make fuzz` runs this for longer."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import GatewayStatus, Reception
from lorabridge.radio.concentratord.faults import MalformedEvent
from lorabridge.radio.concentratord.mapping import Contexts, reception, status
from lorabridge.radio.concentratord.messages import (
    UplinkFrame,
    Wording,
    parse_event,
    parse_gateway_id,
    parse_tx_ack,
)
from tests.radio.gateway_api import EUI_TEXT, made, stats, uplink

numbers = st.integers(-(2**31), 2**31 - 1)
times = st.fixed_dictionaries({}, optional={"seconds": st.integers(-(2**63), 2**63 - 1), "nanos": numbers})
floats = st.floats(width=32)
rx_infos = st.fixed_dictionaries(
    {},
    optional={
        "gateway_id": st.text(st.characters(codec="utf-8"), max_size=20) | st.just(EUI_TEXT),
        "gw_time": times,
        "time_since_gps_epoch": times,
        "fine_time_since_gps_epoch": times,
        "rssi": numbers,
        "snr": floats,
        "context": st.binary(max_size=70),
        "crc_status": numbers,
    },
)
frames = st.builds(lambda payload, how: uplink(payload, **how), st.binary(max_size=300), rx_infos)
statuses = st.fixed_dictionaries(
    {},
    optional={
        "time": times,
        "location": st.fixed_dictionaries({}, optional={"latitude": st.floats(), "altitude": st.floats()}),
        "metadata": st.lists(
            st.fixed_dictionaries({"key": st.just("concentrator_temp"), "value": st.text(max_size=20)}), max_size=3
        ),
    },
)
events = frames.map(lambda frame: made("Event", uplink_frame=frame)) | statuses.map(
    lambda told: made("Event", gateway_stats=stats(**told))
)
whole = events.map(lambda event: bytes(event.SerializeToString()))
cut = st.tuples(whole, st.integers(0, 400), st.binary(max_size=5)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
)
messages = st.lists(st.binary(max_size=200), max_size=3) | st.lists(whole | cut, min_size=1, max_size=1)
topics = st.tuples(
    st.sampled_from([b"up", b"stats", b"mesh"]), st.binary(max_size=200) | whole.map(lambda one: one[3:])
)


@given(st.lists(messages | topics.map(list), max_size=4))
def test_concentratord_may_publish_anything(said: list[list[bytes]]) -> None:
    contexts = Contexts()
    for one in said:
        told: Any = None
        try:
            _, event = parse_event(one)
            if isinstance(event, UplinkFrame):
                told = reception(event, contexts.note(event.rx_info.context, 1), source="roof", received_at=1)
            elif event is not None:
                told = status(event, source="roof", received_at=1)
        except MalformedEvent:
            continue
        if isinstance(told, Reception):
            assert len(told.phy_payload) <= 255
            assert told.tmst is None or 0 <= told.tmst < 2**32
            assert told.gps_time_ms is None or told.gps_time_ms >= 0
        elif isinstance(told, GatewayStatus):
            assert told.latitude is None or abs(told.latitude) <= 90
            assert told.temperature_c is None or -300 < told.temperature_c <= 1000


@given(st.binary(max_size=100), st.sampled_from(Wording))
def test_concentratord_may_answer_anything(said: bytes, wording: Wording) -> None:
    with suppress(MalformedEvent):
        assert len(parse_tx_ack(said).items) <= len(said)
    with suppress(MalformedEvent):
        assert 0 <= parse_gateway_id(wording, said) < 2**64
