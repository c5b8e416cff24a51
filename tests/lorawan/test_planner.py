"""Plans: the best gateway, the right window, within the law, and nothing used up by what is not sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import Antenna, Reception
from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.decision import OwedData, OwedJoin
from lorabridge.lorawan.downlink import Contents, build_downlink
from lorabridge.lorawan.frame import DataFrame, parse
from lorabridge.lorawan.mac_commands import parse as parse_mac
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.planner import (
    LEAST_LEAD_US,
    Gateways,
    Plan,
    gps_time_ns,
    largest_mac_payload,
    plan_data,
    plan_join,
    plan_now,
)
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.regulation import DWELL_TIME_US, AirtimeLedger
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, Direction, FCnt32, MacVersion
from lorabridge.lorawan.windows import downlink_airtime_us, rx2
from tests.lorawan.builders import DEV_ADDR, GATEWAY, KEYS_1_0, OTHER_GATEWAY, START, device, heard
from tests.lorawan.joining import joiner

EU868, US915 = REGIONS["EU868"], REGIONS["US915"]
METER = device(region="EU868", adr=False)
(ENTRY,) = SessionTable([METER], {}).at(DEV_ADDR)
CRYPTO = SessionCrypto(KEYS_1_0)
SESSION = Session(session_id=ENTRY.session_id, dev_eui=METER.dev_eui, fcnt_down=FCnt32(4))
THIRD_GATEWAY = EUI64(0x0016_C001_F153_A14E)


def copy(gateway: EUI64 = GATEWAY, snr: float | None = 5.0, **fields: Any) -> Reception:
    antennas = () if snr is None else (Antenna(snr_db=snr - 3), Antenna(snr_db=snr), Antenna())
    reception = heard(b"uplink", gateway=gateway, tmst=fields.pop("tmst", 1_000_000))
    return msgspec.structs.replace(reception, antennas=antennas, **fields)


def owed(uplink: Reception | None = None, **fields: Any) -> OwedData:
    base: dict[str, Any] = {"confirmed": True, "adr": False, "adr_ack_req": False, "fcnt32": FCnt32(9)}
    return OwedData(entry=ENTRY, region=EU868, uplink=uplink or copy(), **(base | fields))


def air(ledger: AirtimeLedger | None = None) -> Gateways:
    return Gateways(ledger or AirtimeLedger((), START), START)


def plan(who: OwedData | None = None, *copies: Reception, **how: Any) -> Plan | CommandReason:
    who = who or owed()
    base: dict[str, Any] = {"more_waits": False, "policy": MacPolicy(), "air": air(), "elapsed_us": 200_000}
    command = how.pop("command", None)
    return plan_data(who, copies or (who.uplink,), how.pop("session", SESSION), CRYPTO, command, **(base | how))


def planned(*args: Any, **how: Any) -> Plan:
    found = plan(*args, **how)
    assert isinstance(found, Plan)
    return found


def command(payload: bytes = b"open", **fields: Any) -> QueuedCommand:
    order = DownlinkCommand(id="a", target=METER.dev_eui, f_port=9, payload=payload, **fields)
    return QueuedCommand(queue_id=1, command=order)


def test_the_gateway_that_heard_best_sends_in_rx1_and_in_rx2_when_that_fails() -> None:
    copies = [copy(snr=-3.0), copy(OTHER_GATEWAY, 7.0, tmst=5), copy(THIRD_GATEWAY, None)]
    found = planned(owed(copies[0]), *copies)
    assert [(one.window.number, one.transmission.gateway_eui, one.transmission.tmst) for one in found.attempts] == [
        (1, OTHER_GATEWAY, 1_000_005),
        (2, OTHER_GATEWAY, 2_000_005),
    ]
    assert {one.source for one in found.attempts} == {"test"}
    assert found.session is not None
    assert (found.session.fcnt_down, found.all_attempts) == (5, False)


def test_a_gateway_without_a_clock_is_not_asked() -> None:
    copies = [copy(), copy(OTHER_GATEWAY, 9.0, tmst=None)]
    assert {one.transmission.gateway_eui for one in planned(owed(), *copies).attempts} == {GATEWAY}


def test_a_window_that_is_nearly_open_is_left_out_and_too_late_is_said() -> None:
    late = 1_000_000 - LEAST_LEAD_US + 1
    assert [one.window.number for one in planned(elapsed_us=late).attempts] == [2]
    assert plan(elapsed_us=late + 1_000_000) is CommandReason.TOO_LATE


def test_a_gateway_without_airtime_leaves_it_to_another() -> None:
    ledger = AirtimeLedger((), START)
    copies = [copy(), copy(OTHER_GATEWAY, -9.0)]
    # 868.1 MHz: 1 % of an hour. RX2 at 869.525 MHz is another sub-band.
    ledger.take(EU868, GATEWAY, 868_100_000, 36_000_000, START)
    found = planned(owed(), *copies, air=air(ledger))
    assert [(one.window.number, one.transmission.gateway_eui) for one in found.attempts] == [
        (1, OTHER_GATEWAY),
        (2, GATEWAY),
    ]
    for gateway in (GATEWAY, OTHER_GATEWAY):
        ledger.take(EU868, gateway, 868_100_000, 36_000_000, START)
        ledger.take(EU868, gateway, 869_525_000, 360_000_000, START)
    assert plan(owed(), *copies, air=air(ledger)) is CommandReason.DUTY_CYCLE


def test_airtime_is_set_aside_for_every_attempt() -> None:
    found = planned()
    for attempt in found.attempts:
        assert attempt.airtime is not None
        assert attempt.airtime.gateway_eui == GATEWAY
        assert attempt.airtime.duration_us == downlink_airtime_us(attempt.window, len(attempt.transmission.phy_payload))


def test_a_command_that_fits_only_rx1_goes_there_only() -> None:
    assert [one.window.number for one in planned(command=command(b"x" * 51)).attempts] == [1, 2]
    assert [one.window.number for one in planned(command=command(b"x" * 52)).attempts] == [1]
    assert largest_mac_payload(EU868, SESSION, copy(), ()) == 250
    assert largest_mac_payload(EU868, SESSION, None, ()) == 59
    nowhere = msgspec.structs.replace(SESSION, mac=MacState(rx2_data_rate=14, rx1_dr_offset=7))
    assert largest_mac_payload(EU868, nowhere, None, ()) == 0
    assert largest_mac_payload(EU868, nowhere, copy(), ()) == 0


def test_a_counter_that_is_used_up_ends_the_session() -> None:
    used_up = msgspec.structs.replace(SESSION, fcnt_down=FCnt32(1 << 32))
    assert plan(session=used_up) is CommandReason.COUNTER_EXHAUSTED


def mac_of(found: Plan) -> dict[str, Any]:
    frame = parse(found.attempts[0].transmission.phy_payload)
    assert isinstance(frame, DataFrame)
    commands = parse_mac(frame.f_opts, Direction.DOWN, MacVersion.V1_0_4).commands
    return {one.name: dict(one.fields) for one in commands}


def test_link_check_is_answered_by_all_who_heard_and_by_the_best_of_them() -> None:
    (asked,) = parse_mac(b"\x02", Direction.UP, MacVersion.V1_0_4).commands
    copies = [copy(snr=-3.0), copy(OTHER_GATEWAY, 2.5)]
    found = planned(owed(commands=(asked,)), *copies)
    # SF7 is demodulated down to -7.5 dB.
    assert mac_of(found)["LinkCheckAns"] == {"margin": 10, "gw_cnt": 2}
    unknown = copy(snr=None)
    assert mac_of(planned(owed(unknown, commands=(asked,))))["LinkCheckAns"] == {"margin": 0, "gw_cnt": 1}


def test_device_time_is_the_end_of_the_uplink_by_the_best_clock_there_is() -> None:
    (asked,) = parse_mac(b"\x0d", Direction.UP, MacVersion.V1_0_4).commands
    by_gps = copy(OTHER_GATEWAY, gps_time_ms=1_000_000_500)
    seconds = mac_of(planned(owed(commands=(asked,)), copy(), by_gps))["DeviceTimeAns"]
    assert 1_000_000 in seconds.values()
    assert gps_time_ns(by_gps) == 1_000_000_500_000_000
    # 2017-01-01T00:00:00Z is 1167264018 s of GPS time: 18 leap seconds since 1980.
    utc = msgspec.structs.replace(copy(), received_at=1_483_228_800 * 10**9)
    assert gps_time_ns(utc) == 1_167_264_018 * 10**9
    own = msgspec.structs.replace(utc, gateway_time_ns=1_483_228_801 * 10**9)
    assert gps_time_ns(own) == 1_167_264_019 * 10**9


def test_a_join_accept_goes_out_in_the_windows_of_a_join() -> None:
    owed_join = OwedJoin(
        device=joiner(), join_id=b"", region=EU868, mac=MacState(), uplink=copy(), phy_payload=bytes(33)
    )
    found = plan_join(owed_join, [copy()], air(), 100_000)
    assert isinstance(found, Plan)
    assert [one.transmission.tmst for one in found.attempts] == [6_000_000, 7_000_000]
    assert (found.session, found.downlink) == (None, None)
    assert plan_join(owed_join, [copy()], air(), 7_000_000) is CommandReason.TOO_LATE


def test_what_is_sent_at_once_is_sent_by_one_gateway_or_by_all() -> None:
    window = rx2(EU868, MacState())
    assert window is not None
    downlink = build_downlink(
        ENTRY, CRYPTO, SESSION, Contents(command=command()), policy=MacPolicy(), uplink_adr=False, limit=59
    )
    assert downlink is not None
    ledger = AirtimeLedger((), START)
    ledger.take(EU868, GATEWAY, 869_525_000, 360_000_000, START)
    gateways = [(GATEWAY, "a"), (OTHER_GATEWAY, "b"), (THIRD_GATEWAY, "c")]
    for every, expected in ((False, ["b"]), (True, ["b", "c"])):
        found = plan_now(downlink, window, EU868, gateways, air(ledger), every=every)
        assert isinstance(found, Plan)
        assert ([one.source for one in found.attempts], found.all_attempts) == (expected, every)
    assert plan_now(downlink, window, EU868, gateways[:1], air(ledger), every=True) is CommandReason.DUTY_CYCLE
    assert plan_now(downlink, window, EU868, [], air(), every=False) is CommandReason.NO_GATEWAY


@pytest.mark.parametrize("region_name", sorted(REGIONS))
@given(st.data())
def test_no_downlink_is_planned_outside_duty_cycle_dwell_or_payload_limits(
    region_name: str, data: st.DataObject
) -> None:
    region = REGIONS[region_name]
    meter = device(region=region_name, adr=False)
    (entry,) = SessionTable([meter], {}).at(DEV_ADDR)
    ledger, now = AirtimeLedger((), START), START
    dwell = data.draw(st.booleans()) and region.has_tx_param_setup
    session = Session(session_id=entry.session_id, dev_eui=meter.dev_eui, mac=MacState(downlink_dwell=dwell))
    sent: list[tuple[int, int, int, float]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.integers(0, 900)) * 10**9
        tx_ch = data.draw(st.sampled_from([run.first_index + n for run in region.channels for n in range(run.count)]))
        number = data.draw(st.sampled_from(region.channel_data_rates(tx_ch)))
        rate, frequency_hz = region.data_rates[number], region.channel_hz(tx_ch)
        assert rate is not None
        assert frequency_hz is not None
        uplink = msgspec.structs.replace(copy(), data_rate=rate, frequency_hz=frequency_hz)
        who = OwedData(
            entry=entry,
            region=region,
            uplink=uplink,
            fcnt32=FCnt32(1),
            confirmed=True,
            adr=False,
            adr_ack_req=False,
        )
        payload = data.draw(st.binary(max_size=200))
        limit = largest_mac_payload(region, session, uplink, ())
        order = command(payload) if len(payload) + 8 <= limit else None
        found = plan_data(
            who,
            [uplink],
            session,
            CRYPTO,
            order,
            more_waits=False,
            policy=MacPolicy(),
            air=Gateways(ledger, now),
            elapsed_us=0,
        )
        if isinstance(found, CommandReason):
            continue
        assert found.session is not None
        session = found.session
        for attempt in found.attempts:
            order_ = attempt.transmission
            assert len(order_.phy_payload) - 5 <= attempt.window.max_mac_payload
            band = region.sub_band(order_.frequency_hz)
            assert band is not None
            assert order_.power_dbm <= band.eirp_dbm
            duration = downlink_airtime_us(attempt.window, len(order_.phy_payload))
            assert not dwell or duration <= DWELL_TIME_US
            sent.append((band.first_hz, now, duration, band.duty_cycle))
    for band_hz, at, _, share in sent:
        hour = [d for b, t, d, _ in sent if b == band_hz and at - 3600 * 10**9 < t <= at]
        assert sum(hour) <= share * 3600 * 10**6
