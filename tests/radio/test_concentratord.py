"""Concentratord as a radio source, over real ZeroMQ sockets with a stand-in for it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lorabridge.errors import ConfigError, TransientError
from lorabridge.lorawan.air import GatewayStatus, LoraDataRate, Reception, Transmission
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import RadioSilentError, RadioSource, SourceEnded
from lorabridge.radio.concentratord import source as source_module
from lorabridge.radio.concentratord.messages import Wording
from lorabridge.radio.concentratord.settings import (
    INSTALL_HINT,
    IPC_PATH_LIMIT,
    ConcentratordSettings,
    missing_extra,
    socket_problem,
)
from lorabridge.radio.concentratord.source import PENDING_LIMIT, Concentratord
from lorabridge.settings import Duration
from tests.radio.concentratord_standin import LIMIT, ConcentratordStandIn, acked
from tests.radio.gateway_api import EUI_TEXT, made, uplink
from tests.radio.sending import played, transmission

EUI = EUI64.parse(EUI_TEXT)
FRAME = bytes.fromhex("40112233f4c00300080201020355667788")
TMST = 36_637_365


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: the name of a socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("c")


def settings_for(standin: ConcentratordStandIn, **change: Any) -> ConcentratordSettings:
    fields: dict[str, Any] = {"event_url": standin.event_url, "command_url": standin.command_url}
    return ConcentratordSettings(**(fields | {"answer_timeout": Duration(20)} | change))


@asynccontextmanager
async def heard_by(standin: ConcentratordStandIn, **change: Any) -> AsyncIterator[Concentratord]:
    source = Concentratord(settings_for(standin, **change))
    try:
        async with asyncio.timeout(LIMIT):
            await source.start()
            await standin.subscribed()
            yield source
    finally:
        await source.stop()


def hasten(source: Concentratord, standin: ConcentratordStandIn, **change: Any) -> None:
    """From now on it waits as `change` says: only while a test wants it to be short, whatever the machine's load."""
    source._settings = settings_for(standin, **change)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # counters are all there is to see
        await asyncio.sleep(0)


def order(**change: Any) -> Transmission:
    return transmission(EUI, TMST, **change)


@pytest.mark.parametrize("before_4_5", [False, True])
def test_what_is_published_is_heard_and_what_is_ordered_is_answered(folder: Path, before_4_5: bool) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder, before_4_5=before_4_5) as standin, heard_by(standin) as source:
            await standin.say_uplink(FRAME)
            (heard,) = await source.receive()
            assert isinstance(heard, Reception)
            assert (heard.phy_payload, heard.tmst, heard.gateway_eui, heard.source) == (FRAME, TMST, EUI, source.name)
            await standin.say_stats()
            (status,) = await source.receive()
            assert isinstance(status, GatewayStatus)
            assert (status.gateway_eui, status.rx_received) == (EUI, 9)
            assert (await source.transmit(order())).error is None
            ordered = await standin.ordered()
            (item,) = ordered.items
            assert (ordered.gateway_id, item.phy_payload, item.tx_info.power) == (EUI_TEXT, b"\x60answer", 14)
            assert (item.tx_info.context, item.tx_info.timing.delay.delay.seconds) == (TMST.to_bytes(4, "big"), 1)
            assert not standin.has_ended
            assert (source.counters["frames"], source.counters["statuses"], source.counters["transmitted"]) == (1, 1, 1)

    played(scenario)


@pytest.mark.parametrize(
    ("answer", "error", "counter"),
    [
        (acked(2), "TOO_LATE", "tx_refused"),
        (acked(11), "DUTY_CYCLE_OVERFLOW", "tx_refused"),
        (acked(0), "IGNORED", "tx_refused"),
        (lambda _: b"", "INTERNAL_ERROR", "tx_refused"),
        (acked(12), "NO_TX_ACK", "tx_unanswered"),
        (acked(), "NO_TX_ACK", "tx_unanswered"),
        (acked(1, 1), "NO_TX_ACK", "tx_unanswered"),
        (acked(1, change=1), "NO_TX_ACK", "tx_unanswered"),
        (lambda _: b"\xff" * 9, "NO_TX_ACK", "tx_unanswered"),
    ],
)
def test_an_answer_becomes_the_result_of_a_transmission(
    folder: Path, answer: Callable[[Any], bytes], error: str, counter: str
) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            standin.answer = answer
            assert (await source.transmit(order())).error == error
            standin.answer = acked(1)
            assert (await source.transmit(order())).error is None  # and the socket is as good as before
            assert (source.counters[counter], source.counters["transmitted"]) == (1, 1)

    played(scenario)


