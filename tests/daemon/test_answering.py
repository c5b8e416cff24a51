"""The whole bridge answers: joins, acknowledgements and ordered downlinks, from a socket to a socket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lorabridge.daemon.bridge import Bridge
from lorabridge.daemon.service import load_checked
from lorabridge.lorawan.air import LoraDataRate, Transmission, TxResult, TxTiming
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import DataFrame, parse
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.types import Direction, FCnt32
from lorabridge.settings import Duration
from lorabridge.simulation.standin import StandIn, StandInSettings, gateway_policy
from lorabridge.store.database import Store
from tests.daemon.config_help import GATEWAY as GATEWAY_ID
from tests.daemon.config_help import Installation
from tests.daemon.radio_peer import Forwarder, forwarder
from tests.lorawan.builders import APP_S_KEY, GATEWAY, NWK_S_KEY, OTHER_GATEWAY, device, uplink
from tests.lorawan.joining import APP_KEY, JOIN_EUI, activated, join_request, joiner, open_accept
from tests.mosquitto import free_port
from tests.radio.concentratord_standin import ConcentratordStandIn

LIMIT = 20.0
QUIET = "[mac]\nchannels = []\n"
"""Nothing is asked of the devices' MAC layers, so that every downlink is one that the test is about."""
METER = device(name="meter")
JOINER = joiner(name="joiner")
DEVICES = f"""
[[device]]
name = "meter"
dev_eui = "{METER.dev_eui}"
mac_version = "1.0.4"
dev_addr = "{METER.dev_addr}"
nwk_s_key = "{NWK_S_KEY.reveal().hex()}"
app_s_key = "{APP_S_KEY.reveal().hex()}"
adr = false
"""
OTAA_DEVICES = f"""
[[device]]
name = "joiner"
dev_eui = "{JOINER.dev_eui}"
mac_version = "1.0.4"
activation = "otaa"
join_eui = "{JOIN_EUI}"
app_key = "{APP_KEY.reveal().hex()}"
adr = false
"""
CLASS_C = DEVICES + 'class = "C"\n'
GROUP = f"""
[[multicast_group]]
name = "lamps"
mc_addr = "01ff0001"
mc_nwk_s_key = "{NWK_S_KEY.reveal().hex()}"
mc_app_s_key = "{APP_S_KEY.reveal().hex()}"
"""


class Site:
    """A running bridge, its endpoint and its gateways."""

    def __init__(self, bridge: Bridge, store: Store, standin: StandIn, port: int) -> None:
        self.bridge = bridge
        self.store = store
        self.port = port
        self._standin = standin
        self.records: list[dict[str, Any]] = []
        self._came = asyncio.Event()

    def note(self, _topic: str, payload: bytes) -> None:
        self.records.append(json.loads(payload))
        self._came.set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.records if one["schema"] == f"lorabridge/{kind}/1"]

    def results(self, command_id: str) -> list[str]:
        """What became of a command, state by state."""
        return [one["state"] for one in self.of("downlink_result") if one["command_id"] == command_id]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                self._came.clear()
                await self._came.wait()

    async def order(self, command_id: str, target: object = METER.dev_eui, **fields: Any) -> None:
        """The cloud wants something sent; returns when the bridge said something to it."""
        command = {"id": command_id, "f_port": 9, "payload": base64.b64encode(b"open").decode()} | fields
        before = len(self.results(command_id))
        topic = f"lorabridge/{GATEWAY_ID}/cmd/{target}"
        await self._standin.publish(topic, json.dumps(command).encode())
        await self.until(lambda: len(self.results(command_id)) > before)


