"""The whole bridge in one process: a recording or datagrams in, a stand-in for the endpoint behind mutual TLS."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lorabridge import __version__
from lorabridge.daemon import bridge as bridge_module
from lorabridge.daemon.assembly import network_of, source_of
from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.config import NetworkSettings
from lorabridge.daemon.service import load_checked
from lorabridge.daemon.way_out import LinkLog
from lorabridge.errors import ConfigError
from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.device import CounterPolicy, Device
from lorabridge.lorawan.events import EventKind, Record
from lorabridge.lorawan.types import EUI64, DevAddr, NetID
from lorabridge.lorawan.verdict import Verdict
from lorabridge.radio.concentratord.settings import ConcentratordSettings
from lorabridge.radio.concentratord.source import Concentratord
from lorabridge.radio.recording import Recording, RecordingSettings
from lorabridge.radio.rxpk_lines import build_line
from lorabridge.radio.semtech_udp import SemtechUdp, SemtechUdpSettings
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302
from lorabridge.settings import Duration
from lorabridge.simulation.standin import Policy, StandIn, StandInSettings, gateway_policy
from lorabridge.store import inspection
from lorabridge.store.database import Batch, Store, StoreConflict
from lorabridge.store.values import StoredRecord
from lorabridge.upstream.aws_iot import MAX_PAYLOAD
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.link import LinkReport
from tests.daemon.config_help import GATEWAY as GATEWAY_ID
from tests.daemon.config_help import Installation, captured_log, lines_of
from tests.lorawan.builders import GATEWAY, device, heard, uplink
from tests.mosquitto import free_port

METER = device()
LIMIT = 20.0
"""Seconds that no step of these tests may take."""


class Endpoint:
    """A stand-in, and what was published to it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []
        self._came = asyncio.Event()

    def note(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, json.loads(payload)))
        self._came.set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What was published of one kind."""
        return [record for _, record in self.published if record["schema"] == f"lorabridge/{kind}/1"]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def _endpoint(installation: Installation, port: int, **changes: Any) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    policies: dict[str, Policy] = {installation.pki.gateway.fingerprint: gateway_policy(GATEWAY_ID)}
    settings = msgspec.structs.replace(StandInSettings(policies=policies, port=port), **changes)
    async with StandIn(settings, pki=installation.pki, observer=endpoint.note):
        yield endpoint


@asynccontextmanager
async def _bridge(
    installation: Installation, store_type: type[Store] = Store, **how: Any
) -> AsyncIterator[tuple[Bridge, Store]]:
    config = installation.config
    report = msgspec.structs.replace(config.report, stats_interval=Duration(1), security_interval=Duration(1))
    config = msgspec.structs.replace(config, report=report)
    store = await store_type.open(config.store)
    try:
        yield (
            Bridge(config, "fingerprint-1", load_checked(config)[0], store, **how),
            store,
        )
    finally:
        await store.close()


def _record(path: Path, *frames: bytes) -> Path:
    path.write_bytes(b"".join(build_line(heard(frame, number)) for number, frame in enumerate(frames)))
    return path


def test_a_bridge_ends_by_itself_when_its_recording_is_over_and_everything_is_acknowledged(tmp_path: Path) -> None:
    frames = [uplink(METER, number) for number in range(1, 40)]
    recording = _record(tmp_path / "roof.jsonl", *frames, frames[0], b"\x40")
    port = free_port()
    installation = Installation(tmp_path, METER, port=port, recording=recording)
    seen: list[Decision] = []
    ready: list[str] = []

    async def scenario() -> None:
        async with (
            _endpoint(installation, port) as endpoint,
            _bridge(installation, observer=seen.append) as (
                bridge,
                store,
            ),
        ):
            async with asyncio.timeout(LIMIT):
                await bridge.run(asyncio.Event(), on_ready=lambda: ready.append("ready"))
            assert ready == ["ready"]
            assert [record["fcnt32"] for record in endpoint.of("uplink")] == list(range(1, 40))
            assert [status["state"] for status in endpoint.of("status")] == ["online", "offline"]
            assert {status["config_fingerprint"] for status in endpoint.of("status")} == {"fingerprint-1"}
            assert {status["version"] for status in endpoint.of("status")} == {__version__}
            assert store.counters["outbox_records"] == 0
            assert bridge.health.stuck() == []

    with captured_log() as stream:
        asyncio.run(scenario())
        assert [decision.verdict for decision in seen] == [Verdict.ACCEPTED] * 39 + [Verdict.REPLAY, Verdict.MALFORMED]
        events = [line["event"] for line in lines_of(stream)]
        assert events.index("bridge started") < events.index("link online") < events.index("bridge stopped")
        assert [line["unsent"] for line in lines_of(stream, "bridge stopped")] == [0]


def test_what_a_recording_proves_waits_for_an_endpoint_that_comes_late(tmp_path: Path) -> None:
    port = free_port()
    recording = _record(tmp_path / "roof.jsonl", uplink(METER, 1), uplink(METER, 2))
    installation = Installation(tmp_path, METER, port=port, recording=recording)

    async def scenario() -> None:
        judged = asyncio.Event()
        async with _bridge(installation, observer=lambda _: judged.set()) as (bridge, store):
            running = asyncio.create_task(bridge.run(asyncio.Event()))
            async with asyncio.timeout(LIMIT):
                await judged.wait()
                assert store.counters["outbox_records"] >= 2
                assert bridge.answer()["healthy"] is False
                async with _endpoint(installation, port) as endpoint:
                    await running
            assert [record["fcnt32"] for record in endpoint.of("uplink")] == [1, 2]

    asyncio.run(scenario())


def _push(frame: bytes, number: int) -> bytes:
    """A PUSH_DATA datagram."""
    line = json.loads(build_line(heard(frame, number)))
    body = json.dumps({"rxpk": [line["rxpk"]]}).encode()
    return b"\x02" + number.to_bytes(2, "big") + b"\x00" + GATEWAY.to_wire()[::-1] + body


def test_a_stop_ends_the_bridge_in_time_and_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    installation = Installation(tmp_path, METER, port=free_port())  # and nobody listens there

    async def scenario() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        async with _bridge(installation) as (bridge, store):
            running = asyncio.create_task(bridge.run(stop, on_ready=ready.set))
            async with asyncio.timeout(LIMIT):
                await ready.wait()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forwarder:
                forwarder.connect(("127.0.0.1", installation.udp_port))
                forwarder.setblocking(False)
                for number in range(1, 31):
                    forwarder.send(_push(uplink(METER, number), number))
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(LIMIT):
                    for _ in range(30):
                        await loop.sock_recv(forwarder, 64)
            stop.set()
            async with asyncio.timeout(5.0):
                await running
            pending = [json.loads(record.payload) for record in await store.pending(0, 100)]
            assert [record["fcnt32"] for record in pending if "fcnt32" in record] == list(range(1, 31))

    asyncio.run(scenario())


class Failing(Store):
    """A store in which somebody else moved the session."""

    async def commit(self, batch: Batch) -> list[StoredRecord]:
        if batch.changes:
            raise StoreConflict("two writers")
        return await super().commit(batch)


def test_a_bug_ends_the_bridge_with_its_exception_and_the_link_in_order(tmp_path: Path) -> None:
    port = free_port()
    recording = _record(tmp_path / "roof.jsonl", uplink(METER, 1))
    installation = Installation(tmp_path, METER, port=port, recording=recording)

    async def scenario() -> None:
        async with _endpoint(installation, port), _bridge(installation, Failing) as (bridge, _):
            async with asyncio.timeout(LIMIT):
                with pytest.raises(StoreConflict):
                    await bridge.run(asyncio.Event())
            left = [task.get_name() for task in asyncio.all_tasks() if task.get_name() in ("link", "drain", "tick")]
            assert left == []

    with captured_log() as stream:
        asyncio.run(scenario())
        assert [line["unsent"] for line in lines_of(stream, "bridge stopped")] == [0]


class Untold(Store):
    """A store with a bug that only what is told about ourselves meets."""

    async def commit(self, batch: Batch) -> list[StoredRecord]:
        if any(record.kind is EventKind.GATEWAY_STATS for record in batch.records):
            raise RuntimeError("no statistics")
        return await super().commit(batch)


def test_no_task_of_the_bridge_dies_unnoticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "TICK", 0.05)
    installation = Installation(tmp_path, METER, port=free_port())

    async def scenario() -> None:
        async with _bridge(installation, Untold) as (bridge, _), asyncio.timeout(LIMIT):
            with pytest.raises(RuntimeError, match="no statistics"):
                await bridge.run(asyncio.Event())

    asyncio.run(scenario())


class Stuck(Store):
    """A disk that never comes back."""

    async def commit(self, batch: Batch) -> list[StoredRecord]:
        await asyncio.Event().wait()
        return await super().commit(batch)


def test_frames_that_cannot_be_committed_do_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "JUDGE_LIMIT", 0.05)
    recording = _record(tmp_path / "roof.jsonl", uplink(METER, 1))
    installation = Installation(tmp_path, METER, port=free_port(), recording=recording)

    async def scenario() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        async with _bridge(installation, Stuck) as (bridge, _), asyncio.timeout(LIMIT):
            running = asyncio.create_task(bridge.run(stop, on_ready=ready.set))
            await ready.wait()
            stop.set()
            await running

    with captured_log() as stream:
        asyncio.run(scenario())
        assert [line["level"] for line in lines_of(stream, _NOT_COMMITTED)] == ["error"]


_NOT_COMMITTED = "frames were heard that could not be committed before the stop"


def test_what_only_the_operator_can_mend_is_told_before_anything_runs(tmp_path: Path) -> None:
    installation = Installation(tmp_path, METER, recording=tmp_path / "missing.jsonl")

    async def scenario() -> None:
        async with _bridge(installation) as (bridge, _):
            with pytest.raises(ConfigError, match=r"missing\.jsonl"):
                await bridge.run(asyncio.Event())

    asyncio.run(scenario())


def test_sums_and_statistics_leave_by_themselves(tmp_path: Path) -> None:
    port = free_port()
    installation = Installation(tmp_path, METER, port=port)

    async def scenario() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        async with _endpoint(installation, port) as endpoint, _bridge(installation) as (bridge, _):
            running = asyncio.create_task(bridge.run(stop, on_ready=ready.set))
            async with asyncio.timeout(LIMIT):
                await ready.wait()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forwarder:
                forwarder.connect(("127.0.0.1", installation.udp_port))
                for number in range(1, 8):
                    forwarder.send(_push(uplink(METER, 1)[:-1] + b"\0", number))
            await endpoint.until(
                lambda: (
                    sum(record["count"] for record in endpoint.of("security")) == 7
                    and any(record["verdicts"] == {"bad_mic": 7} for record in endpoint.of("gateway_stats"))
                )
            )
            assert len(endpoint.of("security")) <= 2
            counters = endpoint.of("gateway_stats")[-1]["counters"]
            assert counters["radio_udp_push_data"] == 7
            assert {"outbox_records", "link_connections", "security_untold"} <= set(counters)
            stop.set()
            await running

    asyncio.run(scenario())


def test_the_answer_says_how_the_bridge_is_and_why_the_link_is_down(tmp_path: Path) -> None:
    port = free_port()
    installation = Installation(tmp_path, METER, port=port)

    async def scenario() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        async with _bridge(installation) as (bridge, _):
            before = bridge.answer()
            assert (before["link"], before["link_fault"], before["link_hint"]) == ("stopped", None, "")
            running = asyncio.create_task(bridge.run(stop, on_ready=ready.set))
            async with asyncio.timeout(LIMIT):
                await ready.wait()
                while not bridge.answer()["link_fault"]:  # noqa: ASYNC110  # what `lorabridge status` can do
                    await asyncio.sleep(0.001)
                down = bridge.answer()
                assert (down["healthy"], down["link_fault"]) == (False, "unreachable")
                assert down["link_hint"]
                async with _endpoint(installation, port) as endpoint:
                    await endpoint.until(lambda: bool(endpoint.of("status")))
                    up = bridge.answer()
                    assert (up["healthy"], up["link"], up["stuck"]) == (True, "online", [])
                    stop.set()
                    await running
        assert (up["version"], up["gateway_id"], up["devices"]) == (__version__, GATEWAY_ID, 1)
        assert up["counters"]["link_connections"] >= 2
        assert json.loads(json.dumps(up)) == up

    asyncio.run(scenario())


def test_reloaded_devices_are_heard_and_sessions_stay(tmp_path: Path) -> None:
    other = device(name="valve", dev_eui=EUI64(9), dev_addr=DevAddr(0x260B_9999))
    recording = _record(tmp_path / "roof.jsonl", uplink(METER, 5))
    again = _record(tmp_path / "again.jsonl", uplink(METER, 5), uplink(other, 1))
    port = free_port()
    installation = Installation(tmp_path, METER, recording=recording, port=port)
    seen: list[Verdict] = []

    async def play(*devices: Device) -> None:
        async with _bridge(installation, observer=lambda decision: seen.append(decision.verdict)) as (bridge, _):
            if devices:
                bridge.reload(devices)
                assert bridge.answer()["devices"] == len(devices)
            async with asyncio.timeout(LIMIT):
                await bridge.run(asyncio.Event())

    async def scenario() -> None:
        async with _endpoint(installation, port):
            await play()
            installation.write(installation.text.replace(str(recording), str(again)))
            await play(METER, other)

    with captured_log() as stream:
        asyncio.run(scenario())
        assert [line["devices"] for line in lines_of(stream, "devices reloaded")] == [2]
    assert seen == [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.ACCEPTED], "the session outlived restart and reload"


def test_a_device_whose_counter_is_not_checked_is_warned_of_at_the_start_and_at_each_reload(tmp_path: Path) -> None:
    careless = device(counter_policy=CounterPolicy.OFF)
    installation = Installation(tmp_path, careless)

    async def scenario() -> None:
        async with _bridge(installation) as (bridge, _):
            bridge.reload((careless, device(name="other", dev_eui=EUI64(3), dev_addr=DevAddr(0x2600_0001))))

    with captured_log() as stream:
        asyncio.run(scenario())
        warnings = [line for line in lines_of(stream) if "are not checked" in str(line["event"])]
        assert [(line["level"], line["device"]) for line in warnings] == [("warning", "meter")] * 2


def test_a_record_that_the_endpoint_would_hang_up_on_is_parked_and_told(tmp_path: Path) -> None:
    port = free_port()
    recording = _record(tmp_path / "roof.jsonl", uplink(METER, 1))
    installation = Installation(tmp_path, METER, port=port, recording=recording)
    too_large = Record(EventKind.UPLINK, METER.dev_eui, b"x" * (MAX_PAYLOAD + 1))

    async def scenario() -> None:
        async with _endpoint(installation, port) as endpoint, _bridge(installation) as (bridge, store):
            await store.commit(Batch(records=(too_large,)))
            async with asyncio.timeout(LIMIT):
                await bridge.run(asyncio.Event())
            assert [record["fcnt32"] for record in endpoint.of("uplink")] == [1]
            (told,) = endpoint.of("outbox")
            assert (told["event"], told["kind"], told["dev_eui"]) == ("record_parked", "uplink", str(METER.dev_eui))
            assert told["record"] == 1
            assert "131072" in told["reason"]

    with captured_log() as stream:
        asyncio.run(scenario())
        (line,) = lines_of(stream, "record parked: the endpoint will not have it")
        assert (line["level"], line["kind"]) == ("error", "uplink")


def test_what_the_outbox_lost_is_told_and_a_parked_record_tried_again_beside_a_running_bridge(tmp_path: Path) -> None:
    port = free_port()
    installation = Installation(tmp_path, METER, port=port)
    bounds = "outbox_max_records = 3"
    installation.write(installation.text.replace("[store]", f"[store]\n{bounds}"))
    path = Path(installation.config.store.path)

    async def scenario() -> None:
        async with _bridge(installation) as (bridge, store):
            mine = tuple(Record(EventKind.UPLINK, METER.dev_eui, b'{"schema":"mine","n":%d}' % n) for n in range(5))
            kept = await store.commit(Batch(records=mine))
            await store.park(kept[0].id, "by hand")
            stop = asyncio.Event()
            async with _endpoint(installation, port) as endpoint, asyncio.TaskGroup() as tasks:
                tasks.create_task(bridge.run(stop))
                await endpoint.until(lambda: bool(endpoint.of("outbox")))
                (told,) = endpoint.of("outbox")
                assert (told["event"], told["dropped"]["uplink"]) == ("records_dropped", 2)
                await asyncio.to_thread(inspection.retry, path, [kept[0].id])
                await endpoint.until(lambda: any(record.get("n") == 2 for _, record in endpoint.published))
                assert bridge.answer()["outbox_used"].endswith("%")
                assert (bridge.answer()["store"], bridge.answer()["store_hint"]) == ("ok", "")
                stop.set()

    asyncio.run(scenario())


def _devices(*addresses: int) -> list[Device]:
    return [
        device(name=f"d{number}", dev_eui=EUI64(number), dev_addr=DevAddr(address))
        for number, address in enumerate(addresses, 1)
    ]


def test_what_is_ours_on_the_air_is_what_the_operator_says_or_else_the_devices(tmp_path: Path) -> None:
    config = Installation(tmp_path).config
    derived = network_of(config, [*_devices(0x260B_1234, 0x2601_0001, 0x0000_0005), device(dev_addr=None)])
    assert derived.owns(DevAddr(0x27FF_FFFF)), "26… and 27… are one NetID of type 0: 0x13"
    assert derived.owns(DevAddr(0x0100_0000))
    assert not derived.owns(DevAddr(0x2800_0000))
    assert network_of(config, []).owns(DevAddr(0)) is False
    by_net_id = msgspec.structs.replace(config, network=NetworkSettings(net_ids=(NetID(0x24),)))
    assert network_of(by_net_id, _devices(0x260B_1234)).owns(DevAddr(0x4800_0001))
    assert not network_of(by_net_id, _devices(0x260B_1234)).owns(DevAddr(0x260B_1234))
    ranges = NetworkSettings(dev_addr_ranges=("26011000/20",), duplicate_window=Duration(3))
    by_range = network_of(msgspec.structs.replace(config, network=ranges), _devices(0x4800_0001))
    assert by_range.owns(DevAddr(0x2601_1FFF))
    assert not by_range.owns(DevAddr(0x2601_2000))
    assert not by_range.owns(DevAddr(0x4800_0001))
    assert by_range.duplicate_window_ns == 3_000_000_000


def test_each_type_of_settings_makes_its_own_source() -> None:
    assert isinstance(source_of(RecordingSettings(path=Path("/r"))), Recording)
    assert isinstance(source_of(SemtechUdpSettings()), SemtechUdp)
    assert isinstance(source_of(Sx1302Settings()), Sx1302)
    assert isinstance(source_of(ConcentratordSettings()), Concentratord)


def test_the_same_fault_is_told_once_and_not_again_with_its_retry_time() -> None:
    told = LinkLog()
    down = LinkReport(state=LinkState.WAITING, fault=LinkFault.UNREACHABLE, detail="no route")
    with captured_log() as stream:
        for report in (
            LinkReport(state=LinkState.CONNECTING),
            down,
            msgspec.structs.replace(down, retry_in=3.0),
            msgspec.structs.replace(down, state=LinkState.CONNECTING),
            msgspec.structs.replace(down, fault=LinkFault.TLS_CLOSED),
            msgspec.structs.replace(down, state=LinkState.ONLINE),
        ):
            told.tell(report)
    lines = lines_of(stream)
    assert [(line["event"], line.get("fault")) for line in lines] == [
        ("link connecting", None),
        ("link waiting", "unreachable"),
        ("link connecting", None),
        ("link waiting", "tls_closed"),
        ("link online", None),
    ]


def test_the_time_of_a_gateway_is_shown_whatever_its_clock_says() -> None:
    assert bridge_module._utc(1_700_000_000 * 10**9) == "2023-11-14T22:13:20Z"
    assert bridge_module._utc(-5) == "1970-01-01T00:00:00Z"
    assert bridge_module._utc(10**30) == "9999-12-31T23:59:59Z"
