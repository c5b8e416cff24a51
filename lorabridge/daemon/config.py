"""The configuration file: each room's settings composed into one, read whole, refused whole, with every reason."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lorabridge.daemon.answering import DownlinkSettings, JoinSettings, MacSettings, problems_of
from lorabridge.daemon.log import LogSettings
from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import DevAddr, NetID
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.concentratord.settings import ConcentratordSettings
from lorabridge.radio.recording import RecordingSettings
from lorabridge.radio.semtech_udp import SemtechUdpSettings
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.settings import Duration, did_you_mean, read_table
from lorabridge.store.values import StoreSettings
from lorabridge.upstream import aws_settings, mqtt_settings
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.link_settings import LinkSettings
from lorabridge.upstream.mqtt_settings import MqttSettings

RadioSettings = SemtechUdpSettings | BasicsStationSettings | ConcentratordSettings | Sx1302Settings | RecordingSettings

RADIO_TYPES: dict[str, type[RadioSettings]] = {
    "semtech_udp": SemtechUdpSettings,
    "basics_station": BasicsStationSettings,
    "concentratord": ConcentratordSettings,
    "sx1302": Sx1302Settings,
    "recording": RecordingSettings,
}
"""What `type` of a `[[radio]]` table can be."""

DEFAULT_PATH = Path("/etc/lorabridge/lorabridge.toml")


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[gateway]`: who we are."""

    id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            description="name of this gateway in topics and records",
            examples=["roof-1"],
        ),
    ]


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[network]`: what is ours on the air."""

    region: Annotated[
        str | None, Meta(description=f"LoRaWAN region of this gateway: {', '.join(REGIONS)}", examples=["EU868"])
    ] = None
    net_ids: Annotated[
        tuple[NetID, ...],
        Meta(description="NetIDs of our network; an address of no device outside of them is `foreign`"),
    ] = ()
    dev_addr_ranges: Annotated[
        tuple[str, ...],
        Meta(
            description="address ranges of ours beside the NetIDs; with neither, the networks of the devices count",
            examples=[["26011000/20"]],
        ),
    ] = ()
    duplicate_window: Annotated[
        Duration, Meta(description="how long a copy of a frame by another gateway counts as `duplicate`")
    ] = Duration(1.5)

    def __post_init__(self) -> None:
        wrong: list[str] = []
        if self.region is not None and self.region not in REGIONS:
            wrong.append(f"region: there is no {self.region!r} ({did_you_mean(self.region, REGIONS)})")
        if not 0 < self.duplicate_window <= 60:
            wrong.append("duplicate_window: more than 0 and at most 60 seconds")
        for text in self.dev_addr_ranges:
            try:
                parse_dev_addr_range(text)
            except ValueError as error:
                wrong.append(f"dev_addr_ranges: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))


class ReportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[report]`: what is told about ourselves, and how often."""

    stats_interval: Annotated[Duration, Meta(description="time between two `gateway_stats` records")] = Duration(60)
    security_interval: Annotated[
        Duration, Meta(description="refusals of one kind are told at once, then summed up for this long")
    ] = Duration(60)
    status_socket: Annotated[Path, Meta(description="where `lorabridge status` asks the running bridge")] = Path(
        "/run/lorabridge/status.sock"
    )

    def __post_init__(self) -> None:
        if self.stats_interval < 1 or self.security_interval < 1:
            raise ValueError("stats_interval and security_interval are at least one second")


class Config(msgspec.Struct, frozen=True, kw_only=True, rename={"radios": "radio"}):
    """The whole file."""

    gateway: GatewaySettings
    devices: Annotated[Path, Meta(description="device file, or a directory of *.toml files")] = Path(
        "/etc/lorabridge/devices.d"
    )
    network: NetworkSettings = NetworkSettings()
    join: JoinSettings = JoinSettings()
    mac: MacSettings = MacSettings()
    downlinks: DownlinkSettings = DownlinkSettings()
    store: StoreSettings = StoreSettings()
    aws_iot: AwsIotSettings | None = None
    mqtt: MqttSettings | None = None
    report: ReportSettings = ReportSettings()
    log: LogSettings = LogSettings()
    radios: tuple[RadioSettings, ...] = ()
    """The `[[radio]]` tables, in their order."""

    @property
    def link(self) -> LinkSettings:
        """The one way out that is configured."""
        found = self.mqtt or self.aws_iot
        if found is None:
            raise ValueError("neither aws_iot nor mqtt")  # `parse` told the operator
        return found


def load(path: Path) -> tuple[Config, str]:
    """The configuration in a file, and a fingerprint of its bytes (16 hex digits).

    Raises ConfigError with everything that is wrong in it. Files that it names are not looked at: see `check`.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        hint = "give the path with --config; `lorabridge config example` prints one to start from"
        raise ConfigError([Problem(where=str(path), what=error.strerror or str(error), hint=hint)]) from None
    return parse(text, str(path)), hashlib.sha256(text).hexdigest()[:16]


