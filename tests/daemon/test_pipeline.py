"""The corridor with a real store and the real engine: committed before it is told, and nothing given up."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lorabridge.backoff import Backoff
from lorabridge.daemon.answering import DownlinkSettings
from lorabridge.daemon.downlinks import Downlinks
from lorabridge.daemon.health import Health
from lorabridge.daemon.pipeline import MAX_GATEWAYS, Pipeline
from lorabridge.daemon.radios import Heard
from lorabridge.daemon.reporting import SecurityReporter
from lorabridge.lorawan.air import CrcStatus, GatewayStatus, Transmission, TxResult
from lorabridge.lorawan.decision import Decision, Network
from lorabridge.lorawan.device import CounterPolicy, Device
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.events import EventKind, GatewayStats
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, DevAddr, FCnt32
from lorabridge.lorawan.verdict import Verdict
from lorabridge.radio.base import SourceEnded
from lorabridge.store.database import Batch, Store, StoreUnavailable
from lorabridge.store.values import StoredRecord, StoreSettings, StoreState
from lorabridge.upstream import schema
from tests.daemon.config_help import captured_log, lines_of
from tests.lorawan.builders import APP_S_KEY, GATEWAY, NWK_S_KEY, OTHER_GATEWAY, device, heard, uplink

METER = device()


class Watched(Store):
    """A real store that says when it committed what, and can be told to refuse first."""

    batches: list[Batch]
    steps: list[str]
    refuse_history = 0

    async def commit(self, batch: Batch) -> list[StoredRecord]:
        stored = await super().commit(batch)
        self.batches.append(batch)
        self.steps.append("commit")
        return stored

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        if self.refuse_history:
            self.refuse_history -= 1
            raise StoreUnavailable("the disk is away")
        return super().heard(session_id, fcnt32, mic)


class Corridor:
    """A pipeline, fed by a list of batches, and all that came out of it."""

    def __init__(self, store: Watched, *devices: Device) -> None:
        store.batches, store.steps = [], []
        self.store = store
        self.now = 0.0
        self.batches: list[list[Heard]] = []
        self.handed_on: list[StoredRecord] = []
        self.decisions: list[Decision] = []
        self.health = Health(lambda: self.now)
        self.table = SessionTable(devices, store.sessions())
        network = Network(dev_addr_prefixes=((0x2600_0000, 7),))
        self.pipeline = Pipeline(
            source=self,
            engine=Engine(self.table, network, store),
            downlinks=Downlinks(
                settings=DownlinkSettings(),
                table=self.table,
                network=network,
                transmit=self._transmit,
                queued=(),
                next_queue_id=1,
                airtimes=(),
                clock=time.time_ns,
                monotonic=time.monotonic,
            ),
            table=self.table,
            store=store,
            encode=lambda event: schema.encode(event, "roof-1"),
            hand_on=self._hand_on,
            reporter=SecurityReporter(60 * 10**9),
            backoff=Backoff(0.0, 0.0, random.Random(1)),
            check=self.health.add("pipeline", 30.0),
            observer=self._observe,
        )

    async def _transmit(self, _source: str, _transmission: Transmission) -> TxResult:
        raise AssertionError("a bridge that listens sends nothing")

    async def receive(self) -> list[Heard]:
        if not self.batches:
            raise SourceEnded
        return self.batches.pop(0)

    async def hear(self, *batches: Sequence[Heard]) -> list[Verdict]:
        """Run until the batches are over; the verdicts of all frames so far."""
        self.batches += [list(batch) for batch in batches]
        await self.pipeline.run()
        return [decision.verdict for decision in self.decisions]

    def _hand_on(self, stored: Sequence[StoredRecord]) -> None:
        self.handed_on += stored
        self.store.steps.append("hand on")

    def _observe(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.store.steps.append("observe")

    @property
    def payloads(self) -> list[dict[str, Any]]:
        """The records handed on, as JSON."""
        return [json.loads(record.payload) for record in self.handed_on]


@asynccontextmanager
async def _corridor(folder: Path, *devices: Device) -> AsyncIterator[Corridor]:
    store = await Watched.open(StoreSettings(path=str(folder / "store.db")))
    try:
        yield Corridor(store, *(devices or (METER,)))
    finally:
        await store.close()


def _with_corridor(folder: Path, use: Callable[[Corridor], Awaitable[None]], *devices: Device) -> None:
    async def scenario() -> None:
        async with _corridor(folder, *devices) as corridor:
            await use(corridor)

    asyncio.run(scenario())


def test_a_frame_is_committed_before_it_is_handed_on_and_handed_on_before_it_is_told(tmp_path: Path) -> None:
    async def use(corridor: Corridor) -> None:
        assert await corridor.hear([heard(uplink(METER, 1))]) == [Verdict.ACCEPTED]
        assert corridor.store.steps == ["commit", "hand on", "observe"]
        assert await corridor.store.pending(0, 10) == corridor.handed_on
        (record,) = corridor.payloads
        assert (record["schema"], record["fcnt32"], record["payload"]) == ("lorabridge/uplink/1", 1, "aGVsbG8=")
        assert [session.fcnt_up for session in corridor.store.sessions().values()] == [1]

    _with_corridor(tmp_path, use)


def test_nothing_is_committed_for_frames_that_prove_nothing(tmp_path: Path) -> None:
    flipped = bytearray(uplink(METER, 1))
    flipped[-1] ^= 1
    refused = [
        heard(bytes(flipped)),
        heard(uplink(METER, 1), crc=CrcStatus.BAD),
        heard(uplink(device(dev_addr=DevAddr(0x2601_0000)), 1)),
        heard(uplink(device(dev_addr=DevAddr(0x7E00_0001)), 1)),
        heard(b"\x40\x00"),
    ]

    async def use(corridor: Corridor) -> None:
        expected = [
            Verdict.BAD_MIC,
            Verdict.RADIO_CRC,
            Verdict.UNKNOWN_DEVICE,
            Verdict.FOREIGN,
            Verdict.MALFORMED,
        ]
        assert await corridor.hear(refused) == expected
        assert (corridor.store.batches, corridor.handed_on, corridor.store.sessions()) == ([], [], {})
        assert dict(corridor.pipeline.verdicts) == dict.fromkeys(expected, 1)

    _with_corridor(tmp_path, use)


def test_many_frames_of_one_session_in_a_batch_are_one_change_of_one_generation(tmp_path: Path) -> None:
    frames = [heard(uplink(METER, number), number) for number in range(1, 6)]

    async def use(corridor: Corridor) -> None:
        await corridor.hear([*frames, heard(uplink(METER, 5), 5.1, OTHER_GATEWAY)], [heard(uplink(METER, 6), 6)])
        first, second = corridor.store.batches
        ((change,), (next_change,)) = (first.changes, second.changes)
        assert (change.expected_generation, change.session.generation, change.session.fcnt_up) == (-1, 0, 5)
        assert (next_change.expected_generation, next_change.session.generation) == (0, 1)
        assert [record.kind for record in first.records] == [EventKind.UPLINK] * 5 + [EventKind.UPLINK_COPY]
        assert [record["fcnt32"] for record in corridor.payloads] == [1, 2, 3, 4, 5, 5, 6]

    _with_corridor(tmp_path, use)


def test_a_frame_of_the_run_before_is_known_in_the_next(tmp_path: Path) -> None:
    async def first(corridor: Corridor) -> None:
        assert await corridor.hear([heard(uplink(METER, 7))]) == [Verdict.ACCEPTED]

    async def second(corridor: Corridor) -> None:
        batch = [heard(uplink(METER, 7), 3600), heard(uplink(METER, 8), 3601)]
        assert await corridor.hear(batch) == [Verdict.REPLAY, Verdict.ACCEPTED]

    _with_corridor(tmp_path, first)
    _with_corridor(tmp_path, second)


class _OnError(logging.Handler):
    """Does something whenever the pipeline says that the store cannot."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__(logging.ERROR)
        self._do = do

    def emit(self, record: logging.LogRecord) -> None:
        assert "the store cannot" in record.getMessage()
        self._do()


