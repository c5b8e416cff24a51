"""Write the documents that are made from the source, or with `--check` say which are not current."""

from __future__ import annotations

import sys
from pathlib import Path

from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.upstream.faults import faults_markdown
from lorabridge.upstream.schema import json_schema

DOCS = Path(__file__).parent


def documents() -> dict[Path, bytes]:
    """Every generated document: where it stands, and what it should hold."""
    schemas = {DOCS / "schema" / f"{kind.value}.json": json_schema(kind) for kind in EventKind}
    faults = {DOCS / "link-faults.md": faults_markdown().encode()}
    return {DOCS / "verdicts.md": verdicts().encode(), **faults, **schemas}


def verdicts() -> str:
    """The closed lists, as two tables."""
    return f"""# Verdicts

<!-- Generated from lorabridge/lorawan/verdict.py by `make docs`. -->

Every received frame gets exactly one verdict. The word is at once the return value, the metric's label,
the field of the log line and the name in the security event.

{_table(Verdict, "verdict")}

## Reasons of `malformed`

The first that applies.

{_table(Reason, "reason")}
"""


def _table(closed_list: type[Verdict | Reason], heading: str) -> str:
    rows = [f"| `{member}` | {member.doc} |" for member in closed_list]
    return "\n".join((f"| {heading} | meaning |", "|---|---|", *rows))


def main() -> int:
    """Exit status 1 when a document was not current."""
    stale = [path for path, text in documents().items() if not path.exists() or path.read_bytes() != text]
    if "--check" not in sys.argv[1:]:
        for path in stale:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(documents()[path])
    for path in stale:
        print(
            f"docs/{path.relative_to(DOCS)}: {'not current, run `make docs`' if '--check' in sys.argv else 'written'}"
        )
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