@asynccontextmanager
async def _site(folder: Path, devices: str, config: str = "", database: Path | None = None) -> AsyncIterator[Site]:
    port = free_port()
    installation = Installation(folder, METER, port=port)
    (installation.devices / "all.toml").write_text(devices, encoding="utf-8")
    installation.write(installation.text + config)
    settings = installation.config
    report = msgspec.structs.replace(settings.report, stats_interval=Duration(600))
    path = str(database or settings.store.path)
    store_settings = msgspec.structs.replace(settings.store, path=path)
    settings = msgspec.structs.replace(settings, report=report, store=store_settings)
    sites: list[Site] = []

    def note(topic: str, payload: bytes) -> None:
        sites[0].note(topic, payload)

    policies = {installation.pki.gateway.fingerprint: gateway_policy(GATEWAY_ID)}
    async with StandIn(
        StandInSettings(policies=policies, port=port),
        pki=installation.pki,
        observer=note,
    ) as standin:
        store = await Store.open(settings.store)
        found, groups = load_checked(settings)
        bridge = Bridge(settings, "fingerprint", found, store, groups=groups)
        sites.append(Site(bridge, store, standin, installation.udp_port))
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(bridge.run(stop, on_ready=ready.set))
        async with asyncio.timeout(LIMIT):
            await ready.wait()
        try:
            await sites[0].until(lambda: any(one["state"] == "online" for one in sites[0].of("status")))
            yield sites[0]
        finally:
            stop.set()
            async with asyncio.timeout(LIMIT):
                await running
            await store.close()


def with_site(
    folder: Path,
    use: Callable[[Site, Forwarder], Awaitable[None]],
    devices: str = DEVICES,
    config: str = QUIET,
    database: Path | None = None,
) -> None:
    async def scenario() -> None:
        async with _site(folder, devices, config, database) as site, forwarder(site.port) as gateway:
            await use(site, gateway)

    asyncio.run(scenario())


def data(order: Transmission, who: Device = METER, fcnt32: int = 0) -> tuple[DataFrame, bytes]:
    """A downlink as its device reads it: MIC checked, decrypted."""
    return read_by(who, order.phy_payload, fcnt32)


def read_by(who: Device, phy_payload: bytes, fcnt32: int = 0) -> tuple[DataFrame, bytes]:
    """A frame as its device reads it."""
    frame = parse(phy_payload)
    assert isinstance(frame, DataFrame)
    assert who.session_keys is not None
    crypto = SessionCrypto(who.session_keys)
    assert frame.mic == crypto.mic_1_0(frame.message, Direction.DOWN, frame.dev_addr, FCnt32(fcnt32))
    payload = crypto.frm_payload(frame.frm_payload, frame.f_port, Direction.DOWN, frame.dev_addr, FCnt32(fcnt32))
    assert payload is not None
    return frame, payload


