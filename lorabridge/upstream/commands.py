"""Downlink commands as the cloud writes them: strict JSON, read once, where it comes in.

A command that cannot be taken is a `BadCommand` with a sentence for whoever sent it, and with the names that it gave
itself as far as they could be read, so that the answer reaches the right one.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from lorabridge.lorawan.commands import DownlinkCommand, Priority
from lorabridge.lorawan.types import EUI64, DeviceClass, FCnt32
from lorabridge.upstream.topics import MAX_TARGET
from lorabridge.upstream.wire import schema_document

MAX_COMMAND = 4096
"""Bytes of one command."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = (1 << 63) - 1
"""The year 2262, the last that 64 bits of nanoseconds can hold: later is never."""
_LONGEST_MESSAGE = 160

CommandId = Annotated[
    str,
    Meta(
        pattern=r"^[ -~]{1,64}$(?!\n)",  # `$` alone takes a line break behind it
        max_length=64,
        description="Names the command: the same id is taken once, so sending it again is safe. "
        "1 to 64 printable ASCII characters.",
    ),
]
CorrelationId = Annotated[
    str,
    Meta(max_length=128, description="Your own words, given back with every result: up to 128 printable characters."),
]


class CommandObject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One downlink for the device or multicast group that the topic names. Unknown fields are refused."""

    schema: Annotated[Literal["lorabridge/command/1"], Meta(description="May be left out: it then means this.")] = (
        "lorabridge/command/1"
    )
    id: CommandId
    f_port: Annotated[int, Meta(ge=1, le=223, description="FPort: 1 to 223.")]
    payload: (
        Annotated[
            bytes,
            Meta(
                max_length=242,
                description="FRMPayload in the clear (base64, at most 242 bytes): it is encrypted on the gateway.",
            ),
        ]
        | UnsetType
    ) = UNSET
    sealed_payload: (
        Annotated[
            bytes,
            Meta(
                max_length=242,
                description="In its place: FRMPayload encrypted elsewhere, under AppSKey and `fcnt_down` (base64).",
            ),
        ]
        | UnsetType
    ) = UNSET
    fcnt_down: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=0xFFFF_FFFF,
                description="The counter that `sealed_payload` was made for (FCntDown, AFCntDown in 1.1): "
                "the `next_fcnt_down` of the last result.",
            ),
        ]
        | UnsetType
    ) = UNSET
    confirmed: Annotated[bool, Meta(description="Whether the device has to acknowledge it.")] = False
    device_class: (
        Annotated[
            Literal["A", "C"],
            Meta(
                description='"A": it waits for an uplink and goes into the windows after it. "C": it goes at once, '
                "although the file of the device may say that it does not always listen. Left out: as the device "
                "listens.",
            ),
        ]
        | UnsetType
    ) = msgspec.field(name="class", default=UNSET)
    priority: Annotated[
        Literal["low", "normal", "high"],
        Meta(description="low, normal or high: which of several waiting ones goes first."),
    ] = "normal"
    expires_at: (
        Annotated[
            datetime, Meta(tz=True, description="RFC 3339 with an offset; not sent later. Left out: it waits for ever.")
        ]
        | UnsetType
    ) = UNSET
    expires_in_s: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=31_622_400,
                description="In place of `expires_at`: seconds from its arrival, by the gateway's clock.",
            ),
        ]
        | UnsetType
    ) = UNSET
    correlation_id: CorrelationId | UnsetType = UNSET


class BadCommand(Exception):  # noqa: N818  # named as the other malformed things of the house
    """What came is no command; the names are those it gave itself, as far as they could be read."""

    def __init__(self, message: str, command_id: str | None = None, correlation_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.command_id = command_id
        self.correlation_id = correlation_id


class _WithId(msgspec.Struct, frozen=True):
    name: CommandId = msgspec.field(name="id")


class _WithCorrelationId(msgspec.Struct, frozen=True):
    name: CorrelationId = msgspec.field(name="correlation_id")


_DECODER = msgspec.json.Decoder(CommandObject)
_NAME_DECODERS = (msgspec.json.Decoder(_WithId), msgspec.json.Decoder(_WithCorrelationId))
_PRIORITIES = {"low": Priority.LOW, "normal": Priority.NORMAL, "high": Priority.HIGH}


def parse_command(target: str, payload: bytes, received_at: int) -> DownlinkCommand:
    """Read a command for `target` that came at `received_at` (nanoseconds since the epoch). Raises BadCommand only."""
    try:
        if len(payload) > MAX_COMMAND:
            raise ValueError(f"{len(payload)} bytes: a command has at most {MAX_COMMAND}")  # noqa: TRY301  # answered below
        command = _DECODER.decode(payload)
        who = _target(target)
        _check(who, command, payload)
        return _command(who, command, received_at)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise BadCommand(_sentence(error), *_names(payload)) from None


def _check(target: EUI64 | str, command: CommandObject, payload: bytes) -> None:
    """What the types cannot say. Raises ValueError."""
    json.loads(payload.decode(), object_pairs_hook=_refuse_twice)  # flat and small: the decoder has seen to that
    if not command.id.isprintable() or not (command.correlation_id or "").isprintable():
        raise ValueError("id and correlation_id are printable characters")
    if (command.payload is UNSET) is (command.sealed_payload is UNSET):
        raise ValueError("exactly one of payload and sealed_payload is needed")
    if (command.sealed_payload is UNSET) is not (command.fcnt_down is UNSET):
        raise ValueError("sealed_payload and fcnt_down go together")
    if command.device_class == "A" and isinstance(target, str):
        raise ValueError("a multicast group sends no uplinks that a command of class A could wait for")
    if command.expires_at is not UNSET and command.expires_in_s is not UNSET:
        raise ValueError("expires_at and expires_in_s are two ways to say one thing: use one")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field stands in it twice")


def _target(text: str) -> EUI64 | str:
    """The DevEUI, or the name of a group: what is not 16 hex digits. Raises ValueError."""
    if len(text) == 2 * EUI64.size and set(text) <= set("0123456789abcdefABCDEF"):
        return EUI64.parse(text)
    if not 0 < len(text) <= MAX_TARGET or not text.isprintable():
        raise ValueError(f"the topic names neither a DevEUI nor a group: at most {MAX_TARGET} printable characters")
    return text


def _command(target: EUI64 | str, command: CommandObject, received_at: int) -> DownlinkCommand:
    expires_at = None
    if command.expires_at is not UNSET:
        expires_at = min(max((command.expires_at - _EPOCH) // timedelta(microseconds=1) * 1000, 0), _LAST_NS)
    elif command.expires_in_s is not UNSET:
        expires_at = received_at + command.expires_in_s * 1_000_000_000
    return DownlinkCommand(
        id=command.id,
        target=target,
        f_port=command.f_port,
        payload=(command.payload or b"") if command.sealed_payload is UNSET else command.sealed_payload,
        fcnt_down=None if command.fcnt_down is UNSET else FCnt32(command.fcnt_down),
        confirmed=command.confirmed,
        device_class=None if command.device_class is UNSET else DeviceClass(command.device_class),
        priority=_PRIORITIES[command.priority],
        expires_at=expires_at,
        correlation_id=None if command.correlation_id is UNSET else command.correlation_id,
        received_at=received_at,
    )


def _names(payload: bytes) -> tuple[str | None, str | None]:
    """`id` and `correlation_id` of what is no command, each None when it cannot be read."""
    names: list[str | None] = []
    for decoder in _NAME_DECODERS:
        try:
            name = decoder.decode(payload[:MAX_COMMAND]).name
        except (ValueError, RecursionError):
            name = ""
        names.append(name if name and name.isprintable() else None)
    return names[0], names[1]


def _sentence(error: Exception) -> str:
    """What is wrong, in one short printable line; a field's name may be of the sender's making."""
    text = str(error) if not isinstance(error, (UnicodeDecodeError, RecursionError)) else "JSON is malformed"
    return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST_MESSAGE])


_ONE_OF_EACH: dict[str, Any] = {
    "oneOf": [
        {"required": ["payload"], "properties": {"sealed_payload": False, "fcnt_down": False}},
        {"required": ["sealed_payload", "fcnt_down"], "properties": {"payload": False}},
    ],
    "not": {"required": ["expires_at", "expires_in_s"]},
}


def command_schema() -> bytes:
    """The JSON Schema (draft 2020-12) of a command, as `docs/schema/command.json` has it."""
    return schema_document(CommandObject, "command", _ONE_OF_EACH)
