"""The steps of the way to the endpoint, what was found at each, and which of it is the cause.

The tables of `docs/doctor.md` are generated from this file.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Self

import msgspec

from lorabridge.errors import Problem
from lorabridge.upstream.faults import LinkFault


class Step(enum.Enum):
    """One thing on the way, in the order of the walk: its name for machines, for people, and what is looked at."""

    title: str
    doc: str

    def __new__(cls, value: str, title: str, doc: str) -> Self:
        """A member with its documentation."""
        member = object.__new__(cls)
        member._value_ = value
        member.title = title
        member.doc = doc
        return member

    def __str__(self) -> str:
        return str(self.value)

    CONFIGURATION = "configuration", "configuration", "the file can be read, and means something; `endpoint` is a name"
    DISK = "disk", "disk", "the folder of the database is there and can be written to"
    BRIDGE = "bridge", "running bridge", "whether a bridge is at work that a second connection would disturb"
    CLOCK = "clock", "clock", "it is set, and the kernel knows it to be synchronised"
    ROOTS = "roots", "root certificates", "`ca_file` holds certificates, and the Amazon root CAs among them"
    CERTIFICATE = "certificate", "our certificate", "`certificate_file` can be read and holds one"
    KEY = "key", "our private key", "readable, private, not encrypted, and the one that the certificate is for"
    EXPIRY = "expiry", "our dates", "our certificate is valid now, and stays so for `certificate_warning`"
    DNS = "dns", "name look-up", "the resolver has addresses for the name that is dialled"
    ROUTE = "route", "route", "the kernel knows a way there"
    TCP = "tcp", "TCP connection", "the port answers"
    TLS = "tls", "TLS", "what answers speaks TLS, and not HTTP"
    SNI = "sni", "name asked for", "the endpoint knows the name that we ask for (SNI)"
    ALPN = "alpn", "ALPN", "on port 443: `x-amzn-mqtt-ca` is taken"
    VERSION = "version", "TLS version", "both sides have one in common"
    SUITES = "suites", "cipher suites", "what our ClientHello really offers, and what was chosen of it"
    CHAIN = (
        "chain",
        "server certificate",
        "signed, by way of its chain, by a root of `ca_file`; and by one of Amazon, when others are in there too",
    )
    SERVER_NAME = "server_name", "server name", "it is for the endpoint's name"
    SERVER_DATES = "server_dates", "server dates", "it is valid now"
    CLIENT_CERTIFICATE = "client_certificate", "certificate taken", "the endpoint accepts our certificate"
    OTHER_PORT = "other_port", "other port", "the same on the port that is not configured: 443 with ALPN, or 8883"
    CLOCK_SKEW = "clock_skew", "clock skew", "our clock against the `Date` of the endpoint's HTTPS, when it tells one"
    ROLE_DNS = "role_dns", "role: name look-up", "WebSocket: the resolver has addresses for the credentials endpoint"
    ROLE_TCP = "role_tcp", "role: connection", "WebSocket: a way leads there, and its port answers"
    ROLE_TLS = "role_tls", "role: TLS", "WebSocket: all of its handshake, as for the endpoint above"
    ROLE_CERTIFICATE = "role_certificate", "role: certificate", "WebSocket: it does not hang up on our certificate"
    ROLE_CREDENTIALS = (
        "role_credentials",
        "role: credentials",
        "WebSocket: it knows `role_alias`, lends us credentials for it, and they have not ended by our clock",
    )
    WEBSOCKET = "websocket", "WebSocket", "the endpoint opens one for what is signed with them, and speaks `mqtt` in it"
    CONNECT = "connect", "MQTT CONNECT", "client id and policy, last will included, by trying"
    PUBLISH = "publish", "publish", "a status record gets its PUBACK, and how long that takes"
    ALONE = "alone", "client id alone", "nobody else connects with our client id in the next seconds"
    SUBSCRIBE = "subscribe", "subscribe", "the topic of commands, unless downlinks are switched off"


class Outcome(enum.Enum):
    """How a step went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"

    def __str__(self) -> str:
        return self.value


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found at one step."""

    step: Step
    outcome: Outcome
    says: str
    """One sentence, without a full stop."""
    fix: str = ""
    """What to do about it."""
    fault: LinkFault | None = None
    seconds: float | None = None
    """How long it took, where that means something."""

    @property
    def sentence(self) -> str:
        """Step, finding and fix in one."""
        return f"{self.step.title}: {self.says}. {self.fix}".rstrip()


MQTT = (Step.CONNECT, Step.PUBLISH, Step.ALONE, Step.SUBSCRIBE)
STEP_OF = {
    LinkFault.CLOCK_NOT_SET: Step.CLOCK,
    LinkFault.LOCAL_FILES: Step.CERTIFICATE,
    LinkFault.NAME_NOT_RESOLVED: Step.DNS,
    LinkFault.UNREACHABLE: Step.TCP,
    LinkFault.TLS_CLOSED: Step.TLS,
    LinkFault.NOT_TLS: Step.TLS,
    LinkFault.TLS_VERSION: Step.VERSION,
    LinkFault.TLS_REFUSED: Step.SUITES,
    LinkFault.SNI_REFUSED: Step.SNI,
    LinkFault.ALPN_REFUSED: Step.ALPN,
    LinkFault.CLIENT_CERTIFICATE_REFUSED: Step.CLIENT_CERTIFICATE,
    LinkFault.CLIENT_CERTIFICATE_EXPIRED: Step.CLIENT_CERTIFICATE,
    LinkFault.SERVER_UNKNOWN_CA: Step.CHAIN,
    LinkFault.SERVER_WRONG_NAME: Step.SERVER_NAME,
    LinkFault.SERVER_EXPIRED: Step.SERVER_DATES,
    LinkFault.SERVER_NOT_YET_VALID: Step.SERVER_DATES,
    LinkFault.SERVER_INVALID: Step.CHAIN,
    LinkFault.NO_CONNACK: Step.CONNECT,
    LinkFault.CLOSED_BEFORE_CONNACK: Step.CONNECT,
    LinkFault.CONNECT_NOT_AUTHORIZED: Step.CONNECT,
    LinkFault.CLIENT_ID_REFUSED: Step.CONNECT,
    LinkFault.PROTOCOL_REFUSED: Step.CONNECT,
    LinkFault.CREDENTIALS_REFUSED: Step.ROLE_CREDENTIALS,
    LinkFault.WEBSOCKET_REFUSED: Step.WEBSOCKET,
    LinkFault.SERVER_UNAVAILABLE: Step.CONNECT,
    LinkFault.TAKEN_OVER: Step.ALONE,
    LinkFault.CONNECTION_LOST: Step.ALONE,
    LinkFault.KEEP_ALIVE_TIMEOUT: Step.ALONE,
    LinkFault.PUBACK_TIMEOUT: Step.PUBLISH,
    LinkFault.PUBLISH_REFUSED: Step.PUBLISH,
    LinkFault.QUOTA_EXCEEDED: Step.PUBLISH,
    LinkFault.SUBSCRIBE_REFUSED: Step.SUBSCRIBE,
}
"""Where each fault of the link shows."""

NOTHING_HERE = "nothing to look at here"
"""Of steps that are no part of the way that is configured."""
_CLOCKS = (Step.CLOCK, Step.CLOCK_SKEW)
"""A wrong clock makes good certificates look bad, and so is named before them."""


def failed(fault: LinkFault, detail: str = "", *, step: Step | None = None, fix: str = "") -> Finding:
    """A finding in the fault's own words; `fix` when more is known than its hint."""
    says = fault.doc.rstrip(".") + (f" ({detail})" if detail else "")
    return Finding(step or STEP_OF[fault], Outcome.FAILED, says, fix or fault.hint, fault)


