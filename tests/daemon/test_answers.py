"""Answers wait for copies of the uplink, and never so long that the window is lost."""

from __future__ import annotations

import msgspec

from lorabridge.daemon.answers import LEAD, MAX_WAITING, WaitingAnswers
from lorabridge.lorawan.decision import Decision, OwedData, OwedJoin
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import FCnt32
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import DEV_ADDR, OTHER_GATEWAY, SECOND, START, device, heard
from tests.lorawan.joining import joiner

EU868 = REGIONS["EU868"]
TABLE = SessionTable([device(region="EU868")], {})
(ENTRY,) = TABLE.at(DEV_ADDR)
SESSION = TABLE.session(ENTRY)


class Clock:
    """Wall clock and loop clock, both by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = START
        self.answers = WaitingAnswers(0.2, lambda: self.now, lambda: self.wall)

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.wall += round(seconds * SECOND)

    def due_in(self) -> float:
        due = self.answers.next_due()
        assert due is not None
        return round(due - self.now, 6)


def owed(fcnt32: int = 1) -> OwedData:
    return OwedData(
        entry=ENTRY,
        region=EU868,
        uplink=heard(b"", tmst=1),
        fcnt32=FCnt32(fcnt32),
        confirmed=True,
        adr=False,
        adr_ack_req=False,
    )


def owed_join() -> OwedJoin:
    return OwedJoin(
        device=joiner(), join_id=b"join", region=EU868, mac=MacState(), uplink=heard(b"", tmst=1), phy_payload=b"accept"
    )


def copy(fcnt32: int = 1, *, join: bool = False, verdict: Verdict = Verdict.DUPLICATE) -> Decision:
    return Decision(
        reception=heard(b"", gateway=OTHER_GATEWAY, tmst=2),
        verdict=verdict,
        session=None if join else SESSION,
        fcnt32=None if join else FCnt32(fcnt32),
        join_id=b"join" if join else None,
    )


def test_an_answer_waits_for_copies_and_then_names_all_who_heard() -> None:
    clock = Clock()
    clock.answers.add(owed(), 1, alone=False)
    clock.answers.note_copy(copy())
    clock.answers.note_copy(copy(verdict=Verdict.REPLAY))
    clock.answers.note_copy(copy(2))
    assert (clock.due_in(), clock.answers.take_due()) == (0.2, [])
    clock.pass_(0.2)
    (waiting,) = clock.answers.take_due()
    assert [one.gateway_eui for one in waiting.copies] == [owed().uplink.gateway_eui, OTHER_GATEWAY]
    assert len(clock.answers) == 0
    assert clock.answers.next_due() is None


def test_copies_of_a_join_request_are_gathered_too() -> None:
    clock = Clock()
    clock.answers.add(owed_join(), 5, alone=False)
    clock.answers.note_copy(copy(join=True))
    clock.answers.note_copy(msgspec.structs.replace(copy(join=True), join_id=b"another"))
    clock.answers.note_copy(msgspec.structs.replace(copy(), session=None))
    clock.pass_(1)
    assert len(clock.answers.take_due()[0].copies) == 2


def test_a_gateway_that_is_alone_need_not_wait_for_others() -> None:
    clock = Clock()
    clock.answers.add(owed(), 1, alone=True)
    assert len(clock.answers.take_due()) == 1


def test_what_was_heard_a_while_ago_waits_less_and_never_into_the_window() -> None:
    clock = Clock()
    clock.pass_(0.5)
    clock.answers.add(owed(), 1, alone=False)
    assert clock.due_in() == round(1 - LEAD - 0.5, 6)
    clock.pass_(0.4)
    clock.answers.add(owed(2), 1, alone=False)
    assert clock.due_in() <= 0


def test_a_reception_by_another_clock_counts_as_just_heard() -> None:
    for away in (-7, 4000):
        clock = Clock()
        clock.wall += away * SECOND
        clock.answers.add(owed(), 1, alone=False)
        assert clock.due_in() == 0.2
        clock.now += 0.2
        assert clock.answers.take_due()[0].heard_at == 1000.0


def test_of_two_answers_that_are_due_for_one_session_the_newest_is_given() -> None:
    clock = Clock()
    clock.answers.add(owed(1), 1, alone=False)
    clock.answers.add(owed(2), 1, alone=False)
    clock.pass_(0.3)
    (waiting,) = clock.answers.take_due()
    assert isinstance(waiting.owed, OwedData)
    assert waiting.owed.fcnt32 == 2


def test_a_flood_of_answers_is_bounded_and_counted() -> None:
    clock = Clock()
    for n in range(MAX_WAITING + 5):
        clock.answers.add(owed(n), 1, alone=False)
    assert (len(clock.answers), clock.answers.dropped) == (MAX_WAITING, 5)
