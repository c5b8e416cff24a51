"""Jobs as a device sees them (developer guide, "Jobs device MQTT API operations")."""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec

from lorabridge.simulation.standin.services.reply import Audience, Rejected, Reply, build_reply

MAX_LISTED = 15
_TOPIC = re.compile(r"\$aws/things/([^/]+)/jobs/(?:(get|start-next)|([^/]+)/(get|update))")
_NEXT = "$next"


class JobStatus(enum.Enum):
    """Of one execution."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"


PENDING = (JobStatus.IN_PROGRESS, JobStatus.QUEUED)
"""In the order in which they are listed; all others are final."""
_BY_DEVICE = frozenset((JobStatus.IN_PROGRESS, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.REJECTED))


class Execution(msgspec.Struct, kw_only=True):
    """A job for one thing."""

    job_id: str
    thing: str
    document: Any
    queued_at: int
    number: int
    status: JobStatus = JobStatus.QUEUED
    details: dict[str, str] = msgspec.field(default_factory=dict)
    started_at: int | None = None
    updated_at: int = 0
    version: int = 1

    def summary(self) -> dict[str, Any]:
        """JobExecutionSummary."""
        fields = {
            "jobId": self.job_id,
            "queuedAt": self.queued_at,
            "lastUpdatedAt": self.updated_at,
            "executionNumber": self.number,
            "versionNumber": self.version,
        }
        return fields if self.started_at is None else fields | {"startedAt": self.started_at}

    def data(self, *, with_document: bool = True) -> dict[str, Any]:
        """JobExecution."""
        fields = {**self.summary(), "thingName": self.thing, **self.state()}
        return fields | {"jobDocument": self.document} if with_document else fields

    def state(self) -> dict[str, Any]:
        """JobExecutionState."""
        fields: dict[str, Any] = {"status": self.status.value, "versionNumber": self.version}
        return fields | {"statusDetails": self.details} if self.details else fields


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    """All that a request may say. Numbers may be written as text: the guide does so, and the SDK not."""

    client_token: str | None = None
    status: JobStatus | None = None
    status_details: dict[str, str] | None = None
    expected_version: int | None = None
    execution_number: int | None = None
    include_job_document: bool | None = None
    include_job_execution_state: bool = False
    step_timeout_in_minutes: int | None = None


class Jobs:
    """The executions of all things."""

    def __init__(self) -> None:
        self._executions: dict[str, dict[str, Execution]] = {}
        self._last_number = 0

    # What somebody in the cloud does.

    def create(self, thing: str, job_id: str, document: Any, now: float) -> list[Reply]:
        """Queue a job for a thing. Raises ValueError for an id that is there."""
        mine = self._executions.setdefault(thing, {})
        if job_id in mine:
            raise ValueError(f"job {job_id} exists already")
        first = self._next(thing)
        self._last_number += 1
        at = int(now)
        mine[job_id] = Execution(
            job_id=job_id, thing=thing, document=document, queued_at=at, updated_at=at, number=self._last_number
        )
        return self._notices(thing, first, at)

    def cancel(self, thing: str, job_id: str, now: float) -> list[Reply]:
        """Cancel a job. Raises KeyError for an unknown one."""
        first = self._next(thing)
        self._change(self._executions[thing][job_id], JobStatus.CANCELED, int(now))
        return self._notices(thing, first, int(now))

    def execution(self, thing: str, job_id: str) -> Execution:
        """How it stands. Raises KeyError for an unknown one."""
        return self._executions[thing][job_id]

    # What a device does.

    def answer(self, topic: str, payload: bytes, now: float) -> list[Reply] | None:
        """The replies to a request, or None when the topic is none of jobs; `now` is Unix time."""
        if re.match(r"\$aws/things/[^/]+/jobs/", topic) is None:
            return None
        token: str | None = None
        thing = topic.split("/")[2]
        first, before = self._next(thing), self._pending(thing)
        try:
            request = _parse(payload)
            token = request.client_token
            fields = self._carry_out(topic, request, int(now))
        except Rejected as rejected:
            fields = {"code": rejected.code, "message": rejected.message, **rejected.more}
            topic += "/rejected"
            notices = []
        else:
            topic += "/accepted"
            notices = [] if before == self._pending(thing) else self._notices(thing, first, int(now))
        told = {**fields, "timestamp": int(now), "clientToken": token}
        return [build_reply(topic, told, Audience.ASKER), *notices]

    def _carry_out(self, topic: str, request: _Request, now: int) -> dict[str, Any]:
        asked = _TOPIC.fullmatch(topic)
        if asked is None:
            raise Rejected("InvalidTopic", "no operation of this name")
        thing, verb, job_id = asked[1], asked[2], asked[3]
        if verb == "get":
            return self._listed(thing)
        if verb == "start-next":
            return self._start_next(thing, request, now)
        if asked[4] == "get":
            return self._describe(thing, job_id, request)
        return self._update(thing, job_id, request, now)

    def _listed(self, thing: str) -> dict[str, Any]:
        names = {JobStatus.IN_PROGRESS: "inProgressJobs", JobStatus.QUEUED: "queuedJobs"}
        pending = self._in_order(thing)
        return {name: [one.summary() for one in pending if one.status is status] for status, name in names.items()}

    def _start_next(self, thing: str, request: _Request, now: int) -> dict[str, Any]:
        execution = self._next(thing)
        if execution is None:
            return {}
        if execution.status is JobStatus.QUEUED:
            execution.details = request.status_details or execution.details
            execution.started_at = now
            self._change(execution, JobStatus.IN_PROGRESS, now)
        return {"execution": execution.data()}

    def _describe(self, thing: str, job_id: str, request: _Request) -> dict[str, Any]:
        with_document = request.include_job_document is not False
        if job_id == _NEXT:
            execution = self._next(thing)
            return {} if execution is None else {"execution": execution.data(with_document=with_document)}
        execution = self._found(thing, job_id, request)
        if execution.status not in PENDING:
            raise Rejected("TerminalStateReached", "the job execution is in a terminal state")
        return {"execution": execution.data(with_document=with_document)}

    def _update(self, thing: str, job_id: str, request: _Request, now: int) -> dict[str, Any]:
        execution = self._found(thing, job_id, request)
        if request.status not in _BY_DEVICE:
            raise Rejected("InvalidRequest", "status is missing, or none that a device may set")
        if request.expected_version not in (None, execution.version):
            what = f"expected version {request.expected_version}, it is {execution.version}"
            raise Rejected("VersionMismatch", what, executionState=execution.state())
        if execution.status not in PENDING:
            what = f"cannot go from {execution.status.value} to {request.status.value}"
            raise Rejected("InvalidStateTransition", what, executionState=execution.state())
        if execution.started_at is None:
            execution.started_at = now
        if request.status_details is not None:
            execution.details = request.status_details
        self._change(execution, request.status, now)
        return {
            "executionState": execution.state() if request.include_job_execution_state else None,
            "jobDocument": execution.document if request.include_job_document else None,
        }

    # Inside.

    def _found(self, thing: str, job_id: str, request: _Request) -> Execution:
        execution = self._executions.get(thing, {}).get(job_id)
        if execution is None or request.execution_number not in (None, execution.number):
            raise Rejected("ResourceNotFound", f"no execution of job {job_id} for {thing}")
        return execution

    def _change(self, execution: Execution, status: JobStatus, now: int) -> None:
        execution.status, execution.updated_at = status, now
        execution.version += 1

    def _in_order(self, thing: str) -> list[Execution]:
        """What is pending: in progress first, then as it was queued."""
        pending = [one for one in self._executions.get(thing, {}).values() if one.status in PENDING]
        return sorted(pending, key=lambda one: (PENDING.index(one.status), one.number))

    def _pending(self, thing: str) -> list[tuple[str, JobStatus]]:
        return [(one.job_id, one.status) for one in self._in_order(thing)]

    def _next(self, thing: str) -> Execution | None:
        return next(iter(self._in_order(thing)), None)

    def _notices(self, thing: str, was_first: Execution | None, now: int) -> list[Reply]:
        """`notify` of every change, `notify-next` only when another execution is the next."""
        own = f"$aws/things/{thing}/jobs"
        jobs: dict[str, list[dict[str, Any]]] = {}
        for one in self._in_order(thing)[:MAX_LISTED]:
            jobs.setdefault(one.status.value, []).append(one.summary())
        replies = [build_reply(f"{own}/notify", {"timestamp": now, "jobs": jobs})]
        if (first := self._next(thing)) is not was_first:
            fields = {"timestamp": now, "execution": None if first is None else first.data()}
            replies.append(build_reply(f"{own}/notify-next", fields))
        return replies


def _parse(payload: bytes) -> _Request:
    if not payload:
        return _Request()
    try:
        raw = msgspec.json.decode(payload)
    except msgspec.DecodeError as error:
        raise Rejected("InvalidJson", str(error)) from None
    try:
        return msgspec.convert(raw, _Request, strict=False)
    except msgspec.ValidationError as error:
        raise Rejected("InvalidRequest", str(error)) from None
