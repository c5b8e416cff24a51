"""What arrived at the stand-in: counted by kind, uplinks by id, and a few of them to look at."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

_SAMPLES = 3


class Delivery:
    """Everything that the endpoint has taken."""

    def __init__(self) -> None:
        self.total = 0
        self._kinds: Counter[str] = Counter()
        self._uplinks: Counter[str] = Counter()
        self._sealed = 0
        self._samples: dict[str, dict[str, Any]] = {}

    def note(self, topic: str, payload: bytes) -> None:
        """One publish was delivered."""
        self.total += 1
        record = json.loads(payload)
        kind = record["schema"].split("/")[1]
        self._kinds[kind] += 1
        if kind == "uplink":
            self._uplinks[record["id"]] += 1
            self._sealed += record["sealed"]
            if record.get("payload"):
                self._samples.setdefault(record["mac_version"], {"topic": topic, **record})

    def is_complete(self, expected_uplinks: int | None) -> bool:
        """Whether every uplink came, and once; None: nobody knows how many there are."""
        return all(count == 1 for count in self._uplinks.values()) and expected_uplinks in (None, len(self._uplinks))

    def table(self) -> str:
        """Delivered records by kind."""
        rows = [f"{'delivered':<17}{'records':>10}"]
        rows += [f"{kind:<17}{count:>10}" for kind, count in sorted(self._kinds.items())]
        rows.append(f"{'uplinks sealed':<17}{self._sealed:>10}")
        return "\n".join(rows)

    def samples(self) -> list[str]:
        """A few uplinks as they arrived, decrypted, the newest versions first."""
        return [_sample(record) for _, record in sorted(self._samples.items(), reverse=True)][:_SAMPLES]


def _sample(record: dict[str, Any]) -> str:
    """One uplink for people."""
    payload = base64.b64decode(record["payload"])
    device, heard = record["device"], record["rx"][0]
    return (
        f"{record['topic']}\n"
        f"  {device['name']} (LoRaWAN {record['mac_version']}) FCnt {record['fcnt32']} FPort {record['f_port']}\n"
        f"  decrypted payload {payload.hex()}, heard by {heard['gateway_eui']} at {record['received_at']}"
    )
