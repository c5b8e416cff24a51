"""The screen of what the broker sends: what passes to the client, and what is answered here in the client's place."""

from __future__ import annotations

from lorabridge.simulation.standin import mqtt_wire as wire
from lorabridge.simulation.standin.events import Refusal
from lorabridge.simulation.standin.mqtt_wire import Header, MalformedPacket, PacketType, Property, Reason
from lorabridge.simulation.standin.quotas import MAX_UNACKNOWLEDGED
from lorabridge.simulation.standin.screen import MAX_PACKET, MAX_TOPIC_ALIASES, ClientScreen, Passed

_PUBACK = PacketType.PUBACK << 4
_NO_MATCHING_SUBSCRIBERS = 0x10
"""AWS IoT does not say it (developer guide, MQTT, "MQTT reason codes"); mosquitto does."""


class BrokerScreen:
    """Whole packets pass; but a message needs the right to receive it, and the CONNACK of MQTT 5 states our limits."""

    def __init__(self, client: ClientScreen) -> None:
        self._client = client
        self._rest = b""
        self._aliases: dict[bytes, bytes] = {}
        self._passed = Passed()
        self._now = 0.0
        self.is_connected = False

    def screen(self, data: bytes, now: float) -> Passed:
        """What goes on to the client, and back; `now` is monotonic. Raises MalformedPacket: the broker is at fault."""
        passed = self._passed = Passed()
        self._now = now
        buffer = self._rest + data if self._rest else data
        run = at = 0
        while len(buffer) - at >= 2:
            header = wire.parse_header(buffer, at)
            if header is None or header.stop > len(buffer):
                break
            other = self._instead(buffer, buffer[at], header)
            if other is not None:
                passed.to_client += [buffer[run:at], other]
                run = header.stop
            at = header.stop
        passed.to_client.append(buffer[run:at])
        self._rest = buffer[at:]
        return passed

    def _instead(self, buffer: bytes, first: int, header: Header) -> bytes | None:
        """What the client gets in place of a packet; None when it passes as it is."""
        if first == _PUBACK:
            fields = wire.Fields(buffer, header.body, header.stop)
            packet_id = fields.number(2)
            reason = fields.number(1) if fields.more else Reason.SUCCESS
            self._client.acknowledged(packet_id, reason)
            return wire.build_puback(packet_id) if reason == _NO_MATCHING_SUBSCRIBERS else None
        if first >> 4 == PacketType.PUBLISH:
            return None if self._is_delivered(buffer, first, header) else b""
        if first >> 4 == PacketType.CONNACK:
            return self._connack(buffer, header)
        return None

    def _is_delivered(self, buffer: bytes, first: int, header: Header) -> bool:
        """Whether a message reaches the client; if not the broker, which waits for it, gets its PUBACK from here."""
        fields = wire.Fields(buffer, header.body, header.stop)
        topic = fields.binary()
        qos = first >> 1 & 3
        packet_id = fields.number(2) if qos else 0
        if self._client.connect is not None and self._client.connect.mqtt_5:
            topic = self._meant(topic, fields.properties().get(Property.TOPIC_ALIAS, b""))
        refusal = self._client.delivery_refusal(topic, self._now)
        if refusal is None:
            return True
        if refusal is Refusal.RECEIVE or self._client.quota.excess == 1:  # of a rate one event a second
            self._passed.ignored.append((refusal, topic.decode(errors="replace")))
        if qos:
            self._passed.to_broker.append(wire.build_puback(packet_id))
        return False

    def _meant(self, topic: bytes, alias: bytes) -> bytes:
        """The topic, for which an alias of the broker's may stand (MQTT 5 §3.3.2.3.4)."""
        if alias:
            topic = self._aliases[alias] = topic or self._aliases.get(alias, b"")
        if not topic:
            raise MalformedPacket("a topic alias that stands for nothing yet")
        return topic

    def _connack(self, buffer: bytes, header: Header) -> bytes:
        connect = self._client.connect
        fields = wire.Fields(buffer, header.body, header.stop)
        start = fields.take(2)
        self.is_connected = start[1] == 0
        if connect is None or not connect.mqtt_5:
            return wire.build_packet(PacketType.CONNACK << 4, start)
        properties = fields.properties()
        theirs = int.from_bytes(properties.get(Property.RECEIVE_MAXIMUM, b"\xff\xff"), "big")
        properties[Property.RECEIVE_MAXIMUM] = min(theirs, MAX_UNACKNOWLEDGED).to_bytes(2, "big")
        properties[Property.MAXIMUM_QOS] = b"\x01"
        properties[Property.MAXIMUM_PACKET_SIZE] = MAX_PACKET.to_bytes(4, "big")
        properties[Property.TOPIC_ALIAS_MAXIMUM] = MAX_TOPIC_ALIASES.to_bytes(2, "big")
        properties[Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE] = b"\0"
        properties.pop(Property.SERVER_KEEP_ALIVE, None)
        if self._client.keep_alive != connect.keep_alive:
            properties[Property.SERVER_KEEP_ALIVE] = self._client.keep_alive.to_bytes(2, "big")
        return wire.build_packet(PacketType.CONNACK << 4, start + wire.build_properties(properties))
