"""A device that loses, repeats and restarts, an attacker who records and forges, and the engine between them.

The attacker hears everything and holds no key. Whatever the two do: no frame of the attacker's is ever accepted,
and every frame that the device sends and the policy allows is accepted exactly once.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lorabridge.lorawan.decision import Decision
from lorabridge.lorawan.device import CounterPolicy
from lorabridge.lorawan.events import Uplink
from lorabridge.lorawan.types import EUI64, MacVersion
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import GATEWAY, KEYS_1_0, KEYS_1_1, OTHER_GATEWAY, Bridge, device, key, uplink

COPIES = {Verdict.DUPLICATE, Verdict.RETRANSMISSION}
PROVEN_OLD = {Verdict.REPLAY, Verdict.COUNTER_RESET, *COPIES}
positions = st.integers(0, 1 << 16)


class DeviceAndAttacker(RuleBasedStateMachine):
    """One device under one policy; the attacker owns the air."""

    policy = CounterPolicy.STRICT

    @initialize(start=st.integers(0, 3) | st.sampled_from([0xFFFD, 0x1_FFFE]), v1_1=st.booleans())
    def set_up(self, start: int, v1_1: bool) -> None:
        versions: dict[bool, dict[str, Any]] = {
            False: {"mac_version": MacVersion.V1_0_4, "session_keys": KEYS_1_0},
            True: {"mac_version": MacVersion.V1_1_0, "session_keys": KEYS_1_1, "region": "EU868"},
        }
        self.device = device(counter_policy=self.policy, **versions[v1_1])
        neighbour = device(dev_eui=EUI64(2), session_keys=device_keys_of_a_neighbour())
        self.bridge = Bridge(self.device, neighbour)
        self.next = start
        self.count = 0
        """How often the device has restarted."""
        self.now = 0.0
        self.serial = 0
        self.recorded: list[bytes] = []
        """Everything that was ever on the air, heard by us or not."""
        self.last_sent: bytes | None = None
        self.highest: int | None = None
        """The last accepted counter of the current count, as far as the model knows."""
        self.in_sync = True
        """Whether the bridge follows the device's current count."""
        self.run: list[int] = []
        """Counters heard in a row since the restart."""
        self.delivered: dict[bytes, int] = {}
        self.heard: list[bytes] = []
        """What we have heard of the device: the attacker replays it in vain. A frame that only he heard is new."""

    def hear(self, phy_payload: bytes, gateway: EUI64 = GATEWAY) -> Decision:
        decision = self.bridge.hear(phy_payload, self.now, gateway)
        for event in decision.events:
            if isinstance(event, Uplink):
                self.delivered[phy_payload] = self.delivered.get(phy_payload, 0) + 1
        return decision

    def send(self) -> tuple[bytes, int]:
        """The next frame of the device: no two carry the same payload, as no two of a real device's do for long."""
        self.serial += 1
        phy_payload, fcnt32 = uplink(self.device, self.next, self.serial.to_bytes(4, "big")), self.next
        self.next += 1
        self.recorded.append(phy_payload)
        self.last_sent = phy_payload
        return phy_payload, fcnt32

    @rule(wait=st.floats(2, 400))
    def a_frame_is_sent_and_heard(self, wait: float) -> None:
        self.now += wait
        phy_payload, fcnt32 = self.send()
        decision = self.hear(phy_payload)
        self.heard.append(phy_payload)
        assert decision.device == self.device.ref
        assert decision.fcnt32 == fcnt32
        self.judge_own(decision, fcnt32)

    def judge_own(self, decision: Decision, fcnt32: int) -> None:
        """What the policy owes the device."""
        if self.in_sync or (self.highest is not None and fcnt32 > self.highest) or self.policy is CounterPolicy.OFF:
            assert decision.verdict is Verdict.ACCEPTED
        elif self.policy is CounterPolicy.CONFIRM:
            follows = bool(self.run) and fcnt32 == self.run[-1] + 1
            self.run = [*self.run, fcnt32] if follows else [fcnt32]
            enough = len(self.run) >= self.device.confirm_frames
            assert decision.verdict is (Verdict.ACCEPTED if enough else Verdict.COUNTER_RESET)
        else:
            assert decision.verdict in {Verdict.COUNTER_RESET, Verdict.REPLAY}
        if decision.verdict is Verdict.ACCEPTED:
            self.highest, self.in_sync, self.run = fcnt32, True, []

    @rule()
    def a_frame_is_sent_and_lost(self) -> None:
        self.now += 5
        self.send()
        self.last_sent = None

    @precondition(lambda self: self.last_sent is not None)
    @rule(wait=st.floats(0, 1), gateway=st.sampled_from([GATEWAY, OTHER_GATEWAY]))
    def the_last_frame_is_heard_again(self, wait: float, gateway: EUI64) -> None:
        """By another antenna or gateway, or because the device repeats it: whatever it is, it is no new uplink."""
        assert self.last_sent is not None
        self.now += wait
        assert self.hear(self.last_sent, gateway).verdict is not Verdict.ACCEPTED

    @precondition(lambda self: self.highest is not None and self.next > 40 and self.count < 2)
    @rule()
    def the_device_restarts(self) -> None:
        self.count += 1
        self.next = 0
        self.in_sync = False
        self.run = []
        self.last_sent = None

    @rule(steps=st.integers(1, 60))
    def many_frames_are_sent_and_heard(self, steps: int) -> None:
        for _ in range(steps):
            self.a_frame_is_sent_and_heard(7.0)

    def attack(self, phy_payload: bytes, gateway: EUI64) -> Decision:
        before = dict(self.bridge.sessions)
        decision = self.hear(phy_payload, gateway)
        assert decision.verdict is not Verdict.ACCEPTED
        if decision.device is None:
            assert self.bridge.sessions == before
            assert (decision.session, decision.events, decision.heard) == (None, (), None)
        return decision

    @precondition(lambda self: bool(self.heard))
    @rule(which=positions, gateway=st.sampled_from([GATEWAY, OTHER_GATEWAY]), wait=st.floats(0, 1000))
    def the_attacker_replays_what_was_heard(self, which: int, gateway: EUI64, wait: float) -> None:
        self.now += wait
        decision = self.attack(self.heard[which % len(self.heard)], gateway)
        assert decision.verdict in PROVEN_OLD | {Verdict.BAD_MIC}

    @precondition(lambda self: bool(self.recorded))
    @rule(which=positions, bits=st.sets(positions, min_size=1, max_size=3))
    def the_attacker_flips_bits(self, which: int, bits: set[int]) -> None:
        flipped = bytearray(self.recorded[which % len(self.recorded)])
        for bit in {bit % (8 * len(flipped)) for bit in bits}:
            flipped[bit // 8] ^= 1 << bit % 8
        self.attack(bytes(flipped), GATEWAY)

    @precondition(lambda self: len(self.recorded) > 1)
    @rule(which=positions, other=positions, at=positions)
    def the_attacker_splices_two_frames(self, which: int, other: int, at: int) -> None:
        one, two = self.recorded[which % len(self.recorded)], self.recorded[other % len(self.recorded)]
        cut = at % len(one)
        spliced = one[:cut] + two[cut:]
        if spliced not in self.recorded:
            self.attack(spliced, GATEWAY)

    @rule(noise=st.binary(max_size=40))
    def the_attacker_sends_noise_at_the_devices_address(self, noise: bytes) -> None:
        assert self.device.dev_addr is not None
        self.attack(b"\x40" + self.device.dev_addr.to_wire() + noise, GATEWAY)

    @invariant()
    def nothing_was_delivered_twice(self) -> None:
        assert set(getattr(self, "delivered", {}).values()) <= {1}


def device_keys_of_a_neighbour() -> Any:
    """A second device on the same address, so that the MIC decides every time."""
    return type(KEYS_1_0)(f_nwk_s_int_key=key(77), s_nwk_s_int_key=key(77), nwk_s_enc_key=key(77))


class UnderConfirm(DeviceAndAttacker):
    """The same, with a device that may restart its counter."""

    policy = CounterPolicy.CONFIRM


_SETTINGS = settings(max_examples=40, stateful_step_count=30)
TestUnderStrict = DeviceAndAttacker.TestCase
TestUnderStrict.settings = _SETTINGS
TestUnderConfirm = UnderConfirm.TestCase
TestUnderConfirm.settings = _SETTINGS
