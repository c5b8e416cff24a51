"""What can be said of a frame with what is known of it, and "cannot be said" where it cannot."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan import crypto
from lorabridge.lorawan.crypto import MicContext, PreparedKey, SessionCrypto
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import MalformedFrame, MType
from lorabridge.lorawan.inspection import Known, KnownKeys, inspect
from lorabridge.lorawan.types import EUI64, AES128Key, Direction, FCnt16, FCnt32, MacVersion
from tests.lorawan.builders import DEV_ADDR, KEYS_1_0, KEYS_1_1, device, device_1_1, key, uplink
from tests.vector_files import vector_id, vectors

V1_0 = KnownKeys(nwk_s_key=KEYS_1_0.f_nwk_s_int_key, app_s_key=KEYS_1_0.app_s_key)
V1_1 = KnownKeys(
    f_nwk_s_int_key=KEYS_1_1.f_nwk_s_int_key,
    s_nwk_s_int_key=KEYS_1_1.s_nwk_s_int_key,
    nwk_s_enc_key=KEYS_1_1.nwk_s_enc_key,
    app_s_key=KEYS_1_1.app_s_key,
)
ACK = 0x20


def without(keys: KnownKeys, *names: str) -> KnownKeys:
    return msgspec.structs.replace(keys, **dict.fromkeys(names))


def known(keys: KnownKeys = V1_0, **fields: Any) -> Known:
    return Known(keys=keys, **fields)


# ---- counters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "sent", "expected"),
    [
        (None, 5, 5),
        (4, 5, 5),
        (5, 5, 5),
        (0xFFFF, 0x1_0000, 0x1_0000),
        (0x1_0000, 0xFFFF, 0xFFFF),
        (0x5_0000, 3, 3),
        (0xFFFF_FFFE, 0xFFFF_FFFF, 0xFFFF_FFFF),
    ],
)
def test_the_counter_is_the_one_that_the_mic_proves(last: int | None, sent: int, expected: int) -> None:
    answer = inspect(uplink(device(), sent), known(last_fcnt32=None if last is None else FCnt32(last)))
    assert (answer["fcnt16"], answer["fcnt32"], answer["mic_valid"]) == (sent & 0xFFFF, expected, True)
    assert answer["frm_payload_decrypted"] == b"hello".hex()


def test_without_a_valid_mic_the_counter_is_the_likeliest() -> None:
    phy_payload = uplink(device(), 0x1_0002)
    for keys, valid in ((KnownKeys(), None), (KnownKeys(nwk_s_key=key(9)), False)):
        answer = inspect(phy_payload, known(keys, last_fcnt32=FCnt32(0xFFFF)))
        assert (answer["fcnt32"], answer["mic_valid"]) == (0x1_0002, valid)


def test_half_a_mic_is_enough_to_tell_the_counter_but_not_to_be_valid() -> None:
    answer = inspect(uplink(device_1_1(), 3), known(without(V1_1, "s_nwk_s_int_key"), last_fcnt32=FCnt32(0x5_0000)))
    assert (answer["fcnt32"], answer["mic_valid"]) == (3, None)
    assert "half under f_nwk_s_int_key is valid" in answer["mic_detail"]


def test_a_counter_that_contradicts_the_frame_is_used_and_never_valid() -> None:
    crypto_ = SessionCrypto(KEYS_1_0)
    frame = DataFrame.make(m_type=MType.UNCONFIRMED_DATA_UP, dev_addr=DEV_ADDR, fcnt16=FCnt16(7))
    odd = build(frame.with_mic(crypto_.mic_1_0(frame.message, Direction.UP, DEV_ADDR, FCnt32(8))))
    answer = inspect(odd, known(fcnt32=FCnt32(8)))
    assert (answer["fcnt16"], answer["fcnt32"], answer["mic_valid"]) == (7, 8, False)
    assert inspect(odd, known(KnownKeys(), fcnt32=FCnt32(8)))["mic_valid"] is None
    assert inspect(uplink(device(), 7), known(fcnt32=FCnt32(0x1_0007)))["mic_valid"] is False


# ---- versions and keys -----------------------------------------------------------------------------------------------

KEY = key(50)


@pytest.mark.parametrize(
    ("names", "speaks_1_1"),
    [
        ((), None),
        (("app_s_key",), None),
        (("nwk_s_key",), False),
        (("app_key",), False),
        (("f_nwk_s_int_key",), True),
        (("s_nwk_s_int_key",), True),
        (("nwk_s_enc_key", "nwk_s_key"), True),
        (("nwk_key", "app_key"), True),
        (("js_int_key",), True),
        (("js_enc_key",), True),
        (("nwk_s_key", "nwk_key"), False),
    ],
)
def test_the_version_is_told_by_the_keys_unless_it_is_said(names: tuple[str, ...], speaks_1_1: bool | None) -> None:
    keys = KnownKeys(**dict.fromkeys(names, KEY))
    assert Known(keys=keys).speaks_1_1 is speaks_1_1
    assert Known(keys=keys, mac_version=MacVersion.V1_1_0).speaks_1_1
    assert Known(keys=keys, mac_version=MacVersion.V1_0_0).speaks_1_1 is False


def test_with_no_key_and_no_version_nothing_is_guessed() -> None:
    answer = inspect(uplink(device(), 1, f_opts=b"\x02"), Known())
    found = {name: answer[name] for name in ("mic_valid", "f_opts_decrypted", "frm_payload_decrypted")}
    assert set(found.values()) == {None}
    assert "mac_version" in answer["mic_detail"]
    assert "mic_detail" not in inspect(uplink(device(), 1), known())


def test_1_0_reads_the_network_key_by_either_of_its_names() -> None:
    keys = KnownKeys(f_nwk_s_int_key=KEYS_1_0.f_nwk_s_int_key)
    answer = inspect(uplink(device(), 1, b"\x02", 0), known(keys, mac_version=MacVersion.V1_0_3))
    assert (answer["mic_valid"], answer["frm_payload_decrypted"]) == (True, "02")
    missing = inspect(uplink(device(), 1), known(KnownKeys(), mac_version=MacVersion.V1_0_3))
    assert missing["mic_detail"] == "nwk_s_key is not given"


@pytest.mark.parametrize("f_port", [None, 0, 1])
def test_what_is_empty_needs_no_key_and_what_is_not_there_stays_null(f_port: int | None) -> None:
    answer = inspect(uplink(device(), 1, b"", f_port), Known())
    assert (answer["f_opts"], answer["f_opts_decrypted"], answer["frm_payload"]) == ("", "", "")
    assert answer["frm_payload_decrypted"] == (None if f_port is None else "")


# ---- 1.1 -------------------------------------------------------------------------------------------------------------


CONTEXT = MicContext(9, 3, 4)


@pytest.mark.parametrize(
    ("keys", "fields", "mic_valid", "detail"),
    [
        (V1_1, {"conf_fcnt": 9, "tx_dr": 3, "tx_ch": 4}, True, ""),
        (V1_1, {"conf_fcnt": 8, "tx_dr": 3, "tx_ch": 4}, False, ""),
        (V1_1, {"conf_fcnt": 9, "tx_dr": 2, "tx_ch": 4}, False, ""),
        (V1_1, {"tx_dr": 3, "tx_ch": 4}, None, "conf_fcnt"),
        (V1_1, {}, None, "conf_fcnt, tx_dr, tx_ch"),
        (without(V1_1, "s_nwk_s_int_key"), {}, None, "the half under f_nwk_s_int_key is valid"),
        (without(V1_1, "f_nwk_s_int_key"), {"conf_fcnt": 9, "tx_dr": 3, "tx_ch": 4}, None, "f_nwk_s_int_key is not"),
        (without(V1_1, "f_nwk_s_int_key"), {"conf_fcnt": 9, "tx_dr": 3, "tx_ch": 5}, False, ""),
        (without(V1_1, "f_nwk_s_int_key", "s_nwk_s_int_key"), {}, None, "s_nwk_s_int_key is not given"),
        (msgspec.structs.replace(V1_1, f_nwk_s_int_key=KEY), {}, False, ""),
        (msgspec.structs.replace(without(V1_1, "s_nwk_s_int_key"), f_nwk_s_int_key=KEY), {}, False, ""),
        (KnownKeys(nwk_s_key=KEYS_1_1.f_nwk_s_int_key), {"mac_version": MacVersion.V1_1_0}, None, "s_nwk_s_int_key"),
    ],
)
def test_an_uplink_mic_of_1_1_is_valid_only_whole(
    keys: KnownKeys, fields: dict[str, Any], mic_valid: bool | None, detail: str
) -> None:
    answer = inspect(uplink(device_1_1(), 1, flags=ACK, context=CONTEXT), known(keys, **fields))
    assert answer["mic_valid"] is mic_valid
    assert ("mic_detail" in answer) is (mic_valid is None)
    assert detail in answer.get("mic_detail", "")


def test_what_is_not_given_is_taken_as_zero_and_may_prove_the_mic() -> None:
    assert inspect(uplink(device_1_1(), 1, context=MicContext()), known(V1_1))["mic_valid"] is True


def downlink(f_port: int | None, *, ack: bool = False, conf_fcnt: int = 0) -> bytes:
    """A downlink of 1.1 with FOpts."""
    crypto_, fcnt32 = SessionCrypto(KEYS_1_1), FCnt32(0x1_0003)
    a_fcnt_down = f_port is not None and f_port > 0
    frame = DataFrame.make(
        m_type=MType.UNCONFIRMED_DATA_DOWN,
        dev_addr=DEV_ADDR,
        fcnt16=FCnt16(3),
        flags=ACK if ack else 0,
        f_opts=crypto_.f_opts_1_1(b"\x06\x07", Direction.DOWN, DEV_ADDR, fcnt32, a_fcnt_down=a_fcnt_down),
        f_port=f_port,
    )
    return build(frame.with_mic(crypto_.mic_down_1_1(frame.message, DEV_ADDR, fcnt32, conf_fcnt)))


@pytest.mark.parametrize("f_port", [None, 1])
def test_f_opts_of_a_downlink_are_read_by_the_counter_of_its_port(f_port: int | None) -> None:
    answer = inspect(downlink(f_port), known(V1_1, fcnt32=FCnt32(0x1_0003)))
    assert (answer["mic_valid"], answer["f_opts_decrypted"]) == (True, "0607")
    sealed = inspect(downlink(f_port), known(without(V1_1, "nwk_s_enc_key"), fcnt32=FCnt32(0x1_0003)))
    assert (sealed["mic_valid"], sealed["f_opts_decrypted"]) == (True, None)
    clear = inspect(downlink(f_port), known(V1_1, fcnt32=FCnt32(0x1_0003), f_opts_encrypted=False))
    assert clear["f_opts_decrypted"] == clear["f_opts"]


@pytest.mark.parametrize(
    ("keys", "conf_fcnt", "mic_valid"),
    [(V1_1, 5, True), (V1_1, 6, False), (V1_1, None, None), (without(V1_1, "s_nwk_s_int_key"), 5, None)],
)
def test_a_downlink_mic_of_1_1_binds_the_acknowledged_counter(
    keys: KnownKeys, conf_fcnt: int | None, mic_valid: bool | None
) -> None:
    asked = known(keys, fcnt32=FCnt32(0x1_0003), conf_fcnt=conf_fcnt)
    assert inspect(downlink(None, ack=True, conf_fcnt=5), asked)["mic_valid"] is mic_valid
    wrong = inspect(downlink(None, ack=False)[:-1] + b"?", asked)
    assert wrong["mic_valid"] is (None if keys.s_nwk_s_int_key is None else False)


# ---- joins -----------------------------------------------------------------------------------------------------------

JOIN_REQUEST = bytes.fromhex("00010000000000000001000000000000000ce83685eb17")
ROOT = AES128Key(b"\x01" * 16)


@pytest.mark.parametrize(
    ("keys", "version", "mic_valid"),
    [
        (KnownKeys(), None, None),
        (KnownKeys(nwk_key=ROOT), None, True),
        (KnownKeys(app_key=ROOT), None, True),
        (KnownKeys(nwk_key=ROOT, app_key=KEY), None, True),
        (KnownKeys(nwk_key=KEY, app_key=ROOT), None, False),
        (KnownKeys(nwk_key=KEY, app_key=ROOT), MacVersion.V1_0_4, True),
        (KnownKeys(nwk_key=ROOT), MacVersion.V1_0_4, True),
        (KnownKeys(app_s_key=ROOT), None, None),
    ],
)
def test_a_join_request_is_signed_by_the_root_key_of_the_version(
    keys: KnownKeys, version: MacVersion | None, mic_valid: bool | None
) -> None:
    answer = inspect(JOIN_REQUEST, known(keys, mac_version=version))
    assert answer["mic_valid"] is mic_valid
    assert (answer["join_eui"], answer["dev_nonce"]) == ("0000000000000001", 59404)


def test_rejoin_request_1_is_signed_by_a_key_that_nwk_key_gives() -> None:
    dev_eui = EUI64(0x0102_0304_0506_0708)
    message = b"\xc0\x01" + bytes(8) + dev_eui.to_wire() + b"\x07\x00"
    signed = message + crypto.join_mic(PreparedKey(crypto.derive_js_int_key(ROOT, dev_eui)), message)
    assert inspect(signed, known(KnownKeys(nwk_key=ROOT)))["mic_valid"] is True
    assert inspect(signed, known(KnownKeys(js_int_key=ROOT, nwk_key=ROOT)))["mic_valid"] is False
    unknown = inspect(signed, Known())
    assert (unknown["mic_valid"], unknown["rj_count"], unknown["rejoin_type"]) == (None, 7, 1)
    assert "js_int_key" in unknown["mic_detail"]


@pytest.mark.parametrize("vector", [*vectors("rejoin_0"), *vectors("rejoin_2")], ids=vector_id)
def test_rejoin_requests_0_and_2_are_signed_by_s_nwk_s_int_key(vector: dict[str, Any]) -> None:
    secret = vector["input"].get("s_nwk_s_int_key")
    keys = KnownKeys(s_nwk_s_int_key=None if secret is None else AES128Key.parse(secret), nwk_key=ROOT)
    answer = inspect(bytes.fromhex(vector["input"]["phy_payload"]), known(keys))
    assert answer["net_id"] == vector["expect"]["net_id"]
    assert answer["mic_valid"] is vector["expect"].get("mic_valid")


def join_accept_known(vector: dict[str, Any], **fields: Any) -> Known:
    given_ = vector["input"]
    keys = {"js_int_key": given_["js_int_key"], given_["decrypt_key_name"]: given_["decrypt_key"]}
    base: dict[str, Any] = {
        "keys": KnownKeys(**{name: AES128Key.parse(text) for name, text in keys.items()}),
        "join_eui": EUI64.parse(given_["join_eui"]),
        "dev_nonce": given_["dev_nonce"],
        "join_req_type": given_["join_req_type"],
    }
    return Known(**(base | fields))


def opened(vector: dict[str, Any], what: Known) -> dict[str, Any]:
    return inspect(bytes.fromhex(vector["input"]["phy_payload"]), what)


@pytest.mark.parametrize("vector", vectors("join_accept_1_1"), ids=vector_id)
def test_a_join_accept_of_1_1_needs_all_that_its_mic_binds(vector: dict[str, Any]) -> None:
    full = opened(vector, join_accept_known(vector))
    assert full["mic_valid"] is True
    assert {name: full[name] for name in vector["expect"] if name != "mtype"} == {
        name: value for name, value in vector["expect"].items() if name != "mtype"
    }
    for name in ("join_eui", "dev_nonce"):
        missing = opened(vector, join_accept_known(vector, **{name: None}))
        assert (missing["mic_valid"], missing["dev_addr"]) == (None, vector["expect"]["dev_addr"])
    assert opened(vector, join_accept_known(vector, dev_nonce=1))["mic_valid"] is False
    closed = opened(vector, Known())
    assert (closed["mic"], closed["mic_valid"], closed["dev_addr"], closed["cf_list"]) == (None, None, None, None)
    assert closed["encrypted"] == vector["input"]["phy_payload"][2:]


def test_an_answer_to_a_rejoin_is_not_opened_with_the_root_key() -> None:
    (vector, *_) = [v for v in vectors("join_accept_1_1") if v["input"]["join_req_type"] == 0]
    js_enc_key = AES128Key.parse(vector["input"]["decrypt_key"])
    given_ = join_accept_known(vector, keys=KnownKeys(nwk_key=KEY))
    assert opened(vector, given_)["dev_addr"] is None
    named = join_accept_known(vector, keys=KnownKeys(js_enc_key=js_enc_key, nwk_key=KEY))
    assert opened(vector, named)["dev_addr"] == vector["expect"]["dev_addr"]
    only = join_accept_known(vector, keys=KnownKeys(js_enc_key=js_enc_key), join_req_type=0xFF)
    assert opened(vector, only)["dev_addr"] == vector["expect"]["dev_addr"]


BODY = bytes.fromhex("010203040506070809100a0b")


def join_accept(root: AES128Key, body: bytes, signer: AES128Key | None = None, head: bytes = b"") -> bytes:
    mic = crypto.join_mic(PreparedKey(signer or root), head + b"\x20" + body)
    return b"\x20" + crypto.encrypt_join_accept(PreparedKey(root), body + mic)


def test_the_js_keys_are_derived_from_nwk_key_and_dev_eui() -> None:
    dev_eui, join_eui = EUI64(3), EUI64(4)
    body = BODY[:10] + b"\x80" + BODY[11:]
    js_enc_key, js_int_key = crypto.derive_js_enc_key(ROOT, dev_eui), crypto.derive_js_int_key(ROOT, dev_eui)
    phy_payload = join_accept(js_enc_key, body, js_int_key, b"\x02" + join_eui.to_wire() + b"\x09\x00")
    asked = known(KnownKeys(nwk_key=ROOT), dev_eui=dev_eui, join_eui=join_eui, dev_nonce=9, join_req_type=2)
    assert inspect(phy_payload, asked)["mic_valid"] is True
    assert inspect(phy_payload, msgspec.structs.replace(asked, dev_eui=None))["mic_valid"] is None


def test_a_network_of_1_0_answers_a_device_of_1_1_under_nwk_key() -> None:
    assert inspect(join_accept(ROOT, BODY), known(KnownKeys(nwk_key=ROOT)))["mic_valid"] is True
    assert inspect(join_accept(ROOT, BODY), known(KnownKeys(app_key=ROOT)))["mic_valid"] is True
    assert inspect(join_accept(ROOT, BODY, KEY), known(KnownKeys(app_key=ROOT)))["mic_valid"] is False
    no_root = inspect(join_accept(ROOT, BODY), known(KnownKeys(js_enc_key=ROOT)))
    assert (no_root["mic_valid"], no_root["rx_delay"]) == (None, 0x0B)


def test_opt_neg_means_nothing_under_1_0() -> None:
    body = BODY[:10] + b"\xff" + BODY[11:]
    answer = inspect(join_accept(ROOT, body), known(KnownKeys(app_key=ROOT)))
    assert answer["mic_valid"] is True
    assert answer["dl_settings"] == {"opt_neg": True, "rx1_dr_offset": 7, "rx2_data_rate": 15}


@pytest.mark.parametrize("vector", vectors("cflist"), ids=vector_id)
def test_cf_list_vectors(vector: dict[str, Any]) -> None:
    raw = vector["input"]["cf_list"]
    answer = inspect(join_accept(ROOT, BODY + bytes.fromhex(raw)), known(KnownKeys(app_key=ROOT)))
    assert answer["mic_valid"] is True
    assert answer["cf_list"] == {"raw": raw, **vector["expect"]}


def test_a_cf_list_of_another_type_is_left_as_it_is() -> None:
    raw = bytes(15) + b"\x02"
    answer = inspect(join_accept(ROOT, BODY + raw), known(KnownKeys(app_key=ROOT)))
    assert answer["cf_list"] == {"raw": raw.hex(), "type": 2}


# ---- any frame -------------------------------------------------------------------------------------------------------


@given(
    st.binary(max_size=40) | st.builds(lambda mhdr, rest: bytes([mhdr << 2]) + rest, st.integers(0, 63), st.binary()),
    st.sampled_from([Known(), known(V1_0), known(V1_1), known(KnownKeys(nwk_key=ROOT), dev_eui=EUI64(1))]),
)
def test_any_bytes_are_told_or_refused_and_the_answer_is_json(phy_payload: bytes, what: Known) -> None:
    try:
        answer = inspect(phy_payload, what)
    except MalformedFrame:
        return
    assert msgspec.json.decode(msgspec.json.encode(answer)) == answer
    assert {"m_type", "major", "mic", "mic_valid"} <= set(answer)
    assert ("mic_detail" in answer) is (answer["mic_valid"] is None)
