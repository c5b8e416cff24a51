"""Every fault of the network, the endpoint, the clock, the disk and the certificates, under load, mosquitto behind all.

Zero accepted records lost, no reconnect faster than the back-off allows, memory and file descriptors flat. In the suite
each fault strikes a few times; with LORABRIDGE_FAULTS=full that takes an hour, and strikes as docs/fault-suite.md says.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lorabridge.simulation.pki import Pair, Pki, new_ec_key
from lorabridge.simulation.standin import Policy, Role
from tests import preload
from tests.components import component
from tests.e2e.chain import Issuer
from tests.e2e.fault_run import EVENTS, IS_FULL, PATIENCE, FaultRun, fault_run, let_pass
from tests.e2e.harness import LORABRIDGE, Site, open_site, wait_until
from tests.e2e.network import lose, lose_nothing, own_network
from tests.e2e.test_disk import hold_database, mounted
from tests.secret_search import private_number
from tests.simulation.standin_help import ENDPOINT, GATEWAY, ROLE, generous_policy, lending, paho, websocket_table

PATIENCE_S = 2 if IS_FULL else 1
QUICK = f'puback_timeout = "{PATIENCE_S}s"\nconnect_timeout = "{PATIENCE_S}s"'
"""Half a minute of patience is right for a modem, and too long for a test."""
LOSSY_PATIENCE = 300.0
"""With 30 % lost either way half of all packets go unanswered, and TCP doubles its wait each time."""
HANDSHAKE = 2048
"""Bytes that a connection may send: TLS and CONNECT, and not what waits to be published."""
DISK_MIB = 24
"""Several times what the store needs for itself."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600 if IS_FULL else 180)]


def size(small: int, full: int) -> int:
    """How often, or how long."""
    return full if IS_FULL else small


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site(event_limit=EVENTS) as opened:
        yield opened


@pytest.fixture
def websocket() -> Iterator[Site]:
    """A site that is reached by WebSocket."""
    with open_site(event_limit=EVENTS, policies=lambda pki: lending(pki)["policies"], roles={ROLE: Role()}) as opened:
        opened.port = opened.endpoint.standin.websocket_port
        yield opened


@contextmanager
def websocket_run(site: Site, name: str, rounds: int, *, lines: str = "", **how: Any) -> Iterator[FaultRun]:
    """A run over it; what is lent to the bridge may stand nowhere."""
    standin = site.endpoint.standin
    lent: list[bytes] = []
    site.endpoint.watch_lent(lent)
    table = websocket_table(standin.credentials_port)
    with fault_run(site, f"WebSocket: {name}", rounds, aws_iot=f"{lines}\n{table}", **how) as run:
        yield run
        assert lent
        run.installation.note_secrets(lent)


def test_connection_that_is_cut_costs_nothing(site: Site) -> None:
    rounds = size(3, 120)
    with fault_run(site, "cut (RST)", rounds) as run:
        run.strike(rounds, run.relay.cut)


def test_record_that_is_in_flight_in_many_drops_is_not_given_up_for_it(site: Site) -> None:
    rounds = size(1, 20)
    with fault_run(site, "cut before the first PUBACK, five times", rounds) as run:

        def flap() -> Callable[[], None]:
            drops = run.installation.counters()["link_drops"]
            run.relay.cut_after(HANDSHAKE)
            run.relay.cut()
            what = "five connections are cut over the same record"
            wait_until(lambda: run.installation.counters()["link_drops"] > drops + 5, what, PATIENCE)
            return lambda: run.relay.cut_after(0)

        run.strike(rounds, flap)


def test_endpoint_that_is_gone_without_a_fin_costs_nothing(site: Site) -> None:
    rounds = size(1, 40)
    with fault_run(site, "half-open", rounds, aws_iot=QUICK) as run:
        run.strike(rounds, run.relay.half_open)


def test_relay_that_forwards_nothing_costs_nothing(site: Site) -> None:
    rounds = size(1, 20)
    with fault_run(site, "black hole (a relay that stops)", rounds, aws_iot=QUICK) as run:
        run.strike(rounds, run.relay.swallow, lasting=size(3, 8))


def test_network_that_swallows_every_packet_costs_nothing() -> None:
    rounds = size(1, 20)
    name = "black hole (every packet dropped)"
    with own_network(), open_site(event_limit=EVENTS) as site, fault_run(site, name, rounds, aws_iot=QUICK) as run:

        def swallow() -> Callable[[], None]:
            lose(run.relay.port, 1.0)
            return lose_nothing

        run.strike(rounds, swallow, lasting=size(3, 8))


