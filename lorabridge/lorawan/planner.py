"""Where and when a downlink goes: receive windows, gateways and what the law leaves of the air. Pure.

A plan holds the session that has to be committed before anything is sent, and the attempts in their
order: RX1 by the gateway that heard the device best, then RX2. What no window, gateway or duty cycle
allows becomes a refusal, and uses up no counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lorabridge.lorawan.adr import REQUIRED_SNR_DB
from lorabridge.lorawan.air import Airtime, LoraDataRate, Reception, Transmission
from lorabridge.lorawan.commands import CommandReason, QueuedCommand
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.decision import OwedData, OwedJoin
from lorabridge.lorawan.downlink import Contents, Downlink, build_downlink
from lorabridge.lorawan.gps_time import gps_ns_of
from lorabridge.lorawan.grammar import MIC_SIZE
from lorabridge.lorawan.mac_layer import answers
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_uplink import best_snr_db
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regulation import AirtimeLedger
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.windows import (
    Window,
    class_a_windows,
    downlink_airtime_us,
    rx2,
    transmission_after,
    transmission_now,
)

LEAST_LEAD_US = 80_000
"""A forwarder programs its chip 40 ms ahead and refuses what comes later than 42.5 ms; the rest is the way there."""
_MHDR_SIZE = 1
_NO_SNR = -99.0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One way to send the frame."""

    transmission: Transmission
    window: Window
    source: str
    """The radio source of the gateway."""
    airtime: Airtime | None
    """What is set aside of the duty cycle; None where the region has none."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A downlink that may be sent once `session` is committed."""

    session: Session | None
    """None for a join-accept."""
    downlink: Downlink | None
    attempts: tuple[Attempt, ...]
    """The first one that the radio takes is the last one tried, unless all are to be made."""
    all_attempts: bool = False
    """Every gateway sends: multicast."""


class Gateways(msgspec.Struct, frozen=True):
    """Who sends, and by which right."""

    ledger: AirtimeLedger
    now: int
    """Nanoseconds since the Unix epoch."""


def plan_join(owed: OwedJoin, copies: Sequence[Reception], air: Gateways, elapsed_us: int) -> Plan | CommandReason:
    """How a join-accept is sent; `elapsed_us` since the end of the request."""
    windows = class_a_windows(owed.region, owed.mac, owed.uplink, join=True, added_hz=owed.device.channels_hz)
    attempts = _attempts(owed.region, windows, owed.phy_payload, copies, air, elapsed_us)
    if isinstance(attempts, CommandReason):
        return attempts
    return Plan(session=None, downlink=None, attempts=attempts)


def plan_data(  # noqa: PLR0913  # all that a class A downlink depends on
    owed: OwedData,
    copies: Sequence[Reception],
    session: Session,
    crypto: SessionCrypto,
    command: QueuedCommand | None,
    *,
    more_waits: bool,
    policy: MacPolicy,
    air: Gateways,
    elapsed_us: int,
) -> Plan | CommandReason:
    """How the windows after an uplink are used; `session` as committed, `command` the next one of its queue."""
    region, entry = owed.region, owed.entry
    windows = _in_time(class_a_windows(region, session.mac, owed.uplink, added_hz=entry.device.channels_hz), elapsed_us)
    if not windows:
        return CommandReason.TOO_LATE
    contents = Contents(
        ack_of=owed.fcnt32 if owed.confirmed else None,
        mac_answers=_mac_answers(owed, copies),
        command=command,
        f_pending=more_waits,
    )
    downlink = build_downlink(
        entry, crypto, session, contents, policy=policy, uplink_adr=owed.adr, limit=_limit(windows, command)
    )
    if downlink is None:
        return CommandReason.COUNTER_EXHAUSTED
    fitting = tuple(one for one in windows if len(downlink.phy_payload) - _MHDR_SIZE - MIC_SIZE <= one.max_mac_payload)
    attempts = _attempts(region, fitting, downlink.phy_payload, copies, air, elapsed_us)
    if isinstance(attempts, CommandReason):
        return attempts
    return Plan(session=downlink.session, downlink=downlink, attempts=attempts)


def largest_mac_payload(region: Region, session: Session, uplink: Reception | None, added_hz: tuple[int, ...]) -> int:
    """What fits the roomiest window that a command for the device could go into; without an uplink RX2."""
    if uplink is None:
        window = rx2(region, session.mac)
        return 0 if window is None else window.max_mac_payload
    windows = class_a_windows(region, session.mac, uplink, added_hz=added_hz)
    return max((window.max_mac_payload for window in windows), default=0)


