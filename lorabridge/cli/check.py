"""`lorabridge check`: everything that is wrong, before the service finds out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lorabridge.cli.main import EXIT_CONFIG, EXIT_OK
from lorabridge.daemon import check, config
from lorabridge.errors import ConfigError, Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--config", type=Path, default=config.DEFAULT_PATH, help="configuration file; - is standard input"
    )
    parser.add_argument(
        "--form-only", action="store_true", help="look at the configuration only, not at the files it names"
    )


def run(args: argparse.Namespace) -> int:
    """Print every problem; exit status 78 when one of them is an error."""
    problems: list[Problem] = []
    try:
        if str(args.config) == "-":
            loaded = config.parse(sys.stdin.buffer.read(), "standard input")
        else:
            loaded, _ = config.load(args.config)
        problems = [] if args.form_only else check.check(loaded, str(args.config))
    except ConfigError as error:
        problems = error.problems
    for problem in problems:
        print(problem)
    errors = sum(not problem.warning for problem in problems)
    if errors:
        print(f"{errors} to mend before the bridge can run")
        return EXIT_CONFIG
    print(f"in order, {len(problems)} warning(s)" if problems else "in order")
    return EXIT_OK
