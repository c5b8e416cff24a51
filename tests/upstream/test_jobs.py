"""Jobs: one at a time, closed to anything that is not in the list, and answered whatever happens to the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.connection import Delivery
from lorabridge.upstream.jobs import (
    FAILED,
    MAX_DETAIL,
    SUCCEEDED,
    InstallCertificate,
    Job,
    Jobs,
    ReloadDevices,
    RequestCertificate,
)

PREFIX = "$aws/things/gw-1/jobs"
RELOAD = {"operation": "reload-devices"}


class Bench:
    """The jobs of one thing, what they say, and what is run."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.may_say = True
        self.begun: list[Job] = []
        self.jobs = Jobs("gw-1", say=self._say, run=self.begun.append)
        self.connect()

    def connect(self) -> None:
        for topic in self.jobs.topics:
            topic.granted()

    def _say(self, topic: str, payload: bytes) -> bool:
        if self.may_say:
            self.said.append((topic.removeprefix(PREFIX), json.loads(payload)))
        return self.may_say

    def hear(self, execution: object, topic: str = "/notify-next") -> None:
        self.hear_bytes(json.dumps({"execution": execution, "timestamp": 1}).encode(), topic)

    def hear_bytes(self, payload: bytes, topic: str = "/notify-next") -> None:
        (taker,) = [one for one in self.jobs.topics if one.takes(PREFIX + topic)]
        taker.received(Delivery(PREFIX + topic, payload, 1, 1), lambda: None)

    def tick(self) -> list[tuple[str, Any]]:
        self.said.clear()
        self.jobs.tick()
        return list(self.said)


def execution(job_id: str, document: object, status: str = "QUEUED") -> dict[str, Any]:
    return {"jobId": job_id, "status": status, "jobDocument": document, "versionNumber": 1, "executionNumber": 1}


def test_a_connection_asks_for_the_next_job_and_answers_step_by_step() -> None:
    bench = Bench()
    assert bench.tick() == [("/$next/get", {"includeJobDocument": True})]
    bench.hear(execution("j1", RELOAD), "/$next/get/accepted")
    assert bench.begun == [Job("j1", ReloadDevices(), is_resumed=False)]
    assert bench.tick() == [("/j1/update", {"status": "IN_PROGRESS", "statusDetails": {}})]
    bench.jobs.finish(bench.begun[0], SUCCEEDED, {"csr": "x" * 2000})
    (topic, answer), then = bench.tick()
    assert (topic, answer["status"], len(answer["statusDetails"]["csr"])) == ("/j1/update", SUCCEEDED, MAX_DETAIL)
    assert then == ("/$next/get", {"includeJobDocument": True})
    bench.hear(None, "/$next/get/accepted")
    bench.hear_bytes(b"{}", "/$next/get/accepted")
    assert bench.tick() == []
    assert bench.jobs.counters == {"begun": 1, "succeeded": 1, "failed": 0, "rejected": 0}


@pytest.mark.parametrize(
    ("document", "operation"),
    [
        (RELOAD, ReloadDevices()),
        ({"operation": "request-certificate"}, RequestCertificate()),
        ({"operation": "install-certificate", "certificate_pem": "X"}, InstallCertificate(certificate_pem="X")),
    ],
)
def test_these_may_be_ordered(document: dict[str, str], operation: Any) -> None:
    bench = Bench()
    bench.hear(execution("j", document))
    assert [job.operation for job in bench.begun] == [operation]


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        "reload-devices",
        {"operation": "run", "command": "id"},
        RELOAD | {"path": "/etc/shadow"},
        {"operation": "install-certificate"},
        {"operation": "install-certificate", "certificate_pem": 1},
        {"operation": "install-certificate", "certificate_pem": "x" * 20_000},
    ],
)
def test_anything_else_is_rejected_with_the_reason_and_the_next_is_asked_for(document: object) -> None:
    bench = Bench()
    bench.tick()
    bench.hear(execution("j1", document))
    assert bench.begun == []
    (topic, answer), (then, _) = bench.tick()
    assert (topic, answer["status"], then) == ("/j1/update", "REJECTED", "/$next/get")
    assert answer["statusDetails"]["reason"]


def test_a_job_that_is_told_twice_is_done_once() -> None:
    bench = Bench()
    bench.hear(execution("j1", RELOAD))
    bench.hear(execution("j1", RELOAD, "IN_PROGRESS"), "/$next/get/accepted")
    bench.hear(execution("j2", RELOAD))
    assert [job.id for job in bench.begun] == ["j1"], "one at a time"
    bench.jobs.finish(bench.begun[0], FAILED, {"reason": "no"})
    bench.hear(execution("j1", RELOAD, "IN_PROGRESS"))
    assert len(bench.begun) == 1, "told again before our answer arrived"
    bench.hear(execution("j2", RELOAD))
    assert [job.id for job in bench.begun] == ["j1", "j2"]


def test_what_could_not_be_said_is_said_on_the_next_connection() -> None:
    bench = Bench()
    bench.tick()
    bench.hear(execution("j1", RELOAD))
    bench.may_say = False
    bench.jobs.finish(bench.begun[0], SUCCEEDED, {})
    assert bench.tick() == []
    for topic in bench.jobs.topics:
        topic.lost()
    bench.may_say = True
    assert bench.tick() == []
    bench.connect()
    assert [(topic, said.get("status")) for topic, said in bench.tick()] == [
        ("/j1/update", SUCCEEDED),
        ("/$next/get", None),
    ]


def test_a_job_in_progress_is_resumed_after_a_restart() -> None:
    bench = Bench()
    bench.hear(execution("j1", RELOAD, "IN_PROGRESS"))
    assert bench.begun == [Job("j1", ReloadDevices(), is_resumed=True)]
    assert [topic for topic, _ in bench.tick()] == ["/$next/get"], "it is said already that it is in progress"


@pytest.mark.parametrize("job_id", ["", "a/b", "x" * 65, "ü", 1, None, "+", "$next/get"])
def test_an_id_that_cannot_be_one_is_passed_over(job_id: Any) -> None:
    bench = Bench()
    bench.hear(execution(job_id, RELOAD))
    assert (bench.begun, [topic for topic, _ in bench.tick()]) == ([], ["/$next/get"])


@given(st.binary(max_size=80))
def test_no_payload_does_harm(payload: bytes) -> None:
    bench = Bench()
    bench.hear_bytes(payload)
    assert bench.begun == []
