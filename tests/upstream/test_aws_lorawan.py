"""`format = "aws-lorawan"`, against the service model of AWS's own client library and what AWS's samples read."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import msgspec
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from lorabridge.lorawan.air import FskDataRate, LoraDataRate
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.events import Uplink
from lorabridge.lorawan.grammar import MType
from lorabridge.upstream import aws_lorawan
from lorabridge.upstream.format_settings import UplinkFormat
from tests.lorawan import builders
from tests.upstream.format_help import heard_uplink, uplinks, written

ON_DISK = Path(__file__).parents[2] / "docs" / "schema" / "uplink_aws_lorawan.json"
VALIDATOR = Draft202012Validator(msgspec.json.decode(aws_lorawan.json_schema()))
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
METER = builders.device(tags=(("site", "north"),))
SEALED = builders.device(
    session_keys=SessionKeys(
        f_nwk_s_int_key=builders.NWK_S_KEY,
        s_nwk_s_int_key=builders.NWK_S_KEY,
        nwk_s_enc_key=builders.NWK_S_KEY,
    )
)


def aws(event: Uplink, region: str | None = "EU868") -> dict[str, Any]:
    return written(event, UplinkFormat.AWS_LORAWAN, region=region)


def lorawan(event: Uplink, region: str | None = "EU868") -> dict[str, Any]:
    inner: dict[str, Any] = aws(event, region)["WirelessMetadata"]["LoRaWAN"]
    return inner


@cache
def api() -> botocore.model.ServiceModel:
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("iotwireless", "service-2"))


def check_against_api(name: str, value: Any) -> None:
    """Names, types and patterns of the API's shape `name`, for as much of `value` as the shape has."""
    shape = api().shape_for(name)
    known = {member: value[member] for member in shape.members if member in value}
    report = botocore.validate.ParamValidator().validate(known, shape)
    assert not report.has_errors(), report.generate_report()
    for member, inner in shape.members.items():
        if member in known and inner.type_name == "string" and "pattern" in inner.metadata:
            assert re.search(inner.metadata["pattern"], known[member]), member


def test_the_published_schema_is_the_one_the_code_makes() -> None:
    assert ON_DISK.read_bytes() == aws_lorawan.json_schema(), "run: make docs"
    Draft202012Validator.check_schema(msgspec.json.decode(aws_lorawan.json_schema()))


def test_an_uplink_has_the_form_of_the_service_to_the_letter() -> None:
    event = heard_uplink(METER, f_opts=b"\x02", flags=0x80)
    document = aws(event)
    assert document == {
        "WirelessDeviceId": document["WirelessDeviceId"],
        "PayloadData": base64.b64encode(b"hello").decode(),
        "WirelessMetadata": {
            "LoRaWAN": {
                "ADR": True,
                "Bandwidth": 125,
                "ClassB": False,
                "CodeRate": "4/5",
                "DataRate": 5,
                "DevAddr": "260b1234",
                "DevEui": "70b3d57ed0000001",
                "FCnt": 0x1_0005,
                "FOptLen": 1,
                "FPort": 7,
                "Frequency": 868_100_000,
                "Gateways": [{"GatewayEui": "0016c001f153a14c", "Snr": -5.5, "Rssi": -109.5}],
                "MIC": event.reception.phy_payload[-4:].hex(),
                "MType": "ConfirmedDataUp",
                "Major": "LoRaWANR1",
                "Modulation": "LORA",
                "PolarizationInversion": False,
                "SpreadingFactor": 7,
                "Timestamp": "2023-11-14T22:13:20Z",
            }
        },
        "lorabridge": {
            "schema": "lorabridge/uplink_aws_lorawan/1",
            "id": event.id,
            "gateway_id": "roof-1",
            "device_name": "meter",
            "tags": {"site": "north"},
            "received_at": "2023-11-14T22:13:20Z",
            "f_port": 7,
            "counter_reset": False,
            "sealed": False,
        },
    }
    assert UUID.fullmatch(document["WirelessDeviceId"])
    VALIDATOR.validate(document)


@given(event=uplinks)
@settings(max_examples=60)
def test_every_uplink_satisfies_the_published_schema_and_the_types_of_the_api(event: Uplink) -> None:
    document = aws(event)
    VALIDATOR.validate(document)
    inner = document["WirelessMetadata"]["LoRaWAN"]
    check_against_api("LoRaWANDeviceMetadata", inner)
    for gateway in inner["Gateways"]:
        assert set(gateway) <= set(api().shape_for("LoRaWANGatewayMetadata").members)
        check_against_api("LoRaWANGatewayMetadata", gateway)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", inner["Timestamp"])
    assert document["lorabridge"]["id"] == event.id


