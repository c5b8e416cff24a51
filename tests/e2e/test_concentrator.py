"""The daemon with a concentrator of its own, whose library hangs, dies and lies: a stand-in, compiled here."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.harness import Installation, Site, installed, wait_until
from tests.e2e.traffic import Account, Frame, device_file, frames, tell
from tests.radio.sx1302_bench import compiled, needs_cc
from tests.radio.sx1302_plan import PLAN

FAULTS = ("hang", "abort", "gone", "fetch", "frozen")
FRAMES_EACH = 60
WITHIN_S = 10.0


class Concentrator:
    """The stand-in library and the files that rule it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.library = compiled(folder)
        self.plan = folder / "global_conf.json"
        self.plan.write_text(json.dumps({"SX130x_conf": PLAN}))
        monkeypatch.setenv("SX1302_STANDIN", str(folder))

    @property
    def table(self) -> str:
        return f'[[radio]]\ntype = "sx1302"\nlibrary = "{self.library}"\nconfiguration = "{self.plan}"\n'

    def fail(self, how: str) -> None:
        (self._folder / "mode").write_text(how)

    def mend(self) -> None:
        (self._folder / "mode").unlink(missing_ok=True)

    def hear(self, heard: Sequence[Frame]) -> None:
        """Frames from the air, of which the next fetches take sixteen each; those before have to be fetched."""
        air = self._folder / "air"
        wait_until(lambda: not air.exists(), "the frames before were fetched")
        lines = [b64decode(json.loads(frame.rxpk(0))["data"]).hex() for frame in heard]
        (self._folder / "air.new").write_text("\n".join(lines) + "\n")
        (self._folder / "air.new").rename(air)


def offer(installation: Installation, concentrator: Concentrator, heard: Sequence[Frame]) -> None:
    """Returns when all of them are committed."""
    judged = installation.judged()
    concentrator.hear(heard)
    installation.wait_judged(judged + len(heard))


def wait_for(installation: Installation, counter: str, value: int) -> None:
    wait_until(lambda: installation.counters().get(counter, 0) >= value, f"{counter} is {value}")


def told(site: Site) -> list[str]:
    """What the cloud was told of the radio, in the order of time: what waited for the endpoint may come after."""
    return [record["event"] for record in sorted(site.payloads("radio"), key=lambda record: str(record["at"]))]


@needs_cc
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whatever_the_library_does_no_committed_record_is_lost_and_the_radio_comes_back(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other fault comes while the endpoint is away, so that what was committed before it waits in the outbox.

    A run for each: failures that follow each other are tried again more and more slowly.
    """
    concentrator = Concentrator(tmp_path, monkeypatch)
    sent = list(frames(5, 2 * FRAMES_EACH * len(FAULTS), seed=11))
    account = Account(site.published)
    took: dict[str, float] = {}
    more = f"[downlinks]\nenabled = false\n{concentrator.table}"
    with installed(site, device_file(5), log='level = "info"', more=more) as installation:
        for number, fault in enumerate(FAULTS):
            before, after = (sent[n * FRAMES_EACH : (n + 1) * FRAMES_EACH] for n in (2 * number, 2 * number + 1))
            bridge = installation.start()
            site.refuse(on=number % 2 == 0)
            offer(installation, concentrator, before)
            begun = time.monotonic()
            concentrator.fail(fault)
            wait_for(installation, "radio_sx1302_failures", 1)
            concentrator.mend()
            wait_for(installation, "radio_sx1302_starts", 2)
            took[fault] = round(time.monotonic() - begun, 1)
            offer(installation, concentrator, after)
            site.refuse(on=False)
            installation.wait_drained()
            wait_until(lambda: told(site)[-1:] == ["radio_recovered"], "the cloud is told of the recovery")
            assert installation.counters()["outbox_dropped_uplink"] == 0
            assert bridge.process.poll() is None
            bridge.stop()
        account.assert_complete(sent)
    assert told(site).count("radio_recovered") >= len(FAULTS), told(site)
    lost = [event for event in told(site) if event != "radio_recovered"]
    assert lost[0] == "radio_silent", "a library that hangs says nothing"
    assert set(lost[1:]) == {"radio_dead"}, "all other faults say that they are one"
    tell(recovered_after_s=took)
    assert max(took.values()) < WITHIN_S, took
