"""Frames over a real socket, through the real bridge and real TLS, into a real broker."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dpkt
import jsonschema
import pytest

from lorabridge.lorawan.crypto import PreparedKey, decrypt_join_accept, derive_session_keys_1_0
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.frame import JoinAccept, JoinRequest, parse
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, Direction, MacVersion
from lorabridge.simulation.cast import device_table
from lorabridge.simulation.scenario import DEVICE_FILE, RECORDINGS
from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import ROOT, Site, installed, wait_until
from tests.mosquitto import Watcher, watching
from tests.simulation.standin_help import GATEWAY
from tests.vector_files import SHARED

RECORDED_TRAFFIC = SHARED / "pcap" / "normal_traffic.pcap"
APP_KEY = AES128Key.parse("e0500f4e614a81fe29341e17a7eb8e1b")
"""Of the device in that recording, published with it."""


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((ROOT / "docs" / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def received(watcher: Watcher) -> list[tuple[str, dict[str, Any]]]:
    """(kind, record) of all that the broker gave out, each held to its published schema."""
    records = []
    while not watcher.messages.empty():
        message = watcher.messages.get()
        kind = message.topic.split("/")[2]
        record = json.loads(message.payload)
        validator(kind).validate(record)
        assert message.topic.startswith(f"lorabridge/{GATEWAY}/"), message.topic
        records.append((kind, record))
    return records


def shipped_lines() -> Iterator[tuple[str, dict[str, Any]]]:
    """(text of the rxpk object, whole line) of all shipped recordings."""
    for path in sorted(RECORDINGS.glob("*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            yield text.partition('"rxpk":')[2].rpartition(',"expect":')[0], json.loads(text)


def reception(record: dict[str, Any]) -> tuple[str, int, str | None]:
    """Which report of which gateway a record came from, and of which device it is."""
    rx = record["rx"][0]
    return rx["gateway_eui"], rx["tmst"], record["device"]["name"]


def test_every_acceptable_frame_of_the_recordings_arrives_once(site: Site) -> None:
    lines = list(shipped_lines())
    devices = (RECORDINGS / DEVICE_FILE).read_text(encoding="utf-8")
    with watching(site.broker.plain_port) as watcher, installed(site, devices) as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            for gateway in sorted({line["gateway_eui"] for _, line in lines}):
                forwarder.pull(gateway_eui=gateway)
            for rxpk, line in lines:
                forwarder.push([rxpk.encode()], gateway_eui=line["gateway_eui"])
            stat = b'{"time":"2026-03-02 08:00:00 GMT","rxnb":2,"rxok":2,"rxfw":2,"ackr":100.0,"dwnb":0,"txnb":0}'
            forwarder.push([], stat=stat)
            forwarder.settle()
        installation.wait_judged(len(lines))
        installation.wait_drained()
        status = installation.status()
        bridge.stop()
        assert [state["state"] for state in statuses(watcher, 2)] == ["online", "offline"]
        records = received(watcher)
    uplinks = [record for kind, record in records if kind == "uplink"]
    accepted = [
        (line["gateway_eui"], line["rxpk"]["tmst"], line["expect"]["device"])
        for _, line in lines
        if line["expect"]["verdict"] == "accepted"
    ]
    assert Counter(map(reception, uplinks)) == Counter(accepted)
    assert len({record["id"] for record in uplinks}) == len(accepted)
    sealed = {record["device"]["name"] for record in uplinks if record["sealed"]}
    assert sealed == {name for _, _, name in accepted if name.endswith("meter-sealed")}
    assert status["verdicts"]["accepted"] == len(accepted)
    assert status["counters"]["radio_udp_statuses"] == 1
    wanted = Counter(line["expect"]["verdict"] for _, line in lines)
    for verdict in ("bad_mic", "foreign", "malformed", "radio_crc", "unknown_device", "counter_reset", "counter_gap"):
        assert status["verdicts"][verdict] == wanted[verdict], verdict
    told = {record["verdict"] for kind, record in records if kind == "security"}
    assert {"bad_mic", "malformed", "unknown_device", "counter_reset", "replay"} <= told


def statuses(watcher: Watcher, count: int) -> list[dict[str, Any]]:
    """The next so many statuses; everything else stays for `received`."""
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        found[:] = [json.loads(m.payload) for m in list(watcher.messages.queue) if m.topic.endswith("/status")]
        return len(found) >= count

    wait_until(arrived, f"{count} statuses")
    return found


def test_birth_clean_stop_and_last_will_are_told_apart(site: Site) -> None:
    devices = (RECORDINGS / DEVICE_FILE).read_text(encoding="utf-8")
    with watching(site.broker.plain_port, f"lorabridge/{GATEWAY}/status") as watcher:
        with installed(site, devices) as installation:
            bridge = installation.start()
            statuses(watcher, 1)
            bridge.stop()
            statuses(watcher, 2)
            bridge = installation.start()
            statuses(watcher, 3)
            bridge.kill()
            statuses(watcher, 4)
        told = [record for _, record in received(watcher)]
    assert [record["state"] for record in told] == ["online", "offline", "online", "offline"]
    assert told[1]["detail"] != told[3]["detail"]
    assert len({record["id"] for record in told}) == 4


class Recorded:
    """A recording of the UDP protocol, taken apart without our codecs."""

    def __init__(self, path: Path) -> None:
        self.push_data: list[bytes] = []
        self.up: list[bytes] = []
        """PHYPayloads, in order."""
        self.down: list[bytes] = []
        with path.open("rb") as file:
            for _, packet in dpkt.pcap.Reader(file):
                self._read(bytes(dpkt.ethernet.Ethernet(packet).data.data.data))

    def _read(self, datagram: bytes) -> None:
        if datagram[3] == 0:
            self.push_data.append(datagram)
            self.up += [_phy_payload(rxpk) for rxpk in json.loads(datagram[12:]).get("rxpk", [])]
        elif datagram[3] == 3:
            self.down.append(_phy_payload(json.loads(datagram[4:])["txpk"]))

    def devices(self) -> list[Device]:
        """One ABP device for each join that was answered."""
        requests = [frame for phy in self.up if isinstance(frame := parse(phy, direction=Direction.UP), JoinRequest)]
        accepts = [frame for phy in self.down if isinstance(frame := parse(phy, direction=Direction.DOWN), JoinAccept)]
        return [
            self._device(number, *exchange) for number, exchange in enumerate(zip(requests, accepts, strict=True), 1)
        ]

    @staticmethod
    def _device(number: int, request: JoinRequest, accept: JoinAccept) -> Device:
        body = decrypt_join_accept(PreparedKey(APP_KEY), accept)
        return Device(
            name=f"recorded-{number}",
            dev_eui=EUI64(0x0200_0000_0000_0000 + number),
            mac_version=MacVersion.V1_0_3,
            activation=Activation.ABP,
            dev_addr=body.dev_addr,
            session_keys=derive_session_keys_1_0(APP_KEY, body.join_nonce, body.net_id, request.dev_nonce),
        )


def _phy_payload(pk: dict[str, Any]) -> bytes:
    return base64.b64decode(pk["data"])


@pytest.mark.skipif(not RECORDED_TRAFFIC.exists(), reason="recordings of others are not shipped")
def test_datagrams_that_another_program_made_are_delivered_once_each(site: Site) -> None:
    recorded = Recorded(RECORDED_TRAFFIC)
    devices = recorded.devices()
    by_address = {device.dev_addr: device.name for device in devices}
    data_up = [phy for phy in recorded.up if phy[0] >> 5 in (2, 4)]
    expected = [(by_address[DevAddr.from_wire(phy[1:5])], int.from_bytes(phy[6:8], "little")) for phy in data_up]
    assert len(expected) == len(set(expected)) > 50
    with installed(site, "".join(map(device_table, devices)), net_id="") as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            for datagram in recorded.push_data:
                forwarder.replay(datagram)
                forwarder.settle()  # its tokens come again
        installation.wait_judged(len(recorded.up))
        installation.wait_drained()
        bridge.stop()
        uplinks = site.payloads("uplink")
    # Those that were heard before the link was up may be overtaken by those after.
    assert sorted((record["device"]["name"], record["fcnt32"]) for record in uplinks) == sorted(expected)
    assert not any(record["sealed"] for record in uplinks)
