"""Devices and the frames they send: what every row of the benchmark is fed with.

The frame is the one of all measurements: 36 bytes, unconfirmed, 3 bytes of FOpts, an FPort, 20 bytes of
FRMPayload, and a counter above 65 535 so that its high half has to be found. Its keys come from a seeded
generator: the same every time, and secret from nobody.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field

import msgspec

from lorabridge.lorawan.air import Antenna, CrcStatus, LoraDataRate, Reception
from lorabridge.lorawan.crypto import PreparedKey, crypt_frm_payload, data_mic
from lorabridge.lorawan.decision import Network
from lorabridge.lorawan.device import Activation, Device, SessionKeys
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, Direction, FCnt16, FCnt32, MacVersion, NetID
from tests.bench.naive import NaiveSession

GATEWAY = EUI64(0x0011_2233_4455_6677)
FIRST_FCNT = 70_000
FRAME_SIZE = 36
F_PORT = 10
NET_ID = NetID(0x000013)
_F_OPTS = bytes.fromhex("0307ff")
_STARTED = 1_700_000_000_000_000_000
FREQUENCY_HZ = 868_100_000


@dataclass
class Node:
    """One device, as it counts."""

    number: int
    dev_addr: DevAddr
    dev_eui: EUI64
    nwk_s_key: bytes
    app_s_key: bytes
    nwk: PreparedKey
    app: PreparedKey
    fcnt: int = FIRST_FCNT


@dataclass
class Fleet:
    """`size` devices of LoRaWAN 1.0.3, each with an address and keys of its own."""

    size: int
    nodes: list[Node] = field(init=False)

    def __post_init__(self) -> None:
        chance = random.Random(20260101)
        self.nodes = [_node(number, chance) for number in range(self.size)]
        self._chance = chance

    def frames(self, count: int) -> list[bytes]:
        """The next `count` PHYPayloads, the devices taking turns."""
        nodes, size = self.nodes, self.size
        start = nodes[0].fcnt * size + next((n.number for n in nodes if n.fcnt < nodes[0].fcnt), 0) if nodes else 0
        return [self._next(nodes[turn % size]) for turn in range(start, start + count)]

    def _next(self, node: Node) -> bytes:
        """The next uplink of a device."""
        fcnt32 = FCnt32(node.fcnt)
        node.fcnt += 1
        plain = self._chance.randbytes(20)
        frame = DataFrame.make(
            m_type=MType.UNCONFIRMED_DATA_UP,
            dev_addr=node.dev_addr,
            fcnt16=FCnt16(fcnt32 & 0xFFFF),
            flags=0x80,
            f_opts=_F_OPTS,
            f_port=F_PORT,
            frm_payload=crypt_frm_payload(node.app, plain, Direction.UP, node.dev_addr, fcnt32),
        )
        return build(frame.with_mic(data_mic(node.nwk, frame.message, Direction.UP, node.dev_addr, fcnt32)))

    def devices(self) -> list[Device]:
        """What the operator would have written of them."""
        return [
            Device(
                name=f"node-{node.number}",
                dev_eui=node.dev_eui,
                mac_version=MacVersion.V1_0_3,
                activation=Activation.ABP,
                dev_addr=node.dev_addr,
                session_keys=SessionKeys(
                    f_nwk_s_int_key=AES128Key(node.nwk_s_key),
                    s_nwk_s_int_key=AES128Key(node.nwk_s_key),
                    nwk_s_enc_key=AES128Key(node.nwk_s_key),
                    app_s_key=AES128Key(node.app_s_key),
                ),
                tags=(("site", "roof"),),
            )
            for node in self.nodes
        ]

    def naive_sessions(self) -> dict[int, NaiveSession]:
        """What the naive decoder is told of them, as they are now."""
        return {
            int(node.dev_addr): NaiveSession(
                f"node-{node.number}",
                int(node.dev_eui),
                node.nwk_s_key,
                node.app_s_key,
                node.fcnt - 1,
                {"site": "roof"},
            )
            for node in self.nodes
        }

    def toml(self) -> str:
        """The device file of the running bridge."""
        return "\n".join(
            f'[[device]]\nname = "node-{node.number}"\ndev_eui = "{node.dev_eui}"\nmac_version = "1.0.3"\n'
            f'activation = "abp"\ndev_addr = "{node.dev_addr}"\n'
            f'nwk_s_key = "{node.nwk_s_key.hex()}"\napp_s_key = "{node.app_s_key.hex()}"\n'
            for node in self.nodes
        )


def _node(number: int, chance: random.Random) -> Node:
    nwk_s_key, app_s_key = chance.randbytes(16), chance.randbytes(16)
    return Node(
        number=number,
        dev_addr=DevAddr(0x2600_0000 + number * 7919 % (1 << 24)),
        dev_eui=EUI64(0x70B3_D57E_D000_0000 + number),
        nwk_s_key=nwk_s_key,
        app_s_key=app_s_key,
        nwk=PreparedKey(AES128Key(nwk_s_key)),
        app=PreparedKey(AES128Key(app_s_key)),
    )


def receptions(frames: list[bytes]) -> list[Reception]:
    """The frames as one gateway hears them, a tenth of a second apart."""
    return [
        Reception(
            phy_payload=phy,
            received_at=_STARTED + number * 100_000_000,
            gateway_eui=GATEWAY,
            source="udp",
            crc=CrcStatus.OK,
            frequency_hz=FREQUENCY_HZ,
            data_rate=LoraDataRate(7, 125_000),
            code_rate="4/5",
            tmst=number * 100_000 & 0xFFFF_FFFF,
            rf_chain=0,
            antennas=(Antenna(channel=0, rssi_dbm=-57.0, snr_db=9.5),),
        )
        for number, phy in enumerate(frames)
    ]


class Bridge:
    """The protocol core with a fleet whose sessions are as full as those of devices heard for days."""

    WARM = 16

    def __init__(self, fleet: Fleet) -> None:
        self.table = SessionTable(fleet.devices(), {}, region="EU868")
        self.engine = Engine(self.table, Network(net_ids=(NET_ID,)))
        moved: dict[bytes, Session] = {}
        for _ in range(self.WARM):
            decisions = self.engine.judge_all(receptions(fleet.frames(fleet.size)))
            sessions = [decision.session for decision in decisions if decision.session is not None]
            self.table.advance(sessions)
            moved.update({session.session_id: session for session in sessions})
        self._warm = list(moved.values())

    def rewind(self) -> None:
        """Back to where the frames after the warm ones are new."""
        self.table.advance(self._warm)


def push_data(phy: bytes, token: int, tmst: int) -> bytes:
    """The PUSH_DATA datagram of one frame, as the packet forwarder writes it."""
    body = msgspec.json.encode(
        {
            "rxpk": [
                {
                    "tmst": tmst & 0xFFFF_FFFF,
                    "chan": 0,
                    "rfch": 0,
                    "freq": FREQUENCY_HZ / 1e6,
                    "stat": 1,
                    "modu": "LORA",
                    "datr": "SF7BW125",
                    "codr": "4/5",
                    "lsnr": 9.5,
                    "rssi": -57,
                    "size": len(phy),
                    "data": base64.b64encode(phy).decode(),
                }
            ]
        }
    )
    return b"\x02" + token.to_bytes(2, "big") + b"\x00" + GATEWAY.to_bytes(8, "big") + body
