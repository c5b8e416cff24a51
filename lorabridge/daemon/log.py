"""Logging: one line a fact, for people or for machines, and nothing a peer could use to write in our name.

Every room logs with the standard library (`logger.warning("datagram refused", extra={"reason": reason})`);
this module decides how that looks. Where a fact has several fields, `Facts` reads better. An event is a
constant phrase; what varies is a field. docs/logging.md has the format.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Annotated, Literal, TextIO

import msgspec

from lorabridge.daemon.log_limit import RateLimit, fields_of
from lorabridge.settings import Duration

FIELD_LIMIT = 200
"""Characters of one field; a peer's string does not get more of our line."""
EVENT_LIMIT = 1000
"""Characters of the phrase itself: other people's libraries put their data into it."""

_TRACE_FRAMES = 20

PRIORITY = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
"""Journal priorities, as in sd-daemon(3)."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[log]`: how much is written, and how it looks."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], msgspec.Meta(description="the least important lines to write")
    ] = "info"
    format: Annotated[
        Literal["human", "json"], msgspec.Meta(description="one line of text, or one JSON object, for each fact")
    ] = "human"
    burst: Annotated[
        int, msgspec.Meta(ge=1, le=100_000, description="lines of one kind (event and reason) written in one interval")
    ] = 10
    interval: Annotated[
        Duration, msgspec.Meta(description="after this, what was left out of one kind is summed up in one line")
    ] = Duration(60)


class Facts:
    """A logger whose calls say the event first and the fields after it: `facts.info("frame judged", frame=…)`."""

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, **fields: object) -> None:
        self._logger = logger
        self._fields = fields

    def bind(self, **fields: object) -> Facts:
        """The same logger with `fields` in each of its lines: a frame's id, for the whole way of that frame."""
        return Facts(self._logger, **{**self._fields, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        """For the one who looks for a fault."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """For the one who wants to know what goes on."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Something is not as it should be; the daemon copes."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, *, exc: BaseException | None = None, **fields: object) -> None:
        """Something failed; `exc` is told in the same line."""
        self._log(logging.ERROR, event, fields, exc)

    def critical(self, event: str, /, *, exc: BaseException | None = None, **fields: object) -> None:
        """The daemon cannot go on. Never rate-limited."""
        self._log(logging.CRITICAL, event, fields, exc)

    def log(self, level: int, event: str, /, **fields: object) -> None:
        """At a level that the caller has chosen."""
        self._log(level, event, fields)

    def _log(self, level: int, event: str, fields: Mapping[str, object], exc: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=exc, extra={"fields": {**self._fields, **fields}})


def clean(text: str, limit: int = FIELD_LIMIT) -> str:
    """`text` as it may stand in a log line: control characters, line breaks, bidirectional and other invisible
    characters and lone surrogates escaped, and no more than `limit` characters of it.
    """
    over = len(text) - limit
    if over > 0:
        text = text[:limit]
    if not text.isprintable() or "\\" in text:
        text = "".join(
            character if character.isprintable() else _escape(character) for character in text.replace("\\", "\\\\")
        )
    return f"{text}…(+{over})" if over > 0 else text


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


Scalar = str | int | float | bool | None

_JSON_INT = 1 << 53
"""Integers below this are the same number to every reader of JSON."""
_LISTED = 20


def scalar(value: object) -> Scalar:
    """What may be shown of a field's value: numbers as they are, the rest as `clean` text.

    Byte strings are never shown, only their length: a caller who means to publish bytes says `.hex()`.
    Of a value that is no scalar only the type is shown, because what is inside it is not known here.
    """
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and -_JSON_INT < value < _JSON_INT:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, (tuple, list, set, frozenset)):
        listed = ",".join(_text(item) for item in list(value)[:_LISTED])
        return clean(f"{listed},…" if len(value) > _LISTED else listed)
    return clean(_text(value))


