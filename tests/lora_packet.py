"""npm's `lora-packet`: an implementation of LoRaWAN that is not ours. Installed below `build/` when node is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

VERSION = "0.9.3"
NAME = f"lora-packet {VERSION}"
_FOLDER = Path(__file__).parents[1] / "build" / "lora-packet"
_MODULE = _FOLDER / "node_modules" / "lora-packet"


class MissingPeerError(Exception):
    """It cannot be had here; the message says why."""


def find() -> tuple[str, Path]:
    """The path of node and that of the module. Raises MissingPeerError."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise MissingPeerError("node or npm is missing: apt-get install nodejs npm")
    if not _MODULE.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        command = [npm, "install", "--prefix", str(_FOLDER), *options, f"lora-packet@{VERSION}"]
        installed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if installed.returncode:
            raise MissingPeerError(f"npm could not install it: {installed.stderr.strip().splitlines()[-1:]}")
    return node, _MODULE
