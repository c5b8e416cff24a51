"""A real end-device in software: keys and counters in, frames on the air out. It knows nothing of the bridge's
engine, so that what the two agree on is the specification.
"""

from __future__ import annotations

from random import Random

from lorabridge.lorawan.crypto import MicContext, PreparedKey, SessionCrypto, join_mic
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import DataFrame, JoinRequest, build
from lorabridge.lorawan.grammar import MIC_SIZE, MType
from lorabridge.lorawan.types import EUI64, FCNT32_MAX, DevAddr, DevNonce, Direction, FCnt16, FCnt32, MacVersion
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.plans import Plan, UplinkChannel

ADR = 0x80
ADR_ACK_REQ = 0x40
ACK = 0x20
"""Flags of FCtrl in an uplink (§4.3.1.1)."""

_NONCE_COUNTS = frozenset({MacVersion.V1_0_4, MacVersion.V1_1_0})
"""Versions whose DevNonce is a counter (TS001-1.0.4 §6.2.5); before, it is drawn."""


class NotActivatedError(RuntimeError):
    """An OTAA device has no session before its join-accept."""


class _Session:
    """What an activated device keeps."""

    def __init__(self, dev_addr: DevAddr, crypto: SessionCrypto, fcnt_up: int) -> None:
        self.dev_addr = dev_addr
        self.crypto = crypto
        self.fcnt_up = fcnt_up
        """The counter of the next new frame."""
        self.conf_fcnt: int | None = None
        """FCnt of a confirmed downlink that waits for its acknowledgement."""