def test_network_of_ten_kilobytes_a_second_costs_nothing(site: Site) -> None:
    rounds = size(1, 10)
    with fault_run(site, "slow (10 kB/s)", rounds) as run:

        def slow() -> Callable[[], None]:
            run.relay.slow(10_000)
            return lambda: run.relay.slow(0)

        run.strike(rounds, slow, lasting=size(4, 15), anew=False)


def test_network_that_loses_three_packets_in_ten_costs_nothing() -> None:
    rounds = size(1, 10)
    with (
        own_network(),
        open_site(event_limit=EVENTS) as site,
        fault_run(site, "30 % of packets lost", rounds, rate=10) as run,
    ):

        def lossy() -> Callable[[], None]:
            lose(run.relay.port, 0.3)
            return lose_nothing

        run.strike(rounds, lossy, lasting=size(4, 20), anew=False)

        def cut_in_the_loss() -> Callable[[], None]:
            connected, _ = run.seen()
            lose(run.relay.port, 0.3)
            run.relay.cut()
            wait_until(lambda: run.seen()[0] > connected, "a new connection through the loss", LOSSY_PATIENCE)
            return lose_nothing  # what the cut left behind may wait as long as TCP gets only the fresh records through

        run.strike(size(1, 10), cut_in_the_loss, anew=False)


def test_broker_that_dies_again_and_again_costs_nothing(site: Site) -> None:
    rounds = size(20, 1000)
    with fault_run(site, "broker restarted", rounds, rate=25) as run:
        for round_ in range(rounds):
            if round_ % size(10, 2) == 0:
                run.strike(1, lambda: _restart(site), pause=0.02)
            else:  # it dies at any moment: while nobody is connected, in the handshake, over the first publish
                _restart(site)
                let_pass(round_ % 7 / 20)


def _restart(site: Site) -> None:
    site.broker.kill()
    site.broker.start()


def test_second_client_with_the_same_id_costs_nothing(site: Site) -> None:
    rounds = size(4, 100)
    with fault_run(site, "duplicate client id", rounds) as run, contextlib.ExitStack() as rivals:

        def take_over() -> None:
            """Somebody copied the card of a gateway, certificate and all."""
            rival = rivals.enter_context(paho(site.pki, site.endpoint.standin.port, mqtt_5=True))
            rival.ready()

        run.strike(rounds, take_over, pause=0.3, rivals=1)


def test_websocket_that_is_cut_costs_nothing(websocket: Site) -> None:
    rounds = size(2, 120)
    with websocket_run(websocket, "cut (RST)", rounds) as run:
        run.strike(rounds, run.relay.cut)


def test_websocket_whose_relay_forwards_nothing_costs_nothing(websocket: Site) -> None:
    rounds = size(1, 20)
    with websocket_run(websocket, "black hole (a relay that stops)", rounds, lines=QUICK) as run:
        run.strike(rounds, run.relay.swallow, lasting=size(3, 8))


def test_websocket_whose_broker_dies_again_and_again_costs_nothing(websocket: Site) -> None:
    rounds = size(3, 200)
    with websocket_run(websocket, "broker restarted", rounds, rate=25) as run:
        run.strike(rounds, lambda: _restart(websocket), pause=0.02)


def test_credentials_that_end_under_load_cost_nothing(websocket: Site) -> None:
    rounds = size(2, 60)
    with websocket_run(websocket, "credentials ended", rounds) as run:
        standin = websocket.endpoint.standin
        lent = standin.counters["lent"]
        run.strike(rounds, lambda: websocket.endpoint.call(standin.expire_credentials))
        assert standin.counters["lent"] - lent == rounds, "others are asked for once the endpoint refuses those"


def test_reordered_certificate_chain_costs_nothing(site: Site) -> None:
    rounds = size(3, 60)
    chains = Chains(site)
    chains.serve(0)
    with fault_run(site, "reordered certificate chain", rounds) as run:

        def reorder() -> None:
            chains.serve(len(run.recoveries) + 1)
            run.relay.cut()

        run.strike(rounds, reorder)


class Chains:
    """The endpoint's certificate below two intermediates, and the orders in which they can be sent."""

    def __init__(self, site: Site) -> None:
        root, first, second, stranger = (Issuer(name) for name in ("Root", "First", "Second", "Stranger"))
        with site.pki.ca_file.open("ab") as trusted:
            trusted.write(root.sign(root))
        between = (second.sign(by=first), first.sign(by=root), root.sign(by=root), stranger.sign(by=root))
        self._orders = list(itertools.permutations(between))
        pairs = (site.pki.server_ecdsa, site.pki.server_rsa)
        self._leaves = {pair: second.server(ENDPOINT, pair.key) for pair in pairs}

    def serve(self, number: int) -> None:
        """From the next connection on, the certificate is followed by the others in another order."""
        for pair, certificate in self._leaves.items():
            pair.certificate.write_bytes(certificate + b"".join(self._orders[number % len(self._orders)]))