def test_a_factory_fresh_device_joins_is_heard_and_acknowledged(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        await gateway.hear(join_request(JOINER, 7), tmst=5)
        accept = await gateway.ordered()
        assert (accept.timing, accept.tmst, accept.frequency_hz) == (TxTiming.AT_TMST, 5_000_005, 868_100_000)
        who = activated(JOINER, open_accept(JOINER, accept.phy_payload, 7), 7)
        await gateway.hear(uplink(who, 0, m_type=MType.CONFIRMED_DATA_UP), tmst=9_000_000)
        acknowledgement = await gateway.ordered()
        assert acknowledgement.tmst == 10_000_000
        frame, payload = data(acknowledgement, who)
        assert (frame.flags.ack, frame.f_port, payload) == (True, None, b"")
        await site.until(lambda: bool(site.of("uplink")))
        (join,), (event,) = site.of("join"), site.of("uplink")
        assert (join["dev_addr"], join["answered"]) == (str(who.dev_addr), True)
        assert (event["dev_addr"], base64.b64decode(event["payload"])) == (str(who.dev_addr), b"hello")
        async with asyncio.timeout(LIMIT):
            while not site.bridge.counters["downlink_sent"]:  # noqa: ASYNC110  # what `lorabridge status` can do
                await asyncio.sleep(0.001)
        assert site.bridge.counters["downlink_join_accepts"] == 1

    with_site(tmp_path, use, OTAA_DEVICES)


@pytest.mark.parametrize("before_4_5", [False, True])
def test_a_device_behind_concentratord_joins_is_heard_and_acknowledged(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, before_4_5: bool
) -> None:
    async def scenario() -> None:
        # A short path: the name of a socket has at most 107 bytes.
        async with ConcentratordStandIn(tmp_path_factory.mktemp("c"), before_4_5=before_4_5) as there:
            radio = f'[[radio]]\ntype = "concentratord"\nevent_url = "{there.event_url}"\n'
            config = f'{QUIET}{radio}command_url = "{there.command_url}"\n'
            async with _site(tmp_path, OTAA_DEVICES, config, None) as site:
                await there.subscribed()
                await there.say_uplink(join_request(JOINER, 7), count_us=5)
                accept = await there.ordered()
                (item,) = accept.items
                timing = item.tx_info.timing
                assert (item.tx_info.context, timing.delay.delay.seconds) == ((4_000_005).to_bytes(4, "big"), 1)
                assert (item.tx_info.frequency, item.tx_info.modulation.lora.spreading_factor) == (868_100_000, 7)
                who = activated(JOINER, open_accept(JOINER, item.phy_payload, 7), 7)
                await there.say_uplink(uplink(who, 0, m_type=MType.CONFIRMED_DATA_UP), count_us=9_000_000)
                (item,) = (await there.ordered()).items
                assert item.tx_info.context == (9_000_000).to_bytes(4, "big")
                frame, payload = read_by(who, item.phy_payload)
                assert (frame.flags.ack, frame.f_port, payload) == (True, None, b"")
                await site.until(lambda: bool(site.of("uplink")))
                (event,) = site.of("uplink")
                assert (event["dev_addr"], base64.b64decode(event["payload"])) == (str(who.dev_addr), b"hello")

    asyncio.run(scenario())


def test_a_join_and_its_session_survive_a_restart(tmp_path: Path) -> None:
    kept: list[Device] = []

    async def joins(_: Site, gateway: Forwarder) -> None:
        await gateway.hear(join_request(JOINER, 7))
        accept = await gateway.ordered()
        kept.append(activated(JOINER, open_accept(JOINER, accept.phy_payload, 7), 7))

    async def speaks(site: Site, gateway: Forwarder) -> None:
        await gateway.hear(uplink(kept[0], 0))
        await site.until(lambda: bool(site.of("uplink")))

    database = tmp_path / "lorabridge.db"
    for name, use in (("before", joins), ("after", speaks)):
        (tmp_path / name).mkdir()
        with_site(tmp_path / name, use, OTAA_DEVICES, database=database)


def test_the_cloud_orders_a_downlink_and_hears_what_became_of_it(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        await site.order("valve-1", correlation_id="my words")
        await gateway.hear(uplink(METER, 1))
        order = await gateway.ordered()
        frame, payload = data(order)
        assert (frame.f_port, payload, frame.confirmed) == (9, b"open", False)
        await site.until(lambda: len(site.results("valve-1")) == 2)
        assert site.results("valve-1") == ["queued", "sent"]
        last = site.of("downlink_result")[-1]
        assert (last["correlation_id"], last["fcnt_down"], last["next_fcnt_down"]) == ("my words", 0, 1)
        assert last["gateway_eui"] == str(GATEWAY)

    with_site(tmp_path, use)


def test_a_confirmed_downlink_is_repeated_until_the_device_acknowledges_or_patience_ends(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        await site.order("valve-1", confirmed=True)
        await gateway.hear(uplink(METER, 1))
        assert data(await gateway.ordered())[0].confirmed
        await site.until(lambda: site.results("valve-1")[-1] == "sent")
        await gateway.hear(uplink(METER, 2))  # and says nothing of it
        assert data(await gateway.ordered(), fcnt32=1)[1] == b"open"
        await site.until(lambda: site.results("valve-1").count("sent") == 2)
        await gateway.hear(uplink(METER, 3, flags=0x20))
        await site.until(lambda: site.results("valve-1")[-1] == "acknowledged")
        await site.order("valve-2", confirmed=True)
        for n in range(3):
            await gateway.hear(uplink(METER, 4 + n))
            await gateway.ordered()
            await site.until(lambda n=n: site.results("valve-2").count("sent") == n + 1)  # type: ignore[misc]
        await gateway.hear(uplink(METER, 9))
        await site.until(lambda: site.results("valve-2")[-1] == "not_acknowledged")

    with_site(tmp_path, use)


def test_a_refused_window_leads_to_the_second_and_a_refused_command_stays(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        gateway.answer = lambda order: TxResult(error="COLLISION_PACKET" if order.tmst == 2_000_000 else None)
        await site.order("valve-1")
        await gateway.hear(uplink(METER, 1))
        first, second = await gateway.ordered(), await gateway.ordered()
        assert (first.tmst, second.tmst, second.frequency_hz) == (2_000_000, 3_000_000, 869_525_000)
        assert first.phy_payload == second.phy_payload
        await site.until(lambda: site.results("valve-1") == ["queued", "sent"])
        gateway.answer = lambda _: TxResult(error="TX_FREQ")
        await site.order("valve-2")
        await gateway.hear(uplink(METER, 2))
        await site.until(lambda: site.results("valve-2") == ["queued", "refused_by_radio"])
        refused = site.of("downlink_result")[-1]
        assert (refused["reason"], refused["detail"]) == ("radio", "TX_FREQ")
        gateway.answer = lambda _: TxResult()
        await gateway.hear(uplink(METER, 3))
        await site.until(lambda: site.results("valve-2")[-1] == "sent")
        assert site.of("downlink_result")[-1]["attempt"] == 2
        assert site.of("downlink_result")[-1]["fcnt_down"] == 2  # 1 was used up by what the radio refused

    with_site(tmp_path, use)


def test_the_gateway_that_heard_best_answers(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        async with forwarder(site.port, OTHER_GATEWAY) as other:
            await gateway.hear(uplink(METER, 1), snr=-3.0)
            await other.hear(uplink(METER, 1), snr=4.0)
            frame = uplink(METER, 2, m_type=MType.CONFIRMED_DATA_UP)
            await gateway.hear(frame, snr=-3.0)
            await other.hear(frame, tmst=77, snr=4.0)
            order = await other.ordered()
            assert (order.gateway_eui, order.tmst) == (OTHER_GATEWAY, 1_000_077)
            assert gateway.orders.empty()

    with_site(tmp_path, use)


def test_a_device_that_listens_always_is_reached_at_once(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        await gateway.hear(uplink(METER, 1))
        await site.until(lambda: bool(site.of("uplink")))
        await site.order("lamp-1")
        order = await gateway.ordered()
        assert (order.timing, order.frequency_hz, order.data_rate) == (
            TxTiming.IMMEDIATELY,
            869_525_000,
            LoraDataRate(12, 125_000),
        )
        assert data(order)[1] == b"open"
        await site.until(lambda: site.results("lamp-1") == ["queued", "sent"])

    with_site(tmp_path, use, CLASS_C)


def test_a_group_is_sent_to_by_every_gateway(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        async with forwarder(site.port, OTHER_GATEWAY) as other:
            await gateway.hear(uplink(METER, 1))
            await other.hear(uplink(METER, 1))
            await site.until(lambda: bool(site.of("uplink_copy")))
            await site.order("all-off", "lamps")
            first, second = await gateway.ordered(), await other.ordered()
            assert first.phy_payload == second.phy_payload
            frame = parse(first.phy_payload)
            assert isinstance(frame, DataFrame)
            assert str(frame.dev_addr) == "01ff0001"
            await site.until(lambda: site.results("all-off") == ["queued", "sent"])

    with_site(tmp_path, use, DEVICES + GROUP)


def test_what_cannot_be_sent_is_rejected_with_the_reason(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        await site.order("a", "00000000000000ff")
        await site.order("b", f_port=0)
        await site.order("c", expires_in_s=1)
        await site.order("d", sealed_payload="AAAA", payload=None)
        await gateway.hear(uplink(METER, 1))
        found = {one["command_id"]: (one["state"], one["reason"]) for one in site.of("downlink_result")}
        assert found["a"] == ("rejected", "unknown_device")
        assert found["b"] == ("rejected", "bad_command")
        assert found["d"] == ("rejected", "bad_command")
        await site.until(lambda: site.results("c")[-1] in ("sent", "expired"))
        await site.order("e", payload=base64.b64encode(bytes(240)).decode())
        await gateway.hear(uplink(METER, 2))
        await site.until(lambda: site.results("e")[-1] == "sent")
        await site.order("f", expires_in_s=1)
        await site.until(lambda: site.results("f")[-1] == "expired")
        await site.order("f")
        assert site.of("downlink_result")[-1]["reason"] == "duplicate_id"

    with_site(tmp_path, use)


def test_a_bridge_that_only_listens_sends_nothing_and_asks_for_no_commands(tmp_path: Path) -> None:
    async def use(site: Site, gateway: Forwarder) -> None:
        await gateway.hear(uplink(METER, 1, m_type=MType.CONFIRMED_DATA_UP))
        await site.until(lambda: bool(site.of("uplink")))
        assert site.bridge.answer()["counters"]["downlink_waiting_answers"] == 0
        assert gateway.orders.empty()

    with_site(tmp_path, use, config=f"{QUIET}[downlinks]\nenabled = false\n")
