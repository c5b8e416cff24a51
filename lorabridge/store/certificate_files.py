"""A certificate and its key: two files that change together, as nearly as two files can; the ones before are kept.

The new files stand beside the old ones (`*.new`) before anything is moved, so that a full disk changes nothing. A
power cut between the two moves leaves a pair that does not fit, which the link refuses, and the old one beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lorabridge.store.files import sync_folder
from lorabridge.store.secret_files import write_private


class CertificateFiles:
    """The two files; every method raises OSError."""

    def __init__(self, certificate: str, private_key: str) -> None:
        self._key, self._certificate = Path(private_key), Path(certificate)

    @property
    def requested_key(self) -> Path:
        """The key of a certificate that was asked for and has not come yet."""
        return Path(f"{self._key}.requested")

    def install(
        self, certificate_pem: str, private_key_pem: str, prepare: Callable[[Path], None] = lambda _: None
    ) -> None:
        """Put a pair into its place; `prepare` is called with each file while it still stands beside."""
        for path, pem in ((self._key, private_key_pem), (self._certificate, certificate_pem)):
            beside = Path(f"{path}.new")
            write_private(beside, pem, replace=True)
            prepare(beside)
        for path in (self._key, self._certificate):
            if path.exists():
                path.replace(f"{path}.old")
            Path(f"{path}.new").replace(path)
        self._sync()

    def restore(self) -> None:
        """The pair before this one, if there was one; this one is kept as `*.refused`."""
        if not all(Path(f"{path}.old").exists() for path in (self._key, self._certificate)):
            return
        for path in (self._key, self._certificate):
            path.replace(f"{path}.refused")
            Path(f"{path}.old").replace(path)
        self._sync()

    def _sync(self) -> None:
        for folder in {self._key.parent, self._certificate.parent}:
            sync_folder(folder)
