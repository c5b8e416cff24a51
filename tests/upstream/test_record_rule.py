"""The function of the CloudFormation template, run as it stands there, against a mock of DynamoDB.

Lambda itself is not there: that an event whose function raises is tried again and then goes to the queue is AWS's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import msgspec
import pytest
from moto import mock_aws

from lorabridge.lorawan.events import EventKind
from lorabridge.upstream.batches import Packer, Unit
from lorabridge.upstream.topics import Topics, TopicSettings
from tests.upstream.harness import GATEWAY
from tests.upstream.test_cloudformation import _resources

TABLE = "records"
IDS = [f"{number:032x}" for number in range(1, 4)]


class Record(msgspec.Struct, frozen=True):
    """A row of the outbox, of which only the payload matters here."""

    id: int
    payload: bytes
    kind: EventKind = EventKind.UPLINK
    dev_eui: None = None


def uplink(name: str) -> dict[str, Any]:
    """A record with each kind of value that JSON has, as far as the function is concerned."""
    levels = {"rssi": -57, "snr": 9.5, "channel": None}
    return {"schema": "lorabridge/uplink/1", "id": name, "fcnt32": 4294967295, "rx": [levels], "payload": "", "x": True}


def batch(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rule hands over of a batch that the bridge packed."""
    packer = Packer(Topics(TopicSettings(), GATEWAY), GATEWAY)
    unit = Unit(tuple(Record(number, json.dumps(record).encode()) for number, record in enumerate(records, 1)))
    assert unit.is_batch
    event: dict[str, Any] = json.loads(packer.payload(unit))
    return event


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("TABLE", TABLE)
    wanted = _resources()["Records"]["Properties"]
    with mock_aws():
        yield boto3.resource("dynamodb").create_table(
            TableName=TABLE, **{name: wanted[name] for name in ("AttributeDefinitions", "KeySchema", "BillingMode")}
        )


@pytest.fixture
def store(table: Any) -> Callable[[Any], None]:
    """The handler of the template, made of its text."""
    function = _resources()["Store"]["Properties"]
    module, _, handler = function["Handler"].partition(".")
    space: dict[str, Any] = {"__name__": module}
    exec(compile(function["Code"]["ZipFile"], f"{module}.py", "exec"), space)  # the code of our own template

    def call(event: Any) -> None:
        space[handler](json.loads(json.dumps(event)), None)

    return call


def stored(table: Any) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in table.scan()["Items"]}


def test_a_record_alone_is_an_item_of_its_own_with_every_value(table: Any, store: Callable[[Any], None]) -> None:
    store(uplink(IDS[0]))
    assert stored(table) == {IDS[0]: uplink(IDS[0])}


def test_each_record_of_a_batch_is_an_item_of_its_own_and_the_batch_is_none(
    table: Any, store: Callable[[Any], None]
) -> None:
    store(batch([uplink(name) for name in IDS]))
    assert stored(table) == {name: uplink(name) for name in IDS}


def test_a_record_is_there_once_however_often_and_in_whatever_batch_it_is_delivered(
    table: Any, store: Callable[[Any], None]
) -> None:
    store(uplink(IDS[0]))
    store(batch([uplink(IDS[0]), uplink(IDS[1])]))
    store(batch([uplink(IDS[1]), uplink(IDS[2]), uplink(IDS[1])]))
    assert stored(table) == {name: uplink(name) for name in IDS}


@pytest.mark.parametrize(
    "record",
    [
        {"WirelessDeviceId": "w", "WirelessMetadata": {}, "lorabridge": {"id": IDS[1]}},
        {"deduplicationId": IDS[1], "deviceInfo": {}},
    ],
    ids=["aws-lorawan", "chirpstack"],
)
def test_a_record_in_another_format_has_the_id_that_its_format_gives_it(
    record: dict[str, Any], table: Any, store: Callable[[Any], None]
) -> None:
    store(record)
    store(batch([uplink(IDS[0]), record]))
    assert stored(table) == {IDS[0]: uplink(IDS[0]), IDS[1]: record | {"id": IDS[1]}}


@pytest.mark.parametrize(
    "bad",
    [
        {"schema": "lorabridge/uplink/1"},
        {"id": 7},
        {"id": ""},
        {"lorabridge": "x"},
        ["id"],
        "id",
        None,
        {"id": IDS[2], "n": 1e300},
        {"id": "x" * 3000},
    ],
)
def test_what_cannot_be_stored_is_an_error_that_keeps_the_event_and_hinders_no_other_record(
    bad: Any, table: Any, store: Callable[[Any], None]
) -> None:
    with pytest.raises(RuntimeError, match="1 of 1 not stored"):
        store(bad)
    whole = batch([uplink(IDS[0]), uplink(IDS[1])])
    whole["records"].insert(1, bad)
    with pytest.raises(RuntimeError, match="1 of 3 not stored"):
        store(whole)
    assert stored(table) == {name: uplink(name) for name in IDS[:2]}


@pytest.mark.parametrize("records", [None, [], {}, "records"])
def test_a_batch_without_records_is_an_error_and_no_item(
    records: Any, table: Any, store: Callable[[Any], None]
) -> None:
    with pytest.raises(RuntimeError, match="without records"):
        store({"schema": "lorabridge/batch/1", "id": IDS[0], "records": records})
    assert stored(table) == {}


def test_a_table_that_is_away_is_an_error_that_keeps_the_event(table: Any, store: Callable[[Any], None]) -> None:
    table.delete()
    with pytest.raises(RuntimeError, match=r"2 of 2 not stored: .*ResourceNotFound"):
        store(batch([uplink(IDS[0]), uplink(IDS[1])]))


def test_the_code_fits_into_the_template() -> None:
    assert len(_resources()["Store"]["Properties"]["Code"]["ZipFile"]) <= 4096


def test_what_the_function_raises_on_goes_to_the_queue_and_what_it_never_gets_to_the_log() -> None:
    resources = _resources()
    failures = resources["StoreFailures"]["Properties"]
    assert failures["FunctionName"] == {"Ref": "Store"}
    assert failures["DestinationConfig"]["OnFailure"]["Destination"] == {"GetAtt": "NotStored.Arn"}
    rule = resources["RecordsRule"]["Properties"]["TopicRulePayload"]
    assert rule["Actions"] == [{"Lambda": {"FunctionArn": {"GetAtt": "Store.Arn"}}}]
    assert rule["ErrorAction"]["CloudwatchLogs"]["LogGroupName"] == {"Ref": "RuleErrors"}


def test_the_function_may_put_records_tell_of_failures_and_nothing_else() -> None:
    granted = {
        (action, statement["Resource"]["GetAtt"])
        for policy in _resources()["StoreRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert granted == {
        ("dynamodb:PutItem", "Records.Arn"),
        ("sqs:SendMessage", "NotStored.Arn"),
        ("logs:CreateLogStream", "StoreLog.Arn"),
        ("logs:PutLogEvents", "StoreLog.Arn"),
    }
    assert "ManagedPolicyArns" not in _resources()["StoreRole"]["Properties"]


def test_only_the_rule_of_this_account_may_call_the_function() -> None:
    permission = _resources()["StoreIsForTheRule"]["Properties"]
    rule = _resources()["RecordsRule"]["Properties"]["RuleName"]["Sub"]
    assert permission["Principal"] == "iot.amazonaws.com"
    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}
    assert permission["SourceArn"]["Sub"].endswith(f":rule/{rule}")
