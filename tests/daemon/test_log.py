"""One line a fact; no secret in it, and nothing a peer wrote can pass for our own."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.daemon.log import FIELD_LIMIT, Facts, Log, LogSettings, clean, scalar, set_up, to_journal
from lorabridge.errors import Problem
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr
from lorabridge.lorawan.verdict import Reason, Verdict
from lorabridge.settings import Duration, read_table

KEY = AES128Key.parse("2b7e151628aed2a6abf7158809cf4f3c")


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Capture:
    """The log of a daemon, set up for real on a stream in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stream = io.StringIO()
        self.log: Log | None = None
        self.logger = logging.getLogger("lorabridge.radio.test")

    def start(self, **settings: object) -> None:
        self.log = set_up(
            LogSettings(**settings),  # type: ignore[arg-type]  # each test gives fields of the right type
            stream=self.stream,
            environ={},
            clock=self.clock,
        )

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def capture() -> Iterator[Capture]:
    loggers = logging.getLogger(), logging.getLogger("lorabridge")
    levels = [logger.level for logger in loggers]
    capture = Capture()
    yield capture
    if capture.log is not None:
        capture.log.close()
    assert [logger.level for logger in loggers] == levels, "a log that is closed leaves nothing behind"


def test_a_fact_for_people_is_one_line_with_its_fields(capture: Capture) -> None:
    capture.start()
    Facts(capture.logger, frame="a1b2").info(
        "frame judged", verdict=Verdict.REPLAY, dev_addr=DevAddr(0x26011F00), rssi=-97.5, sealed=False, f_port=None
    )
    (line,) = capture.lines()
    stamp, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == (
        "info radio.test: frame judged frame=a1b2 verdict=replay dev_addr=26011f00 rssi=-97.5 sealed=no f_port=-"
    )


def test_a_fact_for_machines_is_one_json_object_with_numbers_as_numbers(capture: Capture) -> None:
    capture.start(format="json")
    capture.logger.warning(
        "datagram refused", extra={"reason": Reason.TOO_SHORT, "size": 3, "gateway": EUI64(0xAA555A0000000000)}
    )
    (fact,) = capture.objects()
    assert re.fullmatch(r"\d{4}-.*Z", str(fact.pop("time")))
    assert fact == {
        "level": "warning",
        "logger": "radio.test",
        "event": "datagram refused",
        "reason": "too_short",
        "size": 3,
        "gateway": "aa555a0000000000",
    }


def test_a_field_cannot_take_the_place_of_what_every_line_has(capture: Capture) -> None:
    capture.start(format="json")
    Facts(capture.logger).info("renamed", level="critical", name="sensor 1")
    (fact,) = capture.objects()
    assert (fact["level"], fact["level_"], fact["name"]) == ("info", "critical", "sensor 1")


def test_bound_fields_stand_in_every_line_of_one_frames_way(capture: Capture) -> None:
    capture.start(format="json", level="debug")
    facts = Facts(capture.logger).bind(frame="a1").bind(device="door")
    facts.debug("parsed")
    facts.warning("refused", reason="replay")
    assert [(fact["frame"], fact["device"]) for fact in capture.objects()] == [("a1", "door")] * 2


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\r\n<2>kernel: panic", "\x1b[2J", "\u202eevil", "\u2028x", "\u200b", "\ud800", "\x85", "\0"]
)
def test_a_peers_string_stays_one_visible_piece_of_one_line(capture: Capture, form: str, hostile: str) -> None:
    capture.start(format=form)
    Facts(capture.logger).info(hostile, name=hostile, **{hostile: "x"})
    (line,) = capture.stream.getvalue().split("\n")[:-1]
    assert line.isprintable()
    assert len(capture.lines()) == 1


def test_a_field_of_a_peer_cannot_pass_for_two_fields(capture: Capture) -> None:
    capture.start()
    Facts(capture.logger).info("status", text='x" verdict=accepted "', empty="")
    assert capture.lines()[0].endswith(r'status text="x\" verdict=accepted \"" empty=""')


def test_what_is_too_long_is_cut_and_says_by_how_much() -> None:
    assert clean("x" * (FIELD_LIMIT + 7)) == "x" * FIELD_LIMIT + "…(+7)"
    assert clean("x" * FIELD_LIMIT) == "x" * FIELD_LIMIT


