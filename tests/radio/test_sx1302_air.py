"""What stands beside hearing and sending: listen-before-talk, spectral scan, GPS time, late answers."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lorabridge.errors import ConfigError
from lorabridge.lorawan.air import ChannelNoise, FskDataRate, GatewayStatus, LoraDataRate, TxResult, TxTiming
from lorabridge.radio.sx1302.library import Library, LibraryError
from lorabridge.radio.sx1302.mapping import noise_of
from lorabridge.radio.sx1302.plan import SpectralScan
from lorabridge.radio.sx1302.scan import LIMIT, Scanner
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.radio.sx1302.source import Sx1302
from lorabridge.radio.sx1302.wire import Scanned
from tests.radio.gnss_sender import gga, time_gps
from tests.radio.pty_device import PtyDevice, attached, silent
from tests.radio.sx1302_bench import TRANSMISSION, frames, needs_cc, on, until
from tests.radio.sx1302_plan import PLAN

LISTENING = {
    "spi_path": "/dev/spidev0.1",
    "rssi_offset": 0,
    "lbt": {
        "enable": True,
        "rssi_target": -80,
        "channels": [{"freq_hz": 868_100_000, "bandwidth": 125_000, "scan_time_us": 5000, "transmit_time_ms": 400}],
    },
}
SCANNING = {
    "spi_path": "/dev/spidev0.1",
    "spectral_scan": {"enable": True, "freq_start": 867_100_000, "nb_chan": 3, "nb_scan": 1000, "pace_s": 0},
}
GPS_S = 1_450_000_000
"""GPS seconds at the beginning of the machine's monotonic clock."""


def planned(settings: Sx1302Settings, **change: Any) -> Sx1302Settings:
    settings.configuration.write_text(json.dumps({"SX130x_conf": {**PLAN, **change}}))
    return settings


@needs_cc
def test_before_a_frame_the_channel_is_listened_to(settings: Sx1302Settings, tmp_path: Path) -> None:
    async def act(source: Sx1302) -> None:
        assert await source.transmit(TRANSMISSION) == TxResult()
        await asyncio.sleep(0.15)  # the airtime of the one before
        (tmp_path / "mode").write_text("lbt")
        assert (await source.transmit(TRANSMISSION)).error == "CHANNEL_BUSY"
        (tmp_path / "mode").unlink()
        for asked in (
            {"frequency_hz": 868_110_001},
            {"data_rate": LoraDataRate(7, 250_000)},
            {"data_rate": FskDataRate(50_000), "frequency_deviation_hz": 25_000},
        ):
            changed = msgspec.structs.replace(TRANSMISSION, **asked)
            assert (await source.transmit(changed)).error == "TX_FREQ", asked
        assert await source.transmit(msgspec.structs.replace(TRANSMISSION, frequency_hz=868_110_000)) == TxResult()

    on(planned(settings, sx1261_conf=LISTENING), act)


