"""What a device says to the network: answers to what it was asked, and requests (TS001 §5)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import msgspec

from lorabridge.lorawan.mac_commands import Command, Parsed, parse
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import DEFAULT_MAC_STATE, AddedChannel, MacState, RejoinParameters
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regions.channel_mask import apply_masks
from lorabridge.lorawan.types import Direction, MacVersion

KEEP = 15
"""DataRate and TXPower of LinkADRReq: as it is (TS001 §5)."""
REFUSED_KEPT = 32
"""Requests remembered as refused; a device that refused so many is asked nothing more."""
CLASS_C = 2

_WANTS_ANSWER = frozenset({"LinkCheckReq", "DeviceTimeReq", "ResetInd", "RekeyInd", "DeviceModeInd", "PingSlotInfoReq"})
_STICKY = frozenset({"RXParamSetupAns", "RXTimingSetupAns", "DlChannelAns"})
"""Repeated in every uplink until the device hears a downlink (TS001-1.0.4 §5)."""
_LINK_ADR_REQ = "LinkADRReq"


class Heard(msgspec.Struct, frozen=True):
    """What follows from the commands of an uplink."""

    state: MacState
    owed: tuple[Command, ...]
    """What the device wants answered, in its order."""
    report: bool
    """Whether somebody should be told: a status, a refusal, a command that cannot be read."""
    repeats: bool = False
    """The device repeats an answer in every uplink until it hears any downlink."""


def hear(
    state: MacState,
    parsed: Parsed,
    *,
    mac_version: MacVersion,
    region: Region | None,
    policy: MacPolicy,
    initial: MacState = DEFAULT_MAC_STATE,
) -> Heard:
    """Take over what the device answered to `state.asked`; `initial` is what ResetInd sets it back to.

    What the uplink does not answer was not heard, and can be asked again. An answer that nobody asked for changes
    nothing.
    """
    report = parsed.unknown_cid is not None or parsed.truncated
    said = {command.name for command in parsed.commands}
    if "ResetInd" in said:
        state = initial
    if state.asked:
        requests = parse(state.asked, Direction.DOWN, mac_version).commands
        state = msgspec.structs.replace(state, asked=b"")
        for name, group in groupby(requests, key=lambda request: request.name):
            state, told = _hear_answers(state, name, tuple(group), parsed, region, policy)
            report = report or told
    for command in parsed.commands:
        if command.name == "DeviceModeInd":
            state = msgspec.structs.replace(state, is_class_c=command["class"] == CLASS_C)
    owed = tuple([command for command in parsed.commands if command.name in _WANTS_ANSWER])
    return Heard(state, owed, report, repeats=not said.isdisjoint(_STICKY))


def _hear_answers(
    state: MacState,
    name: str,
    requests: tuple[Command, ...],
    parsed: Parsed,
    region: Region | None,
    policy: MacPolicy,
) -> tuple[MacState, bool]:
    """The state after the answers to neighbouring requests of one name, and whether they are worth a report."""
    answers = [command for command in parsed.commands if command.cid == requests[0].cid]
    if name == _LINK_ADR_REQ:
        if not answers:
            return state, False
        block = b"".join([request.wire for request in requests])
        # Of 1.0.2 and later each LinkADRAns speaks for the block; of earlier ones, for its own request.
        if not all(_agrees(answer) for answer in answers):
            return _refuse(state, block), True
        return _take_link_adr(state, requests, region), False
    report = False
    for request, answer in zip(requests, answers, strict=False):
        if name == "DevStatusReq":
            state, report = msgspec.structs.replace(state, status_due_in=policy.status_every), True
        elif not _agrees(answer) and name != "RejoinParamSetupReq":
            state, report = _refuse(state, request.wire), True
        else:
            # RejoinParamSetupAns without TimeOK takes the count and has no clock for the time (TS001-1.1 §5).
            report = report or not _agrees(answer)
            state = _TAKE.get(name, _keep)(state, request)
    return state, report


def _agrees(answer: Command) -> bool:
    """Whether every status bit is set."""
    return all(value for _, value in answer.fields)


def _refuse(state: MacState, wire: bytes) -> MacState:
    if len(state.refused) >= REFUSED_KEPT:
        return state
    return msgspec.structs.replace(state, refused=state.refused | {wire})


def known_channels(state: MacState, region: Region) -> frozenset[int]:
    """Indices of the uplink channels that a device has."""
    return frozenset(range(region.channel_count)) | {channel.index for channel in state.channels}


def _take_link_adr(state: MacState, block: tuple[Command, ...], region: Region | None) -> MacState:
    """LinkADRReq (§5): the masks of a block together, the rest of its last request."""
    last = block[-1]
    enabled = state.enabled
    if region is not None:
        known = known_channels(state, region)
        masks = [(request["ch_mask_cntl"], request["ch_mask"]) for request in block]
        after = apply_masks(region, known if enabled is None else enabled & known, masks, known)
        enabled = enabled if after is None else None if after == known else after
    data_rate = state.data_rate if last["data_rate"] == KEEP else last["data_rate"]
    tx_power = state.tx_power if last["tx_power"] == KEEP else last["tx_power"]
    nb_trans = last["nb_trans"] or 1
    if (data_rate, tx_power, nb_trans) != (state.data_rate, state.tx_power, state.nb_trans):
        state = msgspec.structs.replace(state, margins=b"", missed=0)
    return msgspec.structs.replace(state, enabled=enabled, data_rate=data_rate, tx_power=tx_power, nb_trans=nb_trans)


def _take_rx_param(state: MacState, request: Command) -> MacState:
    return msgspec.structs.replace(
        state,
        rx1_dr_offset=request["rx1_dr_offset"],
        rx2_data_rate=request["rx2_data_rate"],
        rx2_frequency_hz=request["frequency_hz"],
    )


def _take_new_channel(state: MacState, request: Command) -> MacState:
    """NewChannelReq (§5): a frequency of 0 removes the channel; a new one has RX1 where its uplinks are."""
    index, frequency_hz = request["ch_index"], request["frequency_hz"]
    channels = [channel for channel in state.channels if channel.index != index]
    enabled = state.enabled
    if frequency_hz:
        channels.append(AddedChannel(index, frequency_hz, request["min_dr"], request["max_dr"]))
    if enabled is not None:
        enabled = enabled | {index} if frequency_hz else enabled - {index}
    return msgspec.structs.replace(
        state,
        channels=tuple(sorted(channels, key=lambda channel: channel.index)),
        enabled=enabled,
        downlink_hz=tuple(pair for pair in state.downlink_hz if pair[0] != index),
    )


def _take_dl_channel(state: MacState, request: Command) -> MacState:
    pairs = dict(state.downlink_hz) | {request["ch_index"]: request["frequency_hz"]}
    return msgspec.structs.replace(state, downlink_hz=tuple(sorted(pairs.items())))


def _take_tx_param(state: MacState, request: Command) -> MacState:
    return msgspec.structs.replace(
        state,
        uplink_dwell=bool(request["uplink_dwell_time"]),
        downlink_dwell=bool(request["downlink_dwell_time"]),
        max_eirp_index=request["max_eirp_index"],
    )


def _take_adr_param(state: MacState, request: Command) -> MacState:
    return msgspec.structs.replace(
        state, adr_ack_limit_exponent=request["limit_exp"], adr_ack_delay_exponent=request["delay_exp"]
    )


def _keep(state: MacState, _request: Command) -> MacState:
    """What nothing is kept of: class B."""
    return state


_TAKE: dict[str, Callable[[MacState, Command], MacState]] = {
    "DutyCycleReq": lambda state, request: msgspec.structs.replace(state, max_duty_cycle=request["max_duty_cycle"]),
    "RXParamSetupReq": _take_rx_param,
    "NewChannelReq": _take_new_channel,
    # A delay of 0 means one second (§5).
    "RXTimingSetupReq": lambda state, request: msgspec.structs.replace(state, rx1_delay=request["delay"] or 1),
    "TxParamSetupReq": _take_tx_param,
    "DlChannelReq": _take_dl_channel,
    "ADRParamSetupReq": _take_adr_param,
    "RejoinParamSetupReq": lambda state, request: msgspec.structs.replace(
        state, rejoin=RejoinParameters(request["max_time_n"], request["max_count_n"])
    ),
}