@asynccontextmanager
async def _on_store_error(do: Callable[[], None]) -> AsyncIterator[None]:
    logger, handler = logging.getLogger("lorabridge.daemon.pipeline"), _OnError(do)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def test_a_database_locked_by_another_costs_a_retry_and_no_frame(tmp_path: Path) -> None:
    async def use(corridor: Corridor) -> None:
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        stuck: list[list[str]] = []

        def see_and_let_go() -> None:
            corridor.now = 31.0
            stuck.append(corridor.health.stuck())
            assert "locked" in corridor.pipeline.trouble
            assert corridor.pipeline.store_state is StoreState.UNAVAILABLE
            assert corridor.handed_on == [], "nothing is told before it is committed"
            other.execute("ROLLBACK")

        async with _on_store_error(see_and_let_go):
            running = asyncio.create_task(corridor.hear([heard(uplink(METER, 1))]))
            assert await running == [Verdict.ACCEPTED]
        other.close()
        assert stuck == [["pipeline"]], "one try took longer than a step may"
        assert corridor.pipeline.trouble == ""
        assert corridor.pipeline.store_state is StoreState.OK
        assert corridor.health.stuck() == []
        assert [record["fcnt32"] for record in corridor.payloads] == [1]
        assert await corridor.store.pending(0, 10) == corridor.handed_on

    _with_corridor(tmp_path, use)


