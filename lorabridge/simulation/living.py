"""One device of a fleet and where it stands in its life."""

from __future__ import annotations

import msgspec

from lorabridge.simulation.air import Emission
from lorabridge.simulation.books import SentUplink
from lorabridge.simulation.end_device import EndDevice
from lorabridge.simulation.fleet_cast import FleetMember
from lorabridge.simulation.live_attackers import Attack


class Plot(msgspec.Struct, frozen=True):
    """An attack that waits until the network has a newer frame."""

    attack: Attack
    emission: Emission
    session: int


class Living:
    """One device and where it stands."""

    def __init__(self, member: FleetMember, device: EndDevice) -> None:
        self.member = member
        self.device = device
        self.name = member.device.name
        self.sessions = int(device.is_activated)
        """Activations so far."""
        self.reports = 0
        self.in_vain = 0
        """Confirmed frames without acknowledgement, one after the other."""
        self.join_request: Emission | None = None
        """The one that led to the present session."""
        self.last_sent: SentUplink | None = None
        self.plots: list[Plot] = []

    @property
    def was_acknowledged(self) -> bool:
        """Whether the last frame was a confirmed one that the network has proved to have."""
        is_confirmed = self.last_sent is not None and self.last_sent.confirmed
        return is_confirmed and self.device.is_activated and not self.device.waits_for_ack
