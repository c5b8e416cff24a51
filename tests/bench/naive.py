"""The reference: a LoRaWAN decoder as one writes it first, complete and correct, from PHYPayload to JSON.

Idiomatic `construct` (Switch, BitStruct, Enum, RawCopy) interpreted; `CMAC.new` for every frame; one
`AES.new` for every block of the keystream; the standard library's `json`. Told of the reception it writes the
same record as the bridge, but for the `id`; it keeps less of a session and tells no duplicates or replays apart.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    Enum,
    FixedSized,
    Flag,
    GreedyBytes,
    Int8ul,
    Int16ul,
    Int32ul,
    Optional,
    RawCopy,
    Struct,
    Switch,
    this,
)
from Crypto.Cipher import AES
from Crypto.Hash import CMAC

from lorabridge.lorawan.air import LoraDataRate, Reception

MIC_SIZE = 4

MHDR = BitStruct(
    "m_type"
    / Enum(
        BitsInteger(3),
        join_request=0,
        join_accept=1,
        unconfirmed_data_up=2,
        unconfirmed_data_down=3,
        confirmed_data_up=4,
        confirmed_data_down=5,
        rejoin_request=6,
        proprietary=7,
    ),
    "rfu" / BitsInteger(3),
    "major" / Enum(BitsInteger(2), lorawan_r1=0),
)
F_CTRL = BitStruct(
    "adr" / Flag,
    "adr_ack_req" / Flag,
    "ack" / Flag,
    "class_b" / Flag,
    "f_opts_len" / BitsInteger(4),
)
FHDR = Struct(
    "dev_addr" / Int32ul,
    "f_ctrl" / F_CTRL,
    "fcnt" / Int16ul,
    "f_opts" / Bytes(this.f_ctrl.f_opts_len),
)
MAC_PAYLOAD = Struct("fhdr" / FHDR, "f_port" / Optional(Int8ul), "frm_payload" / GreedyBytes)
JOIN_REQUEST = Struct("join_eui" / Bytes(8), "dev_eui" / Bytes(8), "dev_nonce" / Int16ul)
SIGNED = Struct(
    "mhdr" / MHDR,
    "body"
    / Switch(
        this.mhdr.m_type,
        {
            "join_request": JOIN_REQUEST,
            "unconfirmed_data_up": MAC_PAYLOAD,
            "confirmed_data_up": MAC_PAYLOAD,
            "unconfirmed_data_down": MAC_PAYLOAD,
            "confirmed_data_down": MAC_PAYLOAD,
        },
        default=GreedyBytes,
    ),
)
PHY_PAYLOAD: Any = Struct("signed" / RawCopy(FixedSized(this._.size - MIC_SIZE, SIGNED)), "mic" / Bytes(MIC_SIZE))


class NaiveSession(msgspec.Struct):
    """What the naive decoder knows of a device."""

    name: str
    dev_eui: int
    nwk_s_key: bytes
    app_s_key: bytes
    last_fcnt: int
    tags: dict[str, str] = {}


def parse(phy: bytes) -> Any:
    """The frame as a construct container."""
    return PHY_PAYLOAD.parse(phy, size=len(phy))


def block(kind: int, dev_addr: int, fcnt32: int, last: int) -> bytes:
    """B_0 and A_i of an uplink."""
    return (
        bytes([kind, 0, 0, 0, 0, 0]) + dev_addr.to_bytes(4, "little") + fcnt32.to_bytes(4, "little") + bytes([0, last])
    )


def mic(nwk_s_key: bytes, message: bytes, dev_addr: int, fcnt32: int) -> bytes:
    """The MIC of an uplink of 1.0."""
    cmac = CMAC.new(nwk_s_key, ciphermod=AES)
    cmac.update(block(0x49, dev_addr, fcnt32, len(message)) + message)
    return cmac.digest()[:MIC_SIZE]


def decrypt(app_s_key: bytes, data: bytes, dev_addr: int, fcnt32: int) -> bytes:
    """FRMPayload of an uplink, in the clear."""
    plain = b""
    for i in range(0, len(data), 16):
        stream = AES.new(app_s_key, AES.MODE_ECB).encrypt(block(0x01, dev_addr, fcnt32, i // 16 + 1))
        plain += bytes(a ^ b for a, b in zip(data[i : i + 16], stream, strict=False))
    return plain


class NaiveDecoder:
    """PHYPayload in, JSON out, counters kept."""

    def __init__(self, sessions: dict[int, NaiveSession]) -> None:
        self.sessions = sessions

    def decode(self, phy: bytes, heard: Reception | None = None) -> str | None:
        """The JSON of an uplink that verifies and is new; None for any other frame.

        With `heard` it is the whole record that the bridge publishes, radio metadata and all, less its `id`.
        """
        frame = parse(phy)
        m_type, body = frame.signed.value.mhdr.m_type, frame.signed.value.body
        if m_type not in ("unconfirmed_data_up", "confirmed_data_up"):
            return None
        fhdr = body.fhdr
        session = self.sessions.get(fhdr.dev_addr)
        if session is None:
            return None
        fcnt32 = session.last_fcnt & ~0xFFFF | fhdr.fcnt
        if fcnt32 <= session.last_fcnt:
            fcnt32 += 0x10000
        if mic(session.nwk_s_key, frame.signed.data, fhdr.dev_addr, fcnt32) != frame.mic:
            return None
        session.last_fcnt = fcnt32
        payload = None
        if body.f_port is not None:
            key = session.app_s_key if body.f_port else session.nwk_s_key
            payload = decrypt(key, body.frm_payload, fhdr.dev_addr, fcnt32)
        document = {
            "device": {"name": session.name, "dev_eui": f"{session.dev_eui:016x}", "tags": session.tags},
            "dev_addr": f"{fhdr.dev_addr:08x}",
            "confirmed": m_type == "confirmed_data_up",
            "adr": fhdr.f_ctrl.adr,
            "adr_ack_req": fhdr.f_ctrl.adr_ack_req,
            "ack": fhdr.f_ctrl.ack,
            "class_b": fhdr.f_ctrl.class_b,
            "fcnt32": fcnt32,
            "f_port": body.f_port,
            "f_opts": fhdr.f_opts.hex(),
            "payload": None if payload is None else payload.hex(),
        }
        if heard is not None:
            document |= whole_record(document, heard)
        return json.dumps(document)


def whole_record(document: dict[str, Any], heard: Reception) -> dict[str, Any]:
    """What the record of an uplink has beyond the frame, in the bridge's own words."""
    rate = heard.data_rate
    if not isinstance(rate, LoraDataRate):
        raise TypeError("the benchmark's frames are LoRa frames")
    received_at = datetime.fromtimestamp(heard.received_at / 1e9, UTC).isoformat().replace("+00:00", "Z")
    rx = {
        "gateway_eui": f"{heard.gateway_eui:016x}",
        "source": heard.source,
        "received_at": received_at,
        "tmst": heard.tmst,
        "frequency_hz": heard.frequency_hz,
        "data_rate": {
            "modulation": "lora",
            "spreading_factor": rate.spreading_factor,
            "bandwidth_hz": rate.bandwidth_hz,
        },
        "code_rate": heard.code_rate,
        "rf_chain": heard.rf_chain,
        "modem": heard.modem,
        "antennas": [known(msgspec.structs.asdict(antenna)) for antenna in heard.antennas],
    }
    return {
        "schema": "lorabridge/uplink/1",
        "gateway_id": "roof-1",
        "received_at": received_at,
        "mac_version": "1.0.3",
        "f_opts": base64.b64encode(bytes.fromhex(document["f_opts"])).decode(),
        "payload": base64.b64encode(bytes.fromhex(document["payload"])).decode(),
        "sealed": False,
        "counter_reset": False,
        "rx": [known(rx)],
    }


def known(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is not known."""
    return {name: value for name, value in values.items() if value is not None}
