"""What a fleet has sent and heard, and which verdict each reception deserves: what a test holds the bridge against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import msgspec

from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.lorawan.verdict import Verdict
from lorabridge.simulation.forwarder import Push

Receipt = tuple[EUI64, int, bytes]
"""Gateway, its counter, the bytes: what tells one reception from every other."""


class SentUplink(msgspec.Struct, kw_only=True):
    """One new data frame of a device."""

    device: str
    session: int
    """Counts the activations of the device, from 1."""
    fcnt32: FCnt32
    f_port: int
    payload: bytes
    """Plaintext."""
    confirmed: bool
    at: int
    pushes: list[Push]
    """One for each report to a gateway, repetitions included; none for a frame that was suppressed on the air."""

    @property
    def reached_bridge(self) -> bool:
        """Whether a PUSH_ACK says that the bridge has it; it is judged after that."""
        return any(push.acknowledged for push in self.pushes)


class HeardDownlink(msgspec.Struct, frozen=True, kw_only=True):
    """One data downlink that a device accepted."""

    device: str
    session: int
    a_fcnt_down: bool
    fcnt32: FCnt32
    f_port: int | None
    payload: bytes
    ack: bool
    at: int


class Books:
    """The accounts of one fleet."""

    def __init__(self) -> None:
        self.uplinks: list[SentUplink] = []
        self.downlinks: list[HeardDownlink] = []
        self.radiated: Counter[tuple[str, int, bool, FCnt32]] = Counter()
        """Downlinks on the air by (device, session, counter is AFCntDown, counter)."""
        self.events: Counter[str] = Counter()
        """`joins`, `rejoins`, `join_attempts`, `acknowledged`, `unacknowledged`, `repeated`, `given_up`."""
        self.margins_ns: list[int] = []
        """Between the arrival of a class A transmission at the gateway and the opening of RX1; simulated time."""
        self.attacks: Counter[str] = Counter()
        """By name of the attack."""
        self.verdicts: Counter[tuple[str, Verdict]] = Counter()
        """(what was sent, verdict) of every reception."""
        self.wrong: list[str] = []
        """Receptions that got another verdict than they deserve."""
        self._deserved: dict[Receipt, tuple[str, frozenset[Verdict]]] = {}

    def expect(self, receipt: Receipt, what: str, verdicts: frozenset[Verdict]) -> None:
        """A reception is on its way to the bridge."""
        self._deserved[receipt] = (what, verdicts)

    def judge(self, receipt: Receipt, verdict: Verdict) -> None:
        """The bridge has committed a verdict. A reception that nobody sent is wrong as well."""
        what, deserved = self._deserved.get(receipt, ("nothing that was sent", frozenset[Verdict]()))
        self.verdicts[what, verdict] += 1
        if verdict not in deserved:
            self.wrong.append(f"{what} at {receipt[1]} µs by {receipt[0]} got {verdict}")

    @property
    def repeated_counters(self) -> list[tuple[str, int, bool, FCnt32]]:
        """Downlink counters that were on the air more than once."""
        return [counter for counter, times in self.radiated.items() if times > 1]

    @property
    def judged(self) -> int:
        """Receptions that have their verdict."""
        return self.verdicts.total()

    def margin_ms(self, percent: float) -> float | None:
        """The margin to RX1 that `percent` of the transmissions were handed over with, or more; None without any.

        The p99 of lateness is the margin that 99 of a hundred kept.
        """
        if not self.margins_ns:
            return None
        ordered = sorted(self.margins_ns, reverse=True)
        return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)] / 1e6

    def table(self) -> str:
        """Verdicts by what was sent, attacks marked by their names."""
        rows = [f"{'sent':<24}{'verdict':<18}{'receptions':>10}"]
        counted: Mapping[tuple[str, Verdict], int] = self.verdicts
        for (what, verdict), count in sorted(counted.items(), key=lambda row: (row[0][0], row[0][1].value)):
            rows.append(f"{what:<24}{verdict.value:<18}{count:>10}")
        return "\n".join(rows)
