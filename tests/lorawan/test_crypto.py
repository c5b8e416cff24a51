"""The cryptography against other people's numbers and against pycryptodome's own modes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import CMAC
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan import crypto
from lorabridge.lorawan.crypto import MicContext, PreparedKey, SessionCrypto
from lorabridge.lorawan.frame import JoinAccept, parse
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DevNonce, Direction, FCnt32, JoinNonce, NetID
from tests.lorawan.builders import KEYS_1_0, KEYS_1_1
from tests.vector_files import vector_id, vectors

RFC_4493_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
RFC_4493_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
RFC_4493 = [
    (0, "bb1d6929e95937287fa37d129b756746"),
    (16, "070a16b46b4d4144f79bdd9dd04a287c"),
    (40, "dfa66747de9ae63030ca32611497c827"),
    (64, "51f0bebf7e3b9d92fc49741779363cfe"),
]

dev_addrs = st.integers(0, 0xFFFF_FFFF).map(DevAddr)
counters = st.integers(0, 0xFFFF_FFFF).map(FCnt32)
directions = st.sampled_from(Direction)
keys = st.binary(min_size=16, max_size=16)


def hexed(value: str) -> bytes:
    return bytes.fromhex(value)


def prepared(text: str) -> PreparedKey:
    return PreparedKey(AES128Key.parse(text))


def reference_cmac(secret: bytes, message: bytes) -> bytes:
    return CMAC.new(secret, message, ciphermod=AES).digest()


@pytest.mark.parametrize(("size", "tag"), RFC_4493)
def test_cmac_is_that_of_rfc_4493(size: int, tag: str) -> None:
    assert PreparedKey(AES128Key(RFC_4493_KEY)).cmac(RFC_4493_MESSAGE[:size]).hex() == tag


def test_cmac_of_rfc_4493_holds_in_any_order_on_one_prepared_key() -> None:
    key = PreparedKey(AES128Key(RFC_4493_KEY))
    for size, tag in RFC_4493 + RFC_4493[::-1] + RFC_4493[1:3] * 2:
        assert key.cmac(RFC_4493_MESSAGE[:size]).hex() == tag


@given(keys, st.lists(st.binary(max_size=100), max_size=12))
def test_a_prepared_key_signs_any_sequence_as_fresh_ciphers_do(secret: bytes, messages: list[bytes]) -> None:
    key = PreparedKey(AES128Key(secret))
    for message in messages:
        assert key.cmac(message) == reference_cmac(secret, message)
        blocks = message[: len(message) // 16 * 16]
        assert key.decrypt_blocks(key.encrypt_blocks(blocks)) == blocks


@given(keys)
def test_both_subkeys_are_right_whatever_their_carries(secret: bytes) -> None:
    key = PreparedKey(AES128Key(secret))
    for size in (0, 1, 15, 16, 17, 31, 32, 33, 255, 271, 272):
        message = bytes(range(256)) * 2
        assert key.cmac(message[:size]) == reference_cmac(secret, message[:size])


def aes_ctr(secret: bytes, data: bytes, direction: Direction, dev_addr: int, fcnt32: int) -> bytes:
    """The keystream as the counter mode it is: A_i counts from 1 in its last byte."""
    nonce = struct.pack("<B4xBIIB", 1, 0 if direction is Direction.UP else 1, dev_addr, fcnt32, 0)
    return AES.new(secret, AES.MODE_CTR, nonce=nonce, initial_value=1).encrypt(data)


@given(keys, st.binary(max_size=242), directions, dev_addrs, counters)
def test_the_keystream_is_aes_in_counter_mode(
    secret: bytes, data: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32
) -> None:
    found = crypto.crypt_frm_payload(PreparedKey(AES128Key(secret)), data, direction, dev_addr, fcnt32)
    assert found == aes_ctr(secret, data, direction, dev_addr, fcnt32)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 240, 241, 242])
def test_the_keystream_holds_at_every_block_edge(size: int) -> None:
    data = bytes(size)
    found = crypto.crypt_frm_payload(PreparedKey(AES128Key(RFC_4493_KEY)), data, Direction.UP, DevAddr(1), FCnt32(2))
    assert found == aes_ctr(RFC_4493_KEY, data, Direction.UP, 1, 2)


@given(keys, st.binary(max_size=15), directions, dev_addrs, counters, st.booleans())
def test_f_opts_are_encrypted_under_their_own_block(  # what hypothesis draws
    secret: bytes, data: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32, a_fcnt_down: bool
) -> None:
    key = PreparedKey(AES128Key(secret))
    found = crypto.crypt_f_opts(key, data, direction, dev_addr, fcnt32, a_fcnt_down=a_fcnt_down)
    way = 0 if direction is Direction.UP else 1
    block = struct.pack("<B3xBBIIBB", 1, 2 if a_fcnt_down else 1, way, dev_addr, fcnt32, 0, 1)
    stream = AES.new(secret, AES.MODE_ECB).encrypt(block)
    assert found == bytes(a ^ b for a, b in zip(data, stream, strict=False))
    assert crypto.crypt_f_opts(key, found, direction, dev_addr, fcnt32, a_fcnt_down=a_fcnt_down) == data


@pytest.mark.parametrize("vector", vectors("frm_payload_crypto"), ids=vector_id)
def test_frm_payload_vectors(vector: dict[str, Any]) -> None:
    given_ = vector["input"]
    arguments = (Direction[given_["direction"].upper()], DevAddr.parse(given_["dev_addr"]), FCnt32(given_["fcnt"]))
    key = prepared(given_["key"])
    assert crypto.crypt_frm_payload(key, hexed(given_["data"]), *arguments).hex() == vector["expect"]["result"]


@pytest.mark.parametrize("vector", vectors("fopts_encryption"), ids=vector_id)
def test_f_opts_vectors(vector: dict[str, Any]) -> None:
    given_ = vector["input"]
    found = crypto.crypt_f_opts(
        prepared(given_["nwk_s_enc_key"]),
        hexed(given_["data"]),
        Direction[given_["direction"].upper()],
        DevAddr.parse(given_["dev_addr"]),
        FCnt32(given_["fcnt"]),
        a_fcnt_down=given_["uses_a_fcnt_down"],
    )
    assert found.hex() == vector["expect"]["result"]


@pytest.mark.parametrize("vector", vectors("join_request"), ids=vector_id)
def test_join_request_mic_vectors(vector: dict[str, Any]) -> None:
    phy_payload = hexed(vector["input"]["phy_payload"])
    key = prepared(vector["input"].get("app_key") or vector["input"]["nwk_key"])
    valid = crypto.mic_equal(crypto.join_mic(key, phy_payload[:-4]), phy_payload[-4:])
    assert valid is vector["expect"]["mic_valid"]


@pytest.mark.parametrize("vector", [v for n in (0, 1, 2) for v in vectors(f"rejoin_{n}")], ids=vector_id)
def test_rejoin_request_mic_vectors(vector: dict[str, Any]) -> None:
    key = vector["input"].get("js_int_key") or vector["input"].get("s_nwk_s_int_key")
    assert (key is None) == ("mic_valid" not in vector["expect"])
    if key is not None:
        phy_payload = hexed(vector["input"]["phy_payload"])
        assert crypto.join_mic(prepared(key), phy_payload[:-4]) == phy_payload[-4:]


@pytest.mark.parametrize("vector", vectors("join_accept_1_0"), ids=vector_id)
def test_join_accept_vectors_of_1_0(vector: dict[str, Any]) -> None:
    frame, key = parse(hexed(vector["input"]["phy_payload"])), prepared(vector["input"]["app_key"])
    assert isinstance(frame, JoinAccept)
    body = crypto.decrypt_join_accept(key, frame)
    assert (body.message + body.mic).hex() == vector["expect"]["decrypted_phy"]
    assert (crypto.join_accept_mic(key, body) == body.mic) is vector["expect"]["mic_valid"]
    assert crypto.encrypt_join_accept(key, body.message[1:] + body.mic) == frame.encrypted


@pytest.mark.parametrize("vector", vectors("join_accept_1_1"), ids=vector_id)
def test_join_accept_vectors_of_1_1(vector: dict[str, Any]) -> None:
    given_ = vector["input"]
    frame, key = parse(hexed(given_["phy_payload"])), prepared(given_["decrypt_key"])
    assert isinstance(frame, JoinAccept)
    body = crypto.decrypt_join_accept(key, frame)
    assert (body.message + body.mic).hex() == vector["expect"]["decrypted_phy"]
    assert body.opt_neg
    js_int_key, join_eui = prepared(given_["js_int_key"]), EUI64.parse(given_["join_eui"])
    mic = crypto.join_accept_mic_1_1(js_int_key, body, given_["join_req_type"], join_eui, given_["dev_nonce"])
    assert mic == body.mic
    assert crypto.encrypt_join_accept(key, body.message[1:] + body.mic) == frame.encrypted


@pytest.mark.parametrize("vector", vectors("session_keys_1_0"), ids=vector_id)
def test_session_key_vectors_of_1_0(vector: dict[str, Any]) -> None:
    given_, expect = vector["input"], vector["expect"]
    found = crypto.derive_session_keys_1_0(
        AES128Key.parse(given_["app_key"]),
        JoinNonce.parse(given_["join_nonce"]),
        NetID.parse(given_["net_id"]),
        DevNonce(given_["dev_nonce"]),
    )
    nwk_s_key = AES128Key.parse(expect["nwk_s_key"])
    assert [found.f_nwk_s_int_key, found.s_nwk_s_int_key, found.nwk_s_enc_key] == [nwk_s_key] * 3
    assert found.app_s_key == AES128Key.parse(expect["app_s_key"])


@pytest.mark.parametrize("vector", vectors("session_keys_1_1"), ids=vector_id)
def test_session_key_vectors_of_1_1(vector: dict[str, Any]) -> None:
    given_, expect = vector["input"], {name: AES128Key.parse(key) for name, key in vector["expect"].items()}
    nwk_key = AES128Key.parse(given_["nwk_key"])
    if "dev_eui" in given_:
        dev_eui = EUI64.parse(given_["dev_eui"])
        assert crypto.derive_js_int_key(nwk_key, dev_eui) == expect["js_int_key"]
        assert crypto.derive_js_enc_key(nwk_key, dev_eui) == expect["js_enc_key"]
        return
    found = crypto.derive_session_keys_1_1(
        nwk_key,
        AES128Key.parse(given_["app_key"]),
        JoinNonce.parse(given_["join_nonce"]),
        EUI64.parse(given_["join_eui"]),
        DevNonce(given_["dev_nonce"]),
    )
    names = ("f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key", "app_s_key")
    assert {name: getattr(found, name) for name in names} == expect


MESSAGE = hexed("4004030201a00100017f")


@given(st.binary(min_size=8, max_size=251), directions, dev_addrs, counters)
def test_the_mic_of_1_0_is_the_cmac_over_b0_and_the_message(
    message: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32
) -> None:
    way = 0 if direction is Direction.UP else 1
    b0 = struct.pack("<B4xBIIBB", 0x49, way, dev_addr, fcnt32, 0, len(message))
    expected = reference_cmac(KEYS_1_0.f_nwk_s_int_key.reveal(), b0 + message)[:4]
    assert SessionCrypto(KEYS_1_0).mic_1_0(message, direction, dev_addr, fcnt32) == expected


@given(dev_addrs, counters, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255))
def test_the_mic_of_1_1_is_half_cmac_s_and_half_cmac_f(
    dev_addr: DevAddr, fcnt32: FCnt32, conf_fcnt: int, tx_dr: int, tx_ch: int
) -> None:
    tail = struct.pack("<BIIBB", 0, dev_addr, fcnt32, 0, len(MESSAGE)) + MESSAGE
    cmac_f = reference_cmac(KEYS_1_1.f_nwk_s_int_key.reveal(), struct.pack("<B4x", 0x49) + tail)
    b1 = struct.pack("<BHBB", 0x49, conf_fcnt, tx_dr, tx_ch)
    cmac_s = reference_cmac(KEYS_1_1.s_nwk_s_int_key.reveal(), b1 + tail)
    context = MicContext(conf_fcnt, tx_dr, tx_ch)
    assert SessionCrypto(KEYS_1_1).mic_up_1_1(MESSAGE, dev_addr, fcnt32, context) == cmac_s[:2] + cmac_f[:2]


@pytest.mark.parametrize("vector", vectors("downlink_1_1"), ids=vector_id)
def test_downlink_mic_vectors_of_1_1(vector: dict[str, Any]) -> None:
    given_, phy_payload = vector["input"], hexed(vector["input"]["phy_payload"])
    key, dev_addr = prepared(given_["s_nwk_s_int_key"]), DevAddr.parse(vector["expect"]["dev_addr"])
    context = MicContext(conf_fcnt=given_["conf_fcnt"] if vector["expect"]["fctrl"]["ack"] else 0)
    fcnt32 = FCnt32(given_["full_fcnt"])
    assert crypto.data_mic(key, phy_payload[:-4], Direction.DOWN, dev_addr, fcnt32, context) == phy_payload[-4:]


def test_a_session_signs_downlinks_of_1_1_under_s_nwk_s_int_key() -> None:
    found = SessionCrypto(KEYS_1_1).mic_down_1_1(MESSAGE, DevAddr(5), FCnt32(6), 7)
    key = PreparedKey(KEYS_1_1.s_nwk_s_int_key)
    assert found == crypto.data_mic(key, MESSAGE, Direction.DOWN, DevAddr(5), FCnt32(6), MicContext(conf_fcnt=7))


def test_f_port_0_is_read_with_the_network_key_and_the_rest_with_the_application_key() -> None:
    session = SessionCrypto(KEYS_1_1)
    assert KEYS_1_1.app_s_key is not None
    for f_port, key in ((0, KEYS_1_1.nwk_s_enc_key), (1, KEYS_1_1.app_s_key), (255, KEYS_1_1.app_s_key)):
        found = session.frm_payload(b"data", f_port, Direction.DOWN, DevAddr(1), FCnt32(2))
        assert found == aes_ctr(key.reveal(), b"data", Direction.DOWN, 1, 2)


def test_mics_are_compared_whole() -> None:
    assert crypto.mic_equal(b"\1\2\3\4", b"\1\2\3\4")
    assert not crypto.mic_equal(b"\1\2\3\4", b"\1\2\3\5")
    assert not crypto.mic_equal(b"\1\2\3\4", b"\1\2\3")
