"""The grammar of every PHYPayload, LoRaWAN 1.0.0 to 1.0.4 and 1.1. It never sees a key.

    PHYPayload = MHDR | MACPayload | MIC                    TS001-1.0.4 §4, TS001-1.1 §4
    MHDR       = MType (3 bits) | RFU (3) | Major (2)       §4.2

    data        MHDR 1 | DevAddr 4 | FCtrl 1 | FCnt 2 | FOpts 0..15 | [FPort 1 | FRMPayload 0..] | MIC 4
    join-req    MHDR 1 | JoinEUI 8 | DevEUI 8 | DevNonce 2 | MIC 4
    join-acc    MHDR 1 | encrypted 16 or 32 (its MIC inside)
    rejoin 0/2  MHDR 1 | type 1 | NetID 3 | DevEUI 8 | RJcount0 2 | MIC 4
    rejoin 1    MHDR 1 | type 1 | JoinEUI 8 | DevEUI 8 | RJcount1 2 | MIC 4

The declarations are flat and compiled: plain integers in, flag bits taken apart afterwards. Compiled
`Bytes(n)` does not notice a short read, so `check` measures every length first, and is the only place
that does; past it, no accessor can fail. RFU bits are kept, so that `build(parse(b)) == b`.
"""

from __future__ import annotations

import enum
from typing import Any

from construct import Bytes, GreedyBytes, Int8ul, Int16ul, Int24ul, Int32ul, Int64ul, Struct, this

from lorabridge.lorawan.types import Direction
from lorabridge.lorawan.verdict import Reason

MIC_SIZE = 4
PHY_PAYLOAD_MIN = 5
"""MHDR and MIC."""
PHY_PAYLOAD_MAX = 255
"""The length field of the LoRa PHY header has eight bits."""
DATA_FRAME_MIN = 12
JOIN_REQUEST_SIZE = 23
JOIN_ACCEPT_SIZES = (17, 33)
REJOIN_SIZES = {0: 19, 1: 24, 2: 19}
FOPTS_OFFSET = 8
FOPTS_LEN_MASK = 0x0F
LORAWAN_R1 = 0


class MType(enum.IntEnum):
    """Message type (§4.2.1)."""

    JOIN_REQUEST = 0
    JOIN_ACCEPT = 1
    UNCONFIRMED_DATA_UP = 2
    UNCONFIRMED_DATA_DOWN = 3
    CONFIRMED_DATA_UP = 4
    CONFIRMED_DATA_DOWN = 5
    REJOIN_REQUEST = 6
    PROPRIETARY = 7

    @property
    def direction(self) -> Direction | None:
        """Which way the type travels; None: either."""
        return _DIRECTION[self]


_DIRECTION = {
    MType.JOIN_REQUEST: Direction.UP,
    MType.JOIN_ACCEPT: Direction.DOWN,
    MType.UNCONFIRMED_DATA_UP: Direction.UP,
    MType.UNCONFIRMED_DATA_DOWN: Direction.DOWN,
    MType.CONFIRMED_DATA_UP: Direction.UP,
    MType.CONFIRMED_DATA_DOWN: Direction.DOWN,
    MType.REJOIN_REQUEST: Direction.UP,
    MType.PROPRIETARY: None,
}


