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


def _decided(value: Any, *, websocket: bool) -> Any:
    """A value of which every `Fn::If` on `HasWebSocket` is decided, and what has no value left out of lists."""
    if isinstance(value, list):
        whole = [_decided(item, websocket=websocket) for item in value]
        return [item for item in whole if item != {"Ref": "AWS::NoValue"}]
    if not isinstance(value, dict):
        return value
    if value.get("If", [None])[0] == "HasWebSocket":
        return _decided(value["If"][1 if websocket else 2], websocket=websocket)
    return {name: _decided(item, websocket=websocket) for name, item in value.items()}


def _resources(*, websocket: bool = False) -> dict[str, Any]:
    resources: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)["Resources"]  # our own file
    made = {
        name: resource
        for name, resource in resources.items()
        if websocket or resource.get("Condition") != "HasWebSocket"
    }
    return {name: _decided(resource, websocket=websocket) for name, resource in made.items()}


def _text(value: Any) -> str:
    """A value after `Fn::Sub`, for one account, region and gateway."""
    text = value["Sub"] if isinstance(value, dict) else value
    known = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}
    known |= {"Name": "lorabridge", "GatewayType": "lorabridge-gateway", "GatewayPolicy": "lorabridge-gateway"}
    known |= {"ServicesPolicy": "lorabridge-services"}
    text = re.sub(r"\$\{([A-Za-z:]+)\}", lambda found: known[found[1]], text)
    for variable in ("iot:Connection.Thing.ThingName", "credentials-iot:ThingName"):
        text = text.replace(f"${{!{variable}}}", "gw-1")
    return text


def _filled(value: Any) -> Any:
    """A value of which every `Fn::Sub` is done."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return _text(value) if set(value) == {"Sub"} else {name: _filled(item) for name, item in value.items()}


def _statements(policy: str, *, websocket: bool = True) -> list[dict[str, Any]]:
    """Of a policy of AWS IoT, or of the one policy of a role; a gateway's certificate has two."""
    found: list[dict[str, Any]] = []
    for name in ("GatewayPolicy", "ServicesPolicy") if policy == "GatewayPolicy" else (policy,):
        properties = _resources(websocket=websocket)[name]["Properties"]
        (holder,) = properties.get("Policies", [properties])
        found += holder["PolicyDocument"]["Statement"]
    return found


def _allows(policy: str, action: str, resource: str) -> bool:
    """Whether a statement matches: `*` stands for anything, and in AWS policies `+` and `#` for themselves."""
    for statement in _statements(policy):
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


OF_AWS_IOT = ("GatewayPolicy", "ServicesPolicy", "ClaimPolicy")
OF_GATEWAYS = pytest.mark.parametrize("policy", ["GatewayPolicy", "GatewayRole"])
"""What a certificate may, and what the role may that it assumes for MQTT over WebSocket."""


@OF_GATEWAYS
@pytest.mark.parametrize("rule", ["", "lorabridge_records"])
def test_a_gateway_may_publish_and_hear_all_that_it_has_to(rule: str, policy: str) -> None:
    topics = Topics(TopicSettings(basic_ingest_rule=rule), "gw-1")
    for kind in EventKind:
        assert _allows(policy, "iot:Publish", f"topic/{topics.topic(kind, EUI)}"), kind
    assert _allows(policy, "iot:Connect", "client/gw-1")
    assert _allows(policy, "iot:Subscribe", f"topicfilter/{topics.command_filter}")
    assert _allows(policy, "iot:Receive", f"topic/lorabridge/gw-1/cmd/{EUI}")
    assert _allows(policy, "iot:RetainPublish", f"topic/{topics.topic(EventKind.STATUS, None)}")


@OF_GATEWAYS
def test_a_gateway_may_use_its_own_shadow_and_jobs(policy: str) -> None:
    jobs = Jobs("gw-1", say=lambda *_: True, run=lambda _: None)
    for word in ("$next/get", "job-1/update"):
        assert _allows(policy, "iot:Publish", f"topic/$aws/things/gw-1/jobs/{word}")
    shadow = Shadow("gw-1", say=lambda *_: True, state=dict, settings=dict, apply=lambda _: None)
    for topic in (*shadow.topics, *jobs.topics):
        assert _allows(policy, "iot:Subscribe", f"topicfilter/{topic.topic_filter}")
        assert _allows(policy, "iot:Receive", f"topic/{topic.topic_filter}")
    for word in ("get", "update"):
        assert _allows(policy, "iot:Publish", f"topic/$aws/things/gw-1/shadow/name/lorabridge/{word}")


