"""The cases of AWS IoT Device Advisor, and how the bridge does in each; docs/device-advisor.md shows it.

Developer guide, "Device Advisor test cases" and the pages below it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_Test = TypeVar("_Test", bound=Callable[..., Any])


class Outcome(enum.Enum):
    """How the link does."""

    PASS = "pass"
    OTHERWISE = "otherwise"
    """It does something else on purpose, and a test shows what."""
    NOT_HERE = "not here"
    """It cannot be run here."""


class Case(NamedTuple):
    """One of AWS's cases."""

    title: str
    outcome: Outcome
    why: str


CASES = {
    "TLS_Connect": Case("TLS Connect", Outcome.PASS, "the handshake is completed, without an alert"),
    "TLS_Receive_Maximum_Size_Fragments": Case(
        "TLS Receive Maximum Size Fragments",
        Outcome.PASS,
        "100 kB to the subscribed topic arrive in fragments of 16 KiB; too long for a command, they are dropped",
    ),
    "TLS_Cipher_Suites": Case(
        "TLS Device Support for AWS IoT recommended Cipher Suites",
        Outcome.PASS,
        "with both cipher profiles: recommended suites first, and none that AWS IoT does not list",
    ),
    "TLS_Large_Server_Cert": Case(
        "TLS Large Size Server Certificate", Outcome.PASS, "a server certificate more than twice as large"
    ),
    "TLS_Unsecure_Server_Cert": Case(
        "Not Signed By Recognized CA", Outcome.PASS, "refused in the handshake, fault `server_unknown_ca`"
    ),
    "TLS_Incorrect_Subject_Name": Case(
        "Incorrect Subject Common Name (CN) / Subject Alternative Name (SAN)",
        Outcome.PASS,
        "refused in the handshake, fault `server_wrong_name`",
    ),
    "TLS_Expired_Server_Cert": Case(
        "Expired Server Certificate", Outcome.PASS, "refused in the handshake, fault `server_expired`"
    ),
    "MQTT_Connect": Case("Device send CONNECT to AWS IoT Core (Happy case)", Outcome.PASS, "MQTT 3.1.1 and 5"),
    "MQTT_Client_Puback_QoS1": Case(
        "Device can return PUBACK to an arbitrary topic for QoS1",
        Outcome.PASS,
        "sent when the command is safely stored; messages to topics that are none of ours are acknowledged too",
    ),
    "MQTT_Connect_Jitter_Backoff_Retries": Case(
        "Device connect retries with jitter backoff - No CONNACK response",
        Outcome.PASS,
        "five tries unanswered, the sixth answered, twice: full jitter, and never earlier than drawn",
    ),
    "MQTT_Connect_Exponential_Backoff_Retries": Case(
        "Device connect retries with exponential backoff - No CONNACK response",
        Outcome.PASS,
        "the ceiling of the jitter doubles up to `backoff_cap`; the waits themselves are drawn below it",
    ),
    "MQTT_Reconnect_Backoff_Retries_On_Server_Disconnect": Case(
        "Device re-connect with jitter backoff - After server disconnect", Outcome.PASS, "five disconnections"
    ),
    "MQTT_Reconnect_Backoff_Retries_On_Unstable_Connection": Case(
        "Device re-connect with jitter backoff - On unstable connection",
        Outcome.PASS,
        "CONNACK, then dropped, five times: CONNACK alone does not begin the back-off anew",
    ),
    "MQTT_Publish": Case(
        "QoS0 (Happy Case)",
        Outcome.OTHERWISE,
        "nothing is published with QoS 0: a record is deleted when it was acknowledged, and never before",
    ),
    "MQTT_Publish_Retry_No_Puback": Case(
        "QoS1 publish retry - No PUBACK",
        Outcome.OTHERWISE,
        "not sent again on the same connection: after `puback_timeout` the link ends it and sends the record on a new"
        " one. MQTT asks for a resend at reconnection (§4.4), and MQTT 5 forbids any other",
    ),
    "MQTT_Subscribe": Case("Can Subscribe (Happy Case)", Outcome.PASS, "the filter of commands, QoS 1"),
    "MQTT_Subscribe_Retry_No_Suback": Case(
        "Subscribe Retry - No SUBACK",
        Outcome.OTHERWISE,
        "not sent again on the same connection: after `puback_timeout` the link ends the connection and subscribes on a"
        " new one",
    ),
    "MQTT_No_Ack_PingResp": Case(
        "Mqtt No Ack PingResp", Outcome.PASS, "fault `keep_alive_timeout`, and a new connection"
    ),
    "Persistent_Session_Happy_Case": Case(
        "Persistent Session (Happy Case)",
        Outcome.OTHERWISE,
        "the session is always clean: what must not be lost is in the gateway's own database, and the cloud publishes a"
        " command again that has no result",
    ),
    "Persistent_Session_Session_Expiry": Case(
        "Persistent Session - Session Expiry",
        Outcome.OTHERWISE,
        "the session is always clean; what the case is after holds: every connection subscribes anew",
    ),
    "Shadow_Publish_Reported_State": Case(
        "Device publishes state after it connects (Happy case)", Outcome.PASS, "named shadow, with `shadow = true`"
    ),
    "Shadow_Update_Reported_State": Case(
        "Device updates reported state to desired state (Happy case)",
        Outcome.PASS,
        "for the three settings that the shadow may change; anything else is reported as rejected",
    ),
    "Job_Execution": Case(
        "Device can complete a job execution",
        Outcome.PASS,
        "with `jobs = true`, for job documents that the bridge knows; AWS's example, `reboot`, is answered REJECTED",
    ),
    "Security_Device_Policies": Case(
        "Device certificate attached policies don't contain wildcards",
        Outcome.NOT_HERE,
        "AWS looks at the policy in the account. Ours has `*` behind topics that begin with the gateway's own name",
    ),
    "MQTT_Long_Duration": Case(
        "MQTT long duration test case",
        Outcome.NOT_HERE,
        "hours of the scenarios above in an order that only AWS knows; each of them is here by itself",
    ),
}

tested: dict[str, list[str]] = {}
"""Names of the tests of each case."""


def case(name: str) -> Callable[[_Test], _Test]:
    """Mark the test of a case."""

    def note(test: _Test) -> _Test:
        tested.setdefault(name, []).append(test.__name__)
        return test

    assert name in CASES
    return note


def table() -> str:
    """As it stands in docs/device-advisor.md."""
    rows = [f"| {one.title} | {one.outcome.value} | {one.why} |" for one in CASES.values()]
    return "\n".join(["| case | the bridge | how, or why not |", "|---|---|---|", *rows])
