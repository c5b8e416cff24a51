"""Frames of devices with known keys, and the receptions of them."""

from __future__ import annotations

from typing import Any

from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.air import CrcStatus, DataRate, LoraDataRate, Reception
from lorabridge.lorawan.crypto import MicContext, SessionCrypto
from lorabridge.lorawan.decision import Decision, Network
from lorabridge.lorawan.device import Activation, Device, SessionKeys
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.session import History, Session
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, Direction, FCnt16, FCnt32, MacVersion

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
DEV_ADDR = DevAddr(0x260B_1234)
GATEWAY = EUI64(0x0016_C001_F153_A14C)
OTHER_GATEWAY = EUI64(0x0016_C001_F153_A14D)


def key(number: int) -> AES128Key:
    """A key that is as good as any."""
    return AES128Key(bytes([number]) * 15 + b"\x5a")


NWK_S_KEY = key(1)
APP_S_KEY = key(2)
KEYS_1_0 = SessionKeys(
    f_nwk_s_int_key=NWK_S_KEY, s_nwk_s_int_key=NWK_S_KEY, nwk_s_enc_key=NWK_S_KEY, app_s_key=APP_S_KEY
)
KEYS_1_1 = SessionKeys(f_nwk_s_int_key=key(11), s_nwk_s_int_key=key(12), nwk_s_enc_key=key(13), app_s_key=APP_S_KEY)


def device(**fields: Any) -> Device:
    """An ABP device of 1.0.4; `fields` say what is different."""
    base: dict[str, Any] = {
        "name": "meter",
        "dev_eui": EUI64(0x70B3_D57E_D000_0001),
        "mac_version": MacVersion.V1_0_4,
        "activation": Activation.ABP,
        "dev_addr": DEV_ADDR,
        "session_keys": KEYS_1_0,
    }
    return Device(**(base | fields))


def device_1_1(**fields: Any) -> Device:
    """An ABP device of 1.1 in Europe."""
    return device(**({"mac_version": MacVersion.V1_1_0, "session_keys": KEYS_1_1, "region": "EU868"} | fields))


def uplink(  # noqa: PLR0917  # a test says only what matters to it
    sender: Device,
    fcnt32: int,
    payload: bytes = b"hello",
    f_port: int | None = 7,
    f_opts: bytes = b"",
    flags: int = 0,
    m_type: MType = MType.UNCONFIRMED_DATA_UP,
    context: MicContext = MicContext(tx_dr=5, tx_ch=0),  # noqa: B008  # frozen
) -> bytes:
    """What a device sends: encrypted and signed."""
    assert sender.dev_addr is not None
    assert sender.session_keys is not None
    crypto, counter = SessionCrypto(sender.session_keys), FCnt32(fcnt32)
    if f_opts and sender.mac_version.is_1_1:
        f_opts = crypto.f_opts_1_1(f_opts, Direction.UP, sender.dev_addr, counter, a_fcnt_down=False)
    sealed = crypto.frm_payload(payload, f_port, Direction.UP, sender.dev_addr, counter)
    frame = DataFrame.make(
        m_type=m_type,
        dev_addr=sender.dev_addr,
        fcnt16=FCnt16(fcnt32 & 0xFFFF),
        flags=flags,
        f_opts=f_opts,
        f_port=f_port,
        frm_payload=b"" if f_port is None else payload if sealed is None else sealed,
    )
    if sender.mac_version.is_1_1:
        mic = crypto.mic_up_1_1(frame.message, sender.dev_addr, counter, context)
    else:
        mic = crypto.mic_1_0(frame.message, Direction.UP, sender.dev_addr, counter)
    return build(frame.with_mic(mic))


def heard(
    phy_payload: bytes,
    after_s: float = 0.0,
    gateway: EUI64 = GATEWAY,
    *,
    tmst: int | None = None,
    crc: CrcStatus = CrcStatus.OK,
    frequency_hz: int = 868_100_000,
    data_rate: DataRate = LoraDataRate(7, 125_000),  # noqa: B008  # frozen
) -> Reception:
    """A reception, `after_s` seconds after the start."""
    return Reception(
        phy_payload=phy_payload,
        received_at=START + round(after_s * SECOND),
        gateway_eui=gateway,
        source="test",
        crc=crc,
        frequency_hz=frequency_hz,
        data_rate=data_rate,
        tmst=tmst,
    )


class Remembered(History):
    """The history that a store would keep."""

    def __init__(self) -> None:
        self.frames: set[tuple[bytes, FCnt32, bytes]] = set()
        self.joins: dict[bytes, JoinHistory] = {}
        self.nonces: set[tuple[bytes, int]] = set()

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        return self.joins.get(join_id)

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        return (join_id, dev_nonce) in self.nonces

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        return (session_id, fcnt32, mic) in self.frames


class Bridge:
    """An engine whose decisions are committed at once, in memory."""

    def __init__(self, *devices: Device, network: Network | None = None, region: str | None = None) -> None:
        self.table = SessionTable(devices, {}, region)
        self.history = Remembered()
        self.engine = Engine(self.table, network or Network(), self.history)
        self.sessions: dict[bytes, Session] = {}

    def hear_all(self, *receptions: Reception) -> list[Decision]:
        """Judge receptions as one batch and commit."""
        decisions = self.engine.judge_all(receptions)
        ended = {session_id for decision in decisions for session_id in decision.ended}
        joins = [decision.join for decision in decisions if decision.join is not None]
        moved = [decision.session for decision in decisions if decision.session is not None]
        moved += [join.session for join in joins if join.session is not None]
        committed = {session.session_id: session for session in moved if session.session_id not in ended}
        for session in committed.values():
            before = self.sessions.get(session.session_id)
            assert session.generation == (-1 if before is None else before.generation) + 1
        self.sessions |= committed
        for session_id in ended:
            self.sessions.pop(session_id, None)
        self.table.advance(committed.values(), [join.joined for join in joins if join.joined is not None], ended)
        self.history.frames |= {decision.heard for decision in decisions if decision.heard}
        self.history.joins |= {join.history.join_id: join.history for join in joins}
        self.history.nonces |= {(join.history.join_id, join.nonce) for join in joins if join.nonce is not None}
        return decisions

    def hear(self, phy_payload: bytes, after_s: float = 0.0, gateway: EUI64 = GATEWAY, **how: Any) -> Decision:
        """Judge one frame and commit."""
        (decision,) = self.hear_all(heard(phy_payload, after_s, gateway, **how))
        return decision
