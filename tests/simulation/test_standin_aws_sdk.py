"""AWS's own client (awscrt, awsiotsdk) through the stand-in, so that it is not only our client that believes it.

It reaches the stand-in by a proxy of ours on loopback, so that the endpoint's true name is SNI without any DNS.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lorabridge.simulation.pki import Pair, Pki, new_ec_key, new_rsa_key
from lorabridge.simulation.standin import Refusal, Template, claim_policy, thing_policy
from lorabridge.simulation.standin.screen import MAX_PACKET
from lorabridge.simulation.standin.services.jobs import JobStatus
from tests.mosquitto import Mosquitto
from tests.pki import Authority
from tests.simulation.standin_help import (
    CREDENTIALS,
    ENDPOINT,
    GATEWAY,
    ROLE,
    UPLINK,
    Running,
    lending,
    running,
)
from tests.simulation.test_standin_provisioning import pair_of, pem_of, signing_request

if os.environ.get("CI") != "true":
    pytest.importorskip("awsiot", reason="awsiotsdk is not installed")

from awscrt import auth, http, io, mqtt, mqtt5, mqtt_request_response
from awscrt.exceptions import AwsCrtError
from awsiot import (
    ServiceStreamOptions,
    V2ServiceException,
    iotidentity,
    iotjobs,
    iotshadow,
    mqtt5_client_builder,
    mqtt_connection_builder,
)

LIMIT = 60
"""Seconds; a refusal by the client itself is held back for up to 30 (s2n blinds failures)."""
COMMANDS = f"lorabridge/{GATEWAY}/cmd/+"


@pytest.fixture(scope="module")
def claim(pki: Pki) -> Pair:
    return pki.devices.client("claim", new_ec_key(), "claim")


@pytest.fixture(scope="module")
def rsa(pki: Pki) -> Pair:
    return pki.devices.client(GATEWAY, new_rsa_key(), "rsa")


@pytest.fixture(scope="module")
def standin(pki: Pki, rsa: Pair, claim: Pair) -> Iterator[Running]:
    policies = dict.fromkeys((pki.gateway.fingerprint, rsa.fingerprint), thing_policy(GATEWAY))
    policies[claim.fingerprint] = claim_policy("gateways")
    with running(pki, policies=policies, templates={"gateways": Template()}) as started:
        yield started


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("mosquitto")
    authority = Authority(folder)
    broker = Mosquitto(folder, authority.file, authority.server(ENDPOINT))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="module")
def proxy(standin: Running) -> Iterator[int]:
    with proxying(standin) as port:
        yield port


@contextmanager
def proxying(standin: Running, *, websocket: bool = False) -> Iterator[int]:
    """Takes CONNECT requests; name and port that are asked for say which of the stand-in's ports is meant."""
    found = standin.standin
    ports = {(ENDPOINT, 8883): found.port, (ENDPOINT, 443): found.alpn_port}
    if websocket:
        ports |= {(ENDPOINT, 443): found.websocket_port, (CREDENTIALS, 443): found.credentials_port}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=tunnel, args=[client, ports]))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (acceptor, *threads):
                thread.join(LIMIT)


def tunnel(client: socket.socket, ports: dict[tuple[str, int], int]) -> None:
    """One CONNECT request (RFC 9110 §9.3.6), then bytes both ways until both have ended."""
    with client:
        head = b""
        while b"\r\n\r\n" not in head and (more := client.recv(4096)):
            head += more
        name, _, port = head.split(b" ")[1].decode().rpartition(":")
        with socket.create_connection(("127.0.0.1", ports[name, int(port)])) as upstream:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pump, args=[upstream, client])
            back.start()
            pump(client, upstream)
            back.join(LIMIT)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def new_connection(
    pki: Pki, proxy: int, *, pair: Pair | None = None, port: int = 8883, client_id: str = GATEWAY, ca_file: str = ""
) -> mqtt.Connection:
    pair = pair or pki.gateway
    return mqtt_connection_builder.mtls_from_path(
        endpoint=ENDPOINT,
        port=port,
        cert_filepath=str(pair.certificate),
        pri_key_filepath=str(pair.key),
        ca_filepath=ca_file or str(pki.ca_file),
        client_id=client_id,
        clean_session=True,
        http_proxy_options=http.HttpProxyOptions("127.0.0.1", proxy),
    )


