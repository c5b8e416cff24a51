"""Names for the numbers of LoRaWAN. Byte order is decided here and nowhere else.

On the air every address travels least significant byte first (TS001-1.0.4 §1.3); people, files and
AWS write them most significant byte first. A value of this module is an integer; `from_wire`/`to_wire`
speak air order, `parse`/`str()` speak the written form.
"""

from __future__ import annotations

import enum
import hmac
from typing import ClassVar, NewType, NoReturn, Self

FCnt16 = NewType("FCnt16", int)
"""The low half of a frame counter, as it travels in FHDR (§4.3.1.5)."""
FCnt32 = NewType("FCnt32", int)
"""A whole frame counter, as it enters the MIC and the keystream (§4.3.1.5)."""

FCNT32_MAX = 0xFFFF_FFFF


class _WireInt(int):
    """An unsigned integer of `size` bytes that travels little endian and is written big endian in hex."""

    size: ClassVar[int]

    @classmethod
    def from_wire(cls, data: bytes) -> Self:
        """Read `size` bytes in air order. Raises ValueError for any other length."""
        if len(data) != cls.size:
            raise ValueError(f"{cls.__name__} is {cls.size} bytes, not {len(data)}")
        return cls(int.from_bytes(data, "little"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the written form: hex digits, most significant first; `-`, `:` and blanks between them are allowed.

        Raises ValueError with a sentence for the operator.
        """
        digits = text.replace("-", "").replace(":", "").replace(" ", "")
        if len(digits) != 2 * cls.size:
            raise ValueError(f"{cls.__name__} is {2 * cls.size} hex digits, this has {len(digits)}")
        try:
            # `fromhex` passes over tabs and line ends, which would make a shorter number of the same text.
            return cls.from_wire(bytes.fromhex(digits)[::-1])
        except ValueError:
            raise ValueError(f"{cls.__name__} is {2 * cls.size} hex digits, this has other characters") from None

    def to_wire(self) -> bytes:
        """The `size` bytes in air order."""
        return self.to_bytes(self.size, "little")

    def __str__(self) -> str:
        return self.to_bytes(self.size, "big").hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class EUI64(_WireInt):
    """DevEUI, JoinEUI or gateway EUI (§6.1.1)."""

    size = 8


class NetID(_WireInt):
    """Network identifier, 24 bits; its top three bits are the type (TS002-1.1.0 §6.1)."""

    size = 3

    @property
    def type(self) -> int:
        """NetID type, 0 to 7."""
        return int(self) >> 21

    @property
    def nwk_id(self) -> int:
        """The part of the NetID that every DevAddr of the network carries."""
        return int(self) & ((1 << _NWK_ID_BITS[self.type]) - 1)

    @property
    def address_range(self) -> tuple[int, int]:
        """Every DevAddr of the network, as (address, bits)."""
        bits = self.type + 1 + _NWK_ID_BITS[self.type]
        ones = (1 << self.type) - 1
        return (ones << 1 << _NWK_ID_BITS[self.type] | self.nwk_id) << (32 - bits), bits


_NWK_ID_BITS = (6, 6, 9, 11, 12, 13, 15, 17)
"""Bits of NwkID in a DevAddr by NetID type (TS002-1.1.0 §6.1.1, table 3)."""


class DevAddr(_WireInt):
    """Device address, 32 bits: a type prefix, the NwkID and the NwkAddr (TS002-1.1.0 §6.1.1)."""

    size = 4

    @property
    def net_id_type(self) -> int | None:
        """NetID type by the count of leading ones, None for the reserved prefix of eight ones."""
        ones = 0
        while ones < 8 and int(self) >> (31 - ones) & 1:
            ones += 1
        return None if ones == 8 else ones

    @property
    def nwk_id(self) -> int | None:
        """NwkID, None for the reserved prefix."""
        kind = self.net_id_type
        if kind is None:
            return None
        bits = _NWK_ID_BITS[kind]
        return int(self) >> (31 - kind - bits) & ((1 << bits) - 1)

    @property
    def network_prefix(self) -> tuple[int, int]:
        """The address range of the network it belongs to, as (address, bits); the reserved prefix is its own."""
        kind = self.net_id_type
        bits = 8 if kind is None else kind + 1 + _NWK_ID_BITS[kind]
        return int(self) >> (32 - bits) << (32 - bits), bits

    def belongs_to(self, net_id: NetID) -> bool:
        """Whether this address carries the prefix of `net_id`."""
        return self.net_id_type == net_id.type and self.nwk_id == net_id.nwk_id


class DevNonce(_WireInt):
    """Device nonce of a join-request, or RJcount of a rejoin-request (§6.2.5, TS001-1.1 §6.2.4)."""

    size = 2


class JoinNonce(_WireInt):
    """Join server nonce of a join-accept (§6.2.6)."""

    size = 3


class AES128Key:
    """Sixteen secret bytes that do not print, do not pickle and compare in constant time."""

    __slots__ = ("_secret",)
    size: ClassVar[int] = 16

    def __init__(self, secret: bytes) -> None:
        if len(secret) != self.size:
            raise ValueError(f"an AES-128 key is {self.size} bytes, not {len(secret)}")
        self._secret = bytes(secret)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 32 hex digits. Raises ValueError with a sentence that does not repeat them."""
        digits = text.replace("-", "").replace(":", "").replace(" ", "")
        if len(digits) != 2 * cls.size:
            raise ValueError(f"an AES-128 key is 32 hex digits, this has {len(digits)}")
        try:
            return cls(bytes.fromhex(digits))
        except ValueError:
            raise ValueError("an AES-128 key is 32 hex digits, this has other characters") from None

    def reveal(self) -> bytes:
        """The secret itself: for ciphers, and for nothing that ends in text."""
        return self._secret

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AES128Key):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self._secret)

    def __repr__(self) -> str:
        return "AES128Key(redacted)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AES128Key does not leave the process by accident: reveal() it on purpose")


class Direction(enum.IntEnum):
    """Which way a frame travels; the value is Dir of the blocks A_i and B_0 (§4.3.3)."""

    UP = 0
    DOWN = 1


class DeviceClass(enum.Enum):
    """When a device listens (TS001-1.0.4 §2)."""

    A = "A"
    """After its own uplinks only."""
    C = "C"
    """Always."""


class MacVersion(enum.Enum):
    """LoRaWAN link layer version of a device, as device profiles write it."""

    V1_0_0 = "1.0.0"
    V1_0_1 = "1.0.1"
    V1_0_2 = "1.0.2"
    V1_0_3 = "1.0.3"
    V1_0_4 = "1.0.4"
    V1_1_0 = "1.1.0"

    is_1_1: bool
    """Whether the device has the key hierarchy of 1.1 (four session keys, two root keys)."""

    def __init__(self, text: str) -> None:
        self.is_1_1 = text == "1.1.0"
