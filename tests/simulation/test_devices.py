"""Virtual devices against the specification: its formulas written out once more, on pycryptodome's CMAC."""

from __future__ import annotations

import struct
from random import Random

import msgspec
import pytest
from Crypto.Cipher import AES
from Crypto.Hash import CMAC

from lorabridge.lorawan.air import CrcStatus, LoraDataRate, Reception
from lorabridge.lorawan.decision import Network
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.frame import DataFrame, JoinRequest, parse
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, FCNT32_MAX, AES128Key, MacVersion
from lorabridge.lorawan.verdict import Verdict
from lorabridge.simulation.air import Emission, Forwarder, Gateway, Place
from lorabridge.simulation.cast import NET_ID, derived_dev_addr, derived_key, derived_session_keys
from lorabridge.simulation.devices import NotActivatedError, VirtualDevice
from lorabridge.simulation.plans import PLANS, Plan

NOW = 1_772_438_400_000_000_000
SECOND = 1_000_000_000
EU868 = PLANS["EU868"]


def abp(version: MacVersion, name: str = "probe", plan: Plan = EU868, **fields: object) -> Device:
    device = Device(
        name=name,
        dev_eui=EUI64(0x02_00_00_00_00_00_00_01),
        mac_version=version,
        activation=Activation.ABP,
        dev_addr=derived_dev_addr(name),
        session_keys=derived_session_keys(name, version),
        region=plan.region.name,
        channels_hz=plan.added_hz,
    )
    return msgspec.structs.replace(device, **fields)


def otaa(version: MacVersion) -> Device:
    return Device(
        name="joiner",
        dev_eui=EUI64(0x02_00_00_00_00_00_00_02),
        mac_version=version,
        activation=Activation.OTAA,
        join_eui=EUI64(0x02_00_00_00_00_00_00_03),
        app_key=derived_key("joiner", "app_key"),
        nwk_key=derived_key("joiner", "nwk_key") if version.is_1_1 else None,
    )


def radio(device: Device, seed: int = 1, fcnt_up: int = 0) -> VirtualDevice:
    return VirtualDevice(device, EU868, Place(500, 0), rng=Random(seed), fcnt_up=fcnt_up)


def data(emission: Emission) -> DataFrame:
    frame = parse(emission.phy_payload)
    assert isinstance(frame, DataFrame)
    return frame


def cmac(key: AES128Key | None, message: bytes) -> bytes:
    assert key is not None
    return CMAC.new(key.reveal(), message, ciphermod=AES).digest()


def spec_block(dev_addr: int, fcnt32: int, size: int, conf: int = 0, dr: int = 0, ch: int = 0) -> bytes:
    """B_0, or B_1 with its three fields (TS001-1.1 §4.4), uplink."""
    return struct.pack("<BHBBBIIBB", 0x49, conf, dr, ch, 0, dev_addr, fcnt32, 0, size)


def spec_keystream(key: AES128Key | None, dev_addr: int, fcnt32: int) -> bytes:
    """S_1 (TS001-1.0.4 §4.3.3.1), uplink."""
    assert key is not None
    return AES.new(key.reveal(), AES.MODE_ECB).encrypt(struct.pack("<BIBIIBB", 1, 0, 0, dev_addr, fcnt32, 0, 1))


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=False))


def sent_channel(emission: Emission) -> int:
    tx_ch = EU868.region.tx_ch(emission.frequency_hz, emission.data_rate, EU868.added_hz)
    assert tx_ch is not None
    return tx_ch


