"""What the network asks of a device: the requests that bring it from what it is set to to what is wanted."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lorabridge.lorawan.adr import Adaptation, adapt
from lorabridge.lorawan.mac_answers import KEEP, REFUSED_KEPT, known_channels
from lorabridge.lorawan.mac_commands import FOPTS_ROOM, build, has_command, wire_size
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.regions.channel_mask import mask_requests
from lorabridge.lorawan.types import Direction, MacVersion

MAX_EIRP_DBM = (8, 10, 12, 13, 14, 16, 18, 20, 21, 24, 26, 27, 29, 30, 33, 36)
"""MaxEIRP by its index (§5)."""
DEFAULT_ADR_ACK_LIMIT_EXPONENT, DEFAULT_ADR_ACK_DELAY_EXPONENT = 6, 5
"""64 and 32 uplinks (RP002-1.0.4 §2.3)."""
_LINK_ADR_REQ = 0x03
_LINK_ADR_SIZE = wire_size(_LINK_ADR_REQ, Direction.DOWN)
_MOST_MASKS = FOPTS_ROOM // _LINK_ADR_SIZE
_CHANNELS_A_MASK = 16
_Masks = tuple[tuple[int, int], ...]
"""(ChMaskCntl, ChMask) each."""
_KEEPS = (MacVersion.V1_0_4, MacVersion.V1_1_0)
"""Versions that know 15 as "keep" in LinkADRReq."""


class Asked(msgspec.Struct, frozen=True):
    """Requests for a downlink, and the state that remembers them as asked."""

    wire: bytes
    state: MacState


def ask(
    state: MacState,
    policy: MacPolicy,
    *,
    mac_version: MacVersion,
    region: Region | None,
    device_adr: bool,
    uplink_adr: bool,
    room: int,
) -> Asked:
    """As many requests as fit into `room` bytes, and their answers into the FOpts of one uplink.

    Nothing while an answer is outstanding, and nothing that the device refused in this session.
    """
    if state.asked or len(state.refused) >= REFUSED_KEPT:
        return Asked(b"", state)
    wire, answers_room = b"", FOPTS_ROOM
    managed = device_adr and uplink_adr and policy.adr
    for request in _wanted(state, policy, mac_version, region, managed):
        cid = request[0]
        count = len(request) // _LINK_ADR_SIZE if cid == _LINK_ADR_REQ else 1
        answer = count * wire_size(cid, Direction.UP)
        known = has_command(cid, Direction.DOWN, mac_version) and request not in state.refused
        if known and len(wire) + len(request) <= room and answer <= answers_room:
            wire += request
            answers_room -= answer
    return Asked(wire, msgspec.structs.replace(state, asked=wire) if wire else state)


def _wanted(
    state: MacState, policy: MacPolicy, mac_version: MacVersion, region: Region | None, managed: bool
) -> Iterator[bytes]:
    """Requests in the order of their urgency: how the device is reached first, how it is asked for its status last."""
    if region is not None:
        yield from _rx_param(state, policy, region)
    if policy.rx1_delay != state.rx1_delay:
        yield build("RXTimingSetupReq", Direction.DOWN, delay=policy.rx1_delay)
    if region is not None:
        yield from _tx_param(state, policy, region)
    if policy.max_duty_cycle is not None and policy.max_duty_cycle != state.max_duty_cycle:
        yield build("DutyCycleReq", Direction.DOWN, max_duty_cycle=policy.max_duty_cycle)
    if region is not None:
        added = [request for request in _new_channels(state, policy, region) if request not in state.refused]
        # A mask made before the device has confirmed its new channels would switch them off again.
        yield from added or _link_adr(state, policy, mac_version, region, managed)
        yield from _dl_channels(state, policy, region)
    yield from _of_1_1(state, policy)
    if policy.status_every and not state.status_due_in:
        yield build("DevStatusReq", Direction.DOWN)


def _rx_param(state: MacState, policy: MacPolicy, region: Region) -> Iterator[bytes]:
    """RXParamSetupReq (§5)."""
    defaults = (region.rx2_data_rate, region.rx2_frequency_hz)
    data_rate, frequency_hz = _or_default((policy.rx2_data_rate, policy.rx2_frequency_hz), defaults)
    offset = min(policy.rx1_dr_offset, region.max_rx1_dr_offset)
    has = (state.rx1_dr_offset, *_or_default((state.rx2_data_rate, state.rx2_frequency_hz), defaults))
    if has != (offset, data_rate, frequency_hz):
        yield build(
            "RXParamSetupReq",
            Direction.DOWN,
            rx1_dr_offset=offset,
            rx2_data_rate=data_rate,
            frequency_hz=frequency_hz,
        )


def _tx_param(state: MacState, policy: MacPolicy, region: Region) -> Iterator[bytes]:
    """TxParamSetupReq (§5), where the region has it."""
    if not region.has_tx_param_setup:
        return
    # The greatest of the table that the region allows; every region allows the least.
    eirp = max(index for index, dbm in enumerate(MAX_EIRP_DBM) if not index or dbm <= region.max_eirp_dbm)
    defaults = (region.default_uplink_dwell, region.default_downlink_dwell, eirp)
    wants = _or_default((policy.uplink_dwell, policy.downlink_dwell, policy.max_eirp_index), defaults)
    has = _or_default((state.uplink_dwell, state.downlink_dwell, state.max_eirp_index), defaults)
    if wants != has:
        uplink, downlink, index = wants
        yield build(
            "TxParamSetupReq",
            Direction.DOWN,
            uplink_dwell_time=uplink,
            downlink_dwell_time=downlink,
            max_eirp_index=index,
        )


def _or_default(values: tuple[int | None, ...], defaults: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(default if value is None else value for value, default in zip(values, defaults, strict=True))


def _new_channels(state: MacState, policy: MacPolicy, region: Region) -> Iterator[bytes]:
    """NewChannelReq (§5) for the channels that the device has not got, at the lowest free indices."""
    if region.fixed:
        return
    has = {channel.frequency_hz for channel in state.channels} | set(region.join_channels_hz)
    free = iter(sorted(set(range(region.max_channels)) - known_channels(state, region)))
    min_dr, max_dr = region.usual_channel_data_rates
    missing = [frequency_hz for frequency_hz in policy.channels_hz if frequency_hz not in has]
    for frequency_hz, index in zip(missing, free, strict=False):
        yield build(
            "NewChannelReq",
            Direction.DOWN,
            ch_index=index,
            frequency_hz=frequency_hz,
            max_dr=max_dr,
            min_dr=min_dr,
        )


def _dl_channels(state: MacState, policy: MacPolicy, region: Region) -> Iterator[bytes]:
    """DlChannelReq (§5) for the channels whose RX1 is not where it is wanted: somewhere else than their uplinks."""
    if region.fixed:
        return
    uplinks = dict(enumerate(region.join_channels_hz)) | {one.index: one.frequency_hz for one in state.channels}
    has = uplinks | dict(state.downlink_hz)
    for index, uplink_hz in sorted(uplinks.items()):
        wants = policy.rx1_frequency_hz or uplink_hz
        if has[index] != wants:
            yield build("DlChannelReq", Direction.DOWN, ch_index=index, frequency_hz=wants)


def _link_adr(
    state: MacState, policy: MacPolicy, mac_version: MacVersion, region: Region, managed: bool
) -> Iterator[bytes]:
    """At most one block of LinkADRReq (§5) for the channel mask and for what ADR wants."""
    known = known_channels(state, region)
    has = known if state.enabled is None else state.enabled & known
    wanted = known & policy.enabled if region.fixed and policy.enabled is not None else known
    if not wanted:
        return
    keeps = mac_version in _KEEPS
    lowest = region.adr_data_rates[0]
    now = Adaptation(_or_keep(state.data_rate, keeps, lowest), _or_keep(state.tx_power, keeps, 0), state.nb_trans)
    wish = adapt(state, region, policy) if managed else None
    # A device that cannot have the power it should, or the data rate, may do the rest.
    wishes = (
        []
        if wish is None
        else [
            wish,
            Adaptation(wish.data_rate, now.tx_power, wish.nb_trans),
            Adaptation(now.data_rate, wish.tx_power, wish.nb_trans),
        ]
    )
    for one in [one for one in wishes if one != now] + [now] * (has != wanted):
        for masks in _masks(region, has, wanted):
            block = b"".join(_link_adr_req(one, cntl, ch_mask) for cntl, ch_mask in masks)
            if block not in state.refused:
                yield block
                return


def _link_adr_req(one: Adaptation, ch_mask_cntl: int, ch_mask: int) -> bytes:
    return build(
        "LinkADRReq",
        Direction.DOWN,
        data_rate=one.data_rate,
        tx_power=one.tx_power,
        ch_mask=ch_mask,
        ch_mask_cntl=ch_mask_cntl,
        nb_trans=one.nb_trans,
    )


def _masks(region: Region, has: frozenset[int], wanted: frozenset[int]) -> Iterator[_Masks]:
    """(ChMaskCntl, ChMask) of a block of LinkADRReq that fits into FOpts, in the ways that can be tried.

    Where nothing is to change, one request that says so much. Else the whole in the shortest form, which may need
    a ChMaskCntl that old devices do not know; or sixteen channels a request, what is to be on first, and what does not
    fit the next time.
    """
    if has == wanted:
        first = min(wanted) // _CHANNELS_A_MASK
        yield ((first, _sixteen(wanted, first)),)
        return
    whole = mask_requests(region, wanted)
    if len(whole) <= _MOST_MASKS:
        yield whole
    cntls = range(-(-region.max_channels // _CHANNELS_A_MASK))
    changes = [(cntl, _sixteen(wanted, cntl)) for cntl in cntls if _sixteen(has, cntl) != _sixteen(wanted, cntl)]
    yield tuple(sorted(changes, key=lambda change: not change[1])[:_MOST_MASKS])


def _sixteen(channels: frozenset[int], cntl: int) -> int:
    """ChMask of the sixteen channels that ChMaskCntl speaks of."""
    first = cntl * _CHANNELS_A_MASK
    return sum(1 << channel - first for channel in channels if first <= channel < first + _CHANNELS_A_MASK)


def _or_keep(value: int | None, keeps: bool, otherwise: int) -> int:
    """What leaves a setting as it is."""
    return value if value is not None else KEEP if keeps else otherwise


def _of_1_1(state: MacState, policy: MacPolicy) -> Iterator[bytes]:
    """ADRParamSetupReq and RejoinParamSetupReq (TS001-1.1 §5)."""
    defaults = (DEFAULT_ADR_ACK_LIMIT_EXPONENT, DEFAULT_ADR_ACK_DELAY_EXPONENT)
    wants = (policy.adr_ack_limit_exponent, policy.adr_ack_delay_exponent)
    limit, delay = _or_default(wants, defaults)
    has = _or_default((state.adr_ack_limit_exponent, state.adr_ack_delay_exponent), defaults)
    if wants != (None, None) and has != (limit, delay):
        yield build("ADRParamSetupReq", Direction.DOWN, limit_exp=limit, delay_exp=delay)
    if policy.rejoin is not None and policy.rejoin != state.rejoin:
        yield build(
            "RejoinParamSetupReq",
            Direction.DOWN,
            max_time_n=policy.rejoin.max_time_n,
            max_count_n=policy.rejoin.max_count_n,
        )
