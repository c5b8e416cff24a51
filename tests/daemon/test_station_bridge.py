"""The whole bridge with Basics Stations: a recorded conversation again, and a forwarder beside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.service import load_checked
from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.verdict import Verdict
from lorabridge.store.database import Store
from tests.daemon.config_help import Installation
from tests.daemon.radio_peer import forwarder
from tests.lorawan.builders import GATEWAY, device, uplink
from tests.mosquitto import free_port
from tests.radio.station_peer import EUI, ID6, VERSION, updf_of
from tests.radio.station_replay import RecordedStation, Row, recording

METER = device()
LIMIT = 20.0
"""Seconds that no step of these tests may take."""


class Site:
    """A bridge that runs, where its stations connect, and what it decided."""

    bridge: Bridge

    def __init__(self, store: Store, udp_port: int, port: int) -> None:
        self.udp_port = udp_port
        self.port = port
        self._store = store
        self.decided: list[Decision] = []
        self._came = asyncio.Event()

    def note(self, decision: Decision) -> None:
        self.decided.append(decision)
        self._came.set()

    @property
    def verdicts(self) -> list[tuple[Verdict, str]]:
        """(verdict, source) of every frame so far."""
        return [(one.verdict, one.reception.source) for one in self.decided]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                self._came.clear()
                await self._came.wait()

    async def records(self, kind: str) -> list[dict[str, Any]]:
        """What waits for the endpoint, of one kind."""
        found = [json.loads(record.payload) for record in await self._store.pending(0, 100)]
        return [record for record in found if record["schema"] == f"lorabridge/{kind}/1"]


@asynccontextmanager
async def running(installation: Installation, port: int, *, more: str = "") -> AsyncIterator[Site]:
    """The bridge, with stations at `port` beside its forwarders; nobody is at the endpoint."""
    installation.write(
        f'{installation.text}[[radio]]\ntype = "basics_station"\nregion = "EU868"\nport = {port}\n{more}'
    )
    config = installation.config
    store = await Store.open(config.store)
    try:
        devices, _ = load_checked(config)
        site = Site(store, installation.udp_port, port)
        site.bridge = Bridge(config, "fingerprint-1", devices, store, observer=site.note)
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(site.bridge.run(stop, on_ready=ready.set))
        try:
            async with asyncio.timeout(LIMIT):
                await ready.wait()
            yield site
        finally:
            stop.set()
            await task
    finally:
        await store.close()


@asynccontextmanager
async def station(port: int) -> AsyncIterator[ClientConnection]:
    """A station that has its configuration."""
    async with connect(f"ws://127.0.0.1:{port}/router/{ID6}", compression=None) as opened:
        await opened.send(json.dumps(VERSION))
        assert json.loads(await opened.recv())["msgtype"] == "router_config"
        yield opened


_OF_THE_CLOCK = {"gpstime", "MuxTime"}


def _comparable(message: dict[str, Any], port: int) -> dict[str, Any]:
    """A message of the bridge without what is another each time: the time, and the port of this run."""
    fields = {name: value for name, value in message.items() if name not in _OF_THE_CLOCK}
    if "uri" in fields:
        fields["uri"] = fields["uri"].replace(f":{port}/", ":1887/")
    return fields


@pytest.mark.slow
def test_a_recorded_station_is_told_today_what_the_real_one_was_told(tmp_path: Path) -> None:
    about, rows = recording()
    installation = Installation(tmp_path, port=free_port())
    network = f'[network]\nnet_ids = ["{about["net_id"]}"]\n'
    installation.text = installation.text.replace("[network]\n", network)
    device_of_the_recording = {name: value for name, value in about["device"].items() if name != "note"}
    fields = "".join(f'{name} = "{value}"\n' for name, value in device_of_the_recording.items())
    file = installation.devices / "all.toml"
    file.write_text(f'[[device]]\nname = "recorded"\nactivation = "otaa"\n{fields}', encoding="utf-8")

    async def replay(site: Site) -> None:
        stations: dict[int, RecordedStation] = {}
        try:
            for row in rows:
                await _step(site, row, stations)
        finally:
            for last in stations.values():
                await last.close()

    async def scenario() -> None:
        async with running(installation, free_port()) as site:
            async with asyncio.timeout(3 * LIMIT):
                await replay(site)
            await site.until(lambda: len(site.decided) == 7)
            expected = [Verdict.JOIN_REQUEST, *[Verdict.ACCEPTED] * 4, Verdict.PROPRIETARY, Verdict.ACCEPTED]
            assert [one.verdict for one in site.decided] == expected
            assert {str(one.reception.gateway_eui) for one in site.decided} == {about["gateway_eui"]}
            heard = [row.content for row in rows if row.sender == "station" and b"upinfo" in bytes(row.message)]
            for decision, message in zip(site.decided, heard, strict=True):
                reception, info = decision.reception, message["upinfo"]
                assert reception.tmst == info["xtime"] % 2**32
                assert reception.gps_time_ms == info["gpstime"] // 1000
                assert (reception.antennas[0].rssi_dbm, reception.antennas[0].snr_db) == (info["rssi"], info["snr"])
                assert reception.frequency_hz == message["Freq"]
            async with asyncio.timeout(LIMIT):
                while site.bridge.counters["radio_station_dntxed"] < 5:  # noqa: ASYNC110  # counters have no event
                    await asyncio.sleep(0.005)
            counters = site.bridge.counters
            assert counters["radio_station_transmitted"] == 6  # one of them found its channel busy
            assert [counters[f"radio_station_fault_{name}"] for name in ("bad_json", "bad_value")] == [0, 0]
            assert [record["fcnt32"] for record in await site.records("uplink")] == list(range(5))

    asyncio.run(scenario())


async def _step(site: Site, row: Row, stations: dict[int, RecordedStation]) -> None:
    """One line of the recording: said again, or compared with what the bridge says."""
    if row.request:
        for before in stations.values():
            await before.close()
        stations.clear()
        stations[row.connection] = await RecordedStation.open(site.port, row.request)
    elif row.sender == "station":
        stations[row.connection].say(bytes(row.message))
    else:
        told = await stations[row.connection].told()
        assert _comparable(told, site.port) == _comparable(row.content, site.port)
        assert set(told) == set(row.content)


@pytest.mark.parametrize("station_first", [True, False])
def test_a_frame_heard_by_a_station_and_a_forwarder_is_one_accepted_and_one_duplicate(
    tmp_path: Path, station_first: bool
) -> None:
    installation = Installation(tmp_path, METER, port=free_port())
    frame = uplink(METER, 1)
    sources = ["station", "udp"] if station_first else ["udp", "station"]
    gateways = {"station": str(EUI), "udp": str(GATEWAY)}

    async def scenario() -> None:
        async with (
            running(installation, free_port()) as site,
            forwarder(site.udp_port) as udp,
            station(site.port) as opened,
        ):
            for number, source in enumerate(sources, 1):
                if source == "udp":
                    await udp.hear(frame, snr=-3.5)
                else:
                    await opened.send(updf_of(frame))
                await site.until(lambda number=number: len(site.decided) == number)  # type: ignore[misc]
            assert site.verdicts == [(Verdict.ACCEPTED, sources[0]), (Verdict.DUPLICATE, sources[1])]
            (record,) = await site.records("uplink")
            (copy,) = await site.records("uplink_copy")
            assert record["fcnt32"] == copy["fcnt32"] == 1
            for told, source in zip((record, copy), sources, strict=True):
                (rx,) = told.get("rx", (told,))
                assert (rx["gateway_eui"], rx["source"]) == (gateways[source], source)
                assert rx["antennas"][0]["snr_db"] == (-3.5 if source == "udp" else 7.25)

    asyncio.run(scenario())


def test_a_source_that_cannot_start_stops_no_other_and_comes_when_it_can(tmp_path: Path) -> None:
    installation = Installation(tmp_path, METER, port=free_port())

    async def scenario() -> None:
        with contextlib.ExitStack() as taking:
            taken = taking.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = taken.getsockname()[1]
            async with running(installation, port) as site, forwarder(site.udp_port) as udp:
                assert site.bridge.counters["radio_station_failures"] >= 1
                await udp.hear(uplink(METER, 1))
                await site.until(lambda: site.verdicts == [(Verdict.ACCEPTED, "udp")])
                taking.close()
                async with asyncio.timeout(LIMIT):
                    while True:
                        with contextlib.suppress(OSError):
                            async with station(port) as opened:
                                await opened.send(updf_of(uplink(METER, 2)))
                                await site.until(lambda: len(site.decided) == 2)
                                break
                        await asyncio.sleep(0.05)
                assert site.verdicts[1] == (Verdict.ACCEPTED, "station")

    asyncio.run(scenario())


def test_a_bridge_does_not_wait_for_the_radios_that_it_has_not(tmp_path: Path) -> None:
    installation = Installation(tmp_path, METER)
    script = (
        "import sys; from pathlib import Path; from lorabridge.daemon.assembly import source_of\n"
        "from lorabridge.daemon.config import load\n"
        f"[source_of(one) for one in load(Path({str(installation.path)!r}))[0].radios]\n"
        "others = ('basics_station.source', 'concentratord.source', 'sx1302.source', 'serial_port')\n"
        "loaded = [name for name in others if f'lorabridge.radio.{name}' in sys.modules]\n"
        "sys.exit(', '.join([*loaded, *({'websockets', 'serial'} & set(sys.modules))]) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
