"""`[mqtt]`: a broker that is not AWS IoT, such as mosquitto or EMQX, in the place of `[aws_iot]`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.settings import ByteSize
from lorabridge.upstream import tls
from lorabridge.upstream.link_settings import LinkSettings, check_common


class MqttSettings(
    LinkSettings, frozen=True, kw_only=True, rename={"endpoint": "host", "thing_name": "client_id", "is_plain": "plain"}
):
    """`[mqtt]`: a broker that is not AWS IoT, in the place of `[aws_iot]`."""

    ROOTS: ClassVar[str] = "the CA certificate of the broker"
    OWN: ClassVar[str] = "the client certificate of this gateway"

    endpoint: Annotated[
        str,
        Meta(
            description="name or IP address of the broker; its certificate must be for exactly that",
            examples=["broker.example.net"],
        ),
    ]
    port: Annotated[int, Meta(description="its port for MQTT over TLS", ge=1, le=65535)] = 8883
    is_plain: Annotated[
        bool, Meta(description="no TLS at all, for a broker on this machine: `host` must be 127.0.0.1 or ::1 then")
    ] = False
    ca_file: Annotated[str, Meta(description="PEM file of the CA that the broker's certificate comes from")] = (
        "/etc/lorabridge/broker-ca.pem"
    )
    certificate_file: Annotated[
        str, Meta(description="PEM file of a client certificate, where the broker asks for one; else empty")
    ] = ""
    private_key_file: Annotated[str, Meta(description="PEM file of its private key, mode 600")] = ""
    tls_max: Annotated[Literal["1.2", "1.3"], Meta(description="highest TLS version offered; the lowest is 1.2")] = (
        "1.3"
    )
    thing_name: Annotated[
        str,
        Meta(
            description="MQTT client id: no other client of the broker may have it",
            min_length=1,
            max_length=128,
            examples=["roof-1"],
        ),
    ]
    user_name: Annotated[str, Meta(description="user name, where the broker asks for one", max_length=256)] = ""
    password_file: Annotated[str, Meta(description="file with the password alone, mode 600")] = ""
    mqtt_version: Annotated[
        Literal["3.1.1", "5"],
        Meta(description="with 3.1.1 a broker may acknowledge, and throw away, what its access list forbids"),
    ] = "5"
    in_flight: Annotated[int, Meta(description="publishes without PUBACK at a time", ge=1, le=100)] = 100
    max_publishes_per_second: Annotated[int, Meta(description="0: no limit", ge=0)] = 0
    max_bytes_per_second: Annotated[ByteSize, Meta(description="0: no limit")] = ByteSize(0)
    max_payload: Annotated[
        ByteSize, Meta(description="largest payload that the broker takes; a larger record is parked")
    ] = ByteSize(256 * 1024)
    retain_status: Annotated[bool, Meta(description="keep the last status at the broker")] = False

    @property
    def alpn(self) -> str:
        """Brokers know MQTT by the port, whatever it is."""
        return ""

    @property
    def wants_tls(self) -> bool:
        """Whether there is TLS; without, `tls.context` dials nothing but this machine."""
        return not self.is_plain

    @property
    def files(self) -> tuple[str, ...]:
        """What may be replaced while we run."""
        return self.ca_file, self.certificate_file, self.private_key_file, self.password_file

    @property
    def largest_payload(self) -> int:
        """As configured."""
        return self.max_payload

    @property
    def credentials(self) -> tuple[str, str]:
        """As configured."""
        return self.user_name, self.password_file


def check_form(settings: MqttSettings, gateway_id: str, where: str = "mqtt") -> list[Problem]:
    """Everything that is wrong with the settings themselves; `where` is the place of the table."""
    problems = _check_way(settings, where)
    if bool(settings.certificate_file) != bool(settings.private_key_file):
        what, hint = "a certificate and its key go together", "give both, or neither"
        problems.append(Problem(where=f"{where}.private_key_file", what=what, hint=hint))
    if settings.password_file and not settings.user_name:
        what, hint = "MQTT knows no password without a user name", "set user_name too"
        problems.append(Problem(where=f"{where}.password_file", what=what, hint=hint))
    if settings.topics.basic_ingest_rule:
        what, hint = "belongs to AWS IoT", "leave it out"
        problems.append(Problem(where=f"{where}.topics.basic_ingest_rule", what=what, hint=hint))
    return problems + check_common(settings, gateway_id, where)


def _check_way(settings: MqttSettings, where: str) -> list[Problem]:
    """Whom we dial: a name or an address, and without TLS an address of this machine only."""
    problems = tls.check_address(settings.connect_address, f"{where}.connect_address")
    if not _is_address(settings.endpoint) and (
        tls.is_ip_literal(settings.endpoint) or not tls.is_host_name(settings.endpoint)
    ):
        hint = "such as broker.example.net, 192.0.2.7 or 2001:db8::7; the port goes into `port`"
        problems.append(Problem(where=f"{where}.host", what="is no host name and no IP address", hint=hint))
    elif settings.is_plain and not problems and not tls.is_loopback(settings.address[0]):
        what, hint = "without TLS nothing but this machine is dialled", "use TLS, or 127.0.0.1 or ::1 as the host"
        problems.append(Problem(where=f"{where}.plain", what=what, hint=hint))
    return problems


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
