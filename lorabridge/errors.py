"""Errors by whose turn it is: the operator's (`ConfigError`) or time's (`TransientError`).

A peer's bad bytes are `lorawan.grammar.MalformedFrame`; a refusal by policy is a verdict and no error.
Any other exception is our bug.
"""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong in a place an operator can reach."""

    where: str
    """A file, `file:line`, or `file: dotted.path`."""
    what: str
    hint: str = ""
    """What to do about it."""
    warning: bool = False
    """Worth telling, but nothing is refused for it."""

    def __str__(self) -> str:
        kind = "warning: " if self.warning else ""
        return f"{self.where}: {kind}{self.what}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(Exception):
    """The operator's turn: everything that is wrong, at once. Retrying without a change is useless."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class TransientError(Exception):
    """Something outside failed that may work later without anybody changing anything: retry with back-off."""