def test_waiting_for_the_store_is_progress_to_the_watchdog(tmp_path: Path) -> None:
    tracked = device(counter_policy=CounterPolicy.CONFIRM)

    async def use(corridor: Corridor) -> None:
        await corridor.hear([heard(uplink(tracked, 500))])
        corridor.store.refuse_history = 5
        corridor.now = 100.0
        health: list[list[str]] = []

        def step() -> None:
            health.append(corridor.health.stuck())
            corridor.now += 29.0

        async with _on_store_error(step):
            verdicts = await corridor.hear([heard(uplink(tracked, 1), 3600)])
        assert verdicts == [Verdict.ACCEPTED, Verdict.COUNTER_RESET]
        assert health == [[]] * 5, "each try is a step, however many there are"
        assert corridor.now == 245.0

    _with_corridor(tmp_path, use, tracked)


def test_a_held_frame_is_remembered_with_the_session(tmp_path: Path) -> None:
    tracked = device(counter_policy=CounterPolicy.CONFIRM, confirm_frames=2)

    async def use(corridor: Corridor) -> None:
        verdicts = await corridor.hear(
            [heard(uplink(tracked, 500))],
            [heard(uplink(tracked, 1), 3600)],
            [heard(uplink(tracked, 2), 3660)],
            [heard(uplink(tracked, 500), 3720)],
        )
        assert verdicts == [Verdict.ACCEPTED, Verdict.COUNTER_RESET, Verdict.ACCEPTED, Verdict.REPLAY]
        assert [len(batch.heard) for batch in corridor.store.batches] == [1, 1, 1, 0]
        uplinks = [record for record in corridor.payloads if record["schema"] == "lorabridge/uplink/1"]
        assert [record["counter_reset"] for record in uplinks] == [False, True]

    _with_corridor(tmp_path, use, tracked)


def test_the_first_proven_refusal_is_told_and_the_rest_are_summed_up(tmp_path: Path) -> None:
    async def use(corridor: Corridor) -> None:
        await corridor.hear([heard(uplink(METER, 9))])
        replayed = [heard(uplink(METER, 9), 3600 + again) for again in range(20)]
        assert (await corridor.hear(replayed))[1:] == [Verdict.REPLAY] * 20
        security = [record for record in corridor.payloads if record["schema"] == "lorabridge/security/1"]
        assert [(record["verdict"], record["count"]) for record in security] == [("replay", 1)]
        assert corridor.pipeline.verdicts[Verdict.REPLAY] == 20

    _with_corridor(tmp_path, use)


