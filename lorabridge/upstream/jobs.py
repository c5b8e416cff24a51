"""AWS IoT Jobs: what somebody may order this gateway to do, one thing after the other, and how that is answered.

AWS IoT developer guide, "Jobs device MQTT API". A job document is `{"operation": NAME, …}` with the fields of one
of OPERATIONS and no others; anything else is REJECTED and changes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from lorabridge.upstream.service_topics import ServiceTopic

_LOGGER = logging.getLogger(__name__)
_JOB_ID = re.compile(r"[a-zA-Z0-9:_-]{1,64}", re.ASCII)

MAX_DETAIL: Final = 1024
"""Characters of one value of `statusDetails` (AWS IoT quotas)."""
IN_PROGRESS, SUCCEEDED, FAILED, REJECTED = "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"


class _Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="operation"):
    """One thing that can be ordered."""


class ReloadDevices(_Operation, frozen=True, tag="reload-devices"):
    """Read the device files anew, as `systemctl reload lorabridge` does."""


class RequestCertificate(_Operation, frozen=True, tag="request-certificate"):
    """Make a new private key, which stays on the gateway, and answer with a signing request for it (`csr`)."""


class InstallCertificate(_Operation, frozen=True, kw_only=True, tag="install-certificate"):
    """Put the certificate for the last requested key into use, and prove it; the one before it comes back otherwise."""

    certificate_pem: Annotated[str, Meta(max_length=16_384, description="PEM, with its chain where there is one")]


Operation = ReloadDevices | RequestCertificate | InstallCertificate
OPERATIONS: Final[tuple[type[Operation], ...]] = (ReloadDevices, RequestCertificate, InstallCertificate)


class Job(msgspec.Struct, frozen=True):
    """One order."""

    id: str
    operation: Operation
    is_resumed: bool
    """It was begun before: the bridge was restarted, or the connection broke."""


class Jobs:
    """Hears of jobs and answers them. `run` is called with one job at a time, and must lead to one `finish`."""

    def __init__(self, thing_name: str, *, say: Callable[[str, bytes], bool], run: Callable[[Job], None]) -> None:
        """`say` publishes, and says whether it could."""
        self._prefix = f"$aws/things/{thing_name}/jobs"
        self._say = say
        self._run = run
        self._next = ServiceTopic(f"{self._prefix}/$next/get/accepted", self._heard, granted=self._ask)
        self._notify = ServiceTopic(f"{self._prefix}/notify-next", self._heard)
        self._must_ask = False
        self._running: str | None = None
        self._answers: dict[str, bytes] = {}
        self._over: str | None = None
        self.counters = {"begun": 0, "succeeded": 0, "failed": 0, "rejected": 0}

    @property
    def topics(self) -> Sequence[ServiceTopic]:
        """To be subscribed to, in this order."""
        return self._notify, self._next

    def tick(self) -> None:
        """Ask and answer what could not be said before; to be called about once a second."""
        if not self._next.is_granted:
            return
        for job_id, answer in list(self._answers.items()):
            if not self._say(f"{self._prefix}/{job_id}/update", answer):
                return
            del self._answers[job_id]
        if self._must_ask and self._say(f"{self._prefix}/$next/get", b'{"includeJobDocument":true}'):
            self._must_ask = False

    def finish(self, job: Job, status: str, details: Mapping[str, str]) -> None:
        """Say how it went; `details` are for whoever ordered it."""
        self.counters[status.lower()] += 1
        self._running, self._over = None, job.id
        self._update(job.id, status, details)
        self._must_ask = True  # there may be another

    def _ask(self) -> None:
        self._must_ask = self._running is None

    def _update(self, job_id: str, status: str, details: Mapping[str, str]) -> None:
        short = {name: text[:MAX_DETAIL] for name, text in details.items()}
        self._answers[job_id] = msgspec.json.encode({"status": status, "statusDetails": short})

    def _heard(self, payload: bytes) -> None:
        """`{"execution": …}` of the next job, or nothing when there is none."""
        try:
            execution = msgspec.json.decode(payload, type=dict[str, Any]).get("execution") or {}
            job_id, status, document = execution["jobId"], execution["status"], execution["jobDocument"]
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            return
        if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
            return
        if self._running is not None or job_id == self._over:  # told twice, or before our answer had arrived
            return
        try:
            operation = msgspec.convert(document, Operation)
        except msgspec.ValidationError as error:
            self.counters["rejected"] += 1
            self._over = job_id
            self._update(job_id, REJECTED, {"reason": str(error)})
            self._must_ask = True
            _LOGGER.warning("a job was rejected", extra={"fields": {"job": job_id, "reason": str(error)}})
            return
        self._running = job_id
        self.counters["begun"] += 1
        if status != IN_PROGRESS:
            self._update(job_id, IN_PROGRESS, {})
        _LOGGER.info("a job begins", extra={"fields": {"job": job_id, "operation": _name(operation)}})
        self._run(Job(job_id, operation, status == IN_PROGRESS))


def _name(operation: Operation) -> str:
    return str(type(operation).__struct_config__.tag)
