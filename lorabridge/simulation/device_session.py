"""The session of an end-device: its counters, and what it accepts of the network (TS001-1.0.4 §4, TS001-1.1 §4)."""

from __future__ import annotations

import enum

import msgspec

from lorabridge.lorawan.crypto import MicContext, SessionCrypto, mic_equal
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.frame import DataFrame
from lorabridge.lorawan.types import DevAddr, Direction, FCnt32


class Flaw(enum.Enum):
    """Why a device does not take a downlink that was for it."""

    BAD_MIC = "bad_mic"
    REPEATED_COUNTER = "repeated_counter"
    """The MIC is valid under a counter that was accepted before: the network must never do that."""
    OVERTAKEN_COUNTER = "overtaken_counter"
    """The MIC is valid under a new counter, but a higher one was heard first: the frame is lost to the device."""
    TOO_LONG = "too_long"
    NO_JOIN_PENDING = "no_join_pending"
    JOIN_NONCE = "join_nonce"
    """The JoinNonce of a join-accept did not grow."""
    BAD_JOIN_ACCEPT = "bad_join_accept"


class Downlink(msgspec.Struct, frozen=True, kw_only=True):
    """A data frame that the device has accepted."""

    fcnt32: FCnt32
    a_fcnt_down: bool
    """The counter is AFCntDown (1.1, FPort above 0)."""
    f_port: int | None
    payload: bytes
    """Plaintext; commands for FPort 0."""
    commands: bytes
    confirmed: bool
    ack: bool
    f_pending: bool


class DeviceSession:
    """Keys, address and counters of one activation."""

    def __init__(self, dev_addr: DevAddr, keys: SessionKeys, *, is_1_1: bool) -> None:
        """`is_1_1`: 1.1 was negotiated, so counters are split and FOpts are encrypted."""
        self.dev_addr = dev_addr
        self.keys = keys
        self.crypto = SessionCrypto(keys)
        self.is_1_1 = is_1_1
        self.fcnt_up = 0
        """The counter of the next new frame."""
        self.rj_count0 = 0
        self.confirmed_down: int | None = None
        """FCnt of a confirmed downlink that waits for its acknowledgement."""
        self.confirmed_up: FCnt32 | None = None
        """Counter of a confirmed uplink that waits for its acknowledgement."""
        self._last_down: dict[bool, FCnt32] = {}
        self._accepted: set[tuple[bool, FCnt32]] = set()

    def mic_up(self, frame: DataFrame, fcnt32: FCnt32, context: MicContext) -> bytes:
        """The MIC of an uplink."""
        if self.is_1_1:
            return self.crypto.mic_up_1_1(frame.message, self.dev_addr, fcnt32, context)
        return self.crypto.mic_1_0(frame.message, Direction.UP, self.dev_addr, fcnt32)

    def seal_f_opts(self, commands: bytes, fcnt32: FCnt32) -> bytes:
        """1.1 encrypts MAC commands in FOpts; 1.0 sends them plain."""
        if not self.is_1_1 or not commands:
            return commands
        return self.crypto.f_opts_1_1(commands, Direction.UP, self.dev_addr, fcnt32, a_fcnt_down=False)

    def identify(self, frame: DataFrame) -> tuple[bool, FCnt32] | None:
        """(counter is AFCntDown, counter) of a downlink of this session, used or new; None when no MIC is valid."""
        a_fcnt_down = self._counts_as_application(frame)
        last = self._last_down.get(a_fcnt_down)
        here = (0 if last is None else last & ~0xFFFF) | frame.fcnt16
        for fcnt32 in (here, here + 0x1_0000, here - 0x1_0000):
            if 0 <= fcnt32 <= 0xFFFF_FFFF and self._verifies(frame, FCnt32(fcnt32)):
                return a_fcnt_down, FCnt32(fcnt32)
        return None

    def take(self, frame: DataFrame) -> Downlink | Flaw:
        """Accept a downlink with our address, or say why not; a counter once accepted is never accepted again."""
        found = self.identify(frame)
        if found is None:
            return Flaw.BAD_MIC
        a_fcnt_down, fcnt32 = found
        last = self._last_down.get(a_fcnt_down)
        if last is not None and fcnt32 <= last:
            return Flaw.REPEATED_COUNTER if found in self._accepted else Flaw.OVERTAKEN_COUNTER
        self._accepted.add(found)
        self._last_down[a_fcnt_down] = fcnt32
        flags = frame.flags
        if frame.confirmed:
            self.confirmed_down = fcnt32 & 0xFFFF
        if flags.ack:
            self.confirmed_up = None
        plain = self.crypto.frm_payload(frame.frm_payload, frame.f_port, Direction.DOWN, self.dev_addr, fcnt32) or b""
        return Downlink(
            fcnt32=fcnt32,
            a_fcnt_down=a_fcnt_down,
            f_port=frame.f_port,
            payload=plain,
            commands=plain if frame.f_port == 0 else self._open_f_opts(frame.f_opts, fcnt32, a_fcnt_down),
            confirmed=frame.confirmed,
            ack=flags.ack,
            f_pending=flags.f_pending,
        )

    def _counts_as_application(self, frame: DataFrame) -> bool:
        """1.1 counts frames with an application's FPort by AFCntDown, all others by NFCntDown (§4.3.1.5)."""
        return self.is_1_1 and bool(frame.f_port)

    def _verifies(self, frame: DataFrame, fcnt32: FCnt32) -> bool:
        if not self.is_1_1:
            expected = self.crypto.mic_1_0(frame.message, Direction.DOWN, self.dev_addr, fcnt32)
            return mic_equal(expected, frame.mic)
        # "If the ACK bit is set, ConfFCnt is the frame counter of the confirmed uplink" (TS001-1.1 §4.4.1).
        acknowledged = self.fcnt_up - 1 if self.confirmed_up is None else self.confirmed_up
        conf_fcnt = acknowledged & 0xFFFF if frame.flags.ack else 0
        return mic_equal(self.crypto.mic_down_1_1(frame.message, self.dev_addr, fcnt32, conf_fcnt), frame.mic)

    def _open_f_opts(self, f_opts: bytes, fcnt32: FCnt32, a_fcnt_down: bool) -> bytes:
        if not self.is_1_1 or not f_opts:
            return f_opts
        return self.crypto.f_opts_1_1(f_opts, Direction.DOWN, self.dev_addr, fcnt32, a_fcnt_down=a_fcnt_down)
