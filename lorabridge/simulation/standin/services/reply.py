"""What a service says, and to whom."""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class Audience(enum.Enum):
    """Who gets a reply."""

    SUBSCRIBERS = "subscribers"
    ASKER = "asker"
    """Whether it has subscribed or not (developer guide, "Jobs device MQTT API operations")."""
    ASKER_IF_SUBSCRIBED = "asker_if_subscribed"


class Reply(msgspec.Struct, frozen=True):
    """A message of a service."""

    topic: str
    payload: bytes
    audience: Audience = Audience.SUBSCRIBERS


class Rejected(Exception):  # noqa: N818  # an answer, not an error of ours
    """The request is refused; `code` is the service's own: a number for shadows and provisioning, a name for jobs."""

    def __init__(self, code: int | str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.more = more


def build_reply(topic: str, fields: dict[str, Any], audience: Audience = Audience.SUBSCRIBERS) -> Reply:
    """A reply with the fields that are not None."""
    kept = {name: value for name, value in fields.items() if value is not None}
    return Reply(topic, msgspec.json.encode(kept), audience)
