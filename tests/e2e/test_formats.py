"""Uplinks in a foreign form, from a real socket to a real broker, and everything else in our own schema beside them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from chirpstack_api import integration
from google.protobuf import json_format
from jsonschema import Draft202012Validator

from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import ROOT, Site, installed, wait_until
from tests.e2e.traffic import Frame, device_file, frames
from tests.mosquitto import watching
from tests.simulation.standin_help import GATEWAY

APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
TOPIC = f"lorabridge/{GATEWAY}/uplink/"


def published(site: Site, aws_iot: str, sent: list[Frame]) -> list[tuple[str, dict[str, Any]]]:
    """(topic, JSON) of everything that a bridge with these lines in `[aws_iot]` publishes of the frames."""
    with watching(site.broker.plain_port) as watcher, installed(site, device_file(2), aws_iot=aws_iot) as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            for n, frame in enumerate(sent):
                forwarder.push([frame.rxpk(1_000_000 * (n + 1))])
            forwarder.settle()
        installation.wait_judged(len(sent))
        installation.wait_drained()
        bridge.stop()
        wait_until(lambda: any(b'"offline"' in m.payload for m in list(watcher.messages.queue)), "the last record")
        messages = [watcher.messages.get() for _ in range(watcher.messages.qsize())]
    return [(message.topic, json.loads(message.payload)) for message in messages]


@pytest.mark.parametrize("form", ["aws-lorawan", "chirpstack"])
def test_uplinks_arrive_in_the_form_that_is_configured_and_the_rest_in_our_own(site: Site, form: str) -> None:
    sent = list(frames(2, 6, seed=5))
    aws_iot = f'format = "{form}"\n'
    if form == "chirpstack":
        aws_iot += f'[aws_iot.chirpstack]\napplication_id = "{APPLICATION}"\n'
    arrived = published(site, aws_iot, sent)
    uplinks = [(topic, record) for topic, record in arrived if topic.startswith(TOPIC)]
    others = [record for topic, record in arrived if not topic.startswith(TOPIC)]
    read = _read_aws if form == "aws-lorawan" else _read_chirpstack
    assert sorted(read(record) for _, record in uplinks) == sorted((*frame.identity, frame.plain) for frame in sent)
    schema = json.loads((ROOT / "docs" / "schema" / f"uplink_{form.replace('-', '_')}.json").read_text("utf-8"))
    for topic, record in uplinks:
        Draft202012Validator(schema).validate(record)
        assert topic == TOPIC + read(record)[0]
    assert all(record["schema"].startswith("lorabridge/") for record in others)
    assert {"lorabridge/status/1"} <= {record["schema"] for record in others}


def _read_aws(record: dict[str, Any]) -> tuple[str, int, bytes]:
    inner = record["WirelessMetadata"]["LoRaWAN"]
    return inner["DevEui"], inner["FCnt"], base64.b64decode(record["PayloadData"])


def _read_chirpstack(record: dict[str, Any]) -> tuple[str, int, bytes]:
    event = json_format.ParseDict(record, integration.UplinkEvent())
    assert event.device_info.application_id == APPLICATION
    return event.device_info.dev_eui, event.f_cnt, event.data
