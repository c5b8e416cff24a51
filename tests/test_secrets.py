"""No key ever leaves the device files: not printed, not logged, not raised, not sent, not stored.

Every end-to-end test ends with the same search (`Installation.close`); here the bridge is made to say all it can.
"""

from __future__ import annotations

import base64
import json
import random
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabridge.simulation.scenario import DEVICE_FILE, RECORDINGS
from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import LORABRIDGE, ROOT, Installation, Site, installed, open_site, wait_until
from tests.e2e.traffic import device_file, frames
from tests.secret_search import assert_no_secret, forms

SECRET = random.Random(1).randbytes(16)
NOISE = random.Random(2).randbytes(5000)


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.mark.parametrize("form", dict(forms(SECRET)))
def test_the_search_finds_a_key_in_every_form(form: str) -> None:
    text = dict(forms(SECRET))[form]
    with pytest.raises(AssertionError, match=re.escape(f"log: key 0 as {form}")) as caught:
        assert_no_secret({"log": NOISE + text + NOISE, "other": NOISE}, [SECRET])
    assert SECRET.hex() not in str(caught.value)


@pytest.mark.parametrize("before", range(6))
def test_the_search_finds_a_key_inside_of_something_longer(before: int) -> None:
    longer = NOISE[:before] + SECRET + NOISE[-7:]
    for written in (base64.b64encode(longer), longer.hex().upper().encode(), repr(longer).encode(), longer):
        with pytest.raises(AssertionError):
            assert_no_secret({"log": b"{" + written + b"}"}, [SECRET])
    assert_no_secret({"log": NOISE}, [SECRET])


def hear_everything(installation: Installation) -> None:
    """All shipped recordings: every verdict there is."""
    judged, count = installation.judged(), 0
    with Forwarder(installation.udp_port) as forwarder:
        for path in sorted(RECORDINGS.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                report = json.loads(line)
                forwarder.push([json.dumps(report["rxpk"]).encode()], gateway_eui=report["gateway_eui"])
                count += 1
        forwarder.settle()
    installation.wait_judged(judged + count)


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["json", "human"])
def test_a_bridge_that_says_all_it_can_names_no_key(site: Site, log_format: str) -> None:
    devices = (RECORDINGS / DEVICE_FILE).read_text(encoding="utf-8")
    log = f'level = "debug"\nformat = "{log_format}"\nburst = 100000'
    with installed(site, devices, log=log) as installation:
        bridge = installation.start()
        hear_everything(installation)
        installation.devices.write_text(devices.replace('_key = "', '_key = "0'), encoding="utf-8")
        bridge.reload()
        assert "reload refused" in bridge.log()
        installation.cli("check", "--config", str(installation.configuration))
        installation.write_devices(devices)
        bridge.reload()
        site.refuse(on=True)
        hear_everything(installation)
        files = " ".join(file.name for file in installation.state.iterdir())
        assert "-wal" in files, "the search must see what is not in the database proper yet"
        limits = Path(f"/proc/{bridge.process.pid}/limits").read_text(encoding="ascii")
        assert re.search(r"Max core file size +0 +0 ", limits), "a core dump would hold every key"
        for name in ("cmdline", "environ"):
            installation.note(name, Path(f"/proc/{bridge.process.pid}/{name}").read_bytes())
        bridge.kill()
        installation.search_for_secrets()
        for words in (("list",), ("check",), ("show", "eu868-meter-1"), ("show", "eu868-joins-1-1")):
            done = installation.cli("devices", *words, "--path", str(installation.devices))
            assert done.returncode == 0, done.stderr
        site.refuse(on=False)
        bridge = installation.start()
        installation.wait_drained()
        bridge.stop()
        assert len(site.payloads("uplink")) > 300
        assert installation.whole_log().count("frame judged") > 2000


def test_a_bug_ends_the_bridge_with_a_trace_that_names_no_key(site: Site) -> None:
    with installed(site, device_file(2)) as installation:
        bridge = installation.start()
        with Forwarder(installation.udp_port) as forwarder:
            sent = list(frames(2, 4, seed=9))
            forwarder.push([frame.rxpk(0) for frame in sent[:2]])
            installation.wait_judged(2)
            second_bridge = sqlite3.connect(installation.database, isolation_level=None)
            second_bridge.execute("UPDATE session SET generation = generation + 7")
            second_bridge.close()
            forwarder.push([frame.rxpk(1) for frame in sent[2:]])
            wait_until(lambda: bridge.process.poll() is not None, "the bridge ends")
        assert bridge.process.poll() == 70
        assert "a bug ended the bridge" in bridge.log()
        assert "StoreConflict" in bridge.log()
        assert re.search(r"pipeline.py:\d+ .* > sessions.py:\d+ ", bridge.log()), "the trace leads to the place"


KEY = SECRET.hex()
WRONG = {
    "too short": KEY[:-1],
    "too long": f"{KEY}ab",
    "no hex": f"{KEY[:-2]}zz",
    "with spaces": f"{KEY[:-1]} ",
    "twice": KEY * 2,
    "base64": base64.b64encode(SECRET).decode(),
}


def assert_nothing_of_it(text: str, key: str) -> None:
    """No eight characters of the key in a row."""
    pieces = [key[n : n + 8] for n in range(len(key) - 7)]
    assert not [piece for piece in pieces if piece.lower() in text.lower()]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["nwk_s_key", "app_s_key"])
def test_a_refused_key_is_not_repeated(tmp_path: Path, wrong: str, name: str) -> None:
    key = WRONG[wrong]
    spoiled = re.sub(rf'{name} = "[^"]*"', f'{name} = "{key}"', device_file(1))
    path = tmp_path / "devices.toml"
    path.touch(mode=0o600)
    path.write_text(spoiled, encoding="utf-8")
    frame = {"id": 1, "phy_payload": "40010000028000000a0102030405060708", "keys": {name: key}}
    for words, given in (
        (("devices", "check", "--path", str(path)), ""),
        (("devices", "list", "--path", str(path)), ""),
        (("decode", "--devices", str(path), frame["phy_payload"]), ""),
        (("decode", "--jsonl"), json.dumps(frame)),
    ):
        done = subprocess.run(
            [LORABRIDGE, *map(str, words)],
            input=given,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert name in done.stdout + done.stderr, "it is said which key is meant"
        assert_nothing_of_it(done.stdout + done.stderr, key)


def test_keys_of_an_export_are_not_printed_when_they_are_imported(tmp_path: Path) -> None:
    export = tmp_path / "export.csv"
    header = "dev_eui,name,mac_version,dev_addr,nwk_s_key,app_s_key\n"
    rows = [f"02000000000000{n:02x},imported-{n},1.0.3,0200000{n},{KEY},{SECRET[::-1].hex()}\n" for n in range(2)]
    export.write_text(header + rows[0] + rows[1] + f"xx,broken,1.0.3,02000009,{KEY}0,{KEY}\n", encoding="utf-8")
    done = subprocess.run(
        [LORABRIDGE, "devices", "import", str(export), "--out", str(tmp_path / "out.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout + done.stderr
    assert_nothing_of_it(done.stdout + done.stderr, KEY)
