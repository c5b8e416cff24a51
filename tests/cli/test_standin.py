"""`lorabridge standin`: the process, with a plain MQTT client at it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lorabridge.cli import standin
from lorabridge.cli.main import EXIT_CONFIG, main
from lorabridge.errors import Problem
from lorabridge.settings import read_table
from lorabridge.simulation.pki import Pair
from lorabridge.simulation.standin import ClientHello, Event, Happening, Refusal
from lorabridge.upstream.aws_settings import AwsIotSettings, check_form
from tests.simulation.standin_help import TIMEOUT, Things, paho_at
from tests.upstream.harness import running as upstream

STATUS = "lorabridge/gw-1/status"


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    ports = [
        word for name in ("port", "alpn-port", "websocket-port", "credentials-port") for word in (f"--{name}", "0")
    ]
    command = [sys.executable, "-m", "lorabridge.cli.main", "standin", str(folder), *ports]
    process = subprocess.Popen(
        [*command, "--endpoint", "localhost", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(TIMEOUT) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()
            process.communicate()


def told(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next line of JSON of this kind."""
    assert process.stdout is not None
    for line in process.stdout:
        if (fields := json.loads(line))["kind"] == kind:
            return dict(fields)
    pytest.fail(f"it ended before it told of {kind}")


def pair(folder: Path, name: str) -> Pair:
    return Pair(folder / f"{name}.pem", folder / f"{name}.key", "")


@pytest.mark.slow
def test_what_it_prints_is_what_a_client_needs_and_what_arrives_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    with serving(folder, "--json", "--template", "gateways") as process:
        settings = told(process, "listening")["aws_iot"]
        ca_file, port = Path(settings["ca_file"]), int(settings["connect_address"].rpartition(":")[2])
        assert (settings["endpoint"], settings["thing_name"], settings["certificate_warning"]) == (
            "localhost",
            "gw-1",
            "3600s",
        )
        gateway = Pair(Path(settings["certificate_file"]), Path(settings["private_key_file"]), "")
        with paho_at(ca_file, port, gateway, "localhost") as client:
            client.ready().publish(STATUS, b'{"state":"online"}')
            assert told(process, "connected")["detail"] == "gw-1 MQTT 3.1.1"
            assert told(process, "publish")["payload"] == {"state": "online"}
            client.publish(STATUS, b"\xff\x00")
            assert told(process, "publish")["payload_hex"] == "ff00"
            things = Things(client)
            things.subscribe("$aws/things/gw-1/shadow/update/delta")
            with paho_at(ca_file, port, pair(folder, "cloud"), "localhost", client_id="console") as cloud:
                cloud.ready().publish("$aws/things/gw-1/shadow/update", b'{"state":{"desired":{"a":1}}}')
                assert things.next()[1]["state"] == {"a": 1}
        with paho_at(ca_file, port, pair(folder, "claim"), "localhost", client_id="new") as claim:
            things = Things(claim.ready())
            things.subscribe("$aws/certificates/create/json/+")
            assert things.ask("$aws/certificates/create/json", {})[0].endswith("/accepted")


@pytest.mark.slow
def test_the_lines_for_a_websocket_are_what_the_bridge_needs(tmp_path: Path) -> None:
    with serving(tmp_path / "pki", "--json", "--websocket", "--credentials-last", "900") as process:
        problems: list[Problem] = []
        link = read_table(AwsIotSettings, told(process, "listening")["aws_iot"], "aws_iot", problems)
        assert link is not None, problems
        assert (link.transport, link.websocket.region) == ("websocket", "us-east-1")
        assert check_form(link, "gw-1") == []

        async def deliver() -> None:
            async with upstream(link) as bridge:
                bridge.commit()
                await bridge.outbox.until_empty()

        asyncio.run(deliver())
        assert told(process, "lent")["detail"].startswith("ASIA")
        assert told(process, "connected")["detail"] == "gw-1 MQTT 3.1.1"


@pytest.mark.slow
def test_the_lines_for_a_websocket_are_a_table_of_their_own(tmp_path: Path) -> None:
    with serving(tmp_path / "pki", "--websocket") as process:
        assert process.stdout is not None
        text = ""
        while "[aws_iot.websocket]" not in text or not text.endswith("\n\n"):
            text += process.stdout.readline()
    table = tomllib.loads(text)["aws_iot"]
    assert table["transport"] == "websocket"
    assert table["websocket"]["credentials_endpoint"] == "credentials.localhost"


@pytest.mark.slow
def test_faults_are_as_asked_for_and_text_is_for_people(tmp_path: Path) -> None:
    with serving(tmp_path, "--cut-every", "0.3", "--deny-subscribe", "--just-in-time") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(8)]
        assert lines[0] == "[aws_iot]"
        port = int(lines[2].rpartition(":")[2].strip('"'))
        for _ in range(2):
            with paho_at(
                tmp_path / "test-root-of-the-endpoint.pem", port, pair(tmp_path, "gateway"), "localhost"
            ) as one:
                one.closed()
        seen = ""
        while "cut" not in seen:
            seen += process.stdout.readline()
        assert "registered" in seen
        assert "connected" in seen


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.key").write_text("mine")
    assert main(["standin", str(tmp_path)]) == EXIT_CONFIG
    assert "not the stand-in's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.key"]


def test_only_what_an_earlier_run_made_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.key").write_text("of the last run")
    (tmp_path / "precious.key").write_text("mine")
    (tmp_path / standin.MARKER).write_text("old.key\n../elsewhere\n")
    assert main(["standin", str(tmp_path)]) == EXIT_CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["precious.key"]


@pytest.mark.parametrize("broker", ["1883", ":1883", "host:port"])
def test_a_broker_is_host_and_port(broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["standin", str(tmp_path / "pki"), "--broker", broker]) == EXIT_CONFIG
    assert "is not host:port" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_with_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = [
            "--port",
            str(taken.getsockname()[1]),
            "--broker",
            "[::1]:1883",
            "--alpn-port",
            "0",
            "--websocket-port",
            "0",
        ]
        assert main(["standin", str(tmp_path / "pki"), *options]) == EXIT_CONFIG
    assert "--port, --alpn-port, --websocket-port and --credentials-port" in capsys.readouterr().err


def test_what_a_peer_sent_is_shown_without_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    show = standin._Text()
    show.publish("a\x1b[2J", b"\x07" * 500)
    hello = ClientHello(versions=(), suites=(), extensions=(), server_name=b"\x1b]0;")
    show.event(Event(at=0, connection=1, kind=Happening.CLIENT_HELLO, hello=hello))
    show.event(Event(at=0, connection=0, kind=Happening.REFUSED, refusal=Refusal.TLS, detail="\x9b"))
    shown = capsys.readouterr().out
    assert all(character.isprintable() for character in shown.replace("\n", ""))
    assert "(500 bytes)" in shown
    assert "refused" in shown
