"""Device Shadow on the stand-in, driven by a plain MQTT client; the document's rules without one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lorabridge.simulation.pki import Pki, new_ec_key
from lorabridge.simulation.standin import Policy, Refusal
from lorabridge.simulation.standin.services.shadow import Shadows
from tests.simulation.standin_help import GATEWAY, Paho, Running, Things, paho, running

CLASSIC = f"$aws/things/{GATEWAY}/shadow"
NAMED = f"{CLASSIC}/name/lorabridge"


@pytest.mark.parametrize("shadow", [CLASSIC, NAMED])
def test_a_device_reports_asks_and_deletes(gateway: Paho, shadow: str) -> None:
    things = Things(gateway)
    things.subscribe(f"{shadow}/get/+", f"{shadow}/update/accepted", f"{shadow}/delete/+")
    assert things.ask(f"{shadow}/get", {"clientToken": "1"}) == (
        f"{shadow}/get/rejected",
        {"code": 404, "message": f"No shadow exists with name: '{shadow.partition('/name/')[2] or GATEWAY}'"},
    )
    topic, accepted = things.ask(f"{shadow}/update", {"state": {"reported": {"a": 1}}, "clientToken": "1"})
    assert topic == f"{shadow}/update/accepted"
    assert (accepted["state"], accepted["version"]) == ({"reported": {"a": 1}}, 1)
    assert accepted["metadata"]["reported"]["a"]["timestamp"] > 1_700_000_000
    topic, document = things.ask(f"{shadow}/get", {"clientToken": "1"})
    assert (topic, document["state"], document["version"]) == (f"{shadow}/get/accepted", {"reported": {"a": 1}}, 1)
    assert things.ask(f"{shadow}/delete", {"clientToken": "1"}) == (f"{shadow}/delete/accepted", {"version": 1})


def test_what_the_cloud_desires_comes_as_a_delta_until_it_is_reported(standin: Running, gateway: Paho) -> None:
    things = Things(gateway)
    things.subscribe(f"{NAMED}/update/delta", f"{NAMED}/update/accepted")
    standin.publish(f"{NAMED}/update", b'{"state":{"desired":{"log_level":"debug"}}}')
    assert things.next()[0] == f"{NAMED}/update/accepted"
    topic, delta = things.next()
    assert (topic, delta["state"], delta["version"]) == (f"{NAMED}/update/delta", {"log_level": "debug"}, 1)
    things.ask(f"{NAMED}/update", {"state": {"reported": {"log_level": "debug"}}, "clientToken": "1"})
    things.ask(f"{NAMED}/update", {"state": {"reported": {"other": 1}}, "clientToken": "1"})
    assert standin.standin.shadows.state(GATEWAY, "lorabridge") == {
        "desired": {"log_level": "debug"},
        "reported": {"log_level": "debug", "other": 1},
    }


def test_a_shadow_of_another_thing_is_not_granted(standin: Running, gateway: Paho) -> None:
    gateway.publish("$aws/things/gw-2/shadow/get", b"")
    gateway.closed()
    standin.refused(Refusal.PUBLISH)


def test_a_message_of_a_service_needs_the_right_to_receive_it(pki: Pki) -> None:
    pair = pki.devices.client("blind", new_ec_key(), "blind")
    topics = ("$aws/things/blind/*",)
    policy = Policy(client_id="blind", publish=topics, subscribe=topics)
    with (
        running(pki, policies={pair.fingerprint: policy}) as started,
        paho(pki, started.standin.port, pair=pair, client_id="blind") as client,
    ):
        Things(client.ready()).subscribe("$aws/things/blind/shadow/get/rejected")
        client.acknowledgement(client.publish("$aws/things/blind/shadow/get", b""))
        started.ignored(Refusal.RECEIVE)
        assert client.messages.empty()


def update(shadows: Shadows, document: object, name: str = "") -> dict[str, Any]:
    """The payloads of the replies by the last part of their topics."""
    topic = "$aws/things/t/shadow" + (f"/name/{name}" if name else "") + "/update"
    payload = document if isinstance(document, bytes) else msgspec.json.encode(document)
    replies = shadows.answer(topic, payload, 1000.5)
    assert replies is not None
    return {reply.topic.rpartition("/")[2]: msgspec.json.decode(reply.payload) for reply in replies}


@pytest.mark.parametrize(
    ("document", "code", "says"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"[]", 400, "Invalid JSON"),
        (b"", 400, "Invalid JSON"),
        (b'"\xff"', 415, "UTF-8"),
        ({}, 400, "Missing required node: state"),
        ({"state": 1}, 400, "State node must be an object"),
        ({"state": {"wanted": {}}}, 400, "invalid node"),
        ({"state": {"desired": 1}}, 400, "Desired node must be an object"),
        ({"state": {"reported": []}}, 400, "Reported node must be an object"),
        ({"state": {}, "version": "1"}, 400, "Invalid version"),
        ({"state": {}, "version": True}, 400, "Invalid version"),
        ({"state": {}, "clientToken": "x" * 65}, 400, "Invalid clientToken"),
        ({"state": {}, "clientToken": 1}, 400, "Invalid clientToken"),
        ({"state": {"reported": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}, 400, "nesting"),
        ({"state": {"reported": {"a": "x" * 8192}}}, 413, "exceeds the maximum size"),
        ({"state": {}, "version": 7}, 409, "Version conflict"),
    ],
)
def test_a_wrong_update_is_rejected_and_changes_nothing(document: object, code: int, says: str) -> None:
    shadows = Shadows()
    replies = update(shadows, document)
    assert list(replies) == ["rejected"]
    assert replies["rejected"]["code"] == code
    assert says in replies["rejected"]["message"]
    assert shadows.state("t") == {}


def test_objects_are_merged_lists_are_replaced_and_null_deletes() -> None:
    shadows = Shadows()
    update(shadows, {"state": {"reported": {"a": {"b": 1, "c": [1, 2]}, "d": 4}}})
    replies = update(shadows, {"state": {"reported": {"a": {"b": None, "c": [3]}, "d": {"e": 5}}}})
    assert shadows.state("t") == {"reported": {"a": {"c": [3]}, "d": {"e": 5}}}
    assert replies["accepted"]["metadata"]["reported"] == {
        "a": {"c": [{"timestamp": 1000}]},
        "d": {"e": {"timestamp": 1000}},
    }
    assert replies["documents"]["previous"]["version"] == 1
    assert replies["documents"]["current"]["version"] == 2
    update(shadows, {"state": {"reported": None}})
    assert shadows.state("t") == {}


def test_the_delta_has_what_is_desired_and_not_reported_down_to_its_leaves() -> None:
    shadows = Shadows()
    desired = {"same": 1, "new": 2, "in": {"same": 1, "other": 2}, "object": {"x": 1}, "empty": {}}
    reported = {"same": 1, "in": {"same": 1, "other": 3}, "object": 5, "more": 6}
    replies = update(shadows, {"state": {"desired": desired, "reported": reported}})
    assert replies["delta"]["state"] == {"new": 2, "in": {"other": 2}, "object": {"x": 1}, "empty": {}}
    assert replies["delta"]["metadata"]["in"] == {"other": {"timestamp": 1000}}
    (reply,) = shadows.answer("$aws/things/t/shadow/get", b"", 1001) or []
    assert msgspec.json.decode(reply.payload)["state"]["delta"] == replies["delta"]["state"]
    assert "delta" not in update(shadows, {"state": {"reported": desired}, "version": 1})


def test_a_shadow_made_anew_goes_on_counting_its_version() -> None:
    shadows = Shadows()
    update(shadows, {"state": {"reported": {"a": 1}}}, "n")
    shadows.answer("$aws/things/t/shadow/name/n/delete", b"", 1)
    assert update(shadows, {"state": {"reported": {"a": 1}}}, "n")["accepted"]["version"] == 3


def test_other_topics_are_none_of_a_shadows() -> None:
    for topic in (
        "$aws/things/t/jobs/get",
        "$aws/things/t/shadow/update/accepted",
        "$aws/things/t/shadow/name/a b/get",
    ):
        assert Shadows().answer(topic, b"", 0) is None
