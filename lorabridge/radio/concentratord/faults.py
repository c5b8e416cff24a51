"""What can be wrong with something that Concentratord said: a closed list, one counter each."""

from __future__ import annotations

import enum


class EventFault(enum.Enum):
    """Why a message was refused. The value is the name of the counter."""

    BAD_FRAMES = "bad_frames"
    """Neither one frame, as from version 4.5 on, nor two as before."""
    BAD_PROTOBUF = "bad_protobuf"
    """The bytes are no message of the gateway API."""
    MISSING_FIELD = "missing_field"
    """A field without which the message means nothing."""
    BAD_VALUE = "bad_value"
    """A field lies outside of its range."""
    BAD_DATA_RATE = "bad_data_rate"
    """No modulation that a LoRaWAN concentrator has, or two at once."""


class MalformedEvent(Exception):  # noqa: N818  # a fact about a peer's bytes, as MalformedFrame is
    """Bytes of Concentratord that mean nothing. `fault` is one of the closed list."""

    def __init__(self, fault: EventFault) -> None:
        super().__init__(fault.value)
        self.fault = fault