@contextmanager
def connected(pki: Pki, proxy: int, **how: Any) -> Iterator[mqtt.Connection]:
    connection = new_connection(pki, proxy, **how)
    connection.connect().result(LIMIT)
    try:
        yield connection
    finally:
        connection.disconnect().result(LIMIT)


@pytest.mark.parametrize("port", [8883, 443])
@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_it_connects_publishes_and_gets_its_puback(
    pki: Pki, rsa: Pair, standin: Running, proxy: int, port: int, kind: str
) -> None:
    payload = f"{port} {kind}"
    with connected(pki, proxy, port=port, pair=rsa if kind == "rsa" else None) as connection:
        future, packet_id = connection.publish(UPLINK, payload, mqtt.QoS.AT_LEAST_ONCE)
        assert future.result(LIMIT) == {"packet_id": packet_id}
    assert (UPLINK, payload.encode()) in standin.published
    hello = standin.standin.hellos[-1]
    assert hello.server_name == ENDPOINT.encode()
    assert (b"x-amzn-mqtt-ca" in hello.alpn) is (port == 443)


def test_it_subscribes_and_gets_what_the_cloud_publishes(pki: Pki, standin: Running, proxy: int) -> None:
    came: Future[tuple[str, bytes]] = Future()
    with connected(pki, proxy) as connection:
        future, _ = connection.subscribe(
            COMMANDS, mqtt.QoS.AT_LEAST_ONCE, lambda topic, payload, **_: came.set_result((topic, payload))
        )
        assert future.result(LIMIT)["qos"] == mqtt.QoS.AT_LEAST_ONCE
        standin.publish(COMMANDS.replace("+", "device"), b"now")
        assert came.result(LIMIT) == (COMMANDS.replace("+", "device"), b"now")


def test_it_is_refused_with_another_client_id(pki: Pki, standin: Running, proxy: int) -> None:
    with pytest.raises(AwsCrtError, match="AWS_ERROR_MQTT"):
        new_connection(pki, proxy, client_id="gw-2").connect().result(LIMIT)
    assert standin.refused(Refusal.CLIENT_ID).detail == "gw-2"


def test_it_loses_its_connection_to_a_newer_one_with_the_same_client_id(pki: Pki, standin: Running, proxy: int) -> None:
    before = standin.standin.counters[Refusal.TAKEN_OVER.value]
    with connected(pki, proxy):
        second = new_connection(pki, proxy)
        second.connect().result(LIMIT)
        standin.until(lambda: standin.standin.counters[Refusal.TAKEN_OVER.value] > before)
        second.disconnect().result(LIMIT)


def test_its_shadow_client_updates_asks_deletes_and_sees_the_delta(pki: Pki, proxy: int) -> None:
    names = {"thing_name": GATEWAY, "shadow_name": "lorabridge"}
    with connected(pki, proxy) as connection:
        client = iotshadow.IotShadowClientV2(connection, request_options())
        deltas = Stream()
        stream = client.create_named_shadow_delta_updated_stream(
            iotshadow.NamedShadowDeltaUpdatedSubscriptionRequest(**names), deltas.options()
        )
        deltas.open(stream)
        with pytest.raises(V2ServiceException) as raised:
            client.get_named_shadow(iotshadow.GetNamedShadowRequest(**names)).result(LIMIT)
        assert raised.value.modeled_error.code == 404
        state = iotshadow.ShadowState(reported={"version": "1"}, desired={"version": "2"})
        update = iotshadow.UpdateNamedShadowRequest(state=state, **names)
        assert client.update_named_shadow(update).result(LIMIT).version == 1
        assert deltas.next().state == {"version": "2"}
        got = client.get_named_shadow(iotshadow.GetNamedShadowRequest(**names)).result(LIMIT)
        assert (got.state.reported, got.state.delta) == ({"version": "1"}, {"version": "2"})
        stale = iotshadow.UpdateNamedShadowRequest(state=state, version=7, **names)
        with pytest.raises(V2ServiceException) as raised:
            client.update_named_shadow(stale).result(LIMIT)
        assert raised.value.modeled_error.code == 409
        assert client.delete_named_shadow(iotshadow.DeleteNamedShadowRequest(**names)).result(LIMIT).version == 1


