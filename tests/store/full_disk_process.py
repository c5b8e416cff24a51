"""Run as a program with a folder and a file size: commits until files may not grow, then reports."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from lorabridge.errors import TransientError
from lorabridge.store.database import Batch, Store
from tests.store.store_help import advance, new_session, records, settings


async def main(folder: Path, limit: int) -> None:
    store = await Store.open(settings(folder))
    session, committed = new_session(1), 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    error = ""
    while not error:
        change = advance(session, committed)
        try:
            await store.commit(Batch(changes=(change,), records=records(b"%d:" % committed + b"x" * 20_000)))
        except TransientError as refused:
            error = type(refused).__name__
        else:
            session, committed = change.session, committed + 1
    unmoved = store.sessions()[session.session_id] == session
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.commit(Batch(changes=(advance(session, committed),), records=records(b"%d:" % committed)))
    pending = [int(record.payload.split(b":")[0]) for record in await store.pending(0, 10**6)]
    await store.close()
    json.dump({"error": error, "committed": committed, "unmoved": unmoved, "pending": pending}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
