"""Which way records leave: by MQTT, or by HTTPS while MQTT is blocked and the operator wants that."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from lorabridge.daemon.log import Facts
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.drain import Link
from lorabridge.upstream.fallback import Fallback
from lorabridge.upstream.faults import LinkDown, LinkFault, LinkState
from lorabridge.upstream.https_publish import HttpsPublisher
from lorabridge.upstream.https_status import HttpsStatus
from lorabridge.upstream.link import LinkReport

KEEP_ALIVES = 1.5
"""So many without a sign of life, and an endpoint publishes the last will (MQTT 3.1.1, 3.1.2.10)."""
_WILL_MARGIN = 5.0
_FACTS = Facts(logging.getLogger(__name__))


class LinkLog:
    """A line for every change of the link, and none for the same thing said again with a retry time."""

    def __init__(self) -> None:
        self._told: tuple[LinkState, LinkFault | None] | None = None

    def tell(self, report: LinkReport) -> None:
        """Called with every report of the link."""
        now = (report.state, report.fault if report.state is LinkState.WAITING else None)
        if now == self._told:
            return
        self._told = now
        if report.state is LinkState.WAITING and report.fault is not None:
            _FACTS.warning("link waiting", fault=report.fault, detail=report.detail, hint=report.fault.hint)
        else:
            _FACTS.info(f"link {report.state}")


class WayOut:
    """The fall-back of one bridge, where there is one; without, everything here is empty."""

    def __init__(
        self,
        settings: AwsIotSettings | None,
        mqtt: AwsIot,
        rng: random.Random,
        will_within: float | None = None,
    ) -> None:
        """`settings` None: a broker that is not AWS IoT. `will_within` None: as long as the keep-alive makes it."""
        self._mqtt = mqtt
        self._https: HttpsPublisher | None = None
        self._status: HttpsStatus | None = None
        self._fallback: Fallback | None = None
        if settings is not None and settings.fallback == "https":
            if will_within is None:
                will_within = KEEP_ALIVES * settings.keep_alive + _WILL_MARGIN
            self._https = HttpsPublisher(settings, rng, time.time)
            self._status = HttpsStatus(self._https, mqtt.status, _tell_refused, will_within)
            self._fallback = Fallback(mqtt, self._status, settings.https.after, self._turned)

    @property
    def link(self) -> Link:
        """What the drain publishes to."""
        return self._mqtt if self._fallback is None else self._fallback

    @property
    def counters(self) -> dict[str, int]:
        """Named totals since the process began."""
        return {} if self._https is None else {f"https_{name}": n for name, n in self._https.counters.items()}

    def facts(self) -> dict[str, str | None]:
        """For `lorabridge status`."""
        is_active = self._fallback is not None and self._fallback.is_active
        trouble = self._https.trouble if is_active and self._https is not None else None
        return {
            "way_out": "https" if is_active else "mqtt",
            "https_fault": None if trouble is None or trouble.fault is None else trouble.fault.value,
            "https_detail": "" if trouble is None else trouble.detail,
        }

    def note(self, report: LinkReport) -> None:
        """A report of the MQTT link."""
        if self._status is not None:
            self._status.note(report)
        if self._fallback is not None:
            self._fallback.note(report)

    async def run(self) -> None:
        """Until cancelled."""
        if self._https is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._https.run()

    async def stop(self, limit: float) -> None:
        """Take both ways down, in at most `limit` seconds."""
        waiting = [self._mqtt.stop(limit)]
        if self._https is not None and self._status is not None:
            waiting.append(self._https.stop(limit, self._status.farewell()))
        await asyncio.gather(*waiting)

    def _turned(self, is_active: bool) -> None:  # what Fallback.on_change is called with
        if self._status is not None:
            self._status.turn(is_active)
        if is_active:
            hint = "MQTT is tried on; see link_fault in `lorabridge status` and let the port out"
            _FACTS.warning("records leave by HTTPS, commands do not arrive", hint=hint)
        else:
            _FACTS.info("records leave by MQTT again")
            if self._https is not None:
                self._https.rest()


def _tell_refused(down: LinkDown) -> None:
    hint = "the policy has to allow iot:Publish on the topic of the status, with retain_status iot:RetainPublish too"
    _FACTS.warning("status not published by HTTPS", fault=down.fault, detail=down.detail, hint=hint)