def _text(value: object) -> str:
    """One value that is no list, not yet cleaned."""
    if isinstance(value, enum.Enum):
        return _text(value.value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"<{value.bit_length()} bits>"
    if isinstance(value, (str, int, float, PurePath)) or value is None:
        return str(value)  # an int of a type of its own has its own spelling: DevAddr, EUI64
    return f"<{type(value).__name__}>"


class _OneLine(logging.Formatter):
    """What both formats share: the event, and the fields as scalars."""

    def facts(self, record: logging.LogRecord) -> dict[str, Scalar]:
        """The fields of `record`, an exception's among them."""
        shown = {clean(str(name), 40): scalar(value) for name, value in fields_of(record).items()}
        exc = record.exc_info[1] if record.exc_info else None
        if exc is not None:
            shown["error"] = scalar(exc)
            shown["trace"] = _trace(exc)
        return shown

    def event(self, record: logging.LogRecord) -> str:
        """The phrase, with the arguments of libraries that still put them there."""
        return clean(record.getMessage(), EVENT_LIMIT)


def _trace(exc: BaseException) -> str:
    """Where an exception came from, outermost first, in one line: places only, no source lines and no values."""
    frames = traceback.extract_tb(exc.__traceback__)[-_TRACE_FRAMES:]
    places = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return clean(" > ".join(places), EVENT_LIMIT)


class HumanFormatter(_OneLine):
    """`2026-11-23T12:00:00.123Z info radio.semtech_udp: datagram refused reason=too_short peer=192.0.2.1`.

    `journal`: the priority as `<4>` in front, and no time, because the journal has its own.
    """

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its line break."""
        head = f"<{_priority(record)}>" if self._journal else f"{_utc(record.created)} {record.levelname.lower()} "
        fields = "".join(f" {name}={_quoted(value)}" for name, value in self.facts(record).items())
        return f"{head}{_short(record.name)}: {self.event(record)}{fields}"


class JsonFormatter(_OneLine):
    """One JSON object with `time`, `level`, `logger`, `event` and the fields beside them."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal
        self._encoder = msgspec.json.Encoder()

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its line break."""
        line: dict[str, Scalar] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": _short(record.name),
            "event": self.event(record),
        }
        for name, value in self.facts(record).items():
            line[f"{name}_" if name in line else name] = value
        text = self._encoder.encode(line).decode()
        return f"<{_priority(record)}>{text}" if self._journal else text


def _priority(record: logging.LogRecord) -> int:
    """The journal's priority for the level at or below the record's."""
    return next((priority for level, priority in PRIORITY.items() if record.levelno >= level), 7)


def _utc(seconds: float) -> str:
    """RFC 3339 with milliseconds."""
    whole, fraction = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{fraction:03d}Z"


def _short(name: str) -> str:
    """A logger's name without the name of the house."""
    return clean(name.removeprefix("lorabridge."), 60)


def _quoted(value: Scalar) -> str:
    """A field for people: bare when it is one word, else in double quotes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; a fact that cannot be written costs one fixed line, never a traceback with its values."""

    def write(self, record: logging.LogRecord) -> None:
        """Write `record` past the filters."""
        self.acquire()
        try:
            self.emit(record)
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say so and go on; when even that fails, stay silent: the log is gone, the daemon is not."""
        try:
            self.stream.write(f"<3>a line of {_short(record.name)} could not be written\n")
        except (OSError, ValueError):
            return


class Log:
    """The log while it is set up: `tick` now and then, `close` at the end."""

    def __init__(self, handler: logging.Handler, limit: RateLimit, levels: Mapping[logging.Logger, int]) -> None:
        """`levels` are what `close` puts back."""
        self._handler = handler
        self._limit = limit
        self._levels = levels

    def tick(self) -> None:
        """Write the sums of what was suppressed and whose interval is over."""
        self._limit.tick()

    def close(self) -> None:
        """Write the remaining sums, and leave loggers as they were. Twice is once."""
        self._limit.flush()
        logging.getLogger().removeHandler(self._handler)
        for logger, level in self._levels.items():
            logger.setLevel(level)


def set_up(
    settings: LogSettings,
    *,
    stream: TextIO = sys.stderr,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.monotonic,
) -> Log:
    """Send what every logger says to `stream`. Libraries are heard from `warning` on."""
    journal = to_journal(stream, environ)
    handler = _LineHandler(stream)
    handler.setFormatter(
        JsonFormatter(journal=journal) if settings.format == "json" else HumanFormatter(journal=journal)
    )
    limit = RateLimit(settings.burst, settings.interval, clock=clock, emit=handler.write)
    handler.addFilter(limit)
    root, house = logging.getLogger(), logging.getLogger("lorabridge")
    before = {root: root.level, house: house.level}
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelName(settings.level.upper())))
    house.setLevel(settings.level.upper())
    return Log(handler, limit, before)


def to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
