"""Security events: told at once, then summed up; nobody can make us talk."""

from __future__ import annotations

import msgspec

from lorabridge.daemon.reporting import SUMMED, TABLE_SIZE, SecurityReporter
from lorabridge.lorawan.air import CrcStatus, LoraDataRate, Reception
from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.events import DeviceRef, SecurityEvent
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.lorawan.verdict import Reason, Verdict

_INTERVAL = 60 * 10**9


def _reception(at: int) -> Reception:
    return Reception(
        phy_payload=b"\x40" + bytes(11),
        received_at=at,
        gateway_eui=EUI64(1),
        source="test",
        crc=CrcStatus.OK,
        frequency_hz=868_100_000,
        data_rate=LoraDataRate(7, 125_000),
    )


def _replay(device: int, at: int) -> SecurityEvent:
    return SecurityEvent(
        verdict=Verdict.REPLAY,
        reason=None,
        device=DeviceRef(f"d{device}", EUI64(device)),
        dev_addr=None,
        fcnt32=FCnt32(1),
        count=1,
        first_at=at,
        last_at=at,
        detail=f"at {at}",
        reception=None,
    )


def _refusal(verdict: Verdict, at: int, reason: Reason | None = None) -> Decision:
    return Decision(reception=_reception(at), verdict=verdict, reason=reason)


def test_the_first_replay_of_a_device_is_told_at_once_and_the_rest_in_one_sum() -> None:
    reporter = SecurityReporter(_INTERVAL)
    assert reporter.due(0) == []
    assert reporter.admit(_replay(1, 10))
    assert [reporter.admit(_replay(1, at)) for at in (20, 30)] == [False, False]
    assert reporter.admit(_replay(2, 40))
    assert reporter.due(_INTERVAL - 1) == []
    [told] = reporter.due(_INTERVAL)
    assert (told.count, told.first_at, told.last_at, told.detail) == (2, 10, 30, "at 30")
    assert reporter.due(2 * _INTERVAL) == []
    assert reporter.admit(_replay(1, 3 * _INTERVAL)), "a new interval begins with telling at once"


def test_a_million_bad_mics_become_one_event() -> None:
    reporter = SecurityReporter(_INTERVAL)
    reporter.due(0)
    for at in range(1, 1001):
        reporter.count(_refusal(Verdict.BAD_MIC, at))
    [told] = reporter.due(_INTERVAL)
    assert (told.verdict, told.count, told.first_at, told.last_at, told.device) == (
        Verdict.BAD_MIC,
        1000,
        1,
        1000,
        None,
    )


def test_malformed_frames_are_summed_up_by_reason() -> None:
    reporter = SecurityReporter(_INTERVAL)
    for reason in (Reason.TOO_SHORT, Reason.BAD_MAJOR, Reason.TOO_SHORT):
        reporter.count(_refusal(Verdict.MALFORMED, 1, reason))
    told = {event.reason: event.count for event in reporter.due(0, final=True)}
    assert told == {Reason.TOO_SHORT: 2, Reason.BAD_MAJOR: 1}


def test_ordinary_verdicts_are_no_security_events() -> None:
    reporter = SecurityReporter(_INTERVAL)
    for verdict in set(Verdict) - SUMMED:
        reporter.count(_refusal(verdict, 1))
    assert reporter.due(0, final=True) == []


def test_a_flood_from_ever_new_devices_costs_bounded_memory() -> None:
    reporter = SecurityReporter(_INTERVAL)
    admitted = sum(reporter.admit(_replay(device, 1)) for device in range(TABLE_SIZE + 10))
    assert admitted == TABLE_SIZE
    assert reporter.untold == 10


def test_the_sum_of_a_kind_tells_of_its_last_event() -> None:
    reporter = SecurityReporter(_INTERVAL)
    reporter.admit(_replay(1, 1))
    reporter.admit(msgspec.structs.replace(_replay(1, 2), fcnt32=FCnt32(9)))
    [told] = reporter.due(0, final=True)
    assert told.fcnt32 == 9
