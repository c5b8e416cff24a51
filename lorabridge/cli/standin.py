"""`lorabridge standin`: the stand-in for the AWS IoT endpoint alone, for those who develop without an account."""

from __future__ import annotations

import argparse
import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.daemon import log
from lorabridge.errors import ConfigError, Problem
from lorabridge.simulation.pki import WARNING, Pair, Pki, make_pki, new_ec_key
from lorabridge.simulation.standin import (
    Event,
    Policy,
    Role,
    StandIn,
    StandInSettings,
    Template,
    claim_policy,
    thing_policy,
)
from lorabridge.simulation.standin.quotas import BYTES_PER_SECOND
from lorabridge.simulation.standin.services.lending import region_of

ENDPOINT = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"
ROLE_ALIAS = "lorabridge"
MARKER = "made-by-lorabridge-standin"
"""Lists the files that a run made: the next one replaces them, and touches no others."""
_MOST_SHOWN = 400
"""Characters of a payload, for people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "folder", type=Path, help="where the throw-away certificates go; what an earlier run left there is replaced"
    )
    parser.add_argument("--gateway-id", default="gw-1", metavar="ID", help="thing name and client id (default: gw-1)")
    parser.add_argument("--endpoint", default=ENDPOINT, metavar="NAME", help="SNI and name of the certificate")
    parser.add_argument("--port", type=int, default=8883, metavar="PORT", help="0 takes a free one (default: 8883)")
    parser.add_argument(
        "--alpn-port",
        type=int,
        default=8443,
        metavar="PORT",
        help="stands for 443 with ALPN; 0 takes a free one (default: 8443)",
    )
    parser.add_argument(
        "--websocket-port",
        type=int,
        default=9443,
        metavar="PORT",
        help="stands for 443 without ALPN; 0 takes a free one (default: 9443)",
    )
    parser.add_argument(
        "--credentials-port",
        type=int,
        default=9444,
        metavar="PORT",
        help="the credentials provider; 0 takes a free one (default: 9444)",
    )
    parser.add_argument("--websocket", action="store_true", help="print the settings of MQTT over WebSocket")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a broker without TLS for MQTT 5 (default: amqtt inside)")
    parser.add_argument("--template", action="append", default=[], metavar="NAME", help="a provisioning template")
    parser.add_argument("--just-in-time", action="store_true", help="the gateway's certificate is not registered yet")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    faults = parser.add_argument_group("faults")
    faults.add_argument("--cut-every", type=float, metavar="S", help="drop every connection each S seconds")
    faults.add_argument("--publishes-per-second", type=int, default=100, metavar="N", help="0: no limit (default: 100)")
    faults.add_argument(
        "--bytes-per-second", type=int, default=BYTES_PER_SECOND, metavar="N", help="0: no limit (default: 512 KiB)"
    )
    faults.add_argument(
        "--credentials-last", type=float, default=3600, metavar="S", help="lifetime of credentials (default: 3600)"
    )
    faults.add_argument("--deny-subscribe", action="store_true", help="the gateway's policy lacks iot:Subscribe")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    broker = _broker(args.broker)
    logbook = log.set_up(log.LogSettings(level="error"))
    try:
        return asyncio.run(_serve(args, broker))
    finally:
        logbook.close()


async def _serve(args: argparse.Namespace, broker: tuple[str, int] | None) -> int:
    show = _Json() if args.json else _Text()
    made = _make(args)
    stop = _stop_event()
    standin = StandIn(_settings(args, made), pki=made.pki, broker=broker, observer=show.publish, watcher=show.event)
    try:
        async with standin:
            show.start(_connection(args, made.pki, standin), _websocket(made.pki, standin), _notes(args, standin))
            await _until(stop, standin, args.cut_every)
    except OSError as error:
        hint = "--port, --alpn-port, --websocket-port and --credentials-port name others, 0 takes a free one"
        raise ConfigError([Problem(where="the stand-in", what=str(error), hint=hint)]) from None
    return 0


def _stop_event() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until(stop: asyncio.Event, standin: StandIn, cut_every: float | None) -> None:
    """Until it is set, cutting the connections now and then where that is asked for."""
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), cut_every)
        except TimeoutError:
            standin.cut()


def _broker(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError([Problem(where="--broker", what="is not host:port", hint="such as 127.0.0.1:1883")])
    return host.strip("[]"), int(port)


class _Made(msgspec.Struct, frozen=True):
    """The certificates of a run."""

    pki: Pki
    cloud: Pair
    claim: Pair


def _make(args: argparse.Namespace) -> _Made:
    """All certificates anew, those of the cloud and of a claim among them."""
    folder: Path = args.folder
    marker = folder / MARKER
    if marker.exists():
        for name in marker.read_text(encoding="utf-8").splitlines():
            (folder / Path(name).name).unlink(missing_ok=True)
        marker.unlink()
    if folder.exists() and any(folder.iterdir()):
        hint = "name an empty one, or one that does not exist"
        raise ConfigError([Problem(where=str(folder), what="has files that are not the stand-in's", hint=hint)])
    pki = make_pki(folder, endpoint=args.endpoint, gateway_id=args.gateway_id)
    cloud, claim = (pki.devices.client(name, new_ec_key(), name) for name in ("cloud", "claim"))
    marker.write_text("\n".join(path.name for path in folder.iterdir()), encoding="utf-8")
    return _Made(pki, cloud, claim)


def _settings(args: argparse.Namespace, made: _Made) -> StandInSettings:
    everything = ("*",)
    cloud = Policy(client_id="*", publish=everything, retain=everything, subscribe=everything, receive=everything)
    gateway = msgspec.structs.replace(thing_policy(args.gateway_id), assume_role=(ROLE_ALIAS,))
    if args.deny_subscribe:
        gateway = msgspec.structs.replace(gateway, subscribe=())
    policies = {made.cloud.fingerprint: cloud, made.claim.fingerprint: claim_policy("*")}
    if not args.just_in_time:
        policies[made.pki.gateway.fingerprint] = gateway
    return StandInSettings(
        policies=policies,
        port=args.port,
        alpn_port=args.alpn_port,
        websocket_port=args.websocket_port,
        credentials_port=args.credentials_port,
        roles={ROLE_ALIAS: Role(lasts=args.credentials_last)},
        publishes_per_second=args.publishes_per_second,
        bytes_per_second=args.bytes_per_second,
        just_in_time=args.just_in_time,
        templates=dict.fromkeys(args.template, Template()),
    )


def _connection(args: argparse.Namespace, pki: Pki, standin: StandIn) -> dict[str, str]:
    """What stands in `[aws_iot]`."""
    port = standin.websocket_port if args.websocket else standin.port
    return {
        "endpoint": args.endpoint,
        **({"transport": "websocket"} if args.websocket else {}),
        "connect_address": f"127.0.0.1:{port}",
        "thing_name": args.gateway_id,
        "ca_file": str(pki.ca_file.resolve()),
        "certificate_file": str(pki.gateway.certificate.resolve()),
        "private_key_file": str(pki.gateway.key.resolve()),
        "certificate_warning": f"{WARNING}s",
    }


def _websocket(pki: Pki, standin: StandIn) -> dict[str, str]:
    """What stands in `[aws_iot.websocket]`; without `transport = "websocket"` it is not looked at."""
    return {
        "credentials_endpoint": pki.credentials_endpoint,
        "connect_address": f"127.0.0.1:{standin.credentials_port}",
        "role_alias": ROLE_ALIAS,
        "region": region_of(pki.endpoint),
    }


def _notes(args: argparse.Namespace, standin: StandIn) -> list[str]:
    """What else is there, for people."""
    lines = [f"127.0.0.1:{standin.alpn_port} stands for port 443 (ALPN x-amzn-mqtt-ca)"]
    if not args.websocket:
        lines.append(
            f"127.0.0.1:{standin.websocket_port} stands for port 443 (WebSocket): --websocket prints its lines"
        )
    lines.append("cloud.pem and cloud.key may do everything: a client with them is the cloud")
    if args.template:
        names = ", ".join(args.template)
        lines.append(f"claim.pem and claim.key may provision by {names}; SerialNumber names the thing")
    if args.just_in_time:
        lines.append("the gateway's certificate is not registered: its first connection fails, the next works")
    return lines


class _Text:
    """For people."""

    def start(self, connection: dict[str, str], websocket: dict[str, str], notes: list[str]) -> None:
        """Where it listens, and what to write into the configuration."""
        self._table("aws_iot", connection)
        if "transport" in connection:
            print()
            self._table("aws_iot.websocket", websocket)
        folder = Path(connection["ca_file"]).parent
        for note in (f"the certificates in {folder} are for a day", *notes):
            print(f"# {note}")
        print(flush=True)

    def _table(self, name: str, lines: dict[str, str]) -> None:
        print(f"[{name}]")
        for key, value in lines.items():
            print(f"{key} = {msgspec.json.encode(value).decode()}")

    def event(self, event: Event) -> None:
        """One line; what a peer sent is escaped."""
        refusal = event.refusal
        parts = [refusal.value] if refusal is not None else []
        parts += [event.detail] if event.detail else []
        if event.hello is not None and event.hello.server_name is not None:
            parts.append(f"for {event.hello.server_name.decode('ascii', 'backslashreplace')}")
        meaning = f"  ({refusal.doc})" if refusal is not None else ""
        number = f"#{event.connection}" if event.connection else ""
        self._line(event.at, event.kind.value, f"{number:<4} {_escaped(' '.join(parts))}{meaning}")

    def publish(self, topic: str, payload: bytes) -> None:
        """One line; a long payload is cut."""
        text = _escaped(payload.decode("utf-8", "backslashreplace"))
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(payload)} bytes)"
        self._line(datetime.now(UTC).timestamp(), "publish", f"     {_escaped(topic)} {shown}")

    def _line(self, at: float, kind: str, text: str) -> None:
        print(f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}  {kind:<15} {text}".rstrip(), flush=True)


class _Json(_Text):
    """For machines."""

    def start(self, connection: dict[str, str], websocket: dict[str, str], notes: list[str]) -> None:
        """The settings of `[aws_iot]`, and of its table `websocket`."""
        self._object({"kind": "listening", "aws_iot": {**connection, "websocket": websocket}, "notes": notes})

    def event(self, event: Event) -> None:
        """As it is."""
        self._object(event)

    def publish(self, topic: str, payload: bytes) -> None:
        """A payload that is JSON as it is, another one in hex."""
        fields: dict[str, Any] = {"at": datetime.now(UTC).timestamp(), "kind": "publish", "topic": topic}
        try:
            fields["payload"] = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields["payload_hex"] = payload.hex()
        self._object(fields)

    def _object(self, value: object) -> None:
        print(msgspec.json.encode(value).decode(), flush=True)


def _escaped(text: str) -> str:
    """Without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
