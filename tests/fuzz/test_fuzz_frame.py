"""Any bytes at all are a frame or malformed by a listed reason, and move nothing. `make fuzz` runs this for longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.air import FskDataRate, LoraDataRate
from lorabridge.lorawan.decision import Network
from lorabridge.lorawan.device import Activation, CounterPolicy
from lorabridge.lorawan.frame import Frame, build, parse
from lorabridge.lorawan.grammar import MalformedFrame
from lorabridge.lorawan.types import EUI64, AES128Key, Direction, NetID
from lorabridge.lorawan.verdict import Reason, Verdict
from tests.lorawan.builders import DEV_ADDR, Bridge, device, device_1_1, heard, uplink

DEVICES = (
    device(),
    device(dev_eui=EUI64(2), counter_policy=CounterPolicy.CONFIRM, session_keys=device_1_1().session_keys),
    device_1_1(dev_eui=EUI64(3), session_keys=device().session_keys),
    device(dev_eui=EUI64(4), activation=Activation.OTAA, session_keys=None, app_key=AES128Key(bytes(15) + b"\1")),
)
SEEDS = [
    uplink(device(), 1),
    uplink(device(), 0xFFFF, b"", None, bytes(15)),
    uplink(device(), 2, b"\x02", 0),
    uplink(device_1_1(), 3, bytes(50)),
    b"\x00" + bytes(8) + EUI64(4).to_wire() + bytes(6),
    b"\x20" + bytes(32),
    b"\xc0\x00" + bytes(17),
    b"\xc0\x01" + bytes(22),
    b"\xe0" + bytes(30),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A frame of a device of ours after some edits: bytes set, cut out, doubled, put in."""
    frame = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at, size = draw(st.integers(0, len(frame))), draw(st.integers(0, 8))
        frame[at : at + size] = draw(st.binary(max_size=8) | st.just(bytes(frame[at : at + size] * 2)))
    return bytes(frame)


hostile = st.binary(max_size=300) | mutated() | mutated().map(lambda tail: b"\x40" + DEV_ADDR.to_wire() + tail)
data_rates = st.builds(LoraDataRate, st.integers(), st.integers()) | st.builds(FskDataRate, st.integers())


def parsed(phy_payload: bytes, direction: Direction | None, rejoin_exists: bool) -> Frame | MalformedFrame:
    try:
        return parse(phy_payload, direction=direction, rejoin_exists=rejoin_exists)
    except MalformedFrame as error:
        return error


@given(hostile, st.sampled_from([None, *Direction]), st.booleans())
def test_any_bytes_are_a_frame_or_malformed(
    phy_payload: bytes, direction: Direction | None, rejoin_exists: bool
) -> None:
    found = parsed(phy_payload, direction, rejoin_exists)
    if isinstance(found, MalformedFrame):
        assert isinstance(found.reason, Reason)
    else:
        assert build(found) == phy_payload


@given(st.lists(hostile, max_size=8), st.integers(-(1 << 62), 1 << 62), st.integers(), data_rates)
def test_any_bytes_get_one_verdict_and_move_nothing_unproved(
    frames: list[bytes], frequency_hz: int, tmst: int, data_rate: LoraDataRate | FskDataRate
) -> None:
    bridge = Bridge(*DEVICES, network=Network(net_ids=(NetID(0x13),)), region="EU868")
    receptions = [heard(frame, frequency_hz=frequency_hz, tmst=tmst, data_rate=data_rate) for frame in frames]
    for decision in bridge.hear_all(*receptions):
        assert isinstance(decision.verdict, Verdict)
        assert (decision.reason is not None) is (decision.verdict is Verdict.MALFORMED)
        if decision.device is None:
            assert (decision.session, decision.events, decision.heard) == (None, (), None)
        assert decision.verdict is not Verdict.ACCEPTED or decision.reception.phy_payload in SEEDS
        assert len(decision.frame_id) == 12
