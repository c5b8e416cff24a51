"""Any line of input gets one line of JSON, whatever it holds. `make fuzz` runs this for longer."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.cli.decode import MAX_LINE, read_lines, to_json, tree
from lorabridge.lorawan.answer import Judge, answer_line, answer_text
from lorabridge.lorawan.inspection import KnownKeys
from lorabridge.lorawan.question import Fault
from lorabridge.lorawan.types import MacVersion
from lorabridge.lorawan.verdict import Reason
from tests.lorawan.builders import KEYS_1_0, device, device_1_1, uplink

SECRET = KEYS_1_0.f_nwk_s_int_key.reveal().hex()
REASONS = {*(reason.value for reason in Reason), *(fault.value for fault in Fault)}
DEVICES = (device(), device_1_1(name="other", session_keys=KEYS_1_0))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
frames = (st.binary(max_size=64) | st.integers(0, 3).map(lambda n: uplink(device(), n))).flatmap(
    lambda data: st.sampled_from([data.hex(), data.hex().upper(), data.hex(" ")])
)
keys = st.dictionaries(st.sampled_from(KnownKeys.__struct_fields__), st.just(SECRET) | anything, max_size=4)
counters = st.integers(-1, 1 << 33)
right = {
    "phy_payload": frames,
    "mac_version": st.sampled_from(["1.0", "1.1", *(version.value for version in MacVersion)]),
    "direction": st.sampled_from(["up", "down"]),
    "keys": keys,
    "fcnt32": counters,
    "last_fcnt32": counters,
    "conf_fcnt": counters,
    "tx_dr": st.integers(0, 255),
    "tx_ch": st.integers(0, 255),
    "join_eui": st.just("0" * 16),
    "dev_eui": st.just("70b3d57ed0000001"),
    "dev_nonce": st.integers(0, 0xFFFF),
    "join_req_type": st.sampled_from([0, 1, 2, 255]),
    "received_at": st.integers(0, 1 << 63) | st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
    "frequency": st.floats(0, 1e9),
    "data_rate": st.sampled_from(["SF7BW125", "SF12BW500", 50_000]),
}
questions = st.fixed_dictionaries(
    {"phy_payload": frames},
    optional={"id": anything, **{name: values | anything for name, values in right.items() if name != "phy_payload"}},
)
lines = (
    questions.map(lambda question: json.dumps(question).encode())
    | anything.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=100)
    | st.text(alphabet='{}[]":,0123456789eE+-.\\untruefalsid phy_ \t', max_size=80).map(str.encode)
)


def check(answer: dict[str, Any]) -> None:
    """What every answer promises."""
    written = to_json(answer)
    assert "\n" not in written
    assert written.isascii()
    again = msgspec.json.decode(written)
    assert again == json.loads(written)
    assert again["ok"] is ("error" not in again)
    if not again["ok"]:
        assert again["error"]["reason"] in REASONS
        assert again["error"]["message"]
    assert SECRET not in json.dumps({name: value for name, value in again.items() if name != "id"})
    assert all(line.isprintable() for line in tree({name: value for name, value in again.items() if name != "id"}))


@given(st.lists(lines, max_size=6), st.booleans())
def test_every_line_gets_one_answer(asked: list[bytes], judged: bool) -> None:
    judge = Judge(DEVICES, "EU868") if judged else None
    for line in asked:
        answer = answer_line(line, judge)
        check(answer)
        assert next(iter(answer)) == "id"


@given(st.text() | frames)
def test_every_argument_gets_one_answer(text: str) -> None:
    check({"id": None, **answer_text(text, Judge(DEVICES))})


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.booleans())
def test_lines_are_what_stands_between_newlines(asked: list[bytes], ended: bool) -> None:
    stream = b"\n".join(asked) + (b"\n" if asked and ended else b"")
    found = [line.rstrip(b"\n") if line is not None else None for line in read_lines(io.BytesIO(stream))]
    assert found == (asked if ended or not asked or asked[-1] else asked[:-1])


@given(st.integers(MAX_LINE - 2, MAX_LINE + 2) | st.integers(2 * MAX_LINE, 2 * MAX_LINE + 3))
def test_a_line_is_kept_up_to_its_limit_and_none_after_it_is_lost(size: int) -> None:
    first, second = read_lines(io.BytesIO(b"x" * (size - 1) + b"\n" + b"next"))
    assert (first is None) is (size > MAX_LINE)
    assert second == b"next"
