"""The credentials provider, and what is signed with what it lent. Sans-I/O: time is an argument.

AWS IoT developer guide, "Authorizing direct calls to AWS services"; AWS IAM user guide, "Create a signed AWS API
request". What is signed is read back from what was received, and not made as our own client makes it.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from lorabridge.simulation.standin.events import Refusal
from lorabridge.simulation.standin.policy import Policy, may_assume, may_use_client_id
from lorabridge.upstream.sigv4 import signature

FORBIDDEN = '{"message":"Forbidden"}'
MOST_SKEW = 300.0
"""Seconds between a signature and now."""
_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "iotdevicegateway"
_ASKED = re.compile(r"/role-aliases/([^/?]+)/credentials")
_SIGNATURE, _TOKEN = "X-Amz-Signature", "X-Amz-Security-Token"
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of a body that is none."""
_REGION = re.compile(r"\.iot\.([a-z0-9-]+)\.amazonaws\.com")


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind a role alias."""

    lasts: float = 3600.0
    """Seconds; AWS IoT takes 900 to 43,200."""
    policy: Policy | None = None
    """What its holders may do in MQTT; None: what the policy of the certificate says."""


class Lent(msgspec.Struct, frozen=True, rename="camel"):
    """Temporary credentials, as they are told."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: str


class Lease(msgspec.Struct, frozen=True):
    """What somebody was lent, as far as it is needed to judge him by."""

    lent: Lent
    policy: Policy
    ends: float
    """Seconds since the Unix epoch."""


class Lending:
    """The roles of the account, and who holds credentials of them."""

    def __init__(self, roles: Mapping[str, Role], endpoint: str, admit: Callable[[bytes], Policy | Refusal]) -> None:
        """`admit` gives the policy of a certificate (DER); `endpoint` is what a WebSocket is signed for."""
        self._roles = roles
        self._endpoint = endpoint
        self._admit = admit
        self._region = region_of(endpoint)
        self._leases: dict[str, Lease] = {}

    def lend(self, target: str, fields: Mapping[str, str], der: bytes, now: float) -> Lent | Refusal:
        """Answer a GET for `target` with these headers by the holder of a certificate (DER)."""
        asked = _ASKED.fullmatch(target)
        if asked is None:
            return Refusal.NO_REQUEST
        alias = unquote(asked[1])
        if (role := self._roles.get(alias)) is None:
            return Refusal.ROLE_ALIAS
        policy = self._admit(der)
        if isinstance(policy, Refusal):
            return policy
        if not may_assume(policy, alias):
            return Refusal.ASSUME_ROLE
        thing = _lower(fields).get("x-amzn-iot-thingname")
        if thing is not None and not may_use_client_id(policy, thing):
            return Refusal.THING_NAME
        ends = now + role.lasts
        lent = Lent(
            access_key_id=f"ASIA{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_urlsafe(30),
            session_token=secrets.token_urlsafe(90) + "+/=",
            expiration=f"{datetime.fromtimestamp(ends, UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        self._leases[lent.access_key_id] = Lease(lent, role.policy or policy, ends)
        return lent

    def expire(self) -> None:
        """All that was lent has ended."""
        self._leases.clear()

    def judge(self, target: str, fields: Mapping[str, str], now: float) -> Lease | Refusal:
        """Whose the handshake of a WebSocket is: a GET of `target` with these headers."""
        path, _, text = target.partition("?")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
        except ValueError:
            return Refusal.SIGNATURE
        query, headers = dict(pairs), _lower(fields)
        at = _moment(query.get("X-Amz-Date", ""))
        key, _, scope = query.get("X-Amz-Credential", "").partition("/")
        if (
            len(query) != len(pairs)
            or (path, query.get("X-Amz-Algorithm")) != ("/mqtt", _ALGORITHM)
            or headers.get("host") != self._endpoint
            or at is None
            or scope != f"{query['X-Amz-Date'][:8]}/{self._region}/{_SERVICE}/aws4_request"
        ):
            return Refusal.SIGNATURE
        if abs(now - at) > MOST_SKEW:
            return Refusal.SIGNATURE_DATE
        lease = self._leases.get(key)
        if lease is None or lease.ends <= now or query.get(_TOKEN) != lease.lent.session_token:
            return Refusal.CREDENTIALS
        canonical = _canonical(path, query, headers)
        made = signature(canonical, lease.lent.secret_access_key, query["X-Amz-Date"], self._region, _SERVICE)
        return lease if hmac.compare_digest(made, query.get(_SIGNATURE, "")) else Refusal.SIGNATURE


def region_of(endpoint: str) -> str:
    """The region that an endpoint's name tells; of any other name one that will do."""
    found = _REGION.search(endpoint)
    return found[1] if found else "us-east-1"


def _canonical(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """The canonical request; AWS IoT leaves the session token out of it."""
    signed = query.get("X-Amz-SignedHeaders", "")
    names = [(_encode(name), _encode(value)) for name, value in query.items() if name not in (_SIGNATURE, _TOKEN)]
    asked = "&".join(f"{name}={value}" for name, value in sorted(names))
    listed = "".join(
        f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in sorted({*signed.split(";"), "host"})
    )
    return f"GET\n{path}\n{asked}\n{listed}\n{signed}\n{_EMPTY}"


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")


def _lower(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in fields.items()}


def _moment(text: str) -> float | None:
    """The time that `20150830T123600Z` says, in seconds since the Unix epoch."""
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
