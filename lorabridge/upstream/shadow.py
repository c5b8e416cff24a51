"""The named shadow `lorabridge`: what the gateway reports of itself, and the few settings that may be changed by it.

AWS IoT developer guide, "Device Shadow MQTT topics". A desired value that is not in SETTINGS, or out of its range,
changes nothing and is reported as rejected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lorabridge.upstream.service_topics import ServiceTopic

_LOGGER = logging.getLogger(__name__)

NAME: Final = "lorabridge"
MAX_DOCUMENT: Final = 8 * 1024
"""Bytes of a shadow document (AWS IoT quotas)."""
MAX_REJECTED: Final = 16
"""Settings that are reported as rejected, the rest only counted."""
LEAST_INTERVAL: Final = 60.0
"""Seconds between two reports."""
FULL_INTERVAL: Final = 900.0
"""Seconds after which it is reported although nothing but counters changed."""

Setting = str | int | bool
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def _level(value: Any) -> bool:
    return isinstance(value, str) and value in LOG_LEVELS


def _interval(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 10 <= value <= 86_400


def _switch(value: Any) -> bool:
    return isinstance(value, bool)


SETTINGS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "log_level": (_level, "one of " + ", ".join(LOG_LEVELS)),
    "stats_interval_s": (_interval, "10 to 86400"),
    "paused": (_switch, "true: records are kept and not sent; false"),
}
"""What may be desired: whether a value will do, and what does."""


class Shadow:
    """Reports when something changed, applies what is desired. Driven by the link and by `tick`."""

    def __init__(
        self,
        thing_name: str,
        *,
        say: Callable[[str, bytes], bool],
        state: Callable[[], Mapping[str, Any]],
        settings: Callable[[], Mapping[str, Setting]],
        apply: Callable[[Mapping[str, Setting]], None],
    ) -> None:
        """`say` publishes, and says whether it could; `state` and `settings` are what is reported."""
        prefix = f"$aws/things/{thing_name}/shadow/name/{NAME}"
        self._update, self._get = f"{prefix}/update", f"{prefix}/get"
        self._say = say
        self._state = state
        self._settings = settings
        self._apply = apply
        self._delta = ServiceTopic(f"{self._update}/delta", self._heard_delta)
        self._got = ServiceTopic(f"{self._get}/accepted", self._heard_document, granted=self._ask)
        self._refused = ServiceTopic(f"{self._update}/rejected", self._heard_refusal)
        self._version = 0
        self._must_ask = False
        self._rejected: dict[str, str] = {}
        self._told_rejected: set[str] = set()
        self._reported: tuple[bytes, float] | None = None
        self.counters = {"reports": 0, "applied": 0, "rejected": 0, "refused": 0}

    @property
    def topics(self) -> Sequence[ServiceTopic]:
        """To be subscribed to, in this order."""
        return self._delta, self._refused, self._got

    def tick(self, now: float) -> None:
        """Ask, and report what changed; `now` is monotonic seconds. To be called about once a second."""
        if not self._got.is_granted:
            self._reported = None  # a new connection begins with a report
            return
        if self._must_ask and self._say(self._get, b"{}"):
            self._must_ask = False
        document = {"settings": dict(self._settings()), **self._state()}
        lasting = msgspec.json.encode({name: value for name, value in document.items() if name != "counters"})
        lasting += msgspec.json.encode(self._rejected)
        if self._reported is not None:
            before, at = self._reported
            if now - at < (FULL_INTERVAL if before == lasting else LEAST_INTERVAL):
                return
        rejected = {**dict.fromkeys(self._told_rejected), **self._rejected}  # null takes a name out of the shadow
        payload = msgspec.json.encode({"state": {"reported": {**document, "rejected": rejected or None}}})
        if len(payload) > MAX_DOCUMENT:
            payload = msgspec.json.encode({"state": {"reported": {**document, "counters": None}}})
        if self._say(self._update, payload):
            self.counters["reports"] += 1
            self._reported = (lasting, now)
            self._told_rejected = set(self._rejected)

    def _ask(self) -> None:
        """What is desired has to be asked for: whatever was missed while offline."""
        self._version = 0  # a shadow that was deleted and made anew counts from the beginning
        self._must_ask = True

    def _heard_document(self, payload: bytes) -> None:
        self._take(payload, lambda document: document["state"].get("delta", {}))

    def _heard_delta(self, payload: bytes) -> None:
        self._take(payload, lambda document: document["state"])

    def _heard_refusal(self, payload: bytes) -> None:
        self.counters["refused"] += 1
        _LOGGER.warning("the shadow refused a report", extra={"detail": payload[:300].decode("utf-8", "replace")})

    def _take(self, payload: bytes, part: Callable[[dict[str, Any]], Any]) -> None:
        """Apply what is desired in a document that is not older than the last; nothing for what is no document."""
        try:
            document = msgspec.json.decode(payload, type=dict[str, Any])
            version, desired = int(document["version"]), part(document)
            wanted = desired.get("settings", {}).items()
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            self.counters["rejected"] += 1
            return
        if version < self._version:
            return
        self._version = version
        self._rejected = {}
        taken: dict[str, Setting] = {}
        for name, value in wanted:
            will_do, allowed = SETTINGS.get(name, (None, f"no setting: {', '.join(SETTINGS)}"))
            if will_do is not None and will_do(value):
                taken[name] = value
                continue
            self.counters["rejected"] += 1
            if len(self._rejected) < MAX_REJECTED:
                self._rejected[str(name)[:64]] = allowed
        if taken:
            self.counters["applied"] += len(taken)
            _LOGGER.info("settings changed by the shadow", extra={"fields": dict(taken)})
            self._apply(taken)
        self._reported = None