def test_a_command_without_an_answer_costs_its_socket_and_nothing_else(folder: Path) -> None:
    async def scenario() -> None:
        async with heard_by(standin := await _entered(folder)) as source:
            standin.answer = lambda _: None  # it takes the order, and hangs
            hasten(source, standin, answer_timeout=Duration(0.5))
            assert (await source.transmit(order())).error == "NO_TX_ACK"
            await standin.ordered()
            await standin.say_uplink(FRAME)
            assert len(await source.receive()) == 1  # events go on
            hasten(source, standin)
            await standin.__aexit__()
            async with ConcentratordStandIn(folder) as restarted:
                await restarted.subscribed()
                assert (await source.transmit(order())).error is None
                await restarted.say_uplink(FRAME)
                assert len(await source.receive()) == 1
                assert restarted.orders.qsize() == 1  # nothing of before comes late

    played(scenario)


async def _entered(folder: Path, **how: Any) -> ConcentratordStandIn:
    return await ConcentratordStandIn(folder, **how).__aenter__()


def test_a_concentratord_of_another_version_that_comes_back_gets_its_own_wording(folder: Path) -> None:
    async def scenario() -> None:
        async with heard_by(standin := await _entered(folder)) as source:
            await standin.__aexit__()
            async with ConcentratordStandIn(folder, before_4_5=True) as restarted:
                restarted.gateway_id = "0016c001ff10a236"
                await restarted.subscribed()
                await restarted.say_stats(gateway_id="0016c001ff10a236")
                await source.receive()
                assert (await source.transmit(order())).error == "NOT_RUNNING"  # that gateway is gone
                there = EUI64.parse("0016c001ff10a236")
                assert (await source.transmit(order(gateway_eui=there))).error is None
                assert (await restarted.ordered()).gateway_id == "0016c001ff10a236"
                assert source.counters["gateway_changed"] == 1

    played(scenario)


def test_an_upgraded_concentratord_that_said_nothing_yet_is_not_ended_by_a_command(folder: Path) -> None:
    async def scenario() -> None:
        async with heard_by(standin := await _entered(folder, before_4_5=True)) as source:
            await standin.__aexit__()
            async with ConcentratordStandIn(folder) as upgraded:
                assert (await source.transmit(order())).error is None
                assert not upgraded.has_ended
            async with ConcentratordStandIn(folder) as another:
                source._wording = Wording.TOPIC
                another.gateway_id = "0016c001ff10a236"
                assert (await source.transmit(order())).error == "NOT_RUNNING"
                assert another.orders.empty()

    played(scenario)


def test_silence_is_a_failure_and_a_start_mends_it(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin, silence=Duration(1)) as source:
            with pytest.raises(RadioSilentError, match="Concentratord said nothing for 1s"):
                await source.receive()
            assert (await source.transmit(order())).error == "NOT_RUNNING"
            hasten(source, standin)
            await source.start()
            await standin.subscribed()
            await standin.say_uplink(FRAME)
            assert len(await source.receive()) == 1
            assert source.counters["starts"] == 2

    played(scenario)


def test_garbage_is_counted_and_the_next_frame_is_heard(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            for frames in (
                (b"\xff" * 20,),
                (b"up", b"\x0a\x05"),
                (b"stats", b""),
                (b"mesh", b"x"),
                (made("Event", mesh={"gateway_id": EUI_TEXT}).SerializeToString(),),
                (b"a", b"b", b"c"),
                (made("Event", uplink_frame=uplink(b"x", rssi=-5000)).SerializeToString(),),
            ):
                await standin.publish(*frames)
            await standin.say_uplink(FRAME)
            (heard,) = await source.receive()
            assert isinstance(heard, Reception)
            counters = source.counters
            assert (counters["events"], counters["ignored"], counters["frames"]) == (8, 2, 1)
            assert (counters["fault_bad_protobuf"], counters["fault_missing_field"]) == (2, 1)
            assert (counters["fault_bad_frames"], counters["fault_bad_value"]) == (1, 1)
            assert (await source.transmit(order())).error is None  # two frames of nothing did not change the wording
            assert not standin.has_ended

    played(scenario)


def test_a_message_beyond_all_measure_never_gets_in_and_the_silence_after_it_is_noticed(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin, silence=Duration(1)) as source:
            await standin.publish(b"x" * 1_000_000)
            with pytest.raises(TransientError, match="said nothing"):
                await source.receive()
            hasten(source, standin)
            await source.start()
            await standin.subscribed()
            await standin.say_uplink(FRAME)
            assert len(await source.receive()) == 1
            assert source.counters["events"] == 1

    played(scenario)


def test_a_flood_is_bounded_and_leaves_the_loop_its_turn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "INBOX_LIMIT", 100)

    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            for _ in range(300):
                await standin.say_uplink(FRAME)
            await until(lambda: source.counters["events"] == 300)
            heard = await source.receive()
            assert (len(heard), source.counters["inbox_dropped"]) == (100, 200)

    played(scenario)