def test_its_jobs_client_takes_a_job_and_reports_it_done(pki: Pki, standin: Running, proxy: int) -> None:
    with connected(pki, proxy) as connection:
        client = iotjobs.IotJobsClientV2(connection, request_options())
        changes = Stream()
        stream = client.create_next_job_execution_changed_stream(
            iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=GATEWAY), changes.options()
        )
        changes.open(stream)
        standin.call(lambda: standin.standin.create_job(GATEWAY, "job-1", {"operation": "reload"}))
        assert changes.next().execution.job_document == {"operation": "reload"}
        pending = client.get_pending_job_executions(iotjobs.GetPendingJobExecutionsRequest(thing_name=GATEWAY))
        assert [one.job_id for one in pending.result(LIMIT).queued_jobs] == ["job-1"]
        start = client.start_next_pending_job_execution(iotjobs.StartNextPendingJobExecutionRequest(thing_name=GATEWAY))
        execution = start.result(LIMIT).execution
        assert (execution.status, execution.version_number) == ("IN_PROGRESS", 2)
        with pytest.raises(V2ServiceException) as raised:
            client.update_job_execution(done(version=1)).result(LIMIT)
        assert raised.value.modeled_error.code == "VersionMismatch"
        client.update_job_execution(done(version=2)).result(LIMIT)
        assert changes.next().execution is None
    assert standin.standin.jobs.execution(GATEWAY, "job-1").status is JobStatus.SUCCEEDED


def done(version: int) -> iotjobs.UpdateJobExecutionRequest:
    return iotjobs.UpdateJobExecutionRequest(
        thing_name=GATEWAY, job_id="job-1", status=iotjobs.JobStatus.SUCCEEDED, expected_version=version
    )


def test_its_provisioning_client_makes_a_thing_of_a_claim(pki: Pki, claim: Pair, proxy: int, tmp_path: Path) -> None:
    key = new_ec_key()
    with connected(pki, proxy, pair=claim, client_id="claim-1") as connection:
        client = iotidentity.IotIdentityClientV2(connection, request_options())
        wanted = iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=signing_request(key))
        made = client.create_certificate_from_csr(wanted).result(LIMIT)
        asked = iotidentity.RegisterThingRequest(
            template_name="gateways",
            certificate_ownership_token=made.certificate_ownership_token,
            parameters={"SerialNumber": "gw-7"},
        )
        assert client.register_thing(asked).result(LIMIT).thing_name == "gw-7"
        with pytest.raises(V2ServiceException) as raised:
            client.register_thing(asked).result(LIMIT)
        assert raised.value.modeled_error.error_code == "InvalidCertificateOwnershipToken"
    pair = pair_of(tmp_path, made.certificate_pem, pem_of(key))
    with connected(pki, proxy, pair=pair, client_id="gw-7") as gateway:
        future, _ = gateway.publish(UPLINK.replace(GATEWAY, "gw-7"), b"", mqtt.QoS.AT_LEAST_ONCE)
        future.result(LIMIT)


class Listener5:
    """What its MQTT 5 client tells, and the client."""

    def __init__(self, pki: Pki, proxy: int) -> None:
        self.connected: Future[Any] = Future()
        self.disconnected: Future[Any] = Future()
        self.stopped: Future[Any] = Future()
        self.client = mqtt5_client_builder.mtls_from_path(
            endpoint=ENDPOINT,
            port=8883,
            cert_filepath=str(pki.gateway.certificate),
            pri_key_filepath=str(pki.gateway.key),
            ca_filepath=str(pki.ca_file),
            client_id=GATEWAY,
            http_proxy_options=http.HttpProxyOptions("127.0.0.1", proxy),
            on_lifecycle_connection_success=lambda told: self.connected.set_result(told.connack_packet),
            on_lifecycle_disconnection=lambda told: self.disconnected.set_result(told.disconnect_packet),
            on_lifecycle_stopped=self.stopped.set_result,
        )

    @contextmanager
    def started(self) -> Iterator[Any]:
        """With what CONNACK said."""
        self.client.start()
        try:
            yield self.connected.result(LIMIT)
        finally:
            self.client.stop()
            self.stopped.result(LIMIT)


