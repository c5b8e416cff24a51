"""Signature Version 4 of AWS for the one request that needs it here: GET /mqtt of the endpoint, signed in its query.

AWS IAM user guide, "Create a signed AWS API request"; AWS IoT developer guide, "Device communication protocols":
the session token is appended after signing, otherwise than with other services. Sans-I/O: the time is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import NoReturn
from urllib.parse import quote, urlencode

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "iotdevicegateway"
_PATH = "/mqtt"


class TemporaryCredentials:
    """What a role lent us until `ends`, UTC. Secret and token do not print, and leave this object by `reveal` only."""

    __slots__ = ("_secret", "_token", "access_key_id", "ends")

    def __init__(self, access_key_id: str, secret: str, token: str, ends: datetime) -> None:
        self.access_key_id = access_key_id
        self._secret = secret
        self._token = token
        self.ends = ends

    def reveal(self) -> tuple[str, str]:
        """The secret access key, and the session token."""
        return self._secret, self._token

    def __repr__(self) -> str:
        return f"TemporaryCredentials({self.access_key_id!r}, secret=<hidden>, ends={self.ends:%Y-%m-%dT%H:%M:%SZ})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("temporary credentials are not pickled")


def websocket_target(endpoint: str, region: str, credentials: TemporaryCredentials, at: datetime) -> str:
    """Path and query of the WebSocket handshake at `at`, UTC. Whoever has it may connect with it: it is a secret."""
    secret, token = credentials.reveal()
    moment = f"{at:%Y%m%dT%H%M%SZ}"
    query = _encode(
        {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key_id}/{_scope(moment, region, _SERVICE)}",
            "X-Amz-Date": moment,
            "X-Amz-SignedHeaders": "host",
        }
    )
    nothing = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n{_PATH}\n{query}\nhost:{endpoint}\n\nhost\n{nothing}"
    signed = signature(canonical, secret, moment, region, _SERVICE)
    return f"{_PATH}?{query}&" + _encode({"X-Amz-Signature": signed, "X-Amz-Security-Token": token})


def signature(canonical_request: str, secret: str, moment: str, region: str, service: str) -> str:
    """The signature of a canonical request, in hex; `moment` is as in `20150830T123600Z`."""
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    to_sign = f"{_ALGORITHM}\n{moment}\n{_scope(moment, region, service)}\n{digest}"
    return _mac(signing_key(secret, moment[:8], region, service), to_sign).hex()


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key for one day (`20150830`), region and service."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = _mac(key, part)
    return key


def _scope(moment: str, region: str, service: str) -> str:
    return f"{moment[:8]}/{region}/{service}/aws4_request"


def _encode(fields: dict[str, str]) -> str:
    """In the order of `fields`, which for what is signed has to be that of their names."""
    return urlencode(fields, quote_via=quote, safe="")


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
