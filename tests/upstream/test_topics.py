from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.topics import Topics, TopicSettings, check

EUI = EUI64(0x70B3D57ED0000001)


def test_the_defaults_are_in_order_and_name_gateway_kind_and_device() -> None:
    assert check(TopicSettings(), "gw-1") == []
    topics = Topics(TopicSettings(), "gw-1")
    assert topics.topic(EventKind.UPLINK, EUI) == "lorabridge/gw-1/uplink/70b3d57ed0000001"
    assert topics.topic(EventKind.UPLINK_COPY, EUI) == "lorabridge/gw-1/uplink_copy/70b3d57ed0000001"
    assert topics.topic(EventKind.SECURITY, EUI) == "lorabridge/gw-1/security"
    assert topics.topic(EventKind.GATEWAY_STATS, None) == "lorabridge/gw-1/gateway_stats"
    assert topics.topic(EventKind.STATUS, None) == "lorabridge/gw-1/status"
    assert topics.topic(EventKind.JOIN, EUI) == "lorabridge/gw-1/join/70b3d57ed0000001"
    assert topics.topic(EventKind.MAC, EUI) == "lorabridge/gw-1/mac/70b3d57ed0000001"
    assert topics.topic(EventKind.DOWNLINK_RESULT, EUI) == "lorabridge/gw-1/downlink_result"
    assert topics.topic(EventKind.DOWNLINK_RESULT, None) == "lorabridge/gw-1/downlink_result"


def test_commands_come_on_one_level_for_each_target() -> None:
    topics = Topics(TopicSettings(), "gw-1")
    assert topics.command_filter == "lorabridge/gw-1/cmd/+"
    assert topics.target("lorabridge/gw-1/cmd/70b3d57ed0000001") == "70b3d57ed0000001"
    assert topics.target("lorabridge/gw-1/cmd/street lamps") == "street lamps"
    for other in (
        "lorabridge/gw-1/cmd",
        "lorabridge/gw-1/cmd/",
        "lorabridge/gw-1/cmd/a/b",
        "lorabridge/gw-2/cmd/a",
        "",
    ):
        assert topics.target(other) is None
    middle = Topics(TopicSettings(command="{target}/x/{gateway_id}"), "gw-1")
    assert middle.command_filter == "+/x/gw-1"
    assert middle.target("a/x/gw-1") == "a"


@pytest.mark.parametrize(
    ("template", "says", "hints"),
    [
        ("a/b", "exactly one whole level", "lorabridge/{gateway_id}/cmd/{target}"),
        ("a/{target}/{target}", "exactly one whole level", "cmd"),
        ("a/x{target}", "exactly one whole level", "cmd"),
        ("a/{target}{target}", "exactly one whole level", "cmd"),
        ("a/{target!s}", "without conversion", "write {target}"),
        ("a/{dev_eui}", "unknown placeholder {dev_eui}", "known here: gateway_id, target"),
        ("a/{targets}", "unknown placeholder {targets}", "did you mean target?"),
        ("a/{target", "is no template", "write placeholders"),
        ("a/+/{target}", "wildcards", "remove"),
        ("$aws/{target}", "reserved", "basic_ingest_rule"),
        ("x" * 192 + "/{target}", "257 bytes", "shorten"),
        ("lorabridge/{gateway_id}/{target}", "records of security would be taken for commands", "add a level"),
    ],
)
def test_a_topic_that_commands_cannot_come_on_is_refused_at_configuration_time(
    template: str, says: str, hints: str
) -> None:
    problem, *more = check(TopicSettings(command=template), "gw-1", "bridge.toml: aws_iot.topics")
    assert problem.where == "bridge.toml: aws_iot.topics.command"
    assert says in problem.what
    assert hints in problem.hint
    assert not more or "taken for commands" in problem.what


def test_one_setting_switches_all_but_the_status_to_basic_ingest() -> None:
    settings = TopicSettings(basic_ingest_rule="lorawan_uplink")
    assert check(settings, "gw-1") == []
    topics = Topics(settings, "gw-1")
    assert topics.topic(EventKind.UPLINK, EUI) == ("$aws/rules/lorawan_uplink/lorabridge/gw-1/uplink/70b3d57ed0000001")
    assert topics.topic(EventKind.SECURITY, None) == "$aws/rules/lorawan_uplink/lorabridge/gw-1/security"
    assert topics.topic(EventKind.STATUS, None) == "lorabridge/gw-1/status"


