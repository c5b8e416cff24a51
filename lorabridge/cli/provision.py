"""`lorabridge provision`: exchange the claim certificate of a fleet for one of this gateway's own."""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import time
from pathlib import Path

from lorabridge import __version__
from lorabridge.cli.main import EXIT_FAILED, EXIT_OK
from lorabridge.daemon import config
from lorabridge.errors import ConfigError, Problem, TransientError
from lorabridge.lorawan.events import EventKind, Status
from lorabridge.store.certificate_files import CertificateFiles
from lorabridge.upstream import schema
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.dialogue import Dialogue, RejectedError
from lorabridge.upstream.provisioning import Claim, Provisioned, connection_settings, provision
from lorabridge.upstream.topics import Topics

_SERVICE_USER = "lorabridge"
_PROOFS = 5
"""Connections until the new certificate must work: AWS IoT makes it known everywhere within seconds."""
_PAUSE = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file")
    parser.add_argument("--template", required=True, help="name of the provisioning template")
    parser.add_argument("--claim-certificate", required=True, help="PEM file that the fleet shares")
    parser.add_argument("--claim-key", required=True, help="its private key")
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what the template asks for; SerialNumber is the thing's name unless given",
    )
    parser.add_argument("--force", action="store_true", help="although there is a certificate already")
    parser.add_argument("--no-proof", action="store_true", help="do not connect with the new certificate")


def run(args: argparse.Namespace) -> int:
    """Ask, write the two files, prove them; exit status 1 when they are written and do not work yet."""
    loaded, _ = config.load(args.config)
    settings = loaded.aws_iot
    if settings is None:
        what, hint = "provisioning is a service of AWS IoT", "this configuration has [mqtt] in the place of [aws_iot]"
        raise ConfigError([Problem(where=str(args.config), what=what, hint=hint)])
    _refuse_to_overwrite(settings, force=args.force)
    claim = Claim(
        args.claim_certificate,
        args.claim_key,
        args.template,
        {"SerialNumber": settings.thing_name, **dict(map(_parameter, args.parameter))},
    )
    try:
        made = asyncio.run(provision(settings, claim, time.time))
    except RejectedError as error:
        print(f"refused by AWS IoT: {error}")
        print("look at the template, its pre-provisioning hook, and the policy of the claim certificate (docs/aws.md)")
        return EXIT_FAILED
    _install(settings, made)
    print(f"certificate {made.certificate_id} for {made.thing_name}")
    print(f"  {settings.certificate_file}\n  {settings.private_key_file} (0600)")
    if made.thing_name != settings.thing_name:
        print(f"the template calls this gateway {made.thing_name!r}: write that as aws_iot.thing_name in {args.config}")
        return EXIT_FAILED
    if args.no_proof:
        return EXIT_OK
    return asyncio.run(_prove(settings, loaded.gateway.id))


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        hint = "as in --parameter SerialNumber=gw-1"
        raise ConfigError([Problem(where="--parameter", what=f"{text!r} is no NAME=VALUE", hint=hint)])
    return name, value


def _refuse_to_overwrite(settings: AwsIotSettings, *, force: bool) -> None:
    for folder in {Path(path).parent for path in (settings.certificate_file, settings.private_key_file)}:
        if not os.access(folder, os.W_OK):  # before a certificate is made that nobody could keep
            hint = "run it as a user who may write there (sudo), or make the folder"
            raise ConfigError([Problem(where=str(folder), what="no file can be written there", hint=hint)])
    there = [path for path in (settings.certificate_file, settings.private_key_file) if Path(path).exists()]
    if there and not force:
        hint = "--force asks for another; the old files are kept beside the new ones as *.old"
        raise ConfigError([Problem(where=path, what="is there already", hint=hint) for path in there])


def _install(settings: AwsIotSettings, made: Provisioned) -> None:
    """The pair into its place, for the account of the service."""
    files = CertificateFiles(settings.certificate_file, settings.private_key_file)
    try:
        files.install(made.certificate_pem, made.private_key_pem, _hand_over)
    except OSError as error:
        hint = "run it as a user who may write there (sudo)"
        where, what = str(error.filename), f"cannot be written: {error.strerror}"
        raise ConfigError([Problem(where=where, what=what, hint=hint)]) from None


def _hand_over(path: Path) -> None:
    """To the account of the service, where there is one and we may: root's 0600 is nobody else's."""
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(_SERVICE_USER)
    except KeyError:
        return
    os.chown(path, user.pw_uid, user.pw_gid)


async def _prove(settings: AwsIotSettings, gateway_id: str) -> int:
    """Connect as the thing and have a publish acknowledged."""
    topic = Topics(settings.topics, gateway_id).topic(EventKind.STATUS, None)
    detail = "provisioned, and not started yet"
    status = Status(at=time.time_ns(), state="offline", version=__version__, config_fingerprint="", detail=detail)
    said: TransientError | None = None
    for number in range(_PROOFS):
        if number:
            await asyncio.sleep(_PAUSE)
        try:
            async with Dialogue.open(connection_settings(settings)) as dialogue:
                await dialogue.prove(topic, schema.encode(status, gateway_id).payload)
        except TransientError as error:
            said = error
        else:
            print("proved: connected with it, and a publish was acknowledged")
            return EXIT_OK
    print(f"written, but it does not work yet: {said}")
    return EXIT_FAILED
