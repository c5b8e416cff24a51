"""`format = "chirpstack"`, read by ChirpStack's own message definitions and Google's parser, which knows no mercy."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path
from typing import Any

import msgspec
from chirpstack_api import integration
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from lorabridge.lorawan.air import FskDataRate, LoraDataRate
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.events import Uplink
from lorabridge.lorawan.types import DeviceClass
from lorabridge.upstream import chirpstack
from lorabridge.upstream.format_settings import ChirpStackSettings, UplinkFormat
from tests.lorawan import builders
from tests.upstream.format_help import heard_uplink, uplinks, written

ON_DISK = Path(__file__).parents[2] / "docs" / "schema" / "uplink_chirpstack.json"
VALIDATOR = Draft202012Validator(msgspec.json.decode(chirpstack.json_schema()))
OWNER = ChirpStackSettings(
    tenant_name="Works",
    tenant_id="52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
    application_name="Meters",
    application_id="17C82E96-be03-4f38-aef3-f83d48582d97",
)
METER = builders.device(tags=(("site", "north"),), device_class=DeviceClass.C)
SEALED = builders.device(
    session_keys=SessionKeys(
        f_nwk_s_int_key=builders.NWK_S_KEY,
        s_nwk_s_int_key=builders.NWK_S_KEY,
        nwk_s_enc_key=builders.NWK_S_KEY,
    )
)


def up(event: Uplink, region: str | None = "EU868") -> dict[str, Any]:
    return written(event, UplinkFormat.CHIRPSTACK, OWNER, region)


def parsed(document: dict[str, Any]) -> Any:
    """By the definitions of ChirpStack; raises ParseError for a key, a type or a form that they do not have."""
    return json_format.ParseDict(document, integration.UplinkEvent())


def always_written(message: Descriptor) -> set[str]:
    """What ChirpStack writes of a message of `integration` even when it is empty."""
    return {field.json_name for field in message.fields if not field.has_presence}


def test_the_published_schema_is_the_one_the_code_makes() -> None:
    assert ON_DISK.read_bytes() == chirpstack.json_schema(), "run: make docs"
    Draft202012Validator.check_schema(msgspec.json.decode(chirpstack.json_schema()))


def test_an_uplink_has_the_form_of_chirpstack_to_the_letter() -> None:
    event = heard_uplink(METER, flags=0x80)
    document = up(event)
    heard = {
        "gatewayId": "0016c001f153a14c",
        "gwTime": "2023-11-14T22:13:20.123456Z",
        "nsTime": "2023-11-14T22:13:20Z",
        "timeSinceGpsEpoch": "1384035218.123s",
        "channel": 5,
        "rfChain": 1,
        "metadata": {"region_config_id": "eu868", "region_common_name": "EU868"},
        "crcStatus": "CRC_OK",
    }
    assert document == {
        "deduplicationId": str(uuid.UUID(event.id)),
        "time": "2023-11-14T22:13:20.123456Z",
        "deviceInfo": {
            "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
            "tenantName": "Works",
            "applicationId": "17c82e96-be03-4f38-aef3-f83d48582d97",
            "applicationName": "Meters",
            "deviceProfileId": "05ec551c-c641-5a0f-8df0-9ab527168011",
            "deviceProfileName": "lorabridge",
            "deviceName": "meter",
            "devEui": "70b3d57ed0000001",
            "deviceClassEnabled": "CLASS_C",
            "tags": {"site": "north"},
        },
        "devAddr": "260b1234",
        "adr": True,
        "dr": 5,
        "fCnt": 0x1_0005,
        "fPort": 7,
        "confirmed": True,
        "data": base64.b64encode(b"hello").decode(),
        "rxInfo": [heard | {"rssi": -112, "snr": -7.25}, heard | {"rssi": -110, "snr": -5.5, "antenna": 1}],
        "txInfo": {
            "frequency": 868_100_000,
            "modulation": {"lora": {"bandwidth": 125_000, "spreadingFactor": 7, "codeRate": "CR_4_5"}},
        },
        "regionConfigId": "eu868",
    }
    VALIDATOR.validate(document)


@given(event=uplinks)
@settings(max_examples=80)
def test_every_uplink_satisfies_the_published_schema_and_chirpstacks_parser(event: Uplink) -> None:
    document = up(event)
    VALIDATOR.validate(document)
    message = parsed(document)
    assert message.device_info.dev_eui == str(event.device.dev_eui)
    assert message.device_info.tags == dict(event.device.tags)
    assert message.f_cnt == event.fcnt32
    assert message.f_port == (event.f_port or 0)
    assert (message.adr, message.confirmed) == (event.adr, event.confirmed)
    assert message.data == (event.payload if event.f_port and not event.sealed else b"")
    assert len(message.rx_info) == max(1, len(event.reception.antennas))
    assert uuid.UUID(message.deduplication_id).hex == event.id


def test_googles_writer_makes_the_same_json_of_what_its_parser_read() -> None:
    document = up(heard_uplink(METER, flags=0x80))
    again = json_format.MessageToDict(parsed(document), preserving_proto_field_name=False)
    assert again == document


def test_what_chirpstack_writes_of_an_event_even_when_it_is_empty_is_written() -> None:
    descriptor = integration.UplinkEvent.DESCRIPTOR
    document = up(heard_uplink(METER, payload=b""))
    assert always_written(descriptor) <= set(document)
    assert always_written(descriptor.fields_by_name["device_info"].message_type) == set(document["deviceInfo"])
    assert document["data"] == ""


def test_what_chirpstack_leaves_out_of_the_radio_when_it_is_0_is_left_out() -> None:
    event = heard_uplink(METER)
    quiet = msgspec.structs.replace(event.reception, antennas=(), rf_chain=0, gateway_time_ns=None, gps_time_ms=None)
    document = up(msgspec.structs.replace(event, reception=quiet))
    (heard,) = document["rxInfo"]
    assert set(heard) == {"gatewayId", "nsTime", "metadata", "crcStatus"}
    assert document["time"] == heard["nsTime"]


def test_ciphertext_never_stands_under_data() -> None:
    event = heard_uplink(SEALED)
    document = up(event)
    assert "data" not in document
    assert document["object"] == {"lorabridge_sealed_payload": base64.b64encode(event.payload).decode()}
    message = parsed(document)
    assert message.data == b""
    assert message.object["lorabridge_sealed_payload"] == base64.b64encode(event.payload).decode()
    VALIDATOR.validate(document)
    document["data"] = document["object"]["lorabridge_sealed_payload"]
    assert not VALIDATOR.is_valid(document)


def test_mac_commands_are_no_data_of_the_application() -> None:
    document = up(heard_uplink(METER, f_port=0, payload=b"\x02"))
    assert (document["fPort"], document["data"]) == (0, "")


def test_a_frame_without_a_port_has_port_0() -> None:
    assert up(heard_uplink(METER, f_port=None))["fPort"] == 0


def test_fsk_and_regions_by_the_names_of_chirpstack() -> None:
    event = heard_uplink(METER)
    fsk = msgspec.structs.replace(
        event, reception=msgspec.structs.replace(event.reception, data_rate=FskDataRate(50_000))
    )
    document = up(fsk)
    assert document["txInfo"]["modulation"] == {"fsk": {"datarate": 50_000}}
    assert (document["dr"], document["regionConfigId"]) == (7, "eu868")
    assert up(fsk, "AS923-1")["regionConfigId"] == "as923"
    assert up(fsk, "AS923-2")["rxInfo"][0]["metadata"]["region_common_name"] == "AS923_2"


def test_a_data_rate_that_the_region_does_not_have_gets_no_number() -> None:
    event = heard_uplink(METER)
    strange = msgspec.structs.replace(event.reception, data_rate=LoraDataRate(5, 125_000), code_rate="4/8LI")
    document = up(msgspec.structs.replace(event, reception=strange))
    assert "dr" not in document
    assert "codeRate" not in document["txInfo"]["modulation"]["lora"]
    parsed(document)


def test_ids_that_the_operator_does_not_give_follow_from_the_names() -> None:
    first, same, other = (
        ChirpStackSettings(application_name=name).id_of("application") for name in ("Meters", "Meters", "Lamps")
    )
    assert first == same != other
    assert ChirpStackSettings().id_of("tenant") != ChirpStackSettings().id_of("application")
