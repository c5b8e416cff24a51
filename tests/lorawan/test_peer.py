"""What we send is read by somebody else: npm's lora-packet checks and decrypts every kind of downlink we build."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from lorabridge.lorawan.crypto import SessionCrypto, derive_js_enc_key, derive_js_int_key
from lorabridge.lorawan.device import Device, SessionKeys
from lorabridge.lorawan.downlink import Contents, build_downlink, build_multicast
from lorabridge.lorawan.frame import JoinRequest, RejoinRequest
from lorabridge.lorawan.join import Grant, build_join_accept
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import DevAddr, DevNonce, FCnt32, JoinNonce, NetID
from tests.lora_packet import MissingPeerError, find
from tests.lorawan.joining import JOIN_EUI, NWK_KEY, joiner, joiner_1_1, root_of
from tests.lorawan.test_downlink import GROUP, V1_0, V1_1, command, entry_of, session_of

Case = dict[str, Any]
ROUNDS = 60


def readings(folder: Path, cases: list[Case]) -> list[Case]:
    """What lora-packet makes of the cases."""
    try:
        node, module = find()
    except MissingPeerError as error:
        pytest.skip(str(error))
    file = folder / "cases.json"
    file.write_bytes(msgspec.json.encode(cases))
    script = Path(__file__).with_name("lora_packet_reader.cjs")
    answer = subprocess.run([node, script, module, file], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    found: list[Case] = msgspec.json.decode(answer.stdout)
    return found


def keys_of(keys: SessionKeys) -> list[str]:
    """FNwkSIntKey, SNwkSIntKey, NwkSEncKey, AppSKey."""
    assert keys.app_s_key is not None
    four = (keys.f_nwk_s_int_key, keys.s_nwk_s_int_key, keys.nwk_s_enc_key, keys.app_s_key)
    return [one.reveal().hex() for one in four]


def data_case(who: Device, rng: Random) -> tuple[Case, Case]:
    """A random downlink, and how it should be read."""
    counter = FCnt32(rng.randrange(1 << 32))
    payload, answers = rng.randbytes(rng.randrange(1, 51)), rng.randbytes(rng.randrange(16))
    f_port, carries = rng.randrange(1, 224), rng.random() < 0.7
    ack_of = FCnt32(rng.randrange(1 << 32)) if rng.random() < 0.5 else None
    order = command(payload, f_port, confirmed=rng.random() < 0.5) if carries else None
    pending = rng.random() < 0.5
    entry = entry_of(who)
    downlink = build_downlink(
        entry,
        SessionCrypto(entry.keys),
        session_of(who, fcnt_down=counter, a_fcnt_down=counter),
        Contents(ack_of=ack_of, mac_answers=answers, command=order, f_pending=pending),
        policy=MacPolicy(),
        uplink_adr=False,
        limit=230,
    )
    assert downlink is not None
    case = {
        "phy": downlink.phy_payload.hex(),
        "is_1_1": who.mac_version.is_1_1,
        "keys": keys_of(entry.keys),
        "high": (counter >> 16).to_bytes(2, "little").hex(),
        "conf_fcnt": ((ack_of or 0) & 0xFFFF).to_bytes(2, "little").hex(),
    }
    confirmed = order is not None and order.command.confirmed
    expected = {
        "mic": True,
        "m_type": "Confirmed Data Down" if confirmed else "Unconfirmed Data Down",
        "dev_addr": str(entry.dev_addr),
        "fcnt": counter & 0xFFFF,
        "f_port": f_port if carries else None,
        "ack": ack_of is not None,
        "f_pending": pending,
        "payload": payload.hex() if carries else "",
        "f_opts": answers.hex(),
    }
    return case, expected


@pytest.mark.parametrize("who", [V1_0, V1_1], ids=["1.0", "1.1"])
def test_lora_packet_reads_every_data_downlink(who: Device, tmp_path: Path) -> None:
    rng = Random(20)
    pairs = [data_case(who, rng) for _ in range(ROUNDS)]
    found = readings(tmp_path, [case for case, _ in pairs])
    assert found == [expected for _, expected in pairs]


def test_lora_packet_reads_a_multicast_downlink(tmp_path: Path) -> None:
    crypto = SessionTable.group_crypto(GROUP)
    session = SessionTable([], {}, groups=[GROUP]).group_session(GROUP)
    downlink = build_multicast(GROUP, crypto, session, command(b"all off"))
    assert downlink is not None
    assert GROUP.mc_app_s_key is not None
    network, application = GROUP.mc_nwk_s_key.reveal().hex(), GROUP.mc_app_s_key.reveal().hex()
    case = {
        "phy": downlink.phy_payload.hex(),
        "is_1_1": False,
        "keys": [network, network, network, application],
        "high": "0000",
    }
    (found,) = readings(tmp_path, [case])
    assert (found["mic"], found["payload"], found["dev_addr"]) == (True, b"all off".hex(), str(GROUP.mc_addr))


def test_lora_packet_reads_every_join_accept(tmp_path: Path) -> None:
    rng = Random(21)
    cases: list[Case] = []
    expected: list[Case] = []
    for n in range(ROUNDS):
        who = joiner() if n % 2 else joiner_1_1()
        nonce = rng.randrange(1 << 16)
        request: JoinRequest | RejoinRequest = JoinRequest(0, JOIN_EUI, who.dev_eui, DevNonce(nonce), bytes(4))
        kind, key = 0xFF, root_of(who)
        if who.mac_version.is_1_1 and n % 4 == 0:
            kind = rng.randrange(3)
            request = RejoinRequest(0xC0, kind, NetID(1), JOIN_EUI, who.dev_eui, nonce, bytes(4))
            key = derive_js_enc_key(NWK_KEY, who.dev_eui)
        grant = Grant(
            net_id=NetID(rng.randrange(1 << 24)),
            dev_addr=DevAddr(rng.randrange(1 << 32)),
            join_nonce=JoinNonce(rng.randrange(1 << 24)),
            rx1_delay=rng.randrange(16),
            rx1_dr_offset=rng.randrange(8),
            rx2_data_rate=rng.randrange(16),
            cf_list=rng.randbytes(16) if rng.random() < 0.5 else b"",
        )
        cases.append(
            {
                "phy": build_join_accept(who, request, grant).hex(),
                "is_1_1": who.mac_version.is_1_1,
                "key": key.reveal().hex(),
                "js_int_key": derive_js_int_key(NWK_KEY, who.dev_eui).reveal().hex(),
                "kind": kind,
                "join_eui": str(JOIN_EUI),
                "nonce": nonce.to_bytes(2, "big").hex(),
            }
        )
        expected.append(
            {
                "mic": True,
                "dev_addr": str(grant.dev_addr),
                "net_id": str(grant.net_id),
                "join_nonce": str(grant.join_nonce),
                "rx_delay": grant.rx1_delay,
                "cf_list": grant.cf_list.hex(),
            }
        )
    assert readings(tmp_path, cases) == expected
