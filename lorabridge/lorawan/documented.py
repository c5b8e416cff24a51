"""Closed lists that document themselves: the pages in `docs/` are made from them."""

from __future__ import annotations

import enum
from typing import Self


class Documented(enum.Enum):
    """An enum whose members carry one line of documentation."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Self:
        """The value, and what it means."""
        member = object.__new__(cls)
        member._value_ = value
        member.doc = doc
        return member

    def __str__(self) -> str:
        return str(self.value)