class MalformedFrame(Exception):  # noqa: N818  # a fact about a peer's bytes, named as the field names it
    """The bytes are no LoRaWAN frame. `reason` is one of the closed list."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_FHDR = (
    "mhdr" / Int8ul,
    "dev_addr" / Int32ul,
    "f_ctrl" / Int8ul,
    "fcnt" / Int16ul,
    "f_opts" / Bytes(this.f_ctrl & FOPTS_LEN_MASK),
)
DATA_WITHOUT_PORT: Any = Struct(*_FHDR)
DATA_WITH_PORT: Any = Struct(*_FHDR, "f_port" / Int8ul, "frm_payload" / GreedyBytes)
JOIN_REQUEST: Any = Struct(
    "mhdr" / Int8ul, "join_eui" / Int64ul, "dev_eui" / Int64ul, "dev_nonce" / Int16ul, "mic" / Bytes(MIC_SIZE)
)
JOIN_ACCEPT: Any = Struct("mhdr" / Int8ul, "encrypted" / GreedyBytes)
JOIN_ACCEPT_BODY: Any = Struct(
    "join_nonce" / Int24ul,
    "net_id" / Int24ul,
    "dev_addr" / Int32ul,
    "dl_settings" / Int8ul,
    "rx_delay" / Int8ul,
    "cf_list" / GreedyBytes,
)
REJOIN_BY_NET_ID: Any = Struct(
    "mhdr" / Int8ul,
    "rejoin_type" / Int8ul,
    "net_id" / Int24ul,
    "dev_eui" / Int64ul,
    "rj_count" / Int16ul,
    "mic" / Bytes(MIC_SIZE),
)
REJOIN_BY_JOIN_EUI: Any = Struct(
    "mhdr" / Int8ul,
    "rejoin_type" / Int8ul,
    "join_eui" / Int64ul,
    "dev_eui" / Int64ul,
    "rj_count" / Int16ul,
    "mic" / Bytes(MIC_SIZE),
)
PROPRIETARY: Any = Struct("mhdr" / Int8ul, "payload" / GreedyBytes)

GRAMMAR = {
    "data without FPort": DATA_WITHOUT_PORT,
    "data": DATA_WITH_PORT,
    "join-request": JOIN_REQUEST,
    "join-accept": JOIN_ACCEPT,
    "join-accept, decrypted": JOIN_ACCEPT_BODY,
    "rejoin-request 0 and 2": REJOIN_BY_NET_ID,
    "rejoin-request 1": REJOIN_BY_JOIN_EUI,
    "proprietary": PROPRIETARY,
}


DATA_TYPES = frozenset(
    {
        MType.UNCONFIRMED_DATA_UP,
        MType.UNCONFIRMED_DATA_DOWN,
        MType.CONFIRMED_DATA_UP,
        MType.CONFIRMED_DATA_DOWN,
    }
)


def check(phy: bytes, direction: Direction | None, rejoin_exists: bool) -> int:
    """Every bound of every message, once; the order of the questions is the order of `Reason`. Returns MType."""
    size = len(phy)
    if size < PHY_PAYLOAD_MIN:
        raise MalformedFrame(Reason.TOO_SHORT, f"{size} bytes; MHDR and MIC alone are {PHY_PAYLOAD_MIN}")
    if size > PHY_PAYLOAD_MAX:
        raise MalformedFrame(Reason.TOO_LONG, f"{size} bytes; a PHYPayload has at most {PHY_PAYLOAD_MAX}")
    mhdr = phy[0]
    m_type = mhdr >> 5
    if mhdr & 0x03 != LORAWAN_R1:
        raise MalformedFrame(Reason.BAD_MAJOR, f"Major is {mhdr & 0x03}, LoRaWAN R1 is {LORAWAN_R1}")
    if not rejoin_exists and m_type == MType.REJOIN_REQUEST:
        raise MalformedFrame(Reason.RFU_MTYPE, "MType 110 is reserved in LoRaWAN 1.0")
    if direction is not None and _DIRECTION[MType(m_type)] not in (direction, None):
        raise MalformedFrame(
            Reason.WRONG_DIRECTION, f"{MType(m_type).name.lower()} does not travel {direction.name.lower()}"
        )
    if m_type in DATA_TYPES:
        _check_data(phy, size)
    elif m_type != MType.PROPRIETARY:
        _check_join(phy, size, m_type)
    return m_type


def _check_data(phy: bytes, size: int) -> None:
    """Lengths of a data frame (§4.3)."""
    if size < DATA_FRAME_MIN:
        raise MalformedFrame(Reason.TOO_SHORT, f"{size} bytes; a data frame has at least {DATA_FRAME_MIN}")
    f_opts_len = phy[5] & FOPTS_LEN_MASK
    f_port_at = FOPTS_OFFSET + f_opts_len
    if f_port_at + MIC_SIZE > size:
        raise MalformedFrame(
            Reason.FOPTS_OVERFLOW, f"FOptsLen is {f_opts_len}, {size - DATA_FRAME_MIN} bytes are there"
        )
    if f_opts_len and f_port_at + MIC_SIZE < size and phy[f_port_at] == 0:
        raise MalformedFrame(Reason.FPORT0_WITH_FOPTS, "FPort 0 and FOpts in one frame")


def _check_join(phy: bytes, size: int, m_type: int) -> None:
    """Lengths of join-request, join-accept and rejoin-request (§6.2)."""
    if m_type == MType.JOIN_REQUEST:
        if size != JOIN_REQUEST_SIZE:
            raise MalformedFrame(
                Reason.BAD_JOIN_REQUEST_LENGTH, f"{size} bytes; a join-request has {JOIN_REQUEST_SIZE}"
            )
    elif m_type == MType.JOIN_ACCEPT:
        if size not in JOIN_ACCEPT_SIZES:
            raise MalformedFrame(Reason.BAD_JOIN_ACCEPT_LENGTH, f"{size} bytes; a join-accept has 17 or 33")
    elif phy[1] not in REJOIN_SIZES:
        raise MalformedFrame(Reason.BAD_REJOIN_TYPE, f"rejoin type {phy[1]}; there are 0, 1 and 2")
    elif size != REJOIN_SIZES[phy[1]]:
        raise MalformedFrame(
            Reason.BAD_REJOIN_LENGTH, f"{size} bytes; a rejoin-request {phy[1]} has {REJOIN_SIZES[phy[1]]}"
        )
