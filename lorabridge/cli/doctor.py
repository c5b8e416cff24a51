"""`lorabridge doctor`: where the way to the endpoint is broken, in one sentence, with the fix."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from lorabridge.cli.main import EXIT_FAILED, EXIT_OK
from lorabridge.daemon import config, doctor
from lorabridge.upstream.doctor.steps import NOTHING_HERE, Finding, Outcome, Step, cause

_MARKS = {Outcome.OK: "ok", Outcome.WARNING: "warning", Outcome.FAILED: "FAILED", Outcome.SKIPPED: "-"}
_MARK_WIDTH = 1 + max(map(len, _MARKS.values()))
_TITLE_WIDTH = 1 + max(len(step.title) for step in Step)
_NARROWEST = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file")
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="connect although the bridge is running: its connection is lost, and it comes back by itself",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print each step as it is known, then the cause; exit status 1 when one failed."""
    return report(doctor.examine(args.config, take_over=args.take_over), as_json=args.json)


def report(found_so_far: Iterable[Finding], *, as_json: bool) -> int:
    """Print findings as they come; the exit status."""
    findings: list[Finding] = []
    for finding in found_so_far:
        findings.append(finding)
        if not as_json and finding.outcome is not Outcome.SKIPPED:
            print("\n".join(_lines(finding)), flush=True)
    found = cause(findings)
    print(json.dumps(_document(findings), indent=2) if as_json else _conclusion(findings, found))
    return EXIT_OK if found is None else EXIT_FAILED


def _lines(finding: Finding) -> list[str]:
    """One finding for people: mark, step, and what there is to say beside them."""
    fix = f" ({finding.fix.rstrip('.')})" if finding.outcome is Outcome.WARNING and finding.fix else ""
    return _wrap(finding.says + fix, _head(finding.outcome, finding.step.title))


def _conclusion(findings: list[Finding], found: Finding | None) -> str:
    """What was left out, and the one sentence."""
    left_out = (one for one in findings if one.outcome is Outcome.SKIPPED and one.says != NOTHING_HERE)
    skipped = "; ".join(finding.step.title for finding in left_out)
    lines = _wrap(skipped, _head(Outcome.SKIPPED, "not looked at")) if skipped else []
    if found is None:
        warnings = sum(finding.outcome is Outcome.WARNING for finding in findings)
        return "\n".join([*lines, "", f"Nothing failed; {warnings} warning(s)." if warnings else "Nothing failed."])
    return "\n".join(
        [*lines, "", *_wrap(f"{found.says}.", f"{found.step.title}: ", "  "), *_wrap(found.fix, "Do: ", "  ")]
    )


def _head(outcome: Outcome, title: str) -> str:
    return f"{_MARKS[outcome]:<{_MARK_WIDTH}}{title:<{_TITLE_WIDTH}}"


def _wrap(text: str, head: str, indent: str | None = None) -> list[str]:
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    further = " " * len(head) if indent is None else indent
    return textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _document(findings: list[Finding]) -> dict[str, Any]:
    """For machines: whether all is well, the cause, and every step."""
    found, order = cause(findings), list(Step)
    return {
        "ok": found is None,
        "cause": None if found is None else _object(found),
        "steps": [_object(finding) for finding in sorted(findings, key=lambda found: order.index(found.step))],
    }


def _object(finding: Finding) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(finding)
    if finding.seconds is not None:
        built["seconds"] = round(finding.seconds, 4)
    return {**built, "title": finding.step.title}
