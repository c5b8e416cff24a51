"""Attacks on a living fleet: each from frames that were on the air, each with the verdicts that it deserves."""

from __future__ import annotations

import enum
from random import Random

import msgspec

from lorabridge.lorawan.frame import DataFrame, JoinRequest, build, parse
from lorabridge.lorawan.grammar import MIC_SIZE, MType
from lorabridge.lorawan.types import EUI64, DevAddr, DevNonce, FCnt16
from lorabridge.lorawan.verdict import Verdict
from lorabridge.simulation.air import Emission, Place

_ACK = 0x20
_F_CTRL = 5
_FLIPPED = (6, 7, *range(-MIC_SIZE - 4, 0))
"""FCnt, the last bytes of the payload, MIC."""
_JUMP = 9_000
_STRANGERS = 0x02_5E_C0 << 40

_FORGED = frozenset({Verdict.BAD_MIC, Verdict.UNKNOWN_DEVICE})


class Attack(enum.Enum):
    """What is done; the value is its name in tables."""

    UPLINK_REPLAY = "uplink replay"
    """A frame that was accepted, after newer ones."""
    BIT_FLIP = "bit flip"
    COUNTER_JUMP = "counter jump"
    """A well-formed frame far ahead, its MIC guessed."""
    ACK_SPOOF = "ack spoofing"
    """A recorded frame with its ACK flag set: it would stop the retransmission of a confirmed downlink."""
    DELAYED = "jam and replay"
    """A frame that was suppressed on the air, and is played after newer ones."""
    JOIN_REPLAY = "join replay"
    JOIN_FLOOD = "join flood"
    """Join-requests in the name of a device, the MIC guessed."""
    STRANGER_FLOOD = "join flood, strangers"
    """Join-requests of devices that nobody knows."""

    @property
    def deserves(self) -> frozenset[Verdict]:
        """The verdicts that are right."""
        return _DESERVED[self]

    @property
    def waits_for_newer(self) -> bool:
        """Whether it is played only when the network has proved to have a newer frame of the device."""
        return self in (Attack.UPLINK_REPLAY, Attack.DELAYED)


_DESERVED = {
    Attack.UPLINK_REPLAY: frozenset({Verdict.REPLAY}),
    Attack.BIT_FLIP: _FORGED,
    Attack.COUNTER_JUMP: _FORGED,
    Attack.ACK_SPOOF: _FORGED,
    # Never heard before, among the first counters of a count it cannot be told from a device that counts again.
    Attack.DELAYED: frozenset({Verdict.REPLAY, Verdict.COUNTER_RESET}),
    Attack.JOIN_REPLAY: frozenset({Verdict.JOIN_REPLAY}),
    Attack.JOIN_FLOOD: frozenset({Verdict.BAD_MIC}),
    Attack.STRANGER_FLOOD: frozenset({Verdict.UNKNOWN_DEVICE}),
}


class LiveAttacker:
    """A radio that hears everything, transmits what it likes and has no keys."""

    def __init__(self, place: Place, rng: Random) -> None:
        self._place = place
        self._rng = rng

    def play(self, heard: Emission, at: int) -> Emission:
        """The same bytes on the same channel."""
        return msgspec.structs.replace(heard, ends_at=at, place=self._place)

    def flip(self, heard: Emission, at: int) -> Emission:
        """One bit of counter, payload or MIC changed: the form stays right."""
        changed = bytearray(heard.phy_payload)
        changed[self._rng.choice(_FLIPPED)] ^= 1 << self._rng.randrange(8)
        return self._altered(heard, at, bytes(changed))

    def spoof_ack(self, heard: Emission, at: int) -> Emission:
        """The ACK flag turned over."""
        changed = bytearray(heard.phy_payload)
        changed[_F_CTRL] ^= _ACK
        return self._altered(heard, at, bytes(changed))

    def jump(self, heard: Emission, at: int) -> Emission:
        """A forged frame in the same name, thousands of counters ahead."""
        frame = parse(heard.phy_payload)
        if not isinstance(frame, DataFrame):
            raise TypeError("only a data frame has a counter to jump from")
        forged = DataFrame.make(
            m_type=MType.CONFIRMED_DATA_UP,
            dev_addr=DevAddr(frame.dev_addr),
            fcnt16=FCnt16((frame.fcnt16 + _JUMP) & 0xFFFF),
            flags=_ACK,
            f_port=1,
            frm_payload=self._rng.randbytes(8),
            mic=self._rng.randbytes(MIC_SIZE),
        )
        return self._altered(heard, at, build(forged))

    def sign_wrong(self, request: Emission, at: int) -> Emission:
        """A join-request in a device's name: a new DevNonce, the MIC guessed."""
        frame = parse(request.phy_payload)
        if not isinstance(frame, JoinRequest):
            raise TypeError("only a join-request can be signed wrong")
        nonce = DevNonce(self._rng.randrange(0x1_0000))
        forged = msgspec.structs.replace(frame, dev_nonce=nonce, mic=self._rng.randbytes(MIC_SIZE))
        return self._altered(request, at, build(forged))

    def stranger(self, like: Emission, at: int) -> Emission:
        """A join-request of a device that does not exist."""
        request = JoinRequest(
            mhdr=0,
            join_eui=EUI64(_STRANGERS),
            dev_eui=EUI64(_STRANGERS | self._rng.randrange(1 << 40)),
            dev_nonce=DevNonce(self._rng.randrange(0x1_0000)),
            mic=self._rng.randbytes(MIC_SIZE),
        )
        return self._altered(like, at, build(request))

    def _altered(self, heard: Emission, at: int, phy_payload: bytes) -> Emission:
        return msgspec.structs.replace(self.play(heard, at), phy_payload=phy_payload)
