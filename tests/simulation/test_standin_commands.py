"""Commands from the cloud: the bridge's own link through the stand-in, with each of the brokers behind it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from lorabridge.settings import Duration
from lorabridge.simulation.pki import Pki
from lorabridge.simulation.standin import Happening, Policy, Refusal, StandIn, StandInSettings, gateway_policy
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.inbound import Inbound, Subscription
from lorabridge.upstream.pacing import Pace
from lorabridge.upstream.subscriptions import SUBSCRIBE_TRIES
from tests.mosquitto import Mosquitto, free_port
from tests.pki import Authority
from tests.servers import ending
from tests.simulation.standin_help import ENDPOINT, GATEWAY, STATUS, TIMEOUT, UPLINK

COMMAND = f"lorabridge/{GATEWAY}/cmd/70b3d57ed0000001"
POLICY = gateway_policy(GATEWAY)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("mosquitto")
    authority = Authority(folder)
    broker = Mosquitto(folder, authority.file, authority.server(ENDPOINT))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(params=["amqtt 3.1.1", "mosquitto 3.1.1", "mosquitto 5"])
def behind(request: pytest.FixtureRequest) -> tuple[tuple[str, int] | None, str]:
    """The broker, and the MQTT version to speak with it."""
    name, version = request.param.split()
    if name == "amqtt":
        return None, version
    return ("127.0.0.1", request.getfixturevalue("mosquitto").plain_port), version


Behind = tuple[tuple[str, int] | None, str]


class Gateway:
    """A link, what came on it, and what was acknowledged."""

    def __init__(self, pki: Pki, port: int, version: str) -> None:
        settings = AwsIotSettings(
            endpoint=ENDPOINT,
            connect_address=f"127.0.0.1:{port}",
            thing_name=GATEWAY,
            ca_file=str(pki.ca_file),
            certificate_file=str(pki.gateway.certificate),
            private_key_file=str(pki.gateway.key),
            mqtt_version="5" if version == "5" else "3.1.1",
            backoff_base=Duration(0.02),
            backoff_cap=Duration(0.1),
        )
        self.inbox: asyncio.Queue[Inbound] = asyncio.Queue()
        self.acknowledged_keys: list[int] = []
        self.changed = asyncio.Event()
        self.link = AwsIot(
            settings,
            GATEWAY,
            status=lambda state, _detail: state.encode(),
            rng=random.Random(1),
            commands=self,
            on_change=lambda _report: self.changed.set(),
            pace=Pace(connect_interval=0.01),
        )
        self.link.attach(self)

    async def subscription(self, wanted: Subscription) -> None:
        """Wait until it is so."""
        while self.link.report.subscription is not wanted or not self.link.has_room(1):
            self.changed.clear()
            await self.changed.wait()

    async def take(self, payload: bytes) -> Inbound:
        """The next command, which must be this one."""
        inbound = await self.inbox.get()
        assert (inbound.target, inbound.payload) == ("70b3d57ed0000001", payload)
        return inbound

    # What the link tells.

    def received(self, inbound: Inbound) -> None:
        self.inbox.put_nowait(inbound)

    def acknowledged(self, key: int) -> None:
        self.acknowledged_keys.append(key)
        self.changed.set()

    def disconnected(self, _unacknowledged: list[int], _culprit: int | None) -> None:
        self.changed.set()

    def ready(self) -> None:
        self.changed.set()


@asynccontextmanager
async def connected(pki: Pki, behind: Behind, policy: Policy = POLICY) -> AsyncIterator[tuple[StandIn, Gateway]]:
    broker, version = behind
    settings = StandInSettings(policies={pki.gateway.fingerprint: policy})
    async with asyncio.timeout(TIMEOUT), StandIn(settings, pki=pki, broker=broker) as standin:
        gateway = Gateway(pki, standin.port, version)
        running = asyncio.create_task(gateway.link.run())
        try:
            yield standin, gateway
        finally:
            await gateway.link.stop(2.0)
            await running


def test_a_gateway_gets_the_commands_that_somebody_in_the_cloud_publishes(pki: Pki, behind: Behind) -> None:
    async def order() -> None:
        async with connected(pki, behind) as (standin, gateway):
            await gateway.subscription(Subscription.ON)
            for number in range(30):  # more than a broker has in flight: the acknowledgements arrive there
                await standin.publish(COMMAND, b"%d" % number)
                (await gateway.take(b"%d" % number)).ack()
            assert gateway.link.counters["commands_received"] == 30
            assert standin.counters["receive"] == 0

    asyncio.run(order())


def test_a_gateway_that_was_cut_off_subscribes_again(pki: Pki, behind: Behind) -> None:
    async def order() -> None:
        async with connected(pki, behind) as (standin, gateway):
            await gateway.subscription(Subscription.ON)
            standin.cut()
            await standin.until(lambda: standin.counters[Happening.CONNECTED.value] == 2)
            await gateway.subscription(Subscription.ON)
            await standin.publish(COMMAND, b"after")
            (await gateway.take(b"after")).ack()

    asyncio.run(order())


def test_a_policy_without_subscribe_costs_the_commands_and_not_the_records(pki: Pki, behind: Behind) -> None:
    async def order() -> None:
        policy = msgspec.structs.replace(POLICY, subscribe=())
        async with connected(pki, behind, policy) as (standin, gateway):
            await gateway.subscription(Subscription.REFUSED)
            gateway.link.publish(UPLINK, b"record", 1)
            gateway.link.flush()
            await standin.until(lambda: standin.delivered == 2)  # the birth, and the record
            tries = 1 if behind[1] == "5" else SUBSCRIBE_TRIES
            assert standin.counters[Refusal.SUBSCRIBE.value] == tries
            assert gateway.link.counters["fault_subscribe_refused"] == tries

    asyncio.run(order())


def test_a_policy_without_receive_delivers_nothing_and_the_broker_does_not_wait(pki: Pki, behind: Behind) -> None:
    async def order() -> None:
        policy = msgspec.structs.replace(POLICY, receive=(f"{COMMAND}?",))
        async with connected(pki, behind, policy) as (standin, gateway):
            await gateway.subscription(Subscription.ON)
            for number in range(30):
                await standin.publish(COMMAND, b"%d" % number)
            await standin.publish(COMMAND + "2", b"permitted")
            inbound = await gateway.inbox.get()
            assert (inbound.topic, inbound.payload) == (COMMAND + "2", b"permitted")
            assert standin.counters[Refusal.RECEIVE.value] == 30

    asyncio.run(order())


def test_a_topic_that_is_not_subscribed_to_is_not_delivered(pki: Pki, behind: Behind) -> None:
    async def order() -> None:
        async with connected(pki, behind) as (standin, gateway):
            await gateway.subscription(Subscription.ON)
            await standin.publish(STATUS, b"not for the gateway")
            await standin.publish(COMMAND, b"for it")
            await gateway.take(b"for it")

    asyncio.run(order())


def test_publishing_without_a_broker_says_so(pki: Pki) -> None:
    async def order() -> None:
        settings = StandInSettings(policies={})
        async with StandIn(settings, pki=pki, broker=("127.0.0.1", free_port())) as standin:
            with pytest.raises(ConnectionRefusedError):
                await standin.publish(COMMAND, b"")

    asyncio.run(order())


def test_publishing_goes_on_after_the_broker_was_away(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mosquitto")
    authority = Authority(folder)
    broker = Mosquitto(folder, authority.file, authority.server(ENDPOINT))
    broker.start()

    async def order() -> None:
        settings = StandInSettings(policies={})
        async with StandIn(settings, pki=pki, broker=("127.0.0.1", broker.plain_port)) as standin:
            await standin.publish(COMMAND, b"before")
            publisher = standin._publisher
            assert publisher is not None
            broker.kill()
            await publisher.closed
            with pytest.raises(ConnectionRefusedError):
                await standin.publish(COMMAND, b"while")
            await asyncio.to_thread(broker.start)
            await standin.publish(COMMAND, b"after")

    try:
        asyncio.run(order())
    finally:
        broker.kill()


def test_a_broker_that_hangs_up_is_told_to_whoever_publishes(pki: Pki) -> None:
    async def order() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"\x20\x02\x00\x00")
            await reader.read(100)
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        settings = StandInSettings(policies={})
        async with ending(server) as port, StandIn(settings, pki=pki, broker=("127.0.0.1", port)) as standin:
            with pytest.raises(ConnectionResetError):
                await standin.publish(COMMAND, b"")

    asyncio.run(order())