@pytest.mark.parametrize("version", [version for version in MacVersion if not version.is_1_1])
def test_a_frame_of_1_0_is_signed_and_encrypted_as_the_specification_writes_it(version: MacVersion) -> None:
    device = abp(version)
    assert device.dev_addr is not None
    assert device.session_keys is not None
    emission = radio(device, fcnt_up=0x1_FFFE).send(NOW, f_port=7, payload=b"hello", confirmed=True)
    frame, phy = data(emission), emission.phy_payload
    assert phy[0] == 0x80
    assert frame.fcnt16 == 0xFFFE
    assert frame.flags.adr
    assert xor(frame.frm_payload, spec_keystream(device.session_keys.app_s_key, device.dev_addr, 0x1_FFFE)) == b"hello"
    block = spec_block(device.dev_addr, 0x1_FFFE, len(phy) - 4)
    assert phy[-4:] == cmac(device.session_keys.f_nwk_s_int_key, block + phy[:-4])[:4]


def test_both_halves_of_a_mic_of_1_1_bind_what_the_specification_binds() -> None:
    device = abp(MacVersion.V1_1_0)
    assert device.dev_addr is not None
    assert device.session_keys is not None
    virtual = radio(device, fcnt_up=41)
    virtual.data_rate = 3
    virtual.acknowledge(0x2_BEEF)
    emission = virtual.send(NOW, f_port=7, payload=b"hello")
    phy = emission.phy_payload
    assert data(emission).flags.ack
    tx_ch = sent_channel(emission)
    s_block = spec_block(device.dev_addr, 41, len(phy) - 4, conf=0xBEEF, dr=3, ch=tx_ch)
    f_block = spec_block(device.dev_addr, 41, len(phy) - 4)
    assert phy[-4:-2] == cmac(device.session_keys.s_nwk_s_int_key, s_block + phy[:-4])[:2]
    assert phy[-2:] == cmac(device.session_keys.f_nwk_s_int_key, f_block + phy[:-4])[:2]


def test_mac_commands_on_port_0_are_encrypted_with_the_network_key() -> None:
    device = abp(MacVersion.V1_1_0)
    assert device.dev_addr is not None
    assert device.session_keys is not None
    frame = data(radio(device).send(NOW, f_port=0, payload=b"\x06\xff\x0c"))
    assert (
        xor(frame.frm_payload, spec_keystream(device.session_keys.nwk_s_enc_key, device.dev_addr, 0)) == b"\x06\xff\x0c"
    )


def test_f_opts_travel_plain_in_1_0_and_encrypted_in_1_1() -> None:
    plain = data(radio(abp(MacVersion.V1_0_4)).send(NOW, f_opts=b"\x03\x07"))
    device = abp(MacVersion.V1_1_0)
    assert device.dev_addr is not None
    assert device.session_keys is not None
    sealed = data(radio(device, fcnt_up=9).send(NOW, f_opts=b"\x03\x07"))
    stream = AES.new(device.session_keys.nwk_s_enc_key.reveal(), AES.MODE_ECB).encrypt(
        struct.pack("<BBBBBBIIBB", 1, 0, 0, 0, 1, 0, device.dev_addr, 9, 0, 1)
    )
    assert plain.f_opts == b"\x03\x07"
    assert xor(sealed.f_opts, stream) == b"\x03\x07"


def test_an_acknowledgement_goes_out_once() -> None:
    virtual = radio(abp(MacVersion.V1_0_3))
    virtual.acknowledge(5)
    assert [data(virtual.send(NOW)).flags.ack for _ in range(2)] == [True, False]


def test_the_counter_rolls_over_on_the_air_and_goes_on_in_the_device() -> None:
    virtual = radio(abp(MacVersion.V1_0_3), fcnt_up=0xFFFF)
    assert [data(virtual.send(NOW)).fcnt16 for _ in range(2)] == [0xFFFF, 0]
    assert virtual.fcnt_up == 0x1_0001


def test_a_used_up_counter_sends_nothing_more() -> None:
    virtual = radio(abp(MacVersion.V1_0_3), fcnt_up=FCNT32_MAX)
    virtual.send(NOW)
    with pytest.raises(OverflowError):
        virtual.send(NOW)


