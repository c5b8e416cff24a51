"""Numbers with a name: byte order, written forms, and keys that do not show."""

from __future__ import annotations

import copy
import json
import pickle
import string
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.crypto import PreparedKey, SessionCrypto
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DevNonce, JoinNonce, MacVersion, NetID
from tests.lorawan.builders import device
from tests.vector_files import vector_id, vectors

NAMED = [EUI64, NetID, DevAddr, DevNonce, JoinNonce]
SECRET = bytes.fromhex("6b65792d6b65792d6b65792d6b657921")


@pytest.mark.parametrize("kind", NAMED)
@given(data=st.data())
def test_the_wire_is_little_endian_and_writing_is_big_endian(kind: type[EUI64], data: st.DataObject) -> None:
    wire = data.draw(st.binary(min_size=kind.size, max_size=kind.size))
    value = kind.from_wire(wire)
    assert value.to_wire() == wire
    assert str(value) == f"{value}" == wire[::-1].hex()
    assert kind.parse(str(value)) == value
    assert kind.parse("-".join(str(value)[i : i + 2].upper() for i in range(0, 2 * kind.size, 2))) == value
    assert repr(value) == f"{kind.__name__}({wire[::-1].hex()})"


@pytest.mark.parametrize("kind", NAMED)
def test_another_length_is_refused(kind: type[EUI64]) -> None:
    for wire in (b"", bytes(kind.size - 1), bytes(kind.size + 1)):
        with pytest.raises(ValueError, match=kind.__name__):
            kind.from_wire(wire)
        with pytest.raises(ValueError, match="hex digits"):
            kind.parse(wire.hex())


@pytest.mark.parametrize("kind", NAMED)
@given(data=st.data())
def test_any_text_is_read_as_all_its_digits_or_refused(kind: type[EUI64], data: st.DataObject) -> None:
    text = data.draw(st.text(string.hexdigits + string.whitespace + ":-_g٣", max_size=3 * kind.size))
    digits = "".join(character for character in text if character not in "-: ")
    try:
        value = kind.parse(text)
    except ValueError:
        assert len(digits) != 2 * kind.size or not all(character in string.hexdigits for character in digits)
    else:
        assert str(value) == digits.lower()


def test_blanks_that_are_no_separators_do_not_shorten_an_address() -> None:
    with pytest.raises(ValueError, match="other characters"):
        DevAddr.parse("01\t\t0203")


@pytest.mark.parametrize("vector", vectors("devaddr"), ids=vector_id)
def test_dev_addr_vectors(vector: dict[str, Any]) -> None:
    dev_addr = DevAddr.parse(vector["input"]["dev_addr"])
    assert dev_addr.net_id_type == vector["expect"]["netid_type"]
    assert dev_addr.nwk_id == vector["expect"]["nwk_id_int"]


@pytest.mark.parametrize("vector", vectors("netid"), ids=vector_id)
def test_net_id_vectors(vector: dict[str, Any]) -> None:
    net_id, expect = NetID.parse(vector["input"]["net_id"]), vector["expect"]
    assert net_id.type == expect["type"]
    first, bits = DevAddr.parse(expect["dev_addr_prefix"]), expect["dev_addr_prefix_len"]
    last = DevAddr(first | (1 << (32 - bits)) - 1)
    assert first.network_prefix == last.network_prefix == (first, bits)
    assert first.belongs_to(net_id)
    assert last.belongs_to(net_id)
    assert not DevAddr(first - 1).belongs_to(net_id)
    assert not DevAddr(last + 1).belongs_to(net_id)


def test_the_reserved_prefix_belongs_to_no_network() -> None:
    reserved = DevAddr(0xFF00_0000)
    assert (reserved.net_id_type, reserved.nwk_id, reserved.network_prefix) == (None, None, (reserved, 8))
    assert not any(reserved.belongs_to(NetID(number << 21)) for number in range(8))


def test_only_1_1_has_the_key_hierarchy_of_1_1() -> None:
    assert [version.value for version in MacVersion if version.is_1_1] == ["1.1.0"]


def shown(value: object) -> str:
    """Everything Python shows of a value by itself."""
    return f"{value} {value!r} {value!s:>80} {value!s} {value.__format__('')} {[value]} {value!a}"


def test_a_key_does_not_show() -> None:
    key = AES128Key(SECRET)
    keys = SessionKeys(f_nwk_s_int_key=key, s_nwk_s_int_key=key, nwk_s_enc_key=key, app_s_key=key)
    holders = [key, keys, device(session_keys=keys, app_key=key), PreparedKey(key), SessionCrypto(keys)]
    for holder in holders:
        text = shown(holder)
        assert "key-key" not in text
        assert SECRET.hex() not in text
        assert repr(SECRET) not in text


def test_a_key_does_not_leave_by_accident() -> None:
    key = AES128Key(SECRET)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode, msgspec.msgpack.encode):
        with pytest.raises(TypeError):
            leave(key)
    with pytest.raises(TypeError):
        pickle.dumps(device(app_key=key))
    assert not hasattr(key, "__dict__")


def sign_with(key: AES128Key, prepared: PreparedKey) -> None:
    """Something that fails while it holds keys."""
    holder = device(app_key=key)
    raise RuntimeError(holder.name, len(prepared.cmac(b"")))


def test_a_traceback_with_its_local_variables_does_not_show_a_key() -> None:
    key = AES128Key(SECRET)
    with pytest.raises(RuntimeError) as caught:
        sign_with(key, PreparedKey(key))
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(report.format())
    assert "AES128Key(redacted)" in text
    assert "key-key" not in text
    assert SECRET.hex() not in text


def test_keys_compare_by_value_and_only_with_keys() -> None:
    key = AES128Key.parse("6b65792d6b65792d 6B65792D-6b:65:79:21")
    assert key == AES128Key(SECRET)
    assert hash(key) == hash(AES128Key(SECRET))
    assert key != AES128Key(bytes(16))
    assert key != SECRET
    assert key.reveal() == SECRET


@pytest.mark.parametrize("text", ["", "6b", "6b" * 17, "6b" * 15 + "6x", "6b" * 15 + "\t\t", "\uff16" * 32])
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="an AES-128 key is 32 hex digits") as caught:
        AES128Key.parse(text)
    assert not text or text not in str(caught.value)
    with pytest.raises(ValueError, match="16 bytes, not"):
        AES128Key(text.encode()[:15])


@given(st.integers(0, 0xFF_FFFF), st.integers(0, 0xFFFF_FFFF))
def test_the_addresses_of_a_network_are_those_that_belong_to_it(net_id: int, address: int) -> None:
    network = NetID(net_id)
    prefix, bits = network.address_range
    assert DevAddr(prefix).belongs_to(network)
    assert DevAddr(address).belongs_to(network) is ((prefix ^ address) >> (32 - bits) == 0)
    last = prefix | (1 << (32 - bits)) - 1
    assert DevAddr(last).belongs_to(network)
