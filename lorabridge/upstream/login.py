"""A user name and its password, for brokers that ask for them: read privately, shown to nobody but the broker."""

from __future__ import annotations

import os
import stat
from typing import NoReturn

from lorabridge.errors import ConfigError, Problem
from lorabridge.upstream.tls import others_can_read

_MAX_PASSWORD = 65_535
"""MQTT §3.1.3.5 counts it in two bytes."""
_HINT = "the password alone in a file of mode 600 that belongs to the service's user"


class Login:
    """Who we say that we are. The password does not print, and leaves this object by `reveal` only."""

    __slots__ = ("_password", "user_name")

    def __init__(self, user_name: str, password: str | None) -> None:
        self.user_name = user_name
        self._password = password

    def reveal(self) -> str | None:
        """The password; None: the user has none."""
        return self._password

    def __repr__(self) -> str:
        return f"Login({self.user_name!r}, password=<hidden>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a password is not pickled")


def read_login(user_name: str, path: str) -> Login | None:
    """What CONNECT is to say; None for an empty `user_name`. Raises ConfigError for the file at `path`."""
    if not user_name:
        return None
    return Login(user_name, _read(path) if path else None)


def check(user_name: str, path: str) -> list[Problem]:
    """What is wrong with the password file."""
    try:
        read_login(user_name, path)
    except ConfigError as error:
        return error.problems
    return []


def _read(path: str) -> str:
    """The password, without the newline that editors put after it. No error repeats a part of it."""
    try:
        # O_NONBLOCK: a pipe in the place of a file must not hang the daemon.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _wrong(path, "is no ordinary file")
        if others_can_read(path):
            raise _wrong(path, "can be read by others", f"chmod 600 {path}")
        content = file.read(_MAX_PASSWORD + 3).removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(path, "is not UTF-8") from None
    if not 0 < len(content) <= _MAX_PASSWORD or "\n" in text or "\0" in text:
        raise _wrong(path, f"is empty, has more than one line, or more than {_MAX_PASSWORD} bytes")
    return text


def _wrong(path: str, what: str, hint: str = _HINT) -> ConfigError:
    return ConfigError([Problem(where=path, what=what, hint=hint)])
