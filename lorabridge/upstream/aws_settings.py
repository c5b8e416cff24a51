"""`[aws_iot]`: what an operator says of the endpoint and of how hard it may be pressed."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.upstream import tls
from lorabridge.upstream.link_settings import LinkSettings, check_common

_THING_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:"


class HttpsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[aws_iot.https]`: publishing over HTTPS while MQTT is blocked, with `fallback = "https"`."""

    after: Annotated[
        int, Meta(description="so many tries of MQTT in a row that get no connection, handshake or answer", ge=1)
    ] = 5
    port: Annotated[Literal[8443, 443], Meta(description="8443, or 443 (ALPN x-amzn-http-ca)")] = 8443
    connect_address: Annotated[
        str,
        Meta(
            description="`host:port` to dial instead; SNI and certificate check still use `endpoint`",
            examples=["127.0.0.1:8443"],
        ),
    ] = ""
    requests: Annotated[int, Meta(description="requests at a time, each on a connection of its own", ge=1, le=32)] = 8


class AwsIotSettings(LinkSettings, frozen=True, kw_only=True):
    """`[aws_iot]`: the endpoint, who we are there, and how hard we may press; for any other broker write `[mqtt]`."""

    port: Annotated[
        Literal[8883, 443], Meta(description="8883, or 443 (ALPN x-amzn-mqtt-ca) where only that gets out")
    ] = 8883
    fallback: Annotated[
        Literal["none", "https"],
        Meta(description='"https": while MQTT is blocked records leave over HTTPS; commands do not arrive meanwhile'),
    ] = "none"
    https: Annotated[HttpsSettings, Meta(description="how they leave then")] = HttpsSettings()
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

    @property
    def https_address(self) -> tuple[str, int]:
        """Host and port to dial for HTTPS."""
        if not self.https.connect_address:
            return self.endpoint, self.https.port
        return tls.split_address(self.https.connect_address)


def check_form(settings: AwsIotSettings, gateway_id: str, where: str = "aws_iot") -> list[Problem]:
    """Everything that is wrong with the settings themselves; `where` is the place of the table."""
    problems = tls.check_endpoint(settings, where)
    problems += tls.check_address(settings.https.connect_address, f"{where}.https.connect_address")
    if set(settings.thing_name) - set(_THING_CHARACTERS):
        what, hint = "is not the name of a thing", "letters, digits, - _ and : only"
        problems.append(Problem(where=f"{where}.thing_name", what=what, hint=hint))
    return problems + check_common(settings, gateway_id, where)
