"""What a hostile or broken station can cost: connections, messages and memory stay bounded, and others are served."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lorabridge.errors import TransientError
from lorabridge.lorawan.air import LoraDataRate, Transmission, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.basics_station import source as source_module
from lorabridge.radio.basics_station.orders import order as order_of
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.basics_station.source import INBOX_SHARE, MAX_MESSAGE, BasicsStation
from lorabridge.radio.basics_station.uplinks import REMEMBERED, Heard, Uplinks
from lorabridge.radio.inbox import INBOX_LIMIT
from lorabridge.simulation.pki import make_pki
from tests.radio.sending import played
from tests.radio.station_peer import EUI, ID6, LIMIT, TMST, UPDF, VERSION, configured, endpoint, order, station
from tests.radio.station_replay import RecordedStation, recording

OTHER = "/router/::2"


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110  # counters have no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("path", ["/router-info", f"/router/{ID6}"])
def test_a_connection_that_says_nothing_is_closed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "HANDSHAKE_LIMIT", 0.1)

    async def scenario() -> None:
        async with endpoint() as source, station(source, path) as opened:
            with pytest.raises(ConnectionClosed):
                await opened.recv()
            assert source.counters["stations"] == 0

    played(scenario)


@pytest.mark.parametrize(
    ("first", "fault"),
    [(json.dumps(UPDF), "unexpected_type"), ("{", "bad_json"), ('{"msgtype": "rmtsh"}', "unexpected_type")],
)
def test_a_station_that_does_not_begin_with_its_version_is_closed(first: str, fault: str) -> None:
    async def scenario() -> None:
        async with endpoint() as source:
            async with station(source) as opened:
                await opened.send(first)
                with pytest.raises(ConnectionClosed):
                    await opened.recv()
            assert (source.counters[f"fault_{fault}"], source.counters["frames"]) == (1, 0)

    played(scenario)


def test_connections_are_bounded_and_a_place_that_is_left_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MORE_CONNECTIONS", 0)

    async def scenario() -> None:
        async with endpoint(max_stations=1) as source:
            async with station(source) as opened:
                await configured(opened)
                idle_reader, idle_writer = await asyncio.open_connection(*source.address)
                reader, writer = await asyncio.open_connection(*source.address)
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
                assert source.counters["turned_away"] == 1
                await opened.send(json.dumps(UPDF))  # the station that is in has noticed nothing
                assert len(await source.receive()) == 1
                idle_writer.close()
                await _until(lambda: len(source._server.handlers) == 1 if source._server else False)
                assert await idle_reader.read() == b""
            async with station(source) as again:
                assert (await configured(again))["msgtype"] == "router_config"
            await source.stop()
            await source.start()
            (await asyncio.open_connection(*source.address))[1].close()
            await _until(lambda: source.counters["tcp_connections"] == 5)  # totals outlive their socket
            assert source.counters["turned_away"] == 1

    played(scenario)


def test_connections_that_never_begin_tls_are_bounded_in_number_and_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(source_module, "MORE_CONNECTIONS", 0)
    monkeypatch.setattr(source_module, "HANDSHAKE_LIMIT", 0.3)
    pki = make_pki(tmp_path / "pki", endpoint="localhost", gateway_id="roof-1")
    files = {"certificate_file": str(pki.server_ecdsa.certificate), "private_key_file": str(pki.server_ecdsa.key)}

    async def scenario() -> None:
        async with endpoint(max_stations=1, **files) as source:
            silent = [await asyncio.open_connection(*source.address) for _ in range(3)]
            for reader, writer in silent:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            assert (source.counters["turned_away"], source.counters["connections"]) == (1, 0)
            (await asyncio.open_connection(*source.address))[1].close()
            await _until(lambda: source.counters["tcp_connections"] == 4)
            assert source.counters["turned_away"] == 1

    played(scenario)


def test_stations_that_come_at_the_same_moment_are_no_more_than_allowed() -> None:
    async def scenario() -> None:
        async with (
            endpoint(max_stations=1) as source,
            station(source) as first,
            station(source, OTHER) as second,  # through the door, before the first one has said who it is
        ):
            await configured(first)
            await second.send(json.dumps(VERSION))
            with pytest.raises(ConnectionClosed) as caught:
                await second.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1013
            assert (source.counters["stations"], source.counters["refused"]) == (1, 1)
            with pytest.raises(InvalidStatus):
                async with station(source, OTHER):
                    pass

    played(scenario)


def test_a_message_beyond_the_limit_ends_only_the_connection_that_sent_it() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as good, station(source, OTHER) as bad:
            await configured(good)
            await configured(bad)
            await bad.send("[" * (MAX_MESSAGE + 1))
            with pytest.raises(ConnectionClosed) as caught:
                await bad.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009
            await good.send("[" * MAX_MESSAGE)
            await good.send(os.urandom(1000))
            await good.send(json.dumps(UPDF))
            assert len(await source.receive()) == 1
            assert source.counters["fault_bad_json"] + source.counters["fault_bad_value"] == 2

    played(scenario)


def test_a_flood_of_frames_of_one_station_leaves_room_for_the_others() -> None:
    async def scenario() -> None:
        async with endpoint() as source, station(source) as flooding, station(source, OTHER) as quiet:
            await configured(flooding)
            await configured(quiet)
            for _ in range(INBOX_SHARE + 40):
                await flooding.send(json.dumps(UPDF))
            await _until(lambda: source.counters["inbox_dropped"] == 40)
            await quiet.send(json.dumps(UPDF))
            await _until(lambda: source.counters["frames"] == INBOX_SHARE + 1)
            heard = await source.receive()
            assert [told.gateway_eui for told in heard] == [EUI] * INBOX_SHARE + [EUI64(2)]
            await flooding.send(json.dumps(UPDF))  # what was taken makes room
            assert len(await source.receive()) == 1

    assert INBOX_SHARE < INBOX_LIMIT
    played(scenario)


def test_a_peer_that_pings_and_never_reads_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    def flood(port: int) -> int:
        with socket.socket() as flooding:
            flooding.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            flooding.settimeout(LIMIT)
            flooding.connect(("127.0.0.1", port))
            flooding.sendall(
                f"GET /router/{ID6} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: bpse8nVmEl6ZlX4lSb6RMw==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            pings = (b"\x89\xfd\0\0\0\0" + bytes(125)) * 500
            sent = 0
            try:
                while sent < 256 << 20:
                    sent += flooding.send(pings)
            except ConnectionError:
                pass
            return sent

    async def scenario() -> None:
        async with endpoint() as source:
            sent = await asyncio.to_thread(flood, source.address[1])
            assert sent < 64 << 20  # the buffers of the kernel, ours, and a little
            await _until(lambda: not source._server.handlers if source._server else False)

    played(scenario)
    assert "send() raised" not in caplog.text  # asyncio says so of each write to a connection that is gone


def test_a_station_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "PATIENCE", 0.1)
    _, rows = recording()
    requests = [row.request for row in rows if row.request]

    async def scenario() -> None:
        async with endpoint() as source:
            hanging = await RecordedStation.open(source.address[1], requests[1])  # it leaves pings to others
            try:
                hanging.say(json.dumps(VERSION).encode())
                assert (await hanging.told())["msgtype"] == "router_config"
                await _until(lambda: source.reachable == frozenset())
            finally:
                await hanging.close()

    played(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_endpoint_on_every_address_leads_a_station_back_to_where_it_came(host: str) -> None:
    async def scenario() -> None:
        async with endpoint(bind="::") as source:
            begin = f"ws://{host}:{source.address[1]}"
            async with connect(f"{begin}/router-info", compression=None) as asking:
                await asking.send(json.dumps({"router": ID6}))
                where = json.loads(await asking.recv())["uri"]
            assert where == f"{begin}/router/{ID6}"
            async with connect(where, compression=None) as opened:
                assert (await configured(opened))["msgtype"] == "router_config"

    played(scenario)


def test_too_many_downlinks_that_nobody_reports_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "PENDING_LIMIT", 1)

    async def scenario() -> None:
        async with endpoint() as source, station(source) as opened:
            await configured(opened)
            at_once = order(timing=TxTiming.IMMEDIATELY, tmst=None)
            sending = asyncio.ensure_future(source.transmit(at_once))
            asked = json.loads(await opened.recv())
            assert (await source.transmit(at_once)).error == "TOO_MANY_PENDING"
            await opened.send(json.dumps({"msgtype": "dntxed", "seqno": asked["diid"]}))
            assert (await sending).error is None

    played(scenario)


def test_a_bug_ends_one_connection_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with endpoint() as source, station(source) as opened, station(source, OTHER) as other:
            await configured(opened)
            await configured(other)
            with monkeypatch.context() as patched:
                patched.setattr(source_module, "reception", broken)
                await opened.send(json.dumps(UPDF))
                with pytest.raises(ConnectionClosed):
                    await opened.recv()
            await other.send(json.dumps(UPDF))
            assert len(await source.receive()) == 1

    played(scenario)
    assert "a bug ended the connection" in caplog.text


def test_headers_of_strangers_and_tokens_stand_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="")

    async def scenario() -> None:
        async with endpoint() as source:
            _, writer = await asyncio.open_connection(*source.address)
            writer.write(b"GET /router-info HTTP/1.1\r\nAuthorization: open sesame\r\n\r\n")
            await writer.drain()
            writer.close()
            path = f"/router/{ID6}"
            async with station(
                source, path, additional_headers={"Authorization": "open sesame"}, logger=None
            ) as opened:
                await configured(opened)

    played(scenario)
    ours = [record.getMessage() for record in caplog.records if record.name != "websockets.client"]
    assert "a station is connected" in ours
    assert "sesame" not in "".join(ours)


def test_a_port_that_is_taken_is_waited_for_and_an_address_of_others_too() -> None:
    async def scenario() -> None:
        async with endpoint() as source:
            for bind, port in (("127.0.0.1", source.address[1]), ("192.0.2.1", 0)):
                other = BasicsStation(BasicsStationSettings(region="EU868", bind=bind, port=port))
                with pytest.raises(TransientError, match=bind):
                    await other.start()
                with pytest.raises(TransientError, match="not listening"):
                    _ = other.address

    played(scenario)


def _ordered(uplinks: Uplinks, transmission: Transmission, now: float) -> dict[str, Any]:
    made = order_of(transmission, uplinks, [transmission.data_rate], 1, monotonic=now, gps_ns=0)
    message: dict[str, Any] = json.loads(made.text)
    return message


@given(st.integers(0, (1 << 63) - 1), st.integers(1, 16))
def test_a_window_is_ordered_with_the_xtime_of_its_uplink_to_the_last_bit(xtime: int, delay: int) -> None:
    uplinks = Uplinks()
    tmst = uplinks.note(Heard(xtime, 0, 5.0))
    message = _ordered(uplinks, order(tmst=(tmst + delay * 1_000_000) & 0xFFFF_FFFF), 5.0)
    assert message["xtime"] == xtime
    window = message["RxDelay"] + ("RX2DR" in message)
    assert window == delay


@given(st.integers(0, (1 << 62) - 1), st.floats(0, 1e6), st.integers(1, 599_999_999))
def test_a_scheduled_moment_is_the_counters_and_near(xtime: int, later: float, ahead_us: int) -> None:
    uplinks = Uplinks()
    uplinks.note(Heard(xtime, 0, 5.0))
    wanted = xtime + round(later * 1_000_000) + ahead_us
    tmst = wanted & 0xFFFF_FFFF
    if uplinks.find(tmst) is None:
        (entry,) = _ordered(uplinks, order(tmst=tmst), 5.0 + later)["schedule"]
        assert entry["xtime"] == wanted


def test_uplinks_are_remembered_up_to_a_limit() -> None:
    uplinks = Uplinks()
    for number in range(REMEMBERED + 1):
        uplinks.note(Heard(TMST + number, 0, 0.0))
    assert uplinks.find((TMST + 1_000_000) & 0xFFFF_FFFF) is None
    assert uplinks.find((TMST + 1 + 1_000_000) & 0xFFFF_FFFF) is not None


def test_a_rate_that_stations_were_not_told_of_has_no_words() -> None:
    with pytest.raises(ValueError, match="data rate"):
        order_of(order(), Uplinks(), [LoraDataRate(12, 125_000)], 1, monotonic=0.0, gps_ns=0)
