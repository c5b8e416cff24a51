"""Files with keys: read only when nobody else can read them."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

from lorabridge.errors import Problem
from lorabridge.lorawan.types import AES128Key
from lorabridge.store.device_settings import KeyReference
from lorabridge.store.files import sync_folder

MAX_DEVICE_FILE = 64 << 20
_MAX_KEY_FILE = 1024
_CREDENTIAL_NAME = re.compile(r"[^/\x00]{1,255}")


def read_private(path: Path, where: str, limit: int, problems: list[Problem], forbidden: int = 0o077) -> bytes | None:
    """The content of a file that others cannot read, or None with a problem. `forbidden`: mode bits not to be set."""
    try:
        # O_NONBLOCK: a pipe in the place of a file must not hang the daemon.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "is no path"
        problems.append(Problem(where=where, what=f"cannot read {path}: {said.lower()}", hint=_OPEN_HINT))
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            problems.append(Problem(where=where, what=f"{path} is no ordinary file", hint="give the path of a file"))
            return None
        if found.st_mode & forbidden:
            what = f"others can read or change {path} (mode {stat.S_IMODE(found.st_mode):o})"
            problems.append(Problem(where=where, what=what, hint=f"chmod 600 {path}"))
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        what = f"cannot read {path}: {(error.strerror or 'error').lower()}"
        problems.append(Problem(where=where, what=what, hint="look at the disk"))
        return None
    finally:
        os.close(descriptor)
    if len(content) > limit:
        problems.append(Problem(where=where, what=f"{path} has more than {limit} bytes", hint="is it the right file?"))
        return None
    return content


_OPEN_HINT = "look at the path, and that the file belongs to the user lorabridge runs as"


def read_key(
    written: str | KeyReference, where: str, folder: Path, credentials_dir: Path | None, problems: list[Problem]
) -> AES128Key | None:
    """The key itself, or None with a problem; no problem ever repeats a part of it."""
    if isinstance(written, str):
        text: str | None = written
    else:
        text = read_reference(written, where, folder, credentials_dir, problems)
    if text is None:
        return None
    try:
        return AES128Key.parse(text)
    except ValueError as error:
        problems.append(Problem(where=where, what=str(error), hint="copy it again from where the device was set up"))
        return None


def read_reference(
    reference: KeyReference, where: str, folder: Path, credentials_dir: Path | None, problems: list[Problem]
) -> str | None:
    """What stands in the file or credential, or None with a problem; a relative file begins at `folder`."""
    path, forbidden = None, 0o077
    if (reference.file is None) == (reference.credential is None):
        problems.append(Problem(where=where, what="names neither or both of file and credential", hint="name one"))
    elif reference.file is not None:
        path = folder / reference.file
    elif credentials_dir is None:
        what = "is a credential, but there is no credentials directory here"
        hint = "systemd gives one to the service (LoadCredential=); elsewhere set CREDENTIALS_DIRECTORY"
        problems.append(Problem(where=where, what=what, hint=hint))
    elif reference.credential in ("", ".", "..") or not _CREDENTIAL_NAME.fullmatch(reference.credential or ""):
        problems.append(Problem(where=where, what="is no name of a credential", hint="a name without /"))
    else:
        # systemd lets the service's user in by an access list, which shows as group bits.
        path, forbidden = credentials_dir / (reference.credential or ""), 0o007
    content = None if path is None else read_private(path, where, _MAX_KEY_FILE, problems, forbidden)
    return None if content is None else content.decode("ascii", "replace").strip()


def write_private(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner can read, whole or not at all, and durable when this returns.

    Raises FileExistsError when one is there that is not to be replaced; OSError.
    """
    # Mode 600 and a name of its own, so that what a killed process left is in nobody's way.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        if replace:
            beside.replace(path)
        else:
            os.link(beside, path)  # unlike rename, refuses to replace
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)
