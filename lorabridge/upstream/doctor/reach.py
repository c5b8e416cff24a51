"""The way to a port below TLS, step by step, and what of this machine it is walked with."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime

import msgspec

from lorabridge.upstream import tls
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.doctor import network
from lorabridge.upstream.doctor.handshake import Patience
from lorabridge.upstream.doctor.network import Address
from lorabridge.upstream.doctor.steps import Finding, Outcome, Step, failed
from lorabridge.upstream.doctor.witnesses import kernel_is_synchronised
from lorabridge.upstream.faults import LinkFault

_NO_ROUTE = "This machine has no network that leads there: is the cable in, the modem up, is there a default route?"


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What of this machine and its time is asked; tests bring their own."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    is_synchronised: Callable[[], bool | None] = kernel_is_synchronised
    patience: Patience = Patience()
    other: tuple[str, int] | None = None
    """Where the port that is not configured is dialled; None where there is no such place."""


def port_of(settings: AwsIotSettings) -> int:
    """The port of the way that is configured; a WebSocket has no other than 443."""
    return 443 if settings.transport == "websocket" else settings.port


def other_port(settings: AwsIotSettings) -> int:
    """The one that is not."""
    return 8883 if port_of(settings) == 443 else 443


def look_up(settings: AwsIotSettings, patience: Patience) -> Generator[Finding, None, list[Address]]:
    """The addresses of the name that is dialled."""
    host, port = settings.address
    begun = time.monotonic()
    try:
        addresses = network.look_up(host, port, patience.look_up)
    except (OSError, UnicodeError) as error:
        asked = network.resolvers()
        beside = f"; name servers asked: {asked}" if asked else ""
        yield failed(LinkFault.NAME_NOT_RESOLVED, f"{host}: {getattr(error, 'strerror', None) or error}{beside}")
        return []
    if tls.is_ip_literal(host):
        yield Finding(Step.DNS, Outcome.OK, f"connect_address is {host}: nothing to look up")
        return addresses
    listed = ", ".join(address.host for address in addresses[:4])
    says = f"{host} has {len(addresses)} address(es): {listed}"
    if not settings.connect_address and any(network.is_no_real_address(address.host) for address in addresses):
        fix = "A filter or a portal answers for it: ask another name server, or look into /etc/hosts"
        yield Finding(Step.DNS, Outcome.WARNING, f"{says}, which is no machine of AWS", fix)
    else:
        yield Finding(Step.DNS, Outcome.OK, says, seconds=time.monotonic() - begun)
    return addresses


def reach(
    settings: AwsIotSettings, addresses: list[Address], around: Surroundings
) -> Generator[Finding, None, Address | None]:
    """Route and port; the first address that answers."""
    sources: dict[Address, str] = {}
    without: list[str] = []
    for address in addresses:
        try:
            sources[address] = network.source_for(address)
        except OSError as error:
            without.append(f"{address.host}: {error.strerror or error}")
    if not sources:
        yield failed(LinkFault.UNREACHABLE, "; ".join(without), step=Step.ROUTE, fix=_NO_ROUTE)
        return None
    chosen = next(iter(sources))
    beside = f"; none to {'; '.join(without)}" if without else ""
    yield Finding(Step.ROUTE, Outcome.OK, f"to {chosen.host} from {sources[chosen]}{beside}")
    unanswered: list[str] = []
    for address in sources:
        seconds = _seconds_to(address, around.patience, unanswered)
        if seconds is not None:
            says = f"{address} answers after {seconds * 1000:.0f} ms"
            if unanswered:
                yield Finding(Step.TCP, Outcome.WARNING, f"{says}; {'; '.join(unanswered)}", LinkFault.UNREACHABLE.hint)
            else:
                yield Finding(Step.TCP, Outcome.OK, says, seconds=seconds)
            return address
    fix = ""
    if around.other is not None and reachable(around.other, around.patience) is not None:
        line = 'transport = "tls"' if settings.transport == "websocket" else f"port = {other_port(settings)}"
        fix = f"Port {other_port(settings)} answers: set `{line}` in [aws_iot]."
    yield failed(LinkFault.UNREACHABLE, "; ".join(unanswered), fix=fix)
    return None


def _seconds_to(address: Address, patience: Patience, unanswered: list[str]) -> float | None:
    """How long the port took to answer; when it does not, why not is appended."""
    try:
        sock, seconds = network.dial(address, patience.connect)
    except TimeoutError:
        unanswered.append(f"{address} has not answered within {patience.connect:g} s, as if a firewall swallowed it")
    except OSError as error:
        unanswered.append(f"{address}: {error.strerror or error}")
    else:
        sock.close()
        return seconds
    return None


def reachable(way: tuple[str, int], patience: Patience) -> Address | None:
    """The first address of a way that answers."""
    try:
        addresses = network.look_up(*way, patience.look_up)
    except (OSError, UnicodeError):
        return None
    return next((address for address in addresses if _seconds_to(address, patience, []) is not None), None)


def behind(settings: AwsIotSettings, around: Surroundings) -> Callable[[], bool]:
    """Asks whether our clock is behind what our own certificate tells."""
    return lambda: tls.is_behind(settings, around.now().timestamp())
