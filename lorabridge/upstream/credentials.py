"""Which certificate we show: the one in the files, or the last that proved itself when the one in the files does not.

Files may be replaced at any time. What they hold then is tried beside the connection that works; the old
pair stays in memory until the new one has carried a publish to its PUBACK. Sans-I/O but for a look at the
files' times; loading them is left to whoever dials, on a thread of its own.
"""

from __future__ import annotations

import contextlib
import ssl
from datetime import datetime
from pathlib import Path

from lorabridge.upstream import tls
from lorabridge.upstream.faults import LinkFault
from lorabridge.upstream.link_settings import LinkSettings
from lorabridge.upstream.login import Login, read_login
from lorabridge.upstream.validity import validity_of_file

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of each file; None for one that is not there."""

DOUBTS = 3
"""Times that a new pair may fail for a reason that may be another."""
DECISIVE = frozenset(
    {
        LinkFault.LOCAL_FILES,
        LinkFault.TLS_REFUSED,
        LinkFault.CLIENT_CERTIFICATE_REFUSED,
        LinkFault.CLIENT_CERTIFICATE_EXPIRED,
        LinkFault.SERVER_UNKNOWN_CA,
        LinkFault.CONNECT_NOT_AUTHORIZED,
        LinkFault.CLIENT_ID_REFUSED,
        LinkFault.PUBLISH_REFUSED,
    }
)
"""Faults that are the pair's."""
DOUBTFUL = frozenset(
    {
        LinkFault.TLS_CLOSED,
        LinkFault.CLOSED_BEFORE_CONNACK,
        LinkFault.NO_CONNACK,
        LinkFault.CONNECTION_LOST,
        LinkFault.PUBACK_TIMEOUT,
    }
)
"""Faults that may be the pair's: AWS IoT hangs up without a word on what a policy forbids."""


class Choice:
    """One pair, for one connection. `context` and `login` are called on the thread that dials."""

    def __init__(self, settings: LinkSettings, stamp: Stamp) -> None:
        self._settings = settings
        self.stamp = stamp
        self._loaded: ssl.SSLContext | None = None
        self._login: Login | None = None
        self.valid_until: datetime | None = None
        """When our certificate expires; None until it is loaded."""

    def context(self) -> ssl.SSLContext | None:
        """The TLS context with this pair; None for plain TCP. Raises ConfigError for files that cannot be used."""
        if self._loaded is None:
            self._loaded = tls.context(self._settings)
            with contextlib.suppress(OSError, ValueError):  # replaced in between, or in one of OpenSSL's other forms
                self.valid_until = validity_of_file(self._settings.certificate_file).not_after
        return self._loaded

    def login(self) -> Login | None:
        """User name and password, where the other end asks for them. Raises ConfigError as `context` does."""
        if self._login is None:
            self._login = read_login(*self._settings.credentials)
        return self._login


class Credentials:
    """The pair in the files, and the one that last proved itself. Times are monotonic seconds."""

    def __init__(self, settings: LinkSettings, retry_after: float) -> None:
        """A pair that was refused is tried again after `retry_after` seconds: it may only not be active yet."""
        self._settings = settings
        self._retry_after = retry_after
        self._proven: Choice | None = None
        self._refused: tuple[Stamp, float] | None = None
        self._doubts = 0
        self._last_look: Stamp | None = None

    @property
    def valid_until(self) -> datetime | None:
        """When the certificate that last proved itself expires, UTC; None when none did yet."""
        return None if self._proven is None else self._proven.valid_until

    @property
    def is_rolled_back(self) -> bool:
        """Whether the files hold a pair that was refused, and the one before it is in use."""
        return self._refused is not None

    def choose(self, now: float) -> Choice:
        """The pair for the next connection."""
        stamp = self._stamp()
        if self._proven is not None and not self._may_be_tried(stamp, now):
            return self._proven
        return Choice(self._settings, stamp)

    def is_new(self, now: float) -> bool:
        """Whether the files hold another pair than the one in use, and stood still between two looks."""
        stamp, before = self._stamp(), self._last_look
        self._last_look = stamp
        if self._proven is None or stamp != before:
            return False
        return stamp != self._proven.stamp and self._may_be_tried(stamp, now)

    def proved(self, choice: Choice) -> bool:
        """A publish under it has its PUBACK. Whether that is another pair than before."""
        before, self._proven = self._proven, choice
        if before is None or before.stamp != choice.stamp:
            self._refused, self._doubts = None, 0
        return before is not None and before.stamp != choice.stamp

    def failed(self, choice: Choice, fault: LinkFault, now: float) -> bool:
        """A connection with it failed before anything was proved. Whether we go back to the pair before it."""
        if self._proven is None:
            return False
        if choice.stamp == self._proven.stamp:
            if fault in DECISIVE:  # the old one is no way out any more
                self._refused = None
            return False
        self._doubts += fault in DOUBTFUL
        if fault not in DECISIVE and self._doubts < DOUBTS:
            return False
        self._refused, self._doubts = (choice.stamp, now + self._retry_after), 0
        return True

    def _may_be_tried(self, stamp: Stamp, now: float) -> bool:
        return self._refused is None or self._refused[0] != stamp or now >= self._refused[1]

    def _stamp(self) -> Stamp:
        return tuple(_look_at(path) for path in self._settings.files)


def _look_at(path: str) -> tuple[int, int, int] | None:
    if not path:  # which would be the current folder
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
