"""What may be done to the bridge from afar, by shadow and jobs: short lists, and nothing that lowers a guard."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lorabridge.daemon.config import Config
from lorabridge.daemon.job_desk import JobDesk
from lorabridge.upstream.aws_iot import AwsIot
from lorabridge.upstream.faults import LinkDown
from lorabridge.upstream.jobs import Jobs
from lorabridge.upstream.shadow import Setting, Shadow


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


class CloudServices:
    """Shadow and jobs, as far as the configuration switches them on."""

    def __init__(  # what they need of the bridge, each by its name
        self,
        config: Config,
        fingerprint: str,
        link: AwsIot,
        *,
        answer: Callable[[], Mapping[str, Any]],
        pause: Callable[[bool], None],
        reload: Callable[[], Awaitable[str]],
    ) -> None:
        """`answer` is what `lorabridge status` prints; `reload` reads the devices anew, and says what is wrong."""
        self._link = link
        self._remote = Remote(float(config.report.stats_interval), pause)
        self._desk = JobDesk(config.link, reload, self._uses_the_files)
        thing_name = config.link.thing_name
        self._shadow = Shadow(
            thing_name,
            say=link.say,
            state=lambda: shadow_state(answer(), fingerprint),
            settings=self._remote.settings,
            apply=self._remote.apply,
        )
        self._jobs = Jobs(thing_name, say=link.say, run=lambda job: self._desk.run(job, self._jobs))
        aws = config.aws_iot
        self._has_shadow, self._has_jobs = aws is not None and aws.shadow, aws is not None and aws.jobs
        if self._has_shadow:
            link.add_services(self._shadow.topics)
        if self._has_jobs:
            link.add_services(self._jobs.topics)

    @property
    def stats_interval(self) -> float:
        """Seconds between two `gateway_stats` records."""
        return self._remote.stats_interval

    @property
    def counters(self) -> dict[str, int]:
        """Totals of what is switched on."""
        shadow = self._shadow.counters if self._has_shadow else {}
        jobs = self._jobs.counters if self._has_jobs else {}
        return {f"shadow_{name}": n for name, n in shadow.items()} | {f"jobs_{name}": n for name, n in jobs.items()}

    def tick(self, now: float) -> None:
        """Say what is due; once a second."""
        if self._has_shadow:
            self._shadow.tick(now)
        if self._has_jobs:
            self._jobs.tick()

    def certificate_judged(self, refusal: LinkDown | None) -> None:
        """The link tried a new certificate: None when it proved itself."""
        self._desk.judged(refusal)

    def stop(self) -> None:
        """Leave what is under way: it is resumed after the next start."""
        self._desk.stop()

    def _uses_the_files(self) -> bool:
        """Whether the certificate in the files proved itself."""
        return self._link.certificate_valid_until is not None and not self._link.report.rolled_back
