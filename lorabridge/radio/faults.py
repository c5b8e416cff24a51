"""What can be wrong with something that a gateway sent: a closed list, one counter each."""

from __future__ import annotations

import enum


class DatagramFault(enum.Enum):
    """Why a datagram, or one entry of it, was refused. The value is the name of the counter."""

    TOO_SHORT = "too_short"
    """Ends inside the header or the EUI."""
    TOO_LONG = "too_long"
    """Longer than a UDP datagram can be."""
    BAD_VERSION = "bad_version"
    """The protocol version is neither 1 nor 2."""
    UNKNOWN_TYPE = "unknown_type"
    """The packet type is none of the six."""
    UNEXPECTED_TYPE = "unexpected_type"
    """A packet that only a server sends, received by a server; from a station something else than `version` first."""
    BAD_JSON = "bad_json"
    """The payload is no JSON object: syntax, NaN, invalid UTF-8, lone surrogates, nesting too deep."""
    TOO_MANY_ENTRIES = "too_many_entries"
    """More `rxpk` than one datagram may carry."""
    MISSING_FIELD = "missing_field"
    """A field without which the entry means nothing."""
    BAD_VALUE = "bad_value"
    """A field has the wrong type or lies outside of its range."""
    BAD_BASE64 = "bad_base64"
    """Binary data in neither of the two base64 alphabets."""
    SIZE_MISMATCH = "size_mismatch"
    """`size` is not the length of `data`."""
    BAD_DATA_RATE = "bad_data_rate"
    """`datr` is no data rate, or not one of the modulation in `modu`."""
    BAD_FREQUENCY = "bad_frequency"
    """No concentrator works on this frequency."""


class MalformedDatagram(Exception):  # noqa: N818  # a fact about a peer's bytes, as MalformedFrame is
    """A gateway's bytes that mean nothing. `fault` is one of the closed list."""

    def __init__(self, fault: DatagramFault) -> None:
        super().__init__(fault.value)
        self.fault = fault