@OF_GATEWAYS
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
        ("iot:AssumeRoleWithCertificate", "rolealias/other"),
    ],
)
def test_a_gateway_may_do_nothing_else(action: str, resource: str, policy: str) -> None:
    assert not _allows(policy, action, resource)


@pytest.mark.parametrize("policy", OF_AWS_IOT)
def test_a_policy_is_no_longer_than_aws_iot_takes_it(policy: str) -> None:
    """CreatePolicy: 2048 characters without white space. The longest names that any account and stack can have."""
    document = _filled(_resources(websocket=True)[policy]["Properties"]["PolicyDocument"])
    text = re.sub(r"\s", "", json.dumps(document)).replace("gw-1", "${iot:Connection.Thing.ThingName}")
    text = text.replace("arn:aws:", "arn:aws-us-gov:").replace("eu-central-1", "ap-southeast-1")
    assert len(re.sub(r"lorabridge(?=/json|/provision|_records|\")", "N" * 31, text)) <= 2048


def test_a_gateway_has_a_role_only_when_that_is_asked_for() -> None:
    without, with_role = _resources(), _resources(websocket=True)
    assert set(with_role) - set(without) == {"GatewayRole", "GatewayRoleAlias"}
    assert "AssumeRoleWithCertificate" not in json.dumps(without)
    assert _allows("GatewayPolicy", "iot:AssumeRoleWithCertificate", "rolealias/lorabridge")


def test_the_role_is_lent_to_certificates_only_and_names_their_thing_in_every_resource() -> None:
    role = _resources(websocket=True)["GatewayRole"]["Properties"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "credentials.iot.amazonaws.com"}
    resources = [
        resource["Sub"]
        for statement in _statements("GatewayRole")
        for resource in (statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]])
    ]
    assert all("${!credentials-iot:ThingName}" in resource for resource in resources)
    assert "iot:Connection" not in json.dumps(role)


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
    resources = body["Resources"].values()
    policies = [one["Properties"]["PolicyName"] for one in resources if one["Type"] == "AWS::IoT::Policy"]
    assert policies == ["lorabridge-gateway", "lorabridge-services"]


def test_the_account_takes_policies_and_our_signing_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        iot = boto3.client("iot", region_name="eu-central-1")
        for policy in OF_AWS_IOT:
            document = json.dumps(_filled(_resources(websocket=True)[policy]["Properties"]["PolicyDocument"]))
            iot.create_policy(policyName=policy, policyDocument=document)
        _, _, csr = new_key("gw-1")
        made = iot.create_certificate_from_csr(certificateSigningRequest=csr, setAsActive=True)
        iot.create_thing(thingName="gw-1")
        iot.attach_policy(policyName="GatewayPolicy", target=made["certificateArn"])
        iot.attach_thing_principal(thingName="gw-1", principal=made["certificateArn"])
        attached = iot.list_attached_policies(target=made["certificateArn"])["policies"]
        assert [one["policyName"] for one in attached] == ["GatewayPolicy"]


def test_the_account_takes_the_role_and_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    resources = _resources(websocket=True)
    trust = json.dumps(resources["GatewayRole"]["Properties"]["AssumeRolePolicyDocument"])
    policy = json.dumps({"Version": "2012-10-17", "Statement": _filled(_statements("GatewayRole"))})
    with mock_aws():
        iam, iot = boto3.client("iam"), boto3.client("iot", region_name="eu-central-1")
        role = iam.create_role(RoleName="gateway", AssumeRolePolicyDocument=trust)["Role"]
        iam.put_role_policy(RoleName="gateway", PolicyName="gateway", PolicyDocument=policy)
        seconds = resources["GatewayRoleAlias"]["Properties"]["CredentialDurationSeconds"]
        made = iot.create_role_alias(roleAlias="lorabridge", roleArn=role["Arn"], credentialDurationSeconds=seconds)
    assert made["roleAliasArn"] == f"{ARN}rolealias/lorabridge"
    assert len(policy) <= 10240, "what the inline policies of a role may have"
