"""The stand-in's parts without a socket: the same answers however the stream is cut, and no surprise from noise."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.simulation.standin import Policy, Refusal, gateway_policy
from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.broker_screen import BrokerScreen
from lorabridge.simulation.standin.hello import HelloReader, MalformedHello
from lorabridge.simulation.standin.policy import filter_refusal, topic_right
from lorabridge.simulation.standin.quotas import Limits
from lorabridge.simulation.standin.screen import ClientScreen
from tests.simulation.standin_help import GATEWAY, STATUS, UPLINK

POLICY = gateway_policy(GATEWAY)
COMMAND = f"lorabridge/{GATEWAY}/cmd/70b3d57ed0000001"
INGEST = f"$aws/rules/lorawan/{UPLINK}"


def connect(client_id: str = GATEWAY, keep_alive: int = 60, level: int = 4) -> bytes:
    name = client_id.encode()
    body = b"\0\4MQTT" + bytes([level, 2]) + keep_alive.to_bytes(2, "big") + (b"\0" if level == 5 else b"")
    return wire.build_packet(0x10, body + len(name).to_bytes(2, "big") + name)


def publish(topic: str, payload: bytes = b"x", packet_id: int = 0, retain: bool = False) -> bytes:
    name = topic.encode()
    identifier = packet_id.to_bytes(2, "big") if packet_id else b""
    first = 0x30 | (0x02 if packet_id else 0) | retain
    return wire.build_packet(first, len(name).to_bytes(2, "big") + name + identifier + payload)


def screen(limits: Limits = Limits(), policy: Policy = POLICY) -> ClientScreen:  # noqa: B008  # a frozen value
    return ClientScreen(policy, None, limits)


def to_client(broker: BrokerScreen, data: bytes, now: float = 0) -> bytes:
    """What a client gets of what the broker says."""
    return b"".join(broker.screen(data, now).to_client)


def fed(client: ClientScreen, pieces: list[bytes]) -> tuple[bytes, bytes, Refusal | None]:
    """What goes to the broker, what to the client, and the refusal."""
    to_broker = to_client = b""
    for piece in pieces:
        passed = client.screen(piece, 0)
        to_broker += b"".join(passed.to_broker)
        to_client += b"".join(passed.to_client)
        if passed.refused is not None:
            return to_broker, to_client, passed.refused.refusal
    return to_broker, to_client, None


PACKETS = st.sampled_from(
    [
        publish(UPLINK),
        publish(UPLINK, b"y" * 300, packet_id=7),
        publish(STATUS, packet_id=8, retain=True),
        publish(INGEST, packet_id=9),
        publish(UPLINK, retain=True),
        publish("elsewhere"),
        b"\xc0\0",
        b"\x34\x0b\0\7" + b"a" * 7 + b"\0\1",
        connect(),
        b"\xe0\0",
    ]
)


@given(packets=st.lists(PACKETS, max_size=8), cuts=st.lists(st.integers(0, 3000), max_size=20))
def test_the_answer_does_not_depend_on_how_the_stream_is_cut(packets: list[bytes], cuts: list[int]) -> None:
    stream = connect() + b"".join(packets)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[first:last] for first, last in pairwise(bounds)]
    assert fed(screen(), pieces) == fed(screen(), [stream])


@given(st.binary(max_size=300))
def test_noise_after_connect_passes_or_is_refused_and_raises_nothing(noise: bytes) -> None:
    for level in (4, 5):
        fed(screen(), [connect(level=level), noise])


@given(st.binary(max_size=200))
def test_noise_in_place_of_connect_reaches_no_broker(noise: bytes) -> None:
    to_broker, _, _ = fed(screen(), [noise])
    assert to_broker == b""


@given(st.binary(max_size=200))
def test_noise_in_a_body_of_each_packet_type_raises_nothing(noise: bytes) -> None:
    for first in range(0x00, 0x100, 0x02):
        fed(screen(), [connect(level=5), wire.build_packet(first, noise)])
    fed(screen(), [wire.build_packet(0x10, b"\0\4MQTT\5" + noise)])


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_a_malformed_hello_or_an_unfinished_one(noise: bytes, framed: bool) -> None:
    wire_bytes = b"\x16\3\1" + (len(noise) + 4).to_bytes(2, "big") + b"\1\0" + len(noise).to_bytes(2, "big") + noise
    try:
        HelloReader().feed(wire_bytes if framed else noise)
    except MalformedHello:
        return


def test_publishes_beyond_the_quota_of_a_second_are_discarded_without_an_answer() -> None:
    client = screen(Limits(publishes_per_second=3))
    client.screen(connect(), 0)
    passed = client.screen(publish(UPLINK, packet_id=1) * 5, 10.2)
    assert passed.to_broker == [publish(UPLINK, packet_id=1) * 3]
    assert passed.ignored == [(Refusal.RATE, UPLINK)]
    assert passed.refused is None
    assert client.screen(publish(UPLINK, packet_id=2), 10.9).to_broker == []
    assert client.screen(publish(UPLINK, packet_id=3), 11.0).to_broker == [publish(UPLINK, packet_id=3)]


@pytest.mark.parametrize(("asked", "held_to"), [(10, 30), (30, 30), (60, 60), (1200, 1200), (5000, 1200), (0, 1200)])
def test_the_keep_alive_lies_between_30_and_1200_seconds(asked: int, held_to: int) -> None:
    client = screen()
    passed = client.screen(connect(keep_alive=asked), 0)
    assert client.keep_alive == held_to
    assert passed.to_broker == [connect(keep_alive=0)]  # the front watches it, not the broker


def test_any_number_of_topics_is_judged_in_bounded_memory() -> None:
    client = screen()
    client.screen(connect(), 0)
    for number in range(10_000):
        assert client.screen(publish(f"lorabridge/{GATEWAY}/{number}"), 0).refused is None
    assert len(client._rights) <= 4096


def test_a_publish_that_the_broker_of_mqtt_5_refuses_is_not_delivered() -> None:
    seen: list[tuple[str, bytes]] = []
    client = ClientScreen(POLICY, lambda *delivered: seen.append(delivered), Limits())
    client.screen(connect(), 0)
    client.screen(publish(UPLINK, b"1", packet_id=1) + publish(UPLINK, b"2", packet_id=2), 0)
    assert seen == []
    refused, taken = wire.build_puback(1, 0x97), wire.build_puback(2)
    assert to_client(BrokerScreen(client), refused + taken) == refused + taken
    assert seen == [(UPLINK, b"2")]
    assert client.delivered == 1


def test_that_nobody_subscribes_to_a_topic_is_not_told() -> None:
    client = screen()
    client.screen(connect(level=5), 0)
    assert to_client(BrokerScreen(client), wire.build_puback(1, 0x10)) == wire.build_puback(1)
    assert client.delivered == 1


@given(cut=st.integers(0, 20))
def test_packets_of_the_broker_pass_whole(cut: int) -> None:
    client = screen()
    client.screen(connect(), 0)
    stream = b"\x20\2\0\0" + wire.build_puback(1) + publish(COMMAND) + b"\xd0\0"
    broker = BrokerScreen(client)
    assert to_client(broker, stream[:cut]) + to_client(broker, stream[cut:]) == stream


def test_a_message_without_the_right_to_receive_it_goes_no_further_and_the_broker_gets_its_puback() -> None:
    client = screen()
    client.screen(connect(), 0)
    granted, denied = publish(COMMAND, packet_id=1), publish(STATUS, packet_id=2)
    passed = BrokerScreen(client).screen(b"\x20\2\0\0" + denied + granted + denied, 0)
    assert b"".join(passed.to_client) == b"\x20\2\0\0" + granted
    assert b"".join(passed.to_broker) == wire.build_puback(2) * 2
    assert passed.ignored == [(Refusal.RECEIVE, STATUS)] * 2


def test_messages_to_the_client_count_against_the_same_quota_as_its_own() -> None:
    client = screen(Limits(publishes_per_second=3))
    client.screen(connect() + publish(UPLINK) * 2, 0)
    broker = BrokerScreen(client)
    passed = broker.screen(publish(COMMAND, packet_id=1) + publish(COMMAND, packet_id=2), 0.5)
    assert b"".join(passed.to_client) == publish(COMMAND, packet_id=1)
    assert b"".join(passed.to_broker) == wire.build_puback(2)
    assert passed.ignored == [(Refusal.RATE, COMMAND)]
    assert client.screen(publish(UPLINK), 0.9).to_broker == []
    assert to_client(broker, publish(COMMAND), 1.0) == publish(COMMAND)


def test_a_topic_alias_of_the_broker_stands_for_its_topic() -> None:
    def aliased(topic: str, alias: int = 1) -> bytes:
        name = topic.encode()
        return wire.build_packet(0x30, len(name).to_bytes(2, "big") + name + b"\3\x23\0" + bytes([alias]) + b"x")

    client = screen()
    client.screen(connect(level=5), 0)
    broker = BrokerScreen(client)
    stream = aliased(COMMAND) + aliased("")
    assert to_client(broker, stream) == stream
    assert to_client(broker, aliased(STATUS, 2) + aliased("", 2)) == b""
    with pytest.raises(wire.MalformedPacket):
        broker.screen(aliased("", 3), 0)
    with pytest.raises(wire.MalformedPacket):
        BrokerScreen(client).screen(b"\x30\1\0", 0)


@pytest.mark.parametrize(
    ("pattern", "topic", "granted"),
    [
        ("a/*", "a/b/c", True),
        ("a/*", "a", False),
        ("a/?", "a/b", True),
        ("a/?", "a/bc", False),
        ("a.b", "axb", False),
        ("*", "a\nb", True),
    ],
)
def test_patterns_are_those_of_aws_policies(pattern: str, topic: str, granted: bool) -> None:
    right = topic_right(Policy(client_id="x", publish=(pattern,)), topic.encode())
    assert right.refusal is (None if granted else Refusal.PUBLISH)


def test_wildcards_of_mqtt_stand_for_themselves_in_a_policy() -> None:
    policy = Policy(client_id="x", subscribe=("a/+",))
    assert filter_refusal(policy, "a/+") is None
    assert filter_refusal(policy, "a/b") is Refusal.SUBSCRIBE
    assert filter_refusal(policy, "") is Refusal.MALFORMED_PACKET


def test_the_documentation_names_every_refusal() -> None:
    page = (Path(__file__).parents[2] / "docs" / "standin.md").read_text(encoding="utf-8")
    assert [refusal.value for refusal in Refusal if f"| `{refusal.value}` | {refusal.doc} |" not in page] == []
