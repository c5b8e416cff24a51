"""Several records in one publish: `{"schema": "lorabridge/batch/1", "id", "gateway_id", "records": […]}`.

A batch is made when it leaves and of what waits then; what is durable, acknowledged, parked and counted
is the record. Its JSON goes into the batch byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from typing import Protocol

import msgspec

from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.topics import Topics

BATCH_BYTES = 30 * 1024 - 512
"""With its topic six of the 5 KiB that AWS IoT bills by. More saves nothing, and a fresh record waits behind it."""
_ENVELOPE = b'{"schema":"lorabridge/batch/1","id":"%s","gateway_id":%s,"records":[%s]}'
_ID_SIZE = 16


class OutboxRecord(Protocol):
    """One durable record."""

    @property
    def id(self) -> int:
        """Ascending in the order of the commits, from 1."""

    @property
    def kind(self) -> EventKind:
        """Which topic."""

    @property
    def dev_eui(self) -> EUI64 | None:
        """Which device, where there is one."""

    @property
    def payload(self) -> bytes:
        """What to publish."""


class Unit(msgspec.Struct, frozen=True):
    """What one publish carries, and one PUBACK settles."""

    records: tuple[OutboxRecord, ...]

    @property
    def key(self) -> int:
        """Names it while it is in flight: the id of its first record."""
        return self.records[0].id

    @property
    def is_batch(self) -> bool:
        """More than one record."""
        return len(self.records) > 1


class Packer:
    """Makes units and what is published for them."""

    def __init__(self, topics: Topics, gateway_id: str) -> None:
        self._topics = topics
        self._gateway_id = msgspec.json.encode(gateway_id)
        self._empty = len(self._wrapped([]))

    def fitting(self, records: Sequence[OutboxRecord], limit: int, alone: Container[int]) -> int:
        """How many of the first records go together within `limit` bytes, at least 1; those in `alone` never do."""
        size = self._empty
        for count, record in enumerate(records):
            size += len(record.payload) + 1
            if count and (size > limit or record.id in alone):
                return count
            if record.id in alone:
                return 1
        return len(records)

    def topic(self, unit: Unit) -> str:
        """Where it is published."""
        if unit.is_batch:
            return self._topics.topic(EventKind.BATCH, None)
        record = unit.records[0]
        return self._topics.topic(record.kind, record.dev_eui)

    def payload(self, unit: Unit) -> bytes:
        """UTF-8 JSON."""
        if not unit.is_batch:
            return unit.records[0].payload
        return self._wrapped([record.payload for record in unit.records])

    def _wrapped(self, payloads: Sequence[bytes]) -> bytes:
        inside = b",".join(payloads)
        digest = hashlib.blake2b(inside, digest_size=_ID_SIZE).hexdigest().encode()
        return _ENVELOPE % (digest, self._gateway_id, inside)
