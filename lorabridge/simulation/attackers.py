"""What an attacker with a radio can do to a frame, and the noise that nobody meant."""

from __future__ import annotations

from random import Random

import msgspec

from lorabridge.lorawan.air import CrcStatus
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import FOPTS_OFFSET, MIC_SIZE, PHY_PAYLOAD_MAX, MType
from lorabridge.lorawan.types import DevAddr, Direction, FCnt16, FCnt32
from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.simulation.air import Emission, Place
from lorabridge.simulation.plans import Plan


class Flip(msgspec.Struct, frozen=True):
    """One bit of an unconfirmed uplink turned over on the way, and what that makes of the frame."""

    part: str
    at: int
    """Byte offset; negative: from the end."""
    mask: int
    verdict: Verdict = Verdict.BAD_MIC
    reason: Reason | None = None


FLIPS = (
    Flip("MType: rejoin-request", 0, 0x80, Verdict.MALFORMED, Reason.BAD_REJOIN_TYPE),
    Flip("MType: join-request", 0, 0x40, Verdict.MALFORMED, Reason.BAD_JOIN_REQUEST_LENGTH),
    Flip("MType: downlink", 0, 0x20, Verdict.WRONG_DIRECTION),
    Flip("RFU of MHDR", 0, 0x10),
    Flip("RFU of MHDR", 0, 0x04),
    Flip("Major", 0, 0x02, Verdict.MALFORMED, Reason.BAD_MAJOR),
    Flip("Major", 0, 0x01, Verdict.MALFORMED, Reason.BAD_MAJOR),
    Flip("NwkAddr", 1, 0x01, Verdict.UNKNOWN_DEVICE),
    Flip("NwkAddr", 3, 0x80, Verdict.UNKNOWN_DEVICE),
    Flip("NwkID", 4, 0x04, Verdict.FOREIGN),
    Flip("type of the DevAddr", 4, 0x80, Verdict.FOREIGN),
    Flip("ADR", 5, 0x80),
    Flip("ADRACKReq", 5, 0x40),
    Flip("ACK", 5, 0x20),
    Flip("ClassB", 5, 0x10),
    Flip("FOptsLen", 5, 0x01),
    Flip("FCnt", 6, 0x01),
    Flip("FCnt", 7, 0x80),
    Flip("FPort", FOPTS_OFFSET, 0x01),
    Flip("FRMPayload", FOPTS_OFFSET + 1, 0x01),
    Flip("FRMPayload", -MIC_SIZE - 1, 0x80),
    Flip("MIC, cmacS in 1.1", -MIC_SIZE, 0x01),
    Flip("MIC, cmacF in 1.1", -1, 0x80),
)
"""For a frame without FOpts and of no size that a join- or rejoin-request has."""

MALFORMED = {
    Reason.TOO_SHORT: (b"\x40", 11),
    Reason.TOO_LONG: (b"\x40\x11\x22\x33\x02\x00", PHY_PAYLOAD_MAX + 1),
    Reason.BAD_MAJOR: (b"\x43\x11\x22\x33\x02\x80", 24),
    Reason.BAD_JOIN_REQUEST_LENGTH: (b"\x00", 22),
    Reason.BAD_JOIN_ACCEPT_LENGTH: (b"\x20", 18),
    Reason.BAD_REJOIN_TYPE: (b"\xc0\x03", 19),
    Reason.BAD_REJOIN_LENGTH: (b"\xc0\x01", 19),
    Reason.FOPTS_OVERFLOW: (b"\x40\x11\x22\x33\x02\x8f", 20),
    Reason.FPORT0_WITH_FOPTS: (b"\x40\x11\x22\x33\x02\x81\x07\x00\x02\x00", 18),
}
"""How a frame begins that is malformed for one reason, and its size; the rest is random.

Missing are the two reasons that only a caller who knows version or direction can give.
"""