@needs_cc
def test_a_radio_that_cannot_listen_does_not_start(settings: Sx1302Settings, tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("sx1261")
    source = Sx1302(planned(settings, sx1261_conf=LISTENING))
    with pytest.raises(Exception, match="lgw_sx1261_setconf returned -1"):
        asyncio.run(source.start())


@needs_cc
@pytest.mark.slow
def test_the_noise_of_every_channel_is_told_with_the_status(settings: Sx1302Settings) -> None:
    async def act(source: Sx1302) -> None:
        async with asyncio.timeout(30):
            await until(lambda: source.counters["scans"] >= 3)
            heard: list[Any] = []
            while not any(isinstance(one, GatewayStatus) and len(one.noise) == 3 for one in heard):
                heard = await source.receive()
        (status,) = [one for one in heard if isinstance(one, GatewayStatus)]
        expected = tuple(ChannelNoise(867_100_000 + 200_000 * n, -104, -60) for n in range(3))
        assert status.noise == expected

    assert on(planned(settings, sx1261_conf=SCANNING), act).counters["scans_failed"] == 0


@needs_cc
@pytest.mark.parametrize("word", ["scanstart", "scanstatus", "scanresults"])
def test_a_scan_that_fails_is_counted_and_the_radio_goes_on(
    settings: Sx1302Settings, tmp_path: Path, word: str
) -> None:
    (tmp_path / "mode").write_text(word)

    async def act(source: Sx1302) -> None:
        async with asyncio.timeout(10):
            await until(lambda: source.counters["scans_failed"] > 0)
        (tmp_path / "uplink").touch()
        assert len(await frames(source, 2)) == 2

    assert on(planned(settings, sx1261_conf=SCANNING), act).counters["scans"] == 0


@needs_cc
def test_a_frame_ends_the_scan_before_it(settings: Sx1302Settings, tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("scanslow")

    async def act(source: Sx1302) -> None:
        async with asyncio.timeout(10):
            await until((tmp_path / "scanning").exists)
        assert await source.transmit(TRANSMISSION) == TxResult()
        assert (tmp_path / "aborted").exists()

    on(planned(settings, sx1261_conf=SCANNING), act)


class Radio:
    """As much of the library as the scanner asks."""

    def __init__(self) -> None:
        self.sending = False
        self.levels: list[tuple[int, int]] | None = None
        self.asked: list[object] = []
        self.broken = False

    def is_sending(self, _: int) -> bool:
        return self.sending

    def start_scan(self, frequency_hz: int, _: int) -> None:
        self.asked.append(frequency_hz)

    def scan_result(self) -> list[tuple[int, int]] | None:
        return self.levels

    def abort_scan(self) -> None:
        self.asked.append("abort")
        if self.broken:
            raise LibraryError("no")


def scanner(radio: Radio, *, enable: bool = True) -> Scanner:
    library: Library = radio  # type: ignore[assignment]
    return Scanner(library, SpectralScan(enable, 867_100_000, 2, 1000, 10), [0])


def test_a_scan_waits_while_anything_is_sent_and_goes_from_channel_to_channel() -> None:
    radio = Radio()
    scan = scanner(radio)
    assert scan.step(1.0, is_quiet=False) is None
    radio.sending = True
    assert scan.step(1.0, is_quiet=True) is None
    assert radio.asked == []
    radio.sending = False
    scan.step(1.0, is_quiet=True)
    radio.levels = [(-100, 5)]
    assert scan.step(1.1, is_quiet=False) == Scanned(867_100_000, [(-100, 5)])
    assert scan.step(10.9, is_quiet=True) is None
    scan.step(11.2, is_quiet=True)
    assert scan.step(11.3, is_quiet=True) == Scanned(867_300_000, [(-100, 5)])
    scan.step(22.0, is_quiet=True)
    assert radio.asked == [867_100_000, 867_300_000, 867_100_000]


def test_a_scan_that_does_not_end_is_given_up_and_one_that_is_interrupted_begins_again() -> None:
    radio = Radio()
    scan = scanner(radio)
    scan.step(1.0, is_quiet=True)
    scan.interrupt(1.1)
    scan.interrupt(1.1)
    scan.step(1.2, is_quiet=True)
    assert scan.failed == 0
    scan.step(1.3 + LIMIT, is_quiet=True)
    assert scan.failed == 1
    scan.step(20.0, is_quiet=True)
    radio.broken = True
    scan.interrupt(20.1)
    assert scan.failed == 2
    assert radio.asked == [867_100_000, "abort", 867_100_000, 867_300_000, "abort"]
    assert scanner(radio, enable=False).step(1.0, is_quiet=True) is None


def test_a_histogram_without_a_measurement_says_nothing() -> None:
    assert noise_of(Scanned(867_100_000, [(-4, 0), (0, 0)])) is None
    assert noise_of(Scanned(867_100_000, [(0, 4), (-100, 96)])) == ChannelNoise(867_100_000, -100, -100)


@contextmanager
def receiver() -> Iterator[PtyDevice]:
    """A receiver that says the GPS second 100 ms after every pulse of the stand-in."""
    over = threading.Event()

    def speak(device: PtyDevice) -> None:
        while not over.wait(1.1 - time.monotonic() % 1):
            device.send(gga() + time_gps(GPS_S + int(time.monotonic()), 18))

    with attached(silent) as device:
        speaking = threading.Thread(target=speak, args=(device,))
        speaking.start()
        try:
            yield device
        finally:
            over.set()
            speaking.join()


@needs_cc
@pytest.mark.slow
def test_a_frame_is_sent_at_its_gps_time_and_those_heard_have_theirs(
    settings: Sx1302Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at_gps = msgspec.structs.replace(TRANSMISSION, timing=TxTiming.AT_GPS_TIME)

    async def send(source: Sx1302, ahead_s: float) -> tuple[str | None, int]:
        moment = round((GPS_S + time.monotonic() + ahead_s) * 1000)
        result = await source.transmit(msgspec.structs.replace(at_gps, gps_time_ms=moment))
        return result.error, (moment - GPS_S * 1000) * 1000 % 2**32

    async def act(source: Sx1302) -> None:
        assert (await send(source, 0.5))[0] == "GPS_UNLOCKED"
        async with asyncio.timeout(60):
            while (await send(source, -2))[0] == "GPS_UNLOCKED":  # noqa: ASYNC110  # it is another thread's clock
                await asyncio.sleep(0.2)
        assert (await send(source, -2))[0] == "TOO_LATE"
        assert (await send(source, 400))[0] == "TOO_EARLY"
        assert (await send(source, 2200))[0] == "TOO_EARLY"
        error, count = await send(source, 0.5)
        assert error is None
        sent = int((tmp_path / "sent").read_text().split()[2])
        assert abs(sent - count) <= 50
        (tmp_path / "uplink").touch()
        heard, _ = await frames(source, 2)
        assert heard.gps_time_ms is not None
        assert heard.tmst is not None
        now = time.monotonic()
        ago_us = (round(now * 1e6) - heard.tmst + 2**31) % 2**32 - 2**31
        assert abs(heard.gps_time_ms - (GPS_S + now) * 1000 + ago_us / 1000) < 20
        async with asyncio.timeout(30):
            while True:
                statuses = [one for one in await source.receive() if isinstance(one, GatewayStatus)]
                if statuses:
                    break
        place = statuses[-1]
        assert place.latitude == pytest.approx(46.8637, abs=1e-3)
        assert place.longitude == pytest.approx(-7.432, abs=1e-3)
        assert place.altitude_m == 548.0

    caplog.set_level(logging.INFO)
    with receiver() as device:
        on(msgspec.structs.replace(settings, gnss_device=device.path), act)
    assert "GPS time is known" in caplog.text


@needs_cc
def test_a_receiver_that_is_not_there_is_told_once_and_the_radio_works(
    settings: Sx1302Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(source: Sx1302) -> None:
        (tmp_path / "uplink").touch()
        assert all(one.gps_time_ms is None for one in await frames(source, 2))
        async with asyncio.timeout(10):
            await until(lambda: "the GNSS receiver cannot be read" in caplog.text)

    on(msgspec.structs.replace(settings, gnss_device="/dev/no_such_receiver"), act)
    assert caplog.text.count("the GNSS receiver cannot be read") == 1


@needs_cc
@pytest.mark.slow
def test_a_frame_for_a_late_moment_is_answered_at_its_moment(
    settings: Sx1302Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorabridge.radio.sx1302.source.ANSWER_LIMIT", 1.0)

    async def act(source: Sx1302) -> None:
        for _ in range(2):  # before the counter was read, and after
            at = (time.monotonic_ns() // 1000 + 2_500_000) % 2**32
            timed = msgspec.structs.replace(TRANSMISSION, timing=TxTiming.AT_TMST, tmst=at)
            assert await source.transmit(timed) == TxResult()

    on(settings, act)


@needs_cc
def test_more_frames_than_can_wait_are_refused(settings: Sx1302Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorabridge.radio.sx1302.source.PENDING_LIMIT", 1)

    async def act(source: Sx1302) -> None:
        at = (time.monotonic_ns() // 1000 + 2_000_000) % 2**32
        timed = msgspec.structs.replace(TRANSMISSION, timing=TxTiming.AT_TMST, tmst=at)
        first = asyncio.create_task(source.transmit(timed))
        await asyncio.sleep(0)
        assert (await source.transmit(TRANSMISSION)).error == "TOO_MANY_PENDING"
        assert await first == TxResult()
        assert (await source.transmit(msgspec.structs.replace(timed, tmst=None))).error == "UNSENDABLE"

    on(settings, act)


@pytest.mark.parametrize("path", ["", "/dev/" + "x" * 45, "/dev/spi\0"])
def test_a_plan_whose_device_the_library_cannot_take_is_refused(settings: Sx1302Settings, path: str) -> None:
    with pytest.raises(ConfigError, match="no device path"):
        asyncio.run(Sx1302(planned(settings, com_path=path)).start())


def test_a_plan_without_a_transmitter_cannot_transmit(settings: Sx1302Settings) -> None:
    assert Sx1302(settings).can_transmit
    silent_plan = planned(settings, radio_0={**PLAN["radio_0"], "tx_enable": False})
    assert not Sx1302(silent_plan).can_transmit
    settings.configuration.write_text("{}")
    assert Sx1302(settings).can_transmit, "what is wrong with the file is told at the start"
