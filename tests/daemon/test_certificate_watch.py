"""Certificates that end soon are told once a day, and what became of a new one is told at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lorabridge.daemon.certificate_watch import CertificateWatch, certificate_facts
from lorabridge.upstream.faults import LinkDown, LinkFault
from lorabridge.upstream.link import LinkReport
from tests.daemon.config_help import captured_log, lines_of

END = datetime(2027, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ENDS_SOON = "our certificate ends soon, replace it: the files are taken over by themselves"


class Link:
    """What the watch asks of the link."""

    def __init__(self) -> None:
        self.certificate_valid_until: datetime | None = None
        self.told: list[str] = []

    def tell(self, detail: str) -> None:
        self.told.append(detail)


def test_the_end_is_told_once_a_day_from_the_day_that_was_asked_for() -> None:
    now = END - 40 * DAY
    link, watch = Link(), CertificateWatch(30 * 86_400.0, lambda: now.timestamp())  # noqa: PLW0108  # `now` moves
    with captured_log() as stream:
        watch.look(link)
        link.certificate_valid_until = END
        for _ in range(2 * 24 * 12):  # twelve days, every half an hour
            watch.look(link)
            now += DAY / 48
        lines = lines_of(stream, ENDS_SOON)
    assert [line["days_left"] for line in lines] == [30, 29]
    assert link.told == ["certificate expires on 2027-03-01"] * 2


def test_another_certificate_is_another_end() -> None:
    link, watch = Link(), CertificateWatch(30 * 86_400.0, END.timestamp)
    link.certificate_valid_until = END
    watch.look(link)
    link.certificate_valid_until = END + DAY
    watch.look(link)
    watch.look(link)
    assert link.told == ["certificate expires on 2027-03-01", "certificate expires on 2027-03-02"]
    link.certificate_valid_until = END + 365 * DAY
    watch.look(link)
    assert len(link.told) == 2


@pytest.mark.parametrize(
    ("refusal", "level", "event"),
    [
        (None, "info", "the new certificate proved itself and is in use"),
        (LinkDown(LinkFault.LOCAL_FILES, "own.key: is encrypted"), "error", "the new certificate is not used"),
    ],
)
def test_what_became_of_a_new_certificate_is_told(refusal: LinkDown | None, level: str, event: str) -> None:
    with captured_log() as stream:
        CertificateWatch(0.0, lambda: 0.0).judged(refusal)
        (line,) = lines_of(stream)
    assert line["level"] == level
    assert line["event"].startswith(event)
    assert line.get("hint", "") == ("" if refusal is None else LinkFault.LOCAL_FILES.hint)


def test_status_says_which_certificate_is_in_use() -> None:
    assert certificate_facts(LinkReport(), None) == {}
    facts = certificate_facts(LinkReport(rolled_back=True), END)
    assert facts["certificate_expires"] == "2027-03-01T00:00:00Z"
    assert "refused" in facts["certificate"]
    assert certificate_facts(LinkReport(), END)["certificate"] == "in use"
