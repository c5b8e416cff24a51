"""The key-encryption key: what session keys of joins are wrapped with (RFC 3394) before they enter the database."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import NoReturn, Self

from Crypto.Cipher import AES

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.types import AES128Key
from lorabridge.store.device_settings import KeyReference
from lorabridge.store.files import refused
from lorabridge.store.secret_files import read_reference, write_private
from lorabridge.store.values import StoreSettings

SETTING = "store.key_encryption_key"
DEFAULT_FILE = "key-encryption-key"
"""Beside the database: the key that is made when none is configured."""
_SIZES = (16, 32)
_KEY = AES128Key.size


class KeyEncryptionKey:
    """An AES-128 or AES-256 key that wraps keys, and does not print or pickle itself."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) not in _SIZES:
            raise ValueError(f"a key-encryption key is 16 or 32 bytes, not {len(secret)}")
        self._secret = bytes(secret)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 32 or 64 hex digits. Raises ValueError with a sentence that does not repeat them."""
        if len(text) not in (32, 64):
            raise ValueError(f"a key-encryption key is 32 or 64 hex digits, this has {len(text)}")
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError("a key-encryption key is 32 or 64 hex digits, this has other characters") from None

    def wrap(self, secret: bytes) -> bytes:
        """`secret`, 16 bytes or more and a multiple of 8, wrapped: 8 bytes longer (RFC 3394 §2.2.1)."""
        return AES.new(self._secret, AES.MODE_KW).seal(secret)

    def unwrap(self, wrapped: bytes) -> bytes:
        """What was wrapped. Raises ValueError under another key, or for changed bytes (§2.2.2)."""
        return AES.new(self._secret, AES.MODE_KW).unseal(wrapped)

    def wrap_session_keys(self, keys: SessionKeys) -> bytes:
        """All keys of a session in one: FNwkSIntKey, SNwkSIntKey, NwkSEncKey, and AppSKey when it is here."""
        found = (keys.f_nwk_s_int_key, keys.s_nwk_s_int_key, keys.nwk_s_enc_key, keys.app_s_key)
        return self.wrap(b"".join(key.reveal() for key in found if key is not None))

    def unwrap_session_keys(self, wrapped: bytes) -> SessionKeys:
        """The reverse. Raises ValueError."""
        secret = self.unwrap(wrapped)
        keys = [AES128Key(secret[at : at + _KEY]) for at in range(0, len(secret), _KEY)]
        if len(keys) not in (3, 4):
            raise ValueError(f"a session has 3 or 4 keys, not {len(keys)}")
        return SessionKeys(
            f_nwk_s_int_key=keys[0],
            s_nwk_s_int_key=keys[1],
            nwk_s_enc_key=keys[2],
            app_s_key=keys[3] if len(keys) == 4 else None,
        )

    def __repr__(self) -> str:
        return "KeyEncryptionKey(redacted)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyEncryptionKey does not leave the process")


class KeyKeeper:
    """Finds the key-encryption key of a store when it is needed; makes it when none is configured and none is there."""

    def __init__(self, settings: StoreSettings, credentials_dir: Path | None) -> None:
        self._reference = settings.key_encryption_key
        self._default = Path(settings.path).with_name(DEFAULT_FILE)
        self._credentials_dir = credentials_dir
        self._key: KeyEncryptionKey | None = None

    @property
    def place(self) -> str:
        """Where an operator finds the key."""
        reference = self._reference or KeyReference(file=str(self._default))
        return f"credential {reference.credential}" if reference.file is None else f"file {reference.file}"

    def find(self) -> KeyEncryptionKey | None:
        """The key; None when none is configured and none was made yet. Raises ConfigError."""
        if self._key is None and (self._reference is not None or os.path.lexists(self._default)):
            problems: list[Problem] = []
            self._key = self._read(problems)
            if problems:
                raise ConfigError(problems)
        return self._key

    def find_or_make(self) -> KeyEncryptionKey:
        """The key, made and durable when there was none. Raises ConfigError, StoreFull."""
        found = self.find()
        while found is None:
            try:
                write_private(self._default, f"{secrets.token_hex(max(_SIZES))}\n", replace=False)
            except FileExistsError:
                pass  # the store of another database in this folder was quicker
            except OSError as error:
                raise refused(self._default, error) from None
            found = self.find()
        return found

    def _read(self, problems: list[Problem]) -> KeyEncryptionKey | None:
        """The key where it stands, or None with a problem."""
        reference = self._reference or KeyReference(file=str(self._default))
        text = read_reference(reference, SETTING, self._default.parent, self._credentials_dir, problems)
        if text is None:
            return None
        try:
            return KeyEncryptionKey.parse(text)
        except ValueError as error:
            hint = "a new one comes from `openssl rand -hex 32`; sessions stored already need the one they had"
            problems.append(Problem(where=SETTING, what=f"{self.place}: {error}", hint=hint))
            return None


def check_key_encryption_key(settings: StoreSettings, credentials_dir: Path | None) -> list[Problem]:
    """What is wrong with the setting and the file it names; whether it is the right key only opening tells."""
    try:
        KeyKeeper(settings, credentials_dir).find()
    except ConfigError as error:
        return error.problems
    return []