class VirtualDevice:
    """One end-device at a place. `now` is the end of the frame on the air, nanoseconds since the Unix epoch."""

    def __init__(self, device: Device, plan: Plan, place: Place, *, rng: Random, fcnt_up: int = 0) -> None:
        self.device = device
        self.plan = plan
        self.place = place
        self.data_rate = plan.fast
        self.adr = True
        self._rng = rng
        self._offset_hz = rng.randrange(-4000, 4001)
        self._dev_nonce = 0
        self._session: _Session | None = None
        self._last: tuple[DataFrame, FCnt32, int] | None = None
        if device.dev_addr is not None and device.session_keys is not None:
            self._session = _Session(device.dev_addr, SessionCrypto(device.session_keys), fcnt_up)

    @property
    def fcnt_up(self) -> int:
        """The counter of the next new frame."""
        return self._activated().fcnt_up

    def send(
        self,
        now: int,
        *,
        f_port: int | None = None,
        payload: bytes = b"",
        f_opts: bytes = b"",
        confirmed: bool = False,
        flags: int = 0,
    ) -> Emission:
        """A new frame; `payload` and `f_opts` are plaintext, `flags` adds ADR_ACK_REQ.

        Raises NotActivatedError, OverflowError when the counter is used up, MalformedFrame when the fields make no
        frame.
        """
        session = self._activated()
        if session.fcnt_up > FCNT32_MAX:
            raise OverflowError("the frame counter is used up: the device needs new keys")
        fcnt32 = FCnt32(session.fcnt_up)
        if self.adr:
            flags |= ADR
        conf_fcnt = 0
        if session.conf_fcnt is not None:
            flags, conf_fcnt, session.conf_fcnt = flags | ACK, session.conf_fcnt, None
        frame = DataFrame.make(
            m_type=MType.CONFIRMED_DATA_UP if confirmed else MType.UNCONFIRMED_DATA_UP,
            dev_addr=session.dev_addr,
            fcnt16=FCnt16(fcnt32 & 0xFFFF),
            flags=flags,
            f_opts=self._seal_f_opts(f_opts, fcnt32),
            f_port=f_port,
            frm_payload=self._seal(payload, f_port, fcnt32),
        )
        session.fcnt_up += 1
        self._last = (frame, fcnt32, conf_fcnt)
        return self._emit(frame, fcnt32, conf_fcnt, now)

    def repeat(self, now: int, channel: UplinkChannel | None = None) -> Emission:
        """The last frame again, on a channel drawn anew unless it is given.

        The counter stays; the MIC of 1.1 is made anew, since it binds the channel (TS001-1.1 §4.4).
        Raises NotActivatedError before the first frame.
        """
        if self._last is None:
            raise NotActivatedError(f"{self.device.name} has sent nothing yet")
        return self._emit(*self._last, now, channel)

    def acknowledge(self, conf_fcnt: int) -> None:
        """A confirmed downlink with this counter (16 bits) was heard: the next new frame carries its ACK."""
        self._activated().conf_fcnt = conf_fcnt & 0xFFFF

    def skip(self, frames: int) -> None:
        """Use counters up without sending."""
        self._activated().fcnt_up += frames

    def change_battery(self, fcnt_up: int = 0) -> None:
        """Forget what an ABP device without flash forgets: its counters."""
        session = self._activated()
        session.fcnt_up, session.conf_fcnt, self._last = fcnt_up, None, None

    def request_join(self, now: int) -> Emission:
        """A join-request under the next DevNonce. Raises NotActivatedError for a device without a root key."""
        device = self.device
        root = device.nwk_key if device.mac_version.is_1_1 else device.app_key
        if root is None:
            raise NotActivatedError(f"{device.name} has no root key")
        counts = device.mac_version in _NONCE_COUNTS
        dev_nonce = self._dev_nonce if counts else self._rng.randrange(0x1_0000)
        self._dev_nonce += 1
        unsigned = JoinRequest(0, device.join_eui or EUI64(0), device.dev_eui, DevNonce(dev_nonce), bytes(MIC_SIZE))
        message = build(unsigned)[:-MIC_SIZE]
        return self._transmit(message + join_mic(PreparedKey(root), message), now, self._draw_channel())

    def _activated(self) -> _Session:
        if self._session is None:
            raise NotActivatedError(f"{self.device.name} has no session")
        return self._session

    def _seal_f_opts(self, f_opts: bytes, fcnt32: FCnt32) -> bytes:
        """1.1 encrypts MAC commands in FOpts; 1.0 sends them plain."""
        session = self._activated()
        if not f_opts or not self.device.mac_version.is_1_1:
            return f_opts
        return session.crypto.f_opts_1_1(f_opts, Direction.UP, session.dev_addr, fcnt32, a_fcnt_down=False)

    def _seal(self, payload: bytes, f_port: int | None, fcnt32: FCnt32) -> bytes:
        session = self._activated()
        sealed = session.crypto.frm_payload(payload, f_port, Direction.UP, session.dev_addr, fcnt32)
        if sealed is None:
            raise NotActivatedError(f"{self.device.name} has no AppSKey")
        return sealed

    def _emit(
        self, frame: DataFrame, fcnt32: FCnt32, conf_fcnt: int, now: int, channel: UplinkChannel | None = None
    ) -> Emission:
        """Sign for the channel that will carry the frame, and send."""
        session = self._activated()
        channel = channel or self._draw_channel()
        if self.device.mac_version.is_1_1:
            context = MicContext(conf_fcnt, self.data_rate, channel.tx_ch)
            mic = session.crypto.mic_up_1_1(frame.message, session.dev_addr, fcnt32, context)
        else:
            mic = session.crypto.mic_1_0(frame.message, Direction.UP, session.dev_addr, fcnt32)
        return self._transmit(build(frame.with_mic(mic)), now, channel)

    def _draw_channel(self) -> UplinkChannel:
        return self._rng.choice(self.plan.usable(self.data_rate))

    def _transmit(self, phy_payload: bytes, now: int, channel: UplinkChannel) -> Emission:
        data_rate = self.plan.region.data_rates[self.data_rate]
        if data_rate is None:
            raise ValueError(f"{self.plan.region.name} has no data rate {self.data_rate}")
        return Emission(
            phy_payload=phy_payload,
            ends_at=now,
            frequency_hz=channel.frequency_hz,
            data_rate=data_rate,
            place=self.place,
            offset_hz=self._offset_hz,
        )
