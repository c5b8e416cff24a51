"""Recordings: every format at every pace, what is damaged in them, and writing them down."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.air import (
    Antenna,
    CrcStatus,
    FskDataRate,
    GatewayStatus,
    LoraDataRate,
    Reception,
    Transmission,
    TxResult,
)
from lorabridge.lorawan.types import EUI64
from lorabridge.radio import recording
from lorabridge.radio.base import RadioSource, SourceEnded
from lorabridge.radio.captures import read_capture
from lorabridge.radio.gwmp import build_pull_data, build_push_data
from lorabridge.radio.loratap import NotLoraTapError, OtherNetworkError, parse_loratap
from lorabridge.radio.recorder import record
from lorabridge.radio.recording import Recording, RecordingSettings
from lorabridge.radio.rxpk_lines import MAX_LINE, Passed, Read, build_line, read_lines
from lorabridge.radio.semtech_udp import SemtechUdp, SemtechUdpSettings
from lorabridge.settings import read_table
from tests.radio import captures
from tests.radio.strategies import RECEPTIONS, STATUSES
from tests.radio.test_gwmp import RXPK
from tests.radio.test_semtech_udp import ONE, Forwarder, transmission
from tests.vector_files import SHARED

Heard = Reception | GatewayStatus
SECOND = 1_000_000_000


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def play(path: Path, *, clock: Clock | None = None, **fields: Any) -> tuple[list[Heard], dict[str, int]]:
    """All that a recording tells, and its counters."""
    clock = clock or Clock()
    source = Recording(
        RecordingSettings(path=path, **{"pace": "fast", **fields}), monotonic=clock.monotonic, sleep=clock.sleep
    )

    async def whole() -> list[Heard]:
        heard: list[Heard] = []
        radio: RadioSource = source
        await radio.start()
        try:
            while True:
                heard += await radio.receive()
        except SourceEnded:
            return heard
        finally:
            await radio.stop()

    return asyncio.run(whole()), dict(source.counters)


def line(seconds: float, **changes: Any) -> bytes:
    said = {"received_at": int(seconds * SECOND), "gateway_eui": str(ONE), "rxpk": {**RXPK, **changes}}
    return json.dumps(said).encode() + b"\n"


def heard_at(items: list[Heard]) -> list[float]:
    return [item.received_at / SECOND for item in items]


# --- lines -------------------------------------------------------------------------------------------------------


def test_lines_are_played_in_order_with_their_own_time(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    stat = {"received_at": 3 * SECOND, "gateway_eui": str(ONE), "stat": {"rxnb": 2}}
    path.write_bytes(line(1) + line(2, tmst=9) + json.dumps(stat).encode())
    items, counters = play(path)
    assert heard_at(items) == [1, 2, 3]
    assert [type(item) for item in items] == [Reception, Reception, GatewayStatus]
    assert all((item.gateway_eui, item.source) == (ONE, "recording") for item in items)
    assert counters == {"frames": 2, "statuses": 1, "damaged": 0, "skipped": 0}


def test_an_empty_recording_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert play(path)[0] == []


@pytest.mark.parametrize(
    ("said", "nanoseconds"),
    [
        ({"ts": "1684572126.973495"}, 1_684_572_126_973_495_000),
        ({"ts": 1684572126.5}, 1_684_572_126_500_000_000),
        ({"ts": 1684572126}, 1_684_572_126_000_000_000),
        ({"received_at": 5, "ts": "7"}, 5),
        ({}, 0),
    ],
)
def test_lines_of_other_recordings_tell_their_time_in_seconds(said: dict[str, Any], nanoseconds: int) -> None:
    data = json.dumps({**said, "id": 5, "expect": {"mic_valid": True}, "rxpk": RXPK}).encode()
    (item,) = lines_in(data)
    assert isinstance(item, Reception)
    assert (item.received_at, item.gateway_eui) == (nanoseconds, EUI64(7))


def lines_in(data: bytes) -> list[Read]:
    return list(read_lines(io.BufferedReader(io.BytesIO(data)), source="x", gateway_eui=EUI64(7)))


def test_a_line_without_a_time_takes_the_gateways_own_or_the_one_before_it() -> None:
    bare = json.dumps({"rxpk": RXPK}).encode() + b"\n"
    timed = json.dumps({"rxpk": {**RXPK, "time": "2026-11-24T12:00:00Z"}}).encode() + b"\n"
    items = lines_in(bare + timed + bare)
    assert [item.received_at for item in items if isinstance(item, Reception)] == [0] + [1_795_521_600 * SECOND] * 2


DAMAGED_LINES = {
    b"": "bad_json",
    b"{": "bad_json",
    b"[]": "bad_value",
    b'{"rxpk":5}': "bad_value",
    b'{"rxpk":{}}': "missing_field",
    b'{"stat":{"rxnb":-1}}': "bad_value",
    b'{"gateway_eui":"xyz","rxpk":{}}': "bad_value",
    b'{"received_at":-1,"rxpk":{}}': "bad_value",
    b'{"received_at":9223372036854775808,"rxpk":{}}': "bad_value",
    b'{"ts":"soon","rxpk":{}}': "bad_value",
    b'{"ts":"NaN","rxpk":{}}': "bad_value",
    b'{"ts":"1e999999999","rxpk":{}}': "bad_value",
    b'{"ts":"' + b"1" * 41 + b'","rxpk":{}}': "bad_value",
    b'{"x":' + b"[" * 30_000: "bad_json",
    b'{"x":"' + b"x" * (3 * MAX_LINE) + b'"}': "too_long",
    b"x" * (MAX_LINE - 1): "bad_json",
    b"x" * MAX_LINE: "too_long",
    b"\xff\xfe": "bad_json",
}


@pytest.mark.parametrize(("damaged", "reason"), list(DAMAGED_LINES.items()), ids=range(len(DAMAGED_LINES)))
def test_a_damaged_line_is_left_out_and_told_of(damaged: bytes, reason: str) -> None:
    first, passed, last = lines_in(line(1) + damaged + b"\n" + line(2))
    assert isinstance(first, Reception)
    assert isinstance(last, Reception)
    assert passed == Passed("line 2", reason, damaged=True)


def test_a_line_too_long_at_the_end_of_the_file_is_left_out_too() -> None:
    assert lines_in(line(1) + b"x" * (2 * MAX_LINE))[1:] == [Passed("line 2", "too_long", damaged=True)]


def test_damage_costs_a_counter_and_a_log_line_with_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "roof.jsonl"
    path.write_bytes(line(1) + b"garbage\n" + b'{"txpk":{}}\n' + line(2))
    items, counters = play(path)
    assert len(items) == 2
    assert counters == {"frames": 2, "statuses": 0, "damaged": 1, "skipped": 1}
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert vars(told)["fields"] == {"source": "recording", "where": f"{path}: line 2", "reason": "bad_json"}


@given(st.lists(RECEPTIONS | STATUSES, max_size=6))
def test_what_is_written_as_lines_is_read_as_it_was(items: list[Heard]) -> None:
    assert lines_in(b"".join(build_line(item) for item in items)) == [_from(item, "x") for item in items]


def _from(item: Heard, source: str) -> Heard:
    fields = {name: getattr(item, name) for name in item.__struct_fields__}
    return type(item)(**{**fields, "source": source})


@given(st.binary(max_size=300) | st.lists(st.binary(max_size=40)).map(b"\n".join))
def test_any_bytes_are_lines_or_named_damage(data: bytes) -> None:
    for read in lines_in(data):
        assert isinstance(read, Reception | GatewayStatus | Passed)


@pytest.mark.skipif(
    not (SHARED / "recorded_rxpk.jsonl").exists(), reason="recordings of no stated licence stay outside"
)
def test_a_recording_of_other_people_is_played() -> None:
    items, counters = play(SHARED / "recorded_rxpk.jsonl")
    assert counters["frames"] == 1637
    assert counters["statuses"] == 481
    assert counters["damaged"] == 1, "the one whose size is wrong"
    assert counters["skipped"] == 449, "downlinks"
    assert len(items) == 1637 + 481


# --- captures ----------------------------------------------------------------------------------------------------

FRAME = Reception(
    phy_payload=b"\x40\1\2\3",
    received_at=0,
    gateway_eui=ONE,
    source="recording",
    crc=CrcStatus.OK,
    frequency_hz=868_100_000,
    data_rate=LoraDataRate(7, 125_000),
    antennas=(Antenna(rssi_dbm=-30.0),),
)
PUSH = build_push_data(b"ab", ONE, [FRAME])
AT = 1_700_000_000.123456
AT_NS = 1_700_000_000_123_456_000

LINKS = {
    "ethernet": (1, captures.ethernet(captures.udp4(PUSH))),
    "ethernet-ipv6": (1, captures.ethernet(captures.udp6(PUSH))),
    "vlan": (
        1,
        captures.ethernet(captures.udp4(PUSH))[:12] + b"\x81\x00\0\5" + captures.ethernet(captures.udp4(PUSH))[12:],
    ),
    "cooked": (113, captures.cooked(captures.udp4(PUSH))),
    "cooked-2": (276, captures.cooked2(captures.udp4(PUSH))),
    "raw": (101, bytes(captures.udp4(PUSH))),
    "raw-ipv6": (101, bytes(captures.udp6(PUSH))),
    "ipv4": (228, bytes(captures.udp4(PUSH))),
    "ipv6": (229, bytes(captures.udp6(PUSH))),
    "bsd-loopback": (0, captures.loopback(captures.udp4(PUSH))),
}


@pytest.mark.parametrize("kind", ["pcap", "pcap-ns", "pcapng"])
@pytest.mark.parametrize(("link_type", "packet"), list(LINKS.values()), ids=list(LINKS))
def test_the_udp_protocol_is_read_out_of_captures_of_every_kind(
    tmp_path: Path, link_type: int, packet: bytes, kind: str
) -> None:
    path = tmp_path / "capture"
    if kind == "pcapng":
        path.write_bytes(captures.pcapng([(AT, packet)], link_type=link_type))
    else:
        path.write_bytes(captures.pcap([(AT, packet)], link_type=link_type, nano=kind == "pcap-ns"))
    ((item,), counters) = play(path)
    assert isinstance(item, Reception)
    assert abs(item.received_at - AT_NS) <= 1000, "the writer goes through a float"
    assert _from(item, "recording") == _with_time(FRAME, item.received_at)
    assert counters["frames"] == 1


def _with_time(item: Reception, received_at: int) -> Heard:
    fields = {name: getattr(item, name) for name in item.__struct_fields__}
    return Reception(**{**fields, "received_at": received_at})


def test_other_traffic_in_a_capture_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    arp = bytes(dpkt_arp())
    others = [
        captures.ethernet(captures.udp4(PUSH, port=53)),
        captures.ethernet(captures.udp4(build_pull_data(b"ab", ONE))),
        arp,
    ]
    packets = [
        (1.0 + number, packet) for number, packet in enumerate([*others, captures.ethernet(captures.udp4(PUSH))])
    ]
    path.write_bytes(captures.pcap(packets, link_type=1))
    items, counters = play(path)
    assert heard_at(items) == [4]
    assert counters == {"frames": 1, "statuses": 0, "damaged": 0, "skipped": 3}
    assert heard_at(play(path, port=53)[0]) == [1]
    assert heard_at(play(path, port=0)[0]) == [1, 4]


def dpkt_arp() -> Any:
    return dpkt.ethernet.Ethernet(type=dpkt.ethernet.ETH_TYPE_ARP, data=dpkt.arp.ARP())


def test_damaged_packets_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    damaged = [
        captures.ethernet(captures.udp4(b"\2ab")),
        captures.ethernet(captures.udp4(PUSH[:-5])),
        captures.ethernet(captures.udp4(b"\2ab\0" + b"e" * 8 + b'{"rxpk":[5]}')),
        captures.ethernet(captures.udp4(PUSH, mf=1)),
        b"\x08",
    ]
    packets = [(float(number), packet) for number, packet in enumerate(damaged, 1)]
    path.write_bytes(captures.pcap([*packets, (9.0, captures.ethernet(captures.udp4(PUSH)))], link_type=1))
    items, counters = play(path)
    assert heard_at(items) == [9]
    assert counters["damaged"] == 5


def test_fragments_of_ipv6_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    path.write_bytes(captures.pcap([(1.0, captures.fragment6(PUSH))], link_type=101))
    assert play(path)[1]["damaged"] == 1


WHOLE = captures.pcap([(1.0, captures.ethernet(captures.udp4(PUSH)))] * 2, link_type=1)
GIANT = WHOLE[:32] + b"\xff\xff\xff\x7f" + WHOLE[36:]


@pytest.mark.parametrize(
    ("data", "frames"), [(WHOLE[:-3], 1), (WHOLE[:-120], 1), (GIANT, 0)], ids=["cut", "cut-early", "giant"]
)
def test_a_capture_that_is_damaged_ends_there(tmp_path: Path, data: bytes, frames: int) -> None:
    path = tmp_path / "capture.pcap"
    path.write_bytes(data)
    items, counters = play(path)
    assert (len(items), counters["damaged"]) == (frames, 1)


def reads_of(data: bytes) -> Iterator[Read]:
    return read_capture(io.BytesIO(data), kind="auto", source="x", gateway_eui=EUI64(0), port=0)


SEEDS = [WHOLE, captures.pcapng([(1.0, LINKS["ethernet-ipv6"][1])], link_type=1)] + [
    captures.pcap([(1.0, packet)], link_type=link_type) for link_type, packet in LINKS.values()
]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=4))
def test_any_damage_to_a_capture_is_named_damage(seed: bytes, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(seed)
    for place, change in changes:
        data[place : place + len(change)] = change
    try:
        reads = list(reads_of(bytes(data)))
    except ValueError:
        return
    assert all(isinstance(read, Reception | GatewayStatus | Passed) for read in reads)


@given(
    st.integers(0, 300).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    st.sampled_from(sorted({link for link, _ in LINKS.values()} | {270})),
)
def test_any_packet_is_read_or_named_damage(packet: bytes, link_type: int) -> None:
    reads = list(reads_of(captures.pcap([(1.0, packet)], link_type=link_type)))
    assert all(isinstance(read, Reception | GatewayStatus | Passed) for read in reads)


def test_ip_in_ip_in_ip_without_end_is_damage(tmp_path: Path) -> None:
    packet = b""
    for _ in range(3000):
        head = bytearray(captures.udp4(b"").pack_hdr())
        head[9] = 4
        head[2:4] = min(len(packet) + 20, 65_535).to_bytes(2, "big")
        packet = bytes(head) + packet
    path = tmp_path / "capture.pcap"
    path.write_bytes(captures.pcap([(1.0, packet)], link_type=101))
    assert play(path)[1]["damaged"] + play(path)[1]["skipped"] == 1


@pytest.mark.skipif(not (SHARED / "pcap").exists(), reason="captures of no stated licence stay outside")
@pytest.mark.parametrize(
    ("name", "frames"), [("normal_traffic", 130), ("joinrequestreplay", 305), ("joinacceptreplay", 46)]
)
def test_captures_of_other_people_are_played(name: str, frames: int) -> None:
    items, counters = play(SHARED / "pcap" / f"{name}.pcap")
    assert (counters["frames"], counters["statuses"], counters["damaged"]) == (frames, frames, 0)
    expected = [json.loads(text) for text in (SHARED / "recorded_rxpk.jsonl").read_text().splitlines()]
    frames_there = [vector for vector in expected if vector["capture"] == name and vector["dir"] == "up"]
    receptions = [item for item in items if isinstance(item, Reception)]
    assert [item.phy_payload.hex() for item in receptions] == [
        vector["expect"]["phy_payload"] for vector in frames_there
    ]
    assert [item.received_at for item in receptions] == [
        round(float(vector["ts"]) * 1e6) * 1000 for vector in frames_there
    ]


# --- LoRaTap -----------------------------------------------------------------------------------------------------


def loratap(packet: bytes) -> Reception:
    return parse_loratap(packet, gateway_eui=EUI64(7), source="x", received_at=1)


def test_loratap_0_has_the_radio_figures_and_counts_as_demodulated() -> None:
    heard = loratap(captures.loratap0(b"\x40abc", sf=9, bandwidth=2, rssi=100, snr=22))
    assert heard == Reception(
        phy_payload=b"\x40abc",
        received_at=1,
        gateway_eui=EUI64(7),
        source="x",
        crc=CrcStatus.OK,
        frequency_hz=868_100_000,
        data_rate=LoraDataRate(9, 250_000),
        antennas=(Antenna(rssi_dbm=-39.0, snr_db=5.5),),
    )


def test_below_the_noise_floor_the_rssi_counts_in_quarters() -> None:
    (antenna,) = loratap(captures.loratap0(b"", rssi=50, snr=-10)).antennas
    assert (antenna.rssi_dbm, antenna.snr_db) == (-126.5, -2.5)
    assert loratap(captures.loratap0(b"", rssi=255)).antennas[0].rssi_dbm is None


@pytest.mark.parametrize(
    ("flags", "crc"), [(0x08, CrcStatus.OK), (0x10, CrcStatus.BAD), (0x20, CrcStatus.NONE), (0, CrcStatus.NONE)]
)
def test_loratap_1_adds_what_a_packet_forwarder_knows(flags: int, crc: CrcStatus) -> None:
    heard = loratap(captures.loratap1(b"\x40abc", eui=int(ONE), tmst=123_456, flags=flags, cr=6))
    assert (heard.crc, heard.gateway_eui, heard.tmst, heard.code_rate) == (crc, ONE, 123_456, "4/6")
    assert (heard.rf_chain, heard.antennas[0].channel) == (1, 3)


def test_loratap_1_carries_fsk() -> None:
    heard = loratap(captures.loratap1(b"a", eui=1, tmst=0, flags=0x09, cr=0, datarate=50_000, sync_word=0))
    assert (heard.data_rate, heard.code_rate, heard.antennas[0].snr_db) == (FskDataRate(50_000), None, None)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    known = captures.loratap1(b"", eui=1, tmst=5, flags=8)[15:]
    heard = loratap(captures.loratap0(b"\x40abc", version=2, extra=known + b"more"))
    assert (heard.phy_payload, heard.tmst) == (b"\x40abc", 5)


def test_other_loratap_traffic_is_told_apart_from_damage() -> None:
    with pytest.raises(OtherNetworkError):
        loratap(captures.loratap0(b"", sync_word=0x2B))
    whole = captures.loratap1(b"", eui=1, tmst=5, flags=8)
    for broken in (b"", whole[:14], whole[:34], whole[:2] + b"\0\x0f" + whole[4:], whole[:2] + b"\xff\xff" + whole[4:]):
        with pytest.raises(NotLoraTapError):
            loratap(broken)


def test_a_loratap_capture_is_played(tmp_path: Path) -> None:
    path = tmp_path / "air.pcap"
    packets = [
        (1.0, captures.loratap0(b"\x40abc")),
        (2.0, captures.loratap0(b"", sync_word=0x2B)),
        (3.0, b"short"),
        (4.5, captures.loratap1(b"\x40def", eui=int(ONE), tmst=1, flags=8)),
    ]
    path.write_bytes(captures.pcap(packets, link_type=270))
    items, counters = play(path, gateway_eui=EUI64(9))
    assert heard_at(items) == [1, 4.5]
    assert [item.gateway_eui for item in items] == [EUI64(9), ONE]
    assert counters == {"frames": 2, "statuses": 0, "damaged": 1, "skipped": 1}
    assert len(play(path, format="loratap")[0]) == 2


# --- pace --------------------------------------------------------------------------------------------------------


def test_at_recorded_pace_every_pause_is_kept(tmp_path: Path) -> None:
    path, clock = tmp_path / "roof.jsonl", Clock()
    path.write_bytes(line(1000) + line(1000) + line(1002.5) + line(1001) + line(1004))
    items, _ = play(path, clock=clock, pace="recorded")
    assert clock.slept == [2.5, 1.5]
    assert heard_at(items) == [1000, 1000, 1002.5, 1001, 1004], "recorded times are not those of the replay"


def test_n_times_as_fast_and_as_fast_as_possible(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    path.write_bytes(line(1000) + line(1010))
    for pace, slept in (("10x", [1.0]), ("0.5x", [20.0]), ("fast", [])):
        clock = Clock()
        play(path, clock=clock, pace=pace)
        assert clock.slept == slept


def test_a_slow_consumer_does_not_stretch_the_recording(tmp_path: Path) -> None:
    path, clock = tmp_path / "roof.jsonl", Clock()
    path.write_bytes(line(1000) + line(1010) + line(1020))
    source = Recording(RecordingSettings(path=path), monotonic=clock.monotonic, sleep=clock.sleep)

    async def scenario() -> None:
        await source.start()
        await source.receive()
        clock.now += 15
        assert heard_at(await source.receive()) == [1010]
        assert heard_at(await source.receive()) == [1020]
        assert clock.slept == [5.0]
        await source.stop()

    asyncio.run(scenario())


def test_a_frame_without_a_time_is_not_waited_for(tmp_path: Path) -> None:
    path, clock = tmp_path / "roof.jsonl", Clock()
    path.write_bytes(json.dumps({"rxpk": RXPK}).encode() + b"\n" + line(1_700_000_000))
    play(path, clock=clock, pace="recorded")
    assert clock.slept == []


def test_a_long_recording_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    path.write_bytes(line(1) * 1000 + b"garbage\n" * 1000)
    source = Recording(RecordingSettings(path=path, pace="fast"))

    async def scenario() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        await source.start()
        task = asyncio.create_task(others())
        with contextlib.suppress(SourceEnded):
            while True:
                assert len(await source.receive()) <= recording.BATCH_LIMIT
        task.cancel()
        await source.stop()
        return turns

    assert asyncio.run(scenario()) >= 2000 // recording.BATCH_LIMIT


# --- life --------------------------------------------------------------------------------------------------------


def test_a_recording_that_is_started_again_begins_again_and_one_that_is_stopped_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    path.write_bytes(line(1) + line(2))
    source = Recording(RecordingSettings(path=path, pace="fast", name="old"))

    async def scenario() -> None:
        assert source.name == "old"
        for _ in range(2):
            await source.start()
            assert heard_at(await source.receive()) == [1, 2]
        assert await source.transmit(transmission()) == TxResult(error=recording.DEAF)
        await source.stop()
        await source.stop()
        with pytest.raises(SourceEnded):
            await source.receive()

    asyncio.run(scenario())


def test_a_disk_that_fails_is_no_end_of_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "roof.jsonl"
    path.write_bytes(line(1) * 300)  # more than one buffer of the file
    source = Recording(RecordingSettings(path=path, pace="fast"))

    async def scenario() -> None:
        await source.start()
        assert source._file is not None
        directory = os.open(tmp_path, os.O_RDONLY)
        os.dup2(directory, source._file.fileno())  # a directory cannot be read: EISDIR
        os.close(directory)
        heard = 0
        try:
            while True:
                heard += len(await source.receive())
        except TransientError as error:
            told = str(error)
        assert 0 < heard < 300
        assert "directory" in told
        await source.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("make", "fields", "says"),
    [
        (Path.exists, {}, "No such file"),
        (lambda path: path.mkdir(), {}, "directory"),
        (os.mkfifo, {}, "no regular file"),
        (lambda path: path.write_bytes(b"hello"), {"format": "pcap"}, "no packet capture"),
        (lambda path: path.write_bytes(b"\xd4\xc3\xb2\xa1\2\0"), {}, "no packet capture"),
        (lambda path: path.write_bytes(b"\x0a\x0d\x0d\x0a" + bytes(40)), {}, "no packet capture"),
        (lambda path: path.write_bytes(captures.pcap([], link_type=147)), {}, "link type 147"),
        (lambda path: path.write_bytes(captures.pcap([], link_type=1)), {"format": "loratap"}, "link type 1"),
        (lambda path: path.write_bytes(captures.pcap([], link_type=270)), {"format": "pcap"}, "link type 270"),
    ],
    ids=["missing", "directory", "fifo", "text", "short", "pcapng", "user0", "not-loratap", "not-udp"],
)
def test_a_file_that_cannot_be_played_is_the_operators_to_mend(
    tmp_path: Path, make: Any, fields: dict[str, Any], says: str
) -> None:
    path = tmp_path / "recording"
    make(path)
    if path.is_fifo():
        keep_open = os.open(path, os.O_RDWR)
    with pytest.raises(ConfigError, match=says) as raised:
        play(path, **fields)
    assert raised.value.problems[0].where == str(path)
    assert raised.value.problems[0].hint
    if path.is_fifo():
        os.close(keep_open)


def test_settings_are_read_as_an_operator_writes_them() -> None:
    problems: list[Problem] = []
    table = {"path": "/var/lib/lorabridge/roof.jsonl", "pace": "10x", "gateway_eui": "aa555a0000000001"}
    found = read_table(RecordingSettings, table, "bridge.toml", problems, "radio[1]")
    assert problems == []
    assert found is not None
    assert (found.path, found.speed, found.gateway_eui) == (Path("/var/lib/lorabridge/roof.jsonl"), 10.0, ONE)


@pytest.mark.parametrize("pace", ["", "slow", "x", "0x", "-1x", "1e3x", "10 x", "10x\n", "٣x"])
def test_a_pace_that_is_none_is_refused(pace: str) -> None:
    problems: list[Problem] = []
    table = {"path": "/x", "pace": pace}
    assert read_table(RecordingSettings, table, "bridge.toml", problems, "radio[1]") is None
    assert "10x" in str(problems[0])


# --- writing -----------------------------------------------------------------------------------------------------


@given(st.lists(RECEPTIONS | STATUSES, max_size=5))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_recorded_is_played_as_it_was_heard(tmp_path: Path, items: list[Heard]) -> None:
    """Through a real socket, a real file, and back."""
    path = tmp_path / "roof.jsonl"

    async def recorded() -> list[Heard]:
        times = iter(range(1, 1000))
        settings_ = SemtechUdpSettings(port=0, name="recording")
        first, second = (SemtechUdp(settings_, clock=lambda: next(times)) for _ in range(2))
        heard: list[Heard] = []
        stop = asyncio.Event()
        await first.start()
        await send(first, items)
        if items:
            heard = await first.receive()
        await first.stop()
        times = iter(range(1, 1000))
        with path.open("wb") as out:
            recording_ = asyncio.create_task(record(second, out, stop=stop))
            await asyncio.sleep(0)
            await send(second, items)
            stop.set()
            assert (await recording_).lines == len(items)
        return heard

    heard = asyncio.run(recorded())
    assert play(path)[0] == heard
    assert len(heard) == len(items)


async def send(server: SemtechUdp, items: list[Heard]) -> None:
    for item in items:
        forwarder = Forwarder(server.address, item.gateway_eui)
        forwarder.up.send(build_push_data(b"ab", item.gateway_eui, [item]))
        await forwarder.hear(forwarder.up)
        forwarder.close()


class Fixed:
    """A source that has been heard already."""

    name = "fixed"
    can_transmit = False
    reachable = None
    counters: dict[str, int] = {}  # noqa: RUF012  # never changed

    def __init__(self, items: list[Heard]) -> None:
        self.items = items

    async def start(self) -> None:
        """Nothing to open."""

    async def receive(self) -> list[Heard]:
        if not self.items:
            raise SourceEnded
        items, self.items = self.items, []
        return items

    async def transmit(self, transmission: Transmission) -> TxResult:  # noqa: ARG002  # as the protocol has it
        return TxResult()

    async def stop(self) -> None:
        """Nothing to close."""


def recorded_to(path: Path, items: list[Heard], count: int | None = None) -> tuple[int, int]:
    async def scenario() -> tuple[int, int]:
        with path.open("ab") as out:
            done = await record(Fixed(items), out, stop=asyncio.Event(), count=count)
            return done.lines, done.left_out

    return asyncio.run(scenario())


def test_recording_stops_at_the_count_and_leaves_out_what_the_format_has_no_words_for(tmp_path: Path) -> None:
    odd = _from(FRAME, "x")
    assert isinstance(odd, Reception)
    odd = Reception(**{**{f: getattr(odd, f) for f in odd.__struct_fields__}, "data_rate": LoraDataRate(7, 812_500)})
    path = tmp_path / "roof.jsonl"
    assert recorded_to(path, [FRAME, odd, FRAME, FRAME], count=2) == (2, 1)
    assert len(play(path)[0]) == 2
    assert recorded_to(path, [FRAME]) == (1, 0)
    assert len(play(path)[0]) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_of() -> None:
    with pytest.raises(TransientError, match="No space"), open("/dev/full", "wb", buffering=0) as out:  # noqa: PTH123  # Path.open has no such types
        asyncio.run(record(Fixed([FRAME]), out, stop=asyncio.Event()))


def test_the_socket_is_closed_when_recording_ends(tmp_path: Path) -> None:
    server = SemtechUdp(SemtechUdpSettings(port=0))

    async def scenario() -> None:
        stop = asyncio.Event()
        stop.set()
        with (tmp_path / "x").open("wb") as out:
            await record(server, out, stop=stop)
        with pytest.raises(TransientError):
            assert server.address

    asyncio.run(scenario())


def test_a_daemon_without_captures_loads_no_dpkt() -> None:
    program = (
        "import sys; import lorabridge.radio.recording, lorabridge.radio.semtech_udp; print('dpkt' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert shown.stdout.strip() == "False"
