"""`lorabridge config example`: a configuration file to start from."""

from __future__ import annotations

import argparse

from lorabridge.daemon import config_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("what", choices=["example"], help="print a commented configuration file")


def run(_: argparse.Namespace) -> int:
    """Print it."""
    print(config_text.example(), end="")
    return 0
