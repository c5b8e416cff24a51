"""A loopback stand-in for the AWS IoT endpoint: it enforces the documented rules, and records what it saw.

What it enforces, where it guesses and what it does not model: docs/standin.md.
"""

from lorabridge.simulation.standin.events import Event, Happening, Refusal
from lorabridge.simulation.standin.hello import ClientHello
from lorabridge.simulation.standin.policy import Policy, claim_policy, gateway_policy, thing_policy
from lorabridge.simulation.standin.server import StandIn, StandInSettings
from lorabridge.simulation.standin.services.lending import Role
from lorabridge.simulation.standin.services.provisioning import Template
from lorabridge.simulation.standin.tls_front import TlsRules

__all__ = [
    "ClientHello",
    "Event",
    "Happening",
    "Policy",
    "Refusal",
    "Role",
    "StandIn",
    "StandInSettings",
    "Template",
    "TlsRules",
    "claim_policy",
    "gateway_policy",
    "thing_policy",
]
