"""npm's `lora-packet` as a reference: decode, MIC and decryption of the same frames in node, on one thread."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.bench.report import Report
from tests.lora_packet import NAME, MissingPeerError, find

if TYPE_CHECKING:
    from tests.bench.inprocess import Arena

_SCRIPT = Path(__file__).with_name("lora_packet.cjs")


class Peer:
    """A node process that decodes all frames whenever it is told to."""

    def __init__(self, node: str, module: Path, frames: Path) -> None:
        self._process = subprocess.Popen(
            [node, str(_SCRIPT), str(module), str(frames)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> str:
        """One pass over all frames; its answer is the last payload in hex, or why it failed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("node has no pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()


def start(arena: Arena, report: Report) -> Peer | None:
    """The peer with all frames loaded, or None, and the report says why."""
    try:
        node, module = find()
    except MissingPeerError as error:
        report.skip(NAME, str(error))
        return None
    with tempfile.NamedTemporaryFile(suffix=".json", delete=False) as file:
        file.write(msgspec.json.encode(_frames(arena)))
    peer = Peer(node, module, Path(file.name))
    answer = peer.run()
    Path(file.name).unlink()
    expected = _last_payload(arena)
    if answer != expected:
        report.skip(NAME, f"answered {answer!r}, not {expected!r}")
        peer.stop()
        return None
    return peer


def _frames(arena: Arena) -> list[dict[str, str]]:
    """The frames with their keys and the upper half of their counters, little endian."""
    nodes, size = arena.nodes, len(arena.nodes)
    high = (arena.first_fcnt >> 16).to_bytes(2, "little").hex()
    return [
        {
            "phy": phy.hex(),
            "nwk": nodes[i % size].nwk_s_key.hex(),
            "app": nodes[i % size].app_s_key.hex(),
            "high": high,
        }
        for i, phy in enumerate(arena.frames)
    ]


def _last_payload(arena: Arena) -> str:
    """What the last frame says, by the naive decoder."""
    decoder = arena.naive()
    documents = [decoder.decode(phy) for phy in arena.frames]
    return str(msgspec.json.decode(documents[-1] or "{}").get("payload"))
