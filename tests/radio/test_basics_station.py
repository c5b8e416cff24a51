"""The endpoint for Basics Stations, spoken to over real sockets by a station made by hand."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from lorabridge.errors import ConfigError
from lorabridge.lorawan.air import LoraDataRate, Reception, TxTiming
from lorabridge.lorawan.gps_time import gps_ns_of
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import SourceEnded
from lorabridge.radio.basics_station.messages import (
    DataMessage,
    JoinMessage,
    ProprietaryMessage,
    parse_id6,
    parse_message,
    parse_router,
)
from lorabridge.radio.basics_station.router_config import data_rates, router_config
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.basics_station.source import BasicsStation
from lorabridge.radio.channel_plan import all_plans
from lorabridge.radio.faults import MalformedDatagram
from lorabridge.simulation.pki import make_pki
from tests.radio.sending import played
from tests.radio.station_peer import (
    EUI,
    FRAME_ON_AIR,
    HEARD,
    ID6,
    TMST,
    UPDF,
    XTIME,
    configured,
    endpoint,
    order,
    station,
)


def test_a_station_is_led_in_configured_heard_and_sends() -> None:
    async def scenario() -> None:
        async with endpoint() as source:
            async with station(source, "/router-info") as asking:
                await asking.send(json.dumps({"router": ID6}))
                where = json.loads(await asking.recv())
            assert where["uri"] == f"ws://127.0.0.1:{source.address[1]}/router/{ID6}"
            async with station(source) as opened:
                assert (await configured(opened))["msgtype"] == "router_config"
                await opened.send(json.dumps(UPDF))
                (told,) = await source.receive()
                assert isinstance(told, Reception)
                assert (told.phy_payload.hex(), told.tmst, told.gateway_eui) == (FRAME_ON_AIR.hex(), TMST, EUI)
                assert (told.data_rate, told.frequency_hz) == (LoraDataRate(7, 125_000), 868_100_000)
                assert (told.antennas[0].rssi_dbm, told.antennas[0].snr_db) == (-87, 7.25)
                assert told.gps_time_ms == 1_300_000_000_123
                sending = asyncio.ensure_future(source.transmit(order()))
                asked = json.loads(await opened.recv())
                assert (asked["dC"], asked["xtime"], asked["rctx"], asked["RxDelay"]) == (0, XTIME, 3, 1)
                assert (asked["RX1DR"], asked["RX1Freq"], asked["pdu"]) == (5, 868_100_000, b"\x60answer".hex())
                assert "RX2DR" not in asked
                await opened.send(json.dumps({"msgtype": "dntxed", "diid": asked["diid"], "seqno": asked["diid"]}))
                assert (await sending).error is None

    played(scenario)


def test_a_second_window_and_class_c_have_words_and_the_rest_has_not() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as opened:
            assert (await source.transmit(order())).error == "NOT_CONNECTED"
            await configured(opened)
            await opened.send(json.dumps(UPDF))
            await source.receive()
            for transmission, says in (
                (order(tmst=(TMST + 16_000_000) & 0xFFFF_FFFF), {"dC": 0, "RxDelay": 15, "RX2DR": 5}),
                (order(timing=TxTiming.IMMEDIATELY, tmst=None), {"dC": 2, "RX2DR": 5, "RX2Freq": 868_100_000}),
            ):
                sending = asyncio.ensure_future(source.transmit(transmission))
                asked = json.loads(await opened.recv())
                assert says.items() <= asked.items()
                await opened.send(json.dumps({"msgtype": "dntxed", "seqno": asked["diid"]}))
                assert (await sending).error is None
            for unsendable in (
                order(tmst=None),
                order(tmst=TMST - 500_000),
                order(tmst=(TMST + 700_500_000) & 0xFFFF_FFFF),
                order(timing=TxTiming.AT_GPS_TIME),
                order(timing=TxTiming.AT_GPS_TIME, gps_time_ms=1),
                order(timing=TxTiming.AT_GPS_TIME, gps_time_ms=1 << 50),
                order(data_rate=LoraDataRate(5, 125_000)),
            ):
                assert (await source.transmit(unsendable)).error == "UNSENDABLE"
            await opened.send(json.dumps({"msgtype": "dntxed", "seqno": 999}))
            assert (await source.transmit(order())).error == "NO_DNTXED"  # the window is over and nothing was said
            assert source.counters["dntxed_unmatched"] == 1

    played(scenario)


def test_a_moment_that_belongs_to_no_window_is_scheduled_by_the_clock_of_the_station() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as opened:
            await configured(opened)
            assert (await source.transmit(order())).error == "UNSENDABLE"  # nothing is known of that clock yet
            await opened.send(json.dumps(UPDF))
            await source.receive()
            for ahead_us in (1_250_000, 17_000_000, 599_000_000):
                result = await source.transmit(order(tmst=(TMST + ahead_us) & 0xFFFF_FFFF))
                assert (result.error, result.warning) == (None, "NO_REPORT")
                asked = json.loads(await opened.recv())
                assert asked["msgtype"] == "dnsched"
                (entry,) = asked["schedule"]
                assert (entry["xtime"], entry["rctx"]) == (XTIME + ahead_us, 3)
                assert (entry["DR"], entry["Freq"], entry["pdu"]) == (5, 868_100_000, b"\x60answer".hex())

    played(scenario)


def test_a_clock_that_turned_since_the_last_uplink_is_still_understood() -> None:
    now = [1000.0]

    async def scenario() -> None:
        clocks = {"monotonic": lambda: now[0]}
        async with endpoint(clocks) as source, station(source) as opened:
            await configured(opened)
            await opened.send(json.dumps(UPDF))
            await source.receive()
            turns_us = 3 * (1 << 32)
            now[0] += turns_us / 1e6 + 0.05  # and the two clocks are not quite the same
            assert (await source.transmit(order(tmst=(TMST + 250_000) & 0xFFFF_FFFF))).error is None
            (entry,) = json.loads(await opened.recv())["schedule"]
            assert entry["xtime"] == XTIME + turns_us + 250_000

    played(scenario)


def test_gps_time_is_a_ping_slot_whose_report_is_waited_for() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as opened:
            await configured(opened)
            moment_ms = gps_ns_of(time.time_ns()) // 1_000_000 + 200_000
            transmission = order(timing=TxTiming.AT_GPS_TIME, tmst=None, gps_time_ms=moment_ms)
            sending = asyncio.ensure_future(source.transmit(transmission))
            asked = json.loads(await opened.recv())
            assert (asked["msgtype"], asked["dC"], asked["gpstime"]) == ("dnmsg", 1, moment_ms * 1000)
            assert (asked["DR"], asked["Freq"]) == (5, 868_100_000)
            assert not {"RxDelay", "RX1DR", "RX2DR", "xtime"} & set(asked)
            await opened.send(json.dumps({"msgtype": "dntxed", "diid": asked["diid"], "xtime": XTIME}))
            result = await sending
            assert (result.error, result.warning) == (None, None)

    played(scenario)


def test_a_station_that_goes_takes_its_downlinks_along_and_a_second_one_replaces_it() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as first:
            await configured(first)
            waiting = asyncio.ensure_future(source.transmit(order(timing=TxTiming.IMMEDIATELY)))
            await first.recv()
            async with station(source) as second:
                await configured(second)
                with pytest.raises(ConnectionClosed):
                    await first.recv()
                assert (await waiting).error == "NOT_CONNECTED"
                assert (source.counters["stations"], source.counters["replaced"]) == (1, 1)

    played(scenario)


def test_hostile_messages_are_counted_and_the_connection_goes_on() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as opened:
            await configured(opened)
            for text in (
                "{",
                "[1]",
                json.dumps(UPDF | {"FOpts": "zz"}),
                json.dumps(UPDF | {"DR": 15}),
                json.dumps(UPDF | {"upinfo": {}}),
                json.dumps({"msgtype": "event", "evcat": "gps"}),
                json.dumps(UPDF),
            ):
                await opened.send(text)
            assert len(await source.receive()) == 1
            counters = source.counters
            assert (counters["fault_bad_json"], counters["fault_bad_value"]) == (1, 3)
            assert (counters["fault_bad_data_rate"], counters["ignored"]) == (1, 1)
            await opened.send(json.dumps({"msgtype": "timesync", "txtime": 77}))
            answer = json.loads(await opened.recv())
            assert (answer["msgtype"], answer["txtime"]) == ("timesync", 77)
            assert abs(answer["gpstime"] / 1e6 + 315_964_800 - 18 - answer["MuxTime"]) < 1e-3

    played(scenario)


def test_strangers_are_refused_at_the_door(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Bearer of good news\n", encoding="ascii")

    async def refused(source: BasicsStation, path: str, **how: Any) -> int:
        with pytest.raises(InvalidStatus) as caught:
            async with station(source, path, **how):
                pass
        return caught.value.response.status_code

    async def scenario() -> None:
        how: dict[str, Any] = {"additional_headers": {"Authorization": "Bearer of good news"}}
        async with endpoint(token_file=str(token), gateways=(EUI, EUI64(2)), max_stations=1) as source:
            assert await refused(source, f"/router/{ID6}") == 401
            assert await refused(source, "/router/::1", **how) == 404
            assert await refused(source, "/", **how) == 404
            async with station(source, "/router-info", **how) as asking:
                await asking.send(json.dumps({"router": 1}))
                assert "not among" in json.loads(await asking.recv())["error"]
            async with station(source, **how) as opened:
                await configured(opened)
                assert await refused(source, "/router/::2", **how) == 503
                async with station(source, **how) as again:  # the same one, whose old connection may be dead
                    assert (await configured(again))["msgtype"] == "router_config"
            assert (source.counters["refused"], source.counters["replaced"]) == (5, 1)

    played(scenario)


def test_tls_asks_for_a_certificate_of_the_stations_authority(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki", endpoint="localhost", gateway_id="roof-1")
    files = {
        "certificate_file": str(pki.server_ecdsa.certificate),
        "private_key_file": str(pki.server_ecdsa.key),
        "client_ca_file": str(pki.devices.ca_file),
    }

    async def scenario() -> None:
        context = ssl.create_default_context(cafile=str(pki.ca_file))
        async with endpoint(**files) as source:
            with pytest.raises((WebSocketException, OSError)):
                async with station(source, ssl=context, server_hostname="localhost") as opened:
                    await configured(opened)
            context.load_cert_chain(str(pki.gateway.certificate), str(pki.gateway.key))
            async with station(source, ssl=context, server_hostname="localhost") as opened:
                assert (await configured(opened))["msgtype"] == "router_config"

    played(scenario)


def test_what_was_heard_is_told_after_a_stop_and_then_it_is_the_end() -> None:
    async def scenario() -> None:
        async with endpoint() as source:
            async with station(source) as opened:
                await configured(opened)
                await opened.send(json.dumps(UPDF))
                await opened.send(json.dumps({"msgtype": "timesync", "txtime": 1}))
                await opened.recv()  # what was sent before it was read
            await source.stop()
            assert len(await source.receive()) == 1
            with pytest.raises(SourceEnded):
                await source.receive()

    played(scenario)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"region": "EU999"}, "known are"),
        ({"region": "US915"}, "sub_band"),
        ({"bind": "localhost"}, "bind"),
        ({"certificate_file": "a"}, "go together"),
        ({"client_ca_file": "a"}, "within TLS"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        BasicsStationSettings(**({"region": "EU868"} | change))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("", encoding="ascii")
    broken: list[dict[str, Any]] = [
        {"token_file": str(empty)},
        {"token_file": str(tmp_path / "none")},
        {"certificate_file": str(empty), "private_key_file": str(empty)},
    ]
    for settings in broken:
        source = BasicsStation(BasicsStationSettings(region="EU868", port=0, **settings))
        with pytest.raises(ConfigError):
            asyncio.run(source.start())


@pytest.mark.parametrize("plan", all_plans(), ids=lambda plan: plan.name)
def test_every_plan_becomes_a_configuration_that_says_what_the_region_says(plan: Any) -> None:
    config = router_config(plan)
    rates = data_rates(plan.region)
    assert len(config["DRs"]) == 16
    for number, (spreading_factor, khz, downlink_only) in enumerate(config["DRs"]):
        rate = rates[number]
        if isinstance(rate, LoraDataRate):
            assert (spreading_factor, khz * 1000) == (rate.spreading_factor, rate.bandwidth_hz)
            table = plan.region.downlink_data_rates if downlink_only else plan.region.data_rates
            assert table[number] == rate
    assert {hz for hz, _, _ in config["upchannels"]} == {plan.hz(channel) for channel in plan.channels}
    low, high = config["freq_range"]
    assert low <= plan.region.rx2_frequency_hz <= high
    assert config["region"] in {"EU868", "US915", "AU915", "KR920", "AS923-1"}
    assert config["nodc"] is (plan.region.name not in {"AS923-1", "KR920"})
    assert not {"runcmd", "rmtsh"} & set(json.dumps(config).split('"'))


@pytest.mark.parametrize("name", ["EU868", "US915", "AU915", "AS923-2", "IN865", "KR920"])
def test_every_downlink_rate_that_a_station_knows_has_a_number(name: str) -> None:
    region = REGIONS[name]
    for rate in region.downlink_data_rates:
        if isinstance(rate, LoraDataRate) and rate.spreading_factor >= 7:
            assert rate in data_rates(region)


BYTES = st.binary(max_size=40)


@given(st.integers(0, 255), st.integers(0, (1 << 32) - 1), st.binary(max_size=15), st.integers(-1, 255), BYTES)
def test_a_data_frame_is_put_together_byte_for_byte(
    mhdr: int, dev_addr: int, f_opts: bytes, f_port: int, payload: bytes
) -> None:
    payload = payload if f_port >= 0 else b""
    mic = bytes.fromhex("fffefdfc")
    air = bytes([mhdr]) + dev_addr.to_bytes(4, "little") + bytes([len(f_opts)]) + b"\x01\x02" + f_opts
    air += (bytes([f_port]) if f_port >= 0 else b"") + payload + mic
    signed = int.from_bytes(dev_addr.to_bytes(4, "little"), "little", signed=True)
    text = json.dumps(
        UPDF
        | {"MHdr": mhdr, "DevAddr": signed, "FCtrl": len(f_opts), "FCnt": 0x0201, "FOpts": f_opts.hex()}
        | {"FPort": f_port, "FRMPayload": payload.hex(), "MIC": int.from_bytes(mic, "little", signed=True)}
    )
    message = parse_message(text)
    assert isinstance(message, DataMessage)
    assert (message.phy_payload(), message.upinfo.xtime) == (air, XTIME)


def test_join_requests_and_proprietary_frames_are_put_together_too() -> None:
    join = {"JoinEui": "70-b3-d5-7e-d0-00-00-01", "DevEui": "00-04-a3-0b-00-1c-05-30", "DevNonce": 0x0102, "MIC": -2}
    message = parse_message(json.dumps({"msgtype": "jreq", "MHdr": 0} | join | HEARD))
    assert isinstance(message, JoinMessage)
    expected = "00" + "010000d07ed5b370" + "30051c000ba30400" + "0201" + "feffffff"
    assert message.phy_payload().hex() == expected
    whole = parse_message(json.dumps({"msgtype": "propdf", "FRMPayload": "e00102"} | HEARD))
    assert isinstance(whole, ProprietaryMessage)
    assert whole.phy_payload() == b"\xe0\x01\x02"
    odd = parse_message(json.dumps({"msgtype": "jreq", "MHdr": 0} | join | HEARD | {"DevEui": "no"}))
    assert isinstance(odd, JoinMessage)
    with pytest.raises(MalformedDatagram):
        odd.phy_payload()


@pytest.mark.parametrize(
    ("text", "eui"),
    [(ID6, EUI), ("::1", EUI64(1)), ("1::", EUI64(1 << 48)), ("::", EUI64(0)), ("1:0:0:2", EUI64((1 << 48) + 2))],
)
def test_a_router_is_known_by_every_way_of_writing_it(text: str, eui: EUI64) -> None:
    assert parse_id6(text) == parse_router(json.dumps({"router": text})) == eui
    assert parse_router(json.dumps({"router": int(eui)})) == eui


@given(st.text(max_size=30))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    for parse in (parse_id6, parse_router, parse_message):
        with suppress(MalformedDatagram):
            parse(text)
