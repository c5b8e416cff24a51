"""The concentrator's child process, its watch and its words, against a stand-in library that this compiles."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from lorabridge.backoff import Backoff
from lorabridge.daemon.health import Health
from lorabridge.daemon.radios import Radios
from lorabridge.errors import ConfigError, TransientError
from lorabridge.lorawan.air import (
    CrcStatus,
    FskDataRate,
    GatewayStatus,
    LoraDataRate,
    Reception,
    Transmission,
    TxResult,
    TxTiming,
)
from lorabridge.lorawan.types import EUI64
from lorabridge.radio.base import SourceEnded
from lorabridge.radio.outcomes import NOT_RUNNING
from lorabridge.radio.sx1302 import abi
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302
from lorabridge.settings import Duration
from tests.radio.sx1302_bench import EUI, TRANSMISSION, compiled, frames, needs_cc, on, until


@needs_cc
def test_the_structures_are_laid_out_as_a_c_compiler_does(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))
    loaded.standin_layout.restype = ctypes.c_char_p
    lines = loaded.standin_layout().decode().splitlines()
    assert len(lines) == 13
    for line in lines:
        name, size, field, offset = line.split()
        structure = getattr(abi, name)
        assert (ctypes.sizeof(structure), getattr(structure, field).offset) == (int(size), int(offset)), line


@needs_cc
def test_lora_and_fsk_frames_are_heard_with_all_that_is_known_of_them(settings: Sx1302Settings, tmp_path: Path) -> None:
    async def act(source: Sx1302) -> None:
        (tmp_path / "uplink").touch()
        lora, fsk = await frames(source, 2)
        assert lora.phy_payload == bytes(range(255))
        assert (lora.gateway_eui, lora.crc, lora.tmst) == (EUI, CrcStatus.OK, 4294967290)
        assert (lora.data_rate, lora.code_rate, lora.rf_chain) == (LoraDataRate(7, 125_000), "4/6", 1)
        (antenna,) = lora.antennas
        assert (antenna.rssi_dbm, antenna.signal_rssi_dbm, antenna.snr_db) == (-57.5, -58.5, 8.5)
        assert (antenna.fine_time_ns, antenna.frequency_offset_hz, antenna.channel) == (999_999_999, -1234, 2)
        assert (fsk.phy_payload, fsk.crc, fsk.data_rate) == (b"\x09\x08\x07", CrcStatus.BAD, FskDataRate(50_000))
        assert fsk.antennas[0].snr_db is None
        assert fsk.antennas[0].fine_time_ns is None

    source = on(settings, act)
    assert (source.counters["frames"], source.counters["malformed"]) == (2, 0)
    assert (tmp_path / "stopped").exists()


@needs_cc
@pytest.mark.parametrize("word", ["nan", "huge"])
def test_a_frame_that_cannot_be_is_counted_and_the_other_heard(
    settings: Sx1302Settings, tmp_path: Path, word: str
) -> None:
    (tmp_path / "mode").write_text(word)

    async def act(source: Sx1302) -> None:
        (tmp_path / "uplink").touch()
        await frames(source, 1)
        async with asyncio.timeout(3):
            await until(lambda: source.counters["malformed"] > 0)

    assert on(settings, act).counters["frames"] == 1


@needs_cc
def test_the_temperature_is_told(settings: Sx1302Settings) -> None:
    async def act(source: Sx1302) -> None:
        (status,) = await asyncio.wait_for(source.receive(), 15)
        assert isinstance(status, GatewayStatus)
        assert status.temperature_c == 31.5

    on(settings, act)


@needs_cc
def test_frames_are_sent_as_ordered(settings: Sx1302Settings, tmp_path: Path) -> None:
    async def act(source: Sx1302) -> None:
        assert await source.transmit(TRANSMISSION) == TxResult()
        at = (time.monotonic_ns() // 1000 + 400_000) % 2**32
        timed = msgspec.structs.replace(TRANSMISSION, timing=TxTiming.AT_TMST, tmst=at, crc=True, power_dbm=99)
        began = time.monotonic()
        assert await source.transmit(timed) == TxResult(warning="TX_POWER", power_dbm=29)
        assert time.monotonic() - began > 0.25
        await asyncio.sleep(0.15)
        fsk = msgspec.structs.replace(
            TRANSMISSION, data_rate=FskDataRate(50_000), frequency_deviation_hz=25_000, preamble_symbols=6
        )
        assert await source.transmit(fsk) == TxResult()
        assert (tmp_path / "sent").read_text().splitlines() == [
            "868100000 0 0 0 14 16 4 9 1 1 0 8 1 20 0114",
            f"868100000 1 {at} 0 27 16 4 9 1 1 0 8 0 20 0114",
            "868100000 0 0 0 14 32 0 50000 0 1 25 6 1 20 0114",
        ]

    assert on(settings, act).counters["transmitted"] == 3


@needs_cc
def test_a_frame_that_cannot_be_sent_has_the_word_of_the_protocol(settings: Sx1302Settings, tmp_path: Path) -> None:
    change = msgspec.structs.replace

    async def act(source: Sx1302) -> None:
        now = time.monotonic_ns() // 1000
        timed = change(TRANSMISSION, timing=TxTiming.AT_TMST)
        for asked, word in (
            (change(TRANSMISSION, frequency_hz=870_000_001), "TX_FREQ"),
            (change(TRANSMISSION, power_dbm=13), "TX_POWER"),
            (change(TRANSMISSION, timing=TxTiming.AT_GPS_TIME, gps_time_ms=1), "GPS_UNLOCKED"),
            (timed, "UNSENDABLE"),
            (change(TRANSMISSION, rf_chain=1), "UNSENDABLE"),
            (change(TRANSMISSION, rf_chain=2), "UNSENDABLE"),
            (change(TRANSMISSION, phy_payload=bytes(256)), "UNSENDABLE"),
            (change(TRANSMISSION, code_rate="1/1"), "UNSENDABLE"),
            (change(TRANSMISSION, preamble_symbols=65_536), "UNSENDABLE"),
            (change(TRANSMISSION, data_rate=FskDataRate(50_000)), "UNSENDABLE"),
            (change(TRANSMISSION, gateway_eui=EUI64(1)), NOT_RUNNING),
            (change(timed, tmst=(now - 1) % 2**32), "TOO_LATE"),
            (change(timed, tmst=(now + 400_000_000) % 2**32), "TOO_EARLY"),
        ):
            assert (await source.transmit(asked)).error == word, asked
        for mode, word in (
            ("send", "SEND_FAILED"),
            ("lbt", "CHANNEL_BUSY"),
            ("busy", "COLLISION_PACKET"),
            ("status", "SEND_FAILED"),
        ):
            (tmp_path / "mode").write_text(mode)
            assert (await source.transmit(TRANSMISSION)).error == word
        (tmp_path / "mode").unlink()
        assert await source.transmit(TRANSMISSION) == TxResult()

    on(settings, act)


@needs_cc
@pytest.mark.parametrize("word", ["board", "rxrf", "rxif", "demod", "txgain", "ftime", "start", "eui", "hangstart"])
def test_a_concentrator_that_does_not_start_is_for_later(settings: Sx1302Settings, tmp_path: Path, word: str) -> None:
    (tmp_path / "mode").write_text(word)
    settings = msgspec.structs.replace(settings, start_timeout=Duration(1.5))
    with pytest.raises(TransientError, match="hung" if word == "hangstart" else f"lgw_.*{word}.* returned -1"):
        asyncio.run(Sx1302(settings).start())


@needs_cc
def test_another_library_is_refused_with_what_to_do(settings: Sx1302Settings, tmp_path: Path) -> None:
    other = compiled(tmp_path, '-DSTANDIN_VERSION="Version: 1.0.5;"')
    for path, says in (
        (other, "1.0.5"),
        (tmp_path / "none.so", "none.so"),
        (Path(ctypes.util.__file__), "no libloragw"),
    ):
        with pytest.raises(ConfigError, match=says) as refused:
            asyncio.run(Sx1302(msgspec.structs.replace(settings, library=path)).start())
        assert "docs/sx1302.md" in refused.value.problems[0].hint


@needs_cc
@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hang", "has hung"),
        ("abort", "signal 6"),
        ("gone", "signal 11"),
        ("fetch", "lgw_receive returned -1"),
        ("toomany", "lgw_receive returned 17"),
        ("counter", "lgw_get_instcnt returned -1"),
        ("frozen", "counter stands still"),
    ],
)
def test_the_radio_is_heard_again_within_ten_seconds(
    settings: Sx1302Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, word: str, says: str
) -> None:
    source = Sx1302(settings)
    radios = Radios([source], Health(time.monotonic), {source.name: Backoff(0.2, 1.0, random.Random(1))})

    async def run() -> float:
        await radios.start()
        try:
            pending = asyncio.create_task(source.transmit(_in_eight_seconds()))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            (tmp_path / "mode").write_text(word)
            async with asyncio.timeout(10):
                await until(lambda: radios.counters.get(f"{source.name}_failures", 0) > 0)
                (tmp_path / "mode").unlink(missing_ok=True)
                await until(lambda: source.counters["starts"] == 2)
                (tmp_path / "uplink").touch()
                while not any(isinstance(one, Reception) for one in await radios.receive()):
                    pass
            assert (await pending).error == NOT_RUNNING
        finally:
            await radios.stop()
        return time.monotonic() - began

    assert asyncio.run(run()) < 10
    reasons = [
        record.fields["reason"] for record in caplog.records if hasattr(record, "fields") and "reason" in record.fields
    ]
    assert any(says in reason for reason in reasons), reasons
    if word == "gone":
        assert source.counters["library_lines_dropped"] > 90_000


def _in_eight_seconds() -> Transmission:
    at = (time.monotonic_ns() // 1000 + 8_000_000) % 2**32
    return msgspec.structs.replace(TRANSMISSION, timing=TxTiming.AT_TMST, tmst=at)


@needs_cc
def test_a_frame_waits_while_the_one_before_it_is_on_the_air(settings: Sx1302Settings, tmp_path: Path) -> None:
    async def act(source: Sx1302) -> None:
        at = (time.monotonic_ns() // 1000 + 400_000) % 2**32
        (tmp_path / "mode").write_text("busy")
        timed = msgspec.structs.replace(TRANSMISSION, timing=TxTiming.AT_TMST, tmst=at)
        answer = asyncio.create_task(source.transmit(timed))
        await asyncio.sleep(0.36)
        assert not answer.done()
        (tmp_path / "mode").unlink()
        assert await answer == TxResult()

    on(settings, act)


@needs_cc
def test_a_bug_in_reading_is_told_and_not_silence(
    settings: Sx1302Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(source: Sx1302) -> None:
        monkeypatch.setattr("lorabridge.radio.sx1302.source.reception_of", lambda *_, **__: 1 // 0)
        (tmp_path / "uplink").touch()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(frames(source, 1), 3)

    on(settings, act)


@needs_cc
def test_the_child_ends_with_its_parent_even_when_the_library_hangs(settings: Sx1302Settings, tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys, pathlib\n"
        "from lorabridge.radio.sx1302.source import Sx1302, Sx1302Settings\n"
        "async def run():\n"
        "    library, plan = map(pathlib.Path, sys.argv[1:3])\n"
        "    source = Sx1302(Sx1302Settings(library=library, configuration=plan))\n"
        "    await source.start()\n"
        "    print(source._child._process.pid)\n"
        "    pathlib.Path(sys.argv[3]).write_text('hang')\n"
        "    await asyncio.sleep(0.3)\n"
        "    sys.stdout.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(run())\n"
    )
    arguments = [str(settings.library), str(settings.configuration), str(tmp_path / "mode")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    child = Path("/proc") / done.stdout.strip()
    assert done.returncode == -9
    assert not (tmp_path / "mode").exists(), "the library did not hang"
    deadline = time.monotonic() + 3
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(process: Path) -> bool:
    """Whether a process is neither gone nor a zombie."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_cc
def test_what_was_heard_before_the_stop_is_given_after_it(settings: Sx1302Settings, tmp_path: Path) -> None:
    async def act(source: Sx1302) -> None:
        (tmp_path / "uplink").touch()
        async with asyncio.timeout(3):
            await until(lambda: source.counters["frames"] == 2)
        await source.stop()
        assert len(await frames(source, 2)) == 2
        with pytest.raises(SourceEnded):
            await source.receive()
        assert (await source.transmit(TRANSMISSION)).error == NOT_RUNNING

    on(settings, act)
