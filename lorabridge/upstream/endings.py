"""What a refusal or an end means, in the words of paho: reason codes, who closed, and what was under way then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorabridge.upstream.faults import LinkDown, LinkFault, fault_of_reason_code, fault_of_tls_reason

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

_SILENCES = {0x8D: LinkFault.KEEP_ALIVE_TIMEOUT, 0x82: LinkFault.PROTOCOL_REFUSED}
"""What paho itself ends a connection for, by the reason code that it makes up."""


def of_connack(reason: ReasonCode) -> LinkDown:
    """A CONNACK that says no."""
    return LinkDown(fault_of_reason_code(int(reason.value), LinkFault.SERVER_UNAVAILABLE), f"CONNACK: {reason}")


def of_puback(reason: ReasonCode, key: int) -> LinkDown:
    """A PUBACK that says no (MQTT 5) to the publish with this key, which is the culprit unless a quota is."""
    if fault_of_reason_code(int(reason.value), LinkFault.PUBLISH_REFUSED) is LinkFault.QUOTA_EXCEEDED:
        return LinkDown(LinkFault.QUOTA_EXCEEDED, f"PUBACK: {reason}")
    return LinkDown(LinkFault.PUBLISH_REFUSED, f"PUBACK: {reason}", key)


def of_disconnect(reason: ReasonCode, *, is_up: bool, is_subscribing: bool) -> LinkDown:
    """A DISCONNECT of the endpoint (MQTT 5). `is_subscribing`: a SUBSCRIBE had no answer yet."""
    fault = fault_of_reason_code(int(reason.value), _suspected(is_up=is_up, is_subscribing=is_subscribing))
    if is_subscribing and fault is LinkFault.CONNECT_NOT_AUTHORIZED:
        fault = LinkFault.SUBSCRIBE_REFUSED
    return LinkDown(fault, f"DISCONNECT: {reason}")


def of_silence(reason: ReasonCode, last_error: str, *, is_up: bool, is_subscribing: bool) -> LinkDown:
    """An end without DISCONNECT: `reason` is paho's own, `last_error` what it logged: perhaps an alert of TLS."""
    suspected = _suspected(is_up=is_up, is_subscribing=is_subscribing)
    return LinkDown(fault_of_tls_reason(last_error) or _SILENCES.get(int(reason.value), suspected), last_error)


def _suspected(*, is_up: bool, is_subscribing: bool) -> LinkFault:
    """What an end without a reason means, by what was under way."""
    if is_subscribing:
        return LinkFault.SUBSCRIBE_REFUSED
    return LinkFault.CONNECTION_LOST if is_up else LinkFault.CLOSED_BEFORE_CONNACK