def test_every_member_of_the_api_is_there_but_that_of_public_networks() -> None:
    members = set(api().shape_for("LoRaWANDeviceMetadata").members)
    assert members - set(lorawan(heard_uplink(METER))) == {"PublicGateways"}


def test_the_lambdas_of_the_samples_find_what_they_read() -> None:
    """aws-samples/aws-iot-core-lorawan 8cc805d: timestream, cayenneLPPDecoder, iotthingshadow."""
    event = aws(heard_uplink(METER, f_port=None))
    metadata = event["WirelessMetadata"]["LoRaWAN"]
    dimensions = [str(value) for value in (event["WirelessDeviceId"], metadata["DevEui"], metadata["FPort"])]
    assert all(dimensions)
    for gateway in metadata["Gateways"]:
        assert str(gateway["GatewayEui"])
        assert all(float(value) for value in (gateway["Rssi"], gateway["Snr"], metadata["Frequency"]))
        assert float(metadata["DataRate"]) == 5
    assert base64.b64decode(event["PayloadData"], validate=True) == b""
    read = datetime.strptime(metadata["Timestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert read == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_a_frame_without_a_port_has_the_port_that_the_service_writes_and_says_so() -> None:
    document = aws(heard_uplink(METER, f_port=None, m_type=MType.UNCONFIRMED_DATA_UP))
    assert document["WirelessMetadata"]["LoRaWAN"]["FPort"] == 225
    assert document["WirelessMetadata"]["LoRaWAN"]["MType"] == "UnconfirmedDataUp"
    assert document["lorabridge"]["f_port"] is None


def test_ciphertext_never_stands_under_payload_data() -> None:
    event = heard_uplink(SEALED)
    document = aws(event)
    assert "PayloadData" not in document
    assert base64.b64decode(document["lorabridge"]["sealed_payload"]) == event.payload
    assert document["lorabridge"]["sealed"] is True
    VALIDATOR.validate(document)
    document["PayloadData"] = document["lorabridge"]["sealed_payload"]
    assert not VALIDATOR.is_valid(document)


def test_the_device_id_is_the_operators_or_always_the_same_for_a_dev_eui() -> None:
    given_id = "5B58245E-146C-4C30-9703-0CA942E3FF35"
    tagged = builders.device(tags=(("wireless_device_id", given_id),))
    assert aws(heard_uplink(tagged))["WirelessDeviceId"] == given_id.lower()
    first, renamed = (aws(heard_uplink(d))["WirelessDeviceId"] for d in (METER, builders.device(name="other")))
    assert first == renamed == "5f2cfa9d-1a8b-5477-9185-56136129d9a3"
    other = builders.device(dev_eui=builders.GATEWAY)
    assert aws(heard_uplink(other))["WirelessDeviceId"] != first


def test_the_number_of_a_data_rate_is_that_of_the_devices_own_region() -> None:
    event = heard_uplink(METER)
    american = heard_uplink(builders.device(region="US915"))
    assert (lorawan(event)["DataRate"], lorawan(american)["DataRate"]) == (5, 3)
    slow = msgspec.structs.replace(event.reception, data_rate=LoraDataRate(12, 125_000))
    assert "DataRate" not in lorawan(msgspec.structs.replace(american, reception=slow))
    assert "DataRate" not in lorawan(event, region=None)


def test_fsk_has_no_spreading_factor_and_no_gateway_is_made_louder_than_it_said() -> None:
    event = heard_uplink(METER)
    fsk = msgspec.structs.replace(event.reception, data_rate=FskDataRate(50_000), antennas=())
    inner = lorawan(msgspec.structs.replace(event, reception=fsk))
    assert (inner["Modulation"], inner["DataRate"]) == ("FSK", 7)
    assert not {"SpreadingFactor", "Bandwidth", "CodeRate"} & set(inner)
    assert inner["Gateways"] == [{"GatewayEui": "0016c001f153a14c"}]


def test_the_mic_is_written_in_the_order_of_the_air() -> None:
    event = msgspec.structs.replace(heard_uplink(METER), mic=b"\x01\x02\x03\x04")
    assert lorawan(event)["MIC"] == "01020304"