def plan_now(  # all that a downlink outside of windows depends on
    downlink: Downlink,
    window: Window,
    region: Region,
    gateways: Iterable[tuple[EUI64, str]],
    air: Gateways,
    *,
    every: bool,
) -> Plan | CommandReason:
    """A downlink to devices that listen all the time (class C): by the first gateway that may, or by `every` one."""
    attempts: list[Attempt] = []
    reason = CommandReason.NO_GATEWAY
    for eui, source in gateways:
        transmission = transmission_now(region, window, downlink.phy_payload, eui)
        granted = _granted(region, window, transmission, air)
        if isinstance(granted, CommandReason):
            reason = granted
            continue
        attempts.append(Attempt(transmission=transmission, window=window, source=source, airtime=granted))
        if not every:
            break
    if not attempts:
        return reason
    return Plan(session=downlink.session, downlink=downlink, attempts=tuple(attempts), all_attempts=every)


def gps_time_ns(reception: Reception) -> int:
    """When the uplink ended, in nanoseconds of GPS time: by the gateway's own receiver where it has one."""
    if reception.gps_time_ms is not None:
        return reception.gps_time_ms * 1_000_000
    utc = reception.received_at if reception.gateway_time_ns is None else reception.gateway_time_ns
    return gps_ns_of(utc)


def _mac_answers(owed: OwedData, copies: Sequence[Reception]) -> bytes:
    """What the device asked, answered by all who heard it."""
    if not owed.commands:
        return b""
    best = _by_snr(copies)[0]
    snr = best_snr_db(best)
    rate = best.data_rate
    needed = REQUIRED_SNR_DB[rate.spreading_factor] if isinstance(rate, LoraDataRate) else 0.0
    margin = 0 if snr is None else round(snr - needed)
    timed = next((copy for copy in copies if copy.gps_time_ms is not None), owed.uplink)
    return answers(
        owed.commands,
        demodulation_margin_db=margin,
        gateways=len({copy.gateway_eui for copy in copies}),
        gps_time_ns=gps_time_ns(timed),
        mac_version=owed.entry.device.mac_version,
    )


def _limit(windows: Sequence[Window], command: QueuedCommand | None) -> int:
    """The frame fits every window if it can, so that RX2 can stand in for RX1; a long command takes the roomiest."""
    least = min(window.max_mac_payload for window in windows)
    if command is None or len(command.command.payload) + 8 <= least:
        return least
    return max(window.max_mac_payload for window in windows)


def _in_time(windows: Iterable[Window], elapsed_us: int) -> tuple[Window, ...]:
    return tuple(window for window in windows if window.delay_us - elapsed_us >= LEAST_LEAD_US)


def _attempts(  # one step of the plans above
    region: Region,
    windows: Iterable[Window],
    phy_payload: bytes,
    copies: Sequence[Reception],
    air: Gateways,
    elapsed_us: int,
) -> tuple[Attempt, ...] | CommandReason:
    """For each window the best gateway that may send in it."""
    attempts: list[Attempt] = []
    reason = CommandReason.TOO_LATE
    for window in _in_time(windows, elapsed_us):
        for copy in _by_snr(copies):
            transmission = transmission_after(region, window, phy_payload, copy)
            granted = _granted(region, window, transmission, air)
            if isinstance(granted, CommandReason):
                reason = granted
                continue
            attempts.append(Attempt(transmission=transmission, window=window, source=copy.source, airtime=granted))
            break
    return tuple(attempts) or reason


def _granted(region: Region, window: Window, transmission: Transmission, air: Gateways) -> Airtime | CommandReason:
    """Airtime set aside for a transmission, or why it must not be made."""
    duration_us = downlink_airtime_us(window, len(transmission.phy_payload))
    gateway, frequency_hz = transmission.gateway_eui, transmission.frequency_hz
    dwell = window.is_bound_by_dwell
    refusal = air.ledger.refusal(region, gateway, frequency_hz, window.data_rate, duration_us, air.now, dwell=dwell)
    if refusal is not None:
        return refusal
    return air.ledger.take(region, gateway, frequency_hz, duration_us, air.now)


def _by_snr(copies: Sequence[Reception]) -> list[Reception]:
    """The receptions that can be answered, the best SNR first."""
    able = [copy for copy in copies if copy.tmst is not None]
    return sorted(able, key=lambda copy: _NO_SNR if (snr := best_snr_db(copy)) is None else snr, reverse=True)
