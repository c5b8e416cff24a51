"""`[aws_iot]`: what an operator says of the endpoint and of how hard it may be pressed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.settings import ByteSize, Duration
from lorabridge.upstream import format_settings, tls, topics
from lorabridge.upstream.format_settings import ChirpStackSettings, UplinkFormat
from lorabridge.upstream.tls import TlsSettings
from lorabridge.upstream.topics import TopicSettings

_THING_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:"


class AwsIotSettings(TlsSettings, frozen=True, kw_only=True):
    """`[aws_iot]`: the endpoint, who we are there, and how hard we may press."""

    thing_name: Annotated[
        str,
        Meta(
            description="name of the thing; also the MQTT client id",
            min_length=1,
            max_length=128,
            examples=["roof-1"],
        ),
    ]
    mqtt_version: Annotated[Literal["3.1.1", "5"], Meta(description="5 names the reason of a refusal")] = "3.1.1"
    keep_alive: Annotated[Duration, Meta(description="30s to 1200s; a dead link is noticed within twice that")] = (
        Duration(60)
    )
    connect_timeout: Annotated[Duration, Meta(description="from name look-up to CONNACK")] = Duration(30)
    puback_timeout: Annotated[Duration, Meta(description="a publish unanswered for so long ends the connection")] = (
        Duration(30)
    )
    in_flight: Annotated[
        int, Meta(description="publishes without PUBACK at a time; AWS IoT allows 100", ge=1, le=100)
    ] = 100
    max_publishes_per_second: Annotated[
        int, Meta(description="AWS IoT throws away what exceeds 100 a second; 0: no limit", ge=0)
    ] = 80
    max_bytes_per_second: Annotated[
        ByteSize, Meta(description="AWS IoT delays what exceeds 512 KiB a second; 0: no limit")
    ] = ByteSize(480 * 1024)
    batching: Annotated[
        Literal["off", "auto"],
        Meta(
            description='"auto": while records wait or the rate nears its limit, several leave in one publish on '
            "`topics.batch`; a record that need not wait leaves alone. Rules and policies must know that topic"
        ),
    ] = "off"
    backoff_base: Annotated[
        Duration, Meta(description="the first retry waits a random part of this, each further up to twice as much")
    ] = Duration(1)
    backoff_cap: Annotated[Duration, Meta(description="no retry waits longer than this")] = Duration(120)
    retain_status: Annotated[
        bool, Meta(description="keep the last status at the endpoint; the policy must allow iot:RetainPublish")
    ] = False
    shadow: Annotated[
        bool,
        Meta(
            description="report to the named shadow `lorabridge` of the thing, and let it change log level, statistics "
            "interval and pause; the policy must allow it"
        ),
    ] = False
    jobs: Annotated[
        bool,
        Meta(
            description="do what AWS IoT Jobs order: reload the devices, renew the certificate, nothing else; "
            "the policy must allow it"
        ),
    ] = False
    format: Annotated[
        UplinkFormat,
        Meta(
            description='how uplinks are written: "lorabridge", our own schema; "aws-lorawan", as AWS IoT Core for '
            'LoRaWAN; "chirpstack", as ChirpStack v4 (docs/formats.md); all other records keep our own schema'
        ),
    ] = UplinkFormat.LORABRIDGE
    chirpstack: Annotated[ChirpStackSettings, Meta(description="who the devices belong to")] = ChirpStackSettings()
    topics: Annotated[TopicSettings, Meta(description="what the records are called")] = TopicSettings()


def check_form(settings: AwsIotSettings, gateway_id: str, where: str = "aws_iot") -> list[Problem]:
    """Everything that is wrong with the settings themselves; `where` is the place of the table."""
    wrong_topics = topics.check(settings.topics, gateway_id, f"{where}.topics")
    problems = tls.check_endpoint(settings, where) + wrong_topics
    if not wrong_topics:
        problems += format_settings.check(settings.format, settings.chirpstack, settings.topics, gateway_id, where)
    if set(settings.thing_name) - set(_THING_CHARACTERS):
        what, hint = "is not the name of a thing", "letters, digits, - _ and : only"
        problems.append(Problem(where=f"{where}.thing_name", what=what, hint=hint))
    least_and_most = {
        "keep_alive": (settings.keep_alive, 30, 1200),
        "connect_timeout": (settings.connect_timeout, 1, 300),
        "puback_timeout": (settings.puback_timeout, 1, 600),
        "backoff_base": (settings.backoff_base, 0.1, 60),
        "backoff_cap": (settings.backoff_cap, 1, 3600),
    }
    for name, (value, least, most) in least_and_most.items():
        if not least <= value <= most:
            hint = f"between {least:g}s and {most:g}s"
            problems.append(Problem(where=f"{where}.{name}", what=f"{value:g}s is out of range", hint=hint))
    return problems
