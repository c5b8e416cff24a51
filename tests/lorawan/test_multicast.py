"""The keys of a multicast group against other people's numbers."""

from __future__ import annotations

from typing import Any

import pytest

from lorabridge.lorawan import multicast
from lorabridge.lorawan.types import AES128Key, DevAddr
from tests.vector_files import vector_id, vectors


def derived(given: dict[str, str]) -> dict[str, str]:
    """What the operation of a vector gives, by the names of its answer."""
    keys = {name: AES128Key.parse(text) for name, text in given.items() if name.endswith("_key")}
    match given["op"]:
        case "mc_root_key_from_gen_app_key":
            return {"mc_root_key": multicast.derive_mc_root_key_1_0(keys["gen_app_key"]).reveal().hex()}
        case "mc_root_key_from_app_key":
            return {"mc_root_key": multicast.derive_mc_root_key_1_1(keys["app_key"]).reveal().hex()}
        case "mc_ke_key":
            return {"mc_ke_key": multicast.derive_mc_ke_key(keys["mc_root_key"]).reveal().hex()}
        case "mc_session_keys":
            found = multicast.derive_multicast_keys(keys["mc_key"], DevAddr.parse(given["mc_addr"]))
            return {
                "mc_app_s_key": found.mc_app_s_key.reveal().hex(),
                "mc_nwk_s_key": found.mc_nwk_s_key.reveal().hex(),
            }
        case _:
            encrypted = multicast.encrypt_mc_key(keys["mc_ke_key"], keys["mc_key"])
            assert multicast.decrypt_mc_key(keys["mc_ke_key"], encrypted) == keys["mc_key"]
            return {"mc_key_encrypted": encrypted.hex()}


@pytest.mark.parametrize("vector", vectors("multicast"), ids=vector_id)
def test_multicast_key_vectors(vector: dict[str, Any]) -> None:
    assert derived(vector["input"]) == vector["expect"]


def test_an_encrypted_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        multicast.decrypt_mc_key(AES128Key(bytes(16)), bytes(15))
