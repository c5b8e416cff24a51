"""Concentrator boards as data: what `hardware/boards/*.toml` says of each, read strictly."""

from __future__ import annotations

import sysconfig
import tomllib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.regions import REGIONS
from lorabridge.settings import read_table

_CHECKOUT = Path(__file__).parents[2] / "hardware" / "boards"
_INSTALLED = Path(sysconfig.get_path("data"), "share", "lorabridge", "hardware", "boards")
BOARDS_FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
"""One file a board; the name of the file is the name of the board."""

MAX_GAIN_STEPS = 16
"""TX_GAIN_LUT_SIZE_MAX of sx1302_hal 2.1.0."""
MAX_PATH = 49
"""Characters of a device path: the HAL copies that of a USB board into 50 bytes."""
_MAX_PWR_IDX = 22

Line = Annotated[int, Meta(ge=2, le=27)]
Device = Annotated[str, Meta(pattern=r"^/dev/[A-Za-z0-9_./-]+\Z", max_length=MAX_PATH, description="device file")]
I2cAddress = Annotated[int, Meta(ge=0x08, le=0x77)]
Coefficient = Annotated[float, Meta(ge=-1e9, le=1e9)]
Receiver = Annotated[str, Meta(pattern=r"^(/dev/|gpsd://)[A-Za-z0-9_.:/-]+\Z")]


class Pins(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of the Raspberry Pi's 40-pin header that the board needs, by BCM number."""

    reset: Annotated[Line, Meta(description="reset of the SX1302, active high")]
    power_enable: Annotated[Line | None, Meta(description="power of the board, 1 is on")] = None
    sx1261_reset: Annotated[Line | None, Meta(description="reset of the SX1261, active low")] = None

    def __post_init__(self) -> None:
        lines = [line for line in (self.reset, self.power_enable, self.sx1261_reset) if line is not None]
        if len(set(lines)) != len(lines):
            raise ValueError("one line has two jobs")


class RssiCompensation(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to the RSSI offset at T °C: (a·T⁴ + b·T³ + c·T² + d·T + e) / 65536 dB."""

    a: Coefficient
    b: Coefficient
    c: Coefficient
    d: Coefficient
    e: Coefficient


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """What depends on the part of the spectrum that a variant of the board is built for."""

    regions: Annotated[tuple[str, ...], Meta(description="regional plans that filters and amplifier are made for")]
    rssi_offset: Annotated[float, Meta(ge=-300, le=0, description="dB added to the RSSI of the chip")]
    tx_gain: Annotated[
        tuple[tuple[int, ...], ...],
        Meta(description="steps of [dBm at the antenna connector, pa_gain, pwr_idx] as the SX1250 takes them"),
    ]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.regions) - REGIONS.keys())
        if unknown or not self.regions:
            raise ValueError(f"regions: {', '.join(unknown) or 'none'}; known are {', '.join(REGIONS)}")
        if not 1 <= len(self.tx_gain) <= MAX_GAIN_STEPS or any(len(step) != 3 for step in self.tx_gain):
            raise ValueError(f"tx_gain: 1 to {MAX_GAIN_STEPS} steps of three numbers")
        for power, pa_gain, pwr_idx in self.tx_gain:
            if not (-128 <= power <= 127 and pa_gain in (0, 1) and 0 <= pwr_idx <= _MAX_PWR_IDX):
                raise ValueError(f"tx_gain: the SX1250 does not take [{power}, {pa_gain}, {pwr_idx}]")
        if any(low[0] >= high[0] or low[1:] > high[1:] for low, high in pairwise(self.tx_gain)):
            raise ValueError("tx_gain: more power has to be a later step, and never less gain")


class Board(msgspec.Struct, frozen=True, kw_only=True, rename={"bands": "band"}):
    """One board, or the two forms of one: SPI and USB."""

    name: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z", max_length=80, description="maker and model")]
    sources: Annotated[tuple[str, ...], Meta(description="where the facts are from")]
    radio: Annotated[Literal["SX1250"], Meta(description="both radio chips")]
    clock_source: Annotated[int, Meta(ge=0, le=1, description="radio that gives the clock")]
    single_input: Annotated[tuple[bool, ...], Meta(description="single_input_mode of radio 0 and of radio 1")]
    spi_device: Annotated[tuple[Device, ...], Meta(description="device files on SPI, the usual one first")] = ()
    usb_device: Annotated[tuple[Device, ...], Meta(description="device files on USB, the usual one first")] = ()
    pins: Annotated[
        Pins | None, Meta(description="lines of the header; a USB board needs none, its microcontroller does it")
    ] = None
    temperature_sensor: Annotated[
        I2cAddress | None,
        Meta(description="I²C address of the STTS751 on `/dev/i2c-1`; the HAL does not start an SPI board without it"),
    ] = None
    gnss: Annotated[
        Receiver | None,
        Meta(description="where position and time come from, on boards that are sold with a receiver"),
    ] = None
    rssi_compensation: Annotated[
        RssiCompensation,
        Meta(description="dB added to the RSSI at T °C: (a·T⁴ + b·T³ + c·T² + d·T + e) / 65536"),
    ]
    bands: Annotated[tuple[Band, ...], Meta(description="what depends on the region; a region stands in one band")]

    def __post_init__(self) -> None:
        if not self.spi_device and not self.usb_device:
            raise ValueError("spi_device or usb_device is needed")
        if len(self.single_input) != 2:
            raise ValueError("single_input: one value for each of the two radios")
        if not self.sources:
            raise ValueError("sources: at least one")
        if len(set(self.regions)) != len(self.regions):
            raise ValueError("band: a region stands in two bands")
        if not self.bands:
            raise ValueError("band: at least one")

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of all regional plans that the board is made for."""
        return tuple(region for band in self.bands for region in band.regions)

    @property
    def attachments(self) -> tuple[Literal["spi", "usb"], ...]:
        """How it can be attached, the usual way first."""
        ways: tuple[tuple[Literal["spi", "usb"], tuple[str, ...]], ...] = (
            ("spi", self.spi_device),
            ("usb", self.usb_device),
        )
        return tuple(way for way, devices in ways if devices)

    def band(self, region: str) -> Band | None:
        """The band that a regional plan lies in, None when the board is not made for it."""
        return next((band for band in self.bands if region in band.regions), None)


def load_board(path: Path) -> Board:
    """Read one board file. Raises ConfigError with everything that is wrong."""
    problems: list[Problem] = []
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number beyond all bounds; too deep
        raise ConfigError([Problem(where=str(path), what=f"cannot be read: {error}")]) from error
    board = read_table(Board, table, str(path), problems)
    if board is None:
        raise ConfigError(problems)
    return board


def board_names(folder: Path = BOARDS_FOLDER) -> tuple[str, ...]:
    """The names of all boards in a folder, in alphabetical order."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def find_board(name: str, folder: Path = BOARDS_FOLDER) -> Board:
    """The board of this name. Raises ConfigError that lists the known ones."""
    known = board_names(folder)
    if name not in known:
        raise ConfigError([Problem(where="board", what=f"{name!r} is not known", hint=_known(known, folder))])
    return load_board(folder / f"{name}.toml")


def _known(names: Iterable[str], folder: Path) -> str:
    listed = ", ".join(names)
    return f"known: {listed}" if listed else f"there are no board files in {folder}"
