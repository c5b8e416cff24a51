"""The quotas of a connection, what MQTT 5 says when one is met, and what the front says when it ends a connection."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin import Happening, Refusal, gateway_policy, thing_policy
from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.broker_screen import BrokerScreen
from lorabridge.simulation.standin.mqtt_wire import Reason
from lorabridge.simulation.standin.quotas import Limits, Throughput
from lorabridge.simulation.standin.screen import ClientScreen
from lorabridge.simulation.standin.subscriptions import Subscriptions, matches
from tests.simulation.standin_help import GATEWAY, TIMEOUT, UPLINK, RawClient, paho, raw, running

CONNECT = b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4gw-1"
CONNECT_5 = b"\x10\x11\0\4MQTT\5\2\0\x3c\0\0\4gw-1"


def publish(packet_id: int, payload: bytes = b"x", mqtt_5: bool = False) -> bytes:
    return wire.build_publish(UPLINK, payload, packet_id, mqtt_5=mqtt_5)


def screen(mqtt_5: bool, **limits: int) -> ClientScreen:
    client = ClientScreen(gateway_policy(GATEWAY), None, Limits(**limits))
    client.screen(CONNECT_5 if mqtt_5 else CONNECT, 0)
    return client


def test_bytes_within_a_second_of_the_quota_pass_at_once_and_the_rest_at_its_rate() -> None:
    throughput = Throughput(1000)
    assert throughput.take(1000, 50.0) == 0
    assert throughput.take(500, 50.0) == pytest.approx(0.5)
    assert throughput.take(500, 50.5) == pytest.approx(0.5)
    assert throughput.take(1, 60.0) == 0
    assert Throughput(0).take(1 << 30, 0.0) == 0


def test_the_101st_publish_without_a_puback_is_not_taken_and_the_next_after_one_is() -> None:
    client = screen(mqtt_5=False, publishes_per_second=0)
    passed = client.screen(b"".join(publish(number) for number in range(1, 103)), 0)
    assert b"".join(passed.to_broker) == b"".join(publish(number) for number in range(1, 101))
    assert passed.ignored == [(Refusal.UNACKNOWLEDGED, UPLINK)] * 2
    assert passed.refused is None
    BrokerScreen(client).screen(wire.build_puback(1), 0)
    assert client.screen(publish(101), 0).to_broker == [publish(101)]


def test_a_publish_that_is_sent_again_with_its_packet_id_counts_once() -> None:
    client = screen(mqtt_5=False, publishes_per_second=0, unacknowledged=1)
    assert client.screen(publish(7) * 2, 0).to_broker == [publish(7) * 2]


def test_mqtt_5_disconnects_who_exceeds_its_receive_maximum() -> None:
    client = screen(mqtt_5=True, publishes_per_second=0, unacknowledged=1)
    passed = client.screen(publish(1, mqtt_5=True) + publish(2, mqtt_5=True), 0)
    assert passed.refused is not None
    assert passed.refused.refusal is Refusal.UNACKNOWLEDGED
    assert passed.to_client == [wire.build_disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)]


def test_mqtt_5_answers_a_publish_above_the_rate_with_quota_exceeded() -> None:
    client = screen(mqtt_5=True, publishes_per_second=1)
    passed = client.screen(publish(1, mqtt_5=True) + publish(2, mqtt_5=True), 0)
    assert passed.to_broker == [publish(1, mqtt_5=True)]
    assert passed.to_client == [wire.build_puback(2, Reason.QUOTA_EXCEEDED)]
    assert passed.refused is None


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (publish(1, mqtt_5=True).replace(b"lorabridge", b"x" * 10), Reason.NOT_AUTHORIZED),
        (wire.build_publish("a/" * 8, b"", 1, mqtt_5=True), Reason.TOPIC_NAME_INVALID),
        (wire.build_publish("a" * 257, b"", 1, mqtt_5=True), Reason.TOPIC_NAME_INVALID),
    ],
)
def test_mqtt_5_says_in_the_puback_why_a_publish_is_refused(packet: bytes, reason: Reason) -> None:
    passed = screen(mqtt_5=True).screen(packet, 0)
    assert passed.to_client == [wire.build_puback(1, reason)]
    assert passed.refused is None


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x36\5\0\1x\0\1", Reason.MALFORMED_PACKET),
        (CONNECT_5, Reason.PROTOCOL_ERROR),
        (wire.build_publish("elsewhere", b"", 0, mqtt_5=True), Reason.NOT_AUTHORIZED),
        (wire.build_publish("a" * 257, b"", 0, mqtt_5=True), Reason.TOPIC_NAME_INVALID),
        (b"\x30\x07\0\0\3\x23\0\x09x", Reason.TOPIC_ALIAS_INVALID),
        (b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (wire.build_publish(UPLINK, b"", 1, mqtt_5=True).replace(b"\x32", b"\x34", 1), Reason.QOS_NOT_SUPPORTED),
        (b"\x82\x08\0\1\2\x0b\1\0\0\0", Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED),
    ],
)
def test_mqtt_5_says_in_the_disconnect_why_it_ends(packet: bytes, reason: Reason) -> None:
    passed = screen(mqtt_5=True).screen(packet, 0)
    assert passed.refused is not None
    assert passed.to_client == [wire.build_disconnect(reason)]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal.SHUTTING_DOWN, 0x8B),
        (Refusal.KEEP_ALIVE, 0x8D),
        (Refusal.TAKEN_OVER, 0x8E),
        (Refusal.DISCONNECTED, 0x98),
        (Refusal.SUBSCRIPTIONS, 0x97),
    ],
)
def test_every_end_that_the_front_decides_has_its_reason_code(refusal: Refusal, reason: int) -> None:
    assert screen(mqtt_5=True).last_words(refusal) == [bytes([0xE0, 1, reason])]
    assert screen(mqtt_5=False).last_words(refusal) == []


def test_what_exceeds_the_throughput_is_delayed_and_all_of_it_arrives(pki: Pki) -> None:
    with running(pki, bytes_per_second=200_000) as started, paho(pki, started.standin.port) as gateway:
        gateway.ready()
        for _ in range(8):
            gateway.publish(UPLINK, bytes(40_000))
        for _ in range(8):
            gateway.acknowledged.get(timeout=TIMEOUT)
        started.happened(Happening.DELAYED)
        assert [len(payload) for _, payload in started.published] == [40_000] * 8


def test_a_client_that_is_not_read_for_its_throughput_is_not_taken_for_silent(pki: Pki) -> None:
    with (
        running(pki, bytes_per_second=15_000, shortest_keep_alive=2) as started,
        raw(pki, started.standin.port) as client,
    ):
        client.send(CONNECT.replace(b"\0\x3c", b"\0\2"))
        assert client.read(4) == b"\x20\2\0\0"
        client.send(publish(1, bytes(80_000)))
        assert client.read(4) == wire.build_puback(1)
        client.send(b"\xc0\0")
        assert client.read(2) == b"\xd0\0", "four seconds later"
        assert started.standin.counters[Refusal.KEEP_ALIVE.value] == 0


def test_what_a_service_says_counts_against_the_rate(pki: Pki) -> None:
    with (
        running(pki, policies={pki.gateway.fingerprint: thing_policy(GATEWAY)}, publishes_per_second=1) as started,
        paho(pki, started.standin.port) as gateway,
    ):
        gateway.ready().publish(f"$aws/things/{GATEWAY}/jobs/get", b"")
        started.ignored(Refusal.RATE)
        assert gateway.messages.empty()


def test_an_operator_ends_connections_in_good_order(pki: Pki) -> None:
    with running(pki) as started, paho(pki, started.standin.port) as gateway:
        gateway.ready()
        started.call(started.standin.disconnect)
        gateway.closed()
        started.refused(Refusal.DISCONNECTED)


@contextmanager
def silent_broker() -> Iterator[tuple[str, int]]:
    """It says CONNACK to MQTT 5 and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(1024)
                    peer.sendall(b"\x20\3\0\0\0")
                    while peer.recv(65536):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT)


