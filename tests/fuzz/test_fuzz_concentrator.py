"""Any file is a channel plan, or a board, or a ConfigError. `make fuzz` runs this for longer."""

from __future__ import annotations

import copy
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.errors import ConfigError
from lorabridge.lorawan.regions import REGIONS
from lorabridge.radio.boards import BOARDS_FOLDER, Board, board_names, load_board
from lorabridge.radio.channel_plan import all_plans
from lorabridge.radio.concentrator_files import Setup, files
from lorabridge.radio.sx1302.plan import Plan, read_plan
from tests.fuzz.test_fuzz_config import _toml
from tests.radio.sx1302_plan import PLAN

T = TypeVar("T")

SHIPPED = [path.read_bytes() for path in sorted(Path(__file__).parents[2].glob("firmware_configs/*/global_conf.json"))]
BOARDS = [(BOARDS_FOLDER / f"{name}.toml").read_bytes() for name in board_names()]
numbers = st.integers() | st.sampled_from([0, -1, 1 << 31, 1 << 63, 10**400, 868_100_000]) | st.floats()
words = st.sampled_from(["SPI", "USB", "SX1250", "/dev/ttyACM0", "all_sf", "EU868", "\ud800", "\0"]) | st.text(
    max_size=9
)
scalars = st.none() | st.booleans() | numbers | words
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)
noise = st.binary(max_size=60) | st.sampled_from([b"/*", b"*/", b"//", b'"', b'\\"', b"{", b"[", b"\xff", b"\0", b"]"])


def _edited(whole: bytes, at: float, gone: int, put: bytes) -> bytes:
    """A file with some bytes of it replaced."""
    start = int(at * len(whole))
    return whole[:start] + put + whole[start + gone :]


def edits(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(_edited, st.sampled_from(originals), st.floats(0, 1), st.integers(0, 40), noise)


def _places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, item in inner for place in _places(item, (*here, key)))]


@st.composite
def strange_plans(draw: st.DrawFn) -> bytes:
    """A plan that is in order but for one or two values, as JSON."""
    document = {"SX130x_conf": copy.deepcopy(PLAN)}
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(_places(document)[1:]))
        holder: Any = document
        for step in way:
            holder = holder[step]
            if not isinstance(holder, (dict, list)):
                break
        if isinstance(holder, (dict, list)):
            holder[last] = draw(values)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _read(text: bytes, read: Callable[[Path], T]) -> T | None:
    """What a file of these bytes is, or None with reasons that can be shown."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        try:
            return read(Path(file.name))
        except ConfigError as error:
            problems = error.problems
        assert problems
        assert all(problem.where.startswith(file.name) and problem.what for problem in problems)
        "".join(map(str, problems)).encode()
        return None


def _check_plan(plan: Plan | None) -> None:
    """What was taken can be handed to the library's process."""
    if plan is None:
        return
    assert all(100_000_000 <= radio.freq <= 1_000_000_000 for radio in plan.radios if radio.enable)
    plan.com_path.encode()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def _check_board(board: Board | None) -> None:
    """What was taken makes files for every region that it names, and each is a plan again."""
    if board is None:
        return
    assert all(math.isfinite(term) for term in msgspec.structs.astuple(board.rssi_compensation))
    shown = [board.name, *board.spi_device, *board.usb_device, board.gnss or ""]  # in scripts and tables, one line each
    assert not any(character < " " for text in shown for character in text)
    for plan in all_plans():
        if plan.region.name in board.regions[:2]:
            made = files(Setup(plan=plan, board=board, attachment=board.attachments[0]))
            assert _read(made["global_conf.json"].encode(), read_plan) is not None
            json.loads(made["station.conf"], parse_constant=pytest.fail)


@given(st.binary(max_size=300) | edits(SHIPPED) | strange_plans())
def test_any_bytes_are_a_channel_plan_or_a_reason(text: bytes) -> None:
    _check_plan(_read(text, read_plan))


@given(st.binary(max_size=300) | edits(BOARDS))
def test_any_bytes_are_a_board_or_a_reason(text: bytes) -> None:
    _check_board(_read(text, load_board))


toml_values = st.recursive(
    st.booleans()
    | numbers
    | st.sampled_from(sorted(REGIONS))
    | st.text(st.characters(codec="utf-8"), max_size=9)
    | st.sampled_from(
        ["/dev/ttyACM0", "gpsd://x", "/dev/" + "x" * 60, "/dev/ttyACM0\n", "Maker\r", ["/dev/spidev0.0\n"]]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=5),
    max_leaves=12,
) | st.fixed_dictionaries(dict.fromkeys("abcde", st.floats()))


@given(st.sampled_from(BOARDS), st.sampled_from(sorted(set(Board.__struct_fields__) - {"bands"})), toml_values)
def test_a_board_with_one_strange_value_is_taken_or_refused(text: bytes, field: str, value: Any) -> None:
    head, mark, bands = text.decode().partition("[[band]]")
    kept = "".join(line for line in head.splitlines(keepends=True) if not line.startswith(f"{field} ="))
    _check_board(_read(f"{field} = {_toml(value)}\n{kept}{mark}{bands}".encode(), load_board))


@given(
    st.sampled_from(["regions", "rssi_offset", "tx_gain"]),
    toml_values | st.lists(st.lists(st.integers(-200, 200), max_size=4), max_size=18),
)
def test_a_band_with_one_strange_value_is_taken_or_refused(field: str, value: Any) -> None:
    head, mark, _ = BOARDS[0].decode().partition("[[band]]")
    band = {"regions": ["EU868"], "rssi_offset": -215.4, "tx_gain": [[12, 0, 15]]} | {field: value}
    rows = "\n".join(f"{key} = {_toml(item)}" for key, item in band.items())
    _check_board(_read(f"{head}{mark}\n{rows}\n".encode(), load_board))


@pytest.mark.parametrize("piece", [b"/*", b'"', b'\\"', b'"\\', b"//", b"[", b"/* ", b"{\n//"])
def test_a_megabyte_of_what_never_ends_is_refused_at_once(piece: bytes) -> None:
    began = time.process_time()
    assert _read(piece * ((1 << 20) // len(piece)), read_plan) is None
    assert time.process_time() - began < 20  # a search that begins anew at every piece takes hours


@pytest.mark.parametrize(
    "text", [b"x = " + b"[" * 100_000, b"x = " + b"9" * 5000, b"x = 1e999999", b"\xff", b"a." * 9**5]
)
def test_toml_that_python_does_not_like_is_refused(text: bytes) -> None:
    assert _read(text, load_board) is None
