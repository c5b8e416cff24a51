"""How long before RX1 opens the radio is handed what answers a device: two gateways, 100 uplinks a second.

The gateways are sockets of this process. The second one reports each frame some milliseconds after the first, so
that the bridge has to wait for it; a lead runs from the arrival of PULL_RESP to the opening of RX1, which is
counted from the moment the first gateway reported the frame.
"""

from __future__ import annotations

import base64
import heapq
import selectors
import socket
import time
from collections.abc import Iterator
from functools import partial

import msgspec

from lorabridge.lorawan.crypto import PreparedKey, SessionCrypto, join_mic
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.frame import DataFrame, build
from lorabridge.lorawan.grammar import MIC_SIZE, MType
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, Direction, FCnt16, FCnt32
from tests.bench import system
from tests.bench.report import Report, Row
from tests.bench.timing import percentile
from tests.mosquitto import MOSQUITTO

RATE = 100.0
JITTER_S = 0.03
"""The second gateway is so much behind."""
TARGET_MS = 200.0
_JOIN_EUI = EUI64(0x70B3_D57E_D000_0000)
_GATEWAYS = (0x0016_C001_0000_0001, 0x0016_C001_0000_0002)
_DEVICES = 200
_NETWORK = '[network]\nregion = "US915"\nnet_ids = ["000013"]\n'
"""No duty cycle: what is measured is the bridge."""
_FREQUENCY = "904.300000"
_PUSH_DATA, _PULL_DATA, _PULL_RESP = 0, 2, 3


class AnswerFleet:
    """Devices of 1.0.4, ABP and OTAA, with keys that follow from their numbers."""

    def toml(self) -> str:
        """The device file."""
        tables = []
        for n in range(_DEVICES):
            tables.append(
                f'[[device]]\nname = "abp-{n}"\ndev_eui = "{n + 1:016x}"\nmac_version = "1.0.4"\nadr = false\n'
                f'dev_addr = "{_dev_addr(n)}"\nnwk_s_key = "{_key(n, 1).reveal().hex()}"\n'
                f'app_s_key = "{_key(n, 2).reveal().hex()}"\n'
            )
            tables.append(
                f'[[device]]\nname = "otaa-{n}"\ndev_eui = "{n + 0x10001:016x}"\nmac_version = "1.0.4"\nadr = false\n'
                f'activation = "otaa"\njoin_eui = "{_JOIN_EUI}"\napp_key = "{_key(n, 3).reveal().hex()}"\n'
            )
        return "\n".join(tables)

    def confirmed_uplinks(self) -> Iterator[bytes]:
        """One after the other, the devices in turn."""
        cryptos = [SessionCrypto(_session_keys(n)) for n in range(_DEVICES)]
        for count in range(1 << 16):
            for n, crypto in enumerate(cryptos):
                sealed = crypto.frm_payload(b"12 payload b", 10, Direction.UP, _dev_addr(n), FCnt32(count))
                frame = DataFrame.make(
                    m_type=MType.CONFIRMED_DATA_UP,
                    dev_addr=_dev_addr(n),
                    fcnt16=FCnt16(count),
                    f_port=10,
                    frm_payload=sealed or b"",
                )
                yield build(frame.with_mic(crypto.mic_1_0(frame.message, Direction.UP, _dev_addr(n), FCnt32(count))))

    def join_requests(self) -> Iterator[bytes]:
        """Likewise."""
        for nonce in range(1 << 16):
            for n in range(_DEVICES):
                dev_eui = EUI64(n + 0x10001).to_wire()
                message = b"\x00" + _JOIN_EUI.to_wire() + dev_eui + nonce.to_bytes(2, "little")
                yield message + join_mic(PreparedKey(_key(n, 3)), message)[:MIC_SIZE]


def _key(number: int, kind: int) -> AES128Key:
    return AES128Key(kind.to_bytes(1, "big") * 8 + number.to_bytes(8, "big"))


def _session_keys(number: int) -> SessionKeys:
    network = _key(number, 1)
    return SessionKeys(
        f_nwk_s_int_key=network, s_nwk_s_int_key=network, nwk_s_enc_key=network, app_s_key=_key(number, 2)
    )


def _dev_addr(number: int) -> DevAddr:
    return DevAddr(0x2600_0000 + number)


class _Txpk(msgspec.Struct):
    tmst: int


class _PullResp(msgspec.Struct):
    txpk: _Txpk


_DECODE = msgspec.json.Decoder(_PullResp).decode


