"""How uplinks are written: our own schema, or the form that another network server writes."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.lorawan.events import DeviceRef, EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.topics import Topics, TopicSettings

NAMESPACE = uuid.UUID("6f1d2c5e-4b0a-5d0e-9a53-1f7a70e3c8b4")
"""Where the UUIDs are made that an operator did not give: version 5, of a name in this namespace."""
WIRELESS_DEVICE_ID = "wireless_device_id"
"""The tag that gives a device's WirelessDeviceId."""

_A_UUID = "a UUID, such as 5b58245e-146c-4c30-9703-0ca942e3ff35"
_CHIRPSTACK_TOPIC = "application/{id}/device/{{dev_eui}}/event/up"


class UplinkFormat(enum.Enum):
    """The forms that an uplink can leave in."""

    LORABRIDGE = "lorabridge"
    AWS_LORAWAN = "aws-lorawan"
    CHIRPSTACK = "chirpstack"


class ChirpStackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[aws_iot.chirpstack]`: who a ChirpStack uplink says that its device belongs to."""

    tenant_name: Annotated[str, Meta(description="`tenantName`")] = "lorabridge"
    tenant_id: Annotated[str, Meta(description="`tenantId`, a UUID; left out, one made of the name")] = ""
    application_name: Annotated[str, Meta(description="`applicationName`")] = "lorabridge"
    application_id: Annotated[
        str, Meta(description="`applicationId`, a UUID, also in the topic; left out, one made of the name")
    ] = ""
    device_profile_name: Annotated[str, Meta(description="`deviceProfileName`")] = "lorabridge"
    device_profile_id: Annotated[str, Meta(description="`deviceProfileId`, a UUID; left out, one made of the name")] = (
        ""
    )

    def id_of(self, what: str) -> str:
        """The UUID of `tenant`, `application` or `device_profile`; what is no UUID is given back as it is."""
        given: str = getattr(self, f"{what}_id")
        return given.lower() or str(uuid.uuid5(NAMESPACE, f"{what}:{getattr(self, f'{what}_name')}"))


def check(
    form: UplinkFormat, chirpstack: ChirpStackSettings, topics: TopicSettings, gateway_id: str, where: str
) -> list[Problem]:
    """What is wrong with the form of uplinks and with their topic; the topics themselves are in order."""
    found: list[Problem] = []
    if form is not UplinkFormat.CHIRPSTACK and chirpstack != ChirpStackSettings():
        hint = f'set format = "{UplinkFormat.CHIRPSTACK.value}", or leave the table out'
        found.append(Problem(where=f"{where}.chirpstack", what="has no effect", hint=hint, warning=True))
    found += [
        Problem(where=f"{where}.chirpstack.{name}", what="is no UUID", hint=_A_UUID)
        for name in ("tenant_id", "application_id", "device_profile_id")
        if not _is_uuid(getattr(chirpstack, name) or str(NAMESPACE))
    ]
    if form is not UplinkFormat.LORABRIDGE:
        found += _check_alone(form, topics, gateway_id, f"{where}.topics.uplink")
    if form is UplinkFormat.CHIRPSTACK:
        found += _check_chirpstack_topic(topics.uplink, chirpstack.id_of("application"), f"{where}.topics.uplink")
    return found


def check_devices(form: UplinkFormat, devices: Iterable[DeviceRef], region: str | None, where: str) -> list[Problem]:
    """What the devices lack for this form. `region`: the bridge's own. `where`: where the devices are written."""
    if form is UplinkFormat.LORABRIDGE:
        return []
    found: list[Problem] = []
    taken: dict[str, str] = {}
    for device in devices:
        place = f"{where}: device {device.name}"
        if (device.region or region) is None:
            what = f'format = "{form.value}" numbers data rates, and their numbers are those of a region'
            hint = "set network.region in the configuration, or region of the device"
            found.append(Problem(where=place, what=what, hint=hint))
        given = dict(device.tags).get(WIRELESS_DEVICE_ID, "")
        if form is not UplinkFormat.AWS_LORAWAN or not given:
            continue
        if not _is_uuid(given):
            found.append(Problem(where=place, what=f"its tag {WIRELESS_DEVICE_ID} is no UUID", hint=_A_UUID))
        elif taken.setdefault(given.lower(), device.name) != device.name:
            what = f"its tag {WIRELESS_DEVICE_ID} is that of {taken[given.lower()]}"
            found.append(Problem(where=place, what=what, hint="give each device one of its own"))
    return found


def _is_uuid(text: str) -> bool:
    """Whether it is a UUID in its usual form, with hyphens."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _check_alone(form: UplinkFormat, topics: TopicSettings, gateway_id: str, where: str) -> list[Problem]:
    """Who reads the foreign form on a topic could not read our own records there."""
    named, any_eui = Topics(topics, gateway_id), EUI64(0)
    uplink = named.topic(EventKind.UPLINK, any_eui)
    return [
        Problem(
            where=where,
            what=f"{kind.value} records have the same topic, and are not in the form {form.value}",
            hint=f"give {kind.value} another topic",
        )
        for kind in EventKind
        if kind is not EventKind.UPLINK and named.topic(kind, any_eui) == uplink
    ]


def _check_chirpstack_topic(template: str, application_id: str, where: str) -> list[Problem]:
    """A topic that begins as ChirpStack's has to be ChirpStack's to its end, with the application of the record."""
    expected = _CHIRPSTACK_TOPIC.format(id=application_id)
    if not template.startswith("application/") or template == expected:
        return []
    what = "begins as a topic of ChirpStack, but is not the one of these records"
    return [Problem(where=where, what=what, hint=f'write "{expected}", or begin it otherwise')]
