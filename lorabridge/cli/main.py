"""`lorabridge COMMAND …`: finds the command, reads its arguments, runs it. Only that command is imported."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from lorabridge import __version__
from lorabridge.errors import ConfigError, TransientError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h: systemd starts us again."""
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd does not restart for it (RestartPreventExitStatus)."""

COMMANDS = {
    "run": "run the bridge (what the service does)",
    "check": "check configuration, keys, certificates and permissions: all problems at once",
    "doctor": "walk the way to the endpoint and say where it is broken, and what to do",
    "status": "what the running bridge is doing",
    "simulate": "play recorded frames through the whole bridge into a stand-in for the endpoint",
    "standin": "a stand-in for the endpoint, to develop without an account",
    "decode": "print what is in a LoRaWAN frame",
    "devices": "list, check, show and import devices",
    "record": "write down what the radio hears",
    "radio": "find concentrators, make the files that drive one, and show frames as they arrive",
    "provision": "exchange the claim certificate of a fleet for one of this gateway",
    "config": "print an example configuration",
    "outbox": "look at what waits to be sent, and decide what becomes of refused records",
    "store": "check the database, or set a damaged one aside",
}


class Command(Protocol):
    """What a module of this folder offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the result is the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    if name not in COMMANDS:
        return _no_command(name)
    command = cast("Command", importlib.import_module(f"lorabridge.cli.{name}"))
    parser = argparse.ArgumentParser(prog=f"lorabridge {name}", description=COMMANDS[name].capitalize() + ".")
    command.add_arguments(parser)
    args = parser.parse_args(words[1:])
    try:
        status = command.run(args)
        sys.stdout.flush()  # a reader who has gone is told of here, not by the interpreter at its end
    except ConfigError as error:
        for problem in error.problems:
            _complain(str(problem), logging.WARNING if problem.warning else logging.ERROR)
        return EXIT_CONFIG
    except TransientError as error:
        _complain(f"lorabridge {name}: {error}", logging.ERROR)
        return EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    return status


def _complain(text: str, level: int) -> None:
    """To standard error; to the journal with a priority, or a refused start would look like any other line."""
    from lorabridge.daemon.log import PRIORITY, to_journal  # noqa: PLC0415  # only for commands that fail

    priority = f"<{PRIORITY[level]}>" if to_journal(sys.stderr, os.environ) else ""
    print(f"{priority}{text}", file=sys.stderr)


def _no_command(name: str) -> int:
    """The list of commands, for whoever asked for it or typed an unknown one."""
    lines = ["usage: lorabridge COMMAND [options]", ""]
    lines += [f"  {command:<10}{says}" for command, says in COMMANDS.items()]
    lines += ["", "lorabridge COMMAND --help tells the options of one."]
    if name in ("", "-h", "--help", "help"):
        print("\n".join(lines))
        return EXIT_OK if name else EXIT_USAGE
    if name in ("-V", "--version"):
        print(f"lorabridge {__version__}")
        return EXIT_OK
    print(f"lorabridge: unknown command {name!r}\n", file=sys.stderr)
    print("\n".join(lines), file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
