"""Brokers that are not AWS IoT: what `[mqtt]` may say, and the real mosquitto with TLS and a password."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.events import EventKind
from lorabridge.settings import ByteSize, Duration, describe, read_table
from lorabridge.upstream import login, mqtt_settings, tls
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.inbound import Subscription
from lorabridge.upstream.link_settings import check_files
from lorabridge.upstream.login import read_login
from lorabridge.upstream.mqtt_settings import MqttSettings
from tests.mosquitto import Mosquitto, publishing, watching
from tests.pki import Authority, write_private
from tests.upstream.harness import DEVICE, GATEWAY, UPLINK_TOPIC, CommandInbox, running

HOST = "broker.example.net"
USER, PASSWORD = "roof", "correct horse battery staple"  # a password of a test
versions = pytest.mark.parametrize("version", ["3.1.1", "5"])


def read(text: str) -> tuple[MqttSettings | None, list[Problem]]:
    """The settings in a table, and everything that is wrong with it."""
    problems: list[Problem] = []
    table = {"host": HOST, "client_id": GATEWAY} | tomllib.loads(text)
    settings = read_table(MqttSettings, table, "file", problems, "mqtt")
    if settings is not None:
        problems += mqtt_settings.check_form(settings, GATEWAY, "file: mqtt")
    return settings, problems


class TestSettings:
    def test_a_host_and_a_client_id_are_enough_and_no_quota_of_aws_holds(self) -> None:
        settings, problems = read("")
        assert problems == []
        assert settings is not None
        assert (settings.address, settings.wants_tls, settings.alpn) == ((HOST, 8883), True, "")
        assert (settings.max_publishes_per_second, settings.max_bytes_per_second) == (0, 0)
        assert (settings.certificate_file, settings.credentials) == ("", ("", ""))
        assert settings.mqtt_version == "5", "with 3.1.1 a broker may throw away what it acknowledges"

    def test_every_setting_says_what_it_means_and_none_is_of_aws(self) -> None:
        for field in msgspec.structs.fields(MqttSettings):
            assert describe(field.type), field.name
            assert field.name not in ("shadow", "jobs")

    @pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "localhost", HOST])
    def test_a_broker_may_be_named_by_its_address(self, host: str) -> None:
        assert read(f'host = "{host}"')[1] == []

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ('host = "127.1"', "host"),
            ('host = "mqtts://broker"', "host"),
            ('host = ""', "host"),
            ('plain = true\nhost = "localhost"', "plain"),
            ('plain = true\nhost = "192.0.2.7"', "plain"),
            ("plain = true", "plain"),
            ('plain = true\nhost = "127.0.0.1"\nconnect_address = "192.0.2.7:1883"', "plain"),
            ('connect_address = "here"', "connect_address"),
            ('certificate_file = "/a"', "private_key_file"),
            ('private_key_file = "/a"', "private_key_file"),
            ('password_file = "/a"', "password_file"),
            ('keep_alive = "1s"', "keep_alive"),
            ("[topics]\nbasic_ingest_rule = 'rule'", "topics.basic_ingest_rule"),
            ("[topics]\nuplink = '/'", "topics.uplink"),
            ("port = 0", "port"),
            ("endpoint = 'x'", "endpoint"),
            ("shadow = true", "shadow"),
        ],
    )
    def test_a_wrong_setting_is_told_with_its_place(self, text: str, place: str) -> None:
        assert [problem.where for problem in read(text)[1]] == [f"file: mqtt.{place}"]

    @pytest.mark.parametrize(
        "text", ['host = "127.0.0.1"', 'host = "::1"', 'host = "broker"\nconnect_address = "127.0.0.1:1883"']
    )
    def test_plain_tcp_to_this_machine_is_allowed(self, text: str) -> None:
        settings, problems = read(f"plain = true\n{text}")
        assert problems == []
        assert settings is not None
        assert tls.context(settings) is None
        assert check_files(settings) == []

    def test_plain_tcp_to_another_machine_is_not_dialled_whatever_was_checked(self) -> None:
        settings = MqttSettings(endpoint="192.0.2.7", thing_name=GATEWAY, is_plain=True)
        with pytest.raises(ConfigError, match="not this machine"):
            tls.context(settings)


class TestPassword:
    @pytest.mark.parametrize("content", [PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\n"])
    def test_one_newline_at_the_end_is_the_editors(self, tmp_path: Path, content: str) -> None:
        path = write_private(tmp_path / "password", content.encode())
        found = read_login(USER, str(path))
        assert found is not None
        assert (found.user_name, found.reveal()) == (USER, PASSWORD)

    def test_a_user_may_have_no_password_and_nobody_may_have_none(self) -> None:
        found = read_login(USER, "")
        assert found is not None
        assert found.reveal() is None
        assert read_login("", "") is None

    @pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff", b"a\0b", b"x" * 65_536])
    def test_what_is_no_password_is_refused_and_not_repeated(self, tmp_path: Path, content: bytes) -> None:
        path = write_private(tmp_path / "password", content)
        (problem,) = login.check(USER, str(path))
        assert problem.where == str(path)
        assert "lines" not in problem.what

    def test_a_file_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        path = write_private(tmp_path / "password", PASSWORD.encode())
        path.chmod(0o640)
        (problem,) = login.check(USER, str(path))
        assert (problem.what, problem.hint) == ("can be read by others", f"chmod 600 {path}")

    def test_what_is_no_file_is_refused_and_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        assert [problem.what for problem in login.check(USER, str(tmp_path / "pipe"))] == ["is no ordinary file"]
        (problem,) = login.check(USER, str(tmp_path / "missing"))
        assert problem.what.startswith("cannot be read")

    def test_a_password_is_neither_printed_nor_pickled(self, tmp_path: Path) -> None:
        found = read_login(USER, str(write_private(tmp_path / "password", PASSWORD.encode())))
        assert PASSWORD not in f"{found!r} {found}"
        with pytest.raises(TypeError):
            pickle.dumps(found)


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[Mosquitto]:
    """Asks for a password, and denies a topic."""
    denied = f"lorabridge/{GATEWAY}/security"
    mosquitto = Mosquitto(tmp_path, authority.file, authority.server(HOST), deny=denied, user=(USER, PASSWORD))
    try:
        mosquitto.start()
        yield mosquitto
    finally:
        mosquitto.kill()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    return write_private(tmp_path / "password", f"{PASSWORD}\n".encode())


def broker_settings(authority: Authority, port: int, password_file: Path, **more: Any) -> MqttSettings:
    usual: dict[str, Any] = {
        "endpoint": HOST,
        "connect_address": f"127.0.0.1:{port}",
        "thing_name": GATEWAY,
        "ca_file": str(authority.file),
        "user_name": USER,
        "password_file": str(password_file),
        "connect_timeout": Duration(20),
        "puback_timeout": Duration(20),
        "backoff_base": Duration(0.02),
        "backoff_cap": Duration(0.1),
    }
    return MqttSettings(**usual | more)


@versions
@pytest.mark.parametrize("tls_max", ["1.2", "1.3"])
def test_records_and_commands_pass_a_broker_that_asks_for_a_password(
    broker: Mosquitto, authority: Authority, password_file: Path, version: str, tls_max: str
) -> None:
    settings = broker_settings(authority, broker.port, password_file, mqtt_version=version, tls_max=tls_max)

    async def deliver() -> None:
        inbox = CommandInbox()
        async with running(settings, commands=inbox) as upstream:
            await upstream.reported(lambda report: report.subscription is Subscription.ON)
            upstream.commit(300)
            await asyncio.to_thread(publisher.publish, f"lorabridge/{GATEWAY}/cmd/{DEVICE}", b"order")
            (order,) = await inbox.take(1)
            order.ack()
            await upstream.outbox.until_empty()

    with watching(broker.plain_port, "lorabridge/+/uplink/#") as watcher, publishing(broker.plain_port) as publisher:
        asyncio.run(deliver())
        assert watcher.take(300) == [(UPLINK_TOPIC, b"%d" % number) for number in range(1, 301)]


@versions
def test_a_wrong_password_has_its_name_and_is_in_no_log(
    broker: Mosquitto, authority: Authority, tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = write_private(tmp_path / "wrong", b"hunter2hunter2")

    async def fail() -> str:
        async with running(broker_settings(authority, broker.port, wrong, mqtt_version=version)) as upstream:
            upstream.commit(3)
            report = await upstream.reported(lambda report: report.fault is LinkFault.CONNECT_NOT_AUTHORIZED)
            assert upstream.outbox.finished == []
            return f"{report} {upstream.link.__dict__} {upstream.link.report.fault and upstream.link.report.fault.hint}"

    with caplog.at_level(logging.DEBUG):
        said = asyncio.run(fail())
    assert "password" in said
    assert "hunter2" not in said + caplog.text


def test_a_new_password_is_taken_over_and_a_wrong_one_is_given_up(
    broker: Mosquitto, authority: Authority, password_file: Path
) -> None:
    async def change() -> None:
        async with running(broker_settings(authority, broker.port, password_file)) as upstream:
            upstream.commit(1)
            await upstream.outbox.until_empty()
            await asyncio.to_thread(password_file.write_text, "a wrong one", encoding="utf-8")
            await upstream.until(lambda: bool(upstream.certificates))
            assert upstream.certificates == [LinkFault.CONNECT_NOT_AUTHORIZED]
            upstream.commit(1)
            await upstream.outbox.until_empty()
            assert upstream.link.report.state is LinkState.ONLINE

    asyncio.run(change())


@versions
def test_a_record_that_the_access_list_forbids_has_a_puback_of_mqtt_311_and_is_parked_with_5(
    broker: Mosquitto, authority: Authority, password_file: Path, version: str
) -> None:
    async def deliver() -> tuple[int, list[int]]:
        settings = broker_settings(authority, broker.port, password_file, mqtt_version=version)
        async with running(settings) as upstream:
            upstream.commit(1)
            upstream.commit(1, EventKind.SECURITY)
            upstream.commit(1)
            await upstream.outbox.until(lambda: len(upstream.outbox.rows) == len(upstream.outbox.parked))
            return len(upstream.outbox.finished), list(upstream.outbox.parked)

    assert asyncio.run(deliver()) == ((3, []) if version == "3.1.1" else (2, [2]))


def test_a_record_larger_than_the_broker_takes_is_parked(
    broker: Mosquitto, authority: Authority, password_file: Path
) -> None:
    async def deliver() -> None:
        settings = broker_settings(authority, broker.port, password_file, max_payload=ByteSize(1000))
        async with running(settings) as upstream:
            upstream.commit(1, size=1000)
            upstream.commit(1)
            await upstream.outbox.until(lambda: upstream.outbox.finished == [2] and bool(upstream.outbox.parked))
            assert "the endpoint takes 1000" in upstream.outbox.parked[1]

    asyncio.run(deliver())


def test_the_brokers_name_and_ca_are_checked(broker: Mosquitto, authority: Authority, password_file: Path) -> None:
    async def fail(fault: LinkFault, **more: Any) -> None:
        async with running(broker_settings(authority, broker.port, password_file, **more)) as upstream:
            await upstream.reported(lambda report: report.fault is fault)

    other = Authority(password_file.parent, "Another Root")
    asyncio.run(fail(LinkFault.SERVER_WRONG_NAME, endpoint="127.0.0.1"))
    asyncio.run(fail(LinkFault.SERVER_WRONG_NAME, endpoint="other.example.net"))
    asyncio.run(fail(LinkFault.SERVER_UNKNOWN_CA, ca_file=str(other.file)))


def test_a_plain_broker_on_this_machine_works_without_a_single_file(broker: Mosquitto) -> None:
    settings = MqttSettings(endpoint="127.0.0.1", port=broker.plain_port, thing_name=GATEWAY, is_plain=True)

    async def deliver() -> None:
        async with running(settings) as upstream:
            upstream.commit(100)
            await upstream.outbox.until_empty()

    asyncio.run(deliver())