def test_only_so_many_frames_wait_for_their_answers_and_a_stop_lets_them_go(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            standin.answer = lambda _: None
            waiting = [asyncio.create_task(source.transmit(order())) for _ in range(PENDING_LIMIT)]
            await standin.ordered()
            assert (await source.transmit(order())).error == "TOO_MANY_PENDING"
            await source.stop()
            assert {(await task).error for task in waiting} == {"NOT_RUNNING"}
            assert (await source.transmit(order())).error == "NOT_RUNNING"
            seen: RadioSource = source
            assert (seen.can_transmit, seen.reachable) == (True, None)

    played(scenario)


def test_a_transmission_that_is_given_up_leaves_a_socket_that_works(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            sending = asyncio.create_task(source.transmit(order()))
            await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert (await source.transmit(order())).error is None
            assert (await source.transmit(order(data_rate=LoraDataRate(7, 1)))).error == "UNSENDABLE"

    played(scenario)


def test_what_was_heard_before_a_stop_is_given_and_then_it_is_the_end(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            await standin.say_uplink(FRAME)
            await until(lambda: source.counters["frames"] == 1)
            waiting = asyncio.create_task(_until_the_end(source))
            await source.stop()
            await source.stop()
            assert await waiting == 1

    played(scenario)


async def _until_the_end(source: Concentratord) -> int:
    heard = 0
    try:
        while True:
            heard += len(await source.receive())
    except SourceEnded:
        return heard


def test_a_bug_in_the_listening_reaches_the_daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[bytes]) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with ConcentratordStandIn(folder) as standin, heard_by(standin) as source:
            monkeypatch.setattr(source_module, "parse_event", broken)
            await standin.say_uplink(FRAME)
            with pytest.raises(ZeroDivisionError):
                await source.receive()

    played(scenario)


def test_a_start_without_an_answer_says_where_and_why(folder: Path) -> None:
    async def scenario() -> None:
        settings = ConcentratordSettings(
            event_url=f"ipc://{folder}/event", command_url=f"ipc://{folder}/command", answer_timeout=Duration(0.2)
        )
        source = Concentratord(settings)
        with pytest.raises(
            TransientError, match=f"does not answer at ipc://{folder}/command: .*No such file"
        ) as caught:
            await source.start()
        assert "docs/concentratord.md" in str(caught.value)
        with pytest.raises(SourceEnded):
            await source.receive()

    played(scenario)


def test_something_else_that_answers_is_no_concentratord(folder: Path) -> None:
    async def scenario() -> None:
        async with ConcentratordStandIn(folder, before_4_5=True) as standin:
            standin.gateway_id = "0102"
            with pytest.raises(TransientError, match="no Concentratord"):
                await Concentratord(settings_for(standin)).start()

    played(scenario)


def test_an_address_that_libzmq_will_not_have_is_a_failure_of_its_own(folder: Path) -> None:
    async def scenario() -> None:
        source = Concentratord(ConcentratordSettings(event_url="tcp://-a:1", command_url=f"ipc://{folder}/command"))
        with pytest.raises(TransientError):
            await source.start()
        also = Concentratord(ConcentratordSettings(event_url=f"ipc://{folder}/event", command_url="tcp://-a:1"))
        with pytest.raises(TransientError):
            await also.start()

    played(scenario)


def test_without_the_extra_a_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(ConfigError) as caught:
        asyncio.run(Concentratord(ConcentratordSettings()).start())
    (problem,) = caught.value.problems
    assert (problem.where, problem.hint) == ("concentratord", INSTALL_HINT)
    assert "lorabridge[concentratord]" in INSTALL_HINT


def test_a_bridge_without_such_a_radio_never_imports_zeromq() -> None:
    code = "import lorabridge.cli.main, lorabridge.daemon.bridge, sys; print('zmq' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "False\n"


def test_what_keeps_us_from_a_socket_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "event"
    url = f"ipc://{path}"
    assert missing_extra("here") == []
    assert socket_problem("tcp://127.0.0.1:3001", "here") is None
    gone = socket_problem(url, "here")
    assert gone is not None
    assert (gone.what, gone.warning) == (f"{path}: No such file or directory", True)
    path.touch()
    plain = socket_problem(url, "here")
    assert plain is not None
    assert "is no socket" in plain.what
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert socket_problem(url, "here") is None
        monkeypatch.setattr("os.access", lambda *_: False)
        closed = socket_problem(url, "here")
        assert closed is not None
        assert "no permission" in closed.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event_url": "ipc://relative"}, "event_url"),
        ({"event_url": "inproc://events"}, "event_url"),
        ({"command_url": "tcp://127.0.0.1"}, "command_url"),
        ({"command_url": "tcp://127.0.0.1:0"}, "command_url"),
        ({"command_url": "tcp://127.0.0.1:65536"}, "command_url"),
        ({"command_url": "tcp://*:3001"}, "command_url"),
        ({"event_url": f"ipc:///{'x' * IPC_PATH_LIMIT}"}, "107 bytes"),
        ({"event_url": "tcp://[::1]:3001", "command_url": "tcp://[::1]:3001"}, "two sockets"),
        ({"answer_timeout": Duration(0)}, "answer_timeout"),
        ({"silence": Duration(0.5)}, "silence"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConcentratordSettings(**change)
