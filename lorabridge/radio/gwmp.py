"""The datagrams of the Semtech UDP protocol (GWMP), versions 1 and 2: what travels between forwarder and server.

Source: sx1302_hal V2.1.0, packet_forwarder/PROTOCOL.md (v1.6) §3 and §5. Every datagram is
`version(1) token(2) type(1)`; those of a gateway continue with its EUI, most significant byte first.
The token is two opaque bytes that the answer repeats. What follows is JSON: see `rxpk` and `txpk`.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Final

import msgspec

from lorabridge.lorawan.air import GatewayStatus, Reception, Transmission, TxResult
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.faults import DatagramFault, MalformedDatagram
from lorabridge.radio.rxpk import build_push_payload
from lorabridge.radio.txpk import build_tx_ack_payload, build_txpk_payload

VERSIONS = frozenset({1, 2})
MAX_DATAGRAM: Final = 65_507
"""What UDP can carry over IPv4."""
_HEADER: Final = 4
_HEADER_AND_EUI: Final = 12


class PacketType(enum.Enum):
    """The identifiers of §3 and §5."""

    PUSH_DATA = 0x00
    PUSH_ACK = 0x01
    PULL_DATA = 0x02
    PULL_RESP = 0x03
    PULL_ACK = 0x04
    TX_ACK = 0x05


_BY_ID = MappingProxyType({kind.value: kind for kind in PacketType})
_WITH_EUI = frozenset({PacketType.PUSH_DATA, PacketType.PULL_DATA, PacketType.TX_ACK})
_WITH_PAYLOAD = frozenset({PacketType.PUSH_DATA, PacketType.PULL_RESP, PacketType.TX_ACK})


class Datagram(msgspec.Struct, frozen=True, kw_only=True):
    """One datagram, its JSON still unread: whoever must answer at once can."""

    version: int = 2
    token: bytes
    type: PacketType
    gateway_eui: EUI64 | None = None
    """None in what a server sends."""
    payload: bytes = b""
    """JSON; empty for the types that carry none, whatever a peer may have appended."""


def parse_datagram(data: bytes) -> Datagram:
    """Take a datagram apart. Raises MalformedDatagram, and nothing else."""
    size = len(data)
    if size < _HEADER:
        raise MalformedDatagram(DatagramFault.TOO_SHORT)
    if size > MAX_DATAGRAM:
        raise MalformedDatagram(DatagramFault.TOO_LONG)
    if data[0] not in VERSIONS:
        raise MalformedDatagram(DatagramFault.BAD_VERSION)
    kind = _BY_ID.get(data[3])
    if kind is None:
        raise MalformedDatagram(DatagramFault.UNKNOWN_TYPE)
    start = _HEADER
    eui = None
    if kind in _WITH_EUI:
        start = _HEADER_AND_EUI
        if size < start:
            raise MalformedDatagram(DatagramFault.TOO_SHORT)
        eui = EUI64(int.from_bytes(data[_HEADER:_HEADER_AND_EUI], "big"))
    payload = data[start:] if kind in _WITH_PAYLOAD else b""
    return Datagram(version=data[0], token=data[1:3], type=kind, gateway_eui=eui, payload=payload)


def build_datagram(datagram: Datagram) -> bytes:
    """The bytes of a datagram. Raises ValueError for one that does not exist in the protocol."""
    has_eui = datagram.gateway_eui is not None
    if datagram.version not in VERSIONS or len(datagram.token) != 2 or has_eui != (datagram.type in _WITH_EUI):
        raise ValueError(f"there is no such {datagram.type.name}")
    eui = b"" if datagram.gateway_eui is None else int(datagram.gateway_eui).to_bytes(8, "big")
    return bytes((datagram.version, *datagram.token, datagram.type.value)) + eui + datagram.payload


def build_push_data(
    token: bytes, gateway_eui: EUI64, heard: list[Reception | GatewayStatus], *, version: int = 2
) -> bytes:
    """What a gateway tells: at most 255 frames and one status report. Raises ValueError for more."""
    payload = build_push_payload(heard)
    kind = PacketType.PUSH_DATA
    return build_datagram(Datagram(version=version, token=token, type=kind, gateway_eui=gateway_eui, payload=payload))


def build_push_ack(token: bytes, *, version: int = 2) -> bytes:
    """The server's answer to PUSH_DATA."""
    return bytes((version, *token, PacketType.PUSH_ACK.value))


def build_pull_data(token: bytes, gateway_eui: EUI64, *, version: int = 2) -> bytes:
    """A gateway opens, and keeps open, the way to itself."""
    return build_datagram(Datagram(version=version, token=token, type=PacketType.PULL_DATA, gateway_eui=gateway_eui))


def build_pull_ack(token: bytes, *, version: int = 2) -> bytes:
    """The server's answer to PULL_DATA."""
    return bytes((version, *token, PacketType.PULL_ACK.value))


def build_pull_resp(token: bytes, transmission: Transmission, *, version: int = 2) -> bytes:
    """A frame for the gateway to send. Raises ValueError for what the protocol cannot say."""
    payload = build_txpk_payload(transmission)
    return build_datagram(Datagram(version=version, token=token, type=PacketType.PULL_RESP, payload=payload))


def build_tx_ack(token: bytes, gateway_eui: EUI64, result: TxResult, *, version: int = 2) -> bytes:
    """The gateway's answer to PULL_RESP."""
    payload = build_tx_ack_payload(result)
    kind = PacketType.TX_ACK
    return build_datagram(Datagram(version=version, token=token, type=kind, gateway_eui=gateway_eui, payload=payload))
