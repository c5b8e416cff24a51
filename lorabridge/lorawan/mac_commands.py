"""MAC commands: one table a direction, and the two ways between bytes and values (TS001-1.0.4 §5, TS001-1.1 §5).

    command list = (CID 1 | payload of the length its table says)*

A list cannot be read past a CID whose length is unknown, so reading stops there. Payload fields are bits of one little
endian number; RFU bits are kept in `Command.wire` and built as zero.
"""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.types import Direction, MacVersion

_V1_0, _V1_0_2, _V1_0_3, _V1_1 = MacVersion.V1_0_0, MacVersion.V1_0_2, MacVersion.V1_0_3, MacVersion.V1_1_0
_ORDER = {version: place for place, version in enumerate(MacVersion)}

FOPTS_ROOM = 15
"""Bytes of commands that FOpts can hold (§4.3.1.6)."""
_FINE_STEP_HZ, _COARSE_STEP_HZ = 100, 200
"""What Freq counts; the second one in the band of 2.4 GHz, which 24 bits of the first do not reach."""
_COARSE_FROM_HZ = 2_400_000_000


class _Field(msgspec.Struct, frozen=True):
    """`width` bits of the payload from bit `at` on."""

    name: str
    at: int
    width: int
    signed: bool = False
    is_frequency: bool = False

    def read(self, number: int) -> int:
        """The value of the field; a frequency in Hz."""
        raw = number >> self.at & ((1 << self.width) - 1)
        if self.is_frequency:
            return raw * (_COARSE_STEP_HZ if raw * _COARSE_STEP_HZ >= _COARSE_FROM_HZ else _FINE_STEP_HZ)
        return raw - (1 << self.width) if self.signed and raw >> (self.width - 1) else raw

    def write(self, value: int) -> int:
        """The bits of `value` in their place. Raises ValueError for what they cannot say."""
        raw, rest = value, 0
        if self.is_frequency:
            raw, rest = divmod(value, _COARSE_STEP_HZ if value >= _COARSE_FROM_HZ else _FINE_STEP_HZ)
        elif self.signed and value < 0:
            raw = value + (1 << self.width)
        if rest or raw >> self.width or self.read(raw << self.at) != value:
            raise ValueError(f"{self.name} cannot be {value}")
        return raw << self.at


class _Layout(msgspec.Struct, frozen=True):
    """What one CID means, in one direction, from version `since` on."""

    cid: int
    name: str
    since: MacVersion
    size: int
    """Bytes of payload."""
    fields: tuple[_Field, ...] = ()


class Command(msgspec.Struct, frozen=True):
    """One MAC command. `command["field"]` is a field by its name; frequencies are in Hz, flags 0 or 1."""

    cid: int
    name: str
    fields: tuple[tuple[str, int], ...]
    wire: bytes
    """As it was on the air, its CID included."""

    def __getitem__(self, field: str) -> int:
        """Raises KeyError for a field that the command has not got."""
        return dict(self.fields)[field]


class Parsed(msgspec.Struct, frozen=True):
    """A command list as far as it can be read."""

    commands: tuple[Command, ...]
    unknown_cid: int | None = None
    """Where reading stopped: a CID that the version has not got."""
    truncated: bool = False
    """The last command is cut off."""


NOTHING_PARSED = Parsed(())

_STATUS_OK = (_Field("channel_frequency_ok", 0, 1),)
_MINOR = (_Field("minor", 0, 4),)
_CLASS = (_Field("class", 0, 8),)
"""0: A, 2: C (TS001-1.1 §18.1)."""


def _frequency(at: int) -> _Field:
    return _Field("frequency_hz", at, 24, is_frequency=True)


def can_say_hz(frequency_hz: int) -> bool:
    """Whether MAC commands have a number for a frequency: steps of 100 Hz, from 2.4 GHz on of 200 Hz (§5)."""
    try:
        _frequency(0).write(frequency_hz)
    except ValueError:
        return False
    return True


