"""How often one kind of fact may be logged: nobody outside may decide how much we write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lorabridge.lorawan.verdict import Verdict

Key = tuple[str, str, str]
"""Logger, event, and the reason or verdict of the fact."""

TABLE_SIZE = 1024
"""Kinds of fact told apart at one time; more share one entry, so memory stays bounded whatever a peer sends."""

_KEY_LENGTH = 100

_OVERFLOW: Key = ("lorabridge.log", "other facts", "")


@dataclass(slots=True)
class _Window:
    """What became of one kind of fact since `opened_at`."""

    opened_at: float
    level: int
    passed: int = 0
    suppressed: int = 0


class RateLimit(logging.Filter):
    """Lets `burst` facts of one kind through in an interval, and sums the rest up in one line when it is over.

    Never limited: an accepted frame (only the holder of a session key can cause one) and critical facts.
    `clock` gives seconds and never runs backwards; `emit` writes a record past this filter.
    """

    def __init__(
        self, burst: int, interval: float, *, clock: Callable[[], float], emit: Callable[[logging.LogRecord], None]
    ) -> None:
        super().__init__()
        self._burst = burst
        self._interval = interval
        self._clock = clock
        self._emit = emit
        self._windows: dict[Key, _Window] = {}
        self._lock = threading.Lock()  # the store and the MQTT client log from their own threads

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` may be written now."""
        fields = fields_of(record)
        if record.levelno >= logging.CRITICAL or str(fields.get("verdict")) == Verdict.ACCEPTED.value:
            return True
        now = self._clock()
        reason = fields.get("reason") or fields.get("verdict") or ""
        key = (record.name, str(record.msg)[:_KEY_LENGTH], str(reason)[:_KEY_LENGTH])
        with self._lock:
            over = self._close(now, only=key)
            if key not in self._windows and len(self._windows) >= TABLE_SIZE:
                over += self._close(now)
                key = key if len(self._windows) < TABLE_SIZE else _OVERFLOW
            window = self._windows.setdefault(key, _Window(now, record.levelno))
            passes = window.passed < self._burst
            window.passed += passes
            window.suppressed += not passes
        self._write(over)
        return passes

    def tick(self) -> None:
        """Sum up every kind of fact whose interval is over: to be called now and then, for kinds that fell silent."""
        with self._lock:
            over = self._close(self._clock())
        self._write(over)

    def flush(self) -> None:
        """Sum up everything at once: the process is about to end."""
        with self._lock:
            over = list(self._windows.items())
            self._windows.clear()
        self._write(over)

    def _close(self, now: float, *, only: Key | None = None) -> list[tuple[Key, _Window]]:
        """Take the windows out whose interval is over. Called with the lock held."""
        candidates = list(self._windows) if only is None else [key for key in (only,) if key in self._windows]
        return [
            (key, self._windows.pop(key)) for key in candidates if now - self._windows[key].opened_at >= self._interval
        ]

    def _write(self, over: list[tuple[Key, _Window]]) -> None:
        """One line for each window that suppressed anything. Called without the lock: `emit` may block."""
        for (name, event, reason), window in over:
            if window.suppressed:
                summary = logging.makeLogRecord(
                    {
                        "name": name,
                        "levelno": window.level,
                        "levelname": logging.getLevelName(window.level),
                        "msg": event,
                        "fields": {"reason": reason, "suppressed": window.suppressed, "interval_s": self._interval},
                    }
                )
                self._emit(summary)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "fields"}


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields of a fact: those given by `Facts`, and those given through the standard library's `extra`."""
    given = getattr(record, "fields", None)
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**extra, **given} if isinstance(given, Mapping) else extra