class Attacker:
    """A radio that hears everything, transmits what it likes and has no keys."""

    def __init__(self, plan: Plan, place: Place, rng: Random) -> None:
        self._plan = plan
        self._place = place
        self._rng = rng

    def replay(self, heard: Emission, at: int) -> Emission:
        """The same bytes on the same channel."""
        return msgspec.structs.replace(heard, ends_at=at, place=self._place, offset_hz=self._rng.randrange(-900, 900))

    def replay_elsewhere(self, heard: Emission, at: int) -> Emission:
        """The same bytes on another channel: 1.0 cannot tell, the MIC of 1.1 does."""
        others = [
            channel
            for channel in self._plan.channels
            if channel.frequency_hz != heard.frequency_hz and self._plan.heard_on(channel.frequency_hz, heard.data_rate)
        ]
        return msgspec.structs.replace(self.replay(heard, at), frequency_hz=self._rng.choice(others).frequency_hz)

    def flip(self, heard: Emission, at: int, flip: Flip) -> Emission:
        """A frame with one bit changed."""
        changed = bytearray(heard.phy_payload)
        changed[flip.at] ^= flip.mask
        return msgspec.structs.replace(self.replay(heard, at), phy_payload=bytes(changed))

    def forge(self, dev_addr: DevAddr, fcnt16: int, at: int) -> Emission:
        """A well-formed uplink in somebody's name, its MIC guessed."""
        frame = DataFrame.make(
            m_type=MType.UNCONFIRMED_DATA_UP,
            dev_addr=dev_addr,
            fcnt16=FCnt16(fcnt16 & 0xFFFF),
            flags=0x80,
            f_port=self._rng.randrange(1, 224),
            frm_payload=self._rng.randbytes(self._rng.randrange(4, 12)),
            mic=self._rng.randbytes(MIC_SIZE),
        )
        return self.emit(build(frame), at)

    def malformed(self, reason: Reason, at: int) -> Emission:
        """Bytes that are wrong for one reason."""
        head, size = MALFORMED[reason]
        return self.emit(head + self._rng.randbytes(size - len(head)), at)

    def proprietary(self, at: int) -> Emission:
        """A frame of MType 111."""
        return self.emit(b"\xe0" + self._rng.randbytes(self._rng.randrange(8, 40)), at)

    def sign_wrong(self, request: Emission, at: int) -> Emission:
        """A join-request in a device's name, its MIC guessed."""
        return self.emit(request.phy_payload[:-MIC_SIZE] + self._rng.randbytes(MIC_SIZE), at)

    def emit(self, phy_payload: bytes, at: int) -> Emission:
        """Any bytes, on a channel drawn for the plan's fast data rate."""
        data_rate = self._plan.region.data_rates[self._plan.fast]
        if data_rate is None:
            raise ValueError(f"{self._plan.region.name} has no data rate {self._plan.fast}")
        return Emission(
            phy_payload=phy_payload,
            ends_at=at,
            frequency_hz=self._rng.choice(self._plan.usable(self._plan.fast)).frequency_hz,
            data_rate=data_rate,
            place=self._place,
            offset_hz=self._rng.randrange(-900, 900),
        )


def downlink(device: Device, fcnt_down: int, payload: bytes) -> bytes:
    """A downlink to an ABP device with a valid MIC, as its own network sends it: heard on air it is still no uplink."""
    if device.dev_addr is None or device.session_keys is None:
        raise ValueError(f"{device.name} has no session")
    crypto, fcnt32, down = SessionCrypto(device.session_keys), FCnt32(fcnt_down), Direction.DOWN
    frame = DataFrame.make(
        m_type=MType.UNCONFIRMED_DATA_DOWN,
        dev_addr=device.dev_addr,
        fcnt16=FCnt16(fcnt_down & 0xFFFF),
        f_port=1,
        frm_payload=crypto.frm_payload(payload, 1, down, device.dev_addr, fcnt32) or b"",
    )
    if device.mac_version.is_1_1:
        mic = crypto.mic_down_1_1(frame.message, device.dev_addr, fcnt32, 0)
    else:
        mic = crypto.mic_1_0(frame.message, down, device.dev_addr, fcnt32)
    return build(frame.with_mic(mic))


def noise(plan: Plan, at: int, rng: Random) -> Emission:
    """What a demodulator makes of nothing: random bytes under a header that happened to fit."""
    channel = rng.choice(plan.channels)
    data_rate = plan.region.data_rates[rng.choice(channel.data_rates)]
    if data_rate is None:
        raise ValueError(f"{plan.region.name} has a reserved data rate among its channels")
    return Emission(
        phy_payload=rng.randbytes(rng.randrange(2, 64)),
        ends_at=at,
        frequency_hz=channel.frequency_hz,
        data_rate=data_rate,
        place=Place(0, 0),
        crc=CrcStatus.BAD,
    )


def damage(heard: Emission, rng: Random) -> Emission:
    """A real frame that reached the radio with errors: its CRC says so."""
    changed = bytearray(heard.phy_payload)
    for _ in range(3):
        changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    return msgspec.structs.replace(heard, phy_payload=bytes(changed), crc=CrcStatus.BAD)
