"""Run as a program: commits batches for ever and says so after each, until it is killed.

Batch n moves the session to fcnt_up n and adds the records `n:0` … `n:(n % 7)`; every third batch
acknowledges the records of the one before. It also joins: the session of join n takes the place of the
one before, its nonce is used, and command n takes the place of the one before in the queue.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.commands import DownlinkCommand, QueuedCommand
from lorabridge.lorawan.types import FCnt32
from lorabridge.store.database import Batch, Store
from tests.store.join_help import DEV_EUI, JOIN_ID, joined_session
from tests.store.store_help import advance, new_session, records, settings

JOINED = 1000
"""Ids of joined sessions begin here."""


def command(number: int) -> QueuedCommand:
    ordered = DownlinkCommand(id=f"c{number}", target=DEV_EUI, f_port=1, payload=b"x")
    return QueuedCommand(queue_id=number, command=ordered)


async def main(folder: Path) -> None:
    store = await Store.open(settings(folder))
    session = store.sessions().get(new_session(1).session_id, new_session(1))
    number = -1 if session.fcnt_up is None else int(session.fcnt_up)
    while True:
        number += 1
        change = advance(session, number)
        payloads = (f"{number}:{part}".encode() + b"." * 900 for part in range(number % 7 + 1))
        heard = ((session.session_id, FCnt32(number), b"mic."),)
        join_change = advance(new_session(JOINED + number), 0)
        batch = Batch(
            changes=(change, join_change),
            records=records(*payloads),
            heard=heard,
            joined=(joined_session(JOINED + number),),
            ended=((JOINED + number - 1).to_bytes(8, "big"),),
            joins=(JoinHistory(join_id=JOIN_ID, dev_eui=DEV_EUI, join_nonce=number),),
            nonces=((JOIN_ID, number),),
            queued=(command(number),),
            unqueued=(number - 1,),
        )
        stored = await store.commit(batch)
        session = change.session
        os.write(1, f"{number}\n".encode())
        if number % 3 == 0:
            store.done(record.id for record in stored)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
