"""`[aws_iot]`: what an operator says of the endpoint and of how hard it may be pressed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.upstream import tls
from lorabridge.upstream.link_settings import LinkSettings, check_common

_THING_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:"


class AwsIotSettings(LinkSettings, frozen=True, kw_only=True):
    """`[aws_iot]`: the endpoint, who we are there, and how hard we may press; for any other broker write `[mqtt]`."""

    port: Annotated[
        Literal[8883, 443], Meta(description="8883, or 443 (ALPN x-amzn-mqtt-ca) where only that gets out")
    ] = 8883
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


def check_form(settings: AwsIotSettings, gateway_id: str, where: str = "aws_iot") -> list[Problem]:
    """Everything that is wrong with the settings themselves; `where` is the place of the table."""
    problems = tls.check_endpoint(settings, where)
    if set(settings.thing_name) - set(_THING_CHARACTERS):
        what, hint = "is not the name of a thing", "letters, digits, - _ and : only"
        problems.append(Problem(where=f"{where}.thing_name", what=what, hint=hint))
    return problems + check_common(settings, gateway_id, where)