class Gateways:
    """Two forwarders on sockets of their own."""

    def __init__(self, udp_port: int) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in _GATEWAYS]
        self._selector = selectors.DefaultSelector()
        for sock in self.sockets:
            sock.connect(("127.0.0.1", udp_port))
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._token = 0
        self._heard_at: dict[int, float] = {}
        self.leads: list[float] = []

    def begin(self) -> None:
        """Forget what was before."""
        self._heard_at, self.leads = {}, []

    def pull(self) -> None:
        """Open the way back."""
        for number in range(len(self.sockets)):
            self._send(number, _PULL_DATA, b"")

    def report(self, number: int, phy_payload: bytes, tmst: int) -> None:
        """One gateway heard a frame; `tmst` names it."""
        now = time.perf_counter()
        self._heard_at.setdefault(tmst, now)
        body = (
            f'{{"rxpk":[{{"tmst":{tmst},"chan":0,"rfch":0,"freq":{_FREQUENCY},"stat":1,"modu":"LORA","datr":"SF7BW125",'
            f'"codr":"4/5","rssi":-80,"lsnr":{5 + number}.0,"size":{len(phy_payload)},'
            f'"data":"{base64.b64encode(phy_payload).decode("ascii")}"}}]}}'
        )
        self._send(number, _PUSH_DATA, body.encode("ascii"))

    def listen(self, until: float, delay: float) -> None:
        """Take what comes until then; `delay` seconds from the end of an uplink to RX1."""
        while (left := until - time.perf_counter()) > 0:
            for key, _ in self._selector.select(left):
                sock = key.fileobj
                if isinstance(sock, socket.socket):
                    self._take(sock, delay)

    def _take(self, sock: socket.socket, delay: float) -> None:
        while True:
            try:
                data = sock.recv(4096)
            except BlockingIOError:
                return
            if data[3] != _PULL_RESP:
                continue
            now, tmst = time.perf_counter(), _DECODE(data[4:]).txpk.tmst
            number = self.sockets.index(sock)
            sock.send(data[:3] + b"\x05" + _GATEWAYS[number].to_bytes(8, "big"))
            heard_at = self._heard_at.pop(tmst - round(delay * 1e6), None)
            if heard_at is not None:
                self.leads.append(heard_at + delay - now)

    def _send(self, number: int, kind: int, body: bytes) -> None:
        self._token = self._token + 1 & 0xFFFF
        head = b"\x02" + self._token.to_bytes(2, "big") + bytes([kind]) + _GATEWAYS[number].to_bytes(8, "big")
        self.sockets[number].send(head + body)

    def close(self) -> None:
        """Let go of the sockets."""
        self._selector.close()
        for sock in self.sockets:
            sock.close()


def _offer(gateways: Gateways, frames: Iterator[bytes], seconds: float, delay: float) -> tuple[int, list[float]]:
    """So many frames a second for so long; how many were sent, and the leads in seconds."""
    gateways.begin()
    begun, count = time.perf_counter(), round(seconds * RATE)
    schedule = [(begun + n / RATE + number * JITTER_S, n, number) for n in range(count) for number in (0, 1)]
    heapq.heapify(schedule)
    kept: dict[int, bytes] = {}
    while schedule:
        at, n, number = heapq.heappop(schedule)
        gateways.listen(at, delay)
        if n not in kept:
            kept[n] = next(frames)
        phy_payload = kept[n] if number == 0 else kept.pop(n)
        gateways.report(number, phy_payload, 1_000_000 + n * 10)
    gateways.listen(time.perf_counter() + delay, delay)
    return count, gateways.leads


def measure(report: Report, *, quick: bool) -> None:
    """The rows of this section."""
    if MOSQUITTO is None:
        report.skip("answers", "mosquitto is missing: apt-get install mosquitto")
        return
    fleet = AnswerFleet()
    with system.site(fleet) as made:
        start = partial(system.start_bridge, made, "answers", made.broker.port, network=_NETWORK)
        with system.running(start) as bridge:
            gateways = Gateways(bridge.udp_port)
            try:
                gateways.pull()
                for name, frames, delay in (
                    ("acknowledgement", fleet.confirmed_uplinks(), 1.0),
                    ("join-accept", fleet.join_requests(), 5.0),
                ):
                    sent, leads = _offer(gateways, frames, 3.0 if quick else 20.0, delay)
                    _row(report, name, sent, leads, delay)
            finally:
                gateways.close()


def _row(report: Report, name: str, sent: int, leads: list[float], delay: float) -> None:
    if not leads:
        report.skip(name, f"none of {sent} was answered")
        return
    report.add(
        Row(
            section="answers",
            name=f"{name} at the radio, {RATE:g} uplinks/s, 99 of 100 at least",
            value=percentile(leads, 0.01) * 1e3,
            unit="ms ahead",
            reference=f"RX1 opens after {delay:g} s",
            reference_value=delay * 1e3,
            target=TARGET_MS,
            note=f"{len(leads)} of {sent} answered in time; median {percentile(leads, 0.5) * 1e3:.0f} ms, "
            f"least {min(leads) * 1e3:.0f} ms",
        )
    )
