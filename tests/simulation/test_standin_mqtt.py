"""paho-mqtt through the stand-in, with amqtt behind (MQTT 3.1.1) and with mosquitto behind (3.1.1 and 5)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes

from lorabridge.simulation.pki import Pair, Pki, new_ec_key
from lorabridge.simulation.standin import Happening, Policy, Refusal
from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.screen import MAX_PACKET, REASONS
from tests.mosquitto import Mosquitto, free_port, watching
from tests.pki import Authority
from tests.simulation.standin_help import (
    COMMANDS,
    ENDPOINT,
    GATEWAY,
    STATUS,
    TIMEOUT,
    UPLINK,
    Paho,
    Running,
    generous_policy,
    paho,
    properties,
    raw,
    running,
)

INGEST = f"$aws/rules/lorawan/{UPLINK}"
CONNECT = b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4gw-1"


@dataclass(frozen=True)
class Link:
    """A stand-in with one of the brokers behind, and how to talk through it."""

    running: Running
    mqtt_5: bool
    observer: Pair

    @property
    def pki(self) -> Pki:
        return self.running.pki

    @contextmanager
    def gateway(self, **how: Any) -> Iterator[Paho]:
        """Connected."""
        with paho(self.pki, self.running.standin.port, mqtt_5=self.mqtt_5, **how) as client:
            yield client.ready()

    @contextmanager
    def subscriber(self, topic_filter: str = "#") -> Iterator[Paho]:
        """Somebody else, who may subscribe to everything."""
        with paho(
            self.pki, self.running.standin.port, mqtt_5=self.mqtt_5, pair=self.observer, client_id="observer"
        ) as client:
            client.ready().client.subscribe(topic_filter, qos=1)
            assert not client.subscribed.get(timeout=TIMEOUT)[0].is_failure
            yield client

    def raw(self) -> Any:
        return raw(self.pki, self.running.standin.port)


@pytest.fixture(scope="module")
def observer(pki: Pki) -> Pair:
    return pki.devices.client("observer", new_ec_key(), "observer")


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("mosquitto")
    authority = Authority(folder)
    broker = Mosquitto(folder, authority.file, authority.server(ENDPOINT))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(params=["amqtt 3.1.1", "mosquitto 3.1.1", "mosquitto 5"])
def standin(request: pytest.FixtureRequest, pki: Pki, observer: Pair) -> Iterator[Running]:
    policies = {
        pki.gateway.fingerprint: generous_policy(),
        observer.fingerprint: Policy(client_id="observer", subscribe=("*",), receive=("*",)),
    }
    broker = None
    if request.param.startswith("mosquitto"):
        broker = ("127.0.0.1", request.getfixturevalue("mosquitto").plain_port)
    with running(pki, broker=broker, policies=policies) as started:
        yield started


@pytest.fixture
def link(request: pytest.FixtureRequest, standin: Running, observer: Pair) -> Link:
    return Link(standin, request.node.callspec.params["standin"].endswith(" 5"), observer)


def topic_with(slashes: int) -> str:
    return f"lorabridge/{GATEWAY}" + "/x" * (slashes - 1)


def payload_for(packet: int, topic: str, mqtt_5: bool) -> bytes:
    """As long as makes a QoS 1 publish of so many bytes."""
    return bytes(packet - 4 - 2 - len(topic) - 2 - mqtt_5)


def test_a_permitted_publish_is_delivered_once_and_acknowledged(link: Link) -> None:
    before = len(link.running.published)
    with link.subscriber(UPLINK) as subscriber, link.gateway() as gateway:
        for number in range(3):
            assert not gateway.acknowledgement(gateway.publish(UPLINK, b"%d" % number)).is_failure
        got = [subscriber.messages.get(timeout=TIMEOUT) for _ in range(3)]
        assert [(message.topic, message.payload) for message in got] == [(UPLINK, b"%d" % i) for i in range(3)]
        assert subscriber.messages.empty()
    assert link.running.published[before:] == [(UPLINK, b"%d" % i) for i in range(3)]


def test_a_burst_comes_through_whole_and_in_order(link: Link) -> None:
    before = len(link.running.published)
    with link.gateway() as gateway:
        for number in range(1000):
            gateway.publish(UPLINK, b"%d" % number)
        for _ in range(1000):
            gateway.acknowledged.get(timeout=TIMEOUT)
    assert [payload for _, payload in link.running.published[before:]] == [b"%d" % i for i in range(1000)]


def test_the_port_that_stands_for_443_carries_mqtt(link: Link) -> None:
    port = link.running.standin.alpn_port
    with paho(link.pki, port, mqtt_5=link.mqtt_5, alpn="x-amzn-mqtt-ca") as gateway:
        gateway.ready().acknowledgement(gateway.publish(UPLINK))


def refused(link: Link, gateway: Paho, refusal: Refusal, *, puback: bool = False) -> None:
    """The connection is closed for `refusal`; with MQTT 5 and `puback` the publish is refused instead."""
    if link.mqtt_5 and puback:
        reason = REASONS.get(refusal, wire.Reason.NOT_AUTHORIZED)
        assert gateway.acknowledged.get(timeout=TIMEOUT)[1].value == reason
        link.running.ignored(refusal)
    else:
        gateway.closed()
        link.running.refused(refusal)
        assert gateway.acknowledged.empty()


def test_an_unauthorised_publish_closes_the_connection_and_reaches_nobody(link: Link) -> None:
    before = len(link.running.published)
    with link.gateway() as gateway:
        gateway.publish("lorabridge/gw-2/uplink")
        refused(link, gateway, Refusal.PUBLISH, puback=True)
    with link.gateway() as gateway:
        gateway.acknowledgement(gateway.publish(UPLINK))
    assert [topic for topic, _ in link.running.published[before:]] == [UPLINK]


def test_an_unauthorised_qos_0_publish_closes_the_connection(link: Link) -> None:
    with link.gateway() as gateway:
        gateway.publish("lorabridge/gw-2/uplink", qos=0)
        gateway.closed()
        link.running.refused(Refusal.PUBLISH)


def test_another_client_id_than_the_certificates_is_refused(link: Link) -> None:
    with paho(link.pki, link.running.standin.port, client_id="gw-2", mqtt_5=link.mqtt_5) as gateway:
        gateway.closed()
        assert link.running.refused(Refusal.CLIENT_ID).detail == "gw-2"
        if link.mqtt_5:
            assert gateway.connected.get(timeout=TIMEOUT).value == wire.Reason.NOT_AUTHORIZED
        else:
            assert gateway.connected.empty()


def test_a_packet_of_128_kib_passes_and_one_byte_more_closes(link: Link) -> None:
    with link.gateway() as gateway:
        largest = payload_for(MAX_PACKET, UPLINK, link.mqtt_5)
        assert not gateway.acknowledgement(gateway.publish(UPLINK, largest)).is_failure
        assert link.running.published[-1] == (UPLINK, largest)
        gateway.publish(UPLINK, largest + b"x")
        gateway.closed()
        assert link.running.refused(Refusal.OVERSIZE).detail == f"{MAX_PACKET + 1} bytes"


@pytest.mark.parametrize("prefix", ["", "$aws/rules/lorawan/"])
def test_7_slashes_pass_and_8_close_the_prefix_of_basic_ingest_not_counted(link: Link, prefix: str) -> None:
    with link.gateway() as gateway:
        assert not gateway.acknowledgement(gateway.publish(prefix + topic_with(7))).is_failure
        gateway.publish(prefix + topic_with(8))
        refused(link, gateway, Refusal.TOPIC_SLASHES, puback=True)


@pytest.mark.parametrize("prefix", ["", "$aws/rules/lorawan/"])
def test_a_topic_of_256_bytes_passes_and_257_close(link: Link, prefix: str) -> None:
    topic = f"lorabridge/{GATEWAY}/".ljust(256, "x")
    with link.gateway() as gateway:
        assert not gateway.acknowledgement(gateway.publish(prefix + topic)).is_failure
        gateway.publish(prefix + topic + "x")
        refused(link, gateway, Refusal.TOPIC_LENGTH, puback=True)


def test_qos_2_is_not_answered(link: Link) -> None:
    with link.gateway() as gateway:
        gateway.publish(UPLINK, b"two", qos=2)
        if link.mqtt_5:
            assert gateway.closed().value == wire.Reason.QOS_NOT_SUPPORTED
            return
        link.running.ignored(Refusal.QOS_2)
        later = gateway.publish(UPLINK, b"one")
        gateway.acknowledgement(later)
        assert (UPLINK, b"two") not in link.running.published


def test_retain_needs_a_right_of_its_own(link: Link) -> None:
    with link.gateway() as gateway:
        assert not gateway.acknowledgement(gateway.publish(STATUS, b"up", retain=True)).is_failure
        with link.subscriber(STATUS) as subscriber:
            assert subscriber.messages.get(timeout=TIMEOUT).retain
        gateway.publish(UPLINK, retain=True)
        refused(link, gateway, Refusal.RETAIN, puback=True)


def test_basic_ingest_is_acknowledged_and_seen_by_no_subscriber(link: Link) -> None:
    with link.subscriber() as subscriber, link.gateway() as gateway:
        assert not gateway.acknowledgement(gateway.publish(INGEST, b"ingested")).is_failure
        assert link.running.published[-1] == (INGEST, b"ingested")
        gateway.acknowledgement(gateway.publish(UPLINK, b"published"))
        while (message := subscriber.messages.get(timeout=TIMEOUT)).payload != b"published":
            assert message.retain


def test_nobody_can_subscribe_to_basic_ingest(link: Link) -> None:
    with link.gateway() as gateway:
        gateway.client.subscribe(INGEST)
        if link.mqtt_5:
            assert gateway.subscribed.get(timeout=TIMEOUT)[0].value == wire.Reason.NOT_AUTHORIZED
        else:
            gateway.closed()
            link.running.refused(Refusal.SUBSCRIBE)


def test_a_granted_subscription_receives_and_ends_with_unsubscribe(link: Link) -> None:
    command = COMMANDS.replace("#", "reboot")
    with link.gateway() as gateway:
        gateway.client.subscribe(COMMANDS, qos=1)
        assert not gateway.subscribed.get(timeout=TIMEOUT)[0].is_failure
        gateway.acknowledgement(gateway.publish(command, b"now"))
        while (message := gateway.messages.get(timeout=TIMEOUT)).retain:
            pass  # amqtt greets every client with what is retained
        assert message.payload == b"now"
        gateway.client.unsubscribe(COMMANDS)
        gateway.acknowledgement(gateway.publish(command, b"later"))
        assert gateway.messages.empty()


def test_8_filters_pass_and_9_close(link: Link) -> None:
    with link.gateway() as gateway:
        gateway.client.subscribe([(f"lorabridge/{i}", 1) for i in range(8)])
        assert len(gateway.subscribed.get(timeout=TIMEOUT)) == 8
        gateway.client.subscribe([(f"lorabridge/{i}", 1) for i in range(9)])
        refused(link, gateway, Refusal.FILTERS)


def test_50_subscriptions_pass_and_51_close(link: Link) -> None:
    with link.gateway() as gateway:
        for first in range(0, 50, 5):
            gateway.client.subscribe([(f"lorabridge/{i}", 1) for i in range(first, first + 5)])
            gateway.subscribed.get(timeout=TIMEOUT)
        gateway.client.subscribe("lorabridge/one-more")
        refused(link, gateway, Refusal.SUBSCRIPTIONS)


def test_a_last_will_is_published_when_the_connection_is_cut_and_not_after_a_disconnect(link: Link) -> None:
    with link.subscriber(STATUS) as subscriber:
        with link.gateway(will=(STATUS, False)) as gateway:
            gateway.acknowledgement(gateway.publish(STATUS, b"up"))
        link.running.happened(Happening.DISCONNECTED)
        with link.gateway(will=(STATUS, False)) as gateway:
            gateway.acknowledgement(gateway.publish(STATUS, b"again"))
            gateway.vanish()
            link.running.happened(Happening.LOST)
            got = []
            while b"gone" not in got:
                message = subscriber.messages.get(timeout=TIMEOUT)
                got += [] if message.retain else [message.payload]
        assert got == [b"up", b"again", b"gone"]


@pytest.mark.parametrize("will", [(INGEST, False), (UPLINK, True), ("lorabridge/gw-2/status", False)])
def test_a_last_will_needs_the_rights_of_its_publish(link: Link, will: tuple[str, bool]) -> None:
    with paho(link.pki, link.running.standin.port, mqtt_5=link.mqtt_5, will=will) as gateway:
        gateway.closed()
        link.running.refused(Refusal.LAST_WILL)


def test_a_second_connection_with_the_same_client_id_takes_over(link: Link) -> None:
    with link.gateway() as first, link.gateway() as second:
        reason = first.closed()
        assert not link.mqtt_5 or reason.value == wire.Reason.SESSION_TAKEN_OVER
        link.running.refused(Refusal.TAKEN_OVER)
        second.acknowledgement(second.publish(UPLINK))


def test_a_client_that_falls_silent_is_dropped_after_one_and_a_half_keep_alives(pki: Pki) -> None:
    with running(pki, shortest_keep_alive=1) as started, raw(pki, started.standin.port) as client:
        client.send(CONNECT.replace(b"\0\x3c", b"\0\1"))
        assert client.rest() == b"\x20\2\0\0"
        started.refused(Refusal.KEEP_ALIVE)


@pytest.mark.parametrize(
    ("packets", "refusal"),
    [
        ([CONNECT, CONNECT], Refusal.UNEXPECTED_PACKET),
        ([b"\xc0\0"], Refusal.UNEXPECTED_PACKET),
        ([b"\x30\3\0\1x"], Refusal.UNEXPECTED_PACKET),
        ([CONNECT, b"\x62\2\0\1"], Refusal.UNEXPECTED_PACKET),
        ([CONNECT, b"\xf0\0"], Refusal.UNEXPECTED_PACKET),
        ([CONNECT, b"\x30\xff\xff\xff\xff\x01"], Refusal.MALFORMED_PACKET),
        ([CONNECT, b"\x30\2\0\1"], Refusal.MALFORMED_PACKET),
        ([CONNECT, b"\x30\1\0"], Refusal.MALFORMED_PACKET),
        ([CONNECT, b"\x36\5\0\1x\0\1"], Refusal.MALFORMED_PACKET),
        ([CONNECT, b"\x30\3\0\1\xff"], Refusal.MALFORMED_PACKET),
        ([CONNECT, b"\x30\5\0\3a/+"], Refusal.MALFORMED_PACKET),
        ([CONNECT, b"\x82\2\0\1"], Refusal.MALFORMED_PACKET),
        ([b"\x10\3\0\4M"], Refusal.MALFORMED_PACKET),
        ([b"\x10\x12\0\6MQIsdp\3\2\0\x3c\0\4gw-1"], Refusal.PROTOCOL_VERSION),
        ([CONNECT.replace(b"\4\2\0", b"\4\0\0")], Refusal.PERSISTENT_SESSION),
    ],
)
def test_what_no_client_may_send_closes_the_connection(
    standin: Running, packets: list[bytes], refusal: Refusal
) -> None:
    with raw(standin.pki, standin.standin.port) as client:
        client.send(*packets)
        client.rest()
        standin.refused(refusal)


class TestFaults:
    """What tests do to the stand-in. Each begins and ends with a link that works."""

    @pytest.fixture(autouse=True)
    def _works_before_and_after(self, link: Link) -> Iterator[None]:
        self._check(link)
        yield
        self._check(link)

    def _check(self, link: Link) -> None:
        with link.gateway() as gateway:
            gateway.acknowledgement(gateway.publish(UPLINK))

    def test_cut_drops_every_connection_at_once(self, link: Link) -> None:
        with link.gateway() as gateway, raw(link.pki, link.running.standin.port) as other:
            link.running.call(link.running.standin.cut)
            gateway.closed()
            assert other.rest() == b""
            link.running.happened(Happening.CUT)

    def test_refuse_takes_no_connection_and_keeps_those_that_are_there(self, link: Link) -> None:
        standin = link.running.standin
        with link.gateway() as gateway:
            link.running.call(lambda: standin.refuse(True))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", standin.port), timeout=TIMEOUT)
            gateway.acknowledgement(gateway.publish(UPLINK))
            link.running.call(lambda: standin.refuse(False))

    def test_refuse_can_change_its_mind_at_once(self, link: Link) -> None:
        standin = link.running.standin

        def waver() -> None:
            for _ in range(3):
                standin.refuse(True)
                standin.refuse(False)

        link.running.call(waver)

    def test_stall_answers_nobody_until_it_ends(self, link: Link) -> None:
        standin = link.running.standin
        before = len(link.running.published)
        with link.gateway() as gateway:
            link.running.call(lambda: standin.stall(True))
            mid = gateway.publish(UPLINK, b"stalled")
            with socket.create_connection(("127.0.0.1", standin.port), timeout=0.2) as late:
                late.sendall(b"no TLS, which gets an alert at once when anybody listens")
                with pytest.raises(TimeoutError):
                    late.recv(1)
            assert gateway.acknowledged.empty()
            assert len(link.running.published) == before
            link.running.call(lambda: standin.stall(False))
            gateway.acknowledgement(mid)


class TestMosquitto:
    """What needs MQTT 5, or a broker that can be stopped."""

    @pytest.fixture
    def mosquitto(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
        folder = tmp_path_factory.mktemp("mosquitto")
        authority = Authority(folder)
        broker = Mosquitto(folder, authority.file, authority.server(ENDPOINT))
        broker.start()
        yield broker
        broker.kill()

    @pytest.fixture
    def standin(self, pki: Pki, mosquitto: Mosquitto) -> Iterator[Running]:
        with running(pki, broker=("127.0.0.1", mosquitto.plain_port)) as started:
            yield started

    def test_connack_states_the_limits_of_aws_iot(self, standin: Running) -> None:
        with paho(standin.pki, standin.standin.port, mqtt_5=True, keep_alive=10) as gateway:
            gateway.ready()
        assert gateway.limit("MaximumQoS") == 1
        assert gateway.limit("MaximumPacketSize") == MAX_PACKET
        assert gateway.limit("ServerKeepAlive") == 30
        assert gateway.limit("ReceiveMaximum") <= 100
        assert gateway.limit("TopicAliasMaximum") == 8

    def test_a_topic_alias_stands_for_its_topic(self, standin: Running) -> None:
        alias = properties(PacketTypes.PUBLISH, TopicAlias=8)
        with paho(standin.pki, standin.standin.port, mqtt_5=True) as gateway:
            gateway.ready().client.publish(UPLINK, b"1", qos=1, properties=alias)
            gateway.client.publish("", b"2", qos=1, properties=alias)
            standin.until(lambda: standin.standin.delivered == 2)
        assert standin.published == [(UPLINK, b"1"), (UPLINK, b"2")]

    @pytest.mark.parametrize(("number", "topic"), [(9, UPLINK), (1, "")])
    def test_a_topic_alias_out_of_range_or_unknown_closes(self, standin: Running, number: int, topic: str) -> None:
        alias = properties(PacketTypes.PUBLISH, TopicAlias=number)
        with paho(standin.pki, standin.standin.port, mqtt_5=True) as gateway:
            gateway.ready().client.publish(topic, b"1", qos=1, properties=alias)
            assert gateway.closed().value == wire.Reason.TOPIC_ALIAS_INVALID

    def test_a_subscription_identifier_closes(self, standin: Running) -> None:
        identifier = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=300)
        with paho(standin.pki, standin.standin.port, mqtt_5=True) as gateway:
            gateway.ready().client.subscribe(COMMANDS, properties=identifier)
            assert gateway.closed().value == wire.Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED

    def test_a_broker_that_crashes_ends_the_connection(self, standin: Running, mosquitto: Mosquitto) -> None:
        with paho(standin.pki, standin.standin.port) as gateway:
            gateway.ready()
            mosquitto.kill()
            gateway.closed()
            standin.happened(Happening.BROKER_CLOSED)

    def test_without_a_broker_the_connection_ends_before_connack(self, pki: Pki) -> None:
        with running(pki, broker=("127.0.0.1", free_port())) as started, paho(pki, started.standin.port) as gateway:
            gateway.closed()
            started.refused(Refusal.NO_BROKER)
            assert gateway.connected.empty()

    def test_a_stopped_broker_holds_up_nothing_but_the_publishes(self, pki: Pki) -> None:
        """A listener that never reads: what piles up is bounded, and the stand-in still ends."""
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            port = int(deaf.getsockname()[1])
            with running(pki, broker=("127.0.0.1", port)) as started, raw(pki, started.standin.port) as client:
                client.tls.settimeout(0.5)
                packet = b"\x30" + b"\x80\x80\x04" + b"\0" + bytes([len(UPLINK)]) + UPLINK.encode()
                packet += bytes(65536 - (len(packet) - 4))
                with pytest.raises(TimeoutError):
                    client.send(CONNECT, *[packet] * 1000)

    def test_what_was_permitted_before_a_refusal_still_goes_out(self, standin: Running, mosquitto: Mosquitto) -> None:
        publish = b"\x30" + bytes([2 + len(UPLINK) + 1]) + b"\0" + bytes([len(UPLINK)]) + UPLINK.encode() + b"1"
        with watching(mosquitto.plain_port) as watcher, raw(standin.pki, standin.standin.port) as client:
            client.send(CONNECT, publish, b"\x30\5\0\1x12")
            client.rest()
            assert watcher.take(1) == [(UPLINK, b"1")]


def test_ending_a_connection_that_its_client_has_just_closed_is_no_fault(standin: Running) -> None:
    with raw(standin.pki, standin.standin.port) as client:
        client.send(CONNECT)
        client.read(4)
        (connection,) = standin.standin._clients.values()

        def close_and_end() -> None:
            client.close()
            connection.end(Refusal.TAKEN_OVER)  # before the loop can have noticed: the last words meet a reset

        standin.call(close_and_end)
        standin.until(lambda: standin.standin.connections == 0)
