"""A whole end-device in software, both ways: it joins, sends, listens in its windows and obeys the network.

It knows the specification (frames, cryptography, commands, regions) and nothing of the bridge's engine, so that
what the two agree on is the specification. Time is simulated: nanoseconds, as the fleet's clock gives them.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec

from lorabridge.lorawan.air import DataRate
from lorabridge.lorawan.airtime import time_on_air_us
from lorabridge.lorawan.crypto import MicContext
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import DataFrame, JoinAccept, JoinAcceptBody, parse
from lorabridge.lorawan.grammar import MalformedFrame, MType
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.types import DeviceClass, Direction, FCnt16, FCnt32, NetID
from lorabridge.simulation.activation import Joiner, NoRootKeyError, Pending
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.channel_table import Channel
from lorabridge.simulation.device_mac import CLASS_C, MINOR_1_1, DeviceMac
from lorabridge.simulation.device_session import DeviceSession, Downlink, Flaw
from lorabridge.simulation.devices import ACK, ADR, ADR_ACK_REQ, NotActivatedError
from lorabridge.simulation.listening import (
    Radiation,
    Slot,
    Window,
    caught_in,
    fits,
    join_windows_after,
    rejoin_windows_after,
    windows_after,
)

_SECOND = 1_000_000_000
_FHDR_AND_MIC = 1 + 4
"""What a PHYPayload has beside the MACPayload: MHDR and MIC."""


class Joined(msgspec.Struct, frozen=True):
    """A join-accept was taken."""

    body: JoinAcceptBody


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A transmission that reached the device in a window, and what it made of it."""

    slot: Slot
    opens_at: int
    """When the window opened; for RXC when the transmission began."""
    what: Joined | Downlink | Flaw


class _Last(msgspec.Struct, frozen=True):
    """The last data frame, for its repetition."""

    frame: DataFrame
    fcnt32: FCnt32
    conf_fcnt: int


