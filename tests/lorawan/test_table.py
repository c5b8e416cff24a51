"""Devices by address, sessions that survive a reload, and prepared keys that do not grow without bound."""

from __future__ import annotations

import msgspec
import pytest

from lorabridge.lorawan import table as table_module
from lorabridge.lorawan.device import Activation
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, DevAddr, FCnt32
from tests.lorawan.builders import DEV_ADDR, KEYS_1_0, KEYS_1_1, device, device_1_1


def test_devices_are_found_by_address_and_by_eui() -> None:
    first, second = device(), device_1_1(name="second", dev_eui=EUI64(2))
    otaa = device(dev_eui=EUI64(3), activation=Activation.OTAA, dev_addr=None, session_keys=None)
    table = SessionTable([first, second, otaa], {})
    assert [entry.device for entry in table.at(DEV_ADDR)] == [first, second]
    assert table.at(DevAddr(1)) == ()
    assert table.device(EUI64(3)) is otaa
    assert table.device(EUI64(4)) is None
    assert table.device_count == 3


def test_the_region_is_the_devices_own_else_the_bridges() -> None:
    devices = [device(), device_1_1(dev_eui=EUI64(2), region="US915"), device_1_1(dev_eui=EUI64(3), region="nowhere")]
    names = [entry.region and entry.region.name for entry in SessionTable(devices, {}, "EU868").at(DEV_ADDR)]
    assert names == ["EU868", "US915", None]
    assert SessionTable(devices, {}).at(DEV_ADDR)[0].region is None


def test_a_session_survives_a_reload_and_is_lost_with_a_new_key() -> None:
    table = SessionTable([device()], {})
    (entry,) = table.at(DEV_ADDR)
    new = table.session(entry)
    assert (new.generation, new.fcnt_up, new.dev_eui) == (-1, None, device().dev_eui)
    moved = msgspec.structs.replace(new, generation=0, fcnt_up=FCnt32(5))
    table.advance([moved])
    table.load([device(name="renamed")])
    (renamed,) = table.at(DEV_ADDR)
    assert renamed.device.name == "renamed"
    assert table.session(renamed) is moved
    table.load([device(session_keys=KEYS_1_1)])
    assert table.session(table.at(DEV_ADDR)[0]).fcnt_up is None
    table.load([])
    assert table.at(DEV_ADDR) == ()
    table.load([device()])
    assert table.session(table.at(DEV_ADDR)[0]) is moved


def test_stored_sessions_are_taken_up_at_start() -> None:
    first = SessionTable([device()], {})
    stored = msgspec.structs.replace(first.session(first.at(DEV_ADDR)[0]), generation=4, fcnt_up=FCnt32(9))
    again = SessionTable([device()], {stored.session_id: stored})
    assert again.session(again.at(DEV_ADDR)[0]) is stored


def test_the_least_recently_used_prepared_keys_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "PREPARED_SESSIONS", 2)
    devices = [device(dev_eui=EUI64(n), dev_addr=DevAddr(n), session_keys=KEYS_1_0) for n in (1, 2, 3)]
    table = SessionTable(devices, {})
    one, two, three = (table.at(DevAddr(n))[0] for n in (1, 2, 3))
    first, second = table.crypto(one), table.crypto(two)
    assert table.crypto(one) is first
    table.crypto(three)
    assert table.crypto(one) is first
    assert table.crypto(two) is not second


def test_a_reload_takes_up_a_new_application_key_of_the_same_session() -> None:
    table = SessionTable([device()], {})
    (entry,) = table.at(DEV_ADDR)
    assert not table.crypto(entry).sealed
    table.load([device(session_keys=msgspec.structs.replace(KEYS_1_0, app_s_key=None))])
    (again,) = table.at(DEV_ADDR)
    assert again.session_id == entry.session_id
    assert table.crypto(again).sealed


def test_a_session_that_is_over_twice_is_over() -> None:
    table = SessionTable([device()], {})
    table.advance([], ended=[b"unknown"])
    assert len(table.at(DEV_ADDR)) == 1


def test_a_device_of_the_file_uses_its_session_from_the_start_and_one_that_joins_when_it_was_heard() -> None:
    table = SessionTable([device()], {})
    current = table.current(device().dev_eui)
    assert current is not None
    assert current.dev_addr == DEV_ADDR
    assert table.current(EUI64(77)) is None
