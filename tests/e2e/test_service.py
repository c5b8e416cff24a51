"""The bridge as a service: reload, clean stop, status, watchdog."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence

import pytest

from tests.e2e import freeze
from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import Bridge, Installation, Site, installed, wait_until
from tests.e2e.traffic import Account, Frame, device_file, frames

STOP_LIMIT = 5.0
"""Seconds that systemd/lorabridge.service gives."""


def send(installation: Installation, sent: Sequence[Frame], *, tmst: int = 0) -> dict[str, int]:
    """Send frames, wait until they are judged; how many of them got which verdict."""
    before: dict[str, int] = installation.status()["verdicts"]
    with Forwarder(installation.udp_port) as forwarder:
        for number, frame in enumerate(sent):
            forwarder.push([frame.rxpk(tmst + number)])
        forwarder.settle()
    installation.wait_judged(sum(before.values()) + len(sent))
    after: dict[str, int] = installation.status()["verdicts"]
    return {verdict: n for verdict, count in after.items() if (n := count - before.get(verdict, 0))}


def test_reload_takes_over_new_devices_and_keeps_sessions(site: Site) -> None:
    rounds = [list(frames(3, 60, seed=1))[n : n + 15] for n in range(0, 60, 15)]
    third = {frame.identity for sent in rounds for frame in sent if frame.identity[0].endswith("02")}
    account = Account(site.published)
    with installed(site, device_file(2)) as installation:
        bridge = installation.start()
        assert send(installation, rounds[0]) == {"accepted": 10, "unknown_device": 5}
        installation.write_devices(device_file(3))
        bridge.reload()
        assert installation.status()["devices"] == 3
        assert send(installation, rounds[1]) == {"accepted": 15}
        again = send(installation, [*rounds[0], *rounds[1]], tmst=5_000_000)
        assert "accepted" not in again, "sessions survived, that of the new device too"
        installation.write_devices(device_file(2))
        bridge.reload()
        assert send(installation, rounds[2]) == {"accepted": 10, "unknown_device": 5}
        installation.write_devices(device_file(3))
        bridge.reload()
        again = send(installation, rounds[1], tmst=9_000_000)
        assert "accepted" not in again, "a device that was away is no new device"
        assert send(installation, rounds[3]) == {"accepted": 15}
        installation.wait_drained()
        bridge.stop()
        late = {frame.identity for sent in (rounds[0], rounds[2]) for frame in sent} & third
        account.assert_complete([frame for sent in rounds for frame in sent if frame.identity not in late])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text + "\n[[device]\n", "is no TOML"),
        (lambda text: text.replace('_key = "', '_key = "ab', 1), "nwk_s_key"),
        (lambda text: text + device_file(1), "load-00000"),
    ],
    ids=["no TOML", "a key too long", "a device twice"],
)
def test_invalid_device_file_changes_nothing_and_says_so(site: Site, spoil: object, said: str) -> None:
    assert callable(spoil)
    sent = list(frames(3, 30, seed=2))
    with installed(site, device_file(2)) as installation:
        bridge = installation.start()
        assert send(installation, sent[:15]) == {"accepted": 10, "unknown_device": 5}
        good = device_file(3)
        installation.devices.write_text(spoil(good), encoding="utf-8")
        bridge.reload()
        assert installation.status()["devices"] == 2
        refused = [line for line in bridge.log().splitlines() if "reload refused" in line]
        assert refused
        assert any(said in line for line in refused), refused
        assert all(str(installation.devices) in line for line in refused)
        assert send(installation, sent[15:]) == {"accepted": 10, "unknown_device": 5}
        bridge.stop()


@pytest.mark.parametrize("online", [True, False], ids=["online", "endpoint away"])
def test_stop_under_load_is_quick_and_keeps_what_was_acknowledged(site: Site, online: bool) -> None:
    sent = list(frames(10, 30_000, seed=3))
    account = Account(site.published)
    with installed(site, device_file(10), log='level = "info"') as installation:
        bridge = installation.start()
        if not online:
            site.refuse(on=True)
        with Forwarder(installation.udp_port) as forwarder:
            pushed = load_until_it_is_gone(bridge, forwarder, sent, stop_at=1500)
            seconds = bridge.stop()
            answered = [frame for number, frame in enumerate(sent[:pushed]) if number in forwarder.answered]
        assert seconds < STOP_LIMIT
        assert len(answered) >= 1500 - 48
        site.refuse(on=False)
        bridge = installation.start()
        installation.wait_drained()
        account.assert_complete(answered)
        with Forwarder(installation.udp_port) as forwarder:
            forwarder.push([sent[pushed].rxpk(1)])
            installation.wait_judged(1)
        installation.wait_drained()
        assert sent[pushed].identity in account
        bridge.stop()


def load_until_it_is_gone(bridge: Bridge, forwarder: Forwarder, sent: Sequence[Frame], *, stop_at: int) -> int:
    """Send as fast as it answers, SIGTERM in the middle, go on until nobody listens; how many were sent."""
    pushed = 0
    with contextlib.suppress(ConnectionRefusedError):
        while bridge.process.poll() is None:
            if forwarder.has_room:
                pushed += 1
                forwarder.push([sent[pushed - 1].rxpk(pushed)])
            else:
                forwarder.listen(0.05)
            if pushed == stop_at:
                bridge.process.terminate()
    for _ in range(3):  # an error of the socket comes before the answers that are there
        with contextlib.suppress(ConnectionRefusedError):
            forwarder.listen(0)
    return pushed


def test_status_answers_people_and_programs(site: Site) -> None:
    with installed(site, device_file(1)) as installation:
        configuration = str(installation.configuration)
        absent = installation.cli("status", "--config", configuration)
        assert absent.returncode == 78
        assert "is the service running?" in absent.stderr
        bridge = installation.start()
        send(installation, list(frames(1, 3, seed=4)))
        wait_until(lambda: installation.status()["healthy"] is True, "the link is up")
        asked = installation.cli("status", "--config", configuration, "--json")
        assert asked.returncode == 0
        answer = json.loads(asked.stdout)
        assert (answer["link"], answer["devices"], answer["verdicts"]) == ("online", 1, {"accepted": 3})
        readable = installation.cli("status", "--config", configuration)
        assert readable.returncode == 0
        assert "accepted" in readable.stdout
        bridge.stop()
        assert installation.cli("status", "--config", configuration).returncode == 78
        assert installation.cli("check", "--config", configuration).returncode == 0


def test_watchdog_is_fed_while_work_goes_on_and_starved_when_it_does_not(site: Site) -> None:
    sent = list(frames(2, 40, seed=5))
    account = Account(site.published)
    with installed(site, device_file(2)) as installation:
        impatient = (sys.executable, "-m", "tests.e2e.impatient_bridge")
        bridge = installation.start(command=impatient, watchdog_s=0.9)
        for _ in range(3):
            assert bridge.hears(b"WATCHDOG=1", 2.0)
        send(installation, sent[:20])
        wait_until(lambda: installation.counters()["outbox_records"] == 0, "the writer has nothing to do")
        with freeze.all_but_the_main_thread(bridge.process.pid) as held, Forwarder(installation.udp_port) as forwarder:
            assert held
            for frame in sent[20:]:
                forwarder.push([frame.rxpk(1)])
            forwarder.settle()  # the radio goes on answering
            assert bridge.hears(b"STATUS=stuck: pipeline", 5.0)
            assert installation.status()["stuck"] == ["pipeline"]
            assert not installation.status()["healthy"]
            bridge.forget_notifications()
            assert not bridge.hears(b"WATCHDOG=1", 1.5), "a sign of life of a bridge that does not work"
        assert bridge.hears(b"WATCHDOG=1", 5.0), "it goes on by itself when the disk answers again"
        installation.wait_judged(len(sent))
        installation.wait_drained()
        account.assert_complete(sent)
        assert installation.status()["stuck"] == []
        assert "no sign of life for the watchdog" in bridge.log()
        bridge.stop()