def test_a_new_battery_restarts_the_counter_and_forgets_the_last_frame() -> None:
    virtual = radio(abp(MacVersion.V1_0_3), fcnt_up=900)
    virtual.send(NOW)
    virtual.change_battery()
    with pytest.raises(NotActivatedError):
        virtual.repeat(NOW)
    assert data(virtual.send(NOW)).fcnt16 == 0


def test_a_repetition_keeps_its_bytes_in_1_0_and_signs_its_channel_in_1_1() -> None:
    channels = EU868.usable(EU868.fast)
    for version, same in ((MacVersion.V1_0_4, True), (MacVersion.V1_1_0, False)):
        virtual = radio(abp(version), fcnt_up=3)
        first = virtual.send(NOW, f_port=1, payload=b"again")
        other = next(channel for channel in channels if channel.frequency_hz != first.frequency_hz)
        again = virtual.repeat(NOW + 3 * SECOND, other)
        assert again.phy_payload[:-4] == first.phy_payload[:-4]
        assert (again.phy_payload[-4:] == first.phy_payload[-4:]) is same
        assert virtual.fcnt_up == 4


def test_frames_spread_over_every_channel_of_the_data_rate() -> None:
    virtual = radio(abp(MacVersion.V1_0_4))
    heard = {virtual.send(NOW).frequency_hz for _ in range(200)}
    assert heard == {channel.frequency_hz for channel in EU868.usable(EU868.fast)}


def test_a_join_request_is_signed_with_the_root_key_of_its_version() -> None:
    for version in (MacVersion.V1_0_3, MacVersion.V1_1_0):
        device = otaa(version)
        phy = radio(device).request_join(NOW).phy_payload
        frame = parse(phy)
        assert isinstance(frame, JoinRequest)
        assert (frame.dev_eui, frame.join_eui) == (device.dev_eui, device.join_eui)
        assert phy[-4:] == cmac(device.nwk_key or device.app_key, phy[:-4])[:4]


def test_dev_nonces_count_from_1_0_4_on_and_are_drawn_before() -> None:
    def nonces(version: MacVersion) -> list[int]:
        virtual = radio(otaa(version))
        return [int.from_bytes(virtual.request_join(NOW).phy_payload[17:19], "little") for _ in range(3)]

    assert nonces(MacVersion.V1_0_4) == nonces(MacVersion.V1_1_0) == [0, 1, 2]
    assert nonces(MacVersion.V1_0_2) != [0, 1, 2]


def test_a_device_that_has_not_joined_and_one_that_cannot_join_stay_silent() -> None:
    with pytest.raises(NotActivatedError):
        radio(otaa(MacVersion.V1_0_4)).send(NOW)
    with pytest.raises(NotActivatedError):
        radio(abp(MacVersion.V1_0_4)).request_join(NOW)


def test_a_device_without_app_s_key_cannot_encrypt() -> None:
    device = abp(MacVersion.V1_0_4)
    assert device.session_keys is not None
    keys = msgspec.structs.replace(device.session_keys, app_s_key=None)
    with pytest.raises(NotActivatedError):
        radio(msgspec.structs.replace(device, session_keys=keys)).send(NOW, f_port=1, payload=b"x")


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_channels_of_a_plan_have_the_indices_that_the_region_gives_them(plan: Plan) -> None:
    for channel in plan.channels:
        for tx_dr in channel.data_rates:
            data_rate = plan.region.data_rates[tx_dr]
            assert data_rate is not None
            assert plan.region.tx_ch(channel.frequency_hz, data_rate, plan.added_hz) == channel.tx_ch
            assert plan.heard_on(channel.frequency_hz, data_rate) == channel


def gateway(forwarder: Forwarder, *, tmst_zero_at: int = NOW) -> Gateway:
    eui = EUI64(0x02_00_00_00_00_00_00_99)
    return Gateway(eui, EU868, Place(0, 0), forwarder, rng=Random(5), tmst_zero_at=tmst_zero_at, backhaul_ms=(3, 9))


