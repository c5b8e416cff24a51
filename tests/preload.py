"""Libraries that are loaded before all others (LD_PRELOAD), so that a program gets another clock or another disk."""

from __future__ import annotations

import subprocess
from pathlib import Path


def build(source: Path, folder: Path, compiler: str) -> Path:
    """The shared library of one C file."""
    library = folder / f"{source.stem}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library
