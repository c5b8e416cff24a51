"""`[aws_iot]`: what an operator says of the endpoint and of how hard it may be pressed."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.upstream import tls
from lorabridge.upstream.link_settings import LinkSettings, check_common

_ROLE_ALIAS = re.compile(r"[\w=,@-]{1,128}", re.ASCII)
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
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


class WebSocketSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[aws_iot.websocket]`: MQTT over WebSocket, signed with the credentials of a role; `transport = "websocket"`."""

    credentials_endpoint: Annotated[
        str,
        Meta(
            description="as `aws iot describe-endpoint --endpoint-type iot:CredentialProvider` says",
            examples=["c1b2c3d4e5f6g7.credentials.iot.eu-central-1.amazonaws.com"],
        ),
    ] = ""
    connect_address: Annotated[
        str,
        Meta(
            description="`host:port` to dial for credentials; SNI and certificate check still use their endpoint",
            examples=["127.0.0.1:8444"],
        ),
    ] = ""
    role_alias: Annotated[str, Meta(description="name of the role alias", max_length=128, examples=["lorabridge"])] = ""
    region: Annotated[
        str, Meta(description="of the endpoint; it goes into the signature", examples=["eu-central-1"])
    ] = ""


class AwsIotSettings(LinkSettings, frozen=True, kw_only=True):
    """`[aws_iot]`: the endpoint, who we are there, and how hard we may press; for any other broker write `[mqtt]`."""

    port: Annotated[
        Literal[8883, 443], Meta(description="8883, or 443 (ALPN x-amzn-mqtt-ca) where only that gets out")
    ] = 8883
    transport: Annotated[
        Literal["tls", "websocket"],
        Meta(
            description='"websocket": MQTT within a signed WebSocket on port 443, whatever `port` says; '
            "the certificate fetches the credentials for it"
        ),
    ] = "tls"
    websocket: Annotated[WebSocketSettings, Meta(description="where those credentials come from")] = WebSocketSettings()
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
    def address(self) -> tuple[str, int]:
        """Host and port to dial."""
        if self.connect_address:
            return tls.split_address(self.connect_address)
        return self.endpoint, 443 if self.transport == "websocket" else self.port

    @property
    def alpn(self) -> str:
        """Without one port 443 speaks HTTP."""
        return tls.ALPN_MQTT if self.port == 443 and self.transport == "tls" else ""

    @property
    def credentials_address(self) -> tuple[str, int]:
        """Host and port to dial for temporary credentials."""
        if not self.websocket.connect_address:
            return self.websocket.credentials_endpoint, 443
        return tls.split_address(self.websocket.connect_address)

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
    if settings.transport == "websocket":
        problems += _check_websocket(settings.websocket, settings.endpoint, f"{where}.websocket")
    if set(settings.thing_name) - set(_THING_CHARACTERS):
        what, hint = "is not the name of a thing", "letters, digits, - _ and : only"
        problems.append(Problem(where=f"{where}.thing_name", what=what, hint=hint))
    return problems + check_common(settings, gateway_id, where)


def _check_websocket(settings: WebSocketSettings, endpoint: str, where: str) -> list[Problem]:
    """What is wrong with where the credentials come from, and with what is signed."""
    problems = tls.check_address(settings.connect_address, f"{where}.connect_address")
    name = settings.credentials_endpoint
    if tls.is_ip_literal(name) or not tls.is_host_name(name):
        hint = "aws iot describe-endpoint --endpoint-type iot:CredentialProvider prints it"
        what = "is no host name" if name else "is missing"
        problems.append(Problem(where=f"{where}.credentials_endpoint", what=what, hint=hint))
    if _ROLE_ALIAS.fullmatch(settings.role_alias) is None:
        hint = "aws iot list-role-aliases prints those that there are; letters, digits, _ = , @ and - only"
        what = "is not the name of a role alias" if settings.role_alias else "is missing"
        problems.append(Problem(where=f"{where}.role_alias", what=what, hint=hint))
    if _REGION.fullmatch(settings.region) is None:
        hint = "such as eu-central-1"
        what = "is not the name of a region" if settings.region else "is missing"
        problems.append(Problem(where=f"{where}.region", what=what, hint=hint))
    elif endpoint.endswith(".amazonaws.com") and f".{settings.region}." not in endpoint:
        what, hint = "is not the region of the endpoint", "the one that stands in its name"
        problems.append(Problem(where=f"{where}.region", what=what, hint=hint))
    return problems
