"""What the cloud wants sent: a downlink command, and its place in the queue of its device."""

from __future__ import annotations

import enum

import msgspec

from lorabridge.lorawan.documented import Documented
from lorabridge.lorawan.types import EUI64, DeviceClass, FCnt32


class Priority(enum.IntEnum):
    """Which of several waiting commands goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class DownlinkCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One application downlink as it was ordered. `id` names it for its sender: the same id is taken once."""

    id: str
    """1 to 64 printable characters."""
    target: EUI64 | str
    """DevEUI, or the name of a multicast group."""
    f_port: int
    """1 to 223."""
    payload: bytes
    """Plaintext; ciphertext when `fcnt_down` is given."""
    fcnt_down: FCnt32 | None = None
    """The payload was sealed under AppSKey for exactly this counter (FCntDown, AFCntDown in 1.1)."""
    confirmed: bool = False
    device_class: DeviceClass | None = None
    """A: only in the windows after an uplink. C: at once, whatever we know of the device. None: as it listens."""
    priority: Priority = Priority.NORMAL
    expires_at: int | None = None
    """Nanoseconds since the Unix epoch; None: never."""
    correlation_id: str | None = None
    """The sender's own words, given back with every result."""
    received_at: int = 0
    """Nanoseconds since the Unix epoch."""

    @property
    def is_sealed(self) -> bool:
        """Whether the payload is ciphertext."""
        return self.fcnt_down is not None


class QueuedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command in the queue of its device, and how far it has got."""

    queue_id: int
    """Ascending in the order of arrival; never used twice."""
    command: DownlinkCommand
    attempts: int = 0
    """Transmissions that were begun."""
    sent_fcnt: FCnt32 | None = None
    """A confirmed command that was sent under this counter and waits for its acknowledgement."""


class CommandState(Documented):
    """What became of a command; every value but `queued`, `refused_by_radio` and `sent` of a confirmed one is final."""

    QUEUED = (
        "queued",
        "It is stored on the gateway and waits for its turn: from here on nobody has to send it again.",
    )
    SENT = (
        "sent",
        "The radio took it. Final for an unconfirmed one; a confirmed one waits for the device's answer.",
    )
    REFUSED_BY_RADIO = (
        "refused_by_radio",
        "It could not be transmitted this time, the reason says why; it stays in the queue.",
    )
    ACKNOWLEDGED = (
        "acknowledged",
        "The device has acknowledged the confirmed one. Final.",
    )
    NOT_ACKNOWLEDGED = (
        "not_acknowledged",
        "A confirmed one, sent as often as allowed, and the device answered without an acknowledgement. Final.",
    )
    EXPIRED = (
        "expired",
        "Its time was over before it could be sent, or acknowledged. Final.",
    )
    REJECTED = (
        "rejected",
        "It is not, or no longer, in the queue and will never be sent; the reason says why. Final.",
    )


class CommandReason(Documented):
    """Why a command was rejected, or refused by the radio (there the gateway's own word stands in `detail`)."""

    UNKNOWN_DEVICE = (
        "unknown_device",
        "The topic names no device and no multicast group of this gateway.",
    )
    NO_REGION = (
        "no_region",
        "No region is configured for the device, so that nobody knows when and where it listens.",
    )
    NO_APP_S_KEY = (
        "no_app_s_key",
        "`payload` cannot be encrypted: the gateway holds no AppSKey of the device. Send `sealed_payload`.",
    )
    COUNTER_USED = (
        "counter_used",
        "Sealed for a counter that was used in the meantime: seal it again for `next_fcnt_down`.",
    )
    TOO_LONG = (
        "too_long",
        "Longer than any data rate that can reach the device allows.",
    )
    QUEUE_FULL = (
        "queue_full",
        "As many commands as may wait are waiting.",
    )
    DUPLICATE_ID = (
        "duplicate_id",
        "A command with this id was taken for the same target before, and has had its end.",
    )
    BAD_COMMAND = (
        "bad_command",
        "The JSON is no command; `detail` says what is wrong with it.",
    )
    COUNTER_EXHAUSTED = (
        "counter_exhausted",
        "The downlink counter of the session is at its end: the device must join again.",
    )
    NO_GATEWAY = (
        "no_gateway",
        "No gateway is there that could send.",
    )
    DUTY_CYCLE = (
        "duty_cycle",
        "The time on air that the sub-band allows is used up.",
    )
    DWELL_TIME = (
        "dwell_time",
        "The frame would be longer on the air than the region allows.",
    )
    FREQUENCY = (
        "frequency",
        "No sub-band of the region allows a gateway to send there.",
    )
    TOO_LATE = (
        "too_late",
        "The receive window would have opened before the frame could be with the radio.",
    )
    RADIO = (
        "radio",
        "The gateway said no; its word is in `detail`.",
    )