def test_certificates_that_rotate_cost_nothing() -> None:
    rounds = size(1, 20)
    pairs: list[Pair] = []

    def known(pki: Pki) -> dict[str, Policy]:
        pairs.extend(pki.devices.client(GATEWAY, new_ec_key(), f"gateway-{number}") for number in range(rounds + 1))
        return {pair.fingerprint: generous_policy() for pair in (pki.gateway, *pairs)}

    with (
        open_site(event_limit=EVENTS, policies=known) as site,
        fault_run(site, "certificate rotated", rounds) as run,
    ):
        run.installation.note_secrets(private_number(pair.key) for pair in pairs)
        for number in range(rounds):
            run.strike(1, partial(_install, pairs[number], site.pki.gateway))
            assert run.installation.counters()["link_certificates_replaced"] == number + 1
        if IS_FULL:
            _spoil(run, pairs[rounds])


def _install(pair: Pair, over: Pair) -> None:
    for source, target in ((pair.certificate, over.certificate), (pair.key, over.key)):
        beside = target.with_suffix(".new")
        shutil.copy(source, beside)
        beside.chmod(0o600)
        beside.replace(target)


def _spoil(run: FaultRun, fit: Pair) -> None:
    """Pairs that are not fit, under load: the one before stays, and a fit one is taken after them."""
    devices, target = run.site.pki.devices, run.site.pki.gateway
    unknown = devices.client(GATEWAY, new_ec_key(), "unknown")
    mixed = Pair(unknown.certificate, devices.client(GATEWAY, new_ec_key(), "another").key, "")
    for pair in (unknown, mixed):
        refused = _refused(run)
        _install(pair, target)
        wait_until(partial(_is_refused_again, run, refused), "it is given up", PATIENCE)
    replaced = run.installation.counters()["link_certificates_replaced"]
    run.strike(1, partial(_install, fit, target))
    assert run.installation.counters()["link_certificates_replaced"] == replaced + 1


def _refused(run: FaultRun) -> int:
    return run.installation.counters()["link_certificates_refused"]


def _is_refused_again(run: FaultRun, refused: int) -> bool:
    return _refused(run) > refused


def test_clock_of_1970_that_is_set_late_costs_nothing(site: Site) -> None:
    compiler = component("cc", hint="apt-get install gcc libc6-dev")
    library = preload.build(Path(__file__).with_name("set_clock.c"), site.folder, compiler)
    shift = site.folder / "shift"
    shift.write_bytes(struct.pack("=q", 60 - int(time.time())))
    command = ("env", f"LD_PRELOAD={library}", f"SET_CLOCK={shift}", LORABRIDGE)
    with fault_run(site, "clock at 1970, then set", 1, command=command, is_online=False) as run:

        def still_1970() -> Callable[[], None]:
            wait_until(lambda: run.installation.status()["link_fault"] == "clock_not_set", "the link waits")
            return set_clock

        def set_clock() -> None:
            with shift.open("r+b") as file:  # in place, because the daemon has it mapped
                file.write(struct.pack("=q", 0))

        run.strike(1, still_1970, lasting=size(3, 60), pause=size(1, 60))
        stamps = [uplink["received_at"][:4] for uplink in site.payloads("uplink")]
        assert {"1970", f"{datetime.now(UTC):%Y}"} == set(stamps)


def test_disk_that_is_full_costs_nothing(site: Site) -> None:
    rounds = size(1, 6)
    with mounted(site, DISK_MIB) as disk, fault_run(site, "disk full", rounds, state=disk / "state") as run:

        def fill() -> Callable[[], None]:
            run.relay.hold(on=True)
            failures = run.installation.counters()["store_failures"]
            ballast = _fill(disk)
            what = "a commit fails"
            with contextlib.suppress(AssertionError):  # later on it may live on what is free inside its own files
                wait_until(lambda: run.installation.counters()["store_failures"] > failures, what, 15)

            def mend() -> None:
                ballast.unlink()
                run.relay.hold(on=False)

            return mend

        run.strike(rounds, fill, lasting=size(2, 5), anew=False)
        assert run.installation.counters()["store_failures"] > 0


def _fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_database_that_somebody_holds_costs_nothing(site: Site) -> None:
    rounds = size(1, 20)
    with fault_run(site, "database locked", rounds) as run:

        def hold() -> Callable[[], None]:
            failures = run.installation.counters()["store_failures"]
            release = hold_database(run.installation, run.bridge)
            wait_until(lambda: run.installation.counters()["store_failures"] > failures, "a commit fails", PATIENCE)
            return release

        run.strike(rounds, hold, lasting=size(1, 5), anew=False)
