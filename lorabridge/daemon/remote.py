"""What may be done to the bridge from afar by the thing's shadow: a short list, and nothing that lowers a guard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from lorabridge.upstream.shadow import Setting


class Remote:
    """The settings that can be changed while the bridge runs. They last until it is restarted, or changed again."""

    def __init__(self, stats_interval: float, pause: Callable[[bool], None]) -> None:
        """`stats_interval`: seconds; `pause` stops and resumes the sending of records."""
        self.stats_interval = stats_interval
        self._pause = pause
        self._is_paused = False
        self._logger = logging.getLogger("lorabridge")

    def settings(self) -> Mapping[str, Setting]:
        """As they are now."""
        level = logging.getLevelName(self._logger.getEffectiveLevel()).lower()
        return {"log_level": level, "stats_interval_s": round(self.stats_interval), "paused": self._is_paused}

    def apply(self, changes: Mapping[str, Setting]) -> None:
        """Change some of them; `upstream.shadow` has checked the values."""
        for name, value in changes.items():
            if name == "log_level":
                self._logger.setLevel(str(value).upper())
            elif name == "stats_interval_s":
                self.stats_interval = float(value)
            else:
                self._is_paused = bool(value)
                self._pause(self._is_paused)


_REPORTED = (
    "link",
    "paused",
    "radios_down",
    "store",
    "certificate",
    "certificate_expires",
    "commands",
    "version",
    "devices",
)
_COUNTED = ("outbox_records", "outbox_dropped", "outbox_parked", "link_published", "link_acknowledged")


def shadow_state(answer: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """What of the answer to `lorabridge status` is reported to the shadow: at most 8 KiB in all."""
    counters = {name: answer["counters"][name] for name in _COUNTED if name in answer["counters"]}
    state: dict[str, Any] = {name: answer[name] for name in _REPORTED if name in answer}
    state["radios_down"] = dict(list(state["radios_down"].items())[:16])
    return {**state, "config_fingerprint": fingerprint, "counters": {**counters, **answer["verdicts"]}}
