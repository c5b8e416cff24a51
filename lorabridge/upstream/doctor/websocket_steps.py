"""What MQTT over WebSocket needs beside the endpoint: credentials that are lent to us, and what is signed with them.

Nothing here ends a connection of a bridge that runs: the WebSocket is closed before any CONNECT.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime

import msgspec

from lorabridge.errors import ConfigError
from lorabridge.settings import Duration
from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.doctor.network import Address, dial
from lorabridge.upstream.doctor.reach import Surroundings, behind, look_up, reach
from lorabridge.upstream.doctor.steps import Finding, Outcome, Step, failed, of_problems
from lorabridge.upstream.doctor.tls_steps import look_at_tls
from lorabridge.upstream.faults import DialError, LinkDown, LinkFault, fault_of_error
from lorabridge.upstream.role_credentials import PLACE, RESERVE, RoleCredentials
from lorabridge.upstream.websocket import open_websocket

_GRAVITY = (Outcome.FAILED, Outcome.WARNING, Outcome.OK, Outcome.SKIPPED)
_NAME = (
    "Copy `credentials_endpoint` in [aws_iot.websocket] from "
    "`aws iot describe-endpoint --endpoint-type iot:CredentialProvider`."
)
_FIXES = dict.fromkeys((LinkFault.NAME_NOT_RESOLVED, LinkFault.SNI_REFUSED, LinkFault.SERVER_WRONG_NAME), _NAME)
_ALIAS = "Check `role_alias` in [aws_iot.websocket]: `aws iot list-role-aliases` prints those that there are."
_FAST = "Synchronise the clock (timedatectl set-ntp true): it is fast, or the other end lends what has ended."
_SHORT = "They are fetched for every connection then: let the role alias lend for longer (credentialDurationSeconds)"
_FORBIDDEN = (
    "The role of `role_alias` must allow iot:Connect; `endpoint`, `credentials_endpoint` and `region` must be of one "
    "account and region; and the clock right within 5 minutes."
)

Signer = Callable[[], str]
"""Signs the target of a WebSocket's handshake now. Raises DialError, ConfigError."""


def look_at_websocket(
    settings: AwsIotSettings, address: Address, around: Surroundings
) -> Generator[Finding, None, Signer | None]:
    """Every step to an open WebSocket; what signs the next one, or None when MQTT cannot begin."""
    lender = _lender(settings)
    there = yield from _reach_lender(lender, around)
    if there is None:
        return None
    found = list(look_at_tls(lender, there, around.patience, behind(settings, around)))
    certificates = [each for each in found if each.step is Step.CLIENT_CERTIFICATE]
    handshake = [each for each in found if each.step is not Step.CLIENT_CERTIFICATE]
    yield _one(Step.ROLE_TLS, handshake)
    if certificates:
        yield _one(Step.ROLE_CERTIFICATE, certificates)
    if any(each.outcome is Outcome.FAILED for each in found):
        return None
    sign = yield from _borrow(settings, around)
    if sign is None:
        return None
    opened = _open(settings, address, sign, around)
    yield opened
    return None if opened.outcome is Outcome.FAILED else sign


def _lender(settings: AwsIotSettings) -> AwsIotSettings:
    """The credentials endpoint as if it were the endpoint."""
    other = settings.websocket
    return msgspec.structs.replace(settings, endpoint=other.credentials_endpoint, connect_address=other.connect_address)


def _reach_lender(lender: AwsIotSettings, around: Surroundings) -> Generator[Finding, None, Address | None]:
    addresses: list[Address] = []
    there: list[Address | None] = []

    def names() -> Generator[Finding]:
        addresses.extend((yield from look_up(lender, around.patience)))

    def ports() -> Generator[Finding]:
        there.append((yield from reach(lender, addresses, msgspec.structs.replace(around, other=None))))

    yield _one(Step.ROLE_DNS, names())
    if not addresses:
        return None
    yield _one(Step.ROLE_TCP, reversed(list(ports())))
    return there[0]


def _one(step: Step, findings: Iterable[Finding]) -> Finding:
    """The gravest of them, as a finding about the credentials endpoint."""
    found = min(findings, key=lambda each: _GRAVITY.index(each.outcome))
    says = found.says
    if found.fault is not None:
        says = says.replace("he endpoint", "he credentials endpoint")
    fix = _FIXES.get(found.fault, found.fix) if found.fault is not None else found.fix
    return Finding(step, found.outcome, says, fix, found.fault, found.seconds)


def _borrow(settings: AwsIotSettings, around: Surroundings) -> Generator[Finding, None, Signer | None]:
    """Ask for credentials as the bridge does."""
    patient = msgspec.structs.replace(settings, connect_timeout=Duration(2 * around.patience.answer))
    role = RoleCredentials(patient, lambda: around.now().timestamp())

    def sign() -> str:
        return role.target(role.context(), "")

    try:
        sign()
    except DialError as error:
        yield _not_lent(error.down)
        return None
    except ConfigError as error:  # the files were in order a moment ago
        yield of_problems(Step.ROLE_CREDENTIALS, error.problems, "")
        return None
    ends = role.ends or datetime.now(UTC)
    says = f"lent for role alias {settings.websocket.role_alias!r} until {ends:%Y-%m-%d %H:%M:%S} UTC"
    is_short = ends - around.now() < RESERVE
    yield Finding(Step.ROLE_CREDENTIALS, Outcome.WARNING if is_short else Outcome.OK, says, _SHORT if is_short else "")
    return sign


def _not_lent(down: LinkDown) -> Finding:
    detail = down.detail.removeprefix(PLACE)
    fix = ""
    if detail.startswith("HTTP 404"):
        fix = _ALIAS
    elif detail.startswith("they ended"):
        fix = _FAST
    return failed(down.fault or LinkFault.CREDENTIALS_REFUSED, detail, step=Step.ROLE_CREDENTIALS, fix=fix)


def _open(settings: AwsIotSettings, address: Address, sign: Signer, around: Surroundings) -> Finding:
    """Open one WebSocket, and close it."""
    patience = around.patience
    try:
        context = tls.build_context(settings)
        sock, _ = dial(address, patience.connect)
        with sock, context.wrap_socket(sock, server_hostname=settings.endpoint) as secured:
            open_websocket(secured, settings.endpoint, sign(), patience.answer).close()
    except (OSError, DialError) as error:
        down = fault_of_error(error, behind(settings, around)) or LinkDown(LinkFault.WEBSOCKET_REFUSED, str(error))
        fix = _FORBIDDEN if down.detail.startswith("HTTP 403") else ""
        return failed(down.fault or LinkFault.WEBSOCKET_REFUSED, down.detail, step=Step.WEBSOCKET, fix=fix)
    except ConfigError as error:
        return of_problems(Step.WEBSOCKET, error.problems, "")
    return Finding(Step.WEBSOCKET, Outcome.OK, "it opens, and speaks mqtt")
