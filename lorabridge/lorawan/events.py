"""What the cloud is told. Values only: how they look as JSON is the business of `upstream.schema`."""

from __future__ import annotations

import enum

import msgspec

from lorabridge.lorawan.air import DataRate, GatewayStatus, Reception
from lorabridge.lorawan.commands import CommandReason, CommandState
from lorabridge.lorawan.types import EUI64, DevAddr, DeviceClass, FCnt32, MacVersion
from lorabridge.lorawan.verdict import Reason, Verdict


class EventKind(enum.Enum):
    """The kinds of record that leave the gateway; each has its own topic and schema."""

    UPLINK = "uplink"
    UPLINK_COPY = "uplink_copy"
    SECURITY = "security"
    GATEWAY_STATS = "gateway_stats"
    STATUS = "status"
    JOIN = "join"
    DOWNLINK_RESULT = "downlink_result"
    MAC = "mac"
    RADIO = "radio"
    OUTBOX = "outbox"
    BATCH = "batch"
    """Several records in one publish: made when they leave, never stored."""


class DeviceRef(msgspec.Struct, frozen=True, gc=False):
    """Which device: what the operator calls it, and what it is."""

    name: str
    dev_eui: EUI64
    tags: tuple[tuple[str, str], ...] = ()
    region: str | None = None
    """Whose numbers its data rates have; None: the bridge's own region."""
    device_class: DeviceClass = DeviceClass.A


class Uplink(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A data frame that proved its sender and its freshness."""

    id: str
    """32 hex digits, the same for the same frame whenever and by whichever gateway it is delivered."""
    device: DeviceRef
    dev_addr: DevAddr
    mac_version: MacVersion
    confirmed: bool
    adr: bool
    adr_ack_req: bool
    ack: bool
    class_b: bool
    fcnt32: FCnt32
    f_port: int | None
    f_opts: bytes
    """MAC commands, decrypted where the version encrypts them."""
    payload: bytes
    """FRMPayload: plaintext, or ciphertext when `sealed`."""
    sealed: bool
    """No AppSKey on this gateway: the payload left as it came, encrypted."""
    counter_reset: bool
    """The first frame taken after the device's counter restarted (policy `confirm` or `off`)."""
    mic: bytes
    """The four bytes that proved it, in air order."""
    reception: Reception


class UplinkCopy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The same uplink heard by another antenna or gateway, or later: metadata only."""

    uplink_id: str
    device: DeviceRef
    fcnt32: FCnt32
    verdict: Verdict
    """`duplicate` or `retransmission`."""
    reception: Reception


class SecurityEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something an operator should know: refused frames, summed up so that nobody can flood the log with them."""

    verdict: Verdict
    reason: Reason | None
    device: DeviceRef | None
    """Only where the MIC proved which device it was."""
    dev_addr: DevAddr | None
    fcnt32: FCnt32 | None
    count: int
    first_at: int
    last_at: int
    """Nanoseconds since the Unix epoch."""
    detail: str
    reception: Reception | None


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """A device that proved itself with its root key was given a session; it counts once the device uses it."""

    device: DeviceRef
    kind: str
    """`join_request`, `rejoin_0`, `rejoin_1` or `rejoin_2`."""
    dev_addr: DevAddr | None
    """None when it is not answered."""
    join_eui: EUI64
    dev_nonce: int
    """DevNonce, or RJcount of a rejoin-request."""
    join_nonce: int | None
    """With DevNonce and JoinEUI what the holder of the AppKey needs to derive AppSKey; None when not answered."""
    mac_version: MacVersion
    answered: bool
    """Whether a join-accept is sent."""
    sealed: bool
    """No AppSKey here: payloads stay encrypted."""
    reception: Reception


class DownlinkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a downlink command."""

    command_id: str
    correlation_id: str | None
    device: DeviceRef | None
    """None where the command names no device of ours."""
    target: str
    """DevEUI in hex, or the name of a multicast group, as the command said."""
    state: CommandState
    reason: CommandReason | None = None
    detail: str = ""
    at: int
    """Nanoseconds since the Unix epoch."""
    attempt: int = 0
    fcnt_down: FCnt32 | None = None
    """The counter that it was, or is to be, sent under."""
    next_fcnt_down: FCnt32 | None = None
    """The counter of the next application downlink: what a sealed payload has to be made for."""
    gateway_eui: EUI64 | None = None
    frequency_hz: int | None = None
    data_rate: DataRate | None = None


class MacReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the MAC layer of a device said that somebody should know: its status, a refusal, an unknown command."""

    device: DeviceRef
    at: int
    fcnt32: FCnt32
    commands: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    """Name and fields of each command."""
    unknown_cid: int | None = None
    """The command identifier at which reading stopped."""
    truncated: bool = False
    """The last command was cut off."""


class RadioState(enum.Enum):
    """What became of a radio, or of one gateway behind it."""

    SILENT = "radio_silent"
    """It gives no sign of life."""
    DEAD = "radio_dead"
    """It failed: its process ended, its port is gone, it answers with errors."""
    RECOVERED = "radio_recovered"
    """It works again."""


class RadioEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A radio source that fails, or a gateway behind it, and its return: one event each, however long it takes."""

    at: int
    """Nanoseconds since the Unix epoch."""
    source: str
    """Name of the radio source in the configuration."""
    gateway_eui: EUI64 | None
    """One gateway of several behind the source; None for the source itself."""
    state: RadioState
    reason: str = ""
    down_s: float | None = None
    """Of a recovery: how long nothing was heard."""
    failures: int = 0
    """Of a recovery: how many starts failed in between."""


class OutboxChange(enum.Enum):
    """What happened to records that were to leave."""

    DROPPED = "records_dropped"
    """The outbox was full, or they were too old."""
    PARKED = "record_parked"
    """The endpoint will not have it; an operator decides (`lorabridge outbox`)."""


class OutboxEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Records that do not leave: lost to the bounds of the outbox, or refused by the endpoint."""

    at: int
    """Nanoseconds since the Unix epoch."""
    change: OutboxChange
    since: int | None = None
    """Of a loss: when the first of them was dropped."""
    dropped: tuple[tuple[str, int], ...] = ()
    """Of a loss: how many of each kind since then; `parked` for parked ones."""
    record: int | None = None
    """Of a parked record: its number in the outbox, and what is known of it."""
    kind: EventKind | None = None
    dev_eui: EUI64 | None = None
    size: int | None = None
    reason: str = ""


class GatewayStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the bridge and one of its radios did in an interval."""

    at: int
    interval_s: float
    verdicts: tuple[tuple[Verdict, int], ...]
    counters: tuple[tuple[str, int], ...]
    """Named counters of the adapters, the store and the link."""
    gateways: tuple[GatewayStatus, ...]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Birth, death and state of the bridge."""

    at: int
    state: str
    """`online`, `offline`."""
    version: str
    config_fingerprint: str
    detail: str


Event = (
    Uplink
    | UplinkCopy
    | SecurityEvent
    | GatewayStats
    | Status
    | Join
    | DownlinkResult
    | MacReport
    | RadioEvent
    | OutboxEvent
)


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event ready to be stored and sent: what the outbox holds."""

    kind: EventKind
    dev_eui: EUI64 | None
    payload: bytes
    """UTF-8 JSON."""
