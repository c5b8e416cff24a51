"""What `lorabridge doctor` finds: the configuration, the bridge that may be at work, and the way to the endpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from lorabridge import __version__
from lorabridge.daemon import config as configuration
from lorabridge.daemon import status
from lorabridge.daemon.check import check_store_folder
from lorabridge.daemon.config import Config
from lorabridge.errors import ConfigError
from lorabridge.lorawan.events import Status
from lorabridge.store.files import holder
from lorabridge.upstream import schema
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.doctor.reach import Surroundings
from lorabridge.upstream.doctor.session import Subject
from lorabridge.upstream.doctor.steps import MQTT, STEP_OF, Finding, Outcome, Step, failed, not_reached, of_problems
from lorabridge.upstream.doctor.walk import other_way, walk
from lorabridge.upstream.faults import LinkFault, LinkState
from lorabridge.upstream.inbound import Subscription

_PATIENCE = 5.0
_TAKE_OVER = "--take-over connects all the same: the bridge is thrown out then, and comes back by itself"
_LOOK_AGAIN = f"Ask with more rights (sudo), or stop the service first; {_TAKE_OVER}"


def examine(path: Path, *, take_over: bool = False, around: Surroundings | None = None) -> Iterator[Finding]:
    """Every step, each as soon as it is known, and in the end those that were not reached."""
    findings: list[Finding] = []
    for finding in _examine(path, take_over, around):
        findings.append(finding)
        yield finding
    yield from not_reached(findings)


def _examine(path: Path, take_over: bool, around: Surroundings | None) -> Iterator[Finding]:
    try:
        config, fingerprint = configuration.load(path)
    except ConfigError as error:
        yield of_problems(Step.CONFIGURATION, error.problems, "")
        return
    link = config.aws_iot
    if link is None:
        says = f"{path}: [mqtt], and the way to a broker that is not AWS IoT is not walked"
        yield Finding(Step.CONFIGURATION, Outcome.WARNING, says, "lorabridge check and lorabridge status tell of it.")
        return
    yield Finding(Step.CONFIGURATION, Outcome.OK, f"{path}: {link.thing_name} to {link.endpoint} {_how(link)}")
    folder = Path(config.store.path).parent
    yield of_problems(Step.DISK, check_store_folder(config, str(path)), f"{folder} can be written to")
    found, instead = _find_bridge(config)
    throws_out = take_over and instead is not None
    if throws_out:
        found, instead = msgspec.structs.replace(found, says=f"{found.says}; it is thrown out now", fix=""), None
    yield found
    around = around or Surroundings(other=other_way(link))
    yield from walk(_subject(config, link, fingerprint, throws_out=throws_out), around, instead)


def _how(link: AwsIotSettings) -> str:
    return f"port {link.port}" if link.transport == "tls" else f"by WebSocket, as role {link.websocket.role_alias}"


def _subject(config: Config, link: AwsIotSettings, fingerprint: str, *, throws_out: bool) -> Subject:
    def payload(state: str, detail: str) -> bytes:
        said = Status(
            at=time.time_ns(), state=state, version=__version__, config_fingerprint=fingerprint, detail=detail
        )
        return schema.encode(said, config.gateway.id).payload

    return Subject(
        settings=link,
        gateway_id=config.gateway.id,
        status=payload,
        subscribes=config.downlinks.enabled,
        throws_out=throws_out,
    )


def _find_bridge(config: Config) -> tuple[Finding, list[Finding] | None]:
    """Whether a bridge with our client id is at work here, and then what it, or nobody, knows of the MQTT steps."""
    path = config.report.status_socket
    try:
        answer = status.ask(path, _PATIENCE)
    except PermissionError:
        says = f"one may be at work: {path} is not ours to open"
    except (OSError, ValueError) as error:
        process = holder(Path(config.store.path))
        if process is None:
            return Finding(Step.BRIDGE, Outcome.OK, "none is at work on this machine: we connect in its place"), None
        says = f"process {process} has the database open, but {path} does not answer: {error}"
    else:
        return _at_work(answer), _told(answer)
    unknown = [Finding(step, Outcome.SKIPPED, "we would throw out the bridge that may be at work") for step in MQTT]
    return Finding(Step.BRIDGE, Outcome.WARNING, says, f"{_LOOK_AGAIN}."), unknown


def _at_work(answer: dict[str, Any]) -> Finding:
    """The running bridge itself, and what ails it beside the link."""
    says = f"one is at work since {answer.get('uptime_s', 0)} s; it is asked, and no second connection is made"
    ails = [f"stuck: {name}" for name in answer["stuck"]]
    if (store := answer.get("store", "ok")) != "ok":
        ails.append(f"database: {store}")
    if answer.get("paused"):
        ails.append("sending is paused by the shadow")
    if parked := answer["counters"].get("outbox_parked", 0):
        ails.append(f"{parked} records are parked: the endpoint hung up on them")
    if ails:
        return Finding(Step.BRIDGE, Outcome.WARNING, f"{says}; {'; '.join(ails)}", "lorabridge status tells more.")
    return Finding(Step.BRIDGE, Outcome.OK, says, f"{_TAKE_OVER}.")


def _told(answer: dict[str, Any]) -> list[Finding]:
    """What the running bridge knows of the MQTT steps."""
    if answer.get("link") == LinkState.ONLINE.value:
        return _told_online(answer)
    detail = f"as the running bridge says: {answer.get('link_detail')}"
    fault = next((fault for fault in LinkFault if fault.value == answer.get("link_fault")), None)
    if fault is not None and STEP_OF[fault] in MQTT:
        return [failed(fault, detail)]
    said = "" if fault is None else f", {fault}: {answer.get('link_detail')}"
    says = f"the running bridge is not connected ({answer.get('link')}{said}), and all before MQTT passed just now"
    return [Finding(Step.CONNECT, Outcome.WARNING, says, "Wait for its next try: lorabridge status tells of it.")]


def _told_online(answer: dict[str, Any]) -> list[Finding]:
    counters: dict[str, int] = answer["counters"]
    count = counters.get("link_acknowledged", 0)
    thrown_out = counters.get(f"link_fault_{LinkFault.TAKEN_OVER}", 0)
    found = [Finding(Step.CONNECT, Outcome.OK, "the running bridge is connected")]
    if count:
        found.append(Finding(Step.PUBLISH, Outcome.OK, f"{count} records of the running bridge have their PUBACK"))
    else:
        found.append(Finding(Step.PUBLISH, Outcome.SKIPPED, "the running bridge has had nothing to publish yet"))
    if thrown_out:
        says = f"the running bridge was thrown out {thrown_out} times by another with its client id"
        found.append(Finding(Step.ALONE, Outcome.FAILED, says, LinkFault.TAKEN_OVER.hint, LinkFault.TAKEN_OVER))
    else:
        found.append(Finding(Step.ALONE, Outcome.OK, "the running bridge was not thrown out by another"))
    match answer.get("commands"):
        case Subscription.ON.value:
            found.append(Finding(Step.SUBSCRIBE, Outcome.OK, "the running bridge receives commands"))
        case Subscription.REFUSED.value:
            found.append(failed(LinkFault.SUBSCRIBE_REFUSED, "as the running bridge says"))
        case other:
            found.append(Finding(Step.SUBSCRIBE, Outcome.SKIPPED, f"the running bridge says {other}"))
    return found
