"""Frames that were recorded on the air by others, where they are at hand: most may not be shipped."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.device import Device, SessionKeys
from lorabridge.lorawan.inspection import Known, KnownKeys, inspect
from lorabridge.lorawan.types import AES128Key, DevAddr, Direction, FCnt32
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import Bridge, device, heard
from tests.vector_files import vectors

RENAMED = {
    "mtype": "m_type",
    "fctrl": "f_ctrl",
    "fcnt_wire": "fcnt16",
    "full_fcnt": "fcnt32",
    "frm_payload_encrypted": "frm_payload",
    "frm_payload": "frm_payload_decrypted",
}
OF_THE_CAPTURE = {
    "phy_payload",
    "duplicate_of_seq",
    "dev_nonce_seen_before",
    "fcnt_not_increasing",
    "mic_invalid_because",
}
RECORDED = [vector for vector in vectors("recorded_rxpk") if "phy_payload" in vector.get("expect", {})]
NOISE = [vector for vector in RECORDED if vector["expect"].get("accept") is False]
FRAMES = [vector for vector in RECORDED if "accept" not in vector["expect"]]

pytestmark = pytest.mark.skipif(not RECORDED, reason="the recordings of others are not part of this project")


def phy_payload(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["expect"]["phy_payload"])


def keys(vector: dict[str, Any]) -> dict[str, AES128Key]:
    return {name: AES128Key.parse(text) for name, text in (vector.get("keys") or {}).items()}


def test_every_recorded_frame_says_what_was_found_in_it() -> None:
    for vector in FRAMES:
        expect = vector["expect"]
        known = Known(
            keys=KnownKeys(**keys(vector)),
            direction=Direction[vector["dir"].upper()],
            fcnt32=FCnt32(expect["full_fcnt"]) if "full_fcnt" in expect else None,
        )
        answer = inspect(phy_payload(vector), known)
        wanted = {RENAMED.get(name, name): value for name, value in expect.items() if name not in OF_THE_CAPTURE}
        assert {name: answer[name] for name in wanted} == wanted, vector["id"]


def test_noise_of_the_radio_proves_nothing() -> None:
    bridge = Bridge(device())
    for vector in NOISE:
        decision = bridge.hear(phy_payload(vector))
        assert (decision.device, decision.session, decision.events) == (None, None, ())
    assert bridge.sessions == {}


def test_every_recorded_uplink_is_accepted_once_and_none_that_did_not_verify() -> None:
    uplinks = [vector for vector in FRAMES if "nwk_s_key" in vector.get("keys", {}) and vector["dir"] == "up"]
    sessions: dict[tuple[str, str, AES128Key], Device] = {}
    for vector in uplinks:
        nwk_s_key = keys(vector)["nwk_s_key"]
        session_keys = SessionKeys(
            f_nwk_s_int_key=nwk_s_key,
            s_nwk_s_int_key=nwk_s_key,
            nwk_s_enc_key=nwk_s_key,
            app_s_key=keys(vector).get("app_s_key"),
        )
        found = (vector["expect"]["dev_addr"], nwk_s_key)
        sessions.setdefault(
            (vector["capture"], *found), device(dev_addr=DevAddr.parse(found[0]), session_keys=session_keys)
        )
    for capture in {vector["capture"] for vector in uplinks}:
        bridge = Bridge(*(sender for key, sender in sessions.items() if key[0] == capture))
        accepted: list[bytes] = []
        for vector in [vector for vector in uplinks if vector["capture"] == capture]:
            received_at = round(float(vector["ts"]) * 1_000_000) * 1000
            reception = msgspec.structs.replace(heard(phy_payload(vector)), received_at=received_at)
            (decision,) = bridge.hear_all(reception)
            assert vector["expect"]["mic_valid"] is (decision.verdict is not Verdict.BAD_MIC), vector["id"]
            if decision.verdict is Verdict.ACCEPTED:
                accepted.append(phy_payload(vector))
        valid = {phy_payload(v) for v in uplinks if v["capture"] == capture and v["expect"]["mic_valid"]}
        assert len(accepted) == len(set(accepted))
        assert set(accepted) == valid
