"""What each kind of record is as a JSON object; the JSON Schemas in `docs/schema/` are made from these types.

A new optional field keeps the version in `schema`, anything else raises it. Plaintext stands under
`payload`, ciphertext under `sealed_payload`, and never both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from lorabridge.upstream.wire import (
    Byte,
    Counter32,
    DeviceObject,
    FskObject,
    Hex4,
    Hex8,
    Id,
    LoraObject,
    Name,
    Rx,
    Utc,
    Wire,
)


class UplinkRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/uplink/1"):
    """A data frame that proved its sender (MIC) and its freshness (frame counter)."""

    id: Id
    gateway_id: str
    received_at: Utc
    device: DeviceObject
    dev_addr: Hex4
    mac_version: str
    confirmed: bool
    adr: bool
    adr_ack_req: bool
    ack: bool
    class_b: bool
    fcnt32: Counter32
    f_port: Annotated[int | None, Meta(description="Null when the frame carries no FPort.")]
    f_opts: Annotated[bytes, Meta(description="MAC commands in the clear.")]
    payload: Annotated[bytes, Meta(description="FRMPayload decrypted.")] | UnsetType = UNSET
    sealed_payload: Annotated[bytes, Meta(description="FRMPayload still encrypted under AppSKey.")] | UnsetType = UNSET
    sealed: Annotated[bool, Meta(description="Whether `sealed_payload` stands in place of `payload`.")]
    counter_reset: Annotated[bool, Meta(description="First frame taken after the device restarted its counter.")]
    rx: Rx


class UplinkCopyRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/uplink_copy/1"):
    """An uplink already delivered, heard once more: reception metadata only."""

    id: Id
    uplink_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="`id` of the uplink.")]
    gateway_id: str
    received_at: Utc
    device: DeviceObject
    fcnt32: Counter32
    verdict: Name
    rx: Rx


class SecurityRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/security/1"):
    """Frames that were refused, summed up: `count` alike ones between `first_at` and `last_at`."""

    id: Id
    gateway_id: str
    verdict: Name
    reason: Annotated[Name | None, Meta(description="What is wrong with the form, when the verdict is `malformed`.")]
    device: Annotated[DeviceObject | None, Meta(description="Only where the MIC proved which device it was.")]
    dev_addr: Annotated[Hex4 | None, Meta(description="As claimed by the frame.")]
    fcnt32: Counter32 | None
    count: Annotated[int, Meta(ge=1)]
    first_at: Utc
    last_at: Utc
    detail: str
    phy_payload: Annotated[bytes | None, Meta(description="One of the frames, as it was on the air.")]
    rx: Rx


class JoinRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/join/1"):
    """A device that proved itself with its root key; the session given to it counts once the device uses it."""

    id: Id
    gateway_id: str
    received_at: Utc
    device: DeviceObject
    kind: Annotated[Name, Meta(description="`join_request`, `rejoin_0`, `rejoin_1` or `rejoin_2`.")]
    dev_addr: Annotated[Hex4 | None, Meta(description="The new address; null when it is not answered.")]
    join_eui: Hex8
    dev_nonce: Annotated[int, Meta(ge=0, le=0xFFFF, description="DevNonce, or RJcount of a rejoin-request.")]
    join_nonce: Annotated[
        int | None,
        Meta(
            description="With DevNonce and JoinEUI what the holder of the AppKey derives AppSKey from; "
            "null when it is not answered."
        ),
    ]
    mac_version: str
    answered: Annotated[bool, Meta(description="Whether a join-accept is sent.")]
    sealed: Annotated[bool, Meta(description="No AppSKey on this gateway: payloads stay encrypted.")]
    rx: Rx


class DownlinkResultRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/downlink_result/1"):
    """What became of a downlink command, or of one attempt to send it."""

    id: Id
    gateway_id: str
    at: Utc
    command_id: Annotated[str | None, Meta(description="Null when the command was too broken to read its id.")]
    correlation_id: str | None
    target: Annotated[str, Meta(description="DevEUI, or name of a multicast group, as the topic said.")]
    device: Annotated[DeviceObject | None, Meta(description="Null when the target is no device of this gateway.")]
    state: Annotated[Name, Meta(description="The list is in docs/downlinks.md.")]
    reason: Annotated[Name | None, Meta(description="Why, when it was rejected or refused; the list is there too.")]
    detail: str
    attempt: Annotated[int, Meta(ge=0, description="How many transmissions were begun.")]
    fcnt_down: Annotated[Counter32 | None, Meta(description="The counter that it was, or is to be, sent under.")]
    next_fcnt_down: Annotated[
        Counter32 | None, Meta(description="What the next sealed payload for this device has to be made for.")
    ]
    gateway_eui: Annotated[Hex8 | None, Meta(description="Which gateway sent, or was to send.")]
    frequency_hz: int | None
    data_rate: LoraObject | FskObject | None


class MacCommandObject(Wire, frozen=True, kw_only=True):
    """One MAC command by the specification's names."""

    name: Name
    fields: dict[str, int]


class MacRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/mac/1"):
    """What the MAC layer of a device said that somebody should know."""

    id: Id
    gateway_id: str
    at: Utc
    device: DeviceObject
    fcnt32: Annotated[Counter32, Meta(description="The uplink that carried it.")]
    commands: list[MacCommandObject]
    unknown_cid: Annotated[Byte | None, Meta(description="The command identifier at which reading stopped.")]
    truncated: Annotated[bool, Meta(description="The last command was cut off.")]


class RadioRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/radio/1"):
    """A radio source, or one gateway behind it, that fell silent, died or came back."""

    id: Id
    gateway_id: str
    at: Utc
    source: Annotated[str, Meta(description="Name of the radio source in the bridge's configuration.")]
    gateway_eui: Annotated[Hex8 | None, Meta(description="Which gateway behind it; null for the source itself.")]
    event: Literal["radio_silent", "radio_dead", "radio_recovered"]
    reason: Annotated[str, Meta(description="What was noticed, for people.")]
    down_s: Annotated[float | None, Meta(description="Of a recovery: seconds without this radio.")]
    failures: Annotated[int, Meta(ge=0, description="Of a recovery: starts that failed in between.")]


class OutboxRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/outbox/1"):
    """Records that do not arrive: lost to the bounds of the outbox, or parked because the endpoint refused them."""

    id: Id
    gateway_id: str
    at: Utc
    event: Literal["records_dropped", "record_parked"]
    since: Annotated[Utc | None, Meta(description="Of a loss: when the first of them was dropped.")]
    dropped: Annotated[
        dict[str, int],
        Meta(description="Of a loss: how many records of each kind since then; `parked`: parked ones of any kind."),
    ]
    record: Annotated[int | None, Meta(description="Of a parked record: its number for `lorabridge outbox`.")]
    kind: Annotated[Name | None, Meta(description="Of a parked record: its kind.")]
    dev_eui: Annotated[Hex8 | None, Meta(description="Of a parked record: the device it is of.")]
    size: Annotated[int | None, Meta(description="Of a parked record: bytes of its JSON.")]
    reason: Annotated[str, Meta(description="Of a parked record: why, for people.")]


class BatchRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/batch/1"):
    """Several records in one publish, each exactly as it would have left alone."""

    id: Id
    gateway_id: str
    records: Annotated[
        list[dict[str, Any]],
        Meta(
            min_length=2,
            description="Each as it would be alone: of its own `schema` and `id`, or an uplink in another `format`.",
        ),
    ]


class GnssObject(Wire, frozen=True, kw_only=True):
    """How good the gateway's own time and place are."""

    time_quality: Annotated[Name, Meta(description="`gps`, `utc`, `stale` or `none`.")]
    accuracy_ns: Annotated[int | None, Meta(description="The receiver's own estimate.")]
    satellites: int | None
    leap_seconds: Annotated[int | None, Meta(description="GPS time minus UTC; null: the receiver has not said it.")]
    missed_seconds: Annotated[int, Meta(description="Seconds that the receiver left out since the start.")]
    pulse_locked: Annotated[bool, Meta(description="The concentrator's pulses (PPS) and the receiver agree.")]


class NoiseObject(Wire, frozen=True, kw_only=True):
    """What a gateway measured on one channel while it did not transmit."""

    frequency_hz: int
    median_dbm: int
    loud_dbm: Annotated[int, Meta(description="Only 5 % of the measurements were louder.")]


class GatewayObject(Wire, frozen=True, kw_only=True):
    """The last status report of one gateway; null where it does not say."""

    gateway_eui: Hex8
    source: str
    received_at: Utc
    time: str | None
    latitude: float | None
    longitude: float | None
    altitude_m: float | None
    rx_received: int | None
    rx_ok: int | None
    rx_forwarded: int | None
    upstream_acked_percent: float | None
    tx_received: int | None
    tx_emitted: int | None
    temperature_c: float | None
    platform: str | None
    mail: str | None
    description: str | None
    gnss: Annotated[GnssObject | None, Meta(description="Null without a receiver that the bridge itself reads.")]
    noise: Annotated[list[NoiseObject], Meta(description="Spectral scan, by frequency; empty without one.")]


class GatewayStatsRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/gateway_stats/1"):
    """What the bridge and its radios did in the interval that ends at `at`."""

    id: Id
    gateway_id: str
    at: Utc
    interval_s: float
    verdicts: dict[str, int]
    counters: dict[str, int]
    gateways: list[GatewayObject]


class StatusRecord(Wire, frozen=True, kw_only=True, tag_field="schema", tag="lorabridge/status/1"):
    """Birth, clean stop, or (as last will, with the time of the connection that was lost) death of the bridge."""

    id: Id
    gateway_id: str
    at: Utc
    state: Literal["online", "offline"]
    version: str
    config_fingerprint: str
    detail: str


Message = (
    UplinkRecord
    | UplinkCopyRecord
    | SecurityRecord
    | JoinRecord
    | DownlinkResultRecord
    | MacRecord
    | RadioRecord
    | OutboxRecord
    | BatchRecord
    | GatewayStatsRecord
    | StatusRecord
)
