"""Run as a program: an outage of one frame a second, written into a store as fast as the disk takes it.

Arguments: database, records, records a commit, bytes of the quota, and whether each has its PUBACK at once (0 or 1).
Prints what it took as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import msgspec

from lorabridge.lorawan.events import DeviceRef, Uplink
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64, DevAddr, FCnt32, MacVersion
from lorabridge.settings import ByteSize
from lorabridge.store.database import Batch, SessionChange, Store, StoreSettings
from lorabridge.upstream.schema import encode
from tests.bench.fleet import Fleet, receptions

SECOND = 10**9
DEVICES = 200


def uplinks() -> list[Uplink]:
    """One uplink of each of many devices; only the counter is missing."""
    (heard,) = receptions(Fleet(1).frames(1))
    return [
        Uplink(
            id="0" * 32,
            device=DeviceRef(f"meter-{n}", EUI64(0x70B3_D57E_D100_0000 + n), ()),
            dev_addr=DevAddr(0x2600_0000 + n),
            mac_version=MacVersion.V1_0_3,
            confirmed=False,
            adr=True,
            adr_ack_req=False,
            ack=False,
            class_b=False,
            fcnt32=FCnt32(0),
            f_port=10,
            f_opts=b"\x03\x07\xff",
            payload=bytes(20),
            sealed=False,
            counter_reset=False,
            mic=bytes(4),
            reception=heard,
        )
        for n in range(DEVICES)
    ]


class Outage:
    """The store, the simulated clock, and the sessions as they are."""

    def __init__(self, records: int) -> None:
        self.now = time.time_ns() - records * SECOND
        self.frames = 0
        self.uplinks = uplinks()
        self.sessions = [
            Session(session_id=n.to_bytes(8, "big"), dev_eui=EUI64(n), generation=-1) for n in range(DEVICES)
        ]

    def batch(self, size: int) -> Batch:
        """The next frames, a second apart."""
        records, changed = [], {}
        for _ in range(size):
            turn, count = self.frames % DEVICES, FCnt32(self.frames // DEVICES)
            event = msgspec.structs.replace(self.uplinks[turn], id=f"{self.frames:032x}", fcnt32=count)
            records.append(encode(event, "bench"))
            changed[turn] = count
            self.frames += 1
        self.now += size * SECOND
        changes = []
        for turn, count in changed.items():
            old = self.sessions[turn]
            new = msgspec.structs.replace(old, generation=old.generation + 1, fcnt_up=count)
            self.sessions[turn] = new
            changes.append(SessionChange(new, old.generation))
        return Batch(changes=tuple(changes), records=tuple(records))


async def main(path: Path, records: int, at_a_time: int, quota: int, acknowledged: int) -> None:
    outage = Outage(records)
    settings = StoreSettings(path=str(path), outbox_max_bytes=ByteSize(quota))
    store = await Store.open(settings, clock=lambda: outage.now)
    begun = time.perf_counter()
    for _ in range(records // at_a_time):
        stored = await store.commit(outage.batch(at_a_time))
        if acknowledged:
            store.done(record.id for record in stored)
    seconds, counters = time.perf_counter() - begun, store.counters
    await store.close()
    report = {
        "seconds": seconds,
        "written": counters["store_bytes_written"],
        "records": counters["outbox_records"],
        "bytes": counters["outbox_bytes"],
        "dropped": counters["outbox_dropped_uplink"],
        "file": sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:6])))
