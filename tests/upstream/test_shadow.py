"""The shadow: what is reported, what may be changed, and that neither ever costs a record."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.connection import Delivery
from lorabridge.upstream.faults import LinkState
from lorabridge.upstream.shadow import FULL_INTERVAL, LEAST_INTERVAL, MAX_DOCUMENT, MAX_REJECTED, Setting, Shadow
from lorabridge.upstream.subscriptions import SUBSCRIBE_TRIES
from tests.pki import Authority
from tests.upstream.harness import ENDPOINT, GATEWAY, link_settings, running
from tests.upstream.scripted_endpoint import ScriptedEndpoint, server_context, serving

PREFIX = f"$aws/things/{GATEWAY}/shadow/name/lorabridge"


class Bench:
    """A shadow alone, and what it says."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.may_say = True
        self.state: dict[str, Any] = {"link": "online", "counters": {"accepted": 1}}
        self.settings: dict[str, Setting] = {"log_level": "info", "stats_interval_s": 60, "paused": False}
        self.shadow = Shadow(
            GATEWAY,
            say=self._say,
            state=lambda: self.state,
            settings=lambda: self.settings,
            apply=self.settings.update,
        )
        for topic in self.shadow.topics:
            topic.granted()

    def _say(self, topic: str, payload: bytes) -> bool:
        if self.may_say:
            assert len(payload) <= MAX_DOCUMENT
            self.said.append((topic.removeprefix(PREFIX), json.loads(payload)))
        return self.may_say

    def hear(self, topic: str, document: object) -> None:
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        delivery = Delivery(PREFIX + topic, payload, 1, 1)
        (taker,) = [one for one in self.shadow.topics if one.takes(delivery.topic)]
        taker.received(delivery, lambda: None)

    def reported(self, now: float) -> Mapping[str, Any] | None:
        """What is reported at `now`, if anything."""
        self.said.clear()
        self.shadow.tick(now)
        documents = [said["state"]["reported"] for topic, said in self.said if topic == "/update"]
        return documents[0] if documents else None


def test_a_connection_begins_with_a_question_and_a_report() -> None:
    bench = Bench()
    bench.shadow.tick(0.0)
    assert [topic for topic, _ in bench.said] == ["/get", "/update"]
    assert bench.said[1][1]["state"]["reported"] == {
        "settings": bench.settings,
        "link": "online",
        "counters": {"accepted": 1},
        "rejected": None,
    }
    assert bench.reported(1.0) is None
    for topic in bench.shadow.topics:
        topic.lost()
        assert not topic.is_granted
    assert bench.reported(2.0) is None
    for topic in bench.shadow.topics:
        topic.granted()
    assert bench.reported(3.0) is not None


def test_what_changes_is_reported_within_a_minute_and_counters_now_and_then() -> None:
    bench = Bench()
    bench.shadow.tick(0.0)
    bench.state["counters"] = {"accepted": 2}
    assert bench.reported(LEAST_INTERVAL + 1) is None
    assert bench.reported(FULL_INTERVAL) is not None
    bench.state["link"] = "waiting"
    assert bench.reported(FULL_INTERVAL + LEAST_INTERVAL - 1) is None
    assert bench.reported(FULL_INTERVAL + LEAST_INTERVAL) is not None
    bench.may_say = False
    bench.state["link"] = "online"
    assert bench.reported(FULL_INTERVAL + 3 * LEAST_INTERVAL) is None
    bench.may_say = True
    assert bench.reported(FULL_INTERVAL + 3 * LEAST_INTERVAL + 1) is not None


@pytest.mark.parametrize("topic", ["/update/delta", "/get/accepted"])
def test_what_is_desired_and_allowed_is_applied_and_reported_at_once(topic: str) -> None:
    bench = Bench()
    bench.shadow.tick(0.0)
    delta = {"settings": {"log_level": "debug", "stats_interval_s": 10, "paused": True}}
    state = {"delta": delta, "desired": {}, "reported": {}} if topic == "/get/accepted" else delta
    bench.hear(topic, {"version": 7, "state": state})
    assert bench.settings == delta["settings"]
    report = bench.reported(1.0)
    assert report is not None
    assert report["settings"] == delta["settings"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_level", "trace"),
        ("log_level", 1),
        ("stats_interval_s", 9),
        ("stats_interval_s", 86_401),
        ("stats_interval_s", True),
        ("stats_interval_s", 10.5),
        ("paused", 1),
        ("paused", "yes"),
        ("endpoint", "evil.example"),
        ("counter_policy", "off"),
    ],
)
def test_anything_else_changes_nothing_and_is_reported_as_rejected(name: str, value: object) -> None:
    bench = Bench()
    before = dict(bench.settings)
    bench.hear("/update/delta", {"version": 1, "state": {"settings": {name: value, "paused": True} | {name: value}}})
    expected = before if name == "paused" else before | {"paused": True}
    assert bench.settings == expected
    report = bench.reported(0.0)
    assert report is not None
    assert set(report["rejected"]) == {name}
    bench.hear("/update/delta", {"version": 2, "state": {"settings": {"paused": False}}})
    again = bench.reported(1.0)
    assert again is not None
    assert again["rejected"] == {name: None}, "null takes it out of the shadow"
    assert (bench.reported(FULL_INTERVAL + 2) or {})["rejected"] is None


