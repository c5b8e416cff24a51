"""A `[[radio]]` of type `basics_station`: what an operator says of the endpoint for stations."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.regions import REGIONS
from lorabridge.radio.channel_plan import ChannelPlan, make_plan
from lorabridge.radio.source_settings import AllowedGateways, SourceName, check_bind, is_local

MAX_TOKEN_FILE = 4096
"""Bytes of the file that holds the token."""


class BasicsStationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[radio]]` of type `basics_station`: Basics Stations that connect to us."""

    region: Annotated[str, Meta(description="channel plan that the stations are given", examples=["EU868"])]
    sub_band: Annotated[
        int, Meta(ge=0, le=12, description="US915, AU915, CN470: which eight channels the stations hear, from 1")
    ] = 0
    name: SourceName = "station"
    bind: Annotated[
        str, Meta(description="IP address to listen on; a station on the same machine needs only the default")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")] = 1887
    gateways: AllowedGateways = ()
    certificate_file: Annotated[
        str | None,
        Meta(
            description="PEM file of this endpoint's certificate (wss://); left out, connections are not encrypted",
            examples=["/etc/lorabridge/lns.pem"],
        ),
    ] = None
    private_key_file: Annotated[
        str | None, Meta(description="PEM file of its key", examples=["/etc/lorabridge/lns.key"])
    ] = None
    client_ca_file: Annotated[
        str | None,
        Meta(
            description="PEM file of the authority that signed the stations' certificates; with it, stations without "
            "one are refused",
            examples=["/etc/lorabridge/stations-ca.pem"],
        ),
    ] = None
    token_file: Annotated[
        str | None,
        Meta(
            description="file with what stations have to send as their Authorization header",
            examples=["/etc/lorabridge/station-token"],
        ),
    ] = None
    max_stations: Annotated[int, Meta(ge=1, le=10_000, description="stations that may be connected at a time")] = 64

    def __post_init__(self) -> None:
        check_bind(self.bind)
        if self.region not in REGIONS:
            raise ValueError(f"region: {self.region!r} is not known; known are {', '.join(REGIONS)}")
        if (self.certificate_file is None) is not (self.private_key_file is None):
            raise ValueError("certificate_file and private_key_file go together")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("client_ca_file needs certificate_file: certificates are shown within TLS only")
        try:
            make_plan(REGIONS[self.region], self.sub_band)
        except ValueError as error:
            raise ValueError(f"sub_band: {error}") from None

    @property
    def plan(self) -> ChannelPlan:
        """The channels of the stations."""
        return make_plan(REGIONS[self.region], self.sub_band)

    @property
    def is_open(self) -> bool:
        """Whether anybody who reaches the port may speak."""
        return not (is_local(self.bind) or self.gateways or self.client_ca_file or self.token_file)


def tls_context(settings: BasicsStationSettings) -> ssl.SSLContext | None:
    """What encrypts connections: TLS 1.2 or later; None for plain ones. Raises ConfigError."""
    if settings.certificate_file is None or settings.private_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate_file, settings.private_key_file, password=_no_password)
        if settings.client_ca_file is not None:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError, ValueError) as error:
        what = f"the certificate files cannot be used: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(
            [Problem(where=settings.name, what=what, hint="they are PEM, the key without password")]
        ) from None
    return context


def read_token(settings: BasicsStationSettings) -> str | None:
    """What a station has to send; None when nothing is asked for. Raises ConfigError, which never repeats it."""
    if settings.token_file is None:
        return None
    try:
        with Path(settings.token_file).open("rb") as file:
            token = file.read(MAX_TOKEN_FILE).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "is no text of ASCII characters"
        raise ConfigError([Problem(where=settings.token_file, what=f"cannot be read: {what}")]) from None
    if not token or not token.isprintable():
        raise ConfigError([Problem(where=settings.token_file, what="holds no token", hint="one line of text")])
    return token


def _no_password() -> str:
    """An encrypted key must not make the service wait at a prompt."""
    raise ValueError("the key is encrypted")
