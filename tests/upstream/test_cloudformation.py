"""The cloud's side as files: well formed by AWS's own schemas, and granting what a gateway does and nothing more.

moto has no provisioning templates and evaluates no policies; what a policy grants is judged here by its text.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from lorabridge.lorawan.events import EventKind
from lorabridge.lorawan.types import EUI64
from lorabridge.upstream.jobs import Jobs
from lorabridge.upstream.provisioning import CREATE_FROM_CSR, new_key
from lorabridge.upstream.shadow import Shadow
from lorabridge.upstream.topics import Topics, TopicSettings

TEMPLATE = Path(__file__).parents[2] / "docs" / "cloudformation" / "lorabridge.yaml"
ARN = "arn:aws:iot:eu-central-1:123456789012:"
EUI = EUI64(0x70B3D57ED0000001)


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short functions."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    assert isinstance(node, yaml.SequenceNode)
    return {suffix: loader.construct_sequence(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


def _resources() -> dict[str, Any]:
    resources: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)["Resources"]  # our own file
    return resources


def _text(value: Any) -> str:
    """A value after `Fn::Sub`, for one account, region and gateway."""
    text = value["Sub"] if isinstance(value, dict) else value
    known = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}
    known |= {"Name": "lorabridge", "GatewayType": "lorabridge-gateway", "GatewayPolicy": "lorabridge-gateway"}
    text = re.sub(r"\$\{([A-Za-z:]+)\}", lambda found: known[found[1]], text)
    return text.replace("${!iot:Connection.Thing.ThingName}", "gw-1")


def _allows(policy: str, action: str, resource: str) -> bool:
    """Whether a statement matches: `*` stands for anything, and in AWS policies `+` and `#` for themselves."""
    for statement in _resources()[policy]["Properties"]["PolicyDocument"]["Statement"]:
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"]
        for pattern in resources if isinstance(resources, list) else [resources]:
            form = ".*".join(map(re.escape, _text(pattern).split("*")))
            if statement["Action"] == action and re.fullmatch(form, ARN + resource):
                return True
    return False


def test_the_template_is_in_order_by_the_schemas_of_aws() -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([lint, TEMPLATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("rule", ["", "lorabridge_records"])
def test_a_gateway_may_publish_and_hear_all_that_it_has_to(rule: str) -> None:
    topics = Topics(TopicSettings(basic_ingest_rule=rule), "gw-1")
    for kind in EventKind:
        assert _allows("GatewayPolicy", "iot:Publish", f"topic/{topics.topic(kind, EUI)}"), kind
    assert _allows("GatewayPolicy", "iot:Connect", "client/gw-1")
    assert _allows("GatewayPolicy", "iot:Subscribe", f"topicfilter/{topics.command_filter}")
    assert _allows("GatewayPolicy", "iot:Receive", f"topic/lorabridge/gw-1/cmd/{EUI}")
    assert _allows("GatewayPolicy", "iot:RetainPublish", f"topic/{topics.topic(EventKind.STATUS, None)}")


def test_a_gateway_may_use_its_own_shadow_and_jobs() -> None:
    jobs = Jobs("gw-1", say=lambda *_: True, run=lambda _: None)
    for word in ("$next/get", "job-1/update"):
        assert _allows("GatewayPolicy", "iot:Publish", f"topic/$aws/things/gw-1/jobs/{word}")
    shadow = Shadow("gw-1", say=lambda *_: True, state=dict, settings=dict, apply=lambda _: None)
    for topic in (*shadow.topics, *jobs.topics):
        assert _allows("GatewayPolicy", "iot:Subscribe", f"topicfilter/{topic.topic_filter}")
        assert _allows("GatewayPolicy", "iot:Receive", f"topic/{topic.topic_filter}")
    for word in ("get", "update"):
        assert _allows("GatewayPolicy", "iot:Publish", f"topic/$aws/things/gw-1/shadow/name/lorabridge/{word}")


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("iot:Connect", "client/gw-2"),
        ("iot:Publish", "topic/lorabridge/gw-2/status"),
        ("iot:Publish", "topic/lorabridge/gw-10/status"),
        ("iot:Publish", "topic/$aws/rules/other/lorabridge/gw-1/status"),
        ("iot:Publish", "topic/$aws/things/gw-1/shadow/update"),
        ("iot:Publish", "topic/$aws/things/gw-2/shadow/name/lorabridge/update"),
        ("iot:Publish", "topic/$aws/things/gw-2/jobs/job-1/update"),
        ("iot:Subscribe", "topicfilter/lorabridge/gw-1/#"),
        ("iot:Subscribe", "topicfilter/lorabridge/gw-2/cmd/+"),
        ("iot:Subscribe", "topicfilter/#"),
        ("iot:Receive", "topic/lorabridge/gw-1/uplink/x"),
        ("iot:RetainPublish", "topic/lorabridge/gw-1/security"),
    ],
)
def test_a_gateway_may_do_nothing_else(action: str, resource: str) -> None:
    assert not _allows("GatewayPolicy", action, resource)


def test_a_claim_may_ask_and_nothing_else() -> None:
    provision = "$aws/provisioning-templates/lorabridge/provision/json"
    for topic in (CREATE_FROM_CSR, provision):
        assert _allows("ClaimPolicy", "iot:Publish", f"topic/{topic}")
        for word in ("accepted", "rejected"):
            assert _allows("ClaimPolicy", "iot:Subscribe", f"topicfilter/{topic}/{word}")
            assert _allows("ClaimPolicy", "iot:Receive", f"topic/{topic}/{word}")
    for topic in ("$aws/certificates/create/json", "lorabridge/gw-1/status", f"{provision}/accepted"):
        assert not _allows("ClaimPolicy", "iot:Publish", f"topic/{topic}")


def test_the_provisioning_template_is_json_that_takes_what_the_command_sends() -> None:
    body = json.loads(_text(_resources()["FleetTemplate"]["Properties"]["TemplateBody"]))
    assert set(body["Parameters"]) == {"SerialNumber", "AWS::IoT::Certificate::Id"}
    assert body["Resources"]["thing"]["Properties"]["ThingName"] == {"Ref": "SerialNumber"}
    assert body["Resources"]["policy"]["Properties"]["PolicyName"] == "lorabridge-gateway"


def test_the_account_takes_policies_and_our_signing_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        iot = boto3.client("iot", region_name="eu-central-1")
        for policy in ("GatewayPolicy", "ClaimPolicy"):
            document = json.dumps(_resources()[policy]["Properties"]["PolicyDocument"], default=_text)
            iot.create_policy(policyName=policy, policyDocument=document)
        _, _, csr = new_key("gw-1")
        made = iot.create_certificate_from_csr(certificateSigningRequest=csr, setAsActive=True)
        iot.create_thing(thingName="gw-1")
        iot.attach_policy(policyName="GatewayPolicy", target=made["certificateArn"])
        iot.attach_thing_principal(thingName="gw-1", principal=made["certificateArn"])
        attached = iot.list_attached_policies(target=made["certificateArn"])["policies"]
        assert [one["policyName"] for one in attached] == ["GatewayPolicy"]
