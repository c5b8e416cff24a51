"""`lorabridge run`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
from pathlib import Path

from lorabridge.cli.main import EXIT_BUG, EXIT_OK
from lorabridge.daemon import config, log
from lorabridge.daemon.log import Facts
from lorabridge.daemon.service import Service
from lorabridge.errors import ConfigError, TransientError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file")


def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keys are in memory
    loaded, fingerprint = config.load(args.config)
    logbook = log.set_up(loaded.log)
    try:
        asyncio.run(_serve(args.config, loaded, fingerprint, logbook))
    except (ConfigError, TransientError):
        raise
    except Exception as error:  # noqa: BLE001  # the last line of the log: places, and no values
        Facts(logging.getLogger("lorabridge")).critical("a bug ended the bridge", exc=error)
        return EXIT_BUG
    finally:
        logbook.close()
    return EXIT_OK


async def _serve(path: Path, loaded: config.Config, fingerprint: str, logbook: log.Log) -> None:
    await Service(path, loaded, fingerprint, logbook).run()
