"""The configuration as text for people: the example file and the reference page, both out of the settings types."""

from __future__ import annotations

import enum
import json
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from lorabridge.daemon.config import RADIO_TYPES, Config
from lorabridge.lorawan.types import EUI64, DevAddr, NetID
from lorabridge.settings import ByteSize, Duration, bare_type, describe, examples
from lorabridge.store.device_settings import KeyReference

_HEAD = """\
# Configuration of lorabridge. What is commented out shows its default, or an example.
# After a change: lorabridge check, then systemctl reload lorabridge (devices) or restart (the rest).
"""
_RADIOS_IN_EXAMPLE = ("semtech_udp",)
_NOT_IN_EXAMPLE = ("mqtt",)
"""Tables that stand in the place of others."""


def example() -> str:
    """A complete configuration file: required keys with an example, the rest commented out with their defaults."""
    parts = [_HEAD, *_table(Config, "")]
    for name in _RADIOS_IN_EXAMPLE:
        parts.append(f"\n[[radio]]\n{_comment(_about(RADIO_TYPES[name]))}type = {json.dumps(name)}\n")
        parts += _table(RADIO_TYPES[name], "radio")
    return "".join(parts)


def reference() -> str:
    """The page `docs/configuration.md`: every key, what it means, its default."""
    lines = [
        "# Configuration",
        "",
        "Generated from the settings types by `make docs`; `lorabridge config example` prints a file to start from.",
        "Durations are written `500ms`, `30s`, `10min`, `2h`, `7d`; sizes `64KiB`, `256MiB`, `1GiB`.",
    ]
    lines += _reference(Config, "")
    for name, settings in RADIO_TYPES.items():
        lines += ["", f'## `[[radio]]` with `type = "{name}"`', "", _first_line(settings), "", *rows(settings)]
    return "\n".join(lines) + "\n"


def _table(settings: type[msgspec.Struct], path: str) -> Iterator[str]:
    """The keys of one table, then its inner tables."""
    inner: list[tuple[str, type[msgspec.Struct]]] = []
    for field in msgspec.structs.fields(settings):
        kind = bare_type(field.type)
        if _is_struct(kind):
            inner.append((f"{path}.{field.encode_name}" if path else field.encode_name, kind))
        elif field.name != "radios":
            yield _key(field)
    for name, kind in inner:
        if name in _NOT_IN_EXAMPLE:
            continue
        yield f"\n[{name}]\n{_comment(_about(kind))}"
        yield from _table(kind, name)


def _key(field: msgspec.structs.FieldInfo) -> str:
    """One key with its description above it."""
    said = describe(field.type)
    comment = f"\n{_comment(said)}" if said else "\n"
    shown = examples(field.type)
    if field.required:
        return f"{comment}{field.encode_name} = {_toml(shown[0] if shown else '')}\n"
    value = field.default if not _empty(field.default) or not shown else shown[0]
    return f"{comment}# {field.encode_name} = {_toml(value)}\n"


def _comment(text: str) -> str:
    """A sentence as comment lines."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False))


def _about(kind: type[msgspec.Struct]) -> str:
    """What a table is for, without its name."""
    return _first_line(kind).partition(": ")[2]


def _empty(value: object) -> bool:
    return value is None or value in ((), "")


def _reference(settings: type[msgspec.Struct], path: str) -> list[str]:
    """A section for each table below `settings`."""
    lines: list[str] = []
    own = rows(settings)
    if own:
        lines += ["", f"## `[{path}]`" if path else "## Top level", "", _first_line(settings), "", *own]
    for field in msgspec.structs.fields(settings):
        kind = bare_type(field.type)
        if _is_struct(kind):
            lines += _reference(kind, f"{path}.{field.encode_name}" if path else field.encode_name)
    return lines


def rows(settings: type[msgspec.Struct]) -> list[str]:
    """A Markdown table with a row for each key of a settings type that is no table itself."""
    cells = [
        (f"`{field.encode_name}`", _kind(field.type), _default(field), describe(field.type))
        for field in msgspec.structs.fields(settings)
        if not _is_struct(bare_type(field.type)) and field.name != "radios"
    ]
    made = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *made] if made else []


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return "none"
    return "none" if _empty(field.default) else f"`{_toml(field.default)}`"


_KINDS = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    dict: "table of texts",
    EUI64: "16 hex digits",
    DevAddr: "8 hex digits",
    NetID: "6 hex digits",
    KeyReference: "reference",
    Duration: "duration",
    ByteSize: "size",
}


def _kind(annotated: Any) -> str:
    """A type in the reader's words."""
    kind = bare_type(annotated)
    if get_origin(kind) is Literal:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_kind(get_args(kind)[0])}"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_kind(member) for member in get_args(kind) if member is not type(None))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(f"`{json.dumps(member.value)}`" for member in kind)
    return _KINDS[get_origin(kind) or kind]


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, enum.Enum):
        return _toml(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, KeyReference):
        value = {key: item for key, item in msgspec.structs.asdict(value).items() if item is not None}
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if type(value) in (int, float):
        return repr(value)
    return json.dumps("" if value is None else str(value), ensure_ascii=False)


def _is_struct(kind: Any) -> bool:
    """Whether it is written as a table of its own; a reference to a key stands on one line."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not KeyReference


def _first_line(kind: type[msgspec.Struct]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
