"""The screen of what a client sends: what passes to the broker, what is answered here, what ends it all.

Sans-I/O: plaintext goes in, and what is to be sent to either side comes out. Runs of permitted packets pass
as one slice of the buffer they came in; a topic is judged once a connection.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.events import Refusal
from lorabridge.simulation.standin.mqtt_wire import Connect, Header, MalformedPacket, PacketType, Property, Reason
from lorabridge.simulation.standin.policy import (
    Policy,
    TopicEnd,
    TopicRight,
    filter_refusal,
    may_receive,
    may_use_client_id,
    topic_right,
)
from lorabridge.simulation.standin.quotas import Limits, Quota
from lorabridge.simulation.standin.subscriptions import Subscriptions

MAX_PACKET = 128 * 1024
MAX_FILTERS = 8
MAX_SUBSCRIPTIONS = 50
MAX_TOPIC_ALIASES = 8
_PUBLISH, _PUBACK = PacketType.PUBLISH << 4, PacketType.PUBACK << 4
_MOST_TOPICS = 4096
_PASSED_ON = frozenset((PacketType.PUBACK, PacketType.PINGREQ, PacketType.DISCONNECT))
_ANSWERED_BY_CONNACK = frozenset((Refusal.CLIENT_ID, Refusal.LAST_WILL, Refusal.PERSISTENT_SESSION))
_ANSWERED_BY_PUBACK = frozenset((Refusal.PUBLISH, Refusal.RETAIN, Refusal.TOPIC_LENGTH, Refusal.TOPIC_SLASHES))

REASONS = {
    Refusal.MALFORMED_PACKET: Reason.MALFORMED_PACKET,
    Refusal.UNEXPECTED_PACKET: Reason.PROTOCOL_ERROR,
    Refusal.PROTOCOL_VERSION: Reason.UNSUPPORTED_PROTOCOL_VERSION,
    Refusal.OVERSIZE: Reason.PACKET_TOO_LARGE,
    Refusal.KEEP_ALIVE: Reason.KEEP_ALIVE_TIMEOUT,
    Refusal.TAKEN_OVER: Reason.SESSION_TAKEN_OVER,
    Refusal.TOPIC_LENGTH: Reason.TOPIC_NAME_INVALID,
    Refusal.TOPIC_SLASHES: Reason.TOPIC_NAME_INVALID,
    Refusal.FILTERS: Reason.TOPIC_FILTER_INVALID,
    Refusal.SUBSCRIPTIONS: Reason.QUOTA_EXCEEDED,
    Refusal.SUBSCRIPTION_IDENTIFIER: Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    Refusal.TOPIC_ALIAS: Reason.TOPIC_ALIAS_INVALID,
    Refusal.QOS_2: Reason.QOS_NOT_SUPPORTED,
    Refusal.RATE: Reason.QUOTA_EXCEEDED,
    Refusal.UNACKNOWLEDGED: Reason.RECEIVE_MAXIMUM_EXCEEDED,
    Refusal.SHUTTING_DOWN: Reason.SERVER_SHUTTING_DOWN,
    Refusal.DISCONNECTED: Reason.ADMINISTRATIVE_ACTION,
}
"""What MQTT 5 says in DISCONNECT, CONNACK or PUBACK; all others are not authorised."""

Observer = Callable[[str, bytes], None]
"""Is given topic and payload of each publish that was delivered."""


class Refused(Exception):  # noqa: N818  # a decision, not an error
    """The connection must end."""

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.detail = detail


class Passed(msgspec.Struct):
    """What came of one piece of either stream."""

    to_broker: list[bytes] = msgspec.field(default_factory=list)
    to_client: list[bytes] = msgspec.field(default_factory=list)
    ignored: list[tuple[Refusal, str]] = msgspec.field(default_factory=list)
    requests: list[tuple[str, bytes]] = msgspec.field(default_factory=list)
    """Topic and payload of what a service of AWS IoT has to answer."""
    refused: Refused | None = None


class ClientScreen:
    """What a client sends. Once `screen` has told of a refusal, nothing more may be fed."""

    def __init__(self, policy: Policy, observer: Observer | None, limits: Limits) -> None:
        self._policy = policy
        self._observer = observer
        self._limits = limits
        self.quota = Quota(limits.publishes_per_second)
        self._rest = b""
        self._rights: dict[bytes, TopicRight] = {}
        self._aliases: dict[int, bytes] = {}
        self._passed = Passed()
        self.subscriptions = Subscriptions()
        self.connect: Connect | None = None
        self.keep_alive = 0
        """Seconds; what the client is held to."""
        self.said_goodbye = False
        self.delivered = 0
        """Publishes that the broker, or for Basic Ingest the front, took."""
        self.unacknowledged: dict[int, tuple[str, bytes] | None] = {}
        """Publishes that the broker has and has not acknowledged yet, by packet id; None where nobody observes."""

    def screen(self, data: bytes, now: float) -> Passed:
        """Judge what came; `now` is monotonic, in seconds."""
        passed = self._passed = Passed()
        self.quota.at(now)
        buffer = self._rest + data if self._rest else data
        try:
            at = self._packets(buffer)
        except MalformedPacket as error:
            passed.refused = Refused(Refusal.MALFORMED_PACKET, str(error))
        except Refused as refused:
            passed.refused = refused
        else:
            self._rest = buffer[at:]
        if passed.refused is not None:
            passed.to_client += self.last_words(passed.refused.refusal)
        return passed

    def _packets(self, buffer: bytes) -> int:
        """Judge all whole packets; where the rest begins. What was permitted before a refusal goes out."""
        run = at = 0
        end = len(buffer)
        try:
            while end - at >= 2:
                first, size = buffer[at], buffer[at + 1]
                body, stop = at + 2, at + 2 + size
                if size > 0x7F:
                    header = wire.parse_header(buffer, at)
                    if header is None:
                        break
                    body, stop = header
                if stop - at > MAX_PACKET:
                    raise Refused(Refusal.OVERSIZE, f"{stop - at} bytes")
                if stop > end:
                    break
                if first & 0xF0 == _PUBLISH and self.connect is not None:
                    passes = self._publish(buffer, first, body, stop)
                else:
                    passes = self._other(buffer, first, Header(body, stop))
                if not passes:
                    if run < at:
                        self._passed.to_broker.append(buffer[run:at])
                    run = stop
                at = stop
        finally:
            if run < at:
                self._passed.to_broker.append(buffer[run:at])
        return at

    def _publish(self, buffer: bytes, first: int, body: int, stop: int) -> bool:
        """Whether a PUBLISH (§3.3) goes on to the broker."""
        topic_stop = body + 2 + (buffer[body] << 8 | buffer[body + 1]) if stop - body >= 2 else stop + 1
        qos = first >> 1 & 3
        payload = topic_stop + 2 if qos else topic_stop
        if payload > stop or qos == 3:
            raise MalformedPacket("a PUBLISH shorter than its lengths say, or with QoS 3")
        wire_topic = buffer[body + 2 : topic_stop]
        if self.connect is not None and self.connect.mqtt_5:
            wire_topic, payload = self._properties(buffer, wire_topic, payload, stop)
        right = self._rights.get(wire_topic) or self._judge(wire_topic)
        refusal = right.refusal or (Refusal.RETAIN if first & 0x01 and not right.may_retain else None)
        if refusal is not None:
            self._deny(refusal, right.topic, buffer[topic_stop : topic_stop + 2] if qos == 1 else b"")
            return False
        if qos == 2:
            self._ignore_or_refuse(Refusal.QOS_2, right.topic)
            return False
        packet_id = buffer[topic_stop] << 8 | buffer[topic_stop + 1] if qos else 0
        if not self._has_room(right.topic, packet_id):
            return False
        if right.end is not TopicEnd.BROKER:
            self._take(right, buffer[payload:stop], packet_id)
            return False
        if qos:
            self.unacknowledged[packet_id] = None if self._observer is None else (right.topic, buffer[payload:stop])
        else:
            self._deliver(right.topic, buffer[payload:stop])
        return True

    def _has_room(self, topic: str, packet_id: int) -> bool:
        """Whether the quotas have room for one publish more; what has none is discarded, and MQTT 5 says so."""
        mqtt_5 = self.connect is not None and self.connect.mqtt_5
        if self.quota.per_second and (excess := self.quota.take()):
            if excess == 1:  # one event a second, not one a publish
                self._passed.ignored.append((Refusal.RATE, topic))
            if mqtt_5 and packet_id:
                self._passed.to_client.append(wire.build_puback(packet_id, REASONS[Refusal.RATE]))
            return False
        most = self._limits.unacknowledged
        if packet_id and most and len(self.unacknowledged) >= most and packet_id not in self.unacknowledged:
            if mqtt_5:
                raise Refused(Refusal.UNACKNOWLEDGED, topic)
            self._passed.ignored.append((Refusal.UNACKNOWLEDGED, topic))
            return False
        return True

    def _deny(self, refusal: Refusal, topic: str, packet_id: bytes) -> None:
        """End it; but a QoS 1 publish of MQTT 5 is answered (which of the two AWS does is not known)."""
        is_mqtt_5 = self.connect is not None and self.connect.mqtt_5
        if not (is_mqtt_5 and packet_id and refusal in _ANSWERED_BY_PUBACK):
            raise Refused(refusal, topic)
        reason = REASONS.get(refusal, Reason.NOT_AUTHORIZED)
        self._passed.to_client.append(wire.build_puback(int.from_bytes(packet_id, "big"), reason))
        self._passed.ignored.append((refusal, topic))

    def _judge(self, wire_topic: bytes) -> TopicRight:
        if len(self._rights) >= _MOST_TOPICS:
            self._rights.clear()
        right = self._rights[wire_topic] = topic_right(self._policy, wire_topic)
        return right

    def _properties(self, buffer: bytes, wire_topic: bytes, at: int, stop: int) -> tuple[bytes, int]:
        """The topic that is meant (an alias may stand for it, §3.3.2.3.4), and where the payload begins."""
        fields = wire.Fields(buffer, at, stop)
        alias = fields.properties().get(Property.TOPIC_ALIAS)
        if alias is not None:
            number = int.from_bytes(alias, "big")
            if not 0 < number <= MAX_TOPIC_ALIASES or not (wire_topic or number in self._aliases):
                raise Refused(Refusal.TOPIC_ALIAS, str(number))
            wire_topic = self._aliases[number] = wire_topic or self._aliases[number]
        return wire_topic, fields.at

    def _take(self, right: TopicRight, payload: bytes, packet_id: int) -> None:
        """Basic Ingest and requests to services end here: taken, acknowledged, for no subscriber to see."""
        if packet_id:
            self._passed.to_client.append(wire.build_puback(packet_id))
        if right.end is TopicEnd.SERVICE:
            self._passed.requests.append((right.topic, payload))
        self._deliver(right.topic, payload)

    def _deliver(self, topic: str, payload: bytes) -> None:
        self.delivered += 1
        if self._observer is not None:
            self._observer(topic, payload)

    def delivery_refusal(self, topic: bytes, now: float) -> Refusal | None:
        """Why the client may not have a message on this topic now, if so; one that it may have counts."""
        self.quota.at(now)
        if not may_receive(self._policy, topic):
            return Refusal.RECEIVE
        return Refusal.RATE if self.quota.take() else None

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """The broker has answered the publish with this id."""
        publish = self.unacknowledged.pop(packet_id, None)
        if reason < 0x80:
            self.delivered += 1
            if self._observer is not None and publish is not None:
                self._observer(*publish)

    def _other(self, buffer: bytes, first: int, header: Header) -> bool:
        """Whether a packet that is no PUBLISH goes on to the broker as it is."""
        kind = first >> 4
        if (self.connect is None) is not (kind == PacketType.CONNECT):
            raise Refused(Refusal.UNEXPECTED_PACKET, f"packet type {kind}")
        if kind == PacketType.CONNECT:
            self._connect(buffer, first, header)
            return False
        if kind == PacketType.SUBSCRIBE:
            return self._subscribe(buffer, header)
        if kind == PacketType.UNSUBSCRIBE:
            mqtt_5 = self.connect is not None and self.connect.mqtt_5
            unsubscribe = wire.parse_subscribe(buffer, header, mqtt_5=mqtt_5, with_options=False)
            self.subscriptions.remove(unsubscribe.filters)
            return True
        if kind == PacketType.PUBACK and self.subscriptions.acknowledged(wire.Fields(buffer, *header).number(2)):
            return False
        if kind not in _PASSED_ON:
            raise Refused(Refusal.UNEXPECTED_PACKET, f"packet type {kind}")
        self.said_goodbye |= kind == PacketType.DISCONNECT
        return True

    def _connect(self, buffer: bytes, first: int, header: Header) -> None:
        """Judge a CONNECT; it goes on without keep-alive, which is watched here for all brokers alike."""
        connect = wire.parse_connect(buffer, header)
        if connect is None:
            raise Refused(Refusal.PROTOCOL_VERSION)
        self.connect = connect
        if not may_use_client_id(self._policy, connect.client_id):
            raise Refused(Refusal.CLIENT_ID, connect.client_id)
        is_persistent = connect.session_expiry > 0 if connect.mqtt_5 else not connect.clean
        if is_persistent and not self._policy.persistent_session:
            raise Refused(Refusal.PERSISTENT_SESSION)
        if connect.will is not None:
            right = self._judge(connect.will.topic)
            is_granted = self._policy.last_will and right.refusal is None and right.end is TopicEnd.BROKER
            if not is_granted or connect.will.qos > 1 or (connect.will.retain and not right.may_retain):
                raise Refused(Refusal.LAST_WILL, right.topic)
        self.keep_alive = self._limits.keep_alive(connect.keep_alive)
        body = bytearray(buffer[header.body : header.stop])
        offset = connect.keep_alive_at - header.body
        body[offset : offset + 2] = b"\0\0"
        self._passed.to_broker.append(wire.build_packet(first, bytes(body)))

    def _subscribe(self, buffer: bytes, header: Header) -> bool:
        mqtt_5 = self.connect is not None and self.connect.mqtt_5
        subscribe = wire.parse_subscribe(buffer, header, mqtt_5=mqtt_5)
        if len(subscribe.filters) > MAX_FILTERS:
            raise Refused(Refusal.FILTERS, str(len(subscribe.filters)))
        if subscribe.has_identifier:
            raise Refused(Refusal.SUBSCRIPTION_IDENTIFIER)
        if subscribe.highest_qos > 1:
            self._ignore_or_refuse(Refusal.QOS_2, "SUBSCRIBE")
            return False
        for topic_filter in subscribe.filters:
            refusal = filter_refusal(self._policy, topic_filter)
            if refusal is Refusal.SUBSCRIBE and mqtt_5:
                refused = wire.build_suback_refused(subscribe.packet_id, len(subscribe.filters))
                self._passed.to_client.append(refused)
                self._passed.ignored.append((refusal, topic_filter))
                return False
            if refusal is not None:
                raise Refused(refusal, topic_filter)
        count = self.subscriptions.add(subscribe.filters, subscribe.highest_qos)
        if count > MAX_SUBSCRIPTIONS:
            raise Refused(Refusal.SUBSCRIPTIONS, str(count))
        return True

    def _ignore_or_refuse(self, refusal: Refusal, detail: str) -> None:
        """MQTT 3.1.1 gets no answer at all, MQTT 5 a DISCONNECT."""
        if self.connect is not None and self.connect.mqtt_5:
            raise Refused(refusal, detail)
        self._passed.ignored.append((refusal, detail))

    def last_words(self, refusal: Refusal) -> list[bytes]:
        """What the client is told: only MQTT 5 why, and a refused CONNECT of MQTT 3.1.1 gets no CONNACK either."""
        if self.connect is None or not self.connect.mqtt_5:
            return []
        reason = REASONS.get(refusal, Reason.NOT_AUTHORIZED)
        is_connack = refusal in _ANSWERED_BY_CONNACK
        return [wire.build_connack_refused(reason) if is_connack else wire.build_disconnect(reason)]
