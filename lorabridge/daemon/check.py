"""What `lorabridge check` looks at beyond the form of the configuration: keys, certificates, places, sockets."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from lorabridge.daemon.config import Config
from lorabridge.daemon.service import check_format, check_regions, credentials_directory
from lorabridge.errors import ConfigError, Problem
from lorabridge.radio.basics_station.settings import BasicsStationSettings, read_token, tls_context
from lorabridge.radio.boards import find_board
from lorabridge.radio.concentratord.settings import ConcentratordSettings, missing_extra, socket_problem
from lorabridge.radio.holders import taken
from lorabridge.radio.recording import RecordingSettings
from lorabridge.radio.semtech_udp import SemtechUdpSettings
from lorabridge.radio.sx1302.plan import read_plan
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.store.devices import load_devices
from lorabridge.store.key_wrap import check_key_encryption_key
from lorabridge.upstream.link_settings import check_files

_LITTLE_ROOM = 32 << 20
"""Bytes."""


def check(config: Config, where: str) -> list[Problem]:
    """Every problem of what the configuration names; nothing is changed by looking."""
    problems = check_files(config.link, datetime.now(UTC))
    devices, device_problems = load_devices(config.devices, credentials_dir=credentials_directory())
    problems += [*device_problems, *check_regions(config, devices), *check_format(config, devices)]
    problems += check_key_encryption_key(config.store, credentials_directory())
    problems += check_store_folder(config, where)
    problems += _check_folder(config.report.status_socket.parent, f"{where}: report.status_socket", warning=True)
    for number, radio in enumerate(config.radios, 1):
        place = f"{where}: radio[{number}]"
        if isinstance(radio, RecordingSettings):
            problems += _check_readable(Path(radio.path), f"{place}.path", "give the path of a recording")
        elif isinstance(radio, Sx1302Settings):
            problems += _check_concentrator(radio, place)
        elif isinstance(radio, BasicsStationSettings):
            problems += _check_endpoint(radio, place)
        elif isinstance(radio, ConcentratordSettings):
            problems += _check_concentratord(radio, place)
        else:
            problems += _check_bind(radio, place, socket.SOCK_DGRAM)
    return problems


def check_store_folder(config: Config, where: str) -> list[Problem]:
    """What is wrong with the place of the database."""
    folder, where = Path(config.store.path).parent, f"{where}: store.path"
    if problems := _check_folder(folder, where):
        return problems
    disk = os.statvfs(folder)
    if (free := disk.f_bavail * disk.f_frsize) < _LITTLE_ROOM:
        what, hint = f"only {free >> 20} MiB are free in {folder}", "records wait there while the endpoint is away"
        return [Problem(where=where, what=what, hint=hint, warning=True)]
    return []


def _check_folder(folder: Path, where: str, *, warning: bool = False) -> list[Problem]:
    """A folder that we can write, or make."""
    if folder.is_dir():
        if os.access(folder, os.W_OK | os.X_OK):
            return []
        what, hint = f"cannot write in {folder}", "run this as the service's user, or give it the folder"
    elif folder.exists():
        what, hint = f"{folder} is no folder", "give a path in a folder of the service"
    else:
        what, hint = f"{folder} is missing", f"the service makes it; without systemd: mkdir -m 700 -p {folder}"
        warning = True
    return [Problem(where=where, what=what, hint=hint, warning=warning)]


def _check_readable(path: Path, where: str, hint: str) -> list[Problem]:
    if path.is_file() and os.access(path, os.R_OK):
        return []
    return [Problem(where=where, what=f"{path} cannot be read", hint=hint)]


def _check_concentrator(settings: Sx1302Settings, where: str) -> list[Problem]:
    """The library is there, and the channel plan means something; the library itself is loaded by its own process."""
    found = _check_readable(settings.library, f"{where}.library", "docs/sx1302.md says how to build it")
    for read in (lambda: read_plan(settings.configuration), lambda: settings.board and find_board(settings.board)):
        try:
            read()
        except ConfigError as error:
            found += error.problems
    return found


def _check_concentratord(settings: ConcentratordSettings, where: str) -> list[Problem]:
    """The package for ZeroMQ is installed; a socket that is not there now may be there when the bridge runs."""
    sockets = (
        socket_problem(settings.event_url, f"{where}.event_url"),
        socket_problem(settings.command_url, f"{where}.command_url"),
    )
    return missing_extra(where) + [problem for problem in sockets if problem is not None]


def _check_endpoint(settings: BasicsStationSettings, where: str) -> list[Problem]:
    """The certificates and the token can be used, also by the stations, and there is a port to listen on."""
    found: list[Problem] = []
    for read in (tls_context, read_token):
        try:
            read(settings)
        except ConfigError as error:
            found += error.problems
    if settings.token_file is not None and settings.certificate_file is None:
        what = "stations show their token within TLS only, and are all refused"
        hint = "give certificate_file, unless something in front of the port ends TLS"
        found.append(Problem(where=f"{where}.token_file", what=what, hint=hint, warning=True))
    return found + _check_bind(settings, where, socket.SOCK_STREAM)


def _check_bind(
    settings: SemtechUdpSettings | BasicsStationSettings, where: str, kind: socket.SocketKind
) -> list[Problem]:
    """An address and port that can be bound; a port in use is most likely the bridge itself at work."""
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind is socket.SOCK_STREAM))
            probe.bind((settings.bind, settings.port))
    except OSError as error:
        hint = f"who has it: ss -ltunp 'sport = :{settings.port}'; if it is the running bridge all is well"
        what = f"cannot listen on {settings.bind} port {settings.port}: {taken(error, kind, settings.port)}"
        return [Problem(where=where, what=what, hint=hint, warning=True)]
    return []
