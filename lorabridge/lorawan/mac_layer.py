"""The network's side of the MAC layer: what is noted of every uplink, what is answered; hearing and asking beside it.

One uplink: `note_uplink`, then `hear` when it has commands or something is asked; one downlink: `answers`, then `ask`.
"""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.adr import HISTORY, to_margin
from lorabridge.lorawan.mac_answers import Heard, hear
from lorabridge.lorawan.mac_commands import FOPTS_ROOM, Command, build, has_command
from lorabridge.lorawan.mac_policy import DEFAULT_MAC_POLICY, MacPolicy
from lorabridge.lorawan.mac_requests import Asked, ask
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.types import Direction, MacVersion

__all__ = ["DEFAULT_MAC_POLICY", "Asked", "Heard", "MacPolicy", "answers", "ask", "hear", "note_uplink"]

MINOR_1_1 = 1
"""LoRaWAN 1.1, in ResetConf and RekeyConf (TS001-1.1 §5)."""
_GREATEST_MARGIN_DB, _MOST_GATEWAYS = 254, 255
_SECOND_NS = 1_000_000_000


def note_uplink(
    state: MacState,
    *,
    fcnt32: int,
    last_fcnt32: int | None,
    data_rate: int | None,
    adr: bool,
    snr_db: float | None,
    policy: MacPolicy,
) -> MacState:
    """The state after an accepted uplink, the same object when nothing is to be noted; `data_rate` is its TxDr."""
    if state.status_due_in:
        state = msgspec.structs.replace(state, status_due_in=state.status_due_in - 1)
    if not adr or not policy.adr or data_rate is None or snr_db is None:
        return state
    margin = bytes((to_margin(snr_db),))
    if data_rate != state.data_rate:
        # Nobody asked for this data rate: the device has gone its own way, and to full power first (§4.3.1.1).
        return msgspec.structs.replace(state, data_rate=data_rate, tx_power=None, margins=margin, missed=0)
    missed = state.missed
    if missed and len(state.margins) >= HISTORY:
        missed -= 1  # with each uplink that leaves a full history one lost uplink is forgotten
    if last_fcnt32 is not None:
        missed = min(missed + max(fcnt32 - last_fcnt32 - 1, 0), HISTORY)
    return msgspec.structs.replace(state, margins=state.margins[1 - HISTORY :] + margin, missed=missed)


def answers(
    owed: tuple[Command, ...],
    *,
    demodulation_margin_db: int,
    gateways: int,
    gps_time_ns: int | None,
    mac_version: MacVersion,
    room: int = FOPTS_ROOM,
) -> bytes:
    """The answers to what a device wants to know, in its order, each once, as far as `room` bytes go.

    `gps_time_ns`: the end of the uplink in nanoseconds since 1980-01-06 without leap seconds; None: not known, then
    DeviceTimeReq has no answer.
    """
    wire = b""
    answered: set[int] = set()
    for request in owed:
        if request.cid in answered or not has_command(request.cid, Direction.UP, mac_version):
            continue
        answered.add(request.cid)
        answer = _answer(request, demodulation_margin_db, gateways, gps_time_ns)
        if len(wire) + len(answer) <= room:
            wire += answer
    return wire


def _answer(request: Command, demodulation_margin_db: int, gateways: int, gps_time_ns: int | None) -> bytes:
    """The bytes of one answer; none where there is nothing to say."""
    match request.name:
        case "LinkCheckReq":
            margin = min(max(demodulation_margin_db, 0), _GREATEST_MARGIN_DB)
            heard_by = min(max(gateways, 1), _MOST_GATEWAYS)
            return build("LinkCheckAns", Direction.DOWN, margin=margin, gw_cnt=heard_by)
        case "DeviceTimeReq" if gps_time_ns is not None:
            seconds, rest = divmod(gps_time_ns, _SECOND_NS)
            return build(
                "DeviceTimeAns",
                Direction.DOWN,
                seconds=seconds & 0xFFFF_FFFF,
                fractional=rest * 256 // _SECOND_NS,
            )
        case "ResetInd" | "RekeyInd":
            minor = min(request["minor"], MINOR_1_1)
            return build(request.cid, Direction.DOWN, minor=minor)
        case "DeviceModeInd":
            return build("DeviceModeConf", Direction.DOWN, **{"class": request["class"]})
        case "PingSlotInfoReq":
            return build("PingSlotInfoAns", Direction.DOWN)
        case _:
            return b""
