"""Who may do what: the part of an AWS IoT policy that a gateway meets, and the limits on topics.

Patterns are those of AWS policies: `*` stands for any characters, `/` included, `?` for one; `+` and `#`
stand for themselves, so that a filter is granted as it is written.
"""

from __future__ import annotations

import enum
import re

import msgspec

from lorabridge.simulation.standin.events import Refusal

MAX_TOPIC_BYTES = 256
MAX_TOPIC_SLASHES = 7
_BASIC_INGEST = re.compile(r"\$aws/rules/[^/]+/", re.DOTALL)
_SERVICE = re.compile(r"\$aws/(things|certificates|provisioning-templates)/", re.DOTALL)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of one certificate may do. Nothing is granted that is not written."""

    client_id: str
    """May have wildcards, as a claim's has."""
    publish: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    """Needed beside `publish` for a publish with RETAIN (iot:RetainPublish)."""
    subscribe: tuple[str, ...] = ()
    """Filters (iot:Subscribe)."""
    receive: tuple[str, ...] = ()
    """Topics whose messages are delivered (iot:Receive), needed beside `subscribe`."""
    assume_role: tuple[str, ...] = ()
    """Role aliases for which credentials are lent (iot:AssumeRoleWithCertificate)."""
    last_will: bool = False
    persistent_session: bool = False


def gateway_policy(gateway_id: str) -> Policy:
    """What a lorabridge gateway with the default topics needs, and no more."""
    topics = f"lorabridge/{gateway_id}/"
    return Policy(
        client_id=gateway_id,
        publish=(f"{topics}*", f"$aws/rules/*/{topics}*"),
        retain=(f"{topics}status",),
        subscribe=(f"{topics}cmd/+",),
        receive=(f"{topics}cmd/*",),
        last_will=True,
    )


def thing_policy(name: str) -> Policy:
    """That of a gateway, and what its thing needs for shadows and jobs."""
    gateway = gateway_policy(name)
    own = f"$aws/things/{name}/"
    replies = (f"{own}shadow/*", f"{own}jobs/*")
    return msgspec.structs.replace(
        gateway,
        publish=(*gateway.publish, f"{own}shadow/*", f"{own}jobs/*"),
        subscribe=(*gateway.subscribe, *replies),
        receive=(*gateway.receive, *replies),
    )


def claim_policy(template: str) -> Policy:
    """What a claim certificate needs to be provisioned by `template` with any client id, and no more."""
    asks = ("$aws/certificates/create/*", "$aws/certificates/create-from-csr/*")
    topics = (*asks, f"$aws/provisioning-templates/{template}/provision/*")
    return Policy(client_id="*", publish=topics, subscribe=topics, receive=topics)


class TopicEnd(enum.Enum):
    """Who takes what is published to a topic."""

    BROKER = "broker"
    RULE = "rule"
    SERVICE = "service"


class TopicRight(msgspec.Struct, frozen=True):
    """What follows from a topic, whatever is published to it."""

    topic: str
    refusal: Refusal | None = None
    may_retain: bool = False
    end: TopicEnd = TopicEnd.BROKER


def topic_right(policy: Policy, wire: bytes) -> TopicRight:
    """Judge the topic of a PUBLISH; the prefix of Basic Ingest is not counted (developer guide, Basic Ingest)."""
    try:
        topic = wire.decode()
    except UnicodeDecodeError:
        return TopicRight("", Refusal.MALFORMED_PACKET)
    if not topic or set(topic) & set("+#\0"):  # MQTT 3.1.1 §3.3.2.1, §4.7.3
        return TopicRight(topic, Refusal.MALFORMED_PACKET)
    prefix = _BASIC_INGEST.match(topic)
    refusal = _limits(topic[prefix.end() :] if prefix else topic)
    end = TopicEnd.RULE if prefix else topic_end(topic)
    if refusal is None and not _granted(policy.publish, topic):
        refusal = Refusal.PUBLISH
    return TopicRight(topic, refusal, may_retain=_granted(policy.retain, topic), end=end)


def topic_end(topic: str) -> TopicEnd:
    """Whether a service of AWS IoT answers what is published to this topic, which is not one of Basic Ingest."""
    return TopicEnd.SERVICE if _SERVICE.match(topic) else TopicEnd.BROKER


def may_use_client_id(policy: Policy, client_id: str) -> bool:
    """Whether the client id is the certificate's."""
    return _matches(policy.client_id, client_id)


def may_assume(policy: Policy, role_alias: str) -> bool:
    """Whether credentials of this role alias are lent to the certificate."""
    return _granted(policy.assume_role, role_alias)


def may_receive(policy: Policy, wire: bytes) -> bool:
    """Whether a message on this topic is delivered."""
    try:
        return _granted(policy.receive, wire.decode())
    except UnicodeDecodeError:
        return False


def filter_refusal(policy: Policy, topic_filter: str) -> Refusal | None:
    """Why a client may not subscribe to `topic_filter`, if so. Nobody can subscribe to Basic Ingest."""
    if not topic_filter or "\0" in topic_filter:
        return Refusal.MALFORMED_PACKET
    if topic_filter.startswith("$aws/rules/") or not _granted(policy.subscribe, topic_filter):
        return Refusal.SUBSCRIBE
    return _limits(topic_filter)


def _limits(topic: str) -> Refusal | None:
    if len(topic.encode()) > MAX_TOPIC_BYTES:
        return Refusal.TOPIC_LENGTH
    return Refusal.TOPIC_SLASHES if topic.count("/") > MAX_TOPIC_SLASHES else None


def _granted(patterns: tuple[str, ...], text: str) -> bool:
    return any(_matches(pattern, text) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None
