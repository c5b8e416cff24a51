"""The vectors: those we may ship, from `tests/vectors`; the rest from the shared folder when it is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent / "vectors"
SHARED = Path(__file__).parents[2] / "shared" / "vectors" / "public"


def vectors(kind: str) -> list[dict[str, Any]]:
    """Every vector of `kind` that this checkout can see, by id, none twice."""
    found: dict[str, dict[str, Any]] = {}
    for folder in (SHIPPED, SHARED):
        path = folder / f"{kind}.jsonl"
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                vector = json.loads(line)
                found.setdefault(vector["id"], vector)
    return list(found.values())


def vector_id(vector: dict[str, Any]) -> str:
    """How pytest names a case."""
    return str(vector["id"])
