"""What a refusal or an end of a connection means."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from lorabridge.upstream.endings import of_connack, of_disconnect, of_puback, of_silence
from lorabridge.upstream.faults import LinkDown, LinkFault


def code(packet: int, number: int) -> ReasonCode:
    return ReasonCode(packet, identifier=number)


def test_a_connack_names_its_fault() -> None:
    down = of_connack(code(PacketTypes.CONNACK, 0x87))
    assert down == LinkDown(LinkFault.CONNECT_NOT_AUTHORIZED, "CONNACK: Not authorized")
    assert of_connack(code(PacketTypes.CONNACK, 0x80)).fault is LinkFault.SERVER_UNAVAILABLE


@pytest.mark.parametrize("number", [0x80, 0x87, 0x90, 0x99])
def test_a_refused_publish_is_the_culprit(number: int) -> None:
    down = of_puback(code(PacketTypes.PUBACK, number), 7)
    assert (down.fault, down.culprit) == (LinkFault.PUBLISH_REFUSED, 7)


def test_no_publish_is_the_culprit_of_a_quota() -> None:
    down = of_puback(code(PacketTypes.PUBACK, 0x97), 7)
    assert (down.fault, down.culprit) == (LinkFault.QUOTA_EXCEEDED, None)


@pytest.mark.parametrize(
    ("number", "is_subscribing", "fault"),
    [
        (0x87, False, LinkFault.CONNECT_NOT_AUTHORIZED),
        (0x87, True, LinkFault.SUBSCRIBE_REFUSED),
        (0x8E, False, LinkFault.TAKEN_OVER),
        (0x8E, True, LinkFault.TAKEN_OVER),
        (0x80, False, LinkFault.CONNECTION_LOST),
        (0x80, True, LinkFault.SUBSCRIBE_REFUSED),
    ],
)
def test_a_disconnect_is_understood_by_its_reason_and_by_what_was_asked(
    number: int, is_subscribing: bool, fault: LinkFault
) -> None:
    reason = code(PacketTypes.DISCONNECT, number)
    assert of_disconnect(reason, is_up=True, is_subscribing=is_subscribing) == LinkDown(fault, f"DISCONNECT: {reason}")


@pytest.mark.parametrize(
    ("number", "error", "is_up", "is_subscribing", "fault"),
    [
        (0x80, "", True, False, LinkFault.CONNECTION_LOST),
        (0x80, "", False, False, LinkFault.CLOSED_BEFORE_CONNACK),
        (0x80, "", True, True, LinkFault.SUBSCRIBE_REFUSED),
        (0x8D, "", True, True, LinkFault.KEEP_ALIVE_TIMEOUT),
        (0x82, "", True, False, LinkFault.PROTOCOL_REFUSED),
        (0x80, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", False, False, LinkFault.CLIENT_CERTIFICATE_REFUSED),
        (0x8D, "[SSL: TLSV1_ALERT_UNKNOWN_CA]", True, True, LinkFault.CLIENT_CERTIFICATE_REFUSED),
    ],
)
def test_a_silent_end_is_understood_by_an_alert_before_paho_before_what_was_under_way(
    number: int, error: str, is_up: bool, is_subscribing: bool, fault: LinkFault
) -> None:
    reason = code(PacketTypes.DISCONNECT, number)
    assert of_silence(reason, error, is_up=is_up, is_subscribing=is_subscribing) == LinkDown(fault, error)
