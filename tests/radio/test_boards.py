"""The facts about boards hang together, and a board file that does not is refused with everything that is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lorabridge.errors import ConfigError
from lorabridge.radio.boards import BOARDS_FOLDER, MAX_PATH, Board, board_names, find_board, load_board

HARDWARE = Path(__file__).parents[2] / "hardware"
NAMES = board_names()

GOOD = """\
name = "Maker Model"
sources = ["a page"]
radio = "SX1250"
clock_source = 0
single_input = [true, false]
spi_device = ["/dev/spidev0.0"]
pins = { reset = 17, power_enable = 18 }
temperature_sensor = 0x39
gnss = "/dev/ttyAMA0"
rssi_compensation = { a = 0.0, b = 0.0, c = 20.41, d = 2162.56, e = 0.0 }

[[band]]
regions = ["EU868"]
rssi_offset = -215.4
tx_gain = [[12, 0, 15], [27, 1, 14]]
"""


def load(tmp_path: Path, text: str) -> Board:
    path = tmp_path / "model.toml"
    path.write_text(text)
    return load_board(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    return str(refused.value)


def test_the_boards_are_those_of_this_checkout() -> None:
    assert BOARDS_FOLDER == HARDWARE / "boards"
    assert len(NAMES) == 19


@pytest.mark.parametrize("name", NAMES)
def test_a_board_is_valid_and_its_sensor_is_where_the_hal_looks(name: str) -> None:
    board = find_board(name)
    assert board.regions
    assert board.temperature_sensor in {None, 0x38, 0x39, 0x3B}
    assert board.pins is None or board.spi_device


def test_no_two_boards_have_one_name() -> None:
    assert len({find_board(name).name for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_a_board_has_its_wiring_and_its_traps(name: str) -> None:
    board = find_board(name)
    called = board.name.split()[-1] if name.startswith("rak") else f"`{name}`"
    pages = [path.read_text(encoding="utf-8") for path in HARDWARE.glob("*.md") if path.name != "README.md"]
    (page,) = [page for page in pages if called in page]
    pins = board.pins
    lines = [] if pins is None else [pins.reset, pins.power_enable, pins.sx1261_reset]
    facts = {f"GPIO{line}" for line in lines if line is not None}
    facts |= {board.gnss.partition(":")[0]} if board.gnss else set()
    facts |= {f"{board.temperature_sensor:#x}"} if board.temperature_sensor else set()
    assert {fact for fact in (*facts, *board.spi_device, *board.usb_device, "Traps") if fact not in page} == set()


def test_the_header_table_has_every_line_that_a_board_uses() -> None:
    readme = (HARDWARE / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("## On a Raspberry Pi") :]
    for pins in (board.pins for board in map(find_board, NAMES) if board.pins is not None):
        for line in (pins.reset, pins.power_enable, pins.sx1261_reset):
            assert line is None or f"| GPIO{line} |" in table


def test_a_board_knows_what_it_is_in_each_region(tmp_path: Path) -> None:
    board = load(tmp_path, GOOD)
    assert board.attachments == ("spi",)
    band = board.band("EU868")
    assert band is not None
    assert band.tx_gain == ((12, 0, 15), (27, 1, 14))
    assert board.band("US915") is None


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"SX1250"', '"SX1257"', "radio"),
        ("clock_source = 0", "clock_source = 2", "clock_source"),
        ("[true, false]", "[true]", "single_input"),
        ('spi_device = ["/dev/spidev0.0"]', "", "spi_device or usb_device"),
        ("/dev/spidev0.0", "spidev0.0", "spi_device"),
        ("/dev/spidev0.0", "/dev/" + "x" * 45, "spi_device"),
        ("/dev/spidev0.0", "/dev/spidev0.0\\n", "spi_device"),
        ("/dev/ttyAMA0", "ttyAMA0", "gnss"),
        ("/dev/ttyAMA0", "/dev/ttyAMA0\\n", "gnss"),
        ("Maker Model", "Maker\\nModel", "name"),
        ("Maker Model", "Maker Model\\n", "name"),
        ("Maker Model", "", "name"),
        ("c = 20.41", "c = nan", "rssi_compensation.c"),
        ("e = 0.0", "e = -inf", "rssi_compensation.e"),
        ("reset = 17", "reset = 28", "pins.reset"),
        ("reset = 17", "reset = 18", "two jobs"),
        ("reset = 17, ", "", "pins.reset: is missing"),
        ("0x39", "0x80", "temperature_sensor"),
        ('["a page"]', "[]", "sources"),
        ('["EU868"]', '["EU686"]', "EU686"),
        ('["EU868"]', "[]", "regions: none"),
        ('["EU868"]', '["EU868", "EU868"]', "two bands"),
        ("-215.4", "20", "rssi_offset"),
        ("[12, 0, 15]", "[12, 0]", "three numbers"),
        ("[[12, 0, 15], [27, 1, 14]]", "[]", "1 to 16 steps"),
        ("[12, 0, 15]", "[12, 0, 23]", "does not take [12, 0, 23]"),
        ("[12, 0, 15]", "[12, 2, 15]", "does not take [12, 2, 15]"),
        ("[12, 0, 15]", "[28, 0, 15]", "more power"),
        ("[12, 0, 15]", "[12, 1, 15]", "more power"),
        ("clock_source", "clock_sauce", "did you mean clock_source?"),
        ("name =", "name", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_board_is_told(tmp_path: Path, before: str, after: str, told: str) -> None:
    assert before in GOOD
    assert told in refusal(tmp_path, GOOD.replace(before, after))


def test_a_board_without_a_band_is_refused(tmp_path: Path) -> None:
    head, _, _ = GOOD.partition("[[band]]")
    assert "at least one" in refusal(tmp_path, head + "band = []\n")


def test_usb_boards_have_a_name_of_their_own_by_udev() -> None:
    rules = [
        line
        for line in (HARDWARE / "60-lorabridge.rules").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    (rule,) = rules
    identity = ('ATTRS{idVendor}=="0483"', 'ATTRS{idProduct}=="5740"')
    effects = ('GROUP="dialout"', 'ENV{ID_MM_DEVICE_IGNORE}="1"', 'SYMLINK+="lorabridge/concentrator-$attr{serial}"')
    assert [part for part in (*identity, *effects) if part not in rule.split(", ")] == []
    assert len("/dev/lorabridge/concentrator-") + 12 <= MAX_PATH


def test_an_unknown_board_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'rak9999' is not known .*rak5146") as refused:
        find_board("rak9999")
    assert all(name in str(refused.value) for name in NAMES)
    with pytest.raises(ConfigError, match="there are no board files in"):
        find_board("rak5146", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_rssi_is_corrected_by_about_a_decibel_at_room_temperature(name: str) -> None:
    terms = tomllib.loads((BOARDS_FOLDER / f"{name}.toml").read_text())["rssi_compensation"]
    decibels = sum(terms[letter] * 25**power for power, letter in enumerate("edcba")) / 65536
    # (20.41 · 25² + 2162.56 · 25) / 65536
    assert decibels == pytest.approx(1.0195, abs=0.001)