_UPLINK = (
    _Layout(0x01, "ResetInd", _V1_1, 1, _MINOR),
    _Layout(0x02, "LinkCheckReq", _V1_0, 0),
    _Layout(
        0x03,
        "LinkADRAns",
        _V1_0,
        1,
        (_Field("channel_mask_ack", 0, 1), _Field("data_rate_ack", 1, 1), _Field("power_ack", 2, 1)),
    ),
    _Layout(0x04, "DutyCycleAns", _V1_0, 0),
    _Layout(
        0x05,
        "RXParamSetupAns",
        _V1_0,
        1,
        (_Field("channel_ack", 0, 1), _Field("rx2_data_rate_ack", 1, 1), _Field("rx1_dr_offset_ack", 2, 1)),
    ),
    _Layout(0x06, "DevStatusAns", _V1_0, 2, (_Field("battery", 0, 8), _Field("margin", 8, 6, signed=True))),
    _Layout(0x07, "NewChannelAns", _V1_0, 1, (*_STATUS_OK, _Field("data_rate_range_ok", 1, 1))),
    _Layout(0x08, "RXTimingSetupAns", _V1_0, 0),
    _Layout(0x09, "TxParamSetupAns", _V1_0_2, 0),
    _Layout(0x0A, "DlChannelAns", _V1_0_2, 1, (*_STATUS_OK, _Field("uplink_frequency_exists", 1, 1))),
    _Layout(0x0B, "RekeyInd", _V1_1, 1, _MINOR),
    _Layout(0x0C, "ADRParamSetupAns", _V1_1, 0),
    _Layout(0x0D, "DeviceTimeReq", _V1_0_3, 0),
    _Layout(0x0F, "RejoinParamSetupAns", _V1_1, 1, (_Field("time_ok", 0, 1),)),
    _Layout(0x10, "PingSlotInfoReq", _V1_0, 1, (_Field("periodicity", 0, 3),)),
    _Layout(0x11, "PingSlotChannelAns", _V1_0, 1, (*_STATUS_OK, _Field("data_rate_ok", 1, 1))),
    _Layout(0x12, "BeaconTimingReq", _V1_0, 0),
    _Layout(0x13, "BeaconFreqAns", _V1_0, 1, (_Field("beacon_frequency_ok", 0, 1),)),
    _Layout(0x20, "DeviceModeInd", _V1_1, 1, _CLASS),
)
_DOWNLINK = (
    _Layout(0x01, "ResetConf", _V1_1, 1, _MINOR),
    _Layout(0x02, "LinkCheckAns", _V1_0, 2, (_Field("margin", 0, 8), _Field("gw_cnt", 8, 8))),
    _Layout(
        0x03,
        "LinkADRReq",
        _V1_0,
        4,
        (
            _Field("data_rate", 4, 4),
            _Field("tx_power", 0, 4),
            _Field("ch_mask", 8, 16),
            _Field("ch_mask_cntl", 28, 3),
            _Field("nb_trans", 24, 4),
        ),
    ),
    _Layout(0x04, "DutyCycleReq", _V1_0, 1, (_Field("max_duty_cycle", 0, 4),)),
    _Layout(
        0x05,
        "RXParamSetupReq",
        _V1_0,
        4,
        (_Field("rx1_dr_offset", 4, 3), _Field("rx2_data_rate", 0, 4), _frequency(8)),
    ),
    _Layout(0x06, "DevStatusReq", _V1_0, 0),
    _Layout(
        0x07,
        "NewChannelReq",
        _V1_0,
        5,
        (_Field("ch_index", 0, 8), _frequency(8), _Field("max_dr", 36, 4), _Field("min_dr", 32, 4)),
    ),
    _Layout(0x08, "RXTimingSetupReq", _V1_0, 1, (_Field("delay", 0, 4),)),
    _Layout(
        0x09,
        "TxParamSetupReq",
        _V1_0_2,
        1,
        (_Field("downlink_dwell_time", 5, 1), _Field("uplink_dwell_time", 4, 1), _Field("max_eirp_index", 0, 4)),
    ),
    _Layout(0x0A, "DlChannelReq", _V1_0_2, 4, (_Field("ch_index", 0, 8), _frequency(8))),
    _Layout(0x0B, "RekeyConf", _V1_1, 1, _MINOR),
    _Layout(0x0C, "ADRParamSetupReq", _V1_1, 1, (_Field("limit_exp", 4, 4), _Field("delay_exp", 0, 4))),
    _Layout(0x0D, "DeviceTimeAns", _V1_0_3, 5, (_Field("seconds", 0, 32), _Field("fractional", 32, 8))),
    _Layout(
        0x0E,
        "ForceRejoinReq",
        _V1_1,
        2,
        (
            _Field("period", 11, 3),
            _Field("max_retries", 8, 3),
            _Field("rejoin_type", 4, 3),
            _Field("data_rate", 0, 4),
        ),
    ),
    _Layout(0x0F, "RejoinParamSetupReq", _V1_1, 1, (_Field("max_time_n", 4, 4), _Field("max_count_n", 0, 4))),
    _Layout(0x10, "PingSlotInfoAns", _V1_0, 0),
    _Layout(0x11, "PingSlotChannelReq", _V1_0, 4, (_frequency(0), _Field("data_rate", 24, 4))),
    _Layout(0x12, "BeaconTimingAns", _V1_0, 3, (_Field("delay", 0, 16), _Field("channel", 16, 8))),
    _Layout(0x13, "BeaconFreqReq", _V1_0, 3, (_frequency(0),)),
    _Layout(0x20, "DeviceModeConf", _V1_1, 1, _CLASS),
)

