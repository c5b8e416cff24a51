"""A fleet against the engine's real neighbours: a UDP server that a hand-made network answers from, and its books."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lorabridge.lorawan.air import LoraDataRate
from lorabridge.lorawan.device import Activation
from lorabridge.lorawan.frame import DataFrame, JoinRequest, parse
from lorabridge.lorawan.types import EUI64, DeviceClass, FCnt32, MacVersion
from lorabridge.lorawan.verdict import Verdict
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.books import Books, SentUplink
from lorabridge.simulation.clock import SimulatedClock
from lorabridge.simulation.fleet import Fleet, FleetSettings
from lorabridge.simulation.fleet_cast import fleet_device_file, fleet_members
from lorabridge.simulation.forwarder import Push
from lorabridge.simulation.live_attackers import Attack, LiveAttacker
from lorabridge.store.devices import load_devices_and_groups
from tests.simulation.test_devices import NOW, abp, otaa, radio

RECEIPT = (EUI64(1), 5, b"frame")


def test_a_fleet_is_a_mix_that_the_bridges_own_loader_takes(tmp_path: Path) -> None:
    members = fleet_members(60, "EU868")
    file = tmp_path / "fleet.toml"
    file.touch(mode=0o600)
    file.write_text(fleet_device_file(members), encoding="utf-8")
    devices, _, problems = load_devices_and_groups(file, credentials_dir=None)
    assert [problem for problem in problems if not problem.warning] == []
    assert {device.dev_eui: device for device in devices} == {
        member.device.dev_eui: member.known_to_bridge for member in members
    }
    kinds = {(member.device.mac_version, member.device.activation) for member in members}
    assert kinds == {(v, a) for v in (MacVersion.V1_0_3, MacVersion.V1_0_4, MacVersion.V1_1_0) for a in Activation}
    assert {member.device.device_class for member in members} == set(DeviceClass)
    assert any(member.is_sealed for member in members)


def test_a_device_that_nobody_answers_asks_again_and_counts_as_stuck() -> None:
    async def scenario() -> Fleet:
        clock = SimulatedClock(400)
        fleet = Fleet(FleetSettings(devices=2, every_s=5, keepalive_s=0.01), clock)
        loop = asyncio.get_running_loop()
        acknowledging, _ = await loop.create_datagram_endpoint(_OnlyAcknowledges, local_addr=("127.0.0.1", 0))
        port = acknowledging.get_extra_info("sockname")[1]
        await fleet.run("127.0.0.1", port, clock.now() + 120_000_000_000)
        acknowledging.close()
        await asyncio.sleep(0)  # the loop closes it in its next turn
        return fleet

    fleet = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert fleet.books.events["join_attempts"] > 4
    assert fleet.stuck == [member.device.name for member in fleet.members]
    assert fleet.books.uplinks == []


class _OnlyAcknowledges(asyncio.DatagramProtocol):
    """A server without a network behind it."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data[:3] + bytes([{0: 1, 2: 4}[data[3]]]), addr)


def test_the_books_hold_every_reception_to_what_it_deserves() -> None:
    books = Books()
    books.expect(RECEIPT, "data", frozenset({Verdict.ACCEPTED}))
    books.judge(RECEIPT, Verdict.ACCEPTED)
    assert books.wrong == []
    books.judge(RECEIPT, Verdict.REPLAY)
    books.judge((EUI64(2), 5, b"frame"), Verdict.ACCEPTED)
    assert len(books.wrong) == 2
    assert books.judged == 3
    assert "replay" in books.table()


def test_the_books_notice_a_counter_that_was_on_the_air_twice() -> None:
    books = Books()
    books.radiated["a", 1, False, FCnt32(3)] += 1
    assert books.repeated_counters == []
    books.radiated["a", 1, False, FCnt32(3)] += 1
    assert books.repeated_counters == [("a", 1, False, 3)]


def test_the_margin_that_99_of_a_hundred_kept() -> None:
    books = Books()
    assert books.margin_ms(99) is None
    books.margins_ns = [n * 1_000_000 for n in range(1, 101)]
    assert (books.margin_ms(50), books.margin_ms(99), books.margin_ms(100)) == (51.0, 2.0, 1.0)


def test_a_frame_reached_the_bridge_when_one_push_was_acknowledged() -> None:
    pushes = [Push(b"", 0), Push(b"", 0)]
    sent = SentUplink(
        device="a", session=1, fcnt32=FCnt32(0), f_port=1, payload=b"", confirmed=False, at=0, pushes=pushes
    )
    assert not sent.reached_bridge
    pushes[1].acknowledged = True
    assert sent.reached_bridge


@pytest.mark.parametrize("seed", range(40))
def test_every_forgery_keeps_its_form_and_differs_from_what_was_heard(seed: int) -> None:
    attacker = LiveAttacker(Place(0, 0), Random(seed))
    heard = radio(abp(MacVersion.V1_0_4)).send(NOW, f_port=1, payload=b"12345678")
    request = radio(otaa(MacVersion.V1_0_4)).request_join(NOW)
    for altered in (attacker.flip(heard, NOW), attacker.spoof_ack(heard, NOW), attacker.jump(heard, NOW)):
        frame = parse(altered.phy_payload)
        assert isinstance(frame, DataFrame)
        assert altered.phy_payload != heard.phy_payload
        assert altered.phy_payload[1:5] == heard.phy_payload[1:5]
    for altered in (attacker.sign_wrong(request, NOW), attacker.stranger(request, NOW)):
        assert isinstance(parse(altered.phy_payload), JoinRequest)
    assert attacker.play(heard, NOW + 1).phy_payload == heard.phy_payload


def test_no_attack_deserves_to_be_taken() -> None:
    taken = {Verdict.ACCEPTED, Verdict.JOIN_REQUEST}
    for attack in Attack:
        assert attack.deserves
        assert not attack.deserves & taken


def test_only_a_data_frame_has_a_counter_and_only_a_request_can_be_signed_wrong() -> None:
    attacker = LiveAttacker(Place(0, 0), Random(1))
    nothing = Emission(
        phy_payload=b"\xe0" + bytes(11),
        ends_at=NOW,
        frequency_hz=868_100_000,
        data_rate=LoraDataRate(7, 125_000),
        place=Place(0, 0),
    )
    with pytest.raises(TypeError):
        attacker.jump(nothing, NOW)
    with pytest.raises(TypeError):
        attacker.sign_wrong(nothing, NOW)
