"""The UDP server against forwarders on real loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import GatewayStatus, LoraDataRate, Reception, Transmission, TxResult, TxTiming
from lorabridge.lorawan.types import EUI64
from lorabridge.radio import semtech_udp
from lorabridge.radio.base import RadioSource, SourceEnded
from lorabridge.radio.gateways import AllowList, Route, RouteTable
from lorabridge.radio.gwmp import (
    PacketType,
    build_pull_ack,
    build_pull_data,
    build_push_ack,
    build_push_data,
    build_tx_ack,
    parse_datagram,
)
from lorabridge.radio.inbox import BATCH_LIMIT
from lorabridge.radio.outcomes import BUSY, NO_ANSWER, UNSENDABLE
from lorabridge.radio.semtech_udp import SemtechUdp, SemtechUdpSettings
from lorabridge.radio.txpk import parse_txpk_payload
from lorabridge.settings import ByteSize, Duration, read_table
from tests.radio.test_gwmp import RXPK

ONE = EUI64(0xAA555A0000000001)
TWO = EUI64(0xAA555A0000000002)
PATIENCE = 5.0
PUSH = json.dumps({"rxpk": [RXPK]}).encode()


class Forwarder:
    """A packet forwarder: two sockets, as the reference has."""

    def __init__(self, server: tuple[str, int], eui: EUI64, *, version: int = 2) -> None:
        self.eui = eui
        self.version = version
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.up, self.down = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for end in (self.up, self.down):
            end.setblocking(False)
            end.connect(server)

    def close(self) -> None:
        self.up.close()
        self.down.close()

    async def hear(self, end: socket.socket) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(end, 65_536), PATIENCE)

    def push_bytes(self, token: bytes, payload: bytes = PUSH) -> bytes:
        return bytes((self.version, *token, 0)) + int(self.eui).to_bytes(8, "big") + payload

    async def push(self, token: bytes = b"ab", payload: bytes = PUSH) -> None:
        self.up.send(self.push_bytes(token, payload))
        assert await self.hear(self.up) == build_push_ack(token, version=self.version)

    async def pull(self, token: bytes = b"cd") -> None:
        self.down.send(build_pull_data(token, self.eui, version=self.version))
        assert await self.hear(self.down) == build_pull_ack(token, version=self.version)

    async def settle(self) -> None:
        """All that was sent before has been taken: the server answers in order of arrival."""
        await self.push(b"\xff\xff", b"{}")


@contextlib.asynccontextmanager
async def serving(*euis: EUI64, version: int = 2, **settings: Any) -> AsyncIterator[tuple[SemtechUdp, list[Forwarder]]]:
    numbers = itertools.count()
    injected = {key: settings.pop(key) for key in ("token", "monotonic", "clock") if key in settings}
    injected.setdefault("token", lambda: next(numbers).to_bytes(2, "big"))
    server = SemtechUdp(SemtechUdpSettings(port=0, **settings), **injected)
    await server.start()
    forwarders = [Forwarder(server.address, eui, version=version) for eui in euis]
    try:
        yield server, forwarders
    finally:
        for forwarder in forwarders:
            forwarder.close()
        await server.stop()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, whoever runs the tests."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def transmission(eui: EUI64 = ONE) -> Transmission:
    return Transmission(
        phy_payload=b"\x60\1\2\3",
        gateway_eui=eui,
        timing=TxTiming.AT_TMST,
        tmst=5_000_000,
        frequency_hz=868_100_000,
        data_rate=LoraDataRate(7, 125_000),
        power_dbm=14,
    )


# --- hearing -----------------------------------------------------------------------------------------------------


def test_a_frame_is_heard_with_gateway_and_time_of_arrival() -> None:
    async def scenario() -> None:
        async with serving(ONE, clock=lambda: 123_456) as (server, (one,)):
            source: RadioSource = server
            await one.push()
            (heard,) = await source.receive()
            assert isinstance(heard, Reception)
            assert (heard.phy_payload, heard.gateway_eui, heard.source) == (b"\1\2\3\4", ONE, "udp")
            assert heard.received_at == 123_456
            assert server.counters["frames"] == server.counters["push_data"] == 1

    run(scenario())


def test_datagrams_are_acknowledged_though_nobody_reads_what_was_heard() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            for number in range(300):
                await one.push(number.to_bytes(2, "big"))
            assert server.counters["frames"] == 0
            assert len(await server.receive()) == 300

    run(scenario())


def test_all_that_waits_is_received_at_once_oldest_first_and_bounded() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            for number in range(BATCH_LIMIT + 10):
                await one.push(payload=json.dumps({"rxpk": [{**RXPK, "tmst": number}]}).encode())
            first, second = await server.receive(), await server.receive()
            assert len(first) == BATCH_LIMIT
            tmst = [heard.tmst for heard in first + second if isinstance(heard, Reception)]
            assert tmst == list(range(BATCH_LIMIT + 10))

    run(scenario())


def test_receive_waits_for_the_next_frame() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            receiving = asyncio.ensure_future(server.receive())
            await one.push(payload=b'{"stat":{"rxnb":3}}')
            (heard,) = await asyncio.wait_for(receiving, PATIENCE)
            assert isinstance(heard, GatewayStatus)
            assert heard.rx_received == 3
            assert server.counters["statuses"] == 1

    run(scenario())


def test_two_gateways_share_the_socket() -> None:
    async def scenario() -> None:
        async with serving(ONE, TWO) as (server, (one, two)):
            await one.push()
            await two.push()
            assert [heard.gateway_eui for heard in await server.receive()] == [ONE, TWO]

    run(scenario())


def test_a_burst_larger_than_one_wake_up_is_taken_whole() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            for number in range(3 * semtech_udp.DRAIN_LIMIT):
                one.up.send(one.push_bytes(number.to_bytes(2, "big")))
            for number in range(3 * semtech_udp.DRAIN_LIMIT):
                assert await one.hear(one.up) == build_push_ack(number.to_bytes(2, "big"))
            assert server.counters["push_data"] == 3 * semtech_udp.DRAIN_LIMIT

    run(scenario())


def test_ipv6_is_served_and_ipv4_too_on_the_unspecified_address() -> None:
    async def scenario() -> None:
        async with serving(ONE, bind="::1") as (server, (one,)):
            await one.push()
            assert len(await server.receive()) == 1
        async with serving(bind="::", networks=("127.0.0.0/8",)) as (server, _):
            with contextlib.closing(Forwarder(("127.0.0.1", server.address[1]), ONE)) as one:
                await one.push()
                assert len(await server.receive()) == 1

    run(scenario())


# --- hostile and too much ----------------------------------------------------------------------------------------

HOSTILE = {
    b"": "fault_too_short",
    b"\2ab": "fault_too_short",
    b"\2ab\0" + b"e" * 7: "fault_too_short",
    b"\3ab\0" + b"e" * 8: "fault_bad_version",
    b"\2ab\x77": "fault_unknown_type",
    build_push_ack(b"ab"): "fault_unexpected_type",
    b"\2ab\3{}": "fault_unexpected_type",
    b"\2ab\0" + b"e" * 8 + b"{": "fault_bad_json",
    b"\2ab\0" + b"e" * 8 + b'{"rxpk":' + b"[" * 30_000: "fault_bad_json",
    b"\2ab\0" + b"e" * 8 + b'{"rxpk":[' + b"0," * 30_000 + b"0]}": "fault_too_many_entries",
    b"\2ab\0" + b"e" * 8 + b'{"rxpk":[{"freq":868.1}]}': "fault_missing_field",
    b"\2ab\0" + b"e" * 8 + b'{"rxpk":[{"freq":"\\ud800"}]}': "fault_bad_json",
    b"\2ab\0" + b"e" * 8 + b'{"rxpk":5}': "fault_bad_value",
}


@pytest.mark.parametrize(("datagram", "counter"), list(HOSTILE.items()), ids=range(len(HOSTILE)))
def test_a_hostile_datagram_costs_a_counter_and_nothing_else(
    datagram: bytes, counter: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            one.up.send(datagram)
            if datagram[3:4] == b"\0" and counter not in ("fault_too_short", "fault_bad_version"):
                assert await one.hear(one.up) == build_push_ack(b"ab")
            await one.push()
            assert len(await server.receive()) == 1
            assert {name: count for name, count in server.counters.items() if name.startswith("fault_") and count} == {
                counter: 1
            }

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert caplog.records == [], "an attacker does not get to write our log"


def test_the_largest_datagram_there_is_costs_no_more() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            one.up.send(one.push_bytes(b"ab", PUSH).ljust(65_507))
            assert await one.hear(one.up) == build_push_ack(b"ab")
            assert len(await server.receive()) == 1

    run(scenario())


def test_a_full_inbox_drops_what_comes_and_counts_it() -> None:
    async def scenario() -> None:
        async with serving(ONE, inbox=ByteSize(10_000)) as (server, (one,)):
            for number in range(50):
                await one.push(number.to_bytes(2, "big"))
            dropped = server.counters["inbox_dropped"]
            assert dropped > 10
            assert len(await server.receive()) == 50 - dropped
            await one.push()
            assert len(await server.receive()) == 1, "there is room again"

    run(scenario())


def test_what_the_kernel_drops_is_counted_over_restarts_too() -> None:
    async def scenario() -> None:
        async with serving(ONE, receive_buffer=ByteSize(8192)) as (server, (one,)):
            for number in range(200):  # the loop does not turn meanwhile: nobody reads
                one.up.send(one.push_bytes(number.to_bytes(2, "big")))
            dropped = server.counters["kernel_dropped"]
            assert dropped > 100
            for _ in range(200 - dropped):
                await one.hear(one.up)
            assert server.counters["push_data"] == 200 - dropped
            await server.stop()
            await server.start()
            assert server.counters["kernel_dropped"] == dropped

    run(scenario())


def test_a_receive_buffer_smaller_than_asked_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    asked = ByteSize(256 << 20)

    async def granted() -> int:
        async with serving(receive_buffer=asked) as (server, _):
            assert server._socket is not None
            return server._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2

    with nobody():
        assert asyncio.run(granted()) < asked, "net.core.rmem_max of this machine is larger than any that ships"
    assert "net.core.rmem_max" in caplog.text
    caplog.clear()
    assert (asyncio.run(granted()) < asked) == ("net.core.rmem_max" in caplog.text)


# --- who may speak -----------------------------------------------------------------------------------------------


def test_a_gateway_that_is_not_on_the_list_is_neither_heard_nor_answered() -> None:
    async def scenario() -> None:
        async with serving(ONE, TWO, gateways=(ONE,)) as (server, (one, two)):
            two.up.send(two.push_bytes(b"no"))
            two.down.send(build_pull_data(b"no", TWO))
            await one.settle()
            assert server.counters["not_allowed"] == 2
            assert server.counters["push_data"] == 1
            for end in (two.up, two.down):
                with pytest.raises(BlockingIOError):
                    end.recv(1)
            assert (await server.transmit(transmission(TWO))).error == semtech_udp.NO_ROUTE

    run(scenario())


def test_a_source_address_that_is_not_on_the_list_is_neither_heard_nor_answered() -> None:
    async def scenario() -> None:
        async with serving(ONE, networks=("127.0.0.9/32",)) as (server, (one,)):
            one.up.send(one.push_bytes(b"no"))
            with contextlib.closing(Forwarder(server.address, TWO)) as two:
                two.up.close()
                two.up = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                two.up.setblocking(False)
                two.up.bind(("127.0.0.9", 0))
                two.up.connect(server.address)
                await two.push()
            assert server.counters["not_allowed"] == 1
            assert [heard.gateway_eui for heard in await server.receive()] == [TWO]
            with pytest.raises(BlockingIOError):
                one.up.recv(1)

    run(scenario())


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("10.1.2.3", True),
        ("10.2.0.1", False),
        ("::ffff:10.1.2.3", True),
        ("fd00::5%eth0", True),
        ("fe80::5%eth0", False),
    ],
)
def test_the_allow_list_knows_networks_of_both_families(host: str, allowed: bool) -> None:
    allow = AllowList(["10.1.0.0/16", "fd00::/8"], [])
    assert [allow.allows_host(host), allow.allows_host(host)] == [allowed, allowed]


def test_forged_source_addresses_cost_no_memory_without_bound() -> None:
    allow = AllowList(["10.0.0.0/8"], [])
    for number in range(10_000):
        assert not allow.allows_host(f"192.168.{number >> 8}.{number & 255}")
    assert len(allow._hosts) <= 4096


def test_listening_to_a_network_without_a_list_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(**settings: Any) -> None:
        async with serving(**settings):
            pass

    run(scenario())
    run(scenario(bind="0.0.0.0", gateways=(ONE,)))
    assert caplog.records == []
    run(scenario(bind="0.0.0.0"))
    assert "any gateway of the network may speak" in caplog.text


# --- sending -----------------------------------------------------------------------------------------------------


def test_a_transmission_goes_where_pull_data_came_from_and_returns_the_answer() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            await one.pull()
            await one.push()  # from the other socket, which does not listen for frames to send
            sending = asyncio.ensure_future(server.transmit(transmission()))
            order = parse_datagram(await one.hear(one.down))
            assert order.type is PacketType.PULL_RESP
            assert parse_txpk_payload(order.payload, gateway_eui=ONE) == transmission()
            one.down.send(build_tx_ack(order.token, ONE, TxResult(warning="TX_POWER", power_dbm=12)))
            assert await sending == TxResult(warning="TX_POWER", power_dbm=12)
            assert (server.counters["transmitted"], server.counters["tx_ack"]) == (1, 1)

    run(scenario())


def test_only_pull_data_opens_the_way_to_a_gateway() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            await one.push()
            one.down.send(build_tx_ack(b"xy", ONE, TxResult()))
            await one.settle()
            assert await server.transmit(transmission()) == TxResult(error=semtech_udp.NO_ROUTE)
            with pytest.raises(BlockingIOError):
                one.down.recv(1)

    run(scenario())


def test_a_tx_ack_of_another_gateway_or_another_token_answers_nothing() -> None:
    async def scenario() -> None:
        async with serving(ONE, TWO) as (server, (one, two)):
            await one.pull()
            sending = asyncio.ensure_future(server.transmit(transmission()))
            token = parse_datagram(await one.hear(one.down)).token
            two.down.send(build_tx_ack(token, TWO, TxResult()))
            one.down.send(build_tx_ack(b"\xaa\xaa", ONE, TxResult()))
            one.down.send(b"\2" + token + b"\5" + int(ONE).to_bytes(8, "big") + b"{broken")
            await one.settle()
            assert not sending.done()
            assert server.counters["tx_ack_unmatched"] == 2
            assert server.counters["fault_bad_json"] == 1
            one.down.send(build_tx_ack(token, ONE, TxResult(error="TOO_LATE")))
            one.down.send(build_tx_ack(token, ONE, TxResult()))
            assert await sending == TxResult(error="TOO_LATE")
            await one.settle()
            assert server.counters["tx_ack_unmatched"] == 3, "the second answer comes to nobody"

    run(scenario())


def test_many_transmissions_wait_each_for_its_own_answer() -> None:
    async def scenario() -> None:
        async with serving(ONE, TWO) as (server, (one, two)):
            await one.pull()
            await two.pull()
            sending = [asyncio.ensure_future(server.transmit(transmission(eui))) for eui in (ONE, TWO, ONE)]
            tokens = [parse_datagram(await end.hear(end.down)).token for end in (one, two, one)]
            assert len(set(tokens)) == 3
            one.down.send(build_tx_ack(tokens[2], ONE, TxResult(error="COLLISION_PACKET")))
            two.down.send(build_tx_ack(tokens[1], TWO, TxResult(error="TX_FREQ")))
            one.down.send(build_tx_ack(tokens[0], ONE, TxResult()))
            assert [result.error for result in await asyncio.gather(*sending)] == [None, "TX_FREQ", "COLLISION_PACKET"]

    run(scenario())


def test_a_gateway_that_does_not_answer_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with serving(ONE, tx_ack_timeout=Duration(0.01)) as (server, (one,)):
            await one.pull()
            assert await server.transmit(transmission()) == TxResult(error=NO_ANSWER)
            assert server._pending == {}

    run(scenario())


def test_a_gateway_of_version_1_is_answered_in_version_1_and_taken_at_its_word() -> None:
    async def scenario() -> None:
        async with serving(ONE, version=1) as (server, (one,)):
            await one.push()
            await one.pull()
            assert await server.transmit(transmission()) == TxResult()
            order = parse_datagram(await one.hear(one.down))
            assert (order.version, order.type) == (1, PacketType.PULL_RESP)
            assert server._pending == {}

    run(scenario())


def test_a_gateway_that_moved_is_reached_where_it_called_from_last() -> None:
    async def scenario() -> None:
        async with serving(ONE, ONE) as (server, (before, after)):
            await before.pull()
            await before.pull()
            assert server.counters["address_changed"] == 0
            await after.pull()
            assert server.counters["address_changed"] == 1
            sending = asyncio.ensure_future(server.transmit(transmission()))
            token = parse_datagram(await after.hear(after.down)).token
            after.down.send(build_tx_ack(token, ONE, TxResult()))
            assert await sending == TxResult()

    run(scenario())


def test_a_gateway_that_fell_silent_is_out_of_reach() -> None:
    now = [1000.0]

    async def scenario() -> None:
        async with serving(ONE, gateway_timeout=Duration(60), monotonic=lambda: now[0], version=1) as (server, (one,)):
            await one.pull()
            now[0] += 60
            assert await server.transmit(transmission()) == TxResult()
            now[0] += 0.1
            assert await server.transmit(transmission()) == TxResult(error=semtech_udp.NO_ROUTE)

    run(scenario())


def test_a_full_table_keeps_the_gateways_that_are_alive_and_does_not_answer_new_ones() -> None:
    async def scenario() -> None:
        async with serving(ONE, TWO, max_gateways=1) as (server, (one, two)):
            await one.pull()
            two.down.send(build_pull_data(b"no", TWO))
            await one.settle()
            await one.pull()
            assert server.counters["gateways_refused"] == 1
            with pytest.raises(BlockingIOError):
                two.down.recv(1)

    run(scenario())


def test_a_gateway_that_is_silent_gives_its_place_to_another() -> None:
    table = RouteTable(limit=2, lifetime=10)
    assert table.learn(ONE, Route(("a", 1), 2, 0.0))
    assert table.learn(TWO, Route(("b", 1), 2, 5.0))
    assert not table.learn(EUI64(3), Route(("c", 1), 2, 9.0))
    assert table.learn(EUI64(3), Route(("c", 1), 2, 10.5))
    assert len(table) == 2
    assert table.find(ONE, 10.5) is None
    assert table.find(TWO, 10.5) is not None


def test_a_gateway_that_calls_again_keeps_its_place() -> None:
    table = RouteTable(limit=2, lifetime=10)
    for eui, seen in ((ONE, 0.0), (TWO, 5.0), (ONE, 8.0), (EUI64(3), 15.5)):
        assert table.learn(eui, Route(("a", 1), 2, seen))
    assert table.find(ONE, 15.5) is not None
    assert table.find(TWO, 15.5) is None


def test_what_the_protocol_has_no_words_for_is_not_sent() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            await one.pull()
            odd = Transmission(
                phy_payload=b"",
                gateway_eui=ONE,
                timing=TxTiming.AT_TMST,
                frequency_hz=868_100_000,
                data_rate=LoraDataRate(7, 125_000),
                power_dbm=14,
            )
            assert await server.transmit(odd) == TxResult(error=UNSENDABLE)
            assert server.counters["transmitted"] == 0

    run(scenario())


def test_no_two_transmissions_wait_under_one_token() -> None:
    async def scenario() -> None:
        async with serving(ONE, token=lambda: b"zz") as (server, (one,)):
            await one.pull()
            sending = asyncio.ensure_future(server.transmit(transmission()))
            await one.hear(one.down)
            assert await server.transmit(transmission()) == TxResult(error=BUSY)
            one.down.send(build_tx_ack(b"zz", ONE, TxResult()))
            assert await sending == TxResult()

    run(scenario())


def test_a_network_that_does_not_take_the_datagram_is_told_of() -> None:
    async def scenario() -> None:
        async with serving(version=1) as (server, _):
            server._routes.learn(ONE, Route(("255.255.255.255", 9), 2, server._monotonic()))  # broadcast: not permitted
            assert await server.transmit(transmission()) == TxResult(error=semtech_udp.SEND_FAILED)

    run(scenario())


# --- start, failure, stop ----------------------------------------------------------------------------------------


def test_what_was_acknowledged_before_stop_is_received_after_it() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            await one.push()
            await server.stop()
            await server.stop()
            assert len(await server.receive()) == 1
            with pytest.raises(SourceEnded):
                await server.receive()
            with pytest.raises(TransientError):
                assert server.address

    run(scenario())


def test_stop_lets_those_go_who_wait() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            await one.pull()
            sending = asyncio.ensure_future(server.transmit(transmission()))
            await one.hear(one.down)
            receiving = asyncio.ensure_future(server.receive())
            await one.settle()
            await server.stop()
            assert await sending == TxResult(error=NO_ANSWER)
            with pytest.raises(SourceEnded):
                await receiving
            assert await server.transmit(transmission()) == TxResult(error=semtech_udp.NO_ROUTE)

    run(scenario())


def test_a_port_that_is_taken_may_be_free_later() -> None:
    async def scenario() -> None:
        async with serving() as (server, _):
            second = SemtechUdp(SemtechUdpSettings(port=server.address[1]))
            with pytest.raises(TransientError, match="in use"):
                await second.start()
            await server.stop()
            await second.start()
            await second.stop()

    run(scenario())


def test_an_address_that_is_not_ours_yet_may_be_later() -> None:
    with pytest.raises(TransientError, match=r"192\.0\.2\.1"):
        run(SemtechUdp(SemtechUdpSettings(bind="192.0.2.1", port=0)).start())


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 2, reason="here anybody may bind any port"
)
def test_a_port_that_needs_a_right_is_the_operators_to_mend() -> None:
    with nobody(), pytest.raises(ConfigError, match="1024"):
        run(SemtechUdp(SemtechUdpSettings(port=1)).start())


def test_a_socket_that_breaks_is_reported_after_what_it_heard_and_works_when_started_again() -> None:
    async def scenario() -> None:
        async with serving(ONE) as (server, (one,)):
            await one.push()
            assert server._socket is not None
            broken, kept = os.pipe()
            os.dup2(broken, server._socket.fileno())  # no socket any more: every call on it fails
            server._readable()
            assert len(await server.receive()) == 1
            with pytest.raises(TransientError, match="receiving failed"):
                await server.receive()
            await server.start()
            with contextlib.closing(Forwarder(server.address, ONE)) as again:
                await again.push()
            assert len(await server.receive()) == 1
            os.close(broken)
            os.close(kept)

    run(scenario())


# --- settings ----------------------------------------------------------------------------------------------------


def settings_from(table: dict[str, Any]) -> tuple[SemtechUdpSettings | None, list[Problem]]:
    problems: list[Problem] = []
    return read_table(SemtechUdpSettings, table, "bridge.toml", problems, "radio[1]"), problems


def test_settings_are_read_as_an_operator_writes_them() -> None:
    table = {
        "name": "roof",
        "bind": "0.0.0.0",
        "port": 1730,
        "gateways": ["aa-55-5a-00-00-00-00-01"],
        "networks": ["192.168.10.0/24", "fd00::/8"],
        "receive_buffer": "1MiB",
        "tx_ack_timeout": "500ms",
    }
    settings, problems = settings_from(table)
    assert problems == []
    assert settings is not None
    assert settings.gateways == (ONE,)
    assert (settings.receive_buffer, settings.tx_ack_timeout) == (1 << 20, 0.5)


def test_by_default_only_this_machine_is_listened_to() -> None:
    settings = SemtechUdpSettings()
    assert (settings.bind, settings.port) == ("127.0.0.1", 1700)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"bind": "localhost"}, "bind"),
        ({"networks": ["10.0.0.1/8"]}, "networks"),
        ({"networks": ["lan"]}, "networks"),
        ({"port": 65536}, "port"),
        ({"gateways": ["aa55"]}, "gateways"),
        ({"inbox": "1B"}, "inbox"),
        ({"receive_buffer": "2GiB"}, "receive_buffer"),
        ({"tx_ack_timeout": 0}, "tx_ack_timeout"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(table: dict[str, Any], named: str) -> None:
    settings, problems = settings_from(table)
    assert settings is None
    assert any(named in str(problem) for problem in problems)


def test_push_data_of_our_own_making_is_served_as_well() -> None:
    async def scenario() -> None:
        async with serving(ONE, clock=lambda: 9) as (server, (one,)):
            await one.push()
            first = await server.receive()
            one.up.send(build_push_data(b"ab", ONE, first))
            await one.hear(one.up)
            assert await server.receive() == first

    run(scenario())