class EndDevice:
    """One end-device at a place; `now` is the end of the frame on the air."""

    def __init__(self, device: Device, region: Region, place: Place, *, rng: Random) -> None:
        self.device = device
        self.region = region
        self.place = place
        self.mac = self._fresh_mac()
        self.session: DeviceSession | None = None
        self.flaws: Counter[Flaw] = Counter()
        """What went wrong with downlinks that were for this device; `BAD_MIC` and others' join-accepts are no fault."""
        self.windows: tuple[Window, ...] = ()
        """Those of the last uplink that have not been used."""
        self.joiner = Joiner(device)
        self._rng = rng
        self._pending: Pending | None = None
        self._tried_to_join = False
        self._net_id = NetID(0)
        self._last: _Last | None = None
        self._adr_ack_count = 0
        self._since_rejoin = 0
        self._quiet_until = 0
        if device.dev_addr is not None and device.session_keys is not None:
            self.session = DeviceSession(device.dev_addr, device.session_keys, is_1_1=device.mac_version.is_1_1)
            if device.mac_version.is_1_1:  # an ABP device says so until it is confirmed (TS001-1.1 §5.1)
                self.mac.announce("ResetConf", "ResetInd", minor=MINOR_1_1)
            self._announce_class()

    @property
    def is_activated(self) -> bool:
        """Whether it has a session."""
        return self.session is not None

    @property
    def waits_for_ack(self) -> bool:
        """Whether a confirmed uplink has not been acknowledged yet."""
        return self.session is not None and self.session.confirmed_up is not None

    @property
    def quiet_until(self) -> int:
        """When DutyCycleReq lets it send again."""
        return self._quiet_until

    @property
    def due_rejoin(self) -> int | None:
        """The type of the rejoin-request that the network has ordered, None when there is none."""
        if self.mac.forced_rejoin is not None:
            return self.mac.forced_rejoin.rejoin_type
        after = self.mac.rejoin_after
        return 0 if after is not None and self._since_rejoin >= after else None

    def join(self, now: int) -> Emission:
        """A join-request under the next DevNonce, and the windows for its answer.

        Raises NoRootKeyError for a device that cannot join.
        """
        phy_payload, self._pending = self.joiner.request(self._rng.randrange(0x1_0000))
        mac = self._fresh_mac()
        data_rates = [dr for dr in self.region.join_data_rates if mac.channels.joining(dr)]
        # The fastest first; then any, since a silent network may be one that is far away (§6.2.5).
        data_rate = self._rng.choice(data_rates) if self._tried_to_join else data_rates[-1]
        self._tried_to_join = True
        channel = self._rng.choice(mac.channels.joining(data_rate))
        self.windows = join_windows_after(self.region, channel, data_rate, now)
        return self._emit(phy_payload, channel, data_rate, now)

    def rejoin(self, now: int, rejoin_type: int) -> Emission:
        """A rejoin-request (1.1), and the windows for its answer. Raises NoRootKeyError without the keys for it."""
        phy_payload, self._pending = self.joiner.rejoin(rejoin_type, self._net_id, self.session)
        self.mac.forced_rejoin, self._since_rejoin = None, 0
        channel = self._draw()
        if rejoin_type == 1:
            self.windows = join_windows_after(self.region, channel, self.mac.data_rate, now)
        else:
            self.windows = rejoin_windows_after(self.mac, channel, self.mac.data_rate, now)
        return self._emit(phy_payload, channel, self.mac.data_rate, now)

    def leave(self) -> None:
        """Give the session up: the network does not answer any more. Raises NoRootKeyError if there is no way back."""
        if not self.joiner.can_join:
            raise NoRootKeyError(f"{self.device.name} cannot join")
        self.session, self._pending, self._last, self.windows = None, None, None, ()

    def send(self, now: int, *, f_port: int | None = None, payload: bytes = b"", confirmed: bool = False) -> Emission:
        """A new frame, with the MAC commands that are due, and its windows.

        Raises NotActivatedError before the join, MalformedFrame when the fields make no frame.
        """
        session = self._activated()
        fcnt32 = FCnt32(session.fcnt_up)
        flags = self._adr_flags()
        conf_fcnt = 0
        if session.confirmed_down is not None:
            flags, conf_fcnt, session.confirmed_down = flags | ACK, session.confirmed_down, None
        sealed = session.crypto.frm_payload(payload, f_port, Direction.UP, session.dev_addr, fcnt32)
        if sealed is None:
            raise NotActivatedError(f"{self.device.name} has no AppSKey")
        frame = DataFrame.make(
            m_type=MType.CONFIRMED_DATA_UP if confirmed else MType.UNCONFIRMED_DATA_UP,
            dev_addr=session.dev_addr,
            fcnt16=FCnt16(fcnt32 & 0xFFFF),
            flags=flags,
            f_opts=b"" if f_port == 0 else session.seal_f_opts(self.mac.take_f_opts(), fcnt32),
            f_port=f_port,
            frm_payload=sealed,
        )
        session.fcnt_up += 1
        session.confirmed_up = fcnt32 if confirmed else None
        self._since_rejoin += 1
        self._last = _Last(frame, fcnt32, conf_fcnt)
        return self._emit_last(self._last, now)

    def repeat(self, now: int) -> Emission:
        """The last frame again (NbTrans, or no acknowledgement came), on a channel drawn anew.

        Raises NotActivatedError before the first frame.
        """
        if self._last is None:
            raise NotActivatedError(f"{self.device.name} has sent nothing yet")
        return self._emit_last(self._last, now)

    def hear(self, radiation: Radiation) -> Heard | None:
        """What a transmission is to this device; None when it does not listen there and then, or it is not for it."""
        window = caught_in(self.region, self.windows, radiation)
        if window is None and not self._listens_always(radiation):
            return None
        slot = Slot.RXC if window is None else Slot(window.number)
        what = self._read(radiation, slot)
        if what is None:
            return None
        if isinstance(what, Flaw):
            self.flaws[what] += 1
        elif window is not None:
            self.windows = ()  # what was for the device closes the second window (§3.3.3)
        opens_at = radiation.starts_at if window is None else window.opens_at
        return Heard(slot=slot, opens_at=opens_at, what=what)

    def _read(self, radiation: Radiation, slot: Slot) -> Joined | Downlink | Flaw | None:
        try:
            frame = parse(radiation.phy_payload, direction=Direction.DOWN)
        except MalformedFrame:
            return None
        if isinstance(frame, JoinAccept):
            return self._take_join_accept(frame) if self._pending is not None and slot is not Slot.RXC else None
        session = self.session
        if not isinstance(frame, DataFrame) or session is None or frame.dev_addr != session.dev_addr:
            return None
        if len(radiation.phy_payload) - _FHDR_AND_MIC > self._longest(radiation.data_rate):
            return Flaw.TOO_LONG
        downlink = session.take(frame)
        if isinstance(downlink, Downlink):
            self._adr_ack_count = 0
            self._pending = None
            self.mac.hear(downlink.commands, class_a=slot is not Slot.RXC)
        return downlink

    def _take_join_accept(self, frame: JoinAccept) -> Joined | Flaw | None:
        """Into a new session; another device's join-accept cannot be told from a damaged one, and is passed over."""
        pending = self._pending
        if pending is None:
            return None
        opened = self.joiner.open(frame, pending)
        if isinstance(opened, Flaw):
            return None if opened is Flaw.BAD_JOIN_ACCEPT else opened
        session, body = opened
        self.session, self._pending, self._last = session, None, None
        self._tried_to_join = False
        self._adr_ack_count, self._net_id = 0, body.net_id
        if pending.join_req_type != 2:  # rejoin 2 keeps the radio settings (TS001-1.1 §6.2.4)
            self._take_settings(body)
        if session.is_1_1:
            self.mac.announce("RekeyConf", "RekeyInd", minor=MINOR_1_1)
        self._announce_class()
        return Joined(body)

    def _take_settings(self, body: JoinAcceptBody) -> None:
        """DLSettings, RxDelay and CFList of a join-accept; everything else is as after a reset."""
        self.mac = self._fresh_mac()
        self.mac.rx1_delay = body.rx_delay & 0x0F or 1
        self.mac.rx1_dr_offset, self.mac.rx2_data_rate = body.rx1_dr_offset, body.rx2_data_rate
        if body.cf_list:
            self.mac.channels.take_cf_list(body.cf_list)

    def _announce_class(self) -> None:
        """A device of 1.1 tells the network that it is one of class C (TS001-1.1 §18.1)."""
        if self.device.device_class is DeviceClass.C and self.session is not None and self.session.is_1_1:
            self.mac.announce("DeviceModeConf", "DeviceModeInd", **{"class": CLASS_C})

    def _adr_flags(self) -> int:
        """ADR and ADRACKReq, and a step of the back-off when the network has been silent too long (§4.3.1.1)."""
        count, limit, delay = self._adr_ack_count, self.mac.adr_ack_limit, self.mac.adr_ack_delay
        self._adr_ack_count += 1
        if count >= limit + delay and not (count - limit) % delay:
            self.mac.back_off()
        return ADR | (ADR_ACK_REQ if count >= limit else 0)

    def _emit_last(self, last: _Last, now: int) -> Emission:
        """Sign for the channel that will carry the frame, open the windows, and send."""
        session, channel, data_rate = self._activated(), self._draw(), self.mac.data_rate
        mic = session.mic_up(last.frame, last.fcnt32, MicContext(last.conf_fcnt, data_rate, channel.index))
        self.windows = windows_after(self.mac, channel, data_rate, now)
        frame = last.frame.with_mic(mic)
        return self._emit(frame.message + frame.mic, channel, data_rate, now)

    def _emit(self, phy_payload: bytes, channel: Channel, data_rate: int, now: int) -> Emission:
        modulation = self.region.data_rates[data_rate]
        if modulation is None:
            raise ValueError(f"{self.region.name} has no data rate {data_rate}")
        on_air_ns = time_on_air_us(modulation, len(phy_payload)) * 1000
        self._quiet_until = now + on_air_ns * ((1 << self.mac.max_duty_cycle) - 1)
        return Emission(
            phy_payload=phy_payload,
            ends_at=now,
            frequency_hz=channel.frequency_hz,
            data_rate=modulation,
            place=self.place,
        )

    def _draw(self) -> Channel:
        return self._rng.choice(self.mac.channels.usable(self.mac.data_rate))

    def _listens_always(self, radiation: Radiation) -> bool:
        """Class C holds RX2 open; of 1.1 only once it has said so to the network."""
        if self.device.device_class is not DeviceClass.C or self.session is None or self.session.fcnt_up == 0:
            return False
        return fits(self.region, self.mac.rx2_frequency_hz, self.mac.rx2_data_rate, radiation)

    def _longest(self, data_rate: DataRate) -> int:
        number = self.region.downlink_data_rates.index(data_rate)
        return self.region.max_mac_payload(number, dwell=self.mac.downlink_dwell) or 0

    def _fresh_mac(self) -> DeviceMac:
        return DeviceMac(self.region, self.device.mac_version, self.device.channels_hz)

    def _activated(self) -> DeviceSession:
        if self.session is None:
            raise NotActivatedError(f"{self.device.name} has no session")
        return self.session