def test_an_older_document_changes_nothing() -> None:
    bench = Bench()
    bench.hear("/update/delta", {"version": 5, "state": {"settings": {"paused": True}}})
    bench.hear("/update/delta", {"version": 4, "state": {"settings": {"paused": False}}})
    assert bench.settings["paused"] is True
    bench.shadow.topics[2].granted()  # a new connection: the shadow may have been deleted meanwhile
    bench.hear("/get/accepted", {"version": 1, "state": {"delta": {"settings": {"paused": False}}}})
    assert bench.settings["paused"] is False


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=60) | documents.map(lambda one: json.dumps(one).encode()), st.booleans())
def test_no_document_does_harm(payload: bytes, delta: bool) -> None:  # drawn
    bench = Bench()
    before = dict(bench.settings)
    bench.hear("/update/delta" if delta else "/get/accepted", payload)
    bench.hear("/update/delta", {"version": 1, "state": json.loads(json.dumps({"settings": {"x": 1}}))})
    assert bench.settings == before


@given(st.dictionaries(st.text(max_size=300), documents, max_size=40))
def test_a_report_is_never_too_large(wanted: dict[str, Any]) -> None:
    bench = Bench()
    bench.state["counters"] = {f"counter_{number}": 2**63 for number in range(300)}
    bench.hear("/update/delta", {"version": 1, "state": {"settings": wanted}})
    report = bench.reported(0.0)
    assert report is not None
    assert len(report.get("rejected") or {}) <= MAX_REJECTED


def test_a_refused_report_is_told(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING):
        bench.hear("/update/rejected", {"code": 413, "message": "too large"})
    assert "the shadow refused a report" in caplog.text
    assert bench.shadow.counters["refused"] == 1


class Shadowed(ScriptedEndpoint):
    """An endpoint whose policy may forbid what the shadow needs."""

    def __init__(self, *, forbids_filters: bool = False, forbids_publish: bool = False) -> None:
        super().__init__()
        self.forbids_filters = forbids_filters
        self.forbids_publish = forbids_publish
        self.updates = 0

    def _subscribe(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        return not (self.forbids_filters and b"$aws/" in body) and super()._subscribe(writer, body)

    def _publish(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        topic = body[2 : 2 + int.from_bytes(body[:2], "big")]
        if topic.startswith(b"$aws/") and self.forbids_publish:
            self.updates += 1
            return False
        return super()._publish(writer, body)


@pytest.mark.parametrize("forbidden", [{}, {"forbids_filters": True}, {"forbids_publish": True}])
def test_a_policy_without_the_shadow_costs_no_record(tmp_path: Any, forbidden: dict[str, bool]) -> None:
    authority = Authority(tmp_path)

    async def scenario() -> None:
        context = server_context(authority, authority.server(ENDPOINT))
        endpoint = Shadowed(**forbidden)
        async with serving(endpoint, context), running(link_settings(authority, endpoint.port)) as upstream:
            bench = Bench()
            bench.shadow._say = upstream.link.say
            upstream.link.add_services(bench.shadow.topics)
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            committed = 0
            while committed < 400:
                upstream.commit(10)
                committed += 10
                bench.shadow.tick(float(committed) * LEAST_INTERVAL)
                await asyncio.sleep(0.01)
            await upstream.outbox.until_empty()
            assert sorted(set(upstream.outbox.finished)) == list(range(1, committed + 1))
            assert upstream.parked == [], "no record is suspected of what the shadow did"
            assert len(endpoint.connects) <= 1 + 3 * SUBSCRIBE_TRIES
            if not forbidden:
                assert {f"{PREFIX}/update/delta", f"{PREFIX}/get/accepted"} <= set(endpoint.subscribed)
                assert bench.shadow.counters["reports"] > 0
            if forbidden.get("forbids_publish"):
                assert endpoint.updates == SUBSCRIBE_TRIES

    asyncio.run(scenario())
