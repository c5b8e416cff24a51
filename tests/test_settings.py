"""Settings: read strictly, refused whole, every reason told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.types import EUI64, DevAddr
from lorabridge.settings import ByteSize, Duration, describe, did_you_mean, examples, read_table


class _Inner(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535, description="a port", examples=[1700])] = 1700
    wait: Duration = Duration(5)

    def __post_init__(self) -> None:
        if self.wait > 60:
            raise ValueError("wait is at most a minute")


class _Outer(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="what it is called")]
    gateway: EUI64 | None = None
    address: DevAddr | None = None
    size: ByteSize = ByteSize(10)
    path: Path = Path("/etc")
    inner: _Inner = _Inner()
    many: tuple[_Inner, ...] = ()
    numbers: tuple[int, ...] = ()


def _read(table: dict[str, Any]) -> tuple[_Outer | None, list[Problem]]:
    problems: list[Problem] = []
    return read_table(_Outer, table, "file.toml", problems), problems


def test_a_whole_table_becomes_typed_settings() -> None:
    settings, problems = _read(
        {
            "name": "roof",
            "gateway": "00-80-00-00-a0-00-01-02",
            "address": "26011fff",
            "size": "4MiB",
            "path": "/var/lib",
            "inner": {"port": 1, "wait": "250ms"},
            "many": [{"port": 2}, {"wait": 3}],
            "numbers": [1, 2],
        }
    )
    assert problems == []
    assert settings == _Outer(
        name="roof",
        gateway=EUI64(0x00800000A0000102),
        address=DevAddr(0x26011FFF),
        size=ByteSize(4 << 20),
        path=Path("/var/lib"),
        inner=_Inner(port=1, wait=Duration(0.25)),
        many=(_Inner(port=2), _Inner(wait=Duration(3))),
        numbers=(1, 2),
    )


def test_every_problem_is_told_at_once_with_its_dotted_path() -> None:
    settings, problems = _read(
        {
            "nmae": "roof",
            "gateway": 12,
            "address": "xyz",
            "inner": {"port": 70000, "wiat": 1},
            "many": [{}, {"wait": "soon"}],
            "numbers": "1",
        }
    )
    assert settings is None
    where = {problem.where.removeprefix("file.toml: ") for problem in problems}
    assert where == {"nmae", "name", "gateway", "address", "inner.port", "inner.wiat", "many[2].wait", "numbers"}
    assert any(problem.hint == "did you mean name?" for problem in problems)


def test_a_rule_of_the_type_itself_is_a_problem_of_its_table() -> None:
    settings, problems = _read({"name": "x", "inner": {"wait": "2min"}})
    assert settings is None
    assert [(problem.where, problem.what) for problem in problems] == [("file.toml: inner", "wait is at most a minute")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10 min", 600), ("10m", 600), ("2h", 7200), ("1.5d", 129600), (7, 7), (0.25, 0.25)],
)
def test_durations_are_read_with_their_unit(text: object, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 parsecs", "-1s", -1, True, None, float("nan"), float("inf"), "1e9s", []])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65536), ("1 MiB", 1 << 20), ("2GB", 2 * 10**9), (5, 5), ("7B", 7)]
)
def test_sizes_are_read_with_their_unit(text: object, size: int) -> None:
    assert ByteSize.parse(text) == size


@pytest.mark.parametrize("text", ["", "5", "5 KB", "-1B", -1, True, None, 1.5])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        ByteSize.parse(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_printed_duration_reads_back_as_itself(milliseconds: int) -> None:
    duration = Duration(milliseconds / 1000)
    assert Duration.parse(str(duration)) == pytest.approx(duration, rel=1e-5)


@given(st.integers(min_value=0, max_value=2**45))
def test_a_printed_size_reads_back_as_itself(size: int) -> None:
    assert ByteSize.parse(str(ByteSize(size))) == size


_toml = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*_Outer.__struct_fields__, "other"]), _toml))
def test_any_table_becomes_settings_or_problems_and_nothing_else(table: dict[str, Any]) -> None:
    settings, problems = _read(table)
    assert (settings is None) == bool(problems)


def test_descriptions_and_examples_come_out_of_the_type() -> None:
    field = msgspec.structs.fields(_Inner)[0]
    assert describe(field.type) == "a port"
    assert examples(field.type) == [1700]
    assert describe(Duration) == ""
    assert examples(Duration) == []


def test_without_a_near_word_the_known_ones_are_listed() -> None:
    assert did_you_mean("zzz", ["alpha", "beta"]) == "known here: alpha, beta"


def test_a_configuration_error_says_everything_in_one_text() -> None:
    error = ConfigError(
        [Problem(where="a", what="is wrong", hint="mend it"), Problem(where="b", what="is odd", warning=True)]
    )
    assert str(error) == "a: is wrong (mend it)\nb: warning: is odd"
