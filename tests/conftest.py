"""What every test has: hypothesis without deadlines, because machines differ, and a longer run for `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("lorabridge", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20000")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lorabridge")
