"""The whole bridge, and the ways out that are not MQTT to AWS IoT."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.service import load_checked
from lorabridge.daemon.way_out import WayOut
from lorabridge.radio.rxpk_lines import build_line
from lorabridge.store.database import Store
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.https_status import BY_HTTPS
from lorabridge.upstream.link import LinkReport
from tests.daemon.config_help import ENDPOINT, GATEWAY, Installation, captured_log, lines_of
from tests.lorawan.builders import device, heard, uplink
from tests.mosquitto import Mosquitto, free_port, watching
from tests.pki import Pair
from tests.upstream.https_endpoint import https_endpoint

METER = device()
FRAMES = 20
PASSWORD = "7b1f-no-such-secret"  # a password of a test


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """With a recording of so many frames, and the endpoint nowhere."""
    recording = tmp_path / "roof.jsonl"
    recording.write_bytes(b"".join(build_line(heard(uplink(METER, n), n)) for n in range(1, FRAMES + 1)))
    return Installation(tmp_path, METER, port=free_port(), recording=recording)


def run_to_the_end(installation: Installation) -> dict[str, object]:
    """Play the recording until every record is acknowledged; what `lorabridge status` said just before."""

    async def play() -> dict[str, object]:
        config = installation.config
        store = await Store.open(config.store)
        try:
            bridge = Bridge(config, "fingerprint-1", load_checked(config)[0], store)
            async with asyncio.timeout(120):
                await bridge.run(asyncio.Event())
            assert store.counters["outbox_records"] == 0
            return bridge.answer()
        finally:
            await store.close()

    return asyncio.run(play())


def server_context(installation: Installation) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = installation.pki.server_ecdsa
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(installation.pki.devices.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_with_mqtt_blocked_everything_leaves_by_https_and_the_log_says_that_commands_do_not_arrive(
    installation: Installation,
) -> None:
    with https_endpoint(server_context(installation)) as endpoint, captured_log() as stream:
        https = f'fallback = "https"\n[aws_iot.https]\nafter = 2\nconnect_address = "127.0.0.1:{endpoint.port}"\n'
        installation.write(installation.text.replace("[report]", f"{https}[report]"))
        answer = run_to_the_end(installation)
        assert [line["level"] for line in lines_of(stream, "records leave by HTTPS, commands do not arrive")] == [
            "warning"
        ]
    uplinks = [json.loads(payload) for topic, payload in endpoint.taken if "/uplink/" in topic]
    assert sorted(record["fcnt32"] for record in uplinks) == list(range(1, FRAMES + 1))
    assert (answer["way_out"], answer["https_fault"], answer["healthy"]) == ("https", None, False)
    counters = answer["counters"]
    assert isinstance(counters, dict)
    assert counters["https_acknowledged"] == len(endpoint.taken)


def test_each_turn_is_a_line_of_the_log_and_the_status_says_which_way_is_in_use(installation: Installation) -> None:
    installation.write(
        installation.text.replace("[report]", 'fallback = "https"\n[aws_iot.https]\nafter = 1\n[report]')
    )
    settings = installation.config.aws_iot
    assert settings is not None

    async def turn() -> None:
        link = AwsIot(settings, GATEWAY, status=lambda *_: b"", rng=random.Random(1))
        way_out = WayOut(settings, link, random.Random(1))
        assert way_out.facts()["way_out"] == "mqtt"
        for _ in range(2):
            way_out.note(LinkReport(state=LinkState.CONNECTING))
            way_out.note(LinkReport(state=LinkState.WAITING, fault=LinkFault.TLS_CLOSED))
            assert way_out.facts()["way_out"] == "https"
            way_out.note(LinkReport(state=LinkState.ONLINE))
            assert way_out.facts()["way_out"] == "mqtt"

    with captured_log() as stream:
        asyncio.run(turn())
        told = [line["event"] for line in lines_of(stream)]
    assert told == ["records leave by HTTPS, commands do not arrive", "records leave by MQTT again"] * 2


@pytest.mark.parametrize("answer", [200, 403])
def test_the_status_says_that_records_leave_by_https_or_the_log_why_it_does_not(
    installation: Installation, answer: int
) -> None:
    async def turn(port: int, until: Callable[[], bool]) -> None:
        https = f'fallback = "https"\n[aws_iot.https]\nafter = 1\nconnect_address = "127.0.0.1:{port}"\n[report]'
        installation.write(installation.text.replace("[report]", https))
        settings = installation.config.aws_iot
        assert settings is not None
        link = AwsIot(settings, GATEWAY, status=lambda *said: "|".join(said).encode(), rng=random.Random(1))
        way_out = WayOut(settings, link, random.Random(1), will_within=0.0)
        running = asyncio.create_task(way_out.run())
        try:
            await asyncio.sleep(0)
            way_out.note(LinkReport(state=LinkState.CONNECTING))
            way_out.note(LinkReport(state=LinkState.WAITING, fault=LinkFault.UNREACHABLE))
            async with asyncio.timeout(60):
                while not until():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await way_out.stop(60.0)
        finally:
            running.cancel()

    with https_endpoint(server_context(installation), lambda _topic: answer) as endpoint, captured_log() as stream:

        def refusals() -> list[dict[str, object]]:
            return list(lines_of(stream, "status not published by HTTPS"))

        asyncio.run(turn(endpoint.port, lambda: bool(endpoint.taken or refusals())))
        told = refusals()
    status = f"lorabridge/{GATEWAY}/status"
    if answer == 200:
        assert endpoint.taken == [(status, f"online|{BY_HTTPS}".encode()), (status, b"offline|stopped")]
        assert told == []
    else:
        assert endpoint.asked == [status]
        assert [line["fault"] for line in told] == ["publish_refused"]


@pytest.fixture
def broker(installation: Installation, tmp_path: Path) -> Iterator[Mosquitto]:
    pair = installation.pki.server_ecdsa
    server = Pair(pair.certificate, pair.key)
    mosquitto = Mosquitto(tmp_path, installation.pki.ca_file, server, user=("roof", PASSWORD))
    try:
        mosquitto.start()
        yield mosquitto
    finally:
        mosquitto.kill()


def test_a_bridge_works_with_a_broker_that_asks_for_a_password_and_never_says_it(
    installation: Installation, broker: Mosquitto
) -> None:
    password = installation.folder / "password"
    password.touch(mode=0o600)
    password.write_text(f"{PASSWORD}\n", encoding="utf-8")
    before, _, after = installation.text.partition("[aws_iot]")
    installation.write(
        f'{before}[mqtt]\nhost = "{ENDPOINT}"\nconnect_address = "127.0.0.1:{broker.port}"\nclient_id = "{GATEWAY}"\n'
        f'ca_file = "{installation.pki.ca_file}"\nuser_name = "roof"\npassword_file = "{password}"\n'
        f"{after[after.index('[report]') :]}"
    )
    with watching(broker.plain_port, "lorabridge/+/uplink/#") as watcher, captured_log("debug") as stream:
        answer = run_to_the_end(installation)
        arrived = [json.loads(payload)["fcnt32"] for _, payload in watcher.take(FRAMES)]
    assert arrived == list(range(1, FRAMES + 1))
    assert (answer["way_out"], answer["link_fault"]) == ("mqtt", None)
    assert PASSWORD not in f"{stream.getvalue()}{answer}{installation.config}"