def of_problems(step: Step, problems: list[Problem], otherwise: str) -> Finding:
    """What is wrong with our own things at one step, in the words of `lorabridge check`; or that all is well."""
    if not problems:
        return Finding(step, Outcome.OK, otherwise)
    errors = [problem for problem in problems if not problem.warning]
    first = (errors or problems)[0]
    more = f" (and {len(problems) - 1} more: lorabridge check)" if len(problems) > 1 else ""
    outcome = Outcome.FAILED if errors else Outcome.WARNING
    return Finding(step, outcome, f"{first.where} {first.what}{more}", first.hint)


def cause(findings: Iterable[Finding]) -> Finding | None:
    """The failure that is to be mended first; None when nothing failed."""
    failures = [finding for finding in findings if finding.outcome is Outcome.FAILED]
    order = list(Step)
    return min(failures, key=lambda found: (found.step not in _CLOCKS, order.index(found.step)), default=None)


def not_reached(findings: Sequence[Finding]) -> list[Finding]:
    """A finding for every step that has none yet."""
    seen = {finding.step for finding in findings}
    first = cause(findings)
    why = NOTHING_HERE if first is None else f"not reached: see {first.step.title}"
    return [Finding(step, Outcome.SKIPPED, why) for step in Step if step not in seen]


def steps_markdown() -> str:
    """The table of the steps, and of the faults that show at each."""
    rows = ["| step | in `--json` | what is looked at | [faults](link-faults.md) |", "|---|---|---|---|"]
    for step in Step:
        faults = ", ".join(f"`{fault}`" for fault, where in STEP_OF.items() if where is step)
        rows.append(f"| {step.title} | `{step}` | {step.doc} | {faults} |")
    return "\n".join(rows)
