"""`lorabridge doctor` names the step that is broken, and what to do, whatever it is that is broken."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lorabridge.cli.doctor import report
from lorabridge.cli.main import main
from lorabridge.daemon import check, status
from lorabridge.daemon.doctor import examine
from lorabridge.simulation.pki import Authority, new_ec_key
from lorabridge.simulation.standin import Happening
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.doctor import network, tls_steps, websocket_steps, witnesses
from lorabridge.upstream.doctor.handshake import Shake
from lorabridge.upstream.doctor.steps import MQTT, STEP_OF, Finding, Outcome, Step, cause, steps_markdown
from lorabridge.upstream.doctor.transcript import Transcript
from lorabridge.upstream.faults import LinkFault
from lorabridge.upstream.tls import RECOMMENDED_SUITES
from tests.cli.doctor_cases import CASES, Case, cases_markdown
from tests.cli.doctor_gateway import PATIENT, Gateway, at_work, https, speaking
from tests.daemon.config_help import GATEWAY, Installation
from tests.mosquitto import free_port

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with ExitStack() as stack:
        yield Gateway(Installation(tmp_path), stack)


def _found(gateway: Gateway, **how: Any) -> list[Finding]:
    return list(examine(gateway.installed.path, around=gateway.around, **how))


def _outcomes(findings: list[Finding]) -> dict[Step, Outcome]:
    assert len({finding.step for finding in findings}) == len(findings) == len(Step), "each step once"
    return {finding.step: finding.outcome for finding in findings}


def _finding(findings: list[Finding], step: Step) -> Finding:
    return next(finding for finding in findings if finding.step is step)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_step_that_is_broken_is_named_with_the_fix(
    gateway: Gateway, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.breaks(gateway)
    findings = _found(gateway)
    found = cause(findings)
    assert found is not None
    assert (found.step, found.fault) == (case.step, case.fault), found.sentence
    assert case.says in found.says
    assert case.fix in found.fix
    _outcomes(findings)
    assert report(findings, as_json=False) == 1
    told = " ".join(capsys.readouterr().out.split("\n\n")[-1].split())
    assert told.startswith(f"{case.step.title}: ")
    assert " Do: " in told


def _healthy(gateway: Gateway) -> Any:
    """Everything in order: the stand-in, its other port, and the endpoint's time."""
    standin = gateway.standin()
    gateway.surround(other=("127.0.0.1", standin.standin.alpn_port))
    return standin


NEVER_IN_ORDER = {Step.ROOTS, Step.EXPIRY}
"""A throw-away authority is none of Amazon's, and its certificates are always about to expire."""


OF_A_WEBSOCKET = {step for step in Step if step.value.startswith("role_")} | {Step.WEBSOCKET}