@pytest.mark.parametrize(
    ("template", "says", "hints"),
    [
        ("a/{dev_euy}", "unknown placeholder {dev_euy}", "did you mean dev_eui?"),
        ("a/{}", "unknown placeholder {}", "known here: gateway_id, kind, dev_eui"),
        ("a/{gateway_id!r}", "without conversion or format", "write {gateway_id}"),
        ("a/{gateway_id:>9}", "without conversion or format", "write {gateway_id}"),
        ("a/{dev_eui}/{dev_eui}", "stands in it twice", "once"),
        ("a/{dev_eui", "is no template", "write placeholders"),
        ("a//{dev_eui}", "level of the topic is empty", "no //"),
        ("/a", "level of the topic is empty", "no / at the start"),
        ("", "level of the topic is empty", "no / at the start"),
        ("a/#", "wildcards", "remove"),
        ("a/+/b", "wildcards", "remove"),
        ("$aws/things/x/shadow/update", "reserved", "basic_ingest_rule"),
        ("a\x00b", "control characters", "printable"),
        ("1/2/3/4/5/6/7/8/9", "8 slashes", "fewer levels"),
        ("x" * 257, "257 bytes", "shorten"),
        ("é" * 129, "258 bytes", "shorten"),
    ],
)
def test_a_topic_that_aws_would_refuse_is_refused_at_configuration_time(template: str, says: str, hints: str) -> None:
    (problem,) = check(TopicSettings(uplink=template), "gw-1", "bridge.toml: aws_iot.topics")
    assert problem.where == "bridge.toml: aws_iot.topics.uplink"
    assert says in problem.what
    assert hints in problem.hint
    assert not problem.warning


def test_seven_slashes_and_256_bytes_are_still_allowed() -> None:
    assert check(TopicSettings(uplink="1/2/3/4/5/6/7/8", security="x" * 256, basic_ingest_rule="r" * 128), "gw") == []


def test_the_device_stands_only_in_topics_of_records_that_always_have_one() -> None:
    (problem,) = check(TopicSettings(security="a/{dev_eui}"), "gw")
    assert "may have no device" in problem.what
    (problem,) = check(TopicSettings(downlink_result="a/{dev_eui}"), "gw")
    assert "may have no device" in problem.what


@pytest.mark.parametrize("gateway_id", ["", "a/b", "a+b", "#", "$x", "a\nb", "{kind}"])
def test_a_gateway_id_that_would_change_the_topic_is_refused(gateway_id: str) -> None:
    assert any("gateway id" in problem.what for problem in check(TopicSettings(), gateway_id))


@pytest.mark.parametrize("rule", ["$aws/rules/x", "a/b", "a b", "x" * 129])
def test_only_the_bare_name_of_a_rule_is_accepted(rule: str) -> None:
    (problem,) = check(TopicSettings(basic_ingest_rule=rule), "gw")
    assert problem.where == "aws_iot.topics.basic_ingest_rule"


def test_every_problem_is_told_at_once() -> None:
    problems = check(TopicSettings(uplink="a//#", status="$x", basic_ingest_rule="-"), "")
    places = sorted(problem.where.removeprefix("aws_iot.topics") for problem in problems)
    assert places == ["", ".basic_ingest_rule", ".status", ".uplink", ".uplink"]


@given(uplink=st.text(st.sampled_from("ab/{}+#$é:! dev_eui"), max_size=40), dev_eui=st.integers(0, 2**64 - 1))
def test_what_passes_the_check_is_a_topic_that_aws_takes(uplink: str, dev_eui: int) -> None:
    settings = TopicSettings(uplink=uplink)
    if check(settings, "gw"):
        return
    topic = Topics(settings, "gw").topic(EventKind.UPLINK, EUI64(dev_eui))
    assert len(topic.encode()) <= 256
    assert topic.count("/") <= 7
    assert all(topic.split("/"))
    assert not set(topic) & set("+#")
    assert not topic.startswith("$")
    if "{dev_eui}" in uplink:
        assert str(EUI64(dev_eui)) in topic
