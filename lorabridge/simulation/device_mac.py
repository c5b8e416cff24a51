"""The MAC layer of an end-device: it obeys the network's commands and remembers what it must answer (TS001 §5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import msgspec

from lorabridge.lorawan.mac_commands import FOPTS_ROOM, Command, build, parse
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.types import Direction, MacVersion
from lorabridge.simulation.channel_table import ChannelTable

_KEEP = 15
"""DataRate and TXPower that leave things as they are (§5)."""
_LINK_ADR = "LinkADRReq"
_STICKY = frozenset({"RXParamSetupAns", "RXTimingSetupAns", "DlChannelAns", "TxParamSetupAns"})
"""Answers that every uplink carries until a downlink of class A was heard (TS001-1.0.4 §5)."""
ADR_ACK_LIMIT = 64
ADR_ACK_DELAY = 32
"""RP002-1.0.4 §3."""
MINOR_1_1 = 1
CLASS_C = 2
_BATTERY_UNKNOWN = 255

_Handler = Callable[["DeviceMac", Command], "bytes | None"]


class ForcedRejoin(msgspec.Struct, frozen=True):
    """What ForceRejoinReq ordered (TS001-1.1 §5)."""

    rejoin_type: int
    data_rate: int
    retries: int


class DeviceMac:
    """What the network has set in one device, and what the device owes it."""

    def __init__(self, region: Region, mac_version: MacVersion, added_hz: tuple[int, ...] = ()) -> None:
        self.region = region
        self.mac_version = mac_version
        self.channels = ChannelTable(region, added_hz)
        self.data_rate = region.adr_data_rates[1]
        self.tx_power = 0
        self.nb_trans = 1
        self.rx1_delay = 1
        self.rx1_dr_offset = 0
        self.rx2_data_rate = region.rx2_data_rate
        self.rx2_frequency_hz = region.rx2_frequency_hz
        self.max_duty_cycle = 0
        self.uplink_dwell = region.default_uplink_dwell
        self.downlink_dwell = region.default_downlink_dwell
        self.max_eirp_index: int | None = None
        self.adr_ack_limit = ADR_ACK_LIMIT
        self.adr_ack_delay = ADR_ACK_DELAY
        self.rejoin_after: int | None = None
        """Uplinks after which a rejoin-request 0 is due (RejoinParamSetupReq)."""
        self.forced_rejoin: ForcedRejoin | None = None
        self.last_snr_db = 0
        self.announcements: dict[str, bytes] = {}
        """ResetInd, RekeyInd, DeviceModeInd: repeated until the network confirms them, by the confirmation's name."""
        self.answers: list[tuple[str, dict[str, int]]] = []
        """What LinkCheckAns and DeviceTimeAns said, oldest first."""
        self.unknown_cids: list[int] = []
        self.obeyed: list[str] = []
        """Requests taken, by name, oldest first."""
        self._owed: list[tuple[str, bytes]] = []
        self._requests: list[bytes] = []

    def ask(self, name: str) -> None:
        """Put LinkCheckReq or DeviceTimeReq into the next uplink."""
        self._requests.append(build(name, Direction.UP))

    def announce(self, confirmation: str, name: str, **fields: int) -> None:
        """Put a command into every uplink until its confirmation is heard."""
        self.announcements[confirmation] = build(name, Direction.UP, **fields)

    def take_f_opts(self) -> bytes:
        """The commands of the next uplink; what finds no room waits for the one after it."""
        f_opts = b""
        for command in self.announcements.values():
            if len(f_opts) + len(command) <= FOPTS_ROOM:
                f_opts += command
        left: list[tuple[str, bytes]] = []
        for name, answer in self._owed:
            fits = len(f_opts) + len(answer) <= FOPTS_ROOM
            f_opts += answer if fits else b""
            if not fits or name in _STICKY:
                left.append((name, answer))
        self._owed = left
        while self._requests and len(f_opts) + len(self._requests[0]) <= FOPTS_ROOM:
            f_opts += self._requests.pop(0)
        return f_opts

    def hear(self, commands: bytes, *, class_a: bool) -> None:
        """Obey a list of commands; `class_a`: it came in a window after an uplink, which ends the sticky answers."""
        if class_a:
            self._owed = [(name, answer) for name, answer in self._owed if name not in _STICKY]
        parsed = parse(commands, Direction.DOWN, self.mac_version)
        if parsed.unknown_cid is not None:
            self.unknown_cids.append(parsed.unknown_cid)
        for name, group in groupby(parsed.commands, key=lambda command: command.name):
            same = list(group)
            if name == _LINK_ADR:
                self._link_adr(same)
            elif handler := _HANDLERS.get(name):
                for command in same:
                    answer = handler(self, command)
                    self.obeyed.append(name)
                    if answer is not None:
                        self._owe(answer)

    def back_off(self) -> None:
        """One step of the ADR back-off: first full power, then a slower data rate, then the default channels."""
        lower = [dr for dr in range(self.region.adr_data_rates[0], self.data_rate) if self.can_send_at(dr)]
        if self.tx_power:
            self.tx_power = 0
        elif lower:
            self.data_rate = lower[-1]
        else:
            self.channels.enable_defaults()
            self.nb_trans = 1

    def can_send_at(self, data_rate: int, enabled: frozenset[int] | None = None) -> bool:
        """Whether a channel carries the data rate, and the dwell time lets a frame through."""
        room = self.region.max_mac_payload(data_rate, dwell=self.uplink_dwell, down=False)
        return room is not None and bool(self.channels.usable(data_rate, enabled))

    def _owe(self, answer: bytes) -> None:
        name = parse(answer, Direction.UP, self.mac_version).commands[0].name
        if name in _STICKY:  # one of each is enough
            self._owed = [owed for owed in self._owed if owed[0] != name or name == "DlChannelAns"]
        self._owed.append((name, answer))

    def _link_adr(self, block: Sequence[Command]) -> None:
        """A block is taken or refused as one; data rate, power and NbTrans are the last one's (TS001-1.0.4 §5)."""
        last = block[-1]
        enabled = self.channels.masked([(command["ch_mask_cntl"], command["ch_mask"]) for command in block])
        data_rate = self.data_rate if last["data_rate"] == _KEEP else last["data_rate"]
        tx_power = self.tx_power if last["tx_power"] == _KEEP else last["tx_power"]
        data_rate_ok = enabled is not None and self.can_send_at(data_rate, enabled)
        power_ok = tx_power < self.region.tx_powers
        if enabled is not None and data_rate_ok and power_ok:
            self.channels.enabled = enabled
            self.data_rate, self.tx_power = data_rate, tx_power
            # 0 is "keep" in 1.1 and the default of 1 before (§5, NbTrans).
            self.nb_trans = last["nb_trans"] or (self.nb_trans if self.mac_version.is_1_1 else 1)
            self.obeyed.append(_LINK_ADR)
        for _ in block:
            self._owe(
                build(
                    "LinkADRAns",
                    Direction.UP,
                    channel_mask_ack=int(enabled is not None),
                    data_rate_ack=int(data_rate_ok),
                    power_ack=int(power_ok),
                )
            )

    def duty_cycle(self, command: Command) -> bytes:
        """DutyCycleReq (§5)."""
        self.max_duty_cycle = command["max_duty_cycle"]
        return build("DutyCycleAns", Direction.UP)

    def rx_param_setup(self, command: Command) -> bytes:
        """RXParamSetupReq (§5): all of it or nothing."""
        rates, rx2 = self.region.downlink_data_rates, command["rx2_data_rate"]
        channel_ok = self._can_hear(command["frequency_hz"])
        rx2_ok = rx2 < len(rates) and rates[rx2] is not None
        offset_ok = command["rx1_dr_offset"] <= self.region.max_rx1_dr_offset
        if channel_ok and rx2_ok and offset_ok:
            self.rx1_dr_offset, self.rx2_data_rate = command["rx1_dr_offset"], rx2
            self.rx2_frequency_hz = command["frequency_hz"]
        return build(
            "RXParamSetupAns",
            Direction.UP,
            channel_ack=int(channel_ok),
            rx2_data_rate_ack=int(rx2_ok),
            rx1_dr_offset_ack=int(offset_ok),
        )

    def dev_status(self, _command: Command) -> bytes:
        """DevStatusReq (§5): the margin is the SNR of this very request."""
        margin = max(-32, min(31, self.last_snr_db))
        return build("DevStatusAns", Direction.UP, battery=_BATTERY_UNKNOWN, margin=margin)

    def new_channel(self, command: Command) -> bytes | None:
        """NewChannelReq (§5): not for the default channels; fixed plans do not know it."""
        if self.region.fixed:
            return None
        index, frequency_hz = command["ch_index"], command["frequency_hz"]
        lowest, highest = command["min_dr"], command["max_dr"]
        rates = self.region.data_rates
        is_free = self.region.channel_count <= index < self.region.max_channels
        frequency_ok = is_free and (not frequency_hz or self._can_hear(frequency_hz))
        range_ok = lowest <= highest < len(rates) and all(rates[dr] for dr in range(lowest, highest + 1))
        if frequency_ok and range_ok:
            self.channels.add(index, frequency_hz, lowest, highest)
        return build(
            "NewChannelAns", Direction.UP, channel_frequency_ok=int(frequency_ok), data_rate_range_ok=int(range_ok)
        )

    def rx_timing_setup(self, command: Command) -> bytes:
        """RXTimingSetupReq (§5): 0 means 1 s."""
        self.rx1_delay = command["delay"] or 1
        return build("RXTimingSetupAns", Direction.UP)

    def tx_param_setup(self, command: Command) -> bytes | None:
        """TxParamSetupReq (§5): where the region has none, it is not answered."""
        if not self.region.has_tx_param_setup:
            return None
        self.uplink_dwell, self.downlink_dwell = (
            bool(command["uplink_dwell_time"]),
            bool(command["downlink_dwell_time"]),
        )
        self.max_eirp_index = command["max_eirp_index"]
        return build("TxParamSetupAns", Direction.UP)

    def dl_channel(self, command: Command) -> bytes | None:
        """DlChannelReq (§5)."""
        if self.region.fixed:
            return None
        frequency_ok, exists = self._can_hear(command["frequency_hz"]), self.channels.exists(command["ch_index"])
        if frequency_ok and exists:
            self.channels.move_downlink(command["ch_index"], command["frequency_hz"])
        return build(
            "DlChannelAns", Direction.UP, channel_frequency_ok=int(frequency_ok), uplink_frequency_exists=int(exists)
        )

    def adr_param_setup(self, command: Command) -> bytes:
        """ADRParamSetupReq (TS001-1.1 §5)."""
        self.adr_ack_limit, self.adr_ack_delay = 1 << command["limit_exp"], 1 << command["delay_exp"]
        return build("ADRParamSetupAns", Direction.UP)

    def rejoin_param_setup(self, command: Command) -> bytes:
        """RejoinParamSetupReq (TS001-1.1 §5): after 2^(MaxCountN + 4) uplinks; this device keeps no calendar."""
        self.rejoin_after = 1 << command["max_count_n"] + 4
        return build("RejoinParamSetupAns", Direction.UP, time_ok=0)

    def force_rejoin(self, command: Command) -> None:
        """ForceRejoinReq has no answer but the rejoin-request itself (TS001-1.1 §5)."""
        kind = 0 if command["rejoin_type"] < 2 else 2
        self.forced_rejoin = ForcedRejoin(kind, command["data_rate"], command["max_retries"])

    def confirm(self, command: Command) -> None:
        """ResetConf, RekeyConf, DeviceModeConf end the announcement they confirm."""
        self.announcements.pop(command.name, None)

    def note(self, command: Command) -> None:
        """LinkCheckAns and DeviceTimeAns: for the application."""
        self.answers.append((command.name, dict(command.fields)))

    def _can_hear(self, frequency_hz: int) -> bool:
        return self.region.sub_band(frequency_hz) is not None


_HANDLERS: dict[str, _Handler] = {
    "DutyCycleReq": DeviceMac.duty_cycle,
    "RXParamSetupReq": DeviceMac.rx_param_setup,
    "DevStatusReq": DeviceMac.dev_status,
    "NewChannelReq": DeviceMac.new_channel,
    "RXTimingSetupReq": DeviceMac.rx_timing_setup,
    "TxParamSetupReq": DeviceMac.tx_param_setup,
    "DlChannelReq": DeviceMac.dl_channel,
    "ADRParamSetupReq": DeviceMac.adr_param_setup,
    "RejoinParamSetupReq": DeviceMac.rejoin_param_setup,
    "ForceRejoinReq": DeviceMac.force_rejoin,
    "ResetConf": DeviceMac.confirm,
    "RekeyConf": DeviceMac.confirm,
    "DeviceModeConf": DeviceMac.confirm,
    "LinkCheckAns": DeviceMac.note,
    "DeviceTimeAns": DeviceMac.note,
}
