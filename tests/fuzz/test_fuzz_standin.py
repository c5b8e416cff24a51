"""The services of the stand-in: no request is one too many."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.simulation.pki import Authority
from lorabridge.simulation.standin import Template
from lorabridge.simulation.standin.services.certificates import Certificates
from lorabridge.simulation.standin.services.jobs import Jobs
from lorabridge.simulation.standin.services.provisioning import Provisioning
from lorabridge.simulation.standin.services.shadow import MAX_DOCUMENT, Shadows

NAMES = st.sampled_from(["a", "b", "state", "desired", "reported", "timestamp"])
VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3)
TREES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | VALUES | st.lists(inner | VALUES, max_size=2), max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.builds(
    lambda desired, reported: {"state": {"desired": desired, "reported": reported}},
    TREES | st.none(),
    TREES | st.none(),
)


def is_within(part: Any, whole: Any) -> bool:
    """Whether every value of `part` stands in `whole` at its place."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_within(value, whole[name]) for name, value in part.items())
    return bool(part == whole)


def without_nulls(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        name: without_nulls(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if value is not None
    }


@given(st.lists(DOCUMENTS, max_size=5))
def test_a_shadow_is_the_sum_of_its_updates_and_its_delta_is_part_of_what_is_desired(
    documents: list[dict[str, Any]],
) -> None:
    shadows, version = Shadows(), 0
    for document in documents:
        before = shadows.state("t")
        replies = shadows.answer("$aws/things/t/shadow/update", msgspec.json.encode(document), 1.0) or []
        told = {reply.topic.rpartition("/")[2]: msgspec.json.decode(reply.payload) for reply in replies}
        if "rejected" in told:
            assert shadows.state("t") == before
            continue
        version += 1
        after = shadows.state("t")
        assert told["accepted"]["version"] == version
        assert (told["documents"]["previous"]["state"], told["documents"]["current"]["state"]) == (before, after)
        for section, change in document["state"].items():
            assert section not in after if change is None else is_within(without_nulls(change), after[section])
        if "delta" in told:
            assert is_within(told["delta"]["state"], after["desired"])
        if after.get("desired") == after.get("reported"):
            assert "delta" not in told


@given(st.binary(max_size=200) | TREES.map(msgspec.json.encode), st.sampled_from(["get", "update", "delete"]))
def test_a_shadow_answers_anything_and_stays_small(payload: bytes, verb: str) -> None:
    shadows = Shadows()
    assert shadows.answer(f"$aws/things/t/shadow/{verb}", payload, 1.0)
    assert len(msgspec.json.encode(shadows.state("t"))) <= MAX_DOCUMENT


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "CANCELED", "?"]),
        "expectedVersion": st.integers(0, 5) | st.text(max_size=2),
        "executionNumber": st.integers(0, 3),
        "statusDetails": st.dictionaries(st.text(max_size=2), st.text(max_size=2) | st.integers(), max_size=2),
        "includeJobDocument": st.booleans(),
        "clientToken": st.text(max_size=3),
    },
)
VERBS = st.sampled_from(["get", "start-next", "one/get", "two/get", "$next/get", "one/update", "two/update", "x/y/z"])


@given(st.lists(st.tuples(VERBS, REQUESTS | st.just({}) | st.binary(max_size=20)), max_size=12))
def test_jobs_answer_anything_and_what_is_final_stays_so(requests: list[tuple[str, object]]) -> None:
    jobs = Jobs()
    for job_id in ("one", "two"):
        jobs.create("t", job_id, {}, 0)
    for verb, request in requests:
        before = {job_id: jobs.execution("t", job_id).state() for job_id in ("one", "two")}
        payload = request if isinstance(request, bytes) else msgspec.json.encode(request)
        replies = jobs.answer(f"$aws/things/t/jobs/{verb}", payload, 1.0)
        assert replies
        for job_id, state in before.items():
            after = jobs.execution("t", job_id)
            assert after.version >= state["versionNumber"]
            if state["status"] not in ("QUEUED", "IN_PROGRESS"):
                assert after.state() == state


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder: Path = tmp_path_factory.mktemp("authority")
    return Authority(folder, "devices", datetime.now(UTC))


@given(
    payload=st.binary(max_size=100)
    | st.fixed_dictionaries(
        {},
        optional={
            "certificateSigningRequest": st.text(max_size=20),
            "certificateOwnershipToken": st.text(max_size=20) | st.integers(),
            "parameters": st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
        },
    ).map(msgspec.json.encode),
    topic=st.sampled_from(["certificates/create-from-csr/json", "provisioning-templates/t/provision/json"]),
)
def test_provisioning_answers_anything_with_a_refusal(authority: Authority, payload: bytes, topic: str) -> None:
    desk = Provisioning(authority, Certificates({}, "ca", just_in_time=False), {"t": Template()})
    (reply,) = desk.answer(f"$aws/{topic}", payload, 1.0) or []
    assert reply.topic.endswith("/rejected")
