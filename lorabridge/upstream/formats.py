"""The encoder for the form that the operator chose. Only uplinks have a foreign form; all else is our own schema."""

from __future__ import annotations

import functools
from collections.abc import Callable

from lorabridge.lorawan.events import Event, EventKind, Record, Uplink
from lorabridge.upstream import aws_lorawan, chirpstack, schema
from lorabridge.upstream.format_settings import ChirpStackSettings, UplinkFormat


def encoder(
    form: UplinkFormat, settings: ChirpStackSettings, gateway_id: str, region: str | None
) -> Callable[[Event], Record]:
    """What makes a record of an event; `region` is the bridge's own."""
    match form:
        case UplinkFormat.LORABRIDGE:
            return functools.partial(schema.encode, gateway_id=gateway_id)
        case UplinkFormat.AWS_LORAWAN:
            return _with_uplinks(aws_lorawan.encoder(gateway_id, region), gateway_id)
        case UplinkFormat.CHIRPSTACK:
            return _with_uplinks(chirpstack.encoder(settings, region), gateway_id)


def _with_uplinks(uplink: Callable[[Uplink], bytes], gateway_id: str) -> Callable[[Event], Record]:
    """Uplinks by `uplink`, every other event by our own schema."""

    def encode(event: Event) -> Record:
        if isinstance(event, Uplink):
            return Record(EventKind.UPLINK, event.device.dev_eui, uplink(event))
        return schema.encode(event, gateway_id)

    return encode
