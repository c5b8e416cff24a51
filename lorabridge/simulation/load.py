"""Traffic in bulk for benchmarks: any number of devices and frames, all of them valid and new."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from random import Random

from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.types import EUI64, DevAddr, Direction, FCnt32, MacVersion
from lorabridge.simulation.cast import NET_ID, derived_session_keys
from lorabridge.simulation.plans import PLANS

REGION = "EU868"
_FIRST_DEV_EUI = 0x02_10_AD_00_00_00_00_00
_F_PORT = 10
_PAYLOAD_BYTES = 12
_FRAMES_PER_SECOND = 100


def devices(n_devices: int) -> tuple[Device, ...]:
    """ABP devices of 1.0.4, alike but for identity and keys; the bridge needs `cast.NET_ID` as its network."""
    return tuple(
        Device(
            name=f"load-{n:05d}",
            dev_eui=EUI64(_FIRST_DEV_EUI + n),
            mac_version=MacVersion.V1_0_4,
            activation=Activation.ABP,
            dev_addr=DevAddr(NET_ID.nwk_id << 25 | n),
            session_keys=derived_session_keys(f"load-{n:05d}", MacVersion.V1_0_4),
            region=REGION,
        )
        for n in range(n_devices)
    )


def frames(n_devices: int, n_frames: int, seed: int) -> Iterator[bytes]:
    """One JSON `rxpk` object after another, ready for the array of a PUSH_DATA; the devices take turns.

    Written without the frame grammar, so that it is quick and owes nothing to what is measured with it.
    """
    plain = payloads(n_frames, seed)
    speakers = [
        (SessionCrypto(device.session_keys), device.dev_addr)
        for device in devices(n_devices)
        if device.session_keys is not None and device.dev_addr is not None
    ]
    head = bytes([MType.UNCONFIRMED_DATA_UP << 5])
    plan = PLANS[REGION]
    channels = [(c.if_chain, c.rf_chain, f"{c.frequency_hz / 1e6:.6f}") for c in plan.usable(plan.fast)]
    for n in range(n_frames):
        turn, who = divmod(n, n_devices)
        crypto, dev_addr = speakers[who]
        fcnt32 = FCnt32(turn)
        sealed = crypto.frm_payload(next(plain), _F_PORT, Direction.UP, dev_addr, fcnt32) or b""
        message = b"%b%b\x80%b%c%b" % (head, dev_addr.to_wire(), (turn & 0xFFFF).to_bytes(2, "little"), _F_PORT, sealed)
        phy_payload = message + crypto.mic_1_0(message, Direction.UP, dev_addr, fcnt32)
        chan, rfch, freq = channels[n % len(channels)]
        tmst = n * (1_000_000 // _FRAMES_PER_SECOND) & 0xFFFF_FFFF
        yield (
            f'{{"jver":1,"tmst":{tmst},"chan":{chan},"rfch":{rfch},"freq":{freq},"mid":{n & 15},"stat":1,'
            f'"modu":"LORA","datr":"SF7BW125","codr":"4/5","rssis":-97,"lsnr":9.2,"foff":310,"rssi":-96,'
            f'"size":{len(phy_payload)},"data":"{base64.b64encode(phy_payload).decode("ascii")}"}}'
        ).encode("ascii")


def payloads(n_frames: int, seed: int) -> Iterator[bytes]:
    """What the frames say, decrypted."""
    rng = Random(seed)  # noqa: S311  # a load must be repeatable
    return (rng.randbytes(_PAYLOAD_BYTES) for _ in range(n_frames))