def test_its_mqtt_5_client_reads_limits_and_reason_codes(pki: Pki, mosquitto: Mosquitto) -> None:
    broker = ("127.0.0.1", mosquitto.plain_port)
    with (
        running(pki, broker=broker, policies={pki.gateway.fingerprint: thing_policy(GATEWAY)}) as standin,
        proxying(standin) as proxy,
    ):
        listener = Listener5(pki, proxy)
        with listener.started() as connack:
            assert connack.receive_maximum <= 100
            assert connack.maximum_qos == mqtt5.QoS.AT_LEAST_ONCE
            assert connack.maximum_packet_size == MAX_PACKET
            for topic, reason in ((UPLINK, 0), ("elsewhere", 0x87), ("a" * 257, 0x90)):
                publish = mqtt5.PublishPacket(topic=topic, payload=b"5", qos=mqtt5.QoS.AT_LEAST_ONCE)
                assert listener.client.publish(publish).result(LIMIT).puback.reason_code == reason
            shadow = iotshadow.IotShadowClientV2(listener.client, request_options())
            with pytest.raises(V2ServiceException) as raised:
                shadow.get_shadow(iotshadow.GetShadowRequest(thing_name=GATEWAY)).result(LIMIT)
            assert raised.value.modeled_error.code == 404
            standin.call(standin.standin.disconnect)
            assert listener.disconnected.result(LIMIT).reason_code == 0x98


class Stream:
    """What comes on a topic of a service."""

    def __init__(self) -> None:
        self._events: queue.Queue[Any] = queue.Queue()
        self._established = threading.Event()

    def options(self) -> Any:
        return ServiceStreamOptions(self._events.put, lambda _: self._established.set())

    def open(self, stream: Any) -> None:
        """Subscribe, and wait for SUBACK."""
        stream.open()
        assert self._established.wait(LIMIT)

    def next(self) -> Any:
        return self._events.get(timeout=LIMIT)


def request_options() -> Any:
    return mqtt_request_response.ClientOptions(
        max_request_response_subscriptions=4, max_streaming_subscriptions=2, operation_timeout_in_seconds=LIMIT
    )


def test_over_a_signed_websocket_it_publishes_with_the_credentials_that_the_stand_in_lends(pki: Pki) -> None:
    with running(pki, **lending(pki)) as standin, proxying(standin, websocket=True) as port:
        options = http.HttpProxyOptions("127.0.0.1", port, connection_type=http.HttpProxyConnectionType.Tunneling)
        tls = io.TlsContextOptions.create_client_with_mtls_from_path(str(pki.gateway.certificate), str(pki.gateway.key))
        tls.override_default_trust_store_from_path(ca_filepath=str(pki.ca_file))
        role = auth.AwsCredentialsProvider.new_x509(
            endpoint=CREDENTIALS,
            thing_name=GATEWAY,
            role_alias=ROLE,
            tls_ctx=io.ClientTlsContext(tls),
            http_proxy_options=options,
        )
        connection = mqtt_connection_builder.websockets_with_default_aws_signing(
            region="eu-west-1",
            credentials_provider=role,
            endpoint=ENDPOINT,
            ca_filepath=str(pki.ca_file),
            client_id=GATEWAY,
            clean_session=True,
            http_proxy_options=options,
        )
        connection.connect().result(LIMIT)
        published, _ = connection.publish(UPLINK, b"over a WebSocket", mqtt.QoS.AT_LEAST_ONCE)
        published.result(LIMIT)
        connection.disconnect().result(LIMIT)
        assert standin.published == [(UPLINK, b"over a WebSocket")]
        assert standin.standin.counters["lent"] == 1
