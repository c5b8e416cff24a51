"""What each kind of record is called in the cloud, within the limits of AWS IoT Core.

Limits: 256 bytes and 7 slashes a topic, the prefix `$aws/rules/<rule>/` of Basic Ingest not counted
(AWS IoT Core quotas; developer guide, Basic Ingest). Everything is checked at configuration time,
with the longest value of every placeholder, so that no record can meet a topic that does not fit.
"""

from __future__ import annotations

import re
import string
from typing import Annotated

import msgspec
from msgspec import Meta

from lorabridge.errors import Problem
from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.settings import did_you_mean

MAX_TOPIC_BYTES = 256
MAX_TOPIC_SLASHES = 7
MAX_TARGET = 64
"""Characters of what a command may be for: a DevEUI, or the name of a multicast group."""

_RULE_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")
_OF_RECORDS = ("gateway_id", "kind", "dev_eui")
_OF_COMMANDS = ("gateway_id", "target")
_WITH_DEVICE = (EventKind.UPLINK, EventKind.UPLINK_COPY, EventKind.JOIN, EventKind.MAC)
_LONGEST_DEV_EUI = EUI64(0xFFFF_FFFF_FFFF_FFFF)
_LONGEST_TARGET = "x" * MAX_TARGET


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[aws_iot.topics]`: a template a kind; `{gateway_id}` and `{kind}` everywhere, `{dev_eui}` where one is sure."""

    uplink: Annotated[str, Meta(description="topic of verified uplinks")] = "lorabridge/{gateway_id}/uplink/{dev_eui}"
    uplink_copy: Annotated[str, Meta(description="topic of further receptions of an uplink")] = (
        "lorabridge/{gateway_id}/uplink_copy/{dev_eui}"
    )
    security: Annotated[str, Meta(description="topic of security events")] = "lorabridge/{gateway_id}/security"
    join: Annotated[str, Meta(description="topic of devices that join")] = "lorabridge/{gateway_id}/join/{dev_eui}"
    downlink_result: Annotated[str, Meta(description="topic of what became of downlink commands")] = (
        "lorabridge/{gateway_id}/downlink_result"
    )
    mac: Annotated[str, Meta(description="topic of what the MAC layer of a device reports")] = (
        "lorabridge/{gateway_id}/mac/{dev_eui}"
    )
    radio: Annotated[str, Meta(description="topic of radios and gateways that fail or come back")] = (
        "lorabridge/{gateway_id}/radio"
    )
    outbox: Annotated[str, Meta(description="topic of records that were dropped or parked")] = (
        "lorabridge/{gateway_id}/outbox"
    )
    batch: Annotated[str, Meta(description='topic of several records in one publish (`batching = "auto"`)')] = (
        "lorabridge/{gateway_id}/batch"
    )
    gateway_stats: Annotated[str, Meta(description="topic of statistics")] = "lorabridge/{gateway_id}/gateway_stats"
    status: Annotated[str, Meta(description="topic of birth, last will and clean stop")] = (
        "lorabridge/{gateway_id}/status"
    )
    command: Annotated[
        str,
        Meta(
            description="topic that downlink commands come on; `{target}`, one whole level of it, is the DevEUI in "
            "16 hex digits or the name of a multicast group"
        ),
    ] = "lorabridge/{gateway_id}/cmd/{target}"
    basic_ingest_rule: Annotated[
        str,
        Meta(
            description="name of an AWS IoT rule: every kind but `status` is published under `$aws/rules/<rule>/`, "
            "straight to that rule (Basic Ingest); nobody can subscribe to such topics, nor do they keep a last will"
        ),
    ] = ""


class Topics:
    """The topics of one gateway. `check` must have found nothing wrong with the settings."""

    def __init__(self, settings: TopicSettings, gateway_id: str) -> None:
        self._templates = {kind: _filled(settings, kind, gateway_id) for kind in EventKind}
        levels = settings.command.format(gateway_id=gateway_id, target="+").split("/")
        self.command_filter = "/".join(levels)
        """What to subscribe to for commands."""
        self._target_at = levels.index("+")
        self._command_levels = levels

    def topic(self, kind: EventKind, dev_eui: EUI64 | None) -> str:
        """The topic of a record of `kind`; `dev_eui` is used by the kinds that always have one."""
        before, placeholder, after = self._templates[kind]
        return f"{before}{dev_eui}{after}" if placeholder else before

    def target(self, topic: str) -> str | None:
        """What a command on this topic is for, as the topic says it; None when it is no topic of commands."""
        levels = topic.split("/")
        if len(levels) != len(self._command_levels):
            return None
        target, levels[self._target_at] = levels[self._target_at], "+"
        return target if target and levels == self._command_levels else None


def check(settings: TopicSettings, gateway_id: str, where: str = "aws_iot.topics") -> list[Problem]:
    """Everything that is wrong with the topics of this gateway; `where` is the place of the table."""
    problems = _check_gateway_id(gateway_id, where)
    stand_in = "gateway" if problems else gateway_id  # one wrong id is one problem, not one more in every template
    rule = settings.basic_ingest_rule
    if rule and not _RULE_NAME.fullmatch(rule):
        what = "is not the name of an AWS IoT rule"
        hint = "letters, digits and _ only; the name alone, without $aws/rules/"
        problems.append(Problem(where=f"{where}.basic_ingest_rule", what=what, hint=hint))
    for kind in EventKind:
        problems += _check_template(_template(settings, kind), kind, stand_in, f"{where}.{kind.value}")
    problems += _check_command(settings.command, stand_in, f"{where}.command")
    return problems or _check_apart(settings, stand_in, f"{where}.command")


def _check_gateway_id(gateway_id: str, where: str) -> list[Problem]:
    if gateway_id and not set(gateway_id) & set("/+#${}") and gateway_id.isprintable():
        return []
    what = f"the gateway id {gateway_id!r} cannot stand in a topic"
    return [Problem(where=where, what=what, hint="it must not be empty nor contain / + # $ { } or control characters")]


def _check_template(template: str, kind: EventKind, gateway_id: str, where: str) -> list[Problem]:
    """What is wrong with one template; its form first, and only a well-formed one is filled in and measured."""
    names, problems = _check_placeholders(template, _OF_RECORDS, where)
    if "dev_eui" in names and kind not in _WITH_DEVICE:
        hint = f"use it in {', '.join(kind.value for kind in _WITH_DEVICE)} only"
        problems.append(Problem(where=where, what=f"a {kind.value} record may have no device", hint=hint))
    if names.count("dev_eui") > 1:
        problems.append(Problem(where=where, what="{dev_eui} stands in it twice", hint="once is enough"))
    return problems or _check_topic(
        template.format(gateway_id=gateway_id, kind=kind.value, dev_eui=_LONGEST_DEV_EUI), where
    )


def _check_command(template: str, gateway_id: str, where: str) -> list[Problem]:
    """What is wrong with the template that commands come on."""
    _, problems = _check_placeholders(template, _OF_COMMANDS, where)
    if not problems and [level for level in template.split("/") if "{target}" in level] != ["{target}"]:
        hint = "as in lorabridge/{gateway_id}/cmd/{target}"
        problems.append(Problem(where=where, what="{target} must be exactly one whole level", hint=hint))
    return problems or _check_topic(template.format(gateway_id=gateway_id, target=_LONGEST_TARGET), where)


def _check_apart(settings: TopicSettings, gateway_id: str, where: str) -> list[Problem]:
    """Our own records must not come back to us as commands. Every template must be in order."""
    topics = Topics(settings, gateway_id)
    return [
        Problem(where=where, what=f"the records of {kind.value} would be taken for commands", hint="add a level")
        for kind in EventKind
        if topics.target(topics.topic(kind, _LONGEST_DEV_EUI)) is not None
    ]


def _check_placeholders(template: str, known: tuple[str, ...], where: str) -> tuple[list[str], list[Problem]]:
    """The placeholders of a template, and what is wrong with them."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        return [], [Problem(where=where, what=f"is no template: {error}", hint="write placeholders as {gateway_id}")]
    problems: list[Problem] = []
    for name in names:
        if name not in known:
            what = f"unknown placeholder {{{name}}}"
            problems.append(Problem(where=where, what=what, hint=did_you_mean(name, list(known))))
        elif template.count(f"{{{name}}}") != names.count(name):
            what = "a placeholder is a name in braces, without conversion or format"
            problems.append(Problem(where=where, what=what, hint=f"write {{{name}}}"))
    return names, problems


def _check_topic(topic: str, where: str) -> list[Problem]:
    """What is wrong with a topic as it will be published, its Basic Ingest prefix left out."""
    slashes, size = topic.count("/"), len(topic.encode("utf-8", "replace"))
    wrong = {
        "a level of the topic is empty": (not all(topic.split("/")), "no / at the start or end, and no //"),
        "wildcards cannot be published to": (bool(set(topic) & set("+#")), "remove + and #"),
        "topics that start with $ are reserved": (topic.startswith("$"), "for Basic Ingest set basic_ingest_rule"),
        "control characters do not belong into a topic": (not topic.isprintable(), "printable characters only"),
        f"{slashes} slashes, AWS IoT allows {MAX_TOPIC_SLASHES}": (slashes > MAX_TOPIC_SLASHES, "use fewer levels"),
        f"{size} bytes, AWS IoT allows {MAX_TOPIC_BYTES}": (size > MAX_TOPIC_BYTES, "shorten it or the gateway id"),
    }
    return [Problem(where=where, what=what, hint=hint) for what, (is_wrong, hint) in wrong.items() if is_wrong]


def _template(settings: TopicSettings, kind: EventKind) -> str:
    return {
        EventKind.UPLINK: settings.uplink,
        EventKind.UPLINK_COPY: settings.uplink_copy,
        EventKind.SECURITY: settings.security,
        EventKind.JOIN: settings.join,
        EventKind.DOWNLINK_RESULT: settings.downlink_result,
        EventKind.MAC: settings.mac,
        EventKind.RADIO: settings.radio,
        EventKind.OUTBOX: settings.outbox,
        EventKind.BATCH: settings.batch,
        EventKind.GATEWAY_STATS: settings.gateway_stats,
        EventKind.STATUS: settings.status,
    }[kind]


def _filled(settings: TopicSettings, kind: EventKind, gateway_id: str) -> tuple[str, str, str]:
    """A template with everything but the device filled in, parted where the device goes."""
    rule = settings.basic_ingest_rule
    prefix = f"$aws/rules/{rule}/" if rule and kind is not EventKind.STATUS else ""
    device = "{dev_eui}"
    filled = _template(settings, kind).format(gateway_id=gateway_id, kind=kind.value, dev_eui=device)
    return (prefix + filled).partition(device)
