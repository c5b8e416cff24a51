"""Any bytes from a serial port are judged, never an error. `make fuzz` runs this for longer."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.radio.gnss.clock import GnssClock
from lorabridge.radio.gnss.framing import MAX_UBX_PAYLOAD, Scanner
from lorabridge.radio.gnss.messages import interpret
from lorabridge.radio.mcu_frames import ANSWER_BYTES, Command, Looks, find_answer, parse_identity, parse_status
from tests.radio.gnss_sender import nmea, ubx

fields = st.text("0123456789.-NSEWAMV*$ ", max_size=10)
sentences = st.builds(
    lambda address, rest: nmea(",".join([address, *rest])),
    st.sampled_from(["GPGGA", "GPRMC", "GNRMC", "PUBX", ""]),
    st.lists(fields, max_size=15),
)
messages = st.binary(max_size=40).map(lambda payload: ubx(1, 0x20, payload)) | st.binary(min_size=16, max_size=16).map(
    lambda payload: ubx(1, 0x20, payload)
)


@given(st.lists(st.binary(max_size=300) | sentences | messages, max_size=12))
def test_a_receiver_may_say_anything(pieces: list[bytes]) -> None:
    scanner, clock = Scanner(), GnssClock()
    for at, piece in enumerate(pieces):
        for message in scanner.feed(piece):
            said = interpret(message)
            if said is not None:
                clock.note(said, float(at))
        assert len(scanner._held) <= MAX_UBX_PAYLOAD + 8
        state = clock.state(float(at))
        assert state.position is None or (abs(state.position.latitude) <= 90 and abs(state.position.longitude) <= 180)
        assert state.missed_seconds >= 0


@given(st.binary(max_size=300), st.integers(0, 255), st.sampled_from(Command))
def test_a_controller_may_answer_anything(heard: bytes, ident: int, command: Command) -> None:
    found = find_answer(heard, ident, command)
    assert found.looks is not Looks.WHOLE or len(found.payload) == ANSWER_BYTES[command]


@given(st.binary(min_size=21, max_size=21), st.binary(min_size=6, max_size=6))
def test_the_contents_of_an_answer_may_be_anything(identity: bytes, status: bytes) -> None:
    told = parse_status(status)
    assert 0 <= told.uptime_ms < 2**32
    assert -327.68 <= told.temperature_c <= 327.67
    with suppress(ValueError):
        assert parse_identity(identity).unique_id == identity[:12].hex()
