"""Which form is written when, and which settings make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from lorabridge.lorawan import events
from lorabridge.lorawan.events import DeviceRef, EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.lorawan.verdict import Verdict
from lorabridge.upstream import format_settings, formats, schema
from lorabridge.upstream.format_settings import ChirpStackSettings, UplinkFormat
from lorabridge.upstream.topics import TopicSettings
from tests.lorawan import builders
from tests.upstream.format_help import GATEWAY_ID, heard_uplink

APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
A_UUID = "5b58245e-146c-4c30-9703-0ca942e3ff35"
STATUS = events.Status(at=0, state="online", version="1", config_fingerprint="", detail="")
COPY = events.UplinkCopy(
    uplink_id="0" * 32,
    device=builders.device().ref,
    fcnt32=heard_uplink(builders.device()).fcnt32,
    verdict=Verdict.DUPLICATE,
    reception=builders.heard(b"\x40"),
)


def check(form: UplinkFormat, chirpstack: dict[str, Any] | None = None, **topics: str) -> list[tuple[str, str, bool]]:
    found = format_settings.check(
        form, ChirpStackSettings(**(chirpstack or {})), TopicSettings(**topics), GATEWAY_ID, "aws_iot"
    )
    return [(problem.where, problem.what, problem.warning) for problem in found]


@pytest.mark.parametrize("form", UplinkFormat)
@pytest.mark.parametrize("event", [STATUS, COPY])
def test_only_uplinks_have_a_foreign_form(form: UplinkFormat, event: events.Event) -> None:
    encode = formats.encoder(form, ChirpStackSettings(), GATEWAY_ID, "EU868")
    assert encode(event) == schema.encode(event, GATEWAY_ID)


@pytest.mark.parametrize("form", UplinkFormat)
def test_an_uplink_is_a_record_of_its_kind_and_device_in_every_form(form: UplinkFormat) -> None:
    event = heard_uplink(builders.device())
    record = formats.encoder(form, ChirpStackSettings(), GATEWAY_ID, "EU868")(event)
    assert (record.kind, record.dev_eui) == (EventKind.UPLINK, event.device.dev_eui)
    assert (record == schema.encode(event, GATEWAY_ID)) is (form is UplinkFormat.LORABRIDGE)


@pytest.mark.parametrize("form", UplinkFormat)
def test_the_defaults_are_in_order_in_every_form(form: UplinkFormat) -> None:
    assert check(form) == []


def test_the_topic_of_chirpstack_is_taken_with_the_application_of_the_records() -> None:
    topic = f"application/{APPLICATION}/device/{{dev_eui}}/event/up"
    assert check(UplinkFormat.CHIRPSTACK, {"application_id": APPLICATION.upper()}, uplink=topic) == []


@pytest.mark.parametrize(
    "topic",
    [
        f"application/{A_UUID}/device/{{dev_eui}}/event/up",
        f"application/{APPLICATION}/device/{{dev_eui}}/event/join",
        f"application/{APPLICATION}/device/{{gateway_id}}/event/up",
    ],
)
def test_what_only_begins_as_the_topic_of_chirpstack_is_refused(topic: str) -> None:
    ((where, what, warning),) = check(UplinkFormat.CHIRPSTACK, {"application_id": APPLICATION}, uplink=topic)
    assert (where, warning) == ("aws_iot.topics.uplink", False)
    assert "ChirpStack" in what
    assert check(UplinkFormat.AWS_LORAWAN, uplink=topic) == []


def test_a_foreign_form_needs_a_topic_of_its_own() -> None:
    mixed = "all/{dev_eui}"
    assert check(UplinkFormat.LORABRIDGE, uplink=mixed, uplink_copy=mixed) == []
    ((where, what, warning),) = check(UplinkFormat.AWS_LORAWAN, uplink=mixed, uplink_copy=mixed)
    assert (where, warning) == ("aws_iot.topics.uplink", False)
    assert what == "uplink_copy records have the same topic, and are not in the form aws-lorawan"


@pytest.mark.parametrize("name", ["tenant_id", "application_id", "device_profile_id"])
@pytest.mark.parametrize("text", ["1", "{" + A_UUID + "}", A_UUID.replace("-", "")])
def test_an_id_that_is_no_uuid_is_refused(name: str, text: str) -> None:
    assert check(UplinkFormat.CHIRPSTACK, {name: text}) == [(f"aws_iot.chirpstack.{name}", "is no UUID", False)]


def test_settings_of_a_form_that_is_not_written_have_no_effect_and_that_is_said() -> None:
    assert check(UplinkFormat.AWS_LORAWAN, {"tenant_name": "Works"}) == [("aws_iot.chirpstack", "has no effect", True)]


def of_devices(form: UplinkFormat, *devices: DeviceRef, region: str | None = "EU868") -> list[str]:
    return [str(problem) for problem in format_settings.check_devices(form, devices, region, "devices.d")]


@pytest.mark.parametrize("form", UplinkFormat)
def test_numbers_of_data_rates_need_a_region(form: UplinkFormat) -> None:
    meter = DeviceRef("meter", EUI64(1))
    foreign = form is not UplinkFormat.LORABRIDGE
    assert len(of_devices(form, meter, region=None)) == foreign
    assert of_devices(form, DeviceRef("meter", EUI64(1), region="US915"), region=None) == []
    assert of_devices(form, meter) == []


def test_the_device_id_in_a_tag_is_a_uuid_and_no_two_devices_have_the_same() -> None:
    def tagged(name: str, text: str) -> DeviceRef:
        return DeviceRef(name, EUI64(1), (("wireless_device_id", text),))

    form = UplinkFormat.AWS_LORAWAN
    assert of_devices(form, tagged("a", A_UUID), tagged("b", "")) == []
    (told,) = of_devices(form, tagged("a", "meter-1"))
    assert told.startswith("devices.d: device a: its tag wireless_device_id is no UUID")
    (told,) = of_devices(form, tagged("a", A_UUID), tagged("b", A_UUID.upper()))
    assert told.startswith("devices.d: device b: its tag wireless_device_id is that of a")
    assert of_devices(UplinkFormat.CHIRPSTACK, tagged("a", "meter-1")) == []