@given(st.text(st.characters(), max_size=300))
def test_cleaned_text_is_printable_bounded_and_a_clean_one_is_not_changed(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert len(cleaned) <= 10 * FIELD_LIMIT + 20
    if text.isprintable() and "\\" not in text and len(text) <= FIELD_LIMIT:
        assert cleaned == text


@given(st.text(max_size=50), st.text(max_size=50))
def test_two_different_texts_never_look_the_same(one: str, other: str) -> None:
    assert (clean(one) == clean(other)) == (one == other)


@pytest.mark.parametrize(
    "value",
    [
        KEY,
        KEY.reveal(),
        bytearray(KEY.reveal()),
        memoryview(KEY.reveal()),
        {"nwk_s_key": KEY.reveal().hex()},
        (KEY, KEY.reveal(), [KEY.reveal().hex()]),
        SimpleNamespace(app_s_key=KEY.reveal().hex()),
    ],
    ids=["key", "bytes", "bytearray", "memoryview", "dict", "tuple", "object"],
)
@pytest.mark.parametrize("form", ["human", "json"])
def test_no_form_of_a_key_reaches_a_line(capture: Capture, value: object, form: str) -> None:
    capture.start(format=form)
    Facts(capture.logger).error("key", key=value)
    line = capture.lines()[0]
    for secret in (KEY.reveal().hex(), repr(KEY.reveal())[2:-1], "+~\\x15"):
        assert secret not in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\x00\x01", "<2 bytes>"),
        ((1, "a b", None, Verdict.REPLAY), "1,a b,None,replay"),
        (list(range(25)), ",".join(map(str, range(20))) + ",…"),
        (1 << 53, "9007199254740992"),
        (pytest.param(1 << 16_609, "<16610 bits>", id="huge")),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (True, True),
        (Path("a\nb"), r"a\x0ab"),
        (ValueError("x\ny"), r"ValueError: x\x0ay"),
        (object(), "<object>"),
    ],
)
def test_a_field_is_shown_as_a_scalar_or_as_its_type(value: object, shown: object) -> None:
    assert scalar(value) == shown
    assert type(scalar(value)) is type(shown)


def test_an_exception_is_told_in_the_same_line_with_places_and_without_values(capture: Capture) -> None:
    capture.start()

    def fail(app_s_key: str) -> None:
        raise ValueError("line one\nline two") from KeyError(len(app_s_key))

    try:
        fail(KEY.reveal().hex())
    except ValueError as error:
        Facts(capture.logger).error("unexpected", exc=error)
        capture.logger.exception("unexpected, the standard way")
    first, second = capture.lines()
    for line in (first, second):
        assert r'error="ValueError: line one\x0aline two"' in line
        assert re.search(r'trace="test_log\.py:\d+ test_\w+ > test_log\.py:\d+ fail"', line)
        assert KEY.reveal().hex() not in line


def test_only_the_first_of_a_kind_pass_and_the_rest_are_summed_up(capture: Capture) -> None:
    capture.start(format="json", burst=3, interval=Duration(60))
    for size in range(1000):
        capture.logger.warning("datagram refused", extra={"reason": "too_short", "size": size})
    capture.logger.warning("datagram refused", extra={"reason": "bad_json", "size": 9})
    assert [(fact["reason"], fact["size"]) for fact in capture.objects()] == [
        ("too_short", 0),
        ("too_short", 1),
        ("too_short", 2),
        ("bad_json", 9),
    ]
    capture.clock.now += 60
    capture.logger.warning("datagram refused", extra={"reason": "too_short", "size": 1000})
    summary, passed = capture.objects()[4:]
    assert (summary["event"], summary["reason"], summary["suppressed"], summary["level"]) == (
        "datagram refused",
        "too_short",
        997,
        "warning",
    )
    assert passed["size"] == 1000


def test_a_kind_that_fell_silent_is_summed_up_by_the_tick_and_by_the_end(capture: Capture) -> None:
    capture.start(format="json", burst=1, interval=Duration(10))
    assert capture.log is not None
    for event in ("one", "one", "two"):
        capture.logger.warning(event)
    capture.log.tick()
    assert len(capture.lines()) == 2
    capture.clock.now += 10
    capture.log.tick()
    assert [fact.get("suppressed") for fact in capture.objects()] == [None, None, 1]
    for _ in range(5):
        capture.logger.warning("one")
    capture.log.close()
    assert capture.objects()[-1]["suppressed"] == 4
    capture.log.close()
    capture.logger.warning("after the end")
    assert len(capture.lines()) == 5


def test_frames_that_proved_themselves_and_critical_facts_are_never_suppressed(capture: Capture) -> None:
    capture.start(burst=1)
    facts = Facts(capture.logger)
    for _ in range(20):
        facts.info("frame judged", verdict=Verdict.ACCEPTED)
        facts.critical("store lost")
    assert len(capture.lines()) == 40


