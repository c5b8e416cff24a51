"""What an operator writes, read strictly: typed settings out of TOML tables, every problem found at once.

A settings type is a frozen `msgspec.Struct` beside the code that it configures; each field says what
it means with `Annotated[type, Meta(description=…)]`, which is also what `docs/configuration.md` and
`lorabridge config example` print.
"""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union, get_args, get_origin

import msgspec

from lorabridge.errors import Problem
from lorabridge.lorawan.types import EUI64, DevAddr, NetID

T = TypeVar("T", bound=msgspec.Struct)


class Duration(float):
    """Seconds; written as `"90s"`, `"10 min"`, `"2h"`, `"1d"`, `"250ms"`, or a number of seconds."""

    _UNITS: ClassVar = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError with a sentence for the operator."""
        if isinstance(text, (int, float)) and not isinstance(text, bool) and 0 <= text < 1e10:
            return cls(text)
        found = (
            re.fullmatch(r"\s*(\d{1,10}(?:\.\d{1,9})?)\s*(ms|s|min|m|h|d)\s*", text) if isinstance(text, str) else None
        )
        if found is None:
            raise ValueError('expected a duration such as "500ms", "30s", "10min", "2h" or "7d"')
        return cls(float(found[1]) * cls._UNITS[found[2]])

    def __str__(self) -> str:
        unit = next((unit for unit in ("d", "h", "min", "s") if self and not self % self._UNITS[unit]), "ms")
        return f"{self / self._UNITS[unit]:.12g}{unit}" if self else "0s"


class ByteSize(int):
    """Bytes; written as `"64KiB"`, `"256MiB"`, `"1GiB"`, or a number of bytes."""

    _UNITS: ClassVar = {
        "": 1,
        "B": 1,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
        "kB": 1000,
        "MB": 10**6,
        "GB": 10**9,
    }

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError with a sentence for the operator."""
        if isinstance(text, int) and not isinstance(text, bool) and 0 <= text < 1 << 63:
            return cls(text)
        found = re.fullmatch(r"\s*(\d{1,15})\s*([KMG]iB|[kMG]?B)\s*", text) if isinstance(text, str) else None
        if found is None:
            raise ValueError('expected a size such as "64KiB", "256MiB" or "1GiB"')
        return cls(int(found[1]) * cls._UNITS[found[2]])

    def __str__(self) -> str:
        unit = next((unit for unit in ("GiB", "MiB", "KiB") if self and not self % self._UNITS[unit]), "B")
        return f"{int(self) // self._UNITS[unit]}{unit}"


def read_table(cls: type[T], table: Mapping[str, Any], where: str, problems: list[Problem], path: str = "") -> T | None:
    """Make a `cls` of a TOML table, or None; whatever is wrong is appended to `problems` with its dotted path."""
    fields = _fields(cls)
    before = sum(not problem.warning for problem in problems)
    prefix = f"{path}." if path else ""
    problems.extend(
        Problem(where=f"{where}: {prefix}{key}", what="unknown key", hint=did_you_mean(str(key), fields))
        for key in table
        if key not in fields
    )
    values: dict[str, Any] = {}
    for key, field in fields.items():
        place = f"{prefix}{key}"
        if key not in table:
            if field.required:
                problems.append(Problem(where=f"{where}: {place}", what="is missing", hint=describe(field.type)))
            continue
        values[field.name] = _read_value(field.type, table[key], where, problems, place)
    if sum(not problem.warning for problem in problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        problems.append(Problem(where=f"{where}: {path}" if path else where, what=str(error)))
        return None


@functools.cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a settings type by their names in TOML; asked once a type, because msgspec evaluates every hint."""
    return {field.encode_name: field for field in msgspec.structs.fields(cls)}


def _read_value(kind: Any, value: Any, where: str, problems: list[Problem], place: str) -> Any:
    """One value of a table: nested tables and arrays of tables by their own fields, the rest by msgspec."""
    bare = bare_type(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and isinstance(value, Mapping):
        return read_table(bare, value, where, problems, place)
    if get_origin(bare) is tuple and isinstance(value, list):
        inner = get_args(bare)[0]
        return tuple(_read_value(inner, item, where, problems, f"{place}[{i}]") for i, item in enumerate(value, 1))
    try:
        return msgspec.convert(value, kind, dec_hook=_decode)
    except (msgspec.ValidationError, ValueError) as error:
        problems.append(Problem(where=f"{where}: {place}", what=_plain(str(error)), hint=describe(kind)))
        return None


def bare_type(kind: Any) -> Any:
    """`kind` without its Annotated and its `| None`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        if len(members) == 1:
            return bare_type(members[0])
    return kind


_WRITTEN = (EUI64, DevAddr, NetID)


def _decode(kind: type, value: Any) -> Any:
    """Our own scalar types, from what TOML has."""
    if kind in (Duration, ByteSize):
        return kind.parse(value)
    if kind in _WRITTEN:
        if not isinstance(value, str):
            raise ValueError("expected hex digits in quotes")
        return kind.parse(value)
    if kind is Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("expected a path in quotes")
        return Path(value)
    raise NotImplementedError(kind)


def _plain(message: str) -> str:
    """The sentence of msgspec without its JSON path: the dotted path stands before it already."""
    return (
        message.partition(" - at `")[0].replace("`", "").replace("Expected", "expected").replace("Invalid", "invalid")
    )


def describe(kind: Any) -> str:
    """The description that the field's type carries, or an empty string."""
    if get_origin(kind) is Annotated:
        for extra in get_args(kind)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
    return ""


def examples(kind: Any) -> list[Any]:
    """The examples that the field's type carries."""
    if get_origin(kind) is Annotated:
        for extra in get_args(kind)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.examples:
                return list(extra.examples)
    return []


def did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """A hint that names the known word nearest to `word`, or the known words."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