def parse(text: bytes, where: str) -> Config:
    """The configuration in the bytes of a TOML file. Raises ConfigError, and nothing else."""
    try:
        table = tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, an integer beyond all bounds; nested too deeply
        raise ConfigError([Problem(where=where, what=f"is no TOML: {error}")]) from None
    problems: list[Problem] = []
    radios = _read_radios(table.pop("radio", None), where, problems)
    config = read_table(Config, table, where, problems)
    problems += _check_link(table, where)
    errors = [problem for problem in problems if not problem.warning]
    if config is not None:
        errors += _check_answering(config, where)
    if config is None or errors:
        raise ConfigError([*problems, *(error for error in errors if error not in problems)])
    return msgspec.structs.replace(config, radios=radios)


def _check_answering(config: Config, where: str) -> list[Problem]:
    """What the region, or the form of an address range, forbids."""
    found = [
        Problem(where=f"{where}: mac.{name}", what=what, hint="leave it out for the region's default")
        for name, what in problems_of(config.mac, config.network.region)
    ]
    text = config.join.dev_addr_range
    if text is not None:
        try:
            address, _ = parse_dev_addr_range(text)
        except ValueError as error:
            found.append(Problem(where=f"{where}: join.dev_addr_range", what=str(error)))
        else:
            net_id = config.join.net_id
            if net_id is not None and not DevAddr(address).belongs_to(net_id):
                what = f"{text} does not belong to NetID {net_id}"
                found.append(Problem(where=f"{where}: join.dev_addr_range", what=what, hint="leave one of the two out"))
    return found


def _check_link(table: dict[str, Any], where: str) -> list[Problem]:
    """What is wrong with the form of `[aws_iot]` or `[mqtt]`, told also when another table is refused."""
    told_already: list[Problem] = []
    gateway = table.get("gateway")
    found = read_table(GatewaySettings, gateway, where, told_already) if isinstance(gateway, dict) else None
    gateway_id = "gateway" if found is None else found.id
    if "aws_iot" in table and "mqtt" in table:
        return [Problem(where=f"{where}: mqtt", what="stands beside [aws_iot]", hint="there is one way out: keep one")]
    if isinstance(table.get("mqtt"), dict):
        broker = read_table(MqttSettings, table["mqtt"], where, told_already)
        return [] if broker is None else mqtt_settings.check_form(broker, gateway_id, f"{where}: mqtt")
    if isinstance(table.get("aws_iot"), dict):
        aws = read_table(AwsIotSettings, table["aws_iot"], where, told_already)
        return [] if aws is None else aws_settings.check_form(aws, gateway_id, f"{where}: aws_iot")
    if "aws_iot" in table or "mqtt" in table:
        return []
    hint = "the endpoint of AWS IoT; for any other broker write [mqtt]"
    return [Problem(where=f"{where}: aws_iot", what="is missing", hint=hint)]


def _read_radios(tables: Any, where: str, problems: list[Problem]) -> tuple[RadioSettings, ...]:
    """The `[[radio]]` tables by their `type`; at least one, each with a name of its own."""
    if not isinstance(tables, list) or not tables:
        what = "no radio source is configured" if tables in (None, []) else "is no list of tables"
        hint = 'write [[radio]], with two brackets, and type = "semtech_udp" below it'
        problems.append(Problem(where=f"{where}: radio", what=what, hint=hint))
        return ()
    found: list[RadioSettings] = []
    for number, table in enumerate(tables, 1):
        place = f"radio[{number}]"
        kind = table.pop("type", "") if isinstance(table, dict) else ""
        settings_type = RADIO_TYPES.get(kind) if isinstance(kind, str) else None
        if settings_type is None:
            what = f"there is no radio type {kind!r}" if kind and isinstance(kind, str) else "is missing, or no text"
            hint = did_you_mean(kind if isinstance(kind, str) else "", RADIO_TYPES)
            problems.append(Problem(where=f"{where}: {place}.type", what=what, hint=hint))
            continue
        settings = read_table(settings_type, table, where, problems, place)
        if settings is None:
            continue
        if any(settings.name == other.name for other in found):
            hint = "give each [[radio]] a name of its own"
            problems.append(Problem(where=f"{where}: {place}.name", what=f"{settings.name!r} is taken", hint=hint))
        found.append(settings)
    return tuple(found)


def parse_dev_addr_range(text: str) -> tuple[int, int]:
    """An address range such as `26011000/20` as (address, bits). Raises ValueError with a sentence."""
    address, slash, bits = text.partition("/")
    if not slash or not bits.isascii() or not bits.isdigit() or not 1 <= int(bits) <= 32:
        raise ValueError(f"{text!r} is not of the form 26011000/20")
    return int(DevAddr.parse(address)), int(bits)
