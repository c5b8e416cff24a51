"""`lorabridge status`: ask the running bridge what it is doing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lorabridge.daemon import config, status
from lorabridge.errors import ConfigError, Problem

_TIMEOUT = 5.0
_YES_NO = {True: "yes", False: "no"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file")
    parser.add_argument("--json", action="store_true", help="print the answer as it came")


def run(args: argparse.Namespace) -> int:
    """Print the answer; exit status 1 when something is stuck or the link is down."""
    loaded, _ = config.load(args.config)
    answer = _ask(loaded.report.status_socket)
    print(json.dumps(answer, indent=2) if args.json else _readable(answer))
    return 0 if answer["healthy"] else 1


def _ask(path: Path) -> dict[str, Any]:
    """The answer of the bridge. Raises ConfigError when there is none."""
    try:
        return status.ask(path, _TIMEOUT)
    except (OSError, ValueError) as error:
        hint = "is the service running? systemctl status lorabridge; may you read the socket? try sudo"
        raise ConfigError([Problem(where=str(path), what=f"no answer: {error}", hint=hint)]) from None


def _readable(answer: dict[str, Any]) -> str:
    """The answer for people: one fact a line, and of the counters those that counted something."""
    facts = {name: value for name, value in answer.items() if isinstance(value, (str, int)) and value != ""}
    lines = [f"{name:<12} {_YES_NO[value] if isinstance(value, bool) else value}" for name, value in facts.items()]
    if answer["stuck"]:
        lines.append(f"{'stuck':<12} {', '.join(answer['stuck'])}")
    lines += [f"{state:<12} {name}" for name, state in answer.get("radios_down", {}).items()]
    for title in ("verdicts", "counters", "gateways"):
        lines += ["", f"{title}:"]
        lines += [f"  {name:<44} {value}" for name, value in answer[title].items() if value] or ["  none"]
    return "\n".join(lines)