_BY_CID = {
    Direction.UP: {layout.cid: layout for layout in _UPLINK},
    Direction.DOWN: {layout.cid: layout for layout in _DOWNLINK},
}
_BY_NAME = {direction: {layout.name: layout for layout in layouts.values()} for direction, layouts in _BY_CID.items()}


def has_command(cid: int, direction: Direction, mac_version: MacVersion) -> bool:
    """Whether the version knows the command in this direction."""
    layout = _BY_CID[direction].get(cid)
    return layout is not None and _ORDER[layout.since] <= _ORDER[mac_version]


def wire_size(cid: int, direction: Direction) -> int:
    """Bytes of the command with its CID; 0 when there is none in this direction."""
    layout = _BY_CID[direction].get(cid)
    return 0 if layout is None else 1 + layout.size


def parse(data: bytes, direction: Direction, mac_version: MacVersion) -> Parsed:
    """Read a command list, whatever the bytes, as far as the version knows its commands (§5)."""
    commands: list[Command] = []
    layouts, at = _BY_CID[direction], 0
    while at < len(data):
        cid = data[at]
        if not has_command(cid, direction, mac_version):
            return Parsed(tuple(commands), unknown_cid=cid)
        layout = layouts[cid]
        wire = data[at : at + 1 + layout.size]
        if len(wire) <= layout.size:
            return Parsed(tuple(commands), truncated=True)
        number = int.from_bytes(wire[1:], "little")
        fields = tuple([(field.name, field.read(number)) for field in layout.fields])
        commands.append(Command(cid, layout.name, fields, wire))
        at += len(wire)
    return Parsed(tuple(commands)) if commands else NOTHING_PARSED


def build(command: int | str, direction: Direction, **fields: int) -> bytes:
    """The bytes of one command, by its CID or name. Raises ValueError when it or a field cannot be so."""
    layout = _BY_NAME[direction].get(command) if isinstance(command, str) else _BY_CID[direction].get(command)
    if layout is None:
        raise ValueError(f"there is no command {command!r} {direction.name.lower()}")
    names = {field.name for field in layout.fields}
    if fields.keys() != names:
        raise ValueError(f"{layout.name} has the fields {sorted(names)}, not {sorted(fields)}")
    number = sum(field.write(fields[field.name]) for field in layout.fields)
    return bytes([layout.cid]) + number.to_bytes(layout.size, "little")
