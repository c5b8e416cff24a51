"""What every way out needs to know: who we are there, how patient we are, how records look and what they are called."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.settings import ByteSize, Duration
from lorabridge.upstream import format_settings, login, tls, topics
from lorabridge.upstream.format_settings import ChirpStackSettings, UplinkFormat
from lorabridge.upstream.tls import TlsSettings
from lorabridge.upstream.topics import TopicSettings

MAX_PAYLOAD = 128 * 1024
"""AWS IoT closes the connection on a larger publish (MQTT quotas)."""


class LinkSettings(TlsSettings, frozen=True, kw_only=True):
    """What `[aws_iot]` and `[mqtt]` have in common."""

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
    format: Annotated[
        UplinkFormat,
        Meta(
            description='how uplinks are written: "lorabridge", our own schema; "aws-lorawan", as AWS IoT Core for '
            'LoRaWAN; "chirpstack", as ChirpStack v4 (docs/formats.md); all other records keep our own schema'
        ),
    ] = UplinkFormat.LORABRIDGE
    chirpstack: Annotated[ChirpStackSettings, Meta(description="who the devices belong to")] = ChirpStackSettings()
    topics: Annotated[TopicSettings, Meta(description="what the records are called")] = TopicSettings()

    @property
    def largest_payload(self) -> int:
        """Bytes of a publish that the other end takes."""
        return MAX_PAYLOAD

    @property
    def credentials(self) -> tuple[str, str]:
        """User name, and the file of its password; both empty where a certificate says who we are."""
        return "", ""


def check_common(settings: LinkSettings, gateway_id: str, where: str) -> list[Problem]:
    """What can be wrong with any way out: topics, forms of records, durations."""
    problems = topics.check(settings.topics, gateway_id, f"{where}.topics")
    if not problems:
        problems += format_settings.check(settings.format, settings.chirpstack, settings.topics, gateway_id, where)
    if settings.batching == "auto" and settings.format is not UplinkFormat.LORABRIDGE:
        what = f'hides uplinks of format = "{settings.format.value}" from the rules that read them'
        problems.append(Problem(where=f"{where}.batching", what=what, hint='batching = "off" goes with that format'))
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


def check_files(settings: LinkSettings, now: datetime | None = None) -> list[Problem]:
    """What is wrong with certificates, key and password file; `now` is UTC, where dates are to be judged."""
    return tls.check_files(settings, now) + login.check(*settings.credentials)