def rest_of(client: RawClient) -> bytes:
    """Until the connection ends, however it does."""
    heard = b""
    try:
        while more := client.tls.recv(4096):
            heard += more
    except (ConnectionError, ssl.SSLError):
        pass
    return heard


def test_the_end_of_the_stand_in_is_told_to_mqtt_5(pki: Pki) -> None:
    with (
        silent_broker() as broker,
        running(pki, broker=broker) as started,
        raw(pki, started.standin.port) as client,
    ):
        client.send(CONNECT_5)
        assert client.read(2)[0] == 0x20
        started.stop()
        assert rest_of(client).endswith(wire.build_disconnect(Reason.SERVER_SHUTTING_DOWN))


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", False),
        ("#", "a", True),
        ("#", "$aws/a", False),
        ("+/a", "$aws/a", False),
        ("$aws/#", "$aws/a", True),
        ("a/b", "a/c", False),
    ],
)
def test_filters_cover_topics_as_aws_iot_documents(topic_filter: str, topic: str, covered: bool) -> None:
    assert matches(topic_filter, topic) is covered


def test_packet_ids_of_the_front_stay_in_their_half_and_are_acknowledged_once() -> None:
    subscriptions = Subscriptions()
    ids = [subscriptions.new_packet_id() for _ in range(0x8001)]
    assert min(ids) >= 0x8000
    assert subscriptions.acknowledged(ids[-1])
    assert not subscriptions.acknowledged(ids[-1])
    assert not subscriptions.acknowledged(1)
