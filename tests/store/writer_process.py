"""Run as a program: commits batches for ever and says so after each, until it is killed.

Batch n moves the session to fcnt_up n and adds the records `n:0` … `n:(n % 7)`; every third batch
acknowledges the records of the one before.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from lorabridge.lorawan.types import FCnt32
from lorabridge.store.database import Batch, Store
from tests.store.store_help import advance, new_session, records, settings


async def main(folder: Path) -> None:
    store = await Store.open(settings(folder))
    session = store.sessions().get(new_session(1).session_id, new_session(1))
    number = -1 if session.fcnt_up is None else int(session.fcnt_up)
    while True:
        number += 1
        change = advance(session, number)
        payloads = (f"{number}:{part}".encode() + b"." * 900 for part in range(number % 7 + 1))
        heard = ((session.session_id, FCnt32(number), b"mic."),)
        stored = await store.commit(Batch(changes=(change,), records=records(*payloads), heard=heard))
        session = change.session
        os.write(1, f"{number}\n".encode())
        if number % 3 == 0:
            store.done(record.id for record in stored)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