def test_an_emission_between_the_channels_is_heard_by_nobody() -> None:
    emission = radio(abp(MacVersion.V1_0_4)).send(NOW)
    astray = msgspec.structs.replace(emission, frequency_hz=emission.frequency_hz + 50_000)
    assert gateway(Forwarder.SX1303).hear(emission)
    assert gateway(Forwarder.SX1303).hear(astray) == ()


def test_distance_costs_signal_until_nothing_is_heard() -> None:
    ear = gateway(Forwarder.SX1301)
    emission = radio(abp(MacVersion.V1_0_4)).send(NOW)
    near, far, gone = (ear.hear(msgspec.structs.replace(emission, place=Place(m, 0))) for m in (100, 1000, 60_000))
    assert near[0].rxpk["rssi"] > far[0].rxpk["rssi"] > -120
    assert gone == ()


def test_the_concentrator_counter_wraps_at_32_bits() -> None:
    ear = gateway(Forwarder.SX1301, tmst_zero_at=NOW - (1 << 32) * 1000)
    virtual = radio(abp(MacVersion.V1_0_4))
    stamps = [ear.hear(virtual.send(NOW + micros * 1000))[0].rxpk["tmst"] for micros in (-1, 0, 7)]
    assert stamps == [0xFFFF_FFFF, 0, 7]


def test_a_device_beside_the_gateway_has_a_ghost_on_the_next_channel_at_the_same_count() -> None:
    virtual = VirtualDevice(abp(MacVersion.V1_0_4), EU868, Place(3, 0), rng=Random(1))
    virtual.data_rate = 5
    first = next(channel for channel in EU868.channels if channel.frequency_hz == 868_100_000)
    virtual.send(NOW)
    frame, ghost = gateway(Forwarder.SX1301).hear(virtual.repeat(NOW + 3 * SECOND, first))
    assert (frame.rxpk["chan"], ghost.rxpk["chan"]) == (0, 1)
    assert frame.rxpk["tmst"] == ghost.rxpk["tmst"]
    assert frame.rxpk["rssi"] > ghost.rxpk["rssi"] + 30


def test_forwarders_write_what_their_kind_writes() -> None:
    emission = radio(abp(MacVersion.V1_0_4)).send(NOW)
    old, new, two = (gateway(forwarder).hear(emission)[0].rxpk for forwarder in Forwarder)
    assert set(old) == {
        "tmst", "chan", "rfch", "freq", "stat", "modu", "datr", "codr", "lsnr", "rssi", "size", "data"
    }  # fmt: skip
    assert set(new) - set(old) == {"jver", "time", "tmms", "ftime", "mid", "rssis", "foff"}
    assert [antenna["ant"] for antenna in two["rsig"]] == [0, 1]
    assert not {"rssi", "lsnr", "chan"} & set(two)


def test_a_repetition_of_1_1_on_another_channel_is_a_retransmission_to_the_bridge() -> None:
    device = abp(MacVersion.V1_1_0)
    virtual = radio(device)
    engine = Engine(SessionTable([device], {}, "EU868"), Network(net_ids=(NET_ID,)))
    first = virtual.send(NOW, f_port=1, payload=b"again")
    other = next(channel for channel in EU868.usable(5) if channel.frequency_hz != first.frequency_hz)
    heard = [_reception(first), _reception(virtual.repeat(NOW + 3 * SECOND, other))]
    assert [decision.verdict for decision in engine.judge_all(heard)] == [Verdict.ACCEPTED, Verdict.RETRANSMISSION]


def _reception(emission: Emission) -> Reception:
    assert isinstance(emission.data_rate, LoraDataRate)
    return Reception(
        phy_payload=emission.phy_payload,
        received_at=emission.ends_at,
        gateway_eui=EUI64(1),
        source="test",
        crc=CrcStatus.OK,
        frequency_hz=emission.frequency_hz,
        data_rate=emission.data_rate,
        tmst=emission.ends_at // 1000 & 0xFFFF_FFFF,
    )