def test_a_whole_way_is_walked_to_its_end_and_nothing_fails(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    standin = _healthy(gateway)
    findings = _found(gateway)
    outcomes = _outcomes(findings)
    assert {step for step, outcome in outcomes.items() if outcome is Outcome.WARNING} == NEVER_IN_ORDER
    left_out = {step for step, outcome in outcomes.items() if outcome is Outcome.SKIPPED}
    assert left_out == {Step.ALPN, Step.CLOCK_SKEW, *OF_A_WEBSOCKET}, "port 8883 needs no ALPN, and tells no time"
    assert "4 offered, ECDHE-ECDSA-AES128-GCM-SHA256 chosen" in _finding(findings, Step.SUITES).says
    assert "port 443 would do as well" in _finding(findings, Step.OTHER_PORT).says
    ((topic, payload),) = standin.published
    assert topic == f"lorabridge/{GATEWAY}/status"
    assert (json.loads(payload)["state"], json.loads(payload)["detail"]) == ("offline", "lorabridge doctor")
    standin.happened(Happening.DISCONNECTED)
    assert report(findings, as_json=False) == 0
    assert capsys.readouterr().out.endswith("\nNothing failed; 2 warning(s).\n")


def test_on_port_443_the_alpn_is_part_of_the_way(gateway: Gateway) -> None:
    standin = gateway.standin()
    gateway.set(port=443)
    gateway.dial(standin.standin.alpn_port)
    gateway.surround(other=("127.0.0.1", free_port()))
    findings = _found(gateway)
    assert cause(findings) is None
    assert "x-amzn-mqtt-ca is taken" in _finding(findings, Step.ALPN).says
    assert _outcomes(findings)[Step.OTHER_PORT] is Outcome.OK, "nobody needs 8883 then"


@pytest.mark.parametrize(
    ("ahead", "outcome"), [(0, Outcome.OK), (30, Outcome.WARNING), (-30, Outcome.WARNING), (301, Outcome.FAILED)]
)
def test_the_clock_is_compared_with_the_time_that_the_endpoint_tells(
    gateway: Gateway, ahead: int, outcome: Outcome
) -> None:
    noon = datetime.now(UTC).replace(microsecond=0)
    gateway.standin()
    with https(gateway.installed, noon) as port:
        gateway.surround(now=lambda: noon + timedelta(seconds=ahead), other=("127.0.0.1", port))
        findings = _found(gateway)
    assert _outcomes(findings)[Step.CLOCK_SKEW] is outcome
    assert f"{abs(ahead)} s" in _finding(findings, Step.CLOCK_SKEW).says
    assert _outcomes(findings)[Step.OTHER_PORT] is Outcome.WARNING, "where 8883 is used the lack of 443 is a warning"


@pytest.mark.parametrize(
    ("is_synchronised", "outcome"), [(True, Outcome.OK), (False, Outcome.WARNING), (None, Outcome.OK)]
)
def test_a_clock_that_nobody_keeps_is_worth_a_warning(
    gateway: Gateway, is_synchronised: bool | None, outcome: Outcome
) -> None:
    gateway.dial(free_port())
    gateway.surround(is_synchronised=lambda: is_synchronised)
    assert _outcomes(_found(gateway))[Step.CLOCK] is outcome


def _is_amazon(monkeypatch: pytest.MonkeyPatch, ca_file: Path, number: str) -> str:
    """Take an authority for one of Amazon's; its certificate."""
    pem = ca_file.read_text(encoding="ascii")
    monkeypatch.setitem(witnesses.AMAZON_ROOTS, hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest(), number)
    return pem


def test_an_authority_of_amazon_is_known_by_its_fingerprint(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = gateway.installed.pki
    _is_amazon(monkeypatch, pki.ca_file, "1")
    gateway.standin()
    findings = _found(gateway)
    assert "holds only Amazon Root CA 1" in _finding(findings, Step.ROOTS).says
    assert _finding(findings, Step.CHAIN).says.endswith("an Amazon root CA is at the end of its chain")
    another = _is_amazon(monkeypatch, pki.devices.ca_file, "3")
    pki.ca_file.write_text(pki.ca_file.read_text(encoding="ascii") + another, encoding="ascii")
    finding = _finding(_found(gateway), Step.ROOTS)
    assert (finding.outcome, finding.says) == (Outcome.OK, "Amazon Root CA 1, 3")


@pytest.mark.parametrize(("amazon", "outcome"), [("endpoints", Outcome.OK), ("devices", Outcome.WARNING)])
def test_who_is_trusted_beside_amazon_does_not_vouch_for_the_endpoint_unseen(
    gateway: Gateway, amazon: str, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = gateway.installed.pki
    _is_amazon(monkeypatch, getattr(pki, amazon).ca_file, "1")
    both = pki.endpoints.ca_file.read_bytes() + pki.devices.ca_file.read_bytes()
    gateway.standin()
    pki.ca_file.write_bytes(both)
    findings = _found(gateway)
    assert cause(findings) is None
    assert "and 1 others" in _finding(findings, Step.ROOTS).says
    finding = _finding(findings, Step.CHAIN)
    assert finding.outcome is outcome
    assert ("no Amazon root CA does" in finding.says) is (outcome is Outcome.WARNING)


@pytest.mark.parametrize("number", ["1", "2", "3", "4"])
def test_the_fingerprints_are_those_of_the_real_authorities(number: str) -> None:
    path = Path(f"/etc/ssl/certs/Amazon_Root_CA_{number}.pem")
    if not path.exists():
        pytest.skip("Debian's ca-certificates is not installed")
    assert witnesses.amazon_roots(str(path))[0].keys() == {number}


def test_of_several_addresses_the_first_that_answers_is_taken_and_the_others_are_named(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = gateway.standin().standin.port

    def two(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 1)]

    gateway.set(connect_address=f"tunnel.example:{port}")
    monkeypatch.setattr(socket, "getaddrinfo", two)
    findings = _found(gateway)
    assert "tunnel.example has 2 address(es): 127.0.0.2, 127.0.0.1" in _finding(findings, Step.DNS).says
    reached = _finding(findings, Step.TCP)
    assert reached.outcome is Outcome.WARNING
    assert reached.says.startswith(f"127.0.0.1 port {port} answers")
    assert f"127.0.0.2 port {port}: Connection refused" in reached.says


def test_an_endpoint_that_has_the_address_of_this_machine_is_blocked_by_a_filter(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocked(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    findings = _found(gateway)
    assert _finding(findings, Step.DNS).outcome is Outcome.WARNING
    assert "A filter or a portal answers for it" in _finding(findings, Step.DNS).fix
    assert cause(findings) is _finding(findings, Step.TCP)


def test_suites_that_openssl_keeps_back_are_named(gateway: Gateway) -> None:
    shake = Shake(down=None, transcript=Transcript(), offered=RECOMMENDED_SUITES[:1], seconds=0, suite="X")
    finding = tls_steps._suites(gateway.installed.config.link, shake)
    assert finding.outcome is Outcome.WARNING
    assert finding.says == f"1 offered, X chosen; not offered: {', '.join(RECOMMENDED_SUITES[1:])}"


def test_a_port_that_answers_only_once_is_told(gateway: Gateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once() -> None:
            connection, _ = listener.accept()
            listener.shutdown(socket.SHUT_RDWR)
            connection.close()

        thread = threading.Thread(target=once)
        thread.start()
        gateway.dial(listener.getsockname()[1])
        address = network.look_up("127.0.0.1", listener.getsockname()[1], 10)[0]
        network.dial(address, 10)[0].close()
        thread.join()
        settings = gateway.installed.config.link
        (finding,) = tls_steps.look_at_tls(settings, address, gateway.around.patience, lambda: False)
    assert (finding.step, finding.fault) == (Step.TLS, LinkFault.TLS_CLOSED)
    assert finding.says.endswith("the port answered once, and then: Connection refused)")


def test_files_that_are_gone_a_moment_later_are_named(gateway: Gateway) -> None:
    gateway.key.unlink()
    address = network.look_up("127.0.0.1", free_port(), 10)[0]
    (finding,) = tls_steps.look_at_tls(gateway.installed.config.link, address, gateway.around.patience, lambda: False)
    assert finding.step is Step.TLS
    assert finding.says.startswith(f"{gateway.key} cannot be read")


@pytest.mark.parametrize(
    ("alert", "profile", "step", "fix"),
    [
        (70, "recommended", Step.VERSION, "AWS IoT speaks 1.2 and 1.3"),
        (40, "recommended", Step.SUITES, "nor all 18"),
        (40, "aws-compatible", Step.SUITES, "nor all 18"),
        (42, "recommended", Step.CLIENT_CERTIFICATE, "ACTIVE"),
    ],
)
def test_an_alert_alone_is_enough_to_name_the_step(
    gateway: Gateway, alert: int, profile: str, step: Step, fix: str
) -> None:
    gateway.set(cipher_profile=profile)
    gateway.answering(bytes([21, 3, 3, 0, 2, 2, alert]))
    found = cause(_found(gateway))
    assert found is not None
    assert found.step is step
    assert fix in found.fix


def test_another_port_that_cannot_be_looked_at_is_no_failure(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def only_numbers(host: str, *more: Any, **how: Any) -> Any:
        if host.startswith("127."):
            return real(host, *more, **how)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", only_numbers)
    gateway.standin()
    gateway.surround(other=("nowhere.example", 443))
    findings = _found(gateway)
    assert cause(findings) is None
    assert _outcomes(findings)[Step.OTHER_PORT] is Outcome.WARNING
    assert _outcomes(findings)[Step.CLOCK_SKEW] is Outcome.SKIPPED


def test_little_room_for_the_database_is_a_warning(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_LITTLE_ROOM", 1 << 62)  # more than any disk has
    gateway.dial(free_port())
    finding = _finding(_found(gateway), Step.DISK)
    assert finding.outcome is Outcome.WARNING
    assert "MiB are free" in finding.says


def test_a_bridge_without_downlinks_does_not_try_to_subscribe(gateway: Gateway) -> None:
    _healthy(gateway)
    gateway.installed.write(gateway.installed.path.read_text(encoding="utf-8") + "[downlinks]\nenabled = false\n")
    finding = _finding(_found(gateway), Step.SUBSCRIBE)
    assert (finding.outcome, finding.says[:24]) == (Outcome.SKIPPED, "downlinks are switched o")


def test_a_publish_that_another_client_cut_short_is_tried_again_before_the_policy_is_blamed(gateway: Gateway) -> None:
    answers = [b"", b"\x40\x02\x00\x01"]
    speaking(gateway, b"\x20\x02\x00\x00", lambda _: answers.pop(0))
    findings = _found(gateway)
    assert cause(findings) is None
    assert (_outcomes(findings)[Step.PUBLISH], answers) == (Outcome.OK, [])


def test_at_tls_1_3_a_refused_certificate_shows_after_the_handshake(gateway: Gateway) -> None:
    def change(context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3

    folder = gateway.installed.folder / "elsewhere"
    folder.mkdir()
    gateway.server(change=change)
    gateway.use(Authority(folder, "Another Account", datetime.now(UTC)).client(GATEWAY, new_ec_key(), "stranger"))
    gateway.set(tls_max="1.3")
    gateway.surround(patience=PATIENT)
    findings = _found(gateway)
    assert "TLS 1.3" in _finding(findings, Step.VERSION).says
    found = cause(findings)
    assert found is not None
    assert (found.step, found.fault) == (Step.CLIENT_CERTIFICATE, LinkFault.CLIENT_CERTIFICATE_REFUSED)
    assert "it hung up after the handshake" in found.says


def test_where_a_publish_is_refused_the_subscription_is_tried_on_a_connection_of_its_own(gateway: Gateway) -> None:
    next(case for case in CASES if case.step is Step.PUBLISH).breaks(gateway)
    assert _outcomes(_found(gateway))[Step.SUBSCRIBE] is Outcome.OK


# A bridge that is at work.

ONLINE = dict.fromkeys(MQTT, Outcome.OK)


@pytest.mark.parametrize(
    ("changes", "outcomes", "says"),
    [
        ({}, {}, "41 records"),
        ({"counters": {}, "commands": "waiting"}, {Step.PUBLISH: "skipped", Step.SUBSCRIBE: "skipped"}, "waiting"),
        ({"commands": "refused"}, {Step.SUBSCRIBE: "failed"}, "as the running bridge says"),
        ({"counters": {"link_fault_taken_over": 3}}, {Step.PUBLISH: "skipped", Step.ALONE: "failed"}, "3 times"),
        (
            {"link": "waiting", "link_fault": "closed_before_connack", "link_detail": "gone"},
            {Step.CONNECT: "failed", Step.PUBLISH: "skipped", Step.ALONE: "skipped", Step.SUBSCRIBE: "skipped"},
            "as the running bridge says: gone",
        ),
        (
            {"link": "waiting", "link_fault": "unreachable", "link_detail": "gone"},
            {Step.CONNECT: "warning", Step.PUBLISH: "skipped", Step.ALONE: "skipped", Step.SUBSCRIBE: "skipped"},
            "all before MQTT passed just now",
        ),
        (
            {"link": "connecting"},
            {Step.CONNECT: "warning", Step.PUBLISH: "skipped", Step.ALONE: "skipped", Step.SUBSCRIBE: "skipped"},
            "not connected (connecting)",
        ),
    ],
)
def test_a_bridge_at_work_is_asked_and_not_disturbed(
    gateway: Gateway, changes: dict[str, Any], outcomes: dict[Step, str], says: str
) -> None:
    standin = _healthy(gateway)
    with at_work(gateway, **changes):
        findings = _found(gateway)
    found = {step: outcome for step, outcome in _outcomes(findings).items() if step in MQTT}
    assert found == ONLINE | {step: Outcome(outcome) for step, outcome in outcomes.items()}
    assert any(says in finding.says for finding in findings)
    assert standin.standin.counters["connected"] == 0, "only a CONNECT takes a client id over"


def test_what_else_ails_a_bridge_at_work_is_told(gateway: Gateway) -> None:
    gateway.dial(free_port())
    with at_work(gateway, stuck=["pipeline"], store="disk full", paused=True, counters={"outbox_parked": 2}):
        finding = _finding(_found(gateway), Step.BRIDGE)
    assert finding.outcome is Outcome.WARNING
    says = "; stuck: pipeline; database: disk full; sending is paused by the shadow; 2 records are parked"
    assert says in finding.says


def test_with_take_over_it_connects_all_the_same_and_says_so(gateway: Gateway) -> None:
    standin = _healthy(gateway)
    with at_work(gateway):
        findings = _found(gateway, take_over=True)
    assert cause(findings) is None
    assert _outcomes(findings)[Step.ALONE] is Outcome.SKIPPED, "the bridge may come back"
    assert "it is thrown out now" in _finding(findings, Step.BRIDGE).says
    assert standin.standin.counters["connected"] == 1


def test_a_bridge_that_has_the_database_and_does_not_answer_is_not_disturbed(gateway: Gateway) -> None:
    standin = _healthy(gateway)
    command = [sys.executable, "-c", "print('ready', flush=True); input()", "lorabridge", "run"]
    lock = gateway.installed.folder / "state" / "lorabridge.db.lock"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        lock.write_text(f"{process.pid}\n", encoding="ascii")
        findings = _found(gateway)
        process.communicate(b"\n")
    assert f"process {process.pid} has the database open" in _finding(findings, Step.BRIDGE).says
    assert all(_outcomes(findings)[step] is Outcome.SKIPPED for step in MQTT)
    assert standin.standin.counters["connected"] == 0


def test_a_lock_file_left_by_a_bridge_that_has_ended_is_no_bridge(gateway: Gateway) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (gateway.installed.folder / "state" / "lorabridge.db.lock").write_bytes(ended.stdout)
    gateway.dial(free_port())
    assert "none is at work" in _finding(_found(gateway), Step.BRIDGE).says


def test_a_socket_that_we_may_not_open_may_have_a_bridge_behind_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:  # root may open anything: answer as the kernel does to others
        raise PermissionError(13, "Permission denied")

    standin = _healthy(gateway)
    monkeypatch.setattr(status, "ask", refused)
    finding = _finding(findings := _found(gateway), Step.BRIDGE)
    assert finding.outcome is Outcome.WARNING
    assert "sudo" in finding.fix
    assert "--take-over" in finding.fix
    assert all(_outcomes(findings)[step] is Outcome.SKIPPED for step in MQTT)
    assert standin.standin.counters["connected"] == 0


# What is printed.


def test_machines_get_one_object_with_the_cause_and_every_step(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.dial(free_port())
    assert main(["doctor", "--json", "--config", str(gateway.installed.path)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert [step["step"] for step in document["steps"]] == [step.value for step in Step]
    assert (document["cause"]["step"], document["cause"]["fault"]) == ("tcp", "unreachable")
    assert all({"step", "title", "outcome", "says"} <= set(step) for step in document["steps"])
    assert document["cause"] in document["steps"]


@pytest.mark.parametrize("columns", [80, 120])
def test_people_can_read_it_in_a_terminal_of_any_width(
    gateway: Gateway, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    gateway.dial(free_port())
    assert main(["doctor", "--config", str(gateway.installed.path)]) == 1
    told = capsys.readouterr().out
    walked, _, conclusion = told.rpartition("\n\n")
    path = str(gateway.installed.folder)  # of a test, and so longer than any line
    assert [line for line in told.splitlines() if len(line) > columns and path not in line] == []
    marks = {line[:7].strip() for line in walked.splitlines()} - {""}
    assert marks == {"ok", "warning", "FAILED", "-"}
    assert conclusion.splitlines()[0].startswith("TCP connection: No TCP connection to the endpoint")
    assert "\nDo: Check the network" in conclusion


def test_a_configuration_that_is_refused_ends_it_there(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.installed.write("[gateway\n")
    assert main(["doctor", "--config", str(gateway.installed.path)]) == 1
    assert "is no TOML" in capsys.readouterr().out


# What is written down.


def test_every_fault_of_the_link_has_its_step() -> None:
    assert set(STEP_OF) == set(LinkFault)


def test_every_step_that_can_fail_is_tried_by_a_broken_set_up() -> None:
    cannot_fail = {Step.BRIDGE, Step.OTHER_PORT}
    assert {case.step for case in CASES} == set(Step) - cannot_fail


def test_the_page_has_every_step_and_every_broken_set_up() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert steps_markdown() in text, "run: make docs"
    assert cases_markdown() in text, f"docs/doctor.md should have:\n{cases_markdown()}"


def test_the_way_to_a_broker_that_is_not_aws_is_not_walked(gateway: Gateway) -> None:
    before, _, after = gateway.installed.text.partition("[aws_iot]")
    rest = after[after.index("\n[") :]
    gateway.installed.write(f'{before}[mqtt]\nhost = "127.0.0.1"\nclient_id = "gw"\nplain = true{rest}')
    findings = _found(gateway)
    assert _finding(findings, Step.CONFIGURATION).outcome is Outcome.WARNING
    assert "[mqtt]" in _finding(findings, Step.CONFIGURATION).says
    assert {outcome for step, outcome in _outcomes(findings).items() if step is not Step.CONFIGURATION} == {
        Outcome.SKIPPED
    }


def test_the_way_over_a_websocket_is_walked_to_its_end_and_nothing_fails(gateway: Gateway) -> None:
    standin = gateway.websocket()
    findings = _found(gateway)
    outcomes = _outcomes(findings)
    assert cause(findings) is None
    assert {step for step, outcome in outcomes.items() if outcome is Outcome.WARNING} == NEVER_IN_ORDER
    left_out = {step for step, outcome in outcomes.items() if outcome is Outcome.SKIPPED}
    assert left_out == {Step.ALPN, Step.CLIENT_CERTIFICATE, Step.OTHER_PORT}
    assert "by WebSocket, as role lorabridge" in _finding(findings, Step.CONFIGURATION).says
    assert "lent for role alias 'lorabridge' until" in _finding(findings, Step.ROLE_CREDENTIALS).says
    standin.happened(Happening.DISCONNECTED)
    assert standin.standin.counters["lent"] == 1, "what is lent for the WebSocket is used for MQTT too"
    assert [topic for topic, _ in standin.published] == [f"lorabridge/{GATEWAY}/status"]


def test_a_bridge_at_work_over_a_websocket_is_not_disturbed(gateway: Gateway) -> None:
    standin = gateway.websocket()
    with at_work(gateway):
        findings = _found(gateway)
    assert cause(findings) is None
    assert _outcomes(findings)[Step.WEBSOCKET] is Outcome.OK
    assert standin.standin.counters["connected"] == 0


def test_credentials_for_less_than_five_minutes_are_worth_a_warning(gateway: Gateway) -> None:
    gateway.websocket(lasts=120.0)
    finding = _finding(_found(gateway), Step.ROLE_CREDENTIALS)
    assert (finding.outcome, "credentialDurationSeconds" in finding.fix) == (Outcome.WARNING, True)


def test_where_8883_answers_and_443_does_not_the_websocket_is_not_needed(gateway: Gateway) -> None:
    standin = gateway.websocket()
    gateway.dial(free_port())
    gateway.surround(other=("127.0.0.1", standin.standin.port))
    found = cause(_found(gateway))
    assert found is not None
    assert 'Port 8883 answers: set `transport = "tls"`' in found.fix


def test_files_that_are_gone_when_credentials_are_asked_for_are_named(gateway: Gateway) -> None:
    gateway.websocket()
    gateway.key.unlink()
    settings = gateway.installed.config.link
    assert isinstance(settings, AwsIotSettings)
    (borrowed,) = websocket_steps._borrow(settings, gateway.around)
    assert (borrowed.step, borrowed.outcome) == (Step.ROLE_CREDENTIALS, Outcome.FAILED)
    address = network.look_up(*settings.address, 10)[0]
    opened = websocket_steps._open(settings, address, lambda: "/mqtt", gateway.around)
    assert (opened.step, opened.outcome) == (Step.WEBSOCKET, Outcome.FAILED)
    assert opened.says.startswith(f"{gateway.key} cannot be read")