def test_the_table_of_kinds_is_bounded_whatever_a_peer_varies(capture: Capture) -> None:
    capture.start(burst=2, interval=Duration(60))
    for number in range(20_000):
        capture.logger.warning("refused", extra={"reason": f"r{number}"})
    assert len(capture.lines()) <= 1024 + 2
    capture.clock.now += 60
    capture.logger.warning("refused", extra={"reason": "afterwards"})
    assert "suppressed=" in capture.stream.getvalue()
    assert capture.lines()[-1].endswith("reason=afterwards")


def test_lines_from_many_threads_stay_whole_and_none_is_lost_uncounted(capture: Capture) -> None:
    capture.start(format="json", burst=50)

    def work() -> None:
        for _ in range(200):
            capture.logger.warning("busy")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capture.log is not None
    capture.log.close()
    facts = capture.objects()
    assert len(facts) == 51
    assert facts[-1]["suppressed"] == 750


def test_libraries_are_heard_from_warning_on_whatever_our_own_level_is(capture: Capture) -> None:
    capture.start(level="debug")
    logging.getLogger("paho").info("chatter")
    logging.getLogger("paho").warning("trouble with %s", "it\n")
    capture.logger.debug("ours")
    assert [line.split(" ", 2)[2] for line in capture.lines()] == [r"paho: trouble with it\x0a", "radio.test: ours"]


def test_a_level_above_warning_holds_for_libraries_too(capture: Capture) -> None:
    capture.start(level="error")
    logging.getLogger("paho").warning("trouble")
    capture.logger.warning("ours")
    assert capture.lines() == []


@pytest.mark.parametrize("form", ["human", "json"])
def test_the_journal_gets_priorities_and_people_do_not(tmp_path: Path, form: str) -> None:
    read, write = os.pipe()
    status = os.fstat(write)
    with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        log = set_up(LogSettings(format=form), stream=writer, environ=environ)  # type: ignore[arg-type]  # one of the two
        logger = logging.getLogger("lorabridge.test")
        for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, logging.WARNING + 5):
            logger.log(level, "hello")
        log.close()
        writer.flush()
        heard = [reader.readline() for _ in range(5)]
    assert [line[:3] for line in heard] == ["<6>", "<4>", "<3>", "<2>", "<4>"]
    assert form == "json" or heard[0] == "<6>test: hello\n"


def test_a_stream_that_is_not_the_one_in_journal_stream_is_no_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        assert not to_journal(stream, {"JOURNAL_STREAM": "1:1"})
        assert not to_journal(stream, {})
    assert not to_journal(io.StringIO(), {"JOURNAL_STREAM": "1:1"})


def unprintable() -> SimpleNamespace:
    class Broken(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError(KEY.reveal().hex())

    return SimpleNamespace(value=Broken("x"))


def test_a_fact_that_cannot_be_written_costs_one_fixed_line(
    capture: Capture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture.start()
    monkeypatch.setattr(logging, "raiseExceptions", True)
    # pytest's own handler would raise here, so ours is asked alone
    record = logging.makeLogRecord(
        {"name": "lorabridge.x", "levelno": 30, "msg": "e", "fields": {"a": unprintable().value}}
    )
    logging.getLogger().handlers[-1].handle(record)
    assert capture.lines() == ["<3>a line of x could not be written"]
    assert capsys.readouterr().err == ""


def test_a_log_that_is_gone_is_no_failure_of_ours(capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    capture.start()
    handler = logging.getLogger().handlers[-1]
    capture.stream.close()
    handler.handle(logging.makeLogRecord({"name": "lorabridge.x", "levelno": 30, "msg": "e"}))
    assert capsys.readouterr().err == ""


def test_the_settings_are_read_like_every_other_table() -> None:
    problems: list[Problem] = []
    table = {"level": "debug", "format": "json", "interval": "5min"}
    assert read_table(LogSettings, table, "f", problems) == LogSettings(
        level="debug", format="json", interval=Duration(300)
    )
    assert read_table(LogSettings, {"level": "loud", "burst": 0}, "f", problems) is None
    assert [problem.where for problem in problems] == ["f: level", "f: burst"]


def test_standard_error_is_the_default_stream(capsys: pytest.CaptureFixture[str]) -> None:
    log = set_up(LogSettings(), stream=sys.stderr)
    try:
        logging.getLogger("lorabridge.test").warning("to standard error")
    finally:
        log.close()
    assert "to standard error" in capsys.readouterr().err
