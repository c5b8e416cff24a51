"""Closed lists that document themselves: the pages in `docs/` are made from them."""

from __future__ import annotations

import enum
from typing import Self


class Documented(enum.Enum):
    """An enum whose members carry one line of documentation."""

    doc: str
    hint: str
    """What to do about it; empty where that is not for an operator to say."""

    def __new__(cls, value: str, doc: str, hint: str = "") -> Self:
        """The value, what it means, and what to do about it."""
        member = object.__new__(cls)
        member._value_ = value
        member.doc = doc
        member.hint = hint
        return member

    def __str__(self) -> str:
        return str(self.value)