def test_events_without_frames_go_the_same_way_and_none_is_no_transaction(tmp_path: Path) -> None:
    async def use(corridor: Corridor) -> None:
        await corridor.hear([heard(uplink(METER, 1)), _status(1)], [_status(2)], [])
        assert len(corridor.store.batches) == 1, "a status report of a gateway is not stored by itself"
        stats = corridor.pipeline.stats(1_700_000_000 * 10**9, 60.0, {"radio_frames": 3})
        await corridor.pipeline.commit([], [stats])
        await corridor.pipeline.commit([], [])
        assert len(corridor.store.batches) == 2
        record = corridor.payloads[-1]
        assert record["schema"] == "lorabridge/gateway_stats/1"
        assert record["at"] == "2023-11-14T22:13:20Z"
        assert (record["verdicts"], record["counters"]) == ({"accepted": 1}, {"radio_frames": 3})
        assert [gateway["gateway_eui"] for gateway in record["gateways"]] == [str(EUI64(1)), str(EUI64(2))]

    _with_corridor(tmp_path, use)


def _status(number: int, received_at: int = 5) -> GatewayStatus:
    return GatewayStatus(gateway_eui=EUI64(number), source="test", received_at=received_at)


def test_the_table_of_gateways_is_bounded_and_those_in_it_stay_current(tmp_path: Path) -> None:
    async def use(corridor: Corridor) -> None:
        await corridor.hear([_status(number) for number in range(MAX_GATEWAYS + 50)], [_status(0, received_at=9)])
        stats = corridor.pipeline.stats(0, 1.0, {})
        assert isinstance(stats, GatewayStats)
        assert len(stats.gateways) == MAX_GATEWAYS
        assert {status.received_at for status in stats.gateways if status.gateway_eui == EUI64(0)} == {9}

    _with_corridor(tmp_path, use)


def test_every_frame_has_one_line_with_its_id_and_ordinary_ones_are_for_whoever_looks(tmp_path: Path) -> None:
    flipped = uplink(METER, 3)[:-1] + b"\0"
    batch = [heard(uplink(METER, 1)), heard(uplink(METER, 1), 0.1, OTHER_GATEWAY), heard(flipped), heard(b"\x40")]

    async def use(corridor: Corridor) -> None:
        with captured_log("debug") as stream:
            await corridor.hear(batch)
            lines = lines_of(stream, "frame judged")
        assert [line["frame"] for line in lines] == [decision.frame_id for decision in corridor.decisions]
        assert [(line["level"], line["verdict"]) for line in lines] == [
            ("debug", "accepted"),
            ("debug", "duplicate"),
            ("info", "bad_mic"),
            ("info", "malformed"),
        ]
        accepted, _, bad_mic, malformed = lines
        assert (accepted["device"], accepted["dev_addr"], accepted["fcnt"]) == ("meter", "260b1234", 1)
        assert (accepted["gateway"], accepted["uplink"]) == (str(GATEWAY), corridor.payloads[0]["id"])
        assert "device" not in bad_mic
        assert malformed["reason"] == "too_short"

    _with_corridor(tmp_path, use)


def test_no_line_holds_a_payload_a_frame_or_a_key(tmp_path: Path) -> None:
    frame = uplink(METER, 1, b"plaintext-of-a-meter")

    async def use(corridor: Corridor) -> None:
        with captured_log("debug") as stream:
            await corridor.hear([heard(frame), heard(frame[:-1] + b"\0"), heard(frame, 3600)])
            text = stream.getvalue().lower()
        assert len(text.splitlines()) >= 3
        secrets = (NWK_S_KEY.reveal(), APP_S_KEY.reveal(), b"plaintext-of-a-meter", frame[9:])
        for secret in secrets:
            assert secret.hex() not in text
            assert repr(secret)[2:-1].lower() not in text

    _with_corridor(tmp_path, use)


def test_at_the_ordinary_level_an_accepted_frame_writes_no_line(tmp_path: Path) -> None:
    async def use(corridor: Corridor) -> None:
        with captured_log() as stream:
            await corridor.hear([heard(uplink(METER, 1)), heard(b"\x40")])
            assert [line["verdict"] for line in lines_of(stream, "frame judged")] == ["malformed"]

    _with_corridor(tmp_path, use)
