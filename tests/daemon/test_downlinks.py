"""What is sent, decided turn by turn: with the real engine and table, clocks by hand, and a radio that does as told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lorabridge.daemon.always_listening import ACK_PATIENCE, TRY_AGAIN
from lorabridge.daemon.answering import DownlinkSettings
from lorabridge.daemon.downlinks import Downlinks, Order
from lorabridge.daemon.work import Work
from lorabridge.lorawan.air import Airtime, Transmission, TxResult, TxTiming
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, Priority, QueuedCommand
from lorabridge.lorawan.decision import Answering, Network
from lorabridge.lorawan.device import Device, MulticastGroup
from lorabridge.lorawan.events import DownlinkResult
from lorabridge.lorawan.frame import DataFrame, parse
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.types import EUI64, DevAddr, DeviceClass, FCnt32
from lorabridge.settings import Duration
from tests.lorawan.builders import GATEWAY, OTHER_GATEWAY, SECOND, START, Bridge, device, heard, key, uplink
from tests.lorawan.joining import join_request, joiner

METER = device(region="EU868", adr=False)
LAMP = msgspec.structs.replace(METER, device_class=DeviceClass.C)
NETWORK = Network(answering=Answering(policy=MacPolicy()))
GROUP = MulticastGroup(
    name="lamps", mc_addr=DevAddr(0x01FF_0001), mc_nwk_s_key=key(60), mc_app_s_key=key(61), region="EU868"
)


class Air(Bridge):
    """An engine, its table, and the downlinks beside them; every turn is committed at once, in memory."""

    def __init__(self, *devices: Device, groups: tuple[MulticastGroup, ...] = (), **how: Any) -> None:
        super().__init__(*devices, network=NETWORK)
        self.table.load(devices, groups)
        self.monotonic, self.clock = 100.0, START
        self.says: Callable[[Transmission], str | None] = lambda _: None
        self.sent: list[Transmission] = []
        self.results: list[DownlinkResult] = []
        self.taken: list[str] = []
        self.downlinks = Downlinks(
            settings=DownlinkSettings(gather=Duration(0)),
            table=self.table,
            network=NETWORK,
            transmit=self._transmit,
            queued=how.get("queued", ()),
            next_queue_id=100,
            airtimes=how.get("airtimes", ()),
            clock=lambda: self.clock,
            monotonic=lambda: self.monotonic,
        )

    async def _transmit(self, _source: str, transmission: Transmission) -> TxResult:
        self.sent.append(transmission)
        return TxResult(error=self.says(transmission))

    def pass_(self, seconds: float) -> None:
        self.monotonic += seconds
        self.clock += round(seconds * SECOND)

    def up(self, who: Device, fcnt32: int, gateway: EUI64 = GATEWAY, **how: Any) -> None:
        """An uplink of now, judged and committed with what it says of commands."""
        self.frame(uplink(who, fcnt32, **how), gateway)

    def frame(self, phy_payload: bytes, gateway: EUI64 = GATEWAY) -> None:
        reception = heard(phy_payload, gateway=gateway, tmst=1_000_000)
        reception = msgspec.structs.replace(reception, received_at=self.clock)
        self.downlinks.note_sources([reception])
        decisions = self.hear_all(reception)
        self._note(self.downlinks.resolve(decisions))
        self.downlinks.note(decisions)

    def order(self, command_id: str, target: EUI64 | str = METER.dev_eui, **fields: Any) -> None:
        base: dict[str, Any] = {"f_port": 9, "payload": b"open", "received_at": self.clock}
        command = DownlinkCommand(id=command_id, target=target, **(base | fields))
        self.downlinks.order(Order(command, lambda: self.taken.append(command_id)))

    async def turn(self) -> Work:
        """One turn of the pipeline, and what came of it."""
        work = self.downlinks.turn()
        self._note(work)
        self.downlinks.launch(work)
        if work.jobs:
            self._note(await self.downlinks.settle(1.0))
        return work

    def _note(self, work: Work) -> None:
        for session in work.sessions.values():
            assert session.generation == self.sessions_generation(session.session_id) + 1
            self.sessions[session.session_id] = session
        self.table.advance(work.sessions.values())
        self.results += [event for event in work.events if isinstance(event, DownlinkResult)]

    def sessions_generation(self, session_id: bytes) -> int:
        found = self.table.stored(session_id)
        return -1 if found is None else found.generation

    def states(self, command_id: str) -> list[str]:
        return [str(one.state) for one in self.results if one.command_id == command_id]

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.downlinks.counters)


def played(scenario: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario()

    asyncio.run(run())


def frame_of(order: Transmission) -> DataFrame:
    frame = parse(order.phy_payload)
    assert isinstance(frame, DataFrame)
    return frame


def test_an_order_is_told_to_be_durable_before_anything_else_happens_to_it() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.order("a")
        work = air.downlinks.turn()
        assert (air.taken, [one.command.id for one in work.queued.values()]) == ([], ["a"])
        air.downlinks.launch(work)
        assert air.taken == ["a"]
        await air.downlinks.woken()

    async def bounded() -> None:
        air = Air(METER)
        waiting = asyncio.ensure_future(air.downlinks.woken())
        await asyncio.sleep(0)
        assert not waiting.done()
        air.order("a")
        await asyncio.wait_for(waiting, 1)

    del scenario
    played(bounded)


def test_nothing_is_sent_that_came_too_late_and_no_counter_is_used_up() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.order("a")
        await air.turn()
        air.up(METER, 1)
        air.pass_(3)
        await air.turn()
        assert (air.sent, air.states("a"), air.counters["too_late"]) == ([], ["queued", "refused_by_radio"], 1)
        assert air.results[-1].reason is CommandReason.TOO_LATE
        (session,) = air.sessions.values()
        assert session.fcnt_down == 0

    played(scenario)


def test_a_commit_that_took_too_long_is_not_sent_either() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.order("a")
        await air.turn()
        air.up(METER, 1)
        work = air.downlinks.turn()
        job = msgspec.structs.replace(work.jobs[0], heard_at=air.monotonic - 10)
        work.jobs[:] = [job]
        air._note(work)
        air.downlinks.launch(work)
        air._note(await air.downlinks.settle(1.0))
        assert (air.sent, air.states("a")) == ([], ["queued", "refused_by_radio"])
        assert air.counters["too_late"] == 1

    played(scenario)


def test_a_join_accept_that_cannot_be_sent_is_counted() -> None:
    async def scenario() -> None:
        who = joiner()
        air = Air(who)
        air.frame(join_request(who, 1))
        air.pass_(10)
        await air.turn()
        assert (air.sent, air.counters["too_late"]) == ([], 1)

    played(scenario)


def test_a_used_up_duty_cycle_holds_commands_back_and_survives_a_restart() -> None:
    async def scenario() -> None:
        used = [Airtime(GATEWAY, 868_000_000, START, 36_000_000), Airtime(GATEWAY, 869_400_000, START, 360_000_000)]
        air = Air(METER, airtimes=used)
        air.order("a")
        await air.turn()
        air.up(METER, 1)
        await air.turn()
        assert air.states("a") == ["queued", "refused_by_radio"]
        assert (air.results[-1].reason, air.counters["no_airtime"]) == (CommandReason.DUTY_CYCLE, 1)
        air.pass_(3700)
        air.up(METER, 2)
        await air.turn()
        assert air.states("a")[-1] == "sent"

    played(scenario)


def test_what_was_not_sent_is_given_back_to_the_duty_cycle() -> None:
    async def scenario() -> None:
        air = Air(METER)
        for n in range(1, 2000):
            air.up(METER, n, m_type=MType.CONFIRMED_DATA_UP)
            await air.turn()
        # Had RX2 (SF12, over a second each, 10 % of an hour) been charged for all of them, none would have been left.
        assert air.counters["sent"] == len(air.sent)
        assert {one.frequency_hz for one in air.sent} == {868_100_000, 869_525_000}
        assert sum(one.frequency_hz == 868_100_000 for one in air.sent) > 700

    played(scenario)


def test_a_command_that_can_never_be_sent_makes_way_for_the_next() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.order("sealed", fcnt_down=FCnt32(70_000))
        air.order("long", payload=bytes(243))
        air.order("fits")
        await air.turn()
        air.up(METER, 1)
        await air.turn()
        assert air.states("sealed") == ["queued", "rejected"]
        assert air.states("long") == ["queued", "rejected"]
        assert air.states("fits") == ["queued", "sent"]
        assert [one.reason for one in air.results if one.reason] == [
            CommandReason.BAD_COMMAND,
            CommandReason.TOO_LONG,
        ]

    played(scenario)


def test_orders_for_nobody_or_too_many_are_rejected_and_acknowledged_all_the_same() -> None:
    async def scenario() -> None:
        homeless = device(name="homeless", dev_eui=EUI64(9), dev_addr=DevAddr(9))
        air = Air(METER, homeless)
        air.order("nobody", EUI64(77))
        air.order("no group", "none")
        air.order("no region", EUI64(9))
        for n in range(17):
            air.order(f"n{n}")
        air.order("n3")
        await air.turn()
        reasons = {one.command_id: one.reason for one in air.results if one.reason is not None}
        assert reasons == {
            "nobody": CommandReason.UNKNOWN_DEVICE,
            "no group": CommandReason.UNKNOWN_DEVICE,
            "no region": CommandReason.NO_REGION,
            "n16": CommandReason.QUEUE_FULL,
        }
        assert air.states("n3") == ["queued", "queued"]
        assert len(air.taken) == 21

    played(scenario)


def test_a_command_expires_while_its_device_is_silent() -> None:
    async def scenario() -> None:
        air = Air(METER)
        assert air.downlinks.next_due() is None
        air.order("a", expires_at=START + 5 * SECOND)
        await air.turn()
        assert air.downlinks.next_due() == 5.0
        air.pass_(5)
        assert air.downlinks.next_due() == 0
        await air.turn()
        assert air.states("a") == ["queued", "expired"]
        assert air.counters["queued"] == 0

    played(scenario)


def test_an_uplink_with_nothing_to_say_to_is_left_alone() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.up(METER, 1)
        assert air.counters["waiting_answers"] == 0
        air.up(METER, 2, m_type=MType.CONFIRMED_DATA_UP)
        assert air.counters["waiting_answers"] == 1

    played(scenario)


# ---- devices that listen always --------------------------------------------------------------------------------------


def test_class_c_waits_for_a_gateway_and_is_tried_again_when_refused() -> None:
    async def scenario() -> None:
        air = Air(LAMP)
        air.order("early")
        await air.turn()
        assert air.sent == []
        air.says = lambda _: "COLLISION_PACKET"
        air.up(LAMP, 1)
        await air.turn()  # the windows of class A are used
        assert air.states("early") == ["queued", "refused_by_radio"]
        air.says = lambda _: None
        air.order("at once")
        await air.turn()
        air.pass_(TRY_AGAIN)
        await air.turn()
        air.pass_(TRY_AGAIN)
        await air.turn()
        assert air.states("early")[-1] == "sent"
        assert air.states("at once")[-1] == "sent"

    played(scenario)


def test_class_c_knows_no_gateway_after_a_restart_until_one_is_heard() -> None:
    async def scenario() -> None:
        before = Air(LAMP)
        before.up(LAMP, 1)
        waiting = QueuedCommand(
            queue_id=1, command=DownlinkCommand(id="a", target=LAMP.dev_eui, f_port=1, payload=b"on")
        )
        air = Air(LAMP, queued=[waiting])
        air.table.advance(before.sessions.values())
        await air.turn()
        assert air.sent == []
        air.downlinks.note_sources([heard(b"")])
        air.pass_(TRY_AGAIN)
        await air.turn()
        assert air.states("a") == ["sent"]

    played(scenario)


def test_an_unacknowledged_class_c_command_is_repeated_after_a_while_and_given_up() -> None:
    async def scenario() -> None:
        air = Air(LAMP)
        air.up(LAMP, 1)
        air.order("a", confirmed=True)
        for _ in range(4):
            await air.turn()
            air.pass_(ACK_PATIENCE)
        assert air.states("a") == ["queued", "sent", "sent", "sent", "not_acknowledged"]
        air.order("b", confirmed=True)
        await air.turn()
        air.up(LAMP, 2, flags=0x20)
        assert air.states("b") == ["queued", "sent", "acknowledged"]

    played(scenario)


def test_no_command_overtakes_an_answer_that_waits_for_its_window() -> None:
    async def scenario() -> None:
        air = Air(LAMP)
        air.up(LAMP, 1, m_type=MType.CONFIRMED_DATA_UP)
        await air.turn()
        air.order("a")
        await air.turn()
        assert [frame_of(one).fcnt16 for one in air.sent] == [0]
        air.pass_(1.1)  # the acknowledgement was on the air from 1 s on, for some 40 ms
        await air.turn()
        assert [frame_of(one).fcnt16 for one in air.sent] == [0, 1]
        air.up(LAMP, 2, m_type=MType.CONFIRMED_DATA_UP)
        air.says = lambda _: "TX_FREQ"
        await air.turn()
        air.says = lambda _: None
        air.order("b")  # the answer will never be on the air
        await air.turn()
        assert air.states("b")[-1] == "sent"

    played(scenario)


def test_a_command_may_wait_for_an_uplink_although_the_device_always_listens() -> None:
    async def scenario() -> None:
        air = Air(LAMP)
        air.up(LAMP, 1)
        air.order("later", device_class=DeviceClass.A, priority=Priority.HIGH, confirmed=True)
        air.order("now")
        await air.turn()
        assert (air.states("later"), air.states("now")) == (["queued"], ["queued", "sent"])
        air.up(LAMP, 2)
        air.order("blocked")
        await air.turn()
        assert air.states("later") == ["queued", "sent"]
        assert [one.timing for one in air.sent] == [TxTiming.IMMEDIATELY, TxTiming.AT_TMST]
        air.pass_(ACK_PATIENCE)
        await air.turn()
        assert (air.states("later"), air.states("blocked")) == (["queued", "sent"], ["queued"])
        air.up(LAMP, 3, flags=0x20)
        await air.turn()
        assert (air.states("later")[-1], air.states("blocked")[-1]) == ("acknowledged", "sent")

    played(scenario)


def test_a_command_may_go_at_once_although_the_file_says_nothing_of_it() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.up(METER, 1, m_type=MType.CONFIRMED_DATA_UP)
        await air.turn()
        air.order("now", device_class=DeviceClass.C, confirmed=True)
        air.order("later")
        await air.turn()
        assert (air.states("now"), len(air.sent)) == (["queued"], 1)  # the acknowledgement goes first
        air.pass_(1.1)
        await air.turn()
        assert (air.states("now"), air.states("later")) == (["queued", "sent"], ["queued"])
        assert [one.timing for one in air.sent] == [TxTiming.AT_TMST, TxTiming.IMMEDIATELY]
        air.pass_(ACK_PATIENCE)
        await air.turn()
        assert air.states("now") == ["queued", "sent", "sent"]
        air.up(METER, 2, flags=0x20)
        await air.turn()
        assert (air.states("now")[-1], air.states("later")[-1]) == ("acknowledged", "sent")

    played(scenario)


def test_a_group_has_a_counter_of_its_own_and_every_gateway_sends() -> None:
    async def scenario() -> None:
        air = Air(METER, groups=(GROUP,))
        air.up(METER, 1)
        air.up(METER, 1, OTHER_GATEWAY)
        for name in ("one", "two"):
            air.order(name, "lamps")
        for _ in range(3):
            await air.turn()
        assert [(one.gateway_eui, frame_of(one).fcnt16) for one in air.sent] == [
            (GATEWAY, 0),
            (OTHER_GATEWAY, 0),
            (GATEWAY, 1),
            (OTHER_GATEWAY, 1),
        ]
        assert air.results[-1].next_fcnt_down == 2

    played(scenario)


def test_a_group_rejects_what_it_cannot_send() -> None:
    async def scenario() -> None:
        closed = msgspec.structs.replace(GROUP, name="closed", mc_app_s_key=None)
        nowhere = msgspec.structs.replace(GROUP, name="nowhere", data_rate=14)
        air = Air(METER, groups=(GROUP, closed, nowhere))
        air.up(METER, 1)
        air.order("plain", "closed")
        air.order("where", "nowhere")
        air.order("first", "lamps")
        await air.turn()
        air.order("used", "lamps", fcnt_down=FCnt32(0))
        air.order("long", "lamps", payload=bytes(60))
        for _ in range(3):
            air.pass_(TRY_AGAIN)
            await air.turn()
        reasons = {one.command_id: one.reason for one in air.results if one.reason is not None}
        assert reasons == {
            "plain": CommandReason.NO_APP_S_KEY,
            "where": CommandReason.NO_REGION,
            "used": CommandReason.COUNTER_USED,
            "long": CommandReason.TOO_LONG,
        }

    played(scenario)


def test_a_device_or_group_that_is_gone_leaves_its_commands_waiting() -> None:
    async def scenario() -> None:
        air = Air(LAMP, groups=(GROUP,))
        air.up(LAMP, 1)
        air.order("lamp")
        air.order("group", "lamps")
        air.table.load([])
        for target in (LAMP.dev_eui, "lamps"):
            assert isinstance(target, (EUI64, str))
        work = air.downlinks.turn()
        assert [str(one.state) for one in work.events if isinstance(one, DownlinkResult)] == ["rejected", "rejected"]
        air.table.load([LAMP], (GROUP,))
        air.order("lamp again")
        air.order("group again", "lamps")
        air.says = lambda _: "TX_FREQ"
        await air.turn()
        air.table.load([])
        air.pass_(TRY_AGAIN)
        await air.turn()
        assert air.counters["queued"] == 2

    played(scenario)


def test_what_is_ours_on_the_air_can_be_changed() -> None:
    async def scenario() -> None:
        air = Air(METER)
        air.up(METER, 1)
        assert air.counters["waiting_answers"] == 0
        asks = Network(answering=Answering(policy=MacPolicy(rx1_delay=5)))
        air.engine.own(asks)
        air.downlinks.own(asks)
        air.up(METER, 2)
        assert air.counters["waiting_answers"] == 1
        air.downlinks.own(Network())
        await air.turn()
        assert air.sent == []

    played(scenario)
