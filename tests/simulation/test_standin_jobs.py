"""Jobs on the stand-in, driven by a plain MQTT client."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lorabridge.simulation.standin.services.jobs import Jobs
from lorabridge.simulation.standin.services.reply import Reply
from tests.simulation.standin_help import GATEWAY, Paho, Running, Things

JOBS = f"$aws/things/{GATEWAY}/jobs"


def test_a_job_is_notified_started_and_reported_done(standin: Running, gateway: Paho) -> None:
    things = Things(gateway)
    things.subscribe(f"{JOBS}/notify", f"{JOBS}/notify-next")
    standin.call(lambda: standin.standin.create_job(GATEWAY, "job-1", {"operation": "reload"}))
    topic, told = things.next()
    assert (topic, [one["jobId"] for one in told["jobs"]["QUEUED"]]) == (f"{JOBS}/notify", ["job-1"])
    topic, told = things.next()
    assert (topic, told["execution"]["jobDocument"]) == (f"{JOBS}/notify-next", {"operation": "reload"})
    topic, started = things.ask(f"{JOBS}/start-next", {"clientToken": "1", "statusDetails": {"step": "1"}})
    assert topic == f"{JOBS}/start-next/accepted", "it comes without a subscription"
    execution = started["execution"]
    assert (execution["status"], execution["statusDetails"], execution["versionNumber"]) == (
        "IN_PROGRESS",
        {"step": "1"},
        2,
    )
    assert things.next()[1]["jobs"].keys() == {"IN_PROGRESS"}
    done = {"status": "SUCCEEDED", "expectedVersion": 2, "includeJobExecutionState": True, "clientToken": "1"}
    topic, updated = things.ask(f"{JOBS}/job-1/update", done)
    assert (topic, updated["executionState"]["status"]) == (f"{JOBS}/job-1/update/accepted", "SUCCEEDED")
    assert things.next() == (f"{JOBS}/notify", {"jobs": {}})
    assert things.next() == (f"{JOBS}/notify-next", {})
    assert standin.standin.jobs.execution(GATEWAY, "job-1").status.value == "SUCCEEDED"


def test_a_job_that_the_cloud_cancels_is_gone_from_the_list(standin: Running, gateway: Paho) -> None:
    things = Things(gateway)
    standin.call(lambda: standin.standin.create_job(GATEWAY, "job-1", {}))
    things.subscribe(f"{JOBS}/notify-next")
    standin.call(lambda: standin.standin.cancel_job(GATEWAY, "job-1"))
    assert things.next() == (f"{JOBS}/notify-next", {})
    assert things.ask(f"{JOBS}/get", {"clientToken": "1"})[1] == {"inProgressJobs": [], "queuedJobs": []}


def asked(jobs: Jobs, topic: str, request: object = b"", now: float = 1000.0) -> tuple[str, dict[str, Any]]:
    """What the asker is told: the end of the topic, and the payload."""
    payload = request if isinstance(request, bytes) else msgspec.json.encode(request)
    replies = jobs.answer(f"$aws/things/t/jobs/{topic}", payload, now)
    assert replies
    return replies[0].topic.rpartition("/")[2], msgspec.json.decode(replies[0].payload)


def names(replies: list[Reply]) -> list[str]:
    return [reply.topic.rpartition("/")[2] for reply in replies]


@pytest.fixture
def jobs() -> Jobs:
    made = Jobs()
    assert names(made.create("t", "one", {"n": 1}, 10)) == ["notify", "notify-next"]
    assert names(made.create("t", "two", {"n": 2}, 11)) == ["notify"], "the next one is still the same"
    return made


@pytest.mark.parametrize(
    ("topic", "request_", "code"),
    [
        ("no-such", b"", "InvalidTopic"),
        ("one/delete", b"", "InvalidTopic"),
        ("get", b"{", "InvalidJson"),
        ("one/update", {"status": "ON_FIRE"}, "InvalidRequest"),
        ("one/update", {}, "InvalidRequest"),
        ("one/update", {"status": "QUEUED"}, "InvalidRequest"),
        ("one/update", {"status": "SUCCEEDED", "statusDetails": {"a": {}}}, "InvalidRequest"),
        ("three/update", {"status": "SUCCEEDED"}, "ResourceNotFound"),
        ("three/get", {}, "ResourceNotFound"),
        ("one/get", {"executionNumber": 99}, "ResourceNotFound"),
        ("one/update", {"status": "SUCCEEDED", "expectedVersion": 5}, "VersionMismatch"),
        ("one/update", {"status": "SUCCEEDED", "expectedVersion": "5"}, "VersionMismatch"),
    ],
)
def test_a_wrong_request_is_rejected_by_its_name_and_changes_nothing(
    jobs: Jobs, topic: str, request_: object, code: str
) -> None:
    verdict, told = asked(jobs, topic, request_)
    assert (verdict, told["code"]) == ("rejected", code)
    assert ("executionState" in told) is (code == "VersionMismatch")
    assert jobs.execution("t", "one").version == 1


def test_what_is_in_progress_comes_before_what_is_queued(jobs: Jobs) -> None:
    asked(jobs, "two/update", {"status": "IN_PROGRESS"})
    assert asked(jobs, "$next/get")[1]["execution"]["jobId"] == "two"
    verdict, listed = asked(jobs, "get")
    assert verdict == "accepted"
    assert [[one["jobId"] for one in listed[name]] for name in ("inProgressJobs", "queuedJobs")] == [["two"], ["one"]]
    assert asked(jobs, "start-next", {"statusDetails": {"kept": "no"}})[1]["execution"]["jobId"] == "two"
    assert jobs.execution("t", "two").details == {}, "what is in progress is not changed"


def test_a_final_state_is_final(jobs: Jobs) -> None:
    asked(jobs, "one/update", {"status": "FAILED", "statusDetails": {"why": "x"}})
    verdict, told = asked(jobs, "one/update", {"status": "IN_PROGRESS"})
    assert (verdict, told["code"]) == ("rejected", "InvalidStateTransition")
    assert told["executionState"] == {"status": "FAILED", "statusDetails": {"why": "x"}, "versionNumber": 2}
    assert asked(jobs, "one/get")[1]["code"] == "TerminalStateReached"


def test_the_document_comes_where_it_is_wanted(jobs: Jobs) -> None:
    assert asked(jobs, "one/get")[1]["execution"]["jobDocument"] == {"n": 1}
    assert "jobDocument" not in asked(jobs, "$next/get", {"includeJobDocument": False})[1]["execution"]
    request = {"status": "IN_PROGRESS", "includeJobDocument": True}
    assert asked(jobs, "one/update", request)[1]["jobDocument"] == {"n": 1}


def test_without_a_pending_job_there_is_no_execution(jobs: Jobs) -> None:
    empty = Jobs()
    for topic in ("start-next", "$next/get"):
        verdict, told = asked(empty, topic)
        assert (verdict, set(told)) == ("accepted", {"timestamp"})


def test_a_job_id_is_used_once(jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="exists already"):
        jobs.create("t", "one", {}, 0)


def test_an_update_within_progress_is_no_news_to_the_list(jobs: Jobs) -> None:
    asked(jobs, "one/update", {"status": "IN_PROGRESS"})
    replies = jobs.answer("$aws/things/t/jobs/one/update", b'{"status":"IN_PROGRESS"}', 0)
    assert len(replies or []) == 1
