"""The GNSS receiver: its bytes, what they say, what is known from them, and the port they come from."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.radio.gnss.clock import FRESH, GnssClock, TimeQuality
from lorabridge.radio.gnss.framing import MAX_SENTENCE, MAX_UBX_PAYLOAD, Scanner, Sentence, UbxMessage
from lorabridge.radio.gnss.messages import GpsTime, Place, UtcTime, interpret
from lorabridge.radio.gnss.reader import GnssReader
from lorabridge.radio.serial_port import PortError, PortFault
from tests.radio.gnss_sender import UNIX_OF_GPS, gga, nmea, rmc, time_gps, ubx
from tests.radio.pty_device import attached, silent

NS = 1_000_000_000
NOON = 1477742418  # 2026-11-03 12:00:00 UTC, in GPS seconds
LEAP_DAY = 1545912018  # 2028-12-31 12:00:00 UTC, in GPS seconds
PADDING = b"\n" * (MAX_SENTENCE + MAX_UBX_PAYLOAD + 8)


def _said(data: bytes) -> list[Place | UtcTime | GpsTime]:
    return [said for message in Scanner().feed(data) if (said := interpret(message)) is not None]


def test_sentences_of_the_manufacturers_manual_are_read() -> None:
    text = b"$GPGGA,092725.00,4717.11399,N,00833.91590,E,1,08,1.01,499.6,M,48.0,M,,*5B\r\n"
    (place,) = _said(text)
    assert isinstance(place, Place)
    assert place.position is not None
    assert place.position.latitude == pytest.approx(47.2852331, abs=1e-7)
    assert place.position.longitude == pytest.approx(8.5652650, abs=1e-7)
    assert (place.position.altitude_m, place.position.satellites) == (499.6, 8)


def test_a_time_of_another_decade_is_a_clock_that_is_wrong() -> None:
    assert _said(b"$GPRMC,083559.00,A,4717.11437,N,00833.91522,E,0.004,77.52,091202,,,A*57\r\n") == [UtcTime(None)]
    assert _said(time_gps(NOON - 1024 * 604_800, 18)) == [GpsTime(None, 18, 20)]


def test_gps_time_has_its_fraction_and_says_what_is_valid() -> None:
    assert _said(time_gps(NOON, 18, fraction_ns=-4321)) == [GpsTime(NOON * NS - 4321, 18, 20)]
    assert _said(time_gps(NOON, 18, valid=3)) == [GpsTime(NOON * NS, None, 20)]
    for valid in (0, 1, 2, 4, 5, 6):
        assert _said(time_gps(NOON, 18, valid=valid))[0][0] is None


def test_south_and_west_are_negative_and_no_fix_is_no_place() -> None:
    assert _said(gga(0)) == [Place(None)]
    (place,) = _said(nmea("GNGGA,120000,3351.0,S,15112.0,W,1,12,0.9,,M,,M,,"))
    assert isinstance(place, Place)
    assert place.position is not None
    assert (place.position.latitude, place.position.longitude) == pytest.approx((-33.85, -151.2))
    assert place.position.altitude_m is None


@pytest.mark.parametrize(
    "body",
    [
        "GPGGA",
        "GPGGA,120000.00,9100.0,N,00725.9,E,1,08,0.9,548.0,M,47.0,M,,",
        "GPGGA,120000.00,4660.0,N,00725.9,E,1,08,0.9,548.0,M,47.0,M,,",
        "GPGGA,120000.00,4651.8,X,00725.9,E,1,08,0.9,548.0,M,47.0,M,,",
        "GPGGA,120000.00,nan,N,00725.9,E,1,08,0.9,548.0,M,47.0,M,,",
        "GPRMC,256000.00,A,4651.8,N,00725.9,E,0.0,0.0,031126,,,A",
        "GPRMC,120060.00,A,4651.8,N,00725.9,E,0.0,0.0,031126,,,A",
        "GPRMC,120000.00,A,4651.8,N,00725.9,E,0.0,0.0,310226,,,A",
        "GPRMC,120000.00,A",
        "PUBX,00,RMC",
        "GPGSV,1,1,00",
        "",
    ],
)
def test_a_sentence_of_a_wrong_form_or_of_another_kind_says_nothing(body: str) -> None:
    assert _said(nmea(body)) == []


def test_a_wrong_checksum_is_counted_and_nothing_else() -> None:
    for frame in (gga(), time_gps(NOON, 18)):
        for at in range(1, len(frame) - 2):
            scanner = Scanner()
            broken = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
            assert not any(interpret(message) for message in scanner.feed(broken + PADDING))
    scanner = Scanner()
    scanner.feed(gga()[:-3] + b"!\r\n")
    assert scanner.bad_checksums == 1


def test_beginnings_that_cancel_out_in_the_checksum_do_not_swallow_a_sentence() -> None:
    assert _said(b"$GPRMC,$GPRMC," + gga()) == _said(gga())


FRAMES = st.sampled_from([gga(), rmc(NOON, 18), time_gps(NOON, 18)])
NOISE = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from([b"$", b"\xb5", b"\xb5b", b"*", b"\r\n", b"$GPRMC,", b"\xb5b\x01\x20\x10\x00", b"\x00"])
    ).map(b"".join),
)


@given(st.lists(st.tuples(NOISE, FRAMES), max_size=5), st.data())
def test_what_is_right_amid_garbage_is_found_in_any_pieces(
    parts: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(noise + frame for noise, frame in parts) + PADDING
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    scanner, found = Scanner(), list[Sentence | UbxMessage]()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += scanner.feed(stream[begin:end])
        assert len(scanner._held) <= MAX_UBX_PAYLOAD + 8
    expected = [message for _, frame in parts for message in Scanner().feed(frame)]
    said = [message for message in found if message in expected]
    assert said == expected


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_without_an_error(data: bytes) -> None:
    for kind in (data, ubx(1, 0x20, data[:200])):
        for message in Scanner().feed(kind + PADDING):
            interpret(message)


@given(st.sampled_from(["GPGGA", "GPRMC"]), st.lists(st.text("0123456789.-NSEWAMV", max_size=9), max_size=16))
def test_any_fields_are_taken_without_an_error(address: str, fields: list[str]) -> None:
    interpret(Sentence((address, *fields)))


def test_the_time_is_stale_when_statements_stop_and_counts_again_at_once() -> None:
    clock = GnssClock()
    assert clock.state(0).quality is TimeQuality.NONE
    for at in (0, 1, 10):
        for said in _said(time_gps(NOON + at, 18) + gga()):
            clock.note(said, at)
        state = clock.state(at + FRESH)
        assert (state.quality, state.utc_ns) == (TimeQuality.GPS, (NOON + at + UNIX_OF_GPS - 18) * NS)
        assert (state.time_age_s, state.position_age_s) == (FRESH, FRESH)
        late = clock.state(at + FRESH + 0.1)
        assert (late.quality, late.accuracy_ns, late.position) == (TimeQuality.STALE, None, state.position)
    assert clock.state(10).missed_seconds == 8


def test_sentences_count_only_when_gps_time_has_stopped_coming() -> None:
    clock = GnssClock()
    clock.note(GpsTime(NOON * NS, 18, 20), 0)
    for at, quality, known in ((1, TimeQuality.GPS, NOON), (FRESH + 1, TimeQuality.UTC, NOON + 4)):
        for said in _said(rmc(NOON + int(at), 18)):
            clock.note(said, at)
        assert (clock.state(at).quality, clock.state(at).gps_ns) == (quality, known * NS)


def test_leap_seconds_are_assumed_until_a_receiver_knows_them() -> None:
    clock = GnssClock()
    for said in _said(rmc(NOON, 18)):
        clock.note(said, 0)
    state = clock.state(0)
    assert (state.quality, state.gps_ns, state.leap_seconds_assumed) == (TimeQuality.UTC, NOON * NS, True)
    clock.note(GpsTime((NOON + 1) * NS, 19, 50), 1)
    state = clock.state(1)
    assert (state.leap_seconds, state.leap_seconds_assumed, state.accuracy_ns) == (19, False, 50)


@pytest.mark.parametrize("with_ubx", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_a_day_with_a_leap_second_and_lost_pulses(with_ubx: bool, seed: int) -> None:
    """From noon to noon around the leap second at the end of 2028-12-31; fifty losses of up to two minutes."""
    chance = random.Random(seed)
    leap_at = LEAP_DAY + 12 * 3600  # 23:59:60 in GPS time
    begins = [chance.randrange(LEAP_DAY + 10, LEAP_DAY + 86_000) for _ in range(50)]
    lost = {second for begin in begins for second in range(begin, begin + chance.randrange(1, 120))}
    lost -= set(range(leap_at - 2, leap_at + 3))
    scanner, clock, last_utc = Scanner(), GnssClock(), 0
    for second in range(LEAP_DAY, LEAP_DAY + 86_400):
        at, leap = float(second - LEAP_DAY), 18 + (second > leap_at)
        here = second not in lost
        data = rmc(second, leap, leap_second=second == leap_at, status="A" if here else "V")
        data += time_gps(second, leap, valid=7 if here else 0) if with_ubx else b""
        for message in scanner.feed(data):
            said = interpret(message)
            assert said is not None
            clock.note(said, at)
        state = clock.state(at)
        assert state.time_age_s is not None
        told = second - int(state.time_age_s)
        assert state.gps_ns == told * NS
        assert state.utc_ns is not None
        assert state.utc_ns >= last_utc
        last_utc = state.utc_ns
        if here:
            assert state.time_age_s == 0
            assert state.utc_ns == (second + UNIX_OF_GPS - leap) * NS
        assert (state.quality is TimeQuality.STALE) == (state.time_age_s > FRESH)
    assert (clock.state(0).missed_seconds, clock.state(0).leap_seconds) == (len(lost), 19)


def test_a_receiver_on_a_port_is_read_in_pieces_amid_noise() -> None:
    with attached(silent) as device, GnssReader(device.path) as reader:
        stream = b"\x00\xff$GP" + gga() + rmc(NOON, 18)[:20]
        device.send(stream)
        while reader.read(5).position is None:
            pass
        assert reader.read(0.05).quality is TimeQuality.NONE
        device.send(rmc(NOON, 18)[20:] + time_gps(NOON, 18))
        state = reader.identify(5)
        while state.quality is not TimeQuality.GPS:
            state = reader.read(5)
        assert state.gps_ns == NOON * NS


@pytest.mark.parametrize(("sent", "fault"), [(b"", PortFault.SILENT), (b"\xa5" * 50, PortFault.GARBAGE)])
def test_a_port_without_a_receiver_is_told(sent: bytes, fault: PortFault) -> None:
    with attached(silent) as device, GnssReader(device.path) as reader:
        device.send(sent)
        with pytest.raises(PortError) as caught:
            reader.identify(0.2)
    assert caught.value.fault is fault


def _read_often(reader: GnssReader) -> None:
    for _ in range(100):
        reader.read(0.1)


def test_a_receiver_that_disappears_is_told() -> None:
    with attached(silent) as device, GnssReader(device.path) as reader:
        device.send(gga())
        assert reader.read(5).quality is TimeQuality.NONE
        device.close()
        with pytest.raises(PortError) as caught:
            _read_often(reader)
    assert caught.value.fault is PortFault.GONE
